"""Which data a run is of: every command that meets other data says so; a genotype takes its data along."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import retrain
from nas.config import SearchConfig
from nas.darts import search
from nas.data.base import DataError, Resized, Subset, open_dataset
from nas.data.identity import changed_parts, check_same_data, data_identity
from nas.data.loading import split_dataset
from nas.data.splits import identity_of
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from nas.runs.names import read_config
from nas.seeds import search_seeds
from retrain.config import RankingConfig, RetrainConfig
from retrain.networks.settings import NetworkConfig
from retrain.pretrained import initialize
from retrain.report.page import commands
from retrain.report.runs import read_run
from retrain.sweeps.settings import Parameter, StudyConfig
from retrain.sweeps.space import Space
from retrain.sweeps.storage import open_storage
from retrain.sweeps.study import Study
from retrain.training import train
from runs import Killed, kill, on_step
from search_spaces.genotype import load_genotype
from search_spaces.validation import from_plain, to_plain
from tiny import GENOTYPE, LOADER, NETWORK, Outcome, command, refused, searching, training, without_pictures

CLASSES = ("sky", "grass", "tree")
NAMES = {"train": [f"t{number}" for number in range(8)], "val": ["v0", "v1"]}


def data(
    root: Path, classes: Sequence[str] = CLASSES, names: dict[str, list[str]] = NAMES, split: str = "test"
) -> Path:
    """A data set `folder`; its pixels depend on the number of the sample alone."""
    for folder, stems in {**names, split: ["x0"]}.items():
        for part in ("images", "labels"):
            (root / part / folder).mkdir(parents=True)
        for number, name in enumerate(stems):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"images/{folder}/{name}.png")
            Image.fromarray(pixels[..., 0] % len(classes)).save(root / f"labels/{folder}/{name}.png")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return root


def other_samples(root: Path) -> Path:
    """As many, and one has another name, so that it comes first."""
    return data(root, names={"train": ["a", *NAMES["train"][:-1]], "val": ["a", "v1"]})


LOADER_OF = dataclasses.replace(LOADER, train_limit=None, val_limit=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets; a search, a training of its genotype and a training of a published network on the first."""
    place = tmp_path_factory.mktemp("place")
    data(place / "mine")
    data(place / "permuted", ("grass", "sky", "tree"))
    other_samples(place / "renamed")
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        search(on(searching, place, out=str(place / "found"), epochs=1), quiet=True)
    train(on(training, place, out=str(place / "trained"), genotype=str(place / "found"), epochs=1), quiet=True)
    return place


