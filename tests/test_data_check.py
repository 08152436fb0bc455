"""nas-data check: what it counts, what it finds wrong, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nas.training.progress
from cli import common, data
from nas.data import DATASETS, IGNORE, DataError, Subset, open_dataset, register_dataset
from nas.data.base import Sample, SegmentationDataset
from nas.data.check.checking import Problem, Report, check, open_splits
from nas.data.check.contact_sheet import draw_contact_sheet, overlay, spread
from nas.data.check.report import SHOWN, as_data, as_text, summary
from nas.data.check.statistics import equal_images
from nas.data.readers.camvid import CLASSES as CAMVID_CLASSES
from nas.data.readers.pairs import collecting
from nas.training.class_weights import inverse_log_weights, median_frequency_weights

ROOT = Path(__file__).resolve().parents[1]
CAMVID = Path(os.environ.get("NAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "camvid"


def write(root: Path, split: str, name: str, ids: Any, seed: int = 0) -> None:
    """A noise image and a label with these ids, [H, W]."""
    label = np.asarray(ids, dtype=np.uint8)
    image = np.random.default_rng([seed, *name.encode()]).integers(0, 256, (*label.shape, 3), dtype=np.uint8)
    for folder, array in (("images", image), ("labels", label)):
        path = root / folder / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes, images of three sizes in train, one in val."""
    root = tmp_path / "mine"
    rng = np.random.default_rng(0)
    for name, size in (("a", (6, 8)), ("b", (6, 8)), ("c", (3, 5)), ("d", (9, 4))):
        write(root, "train", name, rng.choice([0, 1, 2, IGNORE], size))
    write(root, "val", "e", np.ones((4, 4)))
    (root / "classes.txt").write_text("sky 0 0 255\nroad 255 0 0\ntree 0 255 0\n")
    return root


def checked(name: str, root: Path | None, *splits: str, workers: int = 2) -> Report:
    return check(open_splits(name, root, splits or None), workers)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `nas-data check`."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            common.run("nas-data", data.main, ["check", *map(str, arguments)])
        text = capsys.readouterr()
        assert text.err.count("\n") == (stop.value.code != 0), text.err
        return Outcome(int(stop.value.code or 0), text.out, text.err)

    return run


# What is counted


@pytest.mark.parametrize("workers", [1, 5])
def test_counts_are_those_of_brute_force(tree: Path, workers: int) -> None:
    report = as_data(checked("folder", tree, workers=workers))
    samples = [open_dataset("folder", tree, "train").read(index) for index in range(4)]
    train = report["splits"][0]
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in samples]) / 255
    labels = np.concatenate([label.ravel() for _, label in samples])
    assert (train["split"], train["samples"], train["readable"]) == ("train", 4, 4)
    assert (train["pixels"], train["ignored"]) == (6 * 8 * 2 + 3 * 5 + 9 * 4, int((labels == IGNORE).sum()))
    assert train["mean"] == pytest.approx(pixels.mean(0).tolist())
    assert train["std"] == pytest.approx(pixels.std(0).tolist())
    assert train["sizes"][0] == {"height": 6, "width": 8, "samples": 2}
    assert len(train["sizes"]) == 3
    frequencies, labelled = [], (labels != IGNORE).sum()
    for number, row in enumerate(train["classes"]):
        having = [label for _, label in samples if (label == number).any()]
        count = int((labels == number).sum())
        assert (row["id"], row["pixels"], row["images"]) == (number, count, len(having))
        assert row["share"] == pytest.approx(count / labelled)
        assert row["inverse_log_weight"] == pytest.approx(1 / np.log(1.02 + count / labelled))
        frequencies.append(count / sum(label.size for label in having))
    expected = np.median(frequencies) / np.array(frequencies)
    assert [row["median_frequency_weight"] for row in train["classes"]] == pytest.approx(expected.tolist())


