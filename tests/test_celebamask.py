"""CelebAMask-HQ: the split, parts joined in their order, label maps, sizes, and mirrored left and right."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trees
from nas.data import AugmentConfig, Cached, Resized, Subset, open_dataset, training_loader
from nas.data.readers.celebamask import CLASSES, COLORS, MIRROR
from nas.evaluation.evaluate import predict_scores
from nas.evaluation.inference import Viewing
from trees import message

PARTS = "CelebAMask-HQ-mask-anno"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.celebamask(tmp_path / "CelebAMask-HQ")


def names(root: Path, split: str) -> list[str]:
    dataset = open_dataset("celebamask", root, split)
    return [dataset.sample_name(index) for index in range(len(dataset))]


def joined(tree: Path, number: int) -> np.ndarray:
    """The slow and obvious way, as in g_mask.py: pixel by pixel."""
    label = np.zeros((8, 8), dtype=np.uint8)
    for class_id, name in enumerate(CLASSES):
        file = tree / PARTS / str(number // 2000) / f"{number:05}_{name}.png"
        if class_id and file.exists():
            for y, x in np.argwhere(np.array(Image.open(file))[..., 2] != 0):
                label[y, x] = class_id
    return label


def test_classes() -> None:
    assert len(CLASSES) == len(set(COLORS.values())) == 19
    assert [CLASSES.index(name) for name in ("background", "skin", "l_eye", "hair", "ear_r", "cloth")] == [
        *(0, 1, 4, 13, 15, 18)
    ]
    assert {CLASSES[one]: CLASSES[other] for one, other in MIRROR.items()} == {
        "l_eye": "r_eye",
        "r_eye": "l_eye",
        "l_brow": "r_brow",
        "r_brow": "l_brow",
        "l_ear": "r_ear",
        "r_ear": "l_ear",
    }


def test_the_split_goes_by_the_number_in_celeba(tree: Path) -> None:
    """Limits as in g_partition.py: val from 162,771, test from 182,638."""
    assert trees.CELEBA == {0: 119613, 1: 99094, 2: 162770, 3: 162771, 4: 182637, 5: 182638, 2000: 5}
    assert names(tree, "train") == ["0", "1", "2", "2000"]
    assert names(tree, "val") == ["3", "4"] and names(tree, "test") == ["5"]
    assert names(tree, "trainval") == ["0", "1", "2", "3", "4", "2000"]


def test_parts_are_laid_over_each_other_in_the_official_order(tree: Path) -> None:
    dataset = open_dataset("celebamask", tree, "train")
    for index, number in enumerate((0, 1, 2, 2000)):
        np.testing.assert_array_equal(dataset.read(index)[1], joined(tree, number))
    label = dataset.read(0)[1]
    # Hair, written first, lies over skin, nose and eye; skin is left where hair is not.
    assert (label[:, :4] == 13).all() and label[3, 4] == 4 and label[1, 4] == 1 and label[0, 4] == 0


def test_images_are_brought_to_the_size_of_the_masks(tree: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tree / "CelebA-HQ-img/0.png")
    (tree / "CelebA-HQ-img/0.jpg").unlink()
    dataset = open_dataset("celebamask", tree, "train")
    image, label = dataset.read(0)
    assert image.shape == (8, 8, 3) and label.shape == (8, 8)
    whole = Image.fromarray(noise).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image, np.asarray(whole))
    Image.fromarray(noise[:, :12]).save(tree / "CelebA-HQ-img/0.png")
    assert "is 8x8 but its image" in message("celebamask", tree, read=0)


@pytest.mark.parametrize("folder", ["CelebAMask-HQ-mask", "mask"])
def test_label_maps_are_read_in_place_of_parts(tree: Path, folder: str) -> None:
    parts = open_dataset("celebamask", tree, "train")
    (tree / folder).mkdir()
    for number in trees.CELEBA:
        Image.fromarray(joined(tree, number)).save(tree / folder / f"{number}.png")
    from_parts = [parts.read(index)[1] for index in range(len(parts))]
    shutil.rmtree(tree / PARTS)
    maps = open_dataset("celebamask", tree, "train")
    for index, label in enumerate(from_parts):
        np.testing.assert_array_equal(maps.read(index)[1], label)
    assert maps.identity(0) != parts.identity(0)


def test_messages(tree: Path) -> None:
    assert "no split 'dev'; choose one of train, val, test, trainval" in message("celebamask", tree, "dev")
    mask = tree / PARTS / "0/00000_nose.png"
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(mask)
    assert f"mask {mask} is 4x4 but others of its image are 8x8" in message("celebamask", tree, read=0)
    for path in (tree / PARTS / "0").glob("00000_*"):
        path.unlink()
    mapping = tree / "CelebA-HQ-to-CelebA-mapping.txt"
    assert f"{mapping} names 0, which has no label in {tree / PARTS}" in message("celebamask", tree)
    (tree / "CelebA-HQ-img/3.jpg").unlink()
    assert "names 3, which has no image in" in message("celebamask", tree, "val")
    text = mapping.read_text()
    for line, expected in (
        ("7 x", "line 9 is '7 x'; expected the image's number here and in CelebA, such as '0 119613 119614.jpg'"),
        ("7", "line 9 is '7'; expected"),
        ("7 " + "9" * 5000, "line 9 is '7 9999"),
        ("5 8 x", "line 9 names image 5 a second time"),
    ):
        mapping.write_text(text + line + "\n")
        assert expected in message("celebamask", tree)
    mapping.write_text(text.splitlines()[0])
    assert "names no sample of this split" in message("celebamask", tree)
    mapping.unlink()
    assert f"{mapping} does not exist; it comes with the data set" in message("celebamask", tree)


def test_missing_masks(tree: Path) -> None:
    (tree / PARTS).rename(tree / "masks")
    said = message("celebamask", tree)
    assert f"{tree} holds no masks; expected {PARTS}/, or label maps in one of CelebAMask-HQ-mask/" in said
    (tree / PARTS).mkdir()
    assert "holds no masks; expected 0/00000_skin.png and so on" in message("celebamask", tree)


def test_mirrored_samples_swap_left_and_right(tree: Path) -> None:
    dataset = open_dataset("celebamask", tree, "train")
    eye, other = CLASSES.index("l_eye"), CLASSES.index("r_eye")
    assert all(wrapped.mirror == MIRROR for wrapped in (Cached(dataset), Resized(dataset, 0.5), Subset(dataset, [0])))
    whole = AugmentConfig(crop=(8, 8), scale=(1.0, 1.0))
    with training_loader(dataset, [[(epoch, 0)] for epoch in range(20)], whole, 0) as loader:
        labels = [batch[1][0].numpy() for batch in loader]
    plain = dataset.read(0)[1]
    mirrored = np.where(plain == eye, other, plain)[:, ::-1]
    assert (plain == eye).any()
    found = [np.array_equal(label, mirrored) for label in labels]
    assert all(
        np.array_equal(label, mirrored if swapped else plain) for label, swapped in zip(labels, found, strict=True)
    )
    assert any(found) and not all(found)


def test_mirrored_predictions_swap_left_and_right() -> None:
    """A network that sees where a pixel lies, and calls what is left in the image class 4, what is right class 5."""

    def network(images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 19, *images.shape[-2:])
        logits[:, 4, :, :2] = logits[:, 5, :, 2:] = 9.0
        return logits

    def predict(mirror: dict[int, int]) -> torch.Tensor:
        device = torch.device("cpu")
        images = torch.zeros(1, 3, 4, 4)
        viewing = Viewing(flip=True)
        return predict_scores(network, images, (4, 4), viewing, device, "float32", mirror)  # type: ignore[arg-type]

    torch.testing.assert_close(predict(MIRROR), network(torch.zeros(1, 3, 4, 4)).softmax(dim=1))
    assert (predict({})[:, 4] - predict({})[:, 5]).abs().max() < 1e-6  # or the two would cancel out
