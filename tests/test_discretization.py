"""The discretisation gap: the forced supernet against a loop by hand, statistics put back, a run left as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import nas.darts
import nas.runs.epoch_log
from nas.config import HealthConfig
from nas.darts import search
from nas.diagnostics.discretization import estimate_statistics, forced_matrix, statistics_kept
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.supernet.network import FixedArchitecture, Supernet, decode_supernet
from nas.supernet.node import Node, join_shuffled
from nas.training.interruption import InterruptedRun
from runs import check_same_run, equal, interrupt
from search_spaces.genotype import Genotype, state_names
from search_spaces.graph import random_genotype
from search_spaces.modules import BatchNorm, resize
from test_fast_node import engines
from test_search import settings
from test_supernet import CLASSES, images, space, supernet_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_history", lambda history: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)


def by_hand(supernet: Supernet, genotype: Genotype, x: Tensor) -> Tensor:
    """The forced supernet as a loop over the layers of the path, with nothing but the modules of the plain one."""
    searched, states = genotype.space, state_names(genotype.space.blocks)
    before, stem = supernet.stem(x)
    sizes = [(stem.shape[-2], stem.shape[-1])]
    for _ in range(1, searched.levels):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    on_path: list[tuple[int, Tensor]] = [(0, before), (0, stem)]
    for layer, level in enumerate(genotype.levels, start=1):
        node = supernet.nodes[f"layer{layer}_level{level}"]
        assert isinstance(node, Node)
        last_level, last = on_path[-1]
        sources = [s for s in searched.node_levels(layer - 1) if abs(s - level) <= 1]
        source = sources.index(last_level)
        read = min(level, max(searched.node_levels(max(0, layer - 2))))
        older_level, older = on_path[-2]
        if older_level != read:  # off the path there is nothing
            older = torch.zeros(len(x), searched.node_channels(read), *sizes[read], dtype=x.dtype)
        found = [node.before(older, sizes[level]), node.incoming[source](last, sizes[level])]
        for number, block in enumerate(genotype.cell):
            total = torch.zeros_like(found[0])
            for name, operation in zip(block.inputs, block.operations, strict=True):
                edge = searched.edges.index((states.index(name), number))
                mixed = node.mixed[edge]
                y = found[states.index(name)]
                taken, bypassed = y.split([mixed.mixed_channels, mixed.bypassed_channels], dim=1)
                y = mixed.candidates[operation](taken, source)
                if supernet.architecture.edges is not None:
                    kept = [searched.edges.index((states.index(other), number)) for other in block.inputs]
                    logits = supernet.architecture.edges.detach()
                    y = join_shuffled(y, bypassed) * logits[edge].exp() / logits[kept].exp().sum()
                total = total + y
            found.append(total)
        on_path.append((level, torch.cat(found[2:], dim=1)))
    level, last = on_path[-1]
    return resize(supernet.heads[level](last), (x.shape[-2], x.shape[-1]))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("partial_channels", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_the_forced_supernet_is_the_loop_along_the_path_in_both_engines(
    seed: int, partial_channels: int, training: bool
) -> None:
    searched = space(layers=4)
    genotype, x = random_genotype(searched, seed), images()
    plain, fast = engines(searched, partial_channels=partial_channels)
    with torch.no_grad():
        expected = by_hand(Supernet.train(plain, training), genotype, x)
        plain.load_state_dict(fast.state_dict())  # in training mode, the loop has moved the statistics
        relaxed = fast.eval()(x)
        for supernet in (plain, fast):
            forced = FixedArchitecture(supernet.train(training), supernet.architecture.decided(genotype))
            torch.testing.assert_close(forced(x), expected, rtol=1e-9, atol=1e-9)
            assert forced.training == training
        fast.load_state_dict(engines(searched, partial_channels=partial_channels)[1].state_dict())
        assert torch.equal(fast.eval()(x), relaxed)  # and it forgets


def test_large_logits_say_the_same_where_they_can_say_it() -> None:
    """On a space of one level, one block and two inputs, no edge is dropped and there is one path."""
    searched = space(layers=3, levels=1, blocks=1)
    genotype, x = random_genotype(searched, 3), images()
    for supernet in engines(searched):
        with torch.no_grad():
            decided = supernet.architecture.decided(genotype)
            forced = supernet.eval()(x, decided)
            supernet.architecture.alpha.copy_(100 * decided.alpha - 50)
            torch.testing.assert_close(forced, supernet(x), rtol=1e-9, atol=1e-9)


def test_a_genotype_of_another_space_is_refused() -> None:
    supernet = supernet_of(space())
    with pytest.raises(ValueError, match="the genotype is of test, the supernet of test: give"):
        supernet.architecture.decided(random_genotype(space(layers=4), 0))


def test_estimated_statistics_are_the_mean_over_the_batches_and_are_put_back() -> None:
    torch.manual_seed(0)
    norm = BatchNorm(3)
    batches = [torch.randn(4, 3, 5, 5) * k + k for k in (1, 2, 3)]
    before = [buffer.clone() for buffer in norm.buffers()]
    with statistics_kept(norm):
        estimate_statistics(norm.eval(), batches, CPU, "float32")
        means = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
        variances = torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0)
        torch.testing.assert_close(norm.running_mean, means)
        torch.testing.assert_close(norm.running_var, variances)
        assert norm.momentum == 0.1 and not norm.training
    assert equal(before, list(norm.buffers()))


@pytest.mark.parametrize("partial_channels", [1, 2])
@pytest.mark.parametrize("recompute", ["none", "node"])
def test_both_engines_measure_the_same_and_are_as_before(partial_channels: int, recompute: Any) -> None:
    searched, found = space(), []
    few = [(images(2, seed=seed), torch.empty(0)) for seed in (1, 2)]
    labels = torch.randint(CLASSES, (1, 33, 47), generator=torch.Generator().manual_seed(0))
    whole = [(images(1, seed=3), labels, torch.tensor([0]))]
    for supernet in engines(searched, partial_channels=partial_channels, recompute=recompute):
        supernet.train()
        genotype = decode_supernet(supernet, {})
        before, random = {name: t.clone() for name, t in supernet.state_dict().items()}, torch.get_rng_state()
        found.append(forced_matrix(supernet, genotype, few, whole, CLASSES, CPU).mean_iou())
        assert equal(before, supernet.state_dict()) and torch.equal(random, torch.get_rng_state())
        assert supernet.training
    assert found[0] == found[1] > 0


def test_a_run_that_measures_the_gap_is_the_run_that_does_not(tmp_path: Path) -> None:
    folders = []
    for name, health in (("off", HealthConfig(gap_batches=0)), ("on", HealthConfig(gap_batches=2))):
        config = settings(tmp_path, health=health, out=str(tmp_path / name))
        folders.append(search(config, quiet=True).folder)
    first, second = (load_checkpoint(folder / "checkpoint.pt", "search") for folder in folders)
    for saved in (first, second):
        saved["state"]["memory"].pop("warnings")  # of the gap
    for key in first.keys() - {"config"}:
        assert equal(first[key], second[key]), key
    off, on = (read_metrics(folder) for folder in folders)
    assert not any("gap" in line["health"] for line in off)
    assert ["gap" in line["health"] for line in on] == [False, True, True]  # alpha learns from the second epoch on
    for line in on[1:]:
        assert line["health"]["gap"] == line["val"]["miou"] - line["health"]["forced_miou"]
    assert [line["loss"] for line in off] == [line["loss"] for line in on]


def test_an_interrupt_while_the_gap_is_measured_saves_the_supernet_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    whole = search(config, quiet=True).folder
    again = dataclasses.replace(config, out=str(tmp_path / "again"))
    estimate = nas.diagnostics.discretization.estimate_statistics

    def interrupted(*arguments: Any) -> None:
        estimate(*arguments)
        interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(nas.diagnostics.discretization, "estimate_statistics", interrupted)
        with pytest.raises(InterruptedRun):
            search(again, quiet=True)
    assert len(read_metrics(tmp_path / "again")) == 1
    search(again, resume=tmp_path / "again", quiet=True)
    check_same_run(whole, tmp_path / "again", "search")