def test_median_frequency_weights_by_hand() -> None:
    # Shares 0.5 (in both images of 10 pixels), 0.2 and 0.3 (in one of them); the second class never occurs.
    weights = median_frequency_weights([10, 0, 2, 3], [20, 0, 10, 10])
    assert weights.tolist() == pytest.approx([0.6, np.nan, 1.5, 1.0], nan_ok=True)
    assert np.isnan(median_frequency_weights([0, 0], [0, 0])).all()
    assert inverse_log_weights([0.0, np.e - 1.02]).tolist() == pytest.approx([1 / np.log(1.02), 1.0])


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid at {CAMVID} (set NAS_TEST_DATA)")
def test_camvid_is_as_its_description_says() -> None:
    report = as_data(checked("camvid", CAMVID, "train", workers=2))
    assert (report["problems"], report["warnings"]) == ([], [])
    train = report["splits"][0]
    assert train["sizes"] == [{"height": 360, "width": 480, "samples": 367}]
    weights = [0.2793, 0.2017, 4.7865, 0.1490, 1.0000, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]
    shares = [17.54, 24.21, 1.02, 32.96, 4.67, 10.12, 1.22, 1.17, 6.11, 0.67, 0.30]
    images = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201]
    assert [round(row["median_frequency_weight"], 4) for row in train["classes"]] == weights
    assert [round(100 * row["share"], 2) for row in train["classes"]] == shares
    assert [row["images"] for row in train["classes"]] == images
    assert round(100 * train["ignored"] / train["pixels"], 2) == 3.95
    # The description's numbers seem to be those of the images before they became JPEGs: they are 0.0005 off.
    assert train["mean"] == pytest.approx([0.4119, 0.4251, 0.4327], abs=0.001)
    assert train["std"] == pytest.approx([0.3071, 0.3116, 0.3072], abs=0.001)


def test_reading_stays_a_few_samples_ahead(tree: Path) -> None:
    started, most, lock = [], [0], threading.Lock()

    class Counted(Subset):
        def read(self, index: int) -> Sample:
            with lock:
                started.append(index)
            return super().read(index)

    opened = open_splits("folder", tree, ["train"])
    opened.splits[0] = Counted(opened.splits[0], [0, 1, 2, 3] * 50)
    done = iter(range(1, 201))
    check(opened, 2, lambda _: most.append(len(started) - next(done)))
    assert len(started) == 200
    assert max(most) <= 2 * 2 + 1


# What is wrong


def problems(report: Report) -> list[tuple[str, str, str]]:
    return [(problem.split, problem.kind, Path(problem.file).name) for problem in report.problems]


def break_files(root: Path) -> None:
    """One mistake of each kind in train, in a tree of `tree`; val stays as it is."""
    images, labels = root / "images" / "train", root / "labels" / "train"
    images.joinpath("a.png").write_bytes(b"no image")
    labels.joinpath("a.png").write_bytes(labels.joinpath("a.png").read_bytes()[:60])
    Image.fromarray(np.full((8, 6), 7, dtype=np.uint8)).save(labels / "b.png")
    Image.fromarray(np.full((3, 5, 3), (1, 1, 0), dtype=np.uint8)).save(labels / "c.png")
    write(root, "train", "f", [[0, 3, 3], [200, 255, 1]])
    write(root, "train", "g", [[0, 1]])
    write(root, "train", "h", [[0, 1]])
    labels.joinpath("g.png").unlink()
    images.joinpath("h.png").unlink()


def test_everything_that_is_wrong_is_listed_and_the_rest_is_counted(tree: Path) -> None:
    break_files(tree)
    report = checked("folder", tree)
    assert problems(report) == [
        ("train", "partner", "g.png"),
        ("train", "partner", "h.png"),
        ("train", "image", "a.png"),
        ("train", "label", "a.png"),
        ("train", "values", "b.png"),
        ("train", "size", "b.png"),
        ("train", "label", "c.png"),
        ("train", "values", "f.png"),
    ]
    assert all(problem.file in problem.message and "\n" not in problem.message for problem in report.problems)
    train = report.splits["train"]
    assert (train.samples, train.counted) == (5, 1)  # d
    assert report.splits["val"].counted == 1


