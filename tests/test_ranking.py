"""nas-rank: what is ranked, trainings that were stopped, failures, numbers by hand, and what is refused."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import cli.rank
import retrain
from folders import retrain_folder, search_folder
from nas.data.base import DataError
from nas.evaluation.cost import Cost
from nas.runs.folder import read_metrics
from nas.seeds import search_seeds
from nas.training.interruption import InterruptedRun
from nas.training.losses import NonFiniteLossError
from retrain.config import RankingConfig
from retrain.ranking.candidates import find_candidates, identity, random_candidates
from retrain.ranking.comparison import compare, kendall, pooled, spread, student, welch
from retrain.ranking.result import markdown, table
from retrain.ranking.training import rank
from runs import check_same_run, interrupt, on_step
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.graph import random_genotype
from tiny import GENOTYPE, SPACE, called, searching, training, without_pictures

TRAINING = importlib.import_module("retrain.ranking.training")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def genotypes(count: int) -> list[Genotype]:
    """Different ones."""
    found: list[Genotype] = []
    for genotype in (random_genotype(replace(SPACE, blocks=2), seed) for seed in range(1000, 1100)):
        if len(found) < count and all(identity(genotype) != identity(other) for other in found):
            found.append(genotype)
    return found


def searches(count: int, epochs: int = 1) -> list[str]:
    """Run folders of complete searches, made by hand; the supernet's mIoU is 0.1, 0.2, ..."""
    folders = []
    for number, genotype in enumerate(genotypes(count)):
        folder = Path(f"out/seed-{number}")
        folder.mkdir(parents=True)
        settings = {
            "command": "nas-search",
            "space": "autodeeplab-tiny",
            "epochs": epochs,
            "seed": number,
            "architecture": {"start_epoch": 0},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        (folder / "metrics.jsonl").write_text('{"epoch": 0}\n')
        provenance = {"data": "shapes", "supernet_val_miou": 0.1 * (number + 1)}
        replace(genotype, provenance=provenance).save(folder / "genotype.json")
        folders.append(str(folder))
    return folders


Score = Callable[[retrain.RetrainConfig], float]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[[Score], list[str]]:
    """Trainings that take no time: `score` says what each reaches, or raises; returns the runs that were trained."""

    def pretend(score: Score) -> list[str]:
        trained: list[str] = []

        def train(config: Any, resume: Any, quiet: bool, each_epoch: Any) -> None:
            value = score(config)
            trained.append(str(config.out))
            folder = Path(config.out)
            folder.mkdir(parents=True, exist_ok=True)
            record = {"epoch": config.epochs, "miou": value, "checkpoint_sha256": ""}
            (folder / "evaluation-val-last.json").write_text(json.dumps(record))
            (folder / "config.yaml").write_text(yaml.safe_dump(retrain_plain(config)))

        def evaluate(folder: Path, split: str, *_: Any, **__: Any) -> Any:
            data = json.loads((folder / "evaluation-val-last.json").read_text())
            return SimpleNamespace(miou=data["miou"] / (1 if split == "val" else 2), pixel_accuracy=0.777)

        monkeypatch.setattr(TRAINING, "train", train)
        monkeypatch.setattr(TRAINING, "evaluate", evaluate)
        monkeypatch.setattr(TRAINING, "measure", lambda network, size: Cost(1234, 5_670_000))
        return trained

    return pretend


def retrain_plain(config: retrain.RetrainConfig) -> dict[str, Any]:
    from search_spaces.validation import to_plain

    return {"command": config.command, **to_plain(config)}


def by_name(config: retrain.RetrainConfig) -> float:
    """seed-0 is better than seed-1, and so on; the seed of the training adds a hundredth."""
    name = Path(str(config.out)).parent.name
    value = 0.2 if name.startswith("random") else 0.5 - 0.1 * int(name.rpartition("-")[2])
    return value + 0.01 * config.seed


# The whole way


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(folder: Path, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(**read_metrics(folder)[-1]["val"])

    monkeypatch.setattr(TRAINING, "evaluate", evaluate)
    GENOTYPE.save("mine.json")
    config, settings = training(tmp_path, epochs=1), RankingConfig(random=1, seeds=(5,))
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match="stopped in ranked/random-1/seed-5; the"):
        on_step(patch, 4 + 2, interrupt)  # in the second training
        rank(["mine.json"], config, settings, "ranked", quiet=True)
    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(TRAINING, "train", lambda *a, **b: (steps.append(1), retrain.train(*a, **b)))
        found = rank(["mine.json"], config, settings, "ranked", quiet=True)
    assert len(steps) == 1, "the first one is trained already"
    own = replace(config, genotype="ranked/random-1/genotype.json", seed=5, out="alone")
    check_same_run(retrain.train(own, quiet=True).folder, Path("ranked/random-1/seed-5"), "retrain")
    last = read_metrics("alone")[-1]["val"]["miou"]
    assert last in [entry.mean for entry in found.entries if entry.candidate.name == "random 1"]


@pytest.mark.slow
def test_two_seeds_are_searched_and_ranked_and_what_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    search_seeds(searching(tmp_path, epochs=1), (0, 1), "out", quiet=True)
    config = training(tmp_path, epochs=1, out=None)
    settings, said = RankingConfig(random=1, seeds=(5,)), []
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match="seed-5; the same command resumes it"):
        on_step(patch, 4 + 2, interrupt)  # in the second training
        rank(["out"], config, settings, "ranked", quiet=True)
    assert not Path("ranked/ranking.json").exists()
    found = rank(["out"], config, settings, "ranked", say=said.append)
    assert said[1].endswith("measured already") and not said[2].endswith("already")
    assert [entry.candidate.name for entry in found.entries if entry.candidate.origins[0].kind == "random"] == [
        "random 1"
    ]
    second = next(entry for entry in found.entries if entry.candidate.name.endswith("seed-1"))
    assert second.mious == (retrain.evaluate(second.folder / "seed-5", "val", "last", write=False).miou,)
    assert second.candidate.genotype is not None
    assert identity(load_genotype("out/seed-1/genotype.json")) == identity(second.candidate.genotype)
    own = replace(config, genotype=str(second.folder / "genotype.json"), seed=5, out="alone")
    check_same_run(retrain.train(own, quiet=True).folder, second.folder / "seed-5", "retrain")
    record = json.loads(Path("ranked/ranking.json").read_text())
    assert [row["mean"] for row in record["ranking"]] == sorted(
        (row["mean"] for row in record["ranking"]), reverse=True
    )
    assert table(found).count("\n   ") >= 3 and "| random 1 |" in Path("ranked/ranking.md").read_text()


