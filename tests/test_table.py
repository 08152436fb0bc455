"""nas-table: which networks, workers that share them, what is recorded, and what a table says."""

from __future__ import annotations

import gzip
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

import retrain
from nas.data.base import DataError
from nas.runs.folder import read_metrics
from retrain.config import TableConfig
from retrain.sweeps.storage import BEAT, open_storage, study_name
from retrain.sweeps.workers import JOB, Jobs
from retrain.table.analysis import draw_table, properties, share_of_variance, summary, summary_text
from retrain.table.making import Making, measure_latency, open_making, pack, trainings_of
from retrain.table.reading import Network, Run, Table, load_table, write_table
from runs import interrupt, on_step
from search_spaces.genotype import Block, Genotype
from search_spaces.graph import all_genotypes, count, random_genotype
from search_spaces.space import SearchSpace, load
from strategies import spaces
from tiny import SPACE, command, refused, training

MAKING = importlib.import_module("retrain.table.making")


# Which networks


def test_the_shipped_space_has_261_genotypes() -> None:
    space = load("table")
    genotypes = all_genotypes(space)
    assert len(genotypes) == 29 * 9
    assert [genotype.path for genotype in genotypes[::9]] == sorted(genotype.path for genotype in genotypes[::9])
    operations = ("skip", "max_pooling_3x3", "separable_3x3")
    assert [genotype.cell[0].operations for genotype in genotypes[:9]] == list(product(operations, repeat=2))


@given(spaces(max_layers=3))
def test_all_genotypes_are_those_that_are_counted_and_drawn(space: SearchSpace) -> None:
    counts = count(space)
    if counts.paths * counts.cells_decodable > 500:
        space = replace(space, layers=2, levels=2, blocks=1)
        counts = count(space)
    genotypes = all_genotypes(space)
    digests = [genotype.digest for genotype in genotypes]
    assert len(set(digests)) == len(genotypes) == counts.paths * counts.cells_decodable
    assert all(random_genotype(space, seed).digest in digests for seed in range(5))
    assert [genotype.digest for genotype in all_genotypes(space)] == digests


def test_a_space_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the space autodeeplab-tiny has .* give one of at most 10,000"):
        all_genotypes(load("autodeeplab-tiny"))


@given(st.integers(1, 300), st.floats(0.01, 1), st.floats(0, 1))
def test_trainings_are_in_a_fixed_random_order_and_shares_are_nested(networks: int, share: float, again: float) -> None:
    config = TableConfig(seeds=(3, 5), share=share, again=again)
    trainings = trainings_of(config, networks)
    first, second = ([n for n, seed in trainings if seed == s] for s in config.seeds)
    assert trainings == [(n, 3) for n in first] + [(n, 5) for n in second], "seed by seed"
    assert len(set(first)) == len(first) == max(1, round(share * networks))
    assert second == first[: round(again * len(first))]
    assert first == [n for n, seed in trainings_of(replace(config, share=1.0), networks) if seed == 3][: len(first)]


# Workers that share jobs


def jobs(folder: Path, names: list[str], do: Callable[..., dict[str, Any]], **others: Any) -> Jobs:
    return Jobs(open_storage(None, folder), "jobs", {"a": 1}, names, do, others.pop("say", lambda line: None), **others)


def echo(job: str, alive: Callable[[], None]) -> dict[str, Any]:
    alive()
    return {"miou": 0.5, "name": job}


def test_each_job_is_done_once_and_a_list_may_grow(tmp_path: Path) -> None:
    begun: list[str] = []

    def do(job: str, alive: Callable[[], None]) -> dict[str, Any]:
        begun.append(job)
        return echo(job, alive)

    jobs(tmp_path, ["b", "a"], do).run_trials()
    again = jobs(tmp_path, ["c", "a", "b"], do)
    again.run_trials()
    assert begun == ["b", "a", "c"]
    assert again.results() == {name: {"miou": 0.5, "name": name} for name in "bac"} and again.reasons() == {}
    with pytest.raises(ValueError, match="jobs was begun with another a: give the same"):
        Jobs(open_storage(None, tmp_path), "jobs", {"a": 2}, [], do)
    newer = Jobs(open_storage(None, tmp_path), "jobs", {"a": 1, "new": 3}, ["a"], do)  # a setting of a later release
    newer.run_trials()
    assert begun == ["b", "a", "c"]


