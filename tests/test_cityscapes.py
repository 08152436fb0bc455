"""Cityscapes: splits, ids, and what a wrong folder is answered with; genuine files where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nas
import retrain
import trees
from nas.config import LoaderConfig, SearchConfig
from nas.data import IGNORE, evaluation_loader, open_dataset
from nas.data.readers.cityscapes import CLASSES, IDS
from nas.data.readers.pairs import PairedDataset
from nas.data.splits import training_split
from nas.evaluation.evaluate import evaluate_network
from trees import message

ROOT = Path(__file__).resolve().parents[1]
GENUINE = Path(os.environ.get("NAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "samples" / "cityscapes"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.cityscapes(tmp_path / "cityscapes")


def names(root: Path, split: str) -> list[str]:
    dataset = open_dataset("cityscapes", root, split)
    return [dataset.sample_name(index) for index in range(len(dataset))]


def test_the_19_train_ids() -> None:
    """As in labels.py of the official scripts: id -> trainId."""
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [number for number, train_id in sorted(IDS.items()) if train_id != IGNORE] == ids
    assert [IDS[number] for number in ids] == list(range(19))
    assert set(IDS) == {*range(34), 255}
    assert [name for name, _, _ in CLASSES][:3] == ["road", "sidewalk", "building"] and CLASSES[18][0] == "bicycle"


def test_splits(tree: Path) -> None:
    train = [f"{city}_00000{number}_000019" for city in ("aachen", "bremen") for number in (0, 1)]
    val, extra = ([f"{city}_000000_000019", f"{city}_000001_000019"] for city in ("munster", "troisdorf"))
    assert names(tree, "train") == names(tree, "train_coarse") == train
    assert names(tree, "val") == val and names(tree, "train_extra") == extra
    assert names(tree, "trainval") == train + val
    assert names(tree, "train+train_extra") == train + extra
    assert names(tree, "trainval+train_extra") == train + val + extra


@pytest.mark.parametrize(("split", "labels"), [("train", "gtFine"), ("train_coarse", "gtCoarse")])
def test_label_ids_are_read(tree: Path, split: str, labels: str) -> None:
    file = tree / labels / "train/aachen" / f"aachen_000000_000019_{labels}_labelIds.png"
    values = np.array(Image.open(file))
    expected = [[IDS[int(value)] for value in row] for row in values]
    np.testing.assert_array_equal(open_dataset("cityscapes", tree, split).read(0)[1], expected)


def test_license_plates_are_ignored_and_other_values_named(tree: Path) -> None:
    file = tree / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    values = np.zeros(trees.SIZE, dtype=np.uint8)
    values[0] = 255  # -1 in 8 bits
    Image.fromarray(values).save(file)
    dataset = open_dataset("cityscapes", tree, "train")
    assert (dataset.read(0)[1] == IGNORE).all()
    values[0, :2] = 34, 200
    Image.fromarray(values).save(file)
    assert isinstance(dataset, PairedDataset) and dataset.unknown_values(0) == {34: 1, 200: 1}
    assert "34 (1 pixels), 200 (1 pixels); expected 7..8, 11..13, 17, 19..28, 31..33, or 0..6" in message(
        "cityscapes", tree, read=0
    )


def test_the_test_split_opens_and_has_no_labelled_pixel(tree: Path) -> None:
    dataset = open_dataset("cityscapes", tree, "test")
    assert all((dataset.read(index)[1] == IGNORE).all() for index in range(len(dataset)))
    network = torch.nn.Conv2d(3, len(dataset.classes), 1)
    with evaluation_loader(dataset) as loader, pytest.raises(ValueError, match=r"no labelled pixel .* not public$"):
        evaluate_network(network, loader, len(dataset.classes), torch.device("cpu"))


def test_messages(tree: Path) -> None:
    assert "no split 'dev'; choose one of train, val, test, trainval, train_coarse" in message(
        "cityscapes", tree, "dev"
    )
    label = tree / "gtFine/val/munster/munster_000001_000019_gtFine_labelIds.png"
    image = tree / "leftImg8bit/val/munster/munster_000001_000019_leftImg8bit.png"
    label.rename(label.with_name("kept"))
    assert f"{image} has no label; expected {label}" in message("cityscapes", tree, "val")
    label.with_name("kept").rename(label)
    image.unlink()
    assert f"{label} has no image; expected {image}" in message("cityscapes", tree, "val")
    for path in (tree / "gtFine/val/munster").glob("*labelIds*"):
        path.unlink()
    said = message("cityscapes", tree, "val")
    assert f"{tree / 'gtFine/val'} holds no label files; expected CITY/CITY_SEQ_FRAME_gtFine_labelIds.png" in said
    (tree / "gtCoarse").rename(tree / "gtCoarse2")
    said = message("cityscapes", tree, "train_extra")
    assert f"gtCoarse/train_extra does not exist; nor does {tree / 'gtCoarse'}" in said


def test_the_search_reads_at_half_resolution_and_retraining_in_full(tree: Path) -> None:
    recipe = nas.recipe("autodeeplab")
    assert (recipe.data, recipe.loader.resolution, recipe.loader.augment.crop) == ("cityscapes", 0.5, (321, 321))
    assert (recipe.loader.augment.scale, recipe.loader.augment.scale_step) == ((0.5, 2.0), 0.25)
    assert retrain.recipe("autodeeplab").loader.resolution == 1
    config = SearchConfig(data="cityscapes", data_root=str(tree), loader=LoaderConfig(resolution=0.5))
    image, label = training_split(config).read(0)
    assert image.shape == (3, 4, 3) and label.shape == (3, 4)


def test_genuine_files() -> None:
    if not GENUINE.is_dir():
        pytest.skip(f"no Cityscapes at {GENUINE}: set NAS_TEST_DATA to the folder that holds samples/cityscapes/")
    dataset = open_dataset("cityscapes", GENUINE, "train")
    assert names(GENUINE, "train") == ["aachen_000000_000019", "aachen_000005_000019"]
    assert names(GENUINE, "val") == ["frankfurt_000001_082087"]
    for index in range(2):
        image, label = dataset.read(index)
        assert image.shape == (1024, 2048, 3)
        # The instance files hold the same ids, times 1000 where there are instances.
        city = GENUINE / "gtFine/train/aachen" / f"{dataset.sample_name(index)}_gtFine_instanceIds.png"
        instances = np.array(Image.open(city)).astype(int)
        values = np.where(instances >= 1000, instances // 1000, instances)
        table = np.array([IDS[value] for value in range(34)])
        np.testing.assert_array_equal(label, table[values])
    assert set(np.unique(open_dataset("cityscapes", GENUINE, "val").read(0)[1])) <= {*range(19), IGNORE}
    assert "give this as the root" in message("cityscapes", GENUINE / "gtFine")