def test_messages_say_what_was_found_and_what_was_expected(tree: Path) -> None:
    break_files(tree)
    messages = {(p.kind, Path(p.file).stem): p.message for p in checked("folder", tree).problems}
    folder = tree / "labels" / "train"
    assert f"g.png has no label; expected {folder / 'g.png'}" in messages["partner", "g"]
    assert "h.png has no image; expected" in messages["partner", "h"]
    assert "b.png is 6x8 but its image" in messages["size", "b"]
    assert "holds colours (RGB); expected one class id per pixel" in messages["label", "c"]
    assert "stand for no class: 3 (2 pixels), 200 (1 pixels); expected 0..2, or 255" in messages["values", "f"]


def test_unknown_values_are_given_by_file_value_and_count(tree: Path) -> None:
    break_files(tree)
    report = as_data(checked("folder", tree))
    found = {Path(p["file"]).stem: p["values"] for p in report["problems"] if p["kind"] == "values"}
    assert found == {
        "b": [{"value": 7, "pixels": 48}],
        "f": [{"value": 3, "pixels": 2}, {"value": 200, "pixels": 1}],
    }
    assert report["unknown_values"][0] == {"value": 7, "pixels": 48, "labels": 1}


def test_the_report_is_printed_and_one_line_sums_up(tree: Path, run: Run) -> None:
    break_files(tree)
    outcome = run("folder", tree)
    assert outcome.code == 2
    assert "problems: 8" in outcome.out and "train: 5 samples, 4 of them not counted below" in outcome.out
    assert outcome.err.startswith(
        f"nas-data: folder at {tree} has 2 files without a partner, 1 image that cannot be read, "
        "2 labels that cannot be read, 1 label of another size than its image, 2 labels with unknown values; the first:"
    )
    as_json = run("folder", tree, "--json")
    assert (as_json.code, as_json.err) == (2, outcome.err)
    assert len(json.loads(as_json.out)["problems"]) == 8


def test_a_data_set_without_problems_ends_with_0(tree: Path, run: Run) -> None:
    outcome = run("folder", tree)
    assert (outcome.code, outcome.err) == (0, "")
    assert "no problems" in outcome.out
    assert "3 sizes (height x width): smallest 3x5, largest 6x8; most frequent 6x8 (2)" in outcome.out
    built_in = run("shapes", "--splits", "val", "--json")
    assert [split["samples"] for split in json.loads(built_in.out)["splits"]] == [100]


def test_text_shows_the_first_problems_and_json_has_all() -> None:
    found = [Problem("train", "image", f"{number}.png", f"image {number}.png is bad") for number in range(SHOWN + 5)]
    report = Report("folder", None, ("a", "b"), {}, found, ["odd"] * (SHOWN + 1))
    text = as_text(report)
    assert text.count("is bad") == SHOWN and "and 5 more problems: --json lists all" in text
    assert text.count("odd") == SHOWN and "and 1 more warnings" in text
    assert len(as_data(report)["problems"]) == SHOWN + 5
    assert summary(report) == "folder has 25 images that cannot be read; the first: image 0.png is bad"
    assert summary(Report("folder", None, (), {}, [], ["odd"])) == ""


def test_a_split_of_which_nothing_can_be_read_has_no_numbers(tree: Path) -> None:
    tree.joinpath("images/val/e.png").write_bytes(b"")
    report = checked("folder", tree, "val")
    val = json.loads(json.dumps(as_data(report), allow_nan=False))["splits"][0]
    assert (val["readable"], val["mean"], val["sizes"]) == (0, [None] * 3, [])
    assert val["classes"][0]["median_frequency_weight"] is None
    assert "val: 1 sample, 1 of them not counted below" in as_text(report)
    assert report.warnings == []