def test_a_failure_is_tried_again_by_the_next_call_and_not_by_this_one(tmp_path: Path) -> None:
    broken, said, begun = [True], [], []

    def do(job: str, alive: Callable[[], None]) -> dict[str, Any]:
        begun.append(job)
        if broken[0] and job == "a":
            raise ArithmeticError("the loss is\nnan")
        return echo(job, alive)

    first = jobs(tmp_path, ["a", "b"], do, say=said.append)
    first.run_trials()
    assert (
        begun == ["a", "b"] and first.reasons() == {"a": "the loss is nan"} and said == ["   failed: the loss is nan"]
    )
    broken[0] = False
    second = jobs(tmp_path, ["a", "b"], do)
    second.run_trials()
    assert begun == ["a", "b", "a"] and second.reasons() == {} and set(second.results()) == {"a", "b"}


@pytest.mark.parametrize(
    "error", [DataError("image is cut"), OSError(28, "full"), KeyError("ours"), KeyboardInterrupt()]
)
def test_what_is_not_the_jobs_own_failure_ends_the_work_and_counts_not(tmp_path: Path, error: BaseException) -> None:
    def fail(job: str, alive: Callable[[], None]) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        jobs(tmp_path, ["a", "b"], fail).run_trials()
    again = jobs(tmp_path, ["a", "b"], echo)
    assert again.reasons() == {}
    again.run_trials()
    assert set(again.results()) == {"a", "b"}


def test_three_failures_in_a_row_stop_a_worker(tmp_path: Path) -> None:
    def fail(job: str, alive: Callable[[], None]) -> dict[str, Any]:
        raise ValueError(f"{job} is wrong.")

    with pytest.raises(ValueError, match=r"3 trials failed in a row, the last with: c is wrong\. Mend that"):
        jobs(tmp_path, list("abcd"), fail).run_trials()


def test_the_job_of_a_dead_worker_is_done_again(tmp_path: Path) -> None:
    said: list[str] = []
    mine = jobs(tmp_path, ["a", "b"], echo, patience=0.3, say=said.append)
    made = create_trial(state=TrialState.RUNNING, user_attrs={JOB: "a"}, system_attrs={BEAT: 0})
    mine.storage.create_new_trial(mine._study_id, made)
    mine.run_trials()
    assert set(mine.results()) == {"a", "b"}
    assert said == ["waiting for the trials of other workers", "trial 0: its worker is dead, it will be tried again"]


def test_of_two_workers_that_take_the_same_job_the_later_gives_way(tmp_path: Path) -> None:
    begun: list[str] = []
    mine = jobs(tmp_path, ["a"], lambda job, alive: (begun.append(job), echo(job, alive))[1], patience=1.0)
    create, other = mine._create, optuna.load_study(study_name="jobs", storage=mine.storage)

    def late(attributes: dict[str, Any]) -> Any:
        """Another worker creates a trial of the job, and completes it, between the look and the creation."""
        if not other.get_trials():
            made = create_trial(state=TrialState.COMPLETE, value=0.1, user_attrs={JOB: "a", "result": {"miou": 0.1}})
            other.add_trial(made)
        return create(attributes)

    mine._create = late  # type: ignore[method-assign]
    mine.run_trials()
    assert begun == [] and mine.results() == {"a": {"miou": 0.1}}


def test_a_folder_may_be_renamed_and_a_shared_storage_has_the_folders_name(tmp_path: Path) -> None:
    assert study_name(None, None, tmp_path) == study_name(None, "sqlite", tmp_path / "x") == "jobs"
    assert study_name(None, "postgresql://host/db", tmp_path / "mine") == "mine"
    assert study_name("given", None, tmp_path) == "given"


# Making a table