# What is trained, with trainings that pretend to


def test_an_miou_that_is_not_the_mean_over_all_classes_is_said(
    tmp_path: Path, pretended: Callable[[Score], list[str]]
) -> None:
    pretended(by_name)
    arguments = searches(2), training(tmp_path), RankingConfig(random=0, seeds=(0, 2)), "ranked"
    assert rank(*arguments, quiet=True).partial_means == []
    for folder, mean_over in (("seed-0", [6, 6]), ("seed-2", [5, 6])):
        file = Path("ranked/search-seed-1") / folder / "evaluation-val-last.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "mean_over": mean_over}))
    found = rank(*arguments, quiet=True)
    assert "search-seed-1 with seed 2: mean over 5 of 6 classes" in table(found).splitlines()
    note = {"network": "search-seed-1", "seed": 2, "note": "mean over 5 of 6 classes"}
    assert json.loads(Path("ranked/ranking.json").read_text())["partial_means"] == [note]


def test_places_means_and_spreads(tmp_path: Path, pretended: Callable[[Score], list[str]]) -> None:
    trained = pretended(by_name)
    found = rank(searches(3), training(tmp_path), RankingConfig(random=2, seeds=(0, 2)), "ranked", quiet=True)
    names = [f"search-seed-{number}" for number in range(3)]
    drawn = ["random-1", "random-2"]
    assert trained == [f"ranked/{name}/seed-{seed}" for seed in (0, 2) for name in (*names, *drawn)]
    assert [entry.candidate.name for entry in found.entries] == [*names, "random 1", "random 2"]
    assert [entry.mean for entry in found.entries] == pytest.approx([0.51, 0.41, 0.31, 0.21, 0.21])
    assert found.places == (1, 2, 3, 4, 4)
    assert found.entries[0].spread == pytest.approx(0.02 / 2**0.5)
    assert found.seed_spread == pytest.approx(0.02 / 2**0.5)
    groups = {group.kind: group for group in found.groups}
    assert groups["searched"].mean == pytest.approx(0.41) and groups["searched"].spread == pytest.approx(0.1)
    assert groups["random"].means == pytest.approx((0.21, 0.21))
    assert found.tau == pytest.approx(-1.0), "the better the supernet, the worse the network"
    lines = table(found).splitlines()
    assert lines[0] == "shapes, split val: mIoU % after 2 epochs; multiply-adds at 97x129"
    assert " ".join(lines[2].split()) == "rank network parameters multiply-adds seed 0 seed 2 mean s.d. path"
    assert lines[3].split()[:2] == ["1", "search-seed-0"] and " 50.00    52.00   51.00   1.41   " in lines[3]
    assert "searched: mean 41.00, s.d. 10.00 (3 searches)" in lines
    assert "random: mean 21.00, s.d. 0.00 (2 genotypes)" in lines
    # Welch by hand: 20 points, standard error 10 / sqrt(3), 2 degrees of freedom: t = 4.303.
    assert (
        "searched - random: +20.00 points of mIoU, 95 % interval -4.84 to +44.84 (Welch); 0 is within it" in lines[-3]
    )
    assert lines[-2] == "first - second: 10.00 points, more than the s.d. over seeds of 1.41"
    assert "Kendall's tau -1.00 over 3 searches" in lines[-1]
    text = markdown(found)
    assert "nas-evaluate ranked/search-seed-0/seed-0 --checkpoint last --split test" in text
    assert "- `ranked/search-seed-1`: search-seed-1 (out/seed-1/genotype.json)" in text