def test_a_data_set_that_is_not_of_files_is_checked_too() -> None:
    class Broken(Subset):
        def read(self, index: int) -> Sample:
            if index == 1:
                raise DataError("sample 1 is broken")
            return super().read(index)

    opened = open_splits("shapes", splits=["val"])
    opened.splits[0] = Broken(opened.splits[0], range(3))
    report = check(opened)
    assert [(p.kind, p.message) for p in report.problems] == [("sample", "sample 1 is broken")]
    assert report.splits["val"].counted == 2


def test_files_without_a_partner_stop_a_run_as_before(tree: Path) -> None:
    break_files(tree)
    with pytest.raises(DataError, match=r"g\.png has no label"):
        open_dataset("folder", tree, "train")
    with collecting() as lone:
        assert len(open_dataset("folder", tree, "train")) == 5
    assert [file.path.name for file in lone] == ["g.png", "h.png"]
    with pytest.raises(DataError, match=r"g\.png has no label"):
        open_dataset("folder", tree, "train")


def test_names_that_never_match_are_one_problem(tree: Path, run: Run) -> None:
    for path in tree.glob("labels/train/*.png"):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    outcome = run("folder", tree)
    assert "problems: 1" in outcome.out and "a.png has no label (and 3 more files without one)" in outcome.out
    assert "has 1 split that cannot be opened; the first: folder: " in outcome.err
    assert "\nval: 1 sample\n" in outcome.out


# Doubts


def test_classes_that_never_occur_in_train_are_a_warning(tree: Path, run: Run) -> None:
    for name in "abcd":
        write(tree, "train", name, [[0, IGNORE, IGNORE]])
    warnings = checked("folder", tree).warnings
    assert len(warnings) == 3
    assert "2 of 3 classes never occur in train, so they cannot be learnt there: road, tree" in warnings[0]
    assert "2 of 3 classes never occur in val, so its mIoU is the mean over the others: sky, tree" in warnings[1]
    assert "66.7% of the pixels of train are ignored" in warnings[2]
    outcome = run("folder", tree)
    assert outcome.code == 0
    assert "warnings: 3" in outcome.out
    assert f"{1 / np.log(1.02):.4f}" in outcome.out and "--" in outcome.out


def test_an_image_in_two_splits_is_a_warning(tree: Path) -> None:
    for folder in ("images", "labels"):
        shutil.copy(tree / folder / "train" / "b.png", tree / folder / "val" / "z.png")
        shutil.copy(tree / folder / "train" / "b.png", tree / folder / "train" / "y.png")
    image = "images/{}.png".format
    expected = f"{tree / image('train/b')} and {tree / image('val/z')} are the same image, in two splits"
    assert checked("folder", tree).warnings == [expected]


def test_equal_images_are_found_across_splits_only() -> None:
    parts = [np.array(part, dtype=np.uint64) for part in ([5, 7, 5, 0], [], [0, 9, 5], [7])]
    assert equal_images(parts) == [((0, 0), (2, 2)), ((0, 1), (3, 0))]
    assert equal_images([]) == []


def test_a_split_that_holds_another_repeats_no_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, split, f"a{split}", np.arange(12).reshape(3, 4) % 11)
    assert checked("camvid", tmp_path, "train", "trainval").warnings == []


# Splits


def test_all_splits_that_are_there_are_checked(tree: Path, tmp_path: Path) -> None:
    write(tree, "another", "x", [[0]])
    assert [split.split for split in open_splits("folder", tree).splits] == ["train", "val", "another"]
    assert [split.split for split in open_splits("shapes").splits] == ["train", "val", "test"]
    for folder in ("train", "trainannot", "test", "testannot"):
        (tmp_path / "segnet" / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / "segnet" / folder / "a.png")
    assert [split.split for split in open_splits("camvid", tmp_path / "segnet").splits] == ["train", "test"]