def making(folder: Path, **changes: Any) -> Making:
    """Two networks, of which one is trained with two seeds: three trainings of two epochs."""
    values: dict[str, Any] = {"share": 0.13, "every": 2} | changes
    return Making(TableConfig(**values), training(folder), SPACE, folder / "made", say=lambda line: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete table; the second training was interrupted, and resumed."""
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        on_step(patch, 8 + 5, interrupt)  # in the second epoch of the second training
        making(folder).work()
    making(folder).work()
    return folder / "made"


def test_a_table_has_what_plain_trainings_give(made: Path, tmp_path: Path) -> None:
    opened = open_making(made)
    results = opened.jobs.results()
    assert len(opened.trainings) == len(results) == 3 and opened.jobs.reasons() == {}
    for number, seed in opened.trainings.values():
        config = replace(
            training(tmp_path),
            genotype=str(made / f"{number:04d}" / "genotype.json"),
            seed=seed,
            out=str(tmp_path / f"{number}-{seed}"),
        )
        folder = retrain.train(config, quiet=True).folder
        result = results[f"{number:04d}/seed-{seed}"]
        assert result["validation"] == [round(line["val"]["miou"], 5) for line in read_metrics(folder)]
        assert result["measured"] == [None, result["miou"]]
        assert result["miou"] == pytest.approx(retrain.evaluate(folder, "test", "last").miou, abs=1e-5)
        assert 0 < result["cpu_seconds"] < 100
        left = {path.name for path in (made / f"{number:04d}" / f"seed-{seed}").iterdir()}
        assert left == {"config.yaml", "genotype.json", "log.txt", "metrics.jsonl", "table.jsonl"}, "no weights"


def test_nothing_is_trained_twice_and_other_settings_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MAKING, "train", lambda *_, **__: pytest.fail("trained again"))
    making(made.parent).work()
    with pytest.raises(ValueError, match="jobs was begun with another every"):
        making(made.parent, every=1)
    made_of = replace(training(made.parent), epochs=3)
    with pytest.raises(ValueError, match="jobs was begun with another epochs"):
        Making(TableConfig(share=0.13, every=2), made_of, SPACE, made)


def test_a_worker_that_died_before_it_reported_loses_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run folder is complete, and may have no weights any more."""
    monkeypatch.setattr(MAKING, "train", lambda *_, **__: pytest.fail("trained again"))
    opened = open_making(made)
    job, result = next(iter(opened.jobs.results().items()))
    assert opened._train(job, lambda: None) == result


def test_a_table_is_packed_and_read(made: Path, tmp_path: Path) -> None:
    opened = open_making(made)
    data = json.loads(measure_latency(opened).read_text())
    assert data["timed_on"].startswith("cpu") and len(data["seconds"]) == 2
    path, card = pack(opened, "mini", tmp_path)
    assert path.read_bytes() == pack(opened, "mini", tmp_path / "again")[0].read_bytes(), "the same bytes"
    table = load_table(path)
    assert [sorted(network.runs) for network in sorted(table.networks, key=lambda n: -len(n.runs))] == [[0, 1], [0]]
    assert all(network.latency and network.parameters > 1000 for network in table.networks)
    results = opened.jobs.results()
    for network in table.networks:
        runs = [results[f"{network.number:04d}/seed-{seed}"] for seed in network.runs]
        assert table.miou(network) == pytest.approx(sum(run["miou"] for run in runs) / len(runs))
        assert network.genotype.digest == opened.genotypes[network.number].digest
    text = card.read_text()
    assert "trainings: 3\n" in text and "missing: 0\n" in text and "failures: {}\n" in text
    assert "--share 0.13 --again 0.5 --split test --every 2 --seeds 0,1" in text
    shown = command("nas-table", "show", path, "--draw", tmp_path / "picture.svg")
    assert shown.code == 0 and "table mini: 3 trainings of 2 networks of the space tiny" in shown.out
    assert (tmp_path / "picture.svg").stat().st_size > 1000
    genotype = made / f"{table.networks[0].number:04d}" / "genotype.json"
    ranked = command("nas-table", "rank", genotype, "--table", path, "--json")
    assert json.loads(ranked.out)["rank"] in (1, 2) and json.loads(ranked.out)["networks"] == 2


def test_commands_make_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MAKING, "train", lambda *_, **__: (_ for _ in ()).throw(ArithmeticError("the loss is nan.")))
    done = command("nas-table", "make", "--seeds", "4", "--share", "0.004")
    assert done.code == 2 and "1 training of 1 network of the space table, 0 done already" in done.out
    assert "1 of the trainings failed, such as runs/table-table-shapes/" in done.err and "nan. The same" in done.err
    assert "has no trained network" in refused("nas-table", "pack", "runs/table-table-shapes")


# What a table says, on one that is made up

OPERATIONS = ("skip", "separable_3x3")


def made_up(miou: Callable[[Genotype, int], float] | None = None) -> Table:
    """All 16 networks of the tiny space: 10 points for the finest end, 1 for each separable convolution, 0.5 a seed."""

    def default(genotype: Genotype, seed: int) -> float:
        separable = genotype.cell[0].operations.count("separable_3x3")
        return 0.3 + 0.1 * (genotype.path[-1] == 4) + 0.01 * separable + 0.005 * seed

    networks = []
    for number, genotype in enumerate(all_genotypes(SPACE)):
        reached = [(miou or default)(genotype, seed) for seed in range(1 + (number % 2))]
        runs = {seed: Run((0.1, value / 2), (None, value), 10.0) for seed, value in enumerate(reached)}
        networks.append(Network(number, genotype, 1000 + number, 10**6 * (20 - number), 0.001 * (number + 1), runs))
    card = {"name": "made-up", "space": SPACE.to_dict(), "split": "test", "settings": {"loader": {"val_split": "val"}}}
    return Table(card, tuple(networks))


