"""Labels are counted before a run begins, once, and what they tell is refused or said."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from nas.config import AugmentConfig
from nas.data import Cached, DataError, Resized, SegmentationDataset, Subset, open_dataset
from nas.data.base import Sample
from nas.data.caching import default_folder
from nas.data.label_counts import count_labels, label_doubts, label_faults
from nas.data.readers.pairs import PairedDataset
from nas.runs.folder import RunFolder
from retrain.config import RetrainConfig
from retrain.evaluation import evaluate
from retrain.training import train
from trees import drawn, write_pair

NAMES = ("sky", "road", "tree")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tree(root: Path, train: Sequence[int], val: Sequence[int], classes: Sequence[str] = NAMES[:2]) -> Path:
    """A folder whose labels are drawn from these values; three images of 24x32 in train, two in val."""
    for split, values, count in (("train", train, 3), ("val", val, 2)):
        for number in range(count):
            image, label = (root / kind / split / f"{number}.png" for kind in ("images", "labels"))
            write_pair(image, label, drawn(values, number, (24, 32)), (24, 32))
    (root / "classes.txt").write_text("\n".join(classes))
    return root


def brute_force(dataset: SegmentationDataset) -> list[int]:
    labels = [dataset.read(index)[1].ravel() for index in range(len(dataset))]
    return np.bincount(np.concatenate(labels), minlength=256).tolist()


def counts(**pixels: int) -> np.ndarray:
    """Counts by value: v0=3, v255=2."""
    found = np.zeros(256, dtype=np.int64)
    for value, number in pixels.items():
        found[int(value[1:])] = number
    return found


# --- counting -----------------------------------------------------------------------------------------------


def test_counts_are_those_of_brute_force(tmp_path: Path) -> None:
    folder = open_dataset("folder", tree(tmp_path, [0, 1, 255], [0]), "train")
    for dataset in (
        folder,
        Resized(folder, 0.4),
        Subset(folder, [2, 0]),
        Resized(Subset(folder, [1]), 1.7),
        Cached(folder),
        Subset(open_dataset("shapes", None, "val"), range(3)),
    ):
        assert count_labels(dataset).tolist() == brute_force(dataset)


def test_images_are_not_decoded(tmp_path: Path) -> None:
    root = tree(tmp_path, [0, 1], [0])
    for path in (root / "images" / "train").iterdir():
        path.write_bytes(b"no image")
    dataset = Resized(Subset(open_dataset("folder", root, "train"), [0, 1]), 0.5)
    assert count_labels(dataset).sum() == 2 * 12 * 16


def test_a_class_with_a_read_of_its_own_is_read_by_it(tmp_path: Path) -> None:
    class Swapped(Subset):
        def read(self, index: int) -> Sample:
            image, label = super().read(index)
            return image, 1 - label

    folder = open_dataset("folder", tree(tmp_path, [1], [0]), "train")
    assert count_labels(folder)[1] == count_labels(Swapped(folder, [0, 1, 2]))[0] == 3 * 24 * 32


def test_labels_are_counted_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, [0, 1], [0])
    reads = []
    original = PairedDataset.read_ids
    monkeypatch.setattr(PairedDataset, "read_ids", lambda self, index: reads.append(index) or original(self, index))
    first = count_labels(open_dataset("folder", root, "train"))
    assert sorted(reads) == [0, 1, 2]
    assert count_labels(open_dataset("folder", root, "train")).tolist() == first.tolist()
    assert len(reads) == 3
    write_pair(root / "images/train/0.png", root / "labels/train/0.png", 1, (24, 32))
    assert count_labels(open_dataset("folder", root, "train"))[1] > first[1]
    assert len(reads) == 6
    count_labels(open_dataset("folder", root, "train", ids={0: 1, 1: 0}))
    assert len(reads) == 9


@pytest.mark.parametrize("content", ["", "[]", "[1]", "{}", "null", json.dumps(["a"] * 256), json.dumps([1e400] * 256)])
def test_a_broken_cache_is_counted_again(tmp_path: Path, content: str) -> None:
    dataset = open_dataset("folder", tree(tmp_path, [0, 1], [0]), "train")
    first = count_labels(dataset).tolist()
    (file,) = default_folder().glob("*.labels.json")
    file.write_text(content)
    assert count_labels(dataset).tolist() == first == json.loads(file.read_text())


def test_without_a_cache_labels_are_counted_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset("folder", tree(tmp_path / "data", [0, 1], [0]), "train")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert count_labels(dataset).tolist() == brute_force(dataset)


class Own(SegmentationDataset):
    """A user's data set, whose identity tells nothing of its content."""

    name, split, classes = "own", "train", NAMES
    colors = np.zeros((3, 3), dtype=np.uint8)

    def __init__(self, label: list[list[int]]) -> None:
        self.label = np.array(label)

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> Sample:
        return np.zeros((*self.label.shape, 3), dtype=np.uint8), self.label.astype(np.uint8)

    def sample_name(self, index: int) -> str:
        return "one"


def test_a_data_set_without_an_identity_is_not_cached() -> None:
    assert count_labels(Own([[0, 1]]))[:3].tolist() == [1, 1, 0]
    assert count_labels(Own([[2, 2]]))[:3].tolist() == [0, 0, 2]


def test_values_that_are_no_ids_are_refused_before_the_first_step() -> None:
    with pytest.raises(DataError, match="own train one: the label has 3, 7: expected class ids from 0 to 2, and 255"):
        count_labels(Own([[0, 3, 7, 255]]))


