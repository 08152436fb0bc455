"""PASCAL VOC 2012: roots, lists, palette masks, the augmented list; genuine files where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from nas.data import open_dataset
from nas.data.readers.classes import default_colors
from trees import message

ROOT = Path(__file__).resolve().parents[1]
GENUINE = Path(os.environ.get("NAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "samples" / "voc2012"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.voc2012(tmp_path / "voc")


def names(root: Path, split: str) -> list[str]:
    dataset = open_dataset("voc2012", root, split)
    return [dataset.sample_name(index) for index in range(len(dataset))]


@pytest.mark.parametrize("below", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_roots(tree: Path, below: str) -> None:
    assert names(tree / below, "train") == ["2007_000032", "2007_000039"]


def test_splits_follow_the_order_of_their_lists(tree: Path) -> None:
    assert names(tree, "val") == ["2007_000033"]
    assert names(tree, "trainval") == ["2007_000032", "2007_000033", "2007_000039"]
    assert names(tree, "train_aug") == ["2007_000032", "2007_000039", "2008_000008", "2008_000015"]


def test_palette_masks_give_ids_and_augmented_ones_are_the_same(tree: Path) -> None:
    folder = tree / "VOCdevkit/VOC2012"
    mask = Image.open(folder / "SegmentationClass/2007_000032.png")
    assert mask.mode == "P"
    label = open_dataset("voc2012", tree, "train").read(0)[1]
    np.testing.assert_array_equal(label, np.array(mask))
    augmented = open_dataset("voc2012", tree, "train_aug")
    np.testing.assert_array_equal(augmented.read(0)[1], label)
    np.testing.assert_array_equal(
        augmented.read(3)[1], np.array(Image.open(folder / "SegmentationClassAug/2008_000015.png"))
    )


@pytest.mark.parametrize("line", ["{0}", "  {0} ", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
@pytest.mark.parametrize("file", ["train_aug.txt", "trainaug.txt"])
def test_kinds_of_augmented_lists(tree: Path, line: str, file: str) -> None:
    lists = tree / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "train_aug.txt").unlink()
    text = "\r\n".join(line.format(name) for name in ("2008_000015", "2007_000032"))
    (lists / file).write_text(f"{text}\n\n")
    assert names(tree, "train_aug") == ["2008_000015", "2007_000032"]


def test_messages(tree: Path) -> None:
    folder = tree / "VOCdevkit/VOC2012"
    lists = folder / "ImageSets/Segmentation"
    assert "no split 'test'; choose one of train, val, trainval, train_aug" in message("voc2012", tree, "test")
    (lists / "train_aug.txt").rename(lists / "aug.txt")
    said = message("voc2012", tree, "train_aug")
    assert f"train_aug needs train_aug.txt or trainaug.txt in {lists}, which holds aug.txt, train.txt, trainval" in said
    assert "comes with SegmentationClassAug/" in said
    (lists / "train_aug.txt").write_text("2007_000033\n2012_000001\n")
    said = message("voc2012", tree, "train_aug")
    assert "names 2007_000033, which has no label in" in said and "and 1 more without one" in said
    (lists / "train.txt").write_text("2007_000032\n2007_000032\n")
    assert "train.txt names 2007_000032 more than once" in message("voc2012", tree)
    (lists / "train.txt").write_text("2099_000001\n")
    assert f"names 2099_000001, which has no image in {folder / 'JPEGImages'}" in message("voc2012", tree)
    (lists / "train.txt").write_text("\n")
    assert "train.txt names no sample of this split" in message("voc2012", tree)
    (lists / "train.txt").write_bytes(b"\xff\xff")
    assert f"list {lists / 'train.txt'} cannot be read" in message("voc2012", tree)
    (folder / "SegmentationClassAug").rename(folder / "Aug")
    said = message("voc2012", tree, "train_aug")
    assert "SegmentationClassAug does not exist" in said and "holds Aug/, ImageSets/, JPEGImages/" in said


def test_colour_masks_in_place_of_ids(tree: Path) -> None:
    path = tree / "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png"
    Image.open(path).convert("RGB").save(path)
    assert f"label {path} holds colours (RGB); expected one class id per pixel" in message("voc2012", tree, read=0)


def test_genuine_files() -> None:
    if not GENUINE.is_dir():
        pytest.skip(f"no PASCAL VOC at {GENUINE}: set NAS_TEST_DATA to the folder that holds samples/voc2012/")
    shapes, found = [], {255}
    dataset = open_dataset("voc2012", GENUINE, "trainval")
    for index in range(len(dataset)):
        label = dataset.read(index)[1]
        shapes.append(label.shape)
        found |= set(np.unique(label).tolist())
        mask = GENUINE / "VOCdevkit/VOC2012/SegmentationClass" / f"{dataset.sample_name(index)}.png"
        # The colours of the file's own palette are those that the classes are drawn in.
        np.testing.assert_array_equal(np.array(Image.open(mask).convert("RGB")), default_colors(256)[label])
    assert sorted(set(shapes)) == [(375, 500), (383, 500), (500, 375)]
    assert found == {0, 3, 8, 12, 15, 16, 18, 255}
    assert "comes with SegmentationClassAug/" in message("voc2012", GENUINE, "train_aug")