def test_ranks_and_regrets_by_hand() -> None:
    table = made_up()
    best = next(
        n for n in table.networks if n.genotype.path == (8, 4) and n.genotype.cell[0].operations == OPERATIONS[1:] * 2
    )
    place = table.rank(best.genotype)
    assert (place.network, place.networks) == (best, 16)
    values = sorted((table.miou(network) for network in table.networks), reverse=True)
    assert place.rank == values.index(place.miou) + 1 and place.regret == pytest.approx(values[0] - place.miou)
    worst = table.rank(table.ordered()[-1].genotype)
    assert worst.percentile == 0 and worst.regret == pytest.approx(values[0] - values[-1])
    assert table.rank(best.genotype, "val").miou == pytest.approx(place.miou / 2)
    with pytest.raises(ValueError, match="split is 'train': give one of val, test"):
        table.rank(best.genotype, "train")


def test_a_genotype_is_found_however_its_block_is_written() -> None:
    table = made_up()
    network = next(n for n in table.networks if n.genotype.cell[0].operations == OPERATIONS)
    other = replace(SPACE, name="mine", operations=("separable_3x3", "skip"))
    turned = Genotype(other, (Block(("l-1", "l-2"), ("separable_3x3", "skip")),), network.genotype.path)
    assert table.find(turned) is network
    with pytest.raises(ValueError, match="path 4-8 and operations skip, skip, skip, skip is not in the table"):
        space = replace(SPACE, blocks=2)
        table.find(Genotype(space, (Block(("l-2", "l-1"), ("skip", "skip")),) * 2, (4, 8)))
    with pytest.raises(ValueError, match="has other strides or settings than tiny"):
        space = replace(SPACE, stem=replace(SPACE.stem, strides=(2,)))
        table.find(Genotype(space, network.genotype.cell, (2, 4)))


def test_shares_of_variance_by_hand() -> None:
    """Squares in all 4, within 0 or 4: 1 - 0 and 1 - (4 / 2) / (4 / 3) < 0; with 1 within, 1 - (1 / 2) / (5 / 3)."""
    assert share_of_variance([[1.0, 1.0], [3.0, 3.0]]) == 1
    assert share_of_variance([[1.0, 3.0], [1.0, 3.0]]) == 0
    assert share_of_variance([[0.0, 1.0], [2.0, 3.0]]) == pytest.approx(1 - (1 / 2) / (5 / 3))
    assert share_of_variance([[1.0, 1.0], [1.0]]) is None and share_of_variance([[1.0], [2.0]]) is None


def test_a_summary_by_hand() -> None:
    table = made_up()
    facts = summary(table)
    assert (facts["networks"], facts["trainings"], facts["split"]) == (16, 24, "test")
    assert facts["noise"]["seeds"] == pytest.approx(0.005 / 2**0.5)
    assert facts["noise"]["tau_of_seeds"] == pytest.approx(1) and facts["noise"]["tau_of_splits"] == pytest.approx(1)
    first = next(iter(facts["properties"].items()))
    assert first[0] == "path" or first[0] == "stride at the path's end"
    ends = facts["properties"]["stride at the path's end"]
    assert ends["share"] > 0.95 and ends["means"] == {"4": pytest.approx(0.41), "8": pytest.approx(0.31)}
    # Squares in all 16 * 0.05**2 + 4 * 2e-4 = 0.0408; within 8 * 0.05**2 + 4 * 2e-4 = 0.0208: one cell at stride 4, at
    # the start or at the end.
    assert facts["properties"]["cells at stride 4"]["share"] == pytest.approx(1 - (0.0208 / 13) / (0.0408 / 15))
    assert facts["properties"]["operation on l-2 in block1"]["share"] == 0
    low, *_, high = facts["quartiles"]
    assert (low, high) == (0.3, pytest.approx(0.4225)), "the best one has two seeds"
    text = summary_text(facts)
    assert "24 trainings of 16 networks of the space tiny; mIoU % on test after the last epoch" in text
    assert (
        "s.d. over seeds 0.35, between networks 5.2" in text and "stride at the path's end (4: 41.00, 8: 31.00)" in text
    )
    json.dumps(facts)


def test_where_all_are_equal_nothing_matters() -> None:
    facts = summary(made_up(lambda genotype, seed: 0.5))
    assert {found["share"] for found in facts["properties"].values()} == {None}
    assert facts["noise"]["networks"] == 0 and facts["noise"]["tau_of_seeds"] is None
    assert "Kendall's tau of the orders by two seeds -, by the two splits -" in summary_text(facts)


