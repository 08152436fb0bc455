"""Data sets: what they read, what they refuse and what they say then."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import trees
from nas.data import (
    DATASETS,
    IGNORE,
    Cached,
    DataError,
    Resized,
    SegmentationDataset,
    Subset,
    open_dataset,
    readers,
    register_dataset,
)
from nas.data.readers import DATA_SETS, Shapes
from nas.data.readers.camvid import CLASSES as CAMVID_CLASSES
from nas.data.readers.camvid import COLORS as CAMVID_COLORS
from nas.data.readers.classes import default_colors
from nas.data.readers.pairs import PairedDataset
from trees import message, write_pair

ROOT = Path(__file__).resolve().parents[1]
CAMVID = Path(os.environ.get("NAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "camvid"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A tree in the layout images/SPLIT, labels/SPLIT, with two classes, alone in its parent folder."""
    return trees.plain(tmp_path / "plain")


@pytest.fixture
def segnet(tmp_path: Path) -> Path:
    return trees.segnet(tmp_path)


# --- the registry and open_dataset --------------------------------------------------------------------------


def test_registry() -> None:
    assert tuple(sorted([*TREES, "shapes"])) == DATA_SETS and set(DATA_SETS) <= set(DATASETS)
    assert [DATASETS[name].opener for name in DATA_SETS] == [getattr(readers, name) for name in readers.__all__]
    with pytest.raises(ValueError, match="shapes"):
        register_dataset("shapes", needs_root=False, summary="")(Shapes)
    with pytest.raises(ValueError, match=r"choose one of .*shapes"):
        open_dataset("shape", None, "train")


def contract(dataset: SegmentationDataset) -> None:
    assert len(dataset) > 0 and len(dataset.classes) == len(set(dataset.classes))
    assert dataset.colors.shape == (len(dataset.classes), 3) and dataset.colors.dtype == np.uint8
    names = [dataset.sample_name(index) for index in range(len(dataset))]
    assert len(set(names)) == len(names)
    copy = pickle.loads(pickle.dumps(dataset))
    for index in (0, len(dataset) - 1):
        image, label = dataset.read(index)
        assert image.dtype == np.uint8 and label.dtype == np.uint8
        assert image.shape == (*label.shape, 3)
        assert set(np.unique(label)) <= {*range(len(dataset.classes)), IGNORE}
        for one, other in zip((image, label), copy.read(index), strict=True):
            np.testing.assert_array_equal(one, other)
        assert dataset.sample_name(index) in dataset.where(index)
    with pytest.raises(IndexError):
        dataset.read(len(dataset))


TREES = {
    "ade20k": trees.ade20k,
    "camvid": trees.segnet,
    "celebamask": trees.celebamask,
    "cityscapes": trees.cityscapes,
    "folder": trees.plain,
    "voc2012": trees.voc2012,
}
"""What makes a tree of files in a data set's layout."""


@pytest.mark.parametrize("name", DATASETS.names())
def test_contract(name: str, tmp_path: Path) -> None:
    assert not DATASETS[name].needs_root or name in TREES, "a new data set needs a generated tree here"
    root = TREES[name](tmp_path / name) if name in TREES else None
    for split in ("train", "val"):
        dataset = open_dataset(name, root, split)
        assert (dataset.name, dataset.split) == (name, split)
        contract(dataset)


