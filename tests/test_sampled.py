"""Search by sampled single paths: the draws, the forced network against a loop by hand, its cost, and exact resume."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from matplotlib.figure import Figure
from torch import Tensor

import nas.choosing
import nas.runs.epoch_log
import strategies
from cli import decode
from decoders.candidates import Relaxed, best_candidates
from nas.choosing import Measured, decode_by_supernet, drawn_network, drawn_networks, evolved, pareto
from nas.config import ArchitectureConfig, HealthConfig, SampledConfig, SearchConfig, SupernetConfig
from nas.darts import search
from nas.evaluation.memory import search_memory, step_memory
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.supernet.network import Supernet
from nas.supernet.node import Node, Preprocess
from nas.training.interruption import InterruptedRun
from runs import Killed, check_same_run, interrupt, kill, on_step
from search_spaces.genotype import Genotype, load_genotype, state_names
from search_spaces.graph import random_genotype
from search_spaces.modules import resize
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace, load
from search_spaces.validation import from_plain, to_plain
from test_search import settings
from test_supernet import CLASSES, images, space

EVERY = SampledConfig(), SampledConfig(fairness="strict"), SampledConfig(ends="levels")


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_history", lambda history: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)


def sampled(folder: Path, **changes: Any) -> SearchConfig:
    values: dict[str, Any] = {"method": "sampled", "sampled": SampledConfig(top=3)}
    return settings(folder, **(values | changes))


def supernet_of(searched: SearchSpace, seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    return Supernet(searched, CLASSES, samples_paths=True).double()


def by_hand(supernet: Supernet, genotype: Genotype, x: Tensor) -> Tensor:
    """The network of a genotype as the retrained one reads it: H^{l-2} is the path's own, wherever it was."""
    searched, states = genotype.space, state_names(genotype.space.blocks)
    before, stem = supernet.stem(x)
    sizes = [(stem.shape[-2], stem.shape[-1])]
    for _ in range(1, searched.levels):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    on_path: list[tuple[int, Tensor]] = [(0, before), (0, stem)]
    for layer, level in enumerate(genotype.levels, start=1):
        node = supernet.nodes[f"layer{layer}_level{level}"]
        assert isinstance(node, Node)
        (older_level, older), (last_level, last) = on_path[-2:]
        nearest = min(level, max(searched.node_levels(max(0, layer - 2))))
        first = node.before if older_level == nearest else node.elsewhere[str(older_level)]
        source = [s for s in searched.node_levels(layer - 1) if abs(s - level) <= 1].index(last_level)
        found = [first(older, sizes[level]), node.incoming[source](last, sizes[level])]
        for number, block in enumerate(genotype.cell):
            total = torch.zeros_like(found[0])
            for name, operation in zip(block.inputs, block.operations, strict=True):
                edge = searched.edges.index((states.index(name), number))
                total = total + node.mixed[edge].candidates[operation](found[states.index(name)], source)
            found.append(total)
        on_path.append((level, torch.cat(found[2:], dim=1)))
    level, last = on_path[-1]
    return resize(supernet.heads[level](last), (x.shape[-2], x.shape[-1]))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("seed", range(6))
def test_a_forced_network_reads_what_the_path_made_and_nothing_else(seed: int, training: bool) -> None:
    searched = space(layers=5)
    supernet, x, genotype = supernet_of(searched).train(training), images(), random_genotype(searched, seed)
    supernet.forced = genotype
    with torch.no_grad():
        torch.testing.assert_close(supernet(x), by_hand(supernet, genotype, x), rtol=1e-9, atol=1e-9)


def test_every_path_has_weights_for_its_own_input_of_two_layers_before() -> None:
    searched = space(layers=5, levels=4)
    supernet, met = supernet_of(searched), set()
    for seed in range(300):
        levels = (0, 0, *random_genotype(searched, seed).levels)
        for layer in range(1, searched.layers + 1):
            before, level = levels[layer - 1], levels[layer + 1]
            node = supernet.nodes[f"layer{layer}_level{level}"]
            assert isinstance(node, Node)
            if before != min(level, max(searched.node_levels(max(0, layer - 2)))):
                preprocess = node.elsewhere[str(before)]
                assert isinstance(preprocess, Preprocess)
                assert preprocess.body.convolution.in_channels == searched.node_channels(before)
                met.add((layer, level, before))
    there = {(name, at) for name, node in supernet.nodes.items() for at in node.elsewhere}  # type: ignore[union-attr]
    assert there == {(f"layer{layer}_level{level}", str(at)) for layer, level, at in met}  # and none in vain