def test_a_split_without_labels_is_a_problem_and_the_others_are_checked(tree: Path) -> None:
    shutil.rmtree(tree / "labels" / "val")
    report = checked("folder", tree)
    assert list(report.splits) == ["train"]
    assert [(problem.split, problem.kind) for problem in report.problems] == [("val", "split")]
    assert f"the label folder {tree / 'labels' / 'val'} does not exist" in report.problems[0].message


def test_a_data_set_that_names_no_splits_is_tried_with_the_usual_ones() -> None:
    def opener(split: str) -> SegmentationDataset:
        if split == "test":
            raise DataError("there is no test")
        return Subset(open_dataset("shapes", None, split), [0])

    with DATASETS.temporarily():
        register_dataset("nameless", needs_root=False, summary="")(opener)
        opened = open_splits("nameless")
    assert [split.split for split in opened.splits] == ["train", "val"]
    assert (opened.problems, opened.warnings) == ([], ["test was not checked: there is no test"])


# The command


def test_a_first_users_mistakes_are_explained(tree: Path, run: Run) -> None:
    def said(*arguments: object) -> str:
        outcome = run(*arguments)
        assert (outcome.code, outcome.out) == (2, "")
        return outcome.err

    for wrong_level in (tree.parent, tree / "images", tree / "images" / "train"):
        assert f"that is the layout of {tree}: give this as the root" in said("folder", wrong_level)
    assert "ROOT is missing: name the folder" in said("folder")
    assert f"{tree / 'none'} does not exist; expected a folder with" in said("folder", tree / "none")
    assert "choose one of train, val" in said("folder", tree, "--splits", "tset")
    assert "unknown data set 'foldr': choose one of" in said("foldr", tree)
    assert "reads no folder" in said("shapes", tree)
    for path in tree.glob("labels/*/*.png"):
        path.rename(path.with_suffix(".jpg"))
    assert "holds no label files; expected .png, .tif, .bmp or the like; it holds a.jpg, b.jpg" in said("folder", tree)
    (tree / "images").rename(tree / "pictures")
    assert "holds labels/, pictures/; expected images/SPLIT/, labels/SPLIT/" in said("folder", tree)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "NAME is missing"),
        (["shapes", "--workers", "0"], "--workers is 0: give at least 1"),
        (["shapes", "--samples", "3"], "give --contact-sheet FILE.png, too"),
        (["shapes", "--samples", "0", "--contact-sheet", "x.png"], "--samples is 0: give 1 to 300"),
        (["shapes", "--contact-sheet", "x.jpg"], "'x.jpg': give the name of a PNG file"),
        (["shapes", "--contact-sheet", "{folder}"], "a folder: give the name of a file in it"),
    ],
)
def test_wrong_use_is_refused_before_reading(arguments: list[str], message: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "folder.png").mkdir()
    outcome = run(*(word.format(folder=tmp_path / "folder.png") for word in arguments))
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_an_unknown_verb_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        common.run("nas-data", data.main, ["chek"])
    assert "did you mean check? choose one of check" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(tree: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: object, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nas.training.progress.StepProgress, "step", stop)
    before = threading.active_count()
    assert run("folder", tree) == Outcome(130, "", "nas-data: interrupted\n")
    assert threading.active_count() == before