@pytest.mark.parametrize("name", TREES)
def test_a_change_of_a_file_changes_the_identity(name: str, tmp_path: Path) -> None:
    root = TREES[name](tmp_path / name)
    dataset = open_dataset(name, root, "train")
    assert isinstance(dataset, PairedDataset)
    before = [dataset.identity(index) for index in range(len(dataset))]
    assert before == [open_dataset(name, root, "train").identity(index) for index in range(len(dataset))]
    json.dumps(before)
    label = dataset.pairs[0].label
    files = [dataset.pairs[0].image, *([label] if label.is_file() else sorted(label.parent.glob(f"{label.name}_*")))]
    assert len(files) == (5 if name == "celebamask" else 2)
    for file in files:
        os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
        after = [dataset.identity(index) for index in range(len(dataset))]
        assert after[0] != before[0] and after[1:] == before[1:]
        before = after


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("ade20k", "images"),
        ("ade20k", "annotations/training"),
        ("camvid", "train"),
        ("celebamask", "CelebA-HQ-img"),
        ("celebamask", "CelebAMask-HQ-mask-anno/0"),
        ("cityscapes", "gtFine"),
        ("cityscapes", "leftImg8bit/train"),
        ("folder", "images/train"),
        ("voc2012", "VOCdevkit/VOC2012/JPEGImages"),
        ("voc2012", "VOCdevkit/VOC2012/ImageSets/Segmentation"),
    ],
)
def test_a_root_one_level_off_is_pointed_to(name: str, inside: str, tmp_path: Path) -> None:
    root = TREES[name](tmp_path / "data" / name)
    layout = root / "VOCdevkit" / "VOC2012" if name == "voc2012" else root
    for wrong, right in ((root.parent, root), (root / inside, layout)):
        said = message(name, wrong)
        assert f"that is the layout of {right.resolve()}: give this as the root" in said
    assert f"{name}: {tmp_path} holds data/; expected " in message(name, tmp_path)


def test_open_dataset_messages(tmp_path: Path) -> None:
    assert message("camvid", None) == "data set 'camvid' is read from disk: give its root folder (--data-root DIR)"
    assert f"leave the root {tmp_path} out" in message("shapes", tmp_path)
    assert "has no option sise; its options: size, count, seed" in message("shapes", None, sise=3)
    assert "its options: none" in message("camvid", tmp_path, size=3)