def test_what_a_sample_leaves_out_is_not_computed_and_gets_no_gradient() -> None:
    searched = space(layers=4, blocks=3)
    supernet, genotype = supernet_of(searched), random_genotype(searched, 2)
    calls: Counter[str] = Counter()
    for name, module in supernet.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    supernet.forced = genotype
    supernet(images()).square().sum().backward()
    candidates = [name for name in calls if ".candidates." in name and name.count(".") == 5]
    assert len(candidates) == searched.layers * 2 * searched.blocks and set(calls.values()) == {1}
    nodes = {name.split(".")[1] for name in calls if name.startswith("nodes.")}
    assert nodes == {f"layer{layer}_level{level}" for layer, level in enumerate(genotype.levels, 1)}
    assert {name.split(".")[1] for name in calls if name.startswith("heads.")} == {str(genotype.levels[-1])}
    for name, parameter in supernet.named_parameters():
        assert (parameter.grad is not None) == (name.rpartition(".")[0] in calls), name


@profile(max_examples=30, deadline=None)
@given(strategies.spaces())
def test_any_space_has_networks_to_draw(searched: SearchSpace) -> None:
    if set(searched.operations) == {NONE}:
        return
    for config in EVERY:
        genotype = drawn_network(searched, config, seed=1, step=7)
        assert genotype.to_json() == drawn_network(searched, config, seed=1, step=7).to_json()
        assert NONE not in {name for block in genotype.cell for name in block.operations}