def test_the_same_command_trains_nothing_again_and_more_adds_to_it(
    tmp_path: Path, pretended: Callable[[Score], list[str]]
) -> None:
    trained, folders, config = pretended(by_name), searches(2), training(tmp_path)
    rank(folders[:1], config, RankingConfig(random=1), "ranked", quiet=True)
    assert len(trained) == 4
    first = Path("ranked/ranking.json").read_text()
    rank(folders[:1], config, RankingConfig(random=1), "ranked", quiet=True)
    assert len(trained) == 4 and Path("ranked/ranking.json").read_text() == first
    found = rank(["out"], config, RankingConfig(random=2, seeds=(0, 1, 2)), "ranked", quiet=True)
    assert len(trained) == len(set(trained)) == 4 * 3 and len(found.entries) == 4


def test_two_searches_that_found_the_same_are_trained_once(
    tmp_path: Path, pretended: Callable[[Score], list[str]]
) -> None:
    trained, folders = pretended(lambda config: 0.5), searches(2)
    Path(folders[1], "genotype.json").write_text(Path(folders[0], "genotype.json").read_text())
    found = rank(folders, training(tmp_path), RankingConfig(random=1, seeds=(0,)), "ranked", quiet=True)
    assert len(trained) == 2
    assert found.entries[0].candidate.name == "search-seed-0, search-seed-1"
    assert [len(group.means) for group in found.groups] == [2, 1], "both searches count"
    assert " 50.00   50.00      -   " in table(found), "one seed has no spread"
    with pytest.raises(ValueError, match="there is nothing to rank: search-seed-0, search-seed-1 is one network"):
        rank(folders, training(tmp_path), RankingConfig(random=0), "ranked", quiet=True)