def on(make: Callable[..., Any], place: Path, root: str = "mine", **changes: Any) -> Any:
    values = {"data": "folder", "data_root": str(place / root), "loader": LOADER_OF} | changes
    return make(**values) if make is SearchConfig else make(place, **values)


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a run."""
    return lambda name: shutil.copytree(place / name, tmp_path / name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_pictures(monkeypatch)
    monkeypatch.chdir(tmp_path)


# The identity


def test_the_identity_is_that_of_whole_splits(tmp_path: Path) -> None:
    root = data(tmp_path / "mine")
    whole = open_dataset("folder", root, "train")
    identity = data_identity(str(root), whole, open_dataset("folder", root, "val"))
    assert identity["data"] == "folder" and identity["root"] == str(root) and identity["classes"] == list(CLASSES)
    assert identity["colors"] == whole.colors.tolist()
    # printf '["v0", "v1"]' | sha256sum
    digest = "ec295edfca7b0508fd34d1335dafa4f1e3bec883512f9599052a16623c653dff"
    assert identity["splits"]["val"] == {"samples": 2, "sha256": digest}
    part = Resized(Subset(whole, [3, 1]), 0.5)
    assert data_identity(str(root), part)["splits"] == {"train": identity["splits"]["train"]}
    assert json.loads(json.dumps(identity)) == identity


def test_a_name_in_another_normal_form_is_the_same() -> None:
    class Named:
        name, split, classes, colors = "n", "train", ("a",), np.zeros((1, 3), np.uint8)

        def __init__(self, *names: str) -> None:
            self.names = names

        def __len__(self) -> int:
            return len(self.names)

        def sample_name(self, index: int) -> str:
            return self.names[index]

    one, same, other, turned = (
        data_identity(None, Named(*names))  # type: ignore[arg-type]
        for names in (("for\u00eat", "b"), ("fore\u0302t", "b"), ("foret", "b"), ("b", "for\u00eat"))
    )
    assert changed_parts(one, same) == []
    assert changed_parts(one, other) == changed_parts(one, turned) == ["train"]


BEFORE = {
    "data": "folder",
    "root": "/a",
    "classes": ["x", "y"],
    "colors": [[0, 0, 0], [1, 1, 1]],
    "splits": {"train": {"samples": 8, "sha256": "0123456789abcdef"}},
}


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (
            {"classes": ["y", "x"]},
            "the data changed: RUN is of folder at /a with classes x, y, but this is folder at /b with classes y, x: "
            "give the data that it is of (--data-root), or start a new run",
        ),
        ({"classes": ["x", "y", "z"]}, "with classes x, y, but this is folder at /b with classes x, y, z: give"),
        (
            {"splits": {"train": {"samples": 1, "sha256": "f" * 64}, "val": {}}},
            "RUN is of folder at /a with 8 samples in train (names 01234567), but this is folder at /b with 1 sample "
            "in train (names ffffffff): give the data that it is of (--data-root), or accept the change by "
            "--data-changed accept",
        ),
        ({"colors": [[0, 0, 0], [9, 9, 9]]}, "with colors [0, 0, 0], [1, 1, 1], but this is folder at /b with colors"),
    ],
)
def test_a_change_is_refused_and_both_are_named(now: dict[str, Any], says: str) -> None:
    said: list[str] = []
    with pytest.raises(DataError) as refusal:
        check_same_data(BEFORE, {**BEFORE, "root": "/b", **now}, "RUN")
    assert says in str(refusal.value)
    if "classes" in now:
        with pytest.raises(DataError):
            check_same_data(BEFORE, {**BEFORE, **now}, "RUN", accept=True)
    else:
        assert check_same_data(BEFORE, {**BEFORE, **now}, "RUN", True, said.append)
        assert len(said) == 1 and said[0].endswith(": accepted, as data_changed says")
    assert not check_same_data(BEFORE, {**BEFORE, "root": "/b"}, "RUN", say=said.append)
    assert not check_same_data({}, {**BEFORE, **now}, "RUN"), "an older release recorded nothing"


def test_of_many_classes_those_from_the_first_difference_on_are_named() -> None:
    names = [f"class {number}" for number in range(150)]
    changed = [*names[:140], "other", *names[141:]]
    with pytest.raises(DataError) as refusal:
        check_same_data({"classes": names}, {"classes": changed}, "RUN")
    assert "(the first 140 alike) class 140, class 141" in str(refusal.value)
    assert "(the first 140 alike) other, class 141" in str(refusal.value) and len(str(refusal.value)) < 700


@pytest.mark.parametrize(
    "damaged",
    [5, [], "x", {"splits": 5}, {"splits": {"train": 5}}, {"splits": {"train": {"samples": "8"}}}, {"classes": "x"}],
)
def test_a_damaged_identity_is_one_line(damaged: Any) -> None:
    with pytest.raises(DataError, match="what is recorded of the data is damaged"):
        changed_parts(damaged, BEFORE)


# Resuming


@pytest.mark.parametrize("name", ["found", "trained"])
def test_other_classes_are_never_resumed(place: Path, copy: Callable[[str], Path], name: str) -> None:
    verb = "search" if name == "found" else "retrain"
    run = copy(name)
    before = (run / "checkpoint.pt").read_bytes()
    words = ("--resume", run, "--epochs", 3, "--data-root", place / "permuted", "--quiet")
    for more in ((), ("--data-changed", "accept")):
        says = refused(f"nas-{verb}", *words, *more)
        assert f"{run} is of folder at {place / 'mine'} with classes sky, grass, tree" in says
        assert f"but this is folder at {place / 'permuted'} with classes grass, sky, tree" in says
    assert (run / "checkpoint.pt").read_bytes() == before
    data(place / f"four-{name}", (*CLASSES, "house"))
    words = ("--resume", run, "--epochs", 3, "--data-root", place / f"four-{name}", "--quiet")
    assert "with classes sky, grass, tree, house" in refused(f"nas-{verb}", *words)


@pytest.mark.parametrize("name", ["found", "trained"])
def test_other_samples_are_resumed_only_if_asked_for(place: Path, copy: Callable[[str], Path], name: str) -> None:
    verb = "search" if name == "found" else "retrain"
    run = copy(name)
    words = ("--resume", run, "--epochs", 2, "--data-root", place / "renamed")
    assert "8 samples in train (names " in refused(f"nas-{verb}", *words, "--quiet")
    done = command(f"nas-{verb}", *words, "--data-changed", "accept")
    assert done.code == 0 and "accepted, as data_changed says" in (run / "log.txt").read_text(), done
    assert read_config(run)["data_changed"] == "accept"
    saved = load_checkpoint(run / "checkpoint.pt", verb)
    assert saved["data"] == load_checkpoint(place / name / "checkpoint.pt", verb)["data"] | {
        "root": str(place / "renamed"),
        "splits": saved["data"]["splits"],
    }


def test_halves_are_dealt_again_on_other_samples(place: Path, tmp_path: Path) -> None:
    """The saved indices are of other images; of more images, all take part."""
    names = {"train": [f"t{number}" for number in range(12)], "val": NAMES["val"]}
    more = data(tmp_path / "more", names=names)
    run = shutil.copytree(place / "found", tmp_path / "run")
    config = from_plain(SearchConfig, read_config(run))
    config = dataclasses.replace(config, data_root=str(more), epochs=2, data_changed="accept")
    search(config, run, quiet=True)
    halves = load_checkpoint(run / "checkpoint.pt", "search")["split"]
    dealt = split_dataset(open_dataset("folder", more, "train"), config.seed)
    assert [half.tolist() for half in halves] == [half.tolist() for half in dealt]
    assert sorted(torch.cat(halves).tolist()) == list(range(12))


def test_the_position_is_the_same_share_of_an_epoch_of_more_samples(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"train": [f"t{number}" for number in range(16)], "val": NAMES["val"]}
    more = data(tmp_path / "more", names=names)
    config = on(training, place, out=str(tmp_path / "run"), epochs=1, checkpoint_minutes=0.0)
    with monkeypatch.context() as patch:
        on_step(patch, 3, kill)
        with pytest.raises(Killed):
            train(config, quiet=True)
    assert load_checkpoint(tmp_path / "run/checkpoint.pt", "retrain")["state"]["step"] == 2  # of 4
    steps = []
    with monkeypatch.context() as patch:
        on_step(patch, 4, lambda: steps.append("the last of 8"))
        changed = dataclasses.replace(config, data_root=str(more), data_changed="accept")
        train(changed, tmp_path / "run", quiet=True)
    assert steps == ["the last of 8"]


def test_a_checkpoint_of_an_older_release_is_resumed(copy: Callable[[str], Path]) -> None:
    run = copy("trained")
    saved = load_checkpoint(run / "checkpoint.pt", "retrain")
    for name in ("data", "threads", "genotype"):
        del saved[name]
    save_checkpoint(run / "checkpoint.pt", "retrain", saved)
    assert command("nas-retrain", "--resume", run, "--epochs", 2, "--quiet").code == 0
    save_checkpoint(run / "checkpoint.pt", "retrain", saved | {"samples": 7})
    assert "begun on 7 training images, but there are 8 now" in refused("nas-retrain", "--resume", run, "--quiet")


def test_another_number_of_threads_is_told(copy: Callable[[str], Path]) -> None:
    run, threads = copy("trained"), torch.get_num_threads()
    saved = load_checkpoint(run / "checkpoint.pt", "retrain")
    assert saved["threads"] == threads
    words = ("nas-retrain", "--resume", run, "--device", "cpu", "--epochs")
    assert "by rounding" not in command(*words, 2).out
    saved = load_checkpoint(run / "checkpoint.pt", "retrain") | {"threads": 64}
    save_checkpoint(run / "checkpoint.pt", "retrain", saved)
    says = f"resumed with {threads} thread{'s' * (threads > 1)}, after 64 before: the result may differ by rounding"
    assert says in command(*words, 3).out


def test_the_root_is_kept_absolute(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    run = train(on(training, place, out=str(tmp_path / "run"), epochs=1, data_root="mine"), quiet=True).folder
    assert read_config(run)["data_root"] == str(place / "mine")
    monkeypatch.chdir(tmp_path)
    assert command("nas-evaluate", run).code == 0


# Several runs


def test_seeds_on_other_data_are_refused(place: Path, tmp_path: Path) -> None:
    config = on(searching, place, epochs=1)
    search_seeds(config, [0], tmp_path / "seeds", quiet=True)
    for root, says in (("permuted", "classes grass, sky, tree"), ("renamed", r"8 samples in train \(names ")):
        changed = dataclasses.replace(config, data_root=str(place / root))
        with pytest.raises(DataError, match=f"{tmp_path / 'seeds/seed-0'} is of folder at .* but this .*{says}"):
            search_seeds(changed, [0, 1], tmp_path / "seeds", quiet=True)
    for name in ("checkpoint.pt", "best.pt"):  # the genotype knows, too
        (tmp_path / "seeds/seed-0" / name).unlink()
    with pytest.raises(DataError, match="seed-0 is of folder"):
        search_seeds(changed, [0, 1], tmp_path / "seeds", quiet=True)
    assert not (tmp_path / "seeds/seed-1").exists()
    with pytest.warns(UserWarning, match=r"seed-0 is of folder .*: accepted, as data_changed says"):
        search_seeds(dataclasses.replace(changed, data_changed="accept"), [0], tmp_path / "seeds", quiet=True)


def test_a_ranking_on_other_data_is_refused(place: Path, tmp_path: Path) -> None:
    config, out = on(training, place, epochs=1), tmp_path / "ranked"
    few = RankingConfig(random=1, seeds=(0,))
    first = retrain.rank([place / "found"], config, few, out, quiet=True)
    for root in ("permuted", "renamed"):
        with pytest.raises(DataError, match=r"the data changed: .* is of folder at"):
            retrain.rank([place / "found"], dataclasses.replace(config, data_root=str(place / root)), few, out, True)
    for checkpoint in out.glob("*/seed-0/*.pt"):
        checkpoint.unlink()
    again = retrain.rank([place / "found"], config, few, out, quiet=True)
    assert [entry.mious for entry in again.entries] == [entry.mious for entry in first.entries], "measured already"
    record = next(out.glob("*/seed-0/evaluation-val-last.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"names_sha256": "0" * 64, "miou": 0.123}))
    once_more = retrain.rank([place / "found"], config, few, out, quiet=True)
    assert all(miou != 0.123 for entry in once_more.entries for miou in entry.mious), "that was of other samples"


def test_a_study_of_other_data_is_refused(place: Path, tmp_path: Path) -> None:
    def study(root: str, **changes: Any) -> Study:
        base = on(SearchConfig, Path(), str(place / root), **changes)
        space = Space((Parameter("optimizer.lr", choices=(0.1, 0.2)),), base)
        storage = open_storage(None, tmp_path)
        return Study("mine", space, StudyConfig(), storage, tmp_path, identity_of(base))

    study("mine")
    study("mine", data_changed="accept")
    for root, says in (("permuted", "with classes grass, sky, tree"), ("renamed", r"8 samples in train \(names ")):
        with pytest.raises(DataError, match=f"the study mine is of folder at .* but this is .*{says}"):
            study(root)
    with pytest.warns(UserWarning, match=r"the study mine is of folder .*: accepted, as data_changed says"):
        study("renamed", data_changed="accept")


@pytest.mark.slow
def test_the_command_of_a_study_compares_its_data(place: Path, tmp_path: Path) -> None:
    plain = to_plain(on(training, place, epochs=1)) | {"genotype": str(place / "found")}
    sweep = {
        "command": "retrain",
        "parameters": {"optimizer.lr": {"choices": [0.1, 0.2]}},
        "sampler": "random",
        "trials": 1,
        "settings": {name: value for name, value in plain.items() if value is not None and name != "out"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(sweep))
    words = ("nas-sweep", tmp_path / "mine.yaml", "--out", tmp_path / "study", "--quiet")
    assert command(*words).code == 0
    for root, says in (("permuted", "with classes grass, sky, tree"), ("renamed", "8 samples in train (names ")):
        said = refused(*words, "--data-root", place / root)
        assert "the study study is of folder at" in said and says in said.partition(" but this is ")[2]
    done = command(*words, "--data-root", place / "renamed", "--data-changed", "accept")
    assert done.code == 0 and "accepted, as data_changed says" in done.err


# Evaluation, decoding by perturbation, weights of another run


def test_evaluation_compares_what_it_measures(place: Path, copy: Callable[[str], Path]) -> None:
    run = copy("trained")
    assert "classes grass, sky, tree" in refused("nas-evaluate", run, "--data-root", place / "permuted")
    says = refused("nas-evaluate", run, "--data-root", place / "renamed")
    assert "2 samples in val (names " in says and "--data-changed accept" in says
    # The samples of another split are nobody's; the splits of the training need not be there, nor their colours.
    elsewhere = data(place / "elsewhere", names={}, split="test")
    (elsewhere / "classes.txt").write_text("sky 1 2 3\ngrass 4 5 6\ntree 7 8 9\n")
    assert command("nas-evaluate", run, "--data-root", elsewhere, "--split", "test").code == 0
    done = command("nas-evaluate", run, "--data-root", place / "renamed", "--data-changed", "accept")
    assert done.code == 0 and "accepted, as data_changed says" in done.err
    record = json.loads((run / "evaluation-val-best.json").read_text())
    identity = data_identity(None, open_dataset("folder", place / "renamed", "val"))
    assert record["names_sha256"] == identity["splits"]["val"]["sha256"]
    assert record["settings"]["data_changed"] == "accept"


def test_perturbation_compares_the_validation_split(place: Path) -> None:
    words = ("nas-decode", place / "found", "--by", "perturbation", "--images", 1, "--json")
    assert "classes grass, sky, tree" in refused(*words, "--data-root", place / "permuted")
    assert "2 samples in val (names " in refused(*words, "--data-root", place / "renamed")
    done = command(*words, "--data-root", place / "renamed", "--data-changed", "accept", "-o", "decoded.json")
    assert done.code == 0 and "accepted, as data_changed says" in done.err
    assert "--data-changed is for" in refused("nas-decode", place / "found", "--data-changed", "accept")
    provenance = load_genotype("decoded.json").provenance
    assert provenance["data_identity"] == load_genotype(place / "found").provenance["data_identity"]


@pytest.mark.parametrize("published", ["", "espnet"])
def test_weights_of_permuted_classes_stay_out_of_the_classifier(tmp_path: Path, published: str) -> None:
    settings = NetworkConfig() if published else NETWORK
    config = training(
        tmp_path, network=settings, init_from=str(tmp_path), **({"genotype": published} if published else {})
    )
    four, three, network = (retrain.build(published or GENOTYPE, classes, settings) for classes in (4, 3, 3))
    with torch.no_grad():
        for parameter in three.parameters():
            parameter.fill_(7.0)
    weights, fresh = three.state_dict(), {name: tensor.clone() for name, tensor in network.state_dict().items()}
    identity = {"data": "folder", "root": "/a", "classes": ["sky", "grass", "tree"]}
    save_checkpoint(tmp_path / "best.pt", "retrain", {"network": weights, "data": identity})
    own = {name for name, tensor in weights.items() if tensor.shape != four.state_dict()[name].shape}
    assert own
    report = initialize(network, config, {**identity, "root": "/b", "classes": ["grass", "sky", "tree"]})
    assert report is not None and report.startswith(f"{len(weights) - len(own)} of {len(weights)} tensors from ")
    assert "with classes sky, grass, tree, but this is folder at /b with classes grass, sky, tree: what" in report
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in own else weights[name]), name
    assert (
        initialize(network, config, identity) == f"{len(weights)} of {len(weights)} tensors from {tmp_path / 'best.pt'}"
    )
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


# A genotype knows its data


def head(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome
    return dict(yaml.safe_load(outcome.out))


def test_a_genotype_takes_its_data_along(place: Path) -> None:
    genotype = load_genotype(place / "found/genotype.json")
    assert genotype.provenance["data_settings"] == {
        "data": "folder",
        "data_root": str(place / "mine"),
        "loader": {"resolution": 1.0, "train_split": "train", "val_split": "val"},
    }
    provenance = {**genotype.provenance}
    provenance["data_settings"] = {
        **provenance["data_settings"],
        "loader": {"resolution": 0.5, "workers": 7},
        "out": "x",
    }
    dataclasses.replace(genotype, provenance=provenance).save("half.json")

    def settings(*words: object, name: str = "retrain") -> list[Any]:
        found = head(command(f"nas-{name}", *words, "--print_config"))
        return [found["data"], found["data_root"], found["loader"]["resolution"], found["loader"]["workers"]]

    mine = str(place / "mine")
    assert settings("half.json") == ["folder", mine, 0.5, 0], "settings that are not of the data are left"
    Path("only.yaml").write_text("genotype: half.json\nepochs: 3\n")
    assert settings("--config", "only.yaml") == ["folder", mine, 0.5, 0]
    assert settings("half.json", "--recipe", "autodeeplab")[:2] == ["cityscapes", None], "the recipe tells"
    assert settings("half.json", "--data-root", place / "permuted") == ["folder", str(place / "permuted"), 0.5, 0]
    assert settings("half.json", "--loader.resolution", 0.25) == ["folder", mine, 0.25, 0]
    assert settings("half.json", "--data", "shapes") == ["shapes", None, 1.0, 0]
    Path("told.yaml").write_text(f"data: folder\ndata_root: {place / 'renamed'}\n")
    assert settings("half.json", "--config", "told.yaml") == ["folder", str(place / "renamed"), 1.0, 0]
    assert settings("half.json", place / "found/genotype.json", "--data", "shapes", name="rank")[0] == "shapes"
    assert settings(place / "found", name="rank") == ["folder", mine, 1.0, 0]
    says = refused("nas-rank", "half.json", place / "found")
    assert "searched on different data" in says and mine in says and "--data" in says


def test_the_data_of_a_genotype_that_is_gone_is_one_line(place: Path) -> None:
    genotype = load_genotype(place / "found")
    settings = {**genotype.provenance["data_settings"], "data_root": "/gone"}
    dataclasses.replace(genotype, provenance={"data_settings": settings}).save("lost.json")
    for name in ("retrain", "rank"):
        says = refused(f"nas-{name}", "lost.json", "--quiet")
        assert "the data of the search, folder at /gone, is gone: give --data-root FOLDER where it is now" in says
    assert (
        head(command("nas-retrain", "lost.json", "--data-root", place / "mine", "--print_config"))["data"] == "folder"
    )


@pytest.mark.parametrize("wrong", [5, {"data": 5}, {"data": "folder", "loader": 5}, {"data": "folder"}])
def test_strange_settings_of_data_are_left_or_refused(wrong: Any) -> None:
    dataclasses.replace(GENOTYPE, provenance={"data_settings": wrong}).save("strange.json")
    assert head(command("nas-retrain", "strange.json", "--print_config"))["data"] == "shapes"
    settings = {"data": "folder", "data_root": 5, "loader": {"resolution": "x"}}
    dataclasses.replace(GENOTYPE, provenance={"data_settings": settings}).save("strange.json")
    refused("nas-retrain", "strange.json")


def test_a_search_on_the_built_in_data_is_trained_as_before() -> None:
    provenance = {"data_settings": SearchConfig().data_settings()}
    run = dataclasses.replace(GENOTYPE, provenance=provenance).save("found/genotype.json").parent
    assert head(command("nas-retrain", run, "--print_config")) == head(
        command("nas-retrain", run, "--recipe=small", "--print_config")
    )


def test_training_on_other_data_than_the_search_is_told(place: Path, tmp_path: Path) -> None:
    for root, says in (("permuted", "with classes sky, grass, tree, but this is"), ("mine", "")):
        config = on(training, place, root, genotype=str(place / "found"), out=str(tmp_path / root), epochs=1)
        log = (train(config, quiet=True).folder / "log.txt").read_text()
        assert ("note: the data changed: the search of the genotype is of folder" in log) == bool(says)
        assert says in log


# A run folder in place of a file in it


def test_a_run_folder_stands_for_its_genotype(place: Path, copy: Callable[[str], Path]) -> None:
    run = copy("found")
    for words in (("nas-decode",), ("nas-describe", "--input=64x64")):
        whole, inside = (command(*words, source) for source in (run, run / "genotype.json"))
        assert whole.code == 0 and whole.out.replace(str(run / "genotype.json"), str(run)) == inside.out.replace(
            str(run / "genotype.json"), str(run)
        )
    assert load_genotype(run).digest == load_genotype(run / "genotype.json").digest
    same, network = (retrain.build(source, 3, NETWORK) for source in (run, run / "genotype.json"))
    assert [p.shape for p in same.parameters()] == [p.shape for p in network.parameters()]
    assert retrain.build(str(place / "trained"), 3, NETWORK).classes == 3
    small = ("--epochs=1", "--loader.batch_size=2", "--loader.augment.crop=[33,33]", "--network.filter_multiplier=2")
    done = command(
        "nas-retrain", run, *small, "--network.aspp_channels=8", "--network.decoder_channels=8", "--device=cpu"
    )
    assert done.code == 0, done
    assert f"the data of the search, folder at {place / 'mine'}; --data chooses other data" in done.out
    assert read_config(Path("runs/retrain-found-folder"))["data_root"] == str(place / "mine")
    assert "is a folder without a genotype.json" in refused("nas-retrain", place / "mine")
    assert head(command("nas-search", "--config", run, "--print_config"))["data_root"] == str(place / "mine")


def test_a_report_says_how_to_train_on_the_same_data(place: Path, copy: Callable[[str], Path]) -> None:
    run = copy("found")
    lines = [line for line, _ in commands(read_run(run))]
    assert f"nas-retrain {run}" in lines
    genotype = load_genotype(run)
    dataclasses.replace(genotype, provenance={"data": "folder"}).save(run / "genotype.json")  # of an older release
    root = place / "mine"
    options = (
        f"--data folder --data-root {root} --loader.resolution 1.0 --loader.train-split train --loader.val-split val"
    )
    assert f"nas-retrain {run} {options}" in [line for line, _ in commands(read_run(run))]


# A genotype that was edited next to the weights


@pytest.fixture
def edited(copy: Callable[[str], Path]) -> Path:
    run = copy("trained")
    genotype = load_genotype(run)
    block = genotype.cell[0]
    operations = ("skip" if block.operations[0] != "skip" else "separable_3x3", block.operations[1])
    dataclasses.replace(genotype, cell=(dataclasses.replace(block, operations=operations),)).save(run / "genotype.json")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"genotype": str(run / "genotype.json")}))
    return run


@pytest.mark.parametrize(
    "words",
    [
        ("nas-evaluate", "RUN"),
        ("nas-predict", "RUN", "IMAGE"),
        ("nas-describe", "RUN"),
        ("nas-retrain", "--resume", "RUN", "--epochs", "2", "--quiet"),
    ],
)
def test_an_edited_genotype_is_refused(place: Path, edited: Path, words: tuple[str, ...]) -> None:
    names = {"RUN": str(edited), "IMAGE": str(place / "mine/images/val")}
    says = refused(*(names.get(word, word) for word in words))
    assert f"{edited / 'genotype.json'} is not the genotype whose weights" in says
    assert f"put the file back as it was, or train the changed one: nas-retrain {edited / 'genotype.json'}" in says


def test_export_refuses_an_edited_genotype(edited: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert "is not the genotype whose weights" in refused("nas-export", edited, "--onnx", "x.onnx")


def test_the_digest_is_of_space_cell_and_path_alone() -> None:
    block = GENOTYPE.cell[0]
    changes: list[dict[str, Any]] = [
        {"path": (4, 4)},
        {"cell": (dataclasses.replace(block, operations=("skip", "skip")),)},
        {"cell": (dataclasses.replace(block, inputs=("l-2", "l-2")),)},
        {"space": dataclasses.replace(GENOTYPE.space, filter_multiplier=4)},
    ]
    digests = {dataclasses.replace(GENOTYPE, **change).digest for change in ({}, {"provenance": {"a": 1}}, *changes)}
    assert len(digests) == 1 + len(changes)
    assert RetrainConfig().data_settings()["data_root"] is None
