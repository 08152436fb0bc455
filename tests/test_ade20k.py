"""ADE20K: ids, names, and what a wrong folder is answered with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from nas.data import IGNORE, open_dataset
from nas.data.readers.ade20k import CLASSES, COLORS
from trees import message


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.ade20k(tmp_path / "ADEChallengeData2016")


def test_150_names_and_colours() -> None:
    """Lines of objectInfo150.txt, which counts from 1."""
    assert len(set(CLASSES)) == 150 and COLORS.shape == (150, 3)
    for number, name in (
        *((1, "wall"), (2, "building"), (8, "bed"), (13, "person"), (45, "chest of drawers"), (66, "toilet")),
        *((90, "television"), (92, "dirt track"), (100, "buffet"), (131, "screen"), (142, "crt screen"), (150, "flag")),
    ):
        assert CLASSES[number - 1] == name
    assert COLORS[[0, 1, 2, 149]].tolist() == [[120, 120, 120], [180, 120, 120], [6, 230, 230], [92, 0, 255]]


def test_zero_is_ignored_and_the_rest_moves_down_by_one(tree: Path) -> None:
    dataset = open_dataset("ade20k", tree, "train")
    assert [dataset.sample_name(index) for index in range(2)] == ["ADE_train_00000001", "ADE_train_00000002"]
    file = tree / "annotations/training/ADE_train_00000001.png"
    values = np.arange(48).reshape(6, 8) * 3 + 9
    values[0] = [0, 1, 2, 75, 148, 149, 150, 0]
    Image.fromarray(values.astype(np.uint8)).save(file)
    label = dataset.read(0)[1]
    assert label[0].tolist() == [IGNORE, 0, 1, 74, 147, 148, 149, IGNORE]
    np.testing.assert_array_equal(label[1:], values[1:] - 1)
    assert len(open_dataset("ade20k", tree, "val")) == 1 and len(open_dataset("ade20k", tree, "trainval")) == 3


def test_messages(tree: Path) -> None:
    assert "no split 'test'; choose one of train, val, trainval" in message("ade20k", tree, "test")
    file = tree / "annotations/training/ADE_train_00000001.png"
    Image.fromarray(np.full((6, 8), 151, dtype=np.uint8)).save(file)
    said = message("ade20k", tree, read=0)
    assert "outside the 150 classes: 151 (48 pixels); expected 1..150, or 0 for pixels to ignore" in said
    Image.fromarray(np.full((6, 8, 3), (1, 2, 3), dtype=np.uint8)).save(file)
    assert "holds colours (RGB); expected one class id per pixel" in message("ade20k", tree, read=0)
    file.unlink()
    image = tree / "images/training/ADE_train_00000001.jpg"
    assert f"{image} has no label; expected {file}" in message("ade20k", tree)
    (tree / "annotations/validation").rename(tree / "annotations/val")
    assert f"{tree / 'annotations/validation'} does not exist; {tree / 'annotations'} holds training/, val/" in message(
        "ade20k", tree, "val"
    )
