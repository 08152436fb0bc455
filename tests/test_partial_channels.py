"""Partial channels (PC-DARTS): the node by hand, the weights of edges, what decoding makes of them, and a search."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

import nas.runs.epoch_log
from cli.decode import main as nas_decode
from decoders import decode, greedy_cell, redecode
from nas.config import ArchitectureConfig, AugmentConfig, LoaderConfig, SearchConfig, SupernetConfig
from nas.darts import SearchResult, search
from nas.runs.checkpoint import load_checkpoint
from nas.supernet.architecture import Architecture
from nas.supernet.network import Supernet
from nas.supernet.node import MixedOperation, Node, Source, join_shuffled
from nas.training.interruption import InterruptedRun
from runs import check_same_run, interrupt, on_step
from search_spaces.genotype import Block, Genotype, GenotypeError, load_genotype
from search_spaces.operations import OPERATIONS
from search_spaces.space import Head, SearchSpace

OPERATION_NAMES = ("none", "skip", "max_pooling_3x3", "atrous_3x3")
SPACE = SearchSpace("test", 3, 2, 2, 4, OPERATION_NAMES, head=Head((48,)))
CLASSES = 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shuffled(channels: list[Tensor], groups: int) -> list[Tensor]:
    """The first channel of each group, then the second of each, ..."""
    size = len(channels) // groups
    return [channels[group * size + number] for number in range(size) for group in range(groups)]


def test_the_shuffle_by_hand() -> None:
    channels = torch.arange(8.0).reshape(1, 8, 1, 1)
    assert join_shuffled(channels[:, :4], channels[:, 4:]).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert join_shuffled(channels[:, :2], channels[:, 2:]).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert join_shuffled(channels[:, :1], channels[:, 1:]).flatten().tolist() == list(range(8))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_node_is_what_the_papers_say(parts: int) -> None:
    """Edge by edge, channel by channel; only the preprocessing is the node's own."""
    torch.manual_seed(0)
    node = Node(SPACE, 0, [Source(8, 4), Source(16, 8)], Source(8, 4), parts).double()
    incoming, before = [normal(2, 8, 7, 9, seed=1), normal(2, 16, 4, 5, seed=2)], normal(2, 8, 7, 9, seed=3)
    alpha, beta = normal(5, 4, seed=4).softmax(1), normal(2, seed=5).softmax(0)
    weights = torch.tensor([0.3, 0.7, 0.2, 0.5, 0.3], dtype=torch.float64)
    narrow = 4 // parts

    def edge(x: Tensor, number: int) -> Tensor:
        kernel = node.mixed[number].get_submodule("candidates.atrous_3x3.body.convolution").weight
        assert kernel.shape == (narrow, narrow, 3, 3)
        taken = x[:, :narrow]
        convolved = F.conv2d(taken.clamp(min=0), kernel, padding=2, dilation=2)  # type: ignore[arg-type]
        mean, variance = convolved.mean((0, 2, 3), keepdim=True), convolved.var((0, 2, 3), False, keepdim=True)
        none, skip, pool, atrous = alpha[number]
        mixed = none * 0 * taken + skip * taken + pool * F.max_pool2d(taken, 3, 1, 1)
        mixed = mixed + atrous * (convolved - mean) / (variance + 1e-5).sqrt()
        channels = [mixed[:, c] for c in range(narrow)] + [x[:, c] for c in range(narrow, 4)]
        return weights[number] * torch.stack(shuffled(channels, parts), dim=1)

    expected = torch.zeros(2, 8, 7, 9, dtype=torch.float64)
    for source in range(2):
        s0, s1 = node.before(before, (7, 9)), node.incoming[source](incoming[source], (7, 9))
        block1 = edge(s0, 0) + edge(s1, 1)
        block2 = edge(s0, 2) + edge(s1, 3) + edge(block1, 4)
        expected = expected + beta[source] * torch.cat([block1, block2], 1)
    torch.testing.assert_close(node(incoming, before, alpha, beta, (7, 9), weights), expected, rtol=0, atol=1e-12)


def test_every_operation_works_on_a_single_channel() -> None:
    mixed = MixedOperation(OPERATIONS.names(), 4, sources=1, partial_channels=4)
    x = torch.randn(2, 4, 5, 6)
    y = mixed(x, torch.full((len(OPERATIONS.names()),), 0.1), 0)
    assert torch.equal(y[:, 1:], x[:, 1:]) and not torch.equal(y[:, :1], x[:, :1])