def test_a_check_needs_no_torch(tree: Path) -> None:
    code = (
        "import sys; from cli.data import check\n"
        f"check(['folder', {str(tree)!r}, '--contact-sheet', {str(tree / 'sheet.png')!r}])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    assert Image.open(tree / "sheet.png").format == "PNG"


# The contact sheet


def test_samples_are_spread_evenly() -> None:
    assert spread(701, 3) == [0, 350, 700]
    assert spread(2, 5) == [0, 1]
    assert spread(9, 1) == [0]
    assert spread(0, 4) == []


def test_an_overlay_by_hand() -> None:
    image = np.full((1, 3, 3), 100, dtype=np.uint8)
    label = np.array([[0, 1, IGNORE]], dtype=np.uint8)
    colors = np.array([[0, 0, 0], [200, 100, 50]], dtype=np.uint8)
    expected = [[[40, 40, 40], [160, 100, 70], [100, 100, 100]]]  # 0.4 of the image and 0.6 of the colour
    assert overlay(image, label, colors).tolist() == expected


def test_a_contact_sheet_has_samples_and_classes_in_colour(tree: Path, run: Run) -> None:
    for name in "abcd":
        write(tree, "train", name, np.full((6, 8), "abcd".index(name) % 3))
    sheet = tree.parent / "new" / "sheet.png"
    assert run("folder", tree, "--contact-sheet", sheet, "--samples", 3).code == 0
    assert [path.name for path in sheet.parent.iterdir()] == ["sheet.png"]
    with Image.open(sheet) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height)}
    assert {(0, 0, 255), (255, 0, 0), (0, 255, 0)} <= colours  # of the legend
    splits = open_splits("folder", tree).splits
    few, many = draw_contact_sheet(splits, 1), draw_contact_sheet(splits, 100)
    assert few.width < many.width and few.height < many.height


def test_a_contact_sheet_leaves_room_for_what_cannot_be_read(tree: Path, run: Run) -> None:
    break_files(tree)
    outcome = run("folder", tree, "--contact-sheet", tree / "sheet.png")
    assert outcome.code == 2
    assert (tree / "sheet.png").is_file()


def test_camvid_classes_fit_the_legend(tmp_path: Path) -> None:
    write(tmp_path, "train", "a", np.arange(12).reshape(3, 4) % 11)
    splits = open_splits("camvid", tmp_path).splits
    assert splits[0].classes == CAMVID_CLASSES
    assert draw_contact_sheet(splits, 1).width <= 700


def test_a_split_that_a_run_needs_is_a_problem_where_it_is_missing(tree: Path, run: Run) -> None:
    shutil.rmtree(tree / "images" / "val")
    shutil.rmtree(tree / "labels" / "val")
    report = checked("folder", tree)
    assert problems(report) == [("val", "split", "mine")]
    assert (
        "there is no split val, which a run needs, unless --loader.val-split names another" in run("folder", tree).err
    )
    assert run("folder", tree, "--splits", "train").code == 0


def test_strict_ends_with_2_where_there_are_warnings(tree: Path, run: Run) -> None:
    write(tree, "val", "f", [[0, 2]])
    assert run("folder", tree, "--strict").code == 0
    (tree / "images" / "train" / "notes.txt").write_text("")
    assert run("folder", tree).code == 0
    outcome = run("folder", tree, "--strict", "--json")
    assert (outcome.code, outcome.err) == (
        2,
        "nas-data: 1 warning; the first: 1 file was not read: images/train/notes.txt\n",
    )
    assert json.loads(outcome.out)["warnings"] == ["1 file was not read: images/train/notes.txt"]


def test_masks_of_0_and_255_are_a_problem_and_the_setting_that_is_named_mends_them(tree: Path, run: Run) -> None:
    (tree / "classes.txt").write_text("sky\nroad\n")
    for split, name in (("train", "a"), ("train", "b"), ("train", "c"), ("train", "d"), ("val", "e")):
        write(tree, split, name, [[0, 255, 255], [0, 0, 255]])
    assert problems(checked("folder", tree)) == [("train", "labels", "mine")]
    outcome = run("folder", tree)
    assert outcome.code == 2 and "give --loader.ids '{0: 0, 255: 1}'" in outcome.err
    mended = run("folder", tree, "--loader.ids", "{0: 0, 255: 1}", "--json")
    assert (mended.code, json.loads(mended.out)["splits"][0]["classes"][1]["pixels"]) == (0, 12)


def test_labels_that_are_all_ignored_are_a_problem_of_the_splits_that_a_run_needs(tree: Path) -> None:
    for split, name in (("val", "e"), ("test", "x")):
        write(tree, split, name, [[255]])
    assert problems(checked("folder", tree)) == [("val", "labels", "mine")]