def test_a_training_that_fails_is_marked_and_tried_again(
    tmp_path: Path, pretended: Callable[[Score], list[str]]
) -> None:
    folders, config, broken = searches(2), training(tmp_path), [True]

    def score(own: retrain.RetrainConfig) -> float:
        if broken[0] and "search-seed-0" in str(own.out) and own.seed == 1:
            raise NonFiniteLossError("the loss is nan")
        return by_name(own)

    trained = pretended(score)
    found = rank(folders, config, RankingConfig(random=1), "ranked", quiet=True)
    assert len(trained) == 5 and found.failures == [("search-seed-0", 1, "the loss is nan")]
    assert [entry.candidate.name for entry in found.entries] == ["search-seed-1", "random 1", "search-seed-0"]
    assert found.entries[-1].mean is None and found.entries[-1].mious == (0.5, None)
    row = table(found).splitlines()[5]
    assert row.split()[0] == "-" and row.split()[3:9] == ["5.67", "M", "50.00", "failed", "-", "-"]
    assert "failed: search-seed-0 with seed 1: the loss is nan" in markdown(found)
    assert len(found.groups[0].means) == 1
    broken[0] = False
    assert not rank(folders, config, RankingConfig(random=1), "ranked", quiet=True).failures
    assert len(trained) == 6


def test_what_would_end_all_trainings_ends_the_ranking(tmp_path: Path, pretended: Callable[[Score], list[str]]) -> None:
    def score(error: BaseException) -> Score:
        def fail(config: retrain.RetrainConfig) -> float:
            raise error

        return fail

    folders, config = searches(1), training(tmp_path)
    for error in (DataError("image cannot be read"), OSError(28, "No space left on device"), KeyError("ours")):
        pretended(score(error))
        with pytest.raises(type(error), match=str(error.args[-1])):
            rank(folders, config, RankingConfig(random=1), "ranked", quiet=True)
    pretended(score(MemoryError()))
    with pytest.raises(ValueError, match="every training failed, the first with: MemoryError"):
        rank(folders, config, out="ranked", quiet=True)