def test_the_weights_of_edges_are_a_softmax_over_those_into_a_block() -> None:
    architecture = Architecture(SPACE, weighs_edges=True).double()
    assert architecture.edges is not None
    with torch.no_grad():
        architecture.edges.copy_(torch.tensor([1.0, 3.0, 2.0, 5.0, 3.0], dtype=torch.float64).log())
    weights = architecture().edge_weights
    assert weights is not None
    np.testing.assert_allclose(weights.tolist(), [0.25, 0.75, 0.2, 0.5, 0.3], rtol=1e-12)


def test_every_node_gets_the_weights_and_they_get_gradients() -> None:
    torch.manual_seed(0)
    supernet = Supernet(SPACE, CLASSES, partial_channels=2).double()
    given: list[Tensor] = []
    for node in supernet.nodes.values():
        node.register_forward_pre_hook(lambda _, __, call: given.append(call["edge_weights"]), with_kwargs=True)  # type: ignore[func-returns-value]
    supernet(normal(2, 3, 33, 47)).square().mean().backward()
    weights = supernet.architecture().edge_weights
    assert weights is not None
    assert len(given) == len(supernet.nodes) and all(torch.equal(got, weights) for got in given)
    assert [name for name, p in supernet.named_parameters() if p.grad is None or not p.grad.any()] == []
    gradient = supernet.architecture.edges.grad  # type: ignore[union-attr]
    assert gradient is not None and (gradient != 0).all()
    assert supernet.architecture.edges not in set(supernet.weights())


def test_one_part_is_the_supernet_without_partial_channels() -> None:
    def built(**arguments: Any) -> tuple[Supernet, Tensor, Tensor]:
        torch.manual_seed(0)
        supernet = Supernet(SPACE, CLASSES, **arguments)
        after = torch.rand(1)
        return supernet, supernet(torch.ones(2, 3, 33, 33)), after

    (one, y, after), (plain, expected, expected_after) = built(partial_channels=1), built()
    assert torch.equal(y, expected) and torch.equal(after, expected_after)
    assert list(one.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in one.architecture.named_parameters()] == ["alpha", "beta"]
    mixed, x, alpha = one.nodes["layer1_level0"].mixed[0], torch.randn(2, 4, 5, 6), torch.rand(4)  # type: ignore[index, union-attr]
    terms = [alpha[1 + k] * candidate(x, 0) for k, candidate in enumerate(mixed.candidates.values())]  # type: ignore[operator, union-attr]
    assert torch.equal(mixed(x, alpha, 0), torch.stack(terms).sum(0))


def test_alpha_and_beta_begin_alike_with_and_without() -> None:
    def logits(parts: int) -> list[Tensor]:
        torch.manual_seed(0)
        architecture = Supernet(SPACE, CLASSES, partial_channels=parts).architecture
        return [architecture.alpha, architecture.beta]

    assert all(map(torch.equal, logits(1), logits(2)))