def test_import_needs_no_torch() -> None:
    code = (
        "import sys, nas.config; assert 'numpy' not in sys.modules;"
        "import nas.data; nas.data.open_dataset('shapes', None, 'train').read(0);"
        "assert 'torch' not in sys.modules;"
        "nas.data.training_loader; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- shapes -------------------------------------------------------------------------------------------------


def test_shapes_is_a_function_of_seed_split_and_index() -> None:
    dataset = Shapes("train")
    image, label = dataset.read(7)
    assert image.shape == (97, 129, 3) and label.shape == (97, 129)
    dataset.read(3)
    for one, other in zip(dataset.read(7), (image, label), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(Shapes("train", count=8).read(7)[0], image)
    for other_set, index in (
        (Shapes("val"), 7),
        (Shapes("test"), 7),
        (Shapes("train", seed=1), 7),
        (dataset, 8),
    ):
        assert not np.array_equal(other_set.read(index)[0], image)


@pytest.mark.parametrize("size", [(24, 24), (33, 120), (121, 40)])
def test_shapes_sizes(size: tuple[int, int]) -> None:
    dataset = Shapes("val", size=size, count=5)
    assert [dataset.read(index)[1].shape for index in range(len(dataset))] == [size] * 5


def test_shapes_has_every_class_and_void_around_objects() -> None:
    pixels = np.zeros(256, dtype=np.int64)
    for index in range(60):
        label = Shapes("train").read(index)[1]
        pixels += np.bincount(label.ravel(), minlength=256)
        # An object never touches the background (class 0) directly.
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            touching = (one != other) & ((one == 0) | (other == 0))
            assert (np.maximum(one, other)[touching] == IGNORE).all()
    share = pixels / pixels.sum()
    assert (share[1:6] > 0.01).all() and 0.4 < share[0] < 0.8 and 0.02 < share[IGNORE] < 0.15


def test_shapes_cannot_be_told_by_colour() -> None:
    """Least squares on colour and its square, classes plain or weighted alike, finds next to nothing."""

    def pixels(split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = zip(*(Shapes(split).read(index) for index in range(40)), strict=True)
        label = np.stack(labels).reshape(-1)
        colour = np.stack(images).reshape(-1, 3)[label != IGNORE] / 255
        return np.hstack([colour, colour**2, np.ones((len(colour), 1))]), label[label != IGNORE]

    features, target = pixels("train")
    count = np.bincount(target, minlength=6)
    for weight in (np.ones(6), 1 / count):
        root = np.sqrt(weight[target])[:, None]
        solution = np.linalg.lstsq(features * root, np.eye(6)[target] * root, rcond=None)[0]
        test_features, test_target = pixels("val")
        guess = (test_features @ solution).argmax(axis=1)
        hits = np.array([((guess == c) & (test_target == c)).sum() for c in range(6)])
        either = np.array([((guess == c) | (test_target == c)).sum() for c in range(6)])
        background_only = (test_target == 0).mean() / 6
        assert (hits / either).mean() < background_only + 0.04


@pytest.mark.parametrize(
    ("split", "options", "expected"),
    [
        ("training", {}, "no split 'training'; choose one of train, val, test"),
        ("train", {"size": (8, 100)}, r"size is \(8, 100\); expected height and width, each at least 24"),
        ("train", {"count": 0}, "count is 0; expected at least 1"),
        ("train", {"seed": -1}, "seed is -1; expected 0 or above"),
    ],
)
def test_shapes_messages(split: str, options: dict[str, Any], expected: str) -> None:
    assert re.search(expected, message("shapes", None, split, **options))


# --- CamVid -------------------------------------------------------------------------------------------------


def test_camvid_segnet_layout(segnet: Path) -> None:
    dataset = open_dataset("camvid", segnet, "train")
    assert dataset.video and dataset.classes == CAMVID_CLASSES
    assert [dataset.sample_name(index) for index in range(2)] == ["a", "b"]
    expected = np.arange(12).reshape(3, 4)
    expected[2, 3] = IGNORE
    np.testing.assert_array_equal(dataset.read(0)[1], expected)
    both = open_dataset("camvid", segnet, "trainval")
    assert [both.sample_name(index) for index in range(len(both))] == ["a", "b", "c"]


def test_camvid_plain_layout(plain: Path) -> None:
    dataset = open_dataset("camvid", plain, "trainval")
    assert [dataset.sample_name(index) for index in range(len(dataset))] == list("abcde")
    write_pair(plain / "images/val/d.png", plain / "labels/val/d.png", 11)
    (plain / "images/val/d.jpg").unlink()
    assert "11 (48 pixels)" in message("camvid", plain, "val", read=0)  # 11 is void in the other layout alone


def test_camvid_messages(plain: Path) -> None:
    assert "no split 'dev'; choose one of train, val, test, trainval" in message("camvid", plain, "dev")
    missing = message("camvid", plain, "test")
    assert f"{plain / 'images' / 'test'} does not exist" in missing and "holds train/, val/" in missing
    (plain / "classes.json").write_text('["Sky", "Road"]')
    assert "classes.json lists Sky, Road; expected Sky, Building" in message("camvid", plain)


def test_camvid_itself() -> None:
    if not CAMVID.is_dir():
        pytest.skip(f"no CamVid at {CAMVID}: set NAS_TEST_DATA to the folder that holds camvid/")
    sizes = {"train": 367, "val": 101, "test": 233, "trainval": 468}
    assert {split: len(open_dataset("camvid", CAMVID, split)) for split in sizes} == sizes
    dataset = open_dataset("camvid", CAMVID, "val")
    contract(dataset)
    assert dataset.read(0)[1].shape == (360, 480)
    listed = json.loads((CAMVID / "classes.json").read_text())["classes"]
    assert [tuple(entry["color"]) for entry in listed][:11] == list(CAMVID_COLORS.values())


# --- roots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_root_messages(name: str, plain: Path) -> None:
    nowhere = message(name, plain / "nowhere")
    assert f"{plain / 'nowhere'} does not exist; expected a folder with images/" in nowhere
    assert "classes.txt is a file" in message(name, plain / "classes.txt")
    higher = message(name, plain / "images")
    assert "holds train/, val/; expected images/" in higher
    assert f"that is the layout of {plain.resolve()}: give this as the root" in higher
    deeper = message(name, plain.parent)
    assert f"that is the layout of {plain}: give this as the root" in deeper
    (plain.parent / "empty").mkdir(exist_ok=True)
    assert "holds no folders; expected images/" in message(name, plain.parent / "empty")


# --- folder -------------------------------------------------------------------------------------------------


def test_folder(plain: Path) -> None:
    dataset = open_dataset("folder", plain, "train")
    assert dataset.classes == ("background", "road sign") and not dataset.video
    assert dataset.colors.tolist() == [[0, 0, 0], [250, 10, 20]]
    assert [dataset.sample_name(index) for index in range(3)] == list("abc")
    assert open_dataset("folder", plain, "train", video=True).video


def test_folder_sizes_and_formats_may_differ(plain: Path) -> None:
    (plain / "images/val/.DS_Store").write_text("")
    (plain / "images/val/notes.txt").write_text("")
    for suffix, size in (("bmp", (5, 9)), ("webp", (7, 3)), ("png", (1, 1)), ("JPG", (2, 2))):
        name = f"x_{suffix}"
        write_pair(plain / f"images/val/{name}.{suffix}", plain / f"labels/val/{name}.png", 1, size)
    dataset = open_dataset("folder", plain, "val")
    shapes = {dataset.sample_name(index): dataset.read(index)[1].shape for index in range(len(dataset))}
    assert shapes["x_bmp"] == (5, 9) and shapes["x_webp"] == (7, 3) and shapes["x_JPG"] == (2, 2)


@pytest.mark.parametrize("mode", ["P", "1", "I;16", "L4", "P4"])
def test_label_files_give_ids(plain: Path, mode: str) -> None:
    ids = np.tile(np.array([0, 1], dtype=np.uint8), (6, 4))
    path = plain / "labels/train/a.png"
    if mode in ("P", "P4"):
        image = Image.fromarray(ids).convert("L")
        image.putpalette([10, 200, 30, 77, 88, 99] + [0] * 750)
        image.save(path, bits=4) if mode == "P4" else image.save(path)
    elif mode == "1":
        Image.fromarray(ids.astype(bool)).save(path)
    elif mode == "I;16":
        Image.fromarray(ids.astype(np.uint16)).save(path)
    else:
        path.write_bytes(grey_png_of_4_bits(ids))
    np.testing.assert_array_equal(open_dataset("folder", plain, "train").read(0)[1], ids)


def grey_png_of_4_bits(ids: np.ndarray) -> bytes:
    """Pillow does not write these, but it stretches their values to 0..255 when it reads them."""
    rows = b"".join(b"\0" + bytes((row[0::2] << 4 | row[1::2]).tolist()) for row in ids)
    return png(ids.shape[1], ids.shape[0], 4, rows)


def png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """A greyscale PNG file that claims a size and holds these rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_255_classes_are_the_limit(plain: Path) -> None:
    (plain / "classes.txt").write_text("\n".join(f"c{index}" for index in range(255)))
    write_pair(plain / "images/train/a.jpg", plain / "labels/train/a.png", np.array([254, 255] * 4))
    dataset = open_dataset("folder", plain, "train")
    assert dataset.read(0)[1][0].tolist() == [254, 255] * 4
    assert len({tuple(color) for color in dataset.colors.tolist()}) == 255
    (plain / "classes.txt").write_text("\n".join(f"c{index}" for index in range(256)))
    assert "lists 256 classes; expected 2 to 255" in message("folder", plain)


@pytest.mark.parametrize(
    "content",
    [
        ["background", "road sign"],
        [{"name": "background"}, {"name": "road sign", "color": [250, 10, 20]}],
        {
            "classes": [
                {"id": 1, "name": "road sign", "color": [250, 10, 20]},
                {"id": 0, "name": "background"},
            ]
        },
        {"classes": [{"name": "background"}, {"name": "road sign"}, {"id": 255, "name": "void"}]},
    ],
)
def test_classes_json(plain: Path, content: object) -> None:
    (plain / "classes.txt").unlink()
    (plain / "classes.json").write_text(json.dumps(content))
    dataset = open_dataset("folder", plain, "train")
    assert dataset.classes == ("background", "road sign")
    given = "color" in json.dumps(content)
    assert dataset.colors[1].tolist() == ([250, 10, 20] if given else default_colors(2)[1].tolist())


def test_default_colors_are_those_of_voc() -> None:
    assert default_colors(4).tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("classes.txt", "only", "lists 1 classes; expected 2 to 255"),
        ("classes.txt", "a\nb\na\n", "lists a more than once"),
        ("classes.txt", "a\n# a remark\nb 1 2 300\n", r"line 3 has the color \[1, 2, 300\]; expected red"),
        ("classes.txt", b"\xff\xfe\x00", "cannot be read"),
        ("classes.json", "[", "not valid JSON"),
        ("classes.json", "{}", "holds no list"),
        ("classes.json", '["a", 3]', 'entry 1 is {"name": 3}|entry 1 is 3'),
        (
            "classes.json",
            '[{"name": "a", "id": 0}, {"name": "b", "id": 0}]',
            "entry 1 has the id 0; expected 0, 1",
        ),
        ("classes.json", '[{"name": "a", "id": 0}, {"name": "b", "id": 2}]', "has no id 1; expected 0..1"),
        (
            "classes.json",
            '["a", {"name": "b", "color": "red"}]',
            "entry 1 has the color 'red'; expected red, green and blue",
        ),
    ],
)
def test_class_file_messages(plain: Path, file: str, content: str | bytes, expected: str) -> None:
    (plain / "classes.txt").unlink()
    (plain / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    said = message("folder", plain)
    assert re.search(expected, said) and str(plain / file) in said


def test_folder_messages(plain: Path) -> None:
    assert "no split 'test'" in message("folder", plain, "test")
    assert "choose one of train, val" in message("folder", plain, "test")
    (plain / "classes.json").write_text("[]")
    assert "holds classes.txt and classes.json; keep one" in message("folder", plain)
    (plain / "classes.json").unlink()
    (plain / "classes.txt").unlink()
    assert "holds no classes.txt; expected one class name a line" in message("folder", plain)
    (plain / "labelmap.txt").write_text("")
    assert message("folder", plain).endswith("; if labelmap.txt is that list, rename it")


# --- pairs and content --------------------------------------------------------------------------------------


def test_pair_messages(plain: Path) -> None:
    label = plain / "labels/train/b.png"
    content = label.read_bytes()
    label.unlink()
    assert f"{plain / 'images/train/b.jpg'} has no label; expected {label}" in message("folder", plain)
    label.write_bytes(content)
    (plain / "labels/train/x.png").write_bytes(content)
    (plain / "labels/train/y.png").write_bytes(content)
    said = message("folder", plain)
    assert f"{plain / 'labels/train/x.png'} has no image (and 1 more files without one)" in said
    for name in "xy":
        (plain / f"labels/train/{name}.png").unlink()
    (plain / "images/train/a.png").write_bytes(content)
    assert "a.jpg and" in message("folder", plain) and "share one name" in message("folder", plain)
    for path in (plain / "images/train").iterdir():
        path.unlink()
    assert "train holds no image files; expected .png, .jpg" in message("folder", plain)


def test_label_of_another_size(plain: Path) -> None:
    Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(plain / "labels/train/a.png")
    said = message("folder", plain, read=0)
    assert "a.png is 5x4 but its image" in said and "a.jpg is 8x6" in said


def test_label_outside_the_classes(plain: Path) -> None:
    ids = np.zeros((6, 8), dtype=np.uint8)
    ids[0, :3], ids[1, 0], ids[2] = 2, 254, 255
    Image.fromarray(ids).save(plain / "labels/train/a.png")
    said = message("folder", plain, read=0)
    assert "a.png holds ids outside the 2 classes: 2 (3 pixels), 254 (1 pixels); expected 0..1, or 255" in said
    opened = open_dataset("folder", plain, "train")
    assert isinstance(opened, PairedDataset) and opened.unknown_values(0) == {2: 3, 254: 1}
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(plain / "labels/train/a.png")
    assert "and 41 more values" in message("folder", plain, read=0)
    Image.fromarray(np.full((6, 8), 60000, dtype=np.uint16)).save(plain / "labels/train/a.png")
    assert "60000 (48 pixels)" in message("folder", plain, read=0)


@pytest.mark.parametrize("kind", ["images/train/a.png", "labels/train/a.png"])
def test_a_claim_of_ten_thousand_million_pixels_is_refused_before_memory_is_taken(plain: Path, kind: str) -> None:
    (plain / "images/train/a.jpg").rename(plain / "images/train/a.png")
    path = plain / kind
    path.write_bytes(png(100_000, 100_000, 8, b""))
    said = message("folder", plain, read=0)
    assert said.startswith(f"{kind.split('s/')[0]} {path} cannot be read: ") and "10000000000 pixels" in said


def test_a_list_without_end_is_refused(plain: Path) -> None:
    with (plain / "classes.txt").open("wb") as file:
        file.truncate(2**40)  # without blocks on disk
    assert "classes.txt is longer than 16 MiB" in message("folder", plain)
    (plain / "classes.txt").unlink()
    (plain / "classes.json").write_text("[" * 100_000)
    assert "classes.json is not valid JSON" in message("folder", plain)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_masks_are_refused(plain: Path, mode: str) -> None:
    Image.new(mode, (8, 6), (1, 1, 0)).save(plain / "labels/train/a.png")
    said = message("folder", plain, read=0)
    assert f"a.png holds colours ({mode}); expected one class id per pixel" in said and "convert" in said


@pytest.mark.parametrize("kind", ["images/train/a.jpg", "labels/train/a.png"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, None])
def test_broken_files_are_named(plain: Path, kind: str, keep: float | None) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(plain / "images/train/a.jpg")
    Image.fromarray(rng.integers(0, 2, (60, 80), dtype=np.uint8)).save(plain / "labels/train/a.png")
    dataset = open_dataset("folder", plain, "train")
    dataset.read(0)
    path = plain / kind
    content = path.read_bytes()
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(DataError, match=f"^{kind.split('s/')[0]} {re.escape(str(path))} cannot be read: .") as raised:
        dataset.read(0)
    assert "\n" not in str(raised.value)


def test_images_of_16_bits_are_refused(plain: Path) -> None:
    (plain / "images/train/a.jpg").unlink()
    Image.fromarray(np.zeros((6, 8), dtype=np.uint16)).save(plain / "images/train/a.png")
    said = message("folder", plain, read=0)
    assert "a.png has 1 channel of more than 8 bits (uint16, from 0 to 0), but loader.channels is 3" in said
    assert "train with --loader.channels 1 and --loader.normalisation.range [0,65535]" in said


# --- wrappers -----------------------------------------------------------------------------------------------


def test_resized(plain: Path) -> None:
    base = open_dataset("folder", plain, "train", video=True)
    half = Resized(base, 0.5)
    contract(half)
    assert half.video and half.read(0)[1].shape == (3, 4)
    assert Resized(base, 1.0).read(0)[1].shape == (6, 8)
    assert Resized(base, 0.01).read(0)[1].shape == (1, 1)
    for factor in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="give a factor above 0"):
            Resized(base, factor)


def test_subset() -> None:
    base = Shapes("train", size=(32, 32), count=9)
    subset = Subset(base, np.array([8, 2]))
    contract(subset)
    assert [subset.sample_name(index) for index in range(2)] == ["train_000008", "train_000002"]
    np.testing.assert_array_equal(subset.read(1)[0], base.read(2)[0])
    with pytest.raises(IndexError, match="index 9 is outside the 9 samples of shapes"):
        Subset(base, [9])


def test_cached_reads_once(plain: Path) -> None:
    cached = Cached(open_dataset("folder", plain, "train"))
    contract(cached)
    cached.fill()
    for path in (plain / "images/train").iterdir():
        path.unlink()
    image, label = cached.read(1)
    assert image.shape == (6, 8, 3)
    for array in (image, label):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