@pytest.mark.parametrize(("cost", "factor"), [("multiply_adds", 1e-6), ("parameters", 1e-6), ("latency", 1e3)])
def test_the_front_has_no_network_that_another_beats(cost: str, factor: float) -> None:
    table = made_up()
    axes = draw_table(table, cost).axes[0]
    pairs = axes.lines[0].get_xydata()
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    for network in table.networks:
        own = (factor * getattr(network, cost), 100 * table.miou(network))
        assert any(p[0] <= own[0] + 1e-9 and p[1] >= own[1] - 1e-9 for p in pairs)
    assert sum(len(points.get_offsets()) for points in axes.collections) == 16
    numbers = {number for text in axes.texts for number in text.get_text().split(", ")}
    assert {table.networks[int(number)].genotype.path[-1] for number in numbers} <= {4, 8}
    assert axes.get_ylabel() == "mIoU on test, %" and axes.get_title() == "made-up: 16 networks of tiny"


def test_a_cost_that_was_not_measured_cannot_be_drawn() -> None:
    table = made_up()
    slow = Table(table.card, tuple(network._replace(latency=None) for network in table.networks))
    with pytest.raises(ValueError, match="the table made-up has no latency: choose another --cost"):
        draw_table(slow, "latency")


def test_properties_by_hand() -> None:
    genotype = Genotype(load("table"), (Block(("l-2", "l-1"), ("skip", "separable_3x3")),), (4, 8, 16, 8))
    found = properties(genotype)
    assert found["path"] == "4-8-16-8" and found["cell"] == "l-2 skip, l-1 separable_3x3"
    assert found["stride at the path's end"] == "8" and found["cells at stride 4"] == "1"
    assert found["operation on l-1 in block1"] == "separable_3x3"


# Files


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_file_is_one_line(tmp_path_factory: pytest.TempPathFactory, place: int, change: int) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = write_table(made_up().card, made_up().networks, folder)
    assert len(load_table(path).networks) == 16
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    try:
        assert len(load_table(path).networks) == 16  # in gzip's own head, such as its time
    except ValueError as error:
        assert "\n" not in str(error) and str(path) in str(error) and "cannot be read as a table" in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a table"),
        (gzip.compress(b""), "cannot be read as a table"),
        (gzip.compress(b"[]\n"), "it is no nas-table"),
        (gzip.compress(b'{"format": "nas-table", "version": 2}\n'), "version is 2: expected 1"),
        (gzip.compress(b'{"format": "nas-table", "version": 1, "sha256": "x"}\n'), "its checksum is wrong"),
        (b"plain text", "Not a gzipped file"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file.gz").write_bytes(content)
    assert message in refused("nas-table", "show", tmp_path / "file.gz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "no verb 'nothing'"),
        (["show", "nothing"], "there is no table 'nothing'"),
        (["show", "made-up.jsonl.gz", "--cost", "latency"], "--cost is for the picture"),
        (["show", "made-up.jsonl.gz", "--draw", "x.gif"], "ends in '.gif'"),
        (["show", "made-up.jsonl.gz", "--split", "train"], "split is 'train': give one of val, test"),
        (["rank"], "GENOTYPE"),
        (["rank", "none.json", "--table", "made-up.jsonl.gz"], "none.json: cannot be read"),
        (["latency", "."], ". is not the folder of a table: it has no table.json"),
        (["make", "--share", "0"], "share is 0.0: give a number above 0 up to 1"),
        (["make", "--again", "2"], "again is 2.0: give a number from 0 to 1"),
        (["make", "--every", "0"], "every is 0: give a whole number from 1"),
        (["show", "made-up.jsonl.gz", "--cost", "cpu_seconds", "--draw", "x.svg"], "expected one of multiply_adds"),
        (["make", "--seed", "1"], "--seeds has the seeds of the trainings: leave --seed out"),
        (["make", "--genotype", "x"], "all networks of the space are trained: leave --genotype out"),
        (["make", "--resume", "x"], "the same command resumes what was stopped: leave --resume out"),
        (["make", "--space", "nothing"], "no search space 'nothing'"),
        (["make", "--space", "autodeeplab-tiny"], "give one of at most 10,000"),
        (["make", "--split", "nothing"], "there is no split 'nothing'"),
    ],
)
def test_wrong_use_is_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(made_up().card, made_up().networks, tmp_path)
    assert message in refused("nas-table", *words)


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "a table is made without torchrun" in refused("nas-table", "make")