# --- what they tell -----------------------------------------------------------------------------------------


def faults(classes: Sequence[str], **pixels: np.ndarray) -> list[str]:
    return [split for split, _ in label_faults(pixels, classes, "train")]


def test_faults_by_hand() -> None:
    good = counts(v0=5, v1=5, v255=90)
    assert faults(NAMES[:2], train=good, val=good) == []
    assert faults(NAMES[:2], train=counts(v255=9), val=counts(v255=1)) == ["train", "val"]
    assert faults(NAMES[:2], train=counts(v0=90, v255=9), val=good) == ["train"]
    assert faults(NAMES[:2], train=good, val=counts(v0=90, v255=9)) == []  # the object may not occur there
    assert faults(NAMES[:2], train=counts(v0=90), val=good) == []
    assert faults(NAMES, train=counts(v0=90, v255=9), val=good) == []


def doubts(classes: Sequence[str], **pixels: np.ndarray) -> list[str]:
    return list(label_doubts(pixels, classes, "train", "val"))


def test_doubts_by_hand() -> None:
    good = counts(v0=5, v1=5, v2=5, v255=14)
    assert doubts(NAMES, train=good, val=good, test=good) == []
    assert doubts(NAMES, train=counts(v0=1, v1=1), val=good, test=counts(v0=1)) == [
        "1 of 3 classes never occur in train, so they cannot be learnt there: tree"
    ]
    assert doubts(NAMES, train=good, val=counts(v2=1)) == [
        "2 of 3 classes never occur in val, so its mIoU is the mean over the others: sky, road"
    ]
    disguised = doubts(NAMES, train=counts(v0=50, v1=40, v255=10), val=good)
    assert len(disguised) == 2
    assert disguised[1].startswith("10.0% of the pixels of train are ignored: is the ignored value")
    assert "a class in these labels, tree? --loader.ids tells" in disguised[1]
    assert len(doubts(NAMES, train=counts(v0=50, v1=49, v255=1), val=good)) == 1  # a border
    assert len(doubts(NAMES, train=counts(v0=50, v255=10), val=good)) == 1  # 255 is not two classes
    assert len(doubts(NAMES, train=counts(v0=4, v1=4, v2=1, v255=10), val=good)) == 1
    assert doubts(NAMES, train=counts(v255=9), val=good) == []  # a fault


# --- runs ---------------------------------------------------------------------------------------------------


def config(root: Path, out: Path, **loader: Any) -> RetrainConfig:
    loader = {"train_limit": None, "augment": AugmentConfig(crop=(33, 33)), **loader}
    settings = {"loader": dataclasses.replace(tiny.LOADER, **loader), "epochs": 1, "device": "cpu"}
    return tiny.training(root, data="folder", data_root=str(root), out=str(out), **settings)


def test_a_run_is_refused_before_its_first_step(tmp_path: Path) -> None:
    for name, train_values, val_values, says in (
        ("binary", [0, 255], [0, 255], "hold only 0 and 255, which is ignored: one class, sky; if 255 is road, give"),
        ("void", [255], [0, 1], "train has no labelled pixel: every label is 255"),
        ("blind", [0, 1], [255], "val has no labelled pixel: every label is 255"),
    ):
        root, out = tree(tmp_path / name, train_values, val_values), tmp_path / f"run-{name}"
        with pytest.raises(DataError, match=says) as caught:
            train(config(root, out), quiet=True)
        assert str(caught.value).startswith("folder: ") and not out.exists()


def test_a_run_says_what_its_labels_lack_and_of_how_many_classes_miou_is_the_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path / "data", [0, 1], [0])
    (root / "images" / "train" / "notes.txt").write_text("")
    result = train(config(root, tmp_path / "run"))
    shown = capsys.readouterr().out
    log = (result.folder / "log.txt").read_text()
    for text in (shown, log):
        assert "1 file was not read: images/train/notes.txt\n" in text
        assert "1 of 2 classes never occur in val, so its mIoU is the mean over the others: road\n" in text
    assert "\x1b" not in shown + log
    over = result.mean_over
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert over == lines[-1]["val"]["mean_over"] and over in ([1, 2], [2, 2])
    assert ("(mean over 1 of 2 classes)" in shown) == (over == [1, 2])
    measured = evaluate(result.folder, device="cpu", which="last")
    assert measured.mean_over == over
    assert f"over {over[0]} of 2 classes" in measured.table()
    assert json.loads((result.folder / "evaluation-val-last.json").read_text())["mean_over"] == over


def test_warnings_are_yellow_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name, plain in (("one", None), ("two", "1")):
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.delenv("NO_COLOR", raising=False)
        if plain:
            monkeypatch.setenv("NO_COLOR", plain)
        with RunFolder(tmp_path / name, config(tmp_path, tmp_path / name)) as run:
            run.log.info("an epoch")
            run.log.warning("a doubt")
            shown = sys.stdout.getvalue()  # type: ignore[attr-defined]
        assert shown.endswith("an epoch\na doubt\n" if plain else "an epoch\n\x1b[33ma doubt\x1b[0m\n")
        assert "\x1b" not in (tmp_path / name / "log.txt").read_text()


def test_a_run_follows_the_ids_of_its_labels(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", [1, 2], [1, 2])
    result = train(config(root, tmp_path / "run", ids="one-based"), quiet=True)
    assert "ids: one-based" in (result.folder / "config.yaml").read_text()
    assert evaluate(result.folder, device="cpu").mean_over[1] == 2
    assert count_labels(open_dataset("folder", root, "val", ids="one-based"))[:2].all()
