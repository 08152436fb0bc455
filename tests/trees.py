"""Small generated files in the exact layouts of the data sets; label values are drawn from the official ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import DataError, open_dataset

SIZE = (6, 8)


def write_pair(image: Path, label: Path, ids: int | np.ndarray = 0, size: tuple[int, int] = SIZE) -> None:
    """Write a grey image and a label, [H, W] = size; ids is one id or an array."""
    write_image(image, size)
    label.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(ids, dtype=np.uint8), size).copy()).save(label)


def write_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8)).save(path)


def drawn(values: Iterable[int], seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Label values [H, W], drawn from those given."""
    return np.random.default_rng(seed).choice(np.array(list(values), dtype=np.uint8), size)


def plain(root: Path) -> Path:
    """images/SPLIT, labels/SPLIT with two classes."""
    for split, names in (("train", "cab"), ("val", "de")):
        for name in names:
            write_pair(root / f"images/{split}/{name}.jpg", root / f"labels/{split}/{name}.png", 1)
    (root / "classes.txt").write_text("background\nroad sign 250 10 20\n")
    return root


def segnet(root: Path) -> Path:
    """SegNet's layout: ids 0..11, where 11 is void."""
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for split, names in (("train", "ba"), ("val", "c"), ("test", "d")):
        for name in names:
            write_pair(root / split / f"{name}.png", root / f"{split}annot" / f"{name}.png", ids, (3, 4))
    return root


def cityscapes(root: Path) -> Path:
    """All official splits; the labels of test are those of the release, which hide what is seen."""
    for split, cities, labels in (
        ("train", ("bremen", "aachen"), ("gtFine", "gtCoarse")),
        ("val", ("munster",), ("gtFine", "gtCoarse")),
        ("test", ("bonn",), ("gtFine",)),
        ("train_extra", ("troisdorf",), ("gtCoarse",)),
    ):
        for number, (city, kind) in enumerate((city, kind) for city in cities for kind in labels):
            values = range(4) if split == "test" else range(34)
            for frame in (f"{city}_000000_000019", f"{city}_000001_000019"):
                stem = root / kind / split / city / f"{frame}_{kind}"
                image = root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png"
                write_pair(image, Path(f"{stem}_labelIds.png"), drawn(values, number))
                Image.fromarray(np.zeros((*SIZE, 3), dtype=np.uint8)).save(f"{stem}_color.png")
                Image.fromarray(drawn([0, 7, 255], number)).save(f"{stem}_labelTrainIds.png")
                Path(f"{stem}_polygons.json").write_text("{}")
    return root


def voc2012(root: Path) -> Path:
    """VOCdevkit/VOC2012 below the root; palette masks, lists, the augmented list, and images without a mask."""
    folder = root / "VOCdevkit" / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for number, name in enumerate(("2007_000032", "2007_000039", "2007_000033", "2008_000008", "2008_000015")):
        size = (6, 8) if number % 2 else (8, 6)
        write_image(folder / "JPEGImages" / f"{name}.jpg", size)
        values = drawn([*range(21), 255], number, size)
        if number < 3:
            mask = Image.fromarray(values)
            mask.putpalette(list(range(256)) * 3)
            (folder / "SegmentationClass").mkdir(exist_ok=True)
            mask.save(folder / "SegmentationClass" / f"{name}.png")
        if number != 2:
            (folder / "SegmentationClassAug").mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / "SegmentationClassAug" / f"{name}.png")
    write_image(folder / "JPEGImages" / "2012_000001.jpg")
    for split, names in (
        ("train", "2007_000032 2007_000039"),
        ("val", "2007_000033"),
        ("trainval", "2007_000032 2007_000033 2007_000039"),
        ("train_aug", "2007_000032 2007_000039 2008_000008 2008_000015"),
    ):
        (lists / f"{split}.txt").write_text(names.replace(" ", "\n") + "\n")
    return root


def ade20k(root: Path) -> Path:
    """ADEChallengeData2016 with values 0..150."""
    for split, names in (("training", ("train_00000002", "train_00000001")), ("validation", ("val_00000001",))):
        for number, name in enumerate(names):
            label = root / "annotations" / split / f"ADE_{name}.png"
            write_pair(root / "images" / split / f"ADE_{name}.jpg", label, drawn(range(151), number))
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    return root


CELEBA = {0: 119613, 1: 99094, 2: 162770, 3: 162771, 4: 182637, 5: 182638, 2000: 5}
"""Images of the generated tree and their numbers in CelebA: around both limits of the split."""


def celebamask(root: Path) -> Path:
    """Images of 1024x1024, here 16x16, with masks of half their sides, one a part."""
    lines = [" idx      orig_idx     orig_file"]
    for number, original in CELEBA.items():
        write_image(root / "CelebA-HQ-img" / f"{number}.jpg", (16, 16))
        lines.append(f"{number:<11}{original:<13}{original + 1:06}.jpg")
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        folder.mkdir(parents=True, exist_ok=True)
        for part, (top, left) in {"hair": (0, 0), "skin": (1, 1), "nose": (3, 3), "l_eye": (2, 2)}.items():
            mask = np.zeros((8, 8, 3), dtype=np.uint8)
            mask[top : 8 - top, left : left + 4] = 255
            Image.fromarray(mask).save(folder / f"{number:05}_{part}.png")
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")
    return root


def message(name: str, root: Path | None, split: str = "train", read: int | None = None, **options: object) -> str:
    """What is said when opening (or reading a sample) fails: always one line."""
    with pytest.raises(DataError) as raised:
        dataset = open_dataset(name, root, split, **options)
        assert read is not None, "opened without an error"
        dataset.read(read)
    assert "\n" not in str(raised.value)
    return str(raised.value)