@pytest.mark.parametrize(
    ("number", "engine", "message"),
    [
        (0, "plain", "partial_channels is 0: give a whole number from 1"),
        (-1, "plain", "partial_channels is -1: give a whole number from 1"),
        (3, "plain", "partial_channels is 3, which does not divide the 4 channels of an edge at stride 4: give"),
        (8, "plain", "partial_channels is 8, which does not divide the 4 channels"),
    ],
)
def test_numbers_that_cannot_be_are_refused(number: int, engine: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        Supernet(SPACE, CLASSES, engine, partial_channels=number)
    assert "\n" not in str(raised.value)


ALPHA = np.array(
    [
        [0.1, 0.2, 0.7, 0.0],  # l-2 -> block1
        [0.0, 0.9, 0.1, 0.0],  # l-1 -> block1
        [0.5, 0.5, 0.0, 0.0],  # l-2 -> block2: 0.5 * 0.2 = 0.10
        [0.0, 0.4, 0.6, 0.0],  # l-1 -> block2: 0.6 * 0.3 = 0.18
        [0.4, 0.2, 0.0, 0.4],  # block1 -> block2: 0.4 * 0.5 = 0.20
    ]
)
EDGE_WEIGHTS = np.array([0.01, 0.99, 0.2, 0.3, 0.5])
FIRST = Block(("l-2", "l-1"), ("max_pooling_3x3", "skip"))
BY_ALPHA = (FIRST, Block(("l-2", "l-1"), ("skip", "max_pooling_3x3")))
WEIGHED = (FIRST, Block(("l-1", "block1"), ("max_pooling_3x3", "atrous_3x3")))


def test_the_weights_of_edges_change_the_chosen_inputs() -> None:
    assert greedy_cell(ALPHA, OPERATION_NAMES) == BY_ALPHA
    assert greedy_cell(ALPHA, OPERATION_NAMES, EDGE_WEIGHTS) == WEIGHED


@pytest.mark.parametrize(
    ("weights", "message"), [(np.ones(4), r"shape \[4\]: expected \[5\]"), (np.full(5, np.nan), "not finite")]
)
def test_wrong_weights_are_refused(weights: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        greedy_cell(ALPHA, OPERATION_NAMES, weights)


def weighed_genotype() -> Genotype:
    beta = Architecture(SPACE)().beta.detach().double().numpy()
    return decode(SPACE, ALPHA, beta, edge_weights=EDGE_WEIGHTS)


def test_a_genotype_keeps_the_weights_and_is_decoded_by_them(tmp_path: Path) -> None:
    genotype = weighed_genotype()
    loaded = load_genotype(genotype.save(tmp_path / "genotype.json"))
    assert loaded.edge_weights is not None
    np.testing.assert_array_equal(loaded.edge_weights, EDGE_WEIGHTS)
    assert loaded.to_json() == genotype.to_json() == redecode(loaded).to_json()
    assert loaded.cell == WEIGHED
    without = dataclasses.replace(loaded, edge_weights=None)
    assert "edge_weights" not in without.to_json() and redecode(without).cell == BY_ALPHA


def test_weights_without_alpha_and_of_another_space_are_refused() -> None:
    genotype = weighed_genotype()
    with pytest.raises(GenotypeError, match="edge_weights is there, but alpha is not: expected both, or neither"):
        dataclasses.replace(genotype, alpha=None)
    assert genotype.beta is not None
    with pytest.raises(GenotypeError, match=r"edge_weights has shape \[2\]: expected \[edges\] = \[5\]"):
        decode(SPACE, ALPHA, genotype.beta, edge_weights=EDGE_WEIGHTS[:2])


def test_nas_decode_goes_by_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, output = tmp_path / "genotype.json", tmp_path / "decoded.json"
    dataclasses.replace(weighed_genotype(), cell=BY_ALPHA).save(file)
    nas_decode([str(file), "--output", str(output)])
    assert "ranked by alpha times edge_weights" in capsys.readouterr().out
    assert load_genotype(output).cell == WEIGHED
    nas_decode([str(file), "--as_is"])
    assert "edge_weights" not in capsys.readouterr().out


def settings(folder: Path, **changes: Any) -> SearchConfig:
    """Two epochs of two steps of each kind; the architecture learns in the second."""
    space = folder / "space.yaml"
    space.write_text(dataclasses.replace(SPACE, layers=2).to_yaml())
    values: dict[str, Any] = {
        "space": str(space),
        "out": str(folder / "run"),
        "epochs": 2,
        "loader": LoaderConfig(train_limit=8, val_limit=2, augment=AugmentConfig(crop=(33, 33))),
        "architecture": ArchitectureConfig(lr=0.1, start_epoch=1),
        "supernet": SupernetConfig(engine="plain"),
        "partial_channels": 2,
    }
    return SearchConfig(**(values | changes))


@pytest.fixture(autouse=True, scope="module")
def without_pictures() -> Any:
    """They take most of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
        patch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
        patch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchConfig, SearchResult]:
    config = settings(tmp_path_factory.mktemp("partial"))
    return config, search(config, quiet=True)


def test_a_search_learns_the_weights_and_writes_them(finished: tuple[SearchConfig, SearchResult]) -> None:
    folder = finished[1].folder
    genotype = load_genotype(folder / "genotype.json")
    saved = load_checkpoint(folder / "checkpoint.pt", "search")
    logits = saved["supernet"]["architecture.edges"].double()
    assert logits.abs().min() > 0.01  # two steps of 0.1, from logits around 0.001
    expected = torch.cat([logits[:2].softmax(0), logits[2:].softmax(0)])
    assert genotype.edge_weights is not None
    np.testing.assert_allclose(genotype.edge_weights, expected.numpy(), rtol=0, atol=1e-6)
    assert redecode(genotype).to_json() == genotype.to_json() == finished[1].genotype.to_json()
    assert json.loads((folder / "genotype.json").read_text())["version"] == 1


def test_an_interrupted_search_goes_on_exactly(
    finished: tuple[SearchConfig, SearchResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    with monkeypatch.context() as patch:
        on_step(patch, 4, interrupt)  # after the first step of the architecture
        with pytest.raises(InterruptedRun):
            search(config, quiet=True)
    search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(finished[1].folder, tmp_path / "run", "search")


@pytest.mark.parametrize("number", [1, 4])
def test_resume_with_another_number_is_refused(finished: tuple[SearchConfig, SearchResult], number: int) -> None:
    config, result = finished
    with pytest.raises(ValueError, match="--resume with another partial_channels would be another run"):
        search(dataclasses.replace(config, partial_channels=number), resume=result.folder, quiet=True)