def test_draws_are_uniform_over_paths_or_over_the_levels_in_which_they_end() -> None:
    searched = space(layers=3, levels=3, blocks=1)
    for config, expected in (
        (SampledConfig(), {0: 4 / 12, 1: 5 / 12, 2: 3 / 12}),  # of 12 paths
        (SampledConfig(ends="levels"), {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
    ):
        drawn = [drawn_network(searched, config, 0, step) for step in range(3000)]
        ends = Counter(genotype.levels[-1] for genotype in drawn)
        assert {level: number / 3000 for level, number in ends.items()} == pytest.approx(expected, abs=0.03)
        operations = Counter(name for genotype in drawn for name in genotype.cell[0].operations)
        assert set(operations) == set(searched.operations) - {NONE}
        assert max(operations.values()) < 1.1 * min(operations.values())


def test_in_a_strictly_fair_round_every_edge_has_every_operation_once() -> None:
    searched = load("autodeeplab-tiny")
    operations = [name for name in searched.operations if name != NONE]
    config = SampledConfig(fairness="strict")
    rounds = []
    for first in range(0, 3 * len(operations), len(operations)):
        drawn = [drawn_network(searched, config, 5, first + turn) for turn in range(len(operations))]
        frames = {(genotype.path, tuple(block.inputs for block in genotype.cell)) for genotype in drawn}
        assert len(frames) == 1
        for block in range(searched.blocks):
            for side in (0, 1):
                assert sorted(genotype.cell[block].operations[side] for genotype in drawn) == sorted(operations)
        rounds.append((frames, [genotype.cell for genotype in drawn]))
    assert rounds[0] != rounds[1] != rounds[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(sampled(tmp_path_factory.mktemp("sampled")), quiet=True).folder


def test_a_run_has_the_files_of_a_search_and_a_genotype_that_was_measured(finished: Path) -> None:
    genotype, lines = load_genotype(finished / "genotype.json"), read_metrics(finished)
    assert genotype.alpha is None and genotype.beta is None
    assert [line["health"]["networks"] for line in lines] == [4, 4, 3]
    for line in lines:
        assert line["val"]["miou"] == line["health"]["forced_miou"] >= line["health"]["forced_mean"]
        assert set(line["loss"]) == {"weights"} and line["warnings"] == []
    assert genotype.provenance["supernet_val_miou"] == lines[-1]["val"]["miou"]
    assert genotype.provenance["decoded_by"] == "supernet"
    shown = [json.loads(line) for line in (finished / "genotypes.jsonl").read_text().splitlines()]
    assert len(shown) == 3 and shown[-1]["path"] == list(genotype.path)
    saved = load_checkpoint(finished / "checkpoint.pt", "search")
    start = Supernet(genotype.space, 6).architecture.state_dict()  # alpha and beta did not learn
    assert saved["supernet"].keys() > {f"architecture.{name}" for name in start}
    assert not saved["architecture"]["optimizer"]["by_name"]


@pytest.mark.parametrize("config", EVERY, ids=["uniform", "strict", "levels"])
def test_weights_learn_on_their_half_alone(
    tmp_path: Path, config: SampledConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    network = nas.choosing.drawn_network
    monkeypatch.setattr("nas.darts.drawn_network", lambda *a: drawn.append(a[3]) or network(*a))  # type: ignore[func-returns-value]
    run = search(sampled(tmp_path, sampled=dataclasses.replace(config, top=1), epochs=2), quiet=True)
    assert drawn == list(range(6))
    assert run.val_miou == read_metrics(run.folder)[-1]["val"]["miou"]


@pytest.mark.parametrize("step", [2, 4, 9])
@pytest.mark.parametrize("action", [kill, interrupt])
def test_a_run_that_was_stopped_resumes_exactly(
    finished: Path, tmp_path: Path, step: int, action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sampled(tmp_path, checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        on_step(patch, step, action)
        with pytest.raises((Killed, InterruptedRun)):
            search(config, quiet=True)
    again = search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(finished, tmp_path / "run", "search")
    assert again.genotype.cell == load_genotype(finished / "genotype.json").cell


def test_an_interrupt_while_networks_are_measured_saves_the_supernet_as_it_was(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nas.diagnostics.discretization as discretization

    config, estimate, calls = sampled(tmp_path), discretization.estimate_statistics, []

    def interrupted(*arguments: Any) -> None:
        estimate(*arguments)
        calls.append(0)
        if len(calls) == 7:
            interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(discretization, "estimate_statistics", interrupted)
        with pytest.raises(InterruptedRun):
            search(config, quiet=True)
    search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(finished, tmp_path / "run", "search")


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(settings(tmp_path_factory.mktemp("darts"), epochs=2), quiet=True).folder


def test_the_end_of_a_search_is_what_decoding_by_supernet_finds(finished: Path) -> None:
    found = decode_by_supernet(finished, top=3, quiet=True)
    genotype = load_genotype(finished / "genotype.json")
    assert (found[0].genotype.cell, found[0].genotype.path) == (genotype.cell, genotype.path)
    assert found[0].miou == pytest.approx(genotype.provenance["supernet_val_miou"], abs=1e-12)
    assert [one.miou for one in found] == sorted((one.miou for one in found), reverse=True)


def test_the_most_probable_networks_of_a_relaxed_search_are_measured(relaxed: Path) -> None:
    stored = load_genotype(relaxed / "genotype.json")
    found = decode_by_supernet(relaxed, top=4, quiet=True)
    best = best_candidates(Relaxed(stored.alpha, stored.beta, stored.space.operations), 4)  # type: ignore[arg-type]
    measured = {(one.genotype.cell, one.genotype.levels) for one in found}
    assert measured == {(one.cell, one.levels) for one in best}
    line = read_metrics(relaxed)[-1]["health"]["forced_miou"]  # with statistics of other batches
    own = next(one for one in found if (one.genotype.cell, one.genotype.path) == (stored.cell, stored.path))
    assert own.miou == pytest.approx(line, abs=0.1) and own.genotype.alpha is not None


@pytest.mark.parametrize("which", ["finished", "relaxed"])
def test_the_command_lists_networks_within_limits_and_writes_the_best(
    which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    run, size = request.getfixturevalue(which), ["--input", "64x64", "--device", "cpu", "--json"]
    before = sorted(run.iterdir())
    decode.main([str(run), "--by", "supernet", "--top", "5", *size])
    everything = json.loads(capsys.readouterr().out)["candidates"]
    bound = sorted(one["multiply_adds"] for one in everything)[2]
    written = tmp_path / "best.json"
    common = [str(run), "--by", "supernet", "--max-multiply-adds", str(bound)]
    decode.main([*common, "--top", "5", *size, "-o", str(written)])
    within = json.loads(capsys.readouterr().out)["candidates"]
    assert within and all(one["multiply_adds"] <= bound for one in within)
    assert list(load_genotype(written).path) == within[0]["path"]
    decode.main([*common, "--evolve", "8", *size])
    front = json.loads(capsys.readouterr().out)["candidates"]
    for key in ("forced_miou", "multiply_adds"):
        assert [one[key] for one in front] == sorted((one[key] for one in front), reverse=True)
    assert sorted(run.iterdir()) == before
    decode.main([str(run), "--by", "supernet", "--top", "2", "--images", "1", *size[:-1]])
    text = capsys.readouterr().out
    assert "mIoU %" in text and "with the supernet's weights, on 1 images" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evolve", "8"], "--evolve is for --by supernet"),
        (["--by", "supernet", "--evolve", "8", "--top", "2"], "leave --top out"),
        (["--by", "supernet", "--vary", "path", "--top", "2"], "--vary does nothing"),
        (["--by", "supernet", "--pareto", "parameters"], "--pareto does nothing with --by supernet without --evolve"),
        (["--by", "supernet", "--as-is"], "--as-is and --by supernet exclude each other: leave one out"),
        (["--by", "supernet", "--evolve", "0"], "--evolve is 0"),
        (["--by", "supernet", "--top", "2", "--max-parameters", "1"], "is within"),
    ],
)
def test_options_without_effect_are_refused(finished: Path, options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode.main([str(finished), *options])


def test_an_evolution_at_the_end_measures_no_network_twice(tmp_path: Path) -> None:
    run = search(sampled(tmp_path, epochs=1, sampled=SampledConfig(evolve=12)), quiet=True)
    assert 1 < run.genotype.provenance["networks"] <= 12


def test_evolution_finds_the_front_of_a_small_space() -> None:
    searched = space(layers=3, levels=2, blocks=1)
    weight = {name: number for number, name in enumerate(searched.operations)}

    def measure(genotype: Genotype) -> Measured:
        worth = sum(weight[name] for name in genotype.cell[0].operations)
        return Measured(genotype, worth / 10, {"cost": worth + sum(genotype.levels)})

    seen = evolved(searched, 200, 3, measure, "cost")
    again = evolved(searched, 200, 3, measure, "cost")
    assert [one.genotype.to_json() for one in seen] == [one.genotype.to_json() for one in again]
    assert len({(one.genotype.cell, one.genotype.path) for one in seen}) == len(seen)
    front = pareto(seen, "cost")
    assert [one.miou for one in front] == sorted((one.miou for one in front), reverse=True)
    assert (front[0].miou, front[0].costs["cost"]) == (0.8, 8) and (front[-1].miou, front[-1].costs["cost"]) == (0.2, 2)


def test_a_front_leaves_out_what_another_beats() -> None:
    genotype = random_genotype(space(), 0)
    points = [(0.5, 5.0), (0.4, 5.0), (0.4, 3.0), (0.4, 4.0), (0.6, 9.0), (0.1, 10.0)]
    front = pareto([Measured(genotype, miou, {"cost": cost}) for miou, cost in points], "cost")
    assert [(one.miou, one.costs["cost"]) for one in front] == [(0.6, 9.0), (0.5, 5.0), (0.4, 3.0)]


def test_drawn_networks_differ_and_end_where_the_space_does() -> None:
    searched = space(layers=2, levels=2, blocks=1, operations=("none", "skip"))
    found = drawn_networks(searched, 50, 0)
    assert len(found) == 4 == len({genotype.path for genotype in found})  # one cell, four paths
    assert [one.to_json() for one in drawn_networks(searched, 2, 0)] == [one.to_json() for one in found[:2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": ArchitectureConfig(entropy=1.0)}, "architecture.entropy has no meaning with method sampled"),
        ({"partial_channels": 2}, "partial_channels has no meaning"),
        ({"supernet": SupernetConfig(graphs=True)}, "supernet.graphs has no meaning"),
        ({"supernet": SupernetConfig(recompute="node")}, "supernet.recompute has no meaning"),
        ({"health": HealthConfig(gap_batches=0)}, "health.gap_batches is 0, but method sampled"),
        ({"health": HealthConfig(stop_when_stable=2)}, "health.stop_when_stable has no meaning"),
        ({"method": "darts"}, "sampled.top has no meaning with method darts"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(tmp_path, **changes)


def test_a_run_from_before_the_setting_was_there_resumes(tmp_path: Path) -> None:
    config = to_plain(settings(tmp_path))
    del config["method"], config["sampled"]
    assert from_plain(SearchConfig, config) == settings(tmp_path)


def test_memory_of_a_step_is_that_of_one_network_next_to_all_weights(tmp_path: Path) -> None:
    searched, config = load("autodeeplab-tiny"), sampled(tmp_path)
    supernet = Supernet(searched, CLASSES, samples_paths=True)
    needed = search_memory(supernet, config)
    relaxed = search_memory(Supernet(searched, CLASSES), settings(tmp_path))
    weights = sum(parameter.nbytes for parameter in supernet.weights())
    assert 3 * weights < needed < relaxed + 3 * weights
    assert supernet.forced is None
    for seed in range(3):
        supernet.forced = random_genotype(searched, seed)
        images = (config.loader.batch_size, *config.loader.augment.crop)
        assert step_memory(supernet, [(supernet.weights(), 1)], images) < 1.05 * needed