def test_a_collapse_is_called_one_and_is_no_hint(
    tmp_path: Path, pretended: Callable[[Score], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One class of five everywhere, which half of the pixels have: IoU 0.5 and four times 0."""
    pretended(lambda config: 0.1)
    monkeypatch.setattr(TRAINING, "evaluate", lambda *_, **__: SimpleNamespace(miou=0.1, pixel_accuracy=0.5))
    found = rank(searches(1), training(tmp_path), RankingConfig(random=1), "ranked", quiet=True)
    lines = table(found).splitlines()
    assert "searched - random: +0.00 points of mIoU: all are equal, which tells nothing" in lines
    assert lines[-1] == (
        "a collapse, 4 of 4 trainings predict one class everywhere, which tells nothing of their genotypes: "
        "search-seed-0 with seed 0, search-seed-0 with seed 1, random 1 with seed 0, random 1 with seed 1. Train "
        "longer, or with another learning rate"
    )
    assert "hint" not in table(found) and "first - second" not in table(found)
    assert found.plain()["ranking"][0]["collapsed"] == [0, 1]


def test_random_genotypes_are_new_for_each_space_and_seeded(tmp_path: Path) -> None:
    first = random_genotype(SPACE, 1)
    other = random_genotype(replace(SPACE, name="other"), 5)
    same_name = random_genotype(replace(SPACE, layers=3), 5)
    files = [str(g.save(f"{n}.json")) for n, g in enumerate((first, other, same_name))]
    candidates = find_candidates(files)
    drawn = random_candidates(candidates, 4)
    assert [candidate.name for candidate in drawn] == [
        *(f"random {number} of {name}" for name in ("tiny", "other", "tiny (2)") for number in (1, 2, 3, 4))
    ]
    every = [identity(c.genotype) for c in (*candidates, *drawn) if c.genotype is not None]
    assert all(every.count(one) == 1 for one in every) and len(every) == 15
    more = [identity(c.genotype) for c in random_candidates(candidates[:1], 6) if c.genotype is not None]
    assert more[:4] == every[3:7]


def test_names_tell_operands_apart(tmp_path: Path) -> None:
    made = genotypes(5)
    for name, genotype in zip(("a/run", "b/run", "c/seed-0", "d"), made, strict=False):
        genotype.save(Path(name) / "genotype.json")
    made[4].save("mine.json")
    operands = [*(f"{name}/genotype.json" for name in ("a/run", "b/run", "c/seed-0", "d")), "mine.json", "fplnet"]
    names = [candidate.name for candidate in find_candidates(operands)]
    assert names == ["a/run", "b/run", "search-seed-0", "d", "mine", "fplnet"]
    kinds = [candidate.origins[0].kind for candidate in find_candidates(operands)]
    assert kinds == ["given"] * 5 + ["published"]


# Numbers


def test_student_is_that_of_the_tables() -> None:
    for freedom, expected in ((1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (1e4, 1.960)):
        assert student(freedom) == pytest.approx(expected, abs=6e-4)


def test_welch_by_hand() -> None:
    """Variances 1 and 4, 3 values each: error sqrt(5/3), freedom (5/3)**2 / ((1/3)**2 / 2 + (4/3)**2 / 2) = 50/17."""
    interval = welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    half = student(50 / 17) * (5 / 3) ** 0.5
    assert interval == pytest.approx((-2 - half, -2 + half))
    assert 3.18 < student(50 / 17) < 4.30
    assert welch([1.0], [1.0, 2.0]) is None and welch([1.0, 1.0], [2.0, 2.0]) is None


def test_what_is_said_of_a_difference() -> None:
    assert compare("searched", [0.5], [0.4])[2].endswith("with one genotype each there is no spread to judge it by")
    said = "searched - random: +10.00 points of mIoU, more than the spread (s.d.) of 1.41; that is a hint, with so few"
    assert compare("searched", [0.5], [0.39, 0.41])[2] == f"{said} genotypes"
    assert (
        "with equal mIoU within the groups there is no spread to judge it by" in compare("given", [0.4], [0.3, 0.3])[2]
    )
    assert "-1.00 points of mIoU, no more than the spread (s.d.) of 14.14" in compare("given", [0.39], [0.3, 0.5])[2]
    assert compare("searched", [0.5, 0.51, 0.52], [0.1, 0.11, 0.12])[2].endswith(
        "0 is outside of it: more than chance would give"
    )


def test_spreads_by_hand() -> None:
    assert spread([0.4]) is None and spread([1.0, 2.0, 3.0, 4.0]) == pytest.approx((5 / 3) ** 0.5)
    assert pooled([[1.0], [2.0]]) is None
    assert pooled([[1.0, 3.0], [5.0, 5.0, 5.0], [7.0]]) == pytest.approx((2 / 3) ** 0.5)


def test_kendall_by_hand() -> None:
    assert kendall([(1, 1), (2, 2), (3, 3)]) == 1
    assert kendall([(1, 3), (2, 2), (3, 1)]) == -1
    assert kendall([(1, 1), (2, 3), (3, 2)]) == pytest.approx(1 / 3)
    assert kendall([(1, 1), (2, 3), (2, 2), (3, 4)]) == pytest.approx(5 / 30**0.5)
    assert kendall([(1, 1), (1, 2), (1, 3)]) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=7))
def test_kendall_is_between_its_ends_and_turns_its_sign(pairs: list[tuple[int, int]]) -> None:
    tau, turned = kendall(pairs), kendall([(a, -b) for a, b in pairs])
    assert (tau is None) == (len({a for a, _ in pairs}) == 1 or len({b for _, b in pairs}) == 1)
    if tau is not None:
        assert -1 - 1e-12 <= tau <= 1 + 1e-12 and turned == -tau


# Wrong use


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RUN is missing"),
        (["nothing"], "there is no 'nothing': name a run folder of nas-search"),
        (["empty"], "empty has no run of nas-search in it"),
        (["trained"], "trained/genotype.json: cannot be read"),  # of a published network
        (
            ["undone"],
            "undone is not complete: resume it by nas-search --resume undone, or name undone/genotype.json",
        ),
        (["cut.json"], "cut.json: not valid JSON"),
        (["out", "out/seed-0"], "out/seed-0/genotype.json is given twice: give each genotype once"),
        (["fplnet", "fplnet"], "fplnet is given twice"),
        (["out/seed-0", "--random", "0"], "there is nothing to rank: search-seed-0 is one network"),
        (["fplnet"], "there is nothing to rank: fplnet is one network; name another one"),
        (["fplnet", "--random", "1"], "a published network has no search space to draw from"),
        (["out", "--random", "-1"], "random is -1: give a whole number from 0 to 1000"),
        (["out", "--random", "300"], "the space tiny has few genotypes"),
        (["out", "--random", "many"], "--random is 'many': expected a whole number"),
        (["out", "--seeds", "0,0"], "--seeds has 0 twice"),
        (["out", "--seeds="], "--seeds is '': give whole numbers"),
        (["out", "--seed", "0"], "--seeds has the seeds of the trainings: leave --seed out"),
        (["out", "--genotype", "x"], "leave --genotype out"),
        (["out", "--resume", "x"], "the same command resumes what was stopped: leave --resume out"),
        (["out", "--split", "nothing"], "there is no split 'nothing'; choose one of train, val, test"),
        (["out", "--split="], "split is empty"),
        (["out", "--data", "camvid"], "--data-root"),
        (["out", "--out", "out"], "out holds runs that are not a ranking's: choose another --out"),
        (["out", "--out", "cut.json"], "cut.json is a file: choose another --out"),
        (["out", "--network", "espnet"], "--network is 'espnet': give deeplab or fplnet"),
        (["out", "fplnet", "--network", "deeplab"], "fplnet is a published network: leave it out"),
        (["out", "fplnet", "--recipe", "small"], "has no effect on fplnet"),
        (["out", "--device", "tpu"], "device is 'tpu'"),
        (["out", "--config", "mine.yaml"], "random is no setting: give --random on the command line"),
    ],
)
def test_wrong_use_is_refused_in_one_line(words: list[str], message: str) -> None:
    searches(2)
    Path("empty").mkdir()
    retrain_folder(Path("trained"))
    search_folder(Path("undone"))
    Path("cut.json").write_text(Path("out/seed-0/genotype.json").read_text()[:200])
    Path("mine.yaml").write_text("random: 3\n")
    outcome = called("nas-rank", cli.rank.main, *words)
    assert outcome.code == 2 and outcome.err.startswith("nas-rank: ") and outcome.err.count("\n") == 1, outcome
    assert message in outcome.err
    assert not Path("runs").exists()


def test_a_folder_with_other_settings_is_refused(tmp_path: Path, pretended: Callable[[Score], list[str]]) -> None:
    pretended(by_name)
    config = training(tmp_path)
    rank(searches(1), config, RankingConfig(random=1, seeds=(0,)), "ranked", quiet=True)
    changed = replace(config, epochs=3, optimizer=replace(config.optimizer, lr=0.5))
    with pytest.raises(ValueError, match=r"was begun with another epochs, optimizer\.lr: give the same settings"):
        rank(["out"], changed, out="ranked", quiet=True)
    rank(["out"], replace(config, checkpoint_minutes=1.0), RankingConfig(random=1, seeds=(0,)), "ranked", quiet=True)


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    searches(1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "a ranking runs without torchrun" in called("nas-rank", cli.rank.main, "out").err


def test_the_settings_of_a_run_may_be_given_as_they_are(
    tmp_path: Path, pretended: Callable[[Score], list[str]]
) -> None:
    """config.yaml of a nas-retrain run names a genotype, a seed and a folder, which are the run's own."""
    trained = pretended(by_name)
    searches(2)
    plain = retrain_plain(training(tmp_path, seed=9, out="elsewhere"))
    Path("run.yaml").write_text(yaml.safe_dump(plain))
    words = ["out/seed-0", "--config", "run.yaml", "--random", "1", "out/seed-1", "--out", "ranked"]
    outcome = called("nas-rank", cli.rank.main, *words)
    assert outcome.code == 0, outcome.err
    names = ("search-seed-0", "search-seed-1", "random-1")
    assert trained == [f"ranked/{name}/seed-{seed}" for seed, name in product((0, 1), names)]
    assert outcome.out.splitlines()[-1] == "full ranking: ranked/ranking.md" and "50.00    51.00   50.50" in outcome.out
