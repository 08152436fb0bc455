"""Cityscapes (Cordts et al., CVPR 2016), 19 classes, 2048x1024: layout and ids of the official scripts.

    ROOT/leftImg8bit/SPLIT/CITY/CITY_SEQ_FRAME_leftImg8bit.png
    ROOT/gtFine/SPLIT/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png
    ROOT/gtCoarse/SPLIT/CITY/CITY_SEQ_FRAME_gtCoarse_labelIds.png     only for the coarse splits

Source of names, ids and colours: `helpers/labels.py` of github.com/mcordts/cityscapesScripts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.data.base import IGNORE, DataError, register_dataset
from nas.data.readers.listing import check_folder
from nas.data.readers.pairs import Pair, PairedDataset, check_root, pair_up, parts_of_split, splits_with

__all__ = ["CLASSES", "IDS", "SPLITS", "Cityscapes"]

CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
"""Name, id in the label files, RGB; the position is the class id (the official trainId)."""

IDS = {
    **dict.fromkeys(range(34), IGNORE),
    **{number: train_id for train_id, (_, number, _) in enumerate(CLASSES)},
    IGNORE: IGNORE,
}
"""Class id of each value in label files: of 0..33, 19 are classes and the rest is ignored, as is 255, the 8-bit form of
the -1 for license plates."""

SPLITS = {
    "train": (("gtFine", "train"),),
    "val": (("gtFine", "val"),),
    "test": (("gtFine", "test"),),
    "trainval": (("gtFine", "train"), ("gtFine", "val")),
    "train_coarse": (("gtCoarse", "train"),),
    "train_extra": (("gtCoarse", "train_extra"),),
    "train+train_extra": (("gtFine", "train"), ("gtCoarse", "train_extra")),
    "trainval+train_extra": (("gtFine", "train"), ("gtFine", "val"), ("gtCoarse", "train_extra")),
}
"""Labels and folders of each split."""

IMAGE_END = "_leftImg8bit.png"


@register_dataset(
    "cityscapes",
    needs_root=True,
    summary="Cityscapes, 19 classes, 2048x1024 road scenes",
    splits=splits_with(**{part: f"leftImg8bit/{part}" for part in ("train", "val", "test")}),
)
class Cityscapes(PairedDataset):
    """Cityscapes read from disk, sorted by name.

    The official release has no labels for `test`: its label files mark only the car and the border. Every pixel is
    ignored, so evaluation on it is refused; prediction works.

    Args:
        root: Folder with `leftImg8bit` and `gtFine` (or `gtCoarse`).
        split: `train` (2,975 images), `val` (500), `test` (1,525), `trainval`; with coarse labels
            `train_coarse` (the images of `train`) and `train_extra` (19,998 others); `train+train_extra` and
            `trainval+train_extra` have fine labels first, then coarse ones.

    Raises:
        DataError: Root or split are not as expected, or files do not pair up.
    """

    def __init__(self, root: Path, split: str) -> None:
        check_root(
            "cityscapes",
            root,
            _fits,
            "leftImg8bit/ and gtFine/ (or gtCoarse/), with train/, val/ and so on in each, and in those cities",
        )
        pairs: list[Pair] = []
        for labels, part in parts_of_split("cityscapes", SPLITS, split):
            pairs += _pairs(root, labels, part)
        names, _, colors = zip(*CLASSES, strict=True)
        super().__init__("cityscapes", split, names, np.array(colors, dtype=np.uint8), pairs, ids=IDS)


def _fits(path: Path) -> bool:
    return (path / "leftImg8bit").is_dir() and any((path / labels).is_dir() for labels in ("gtFine", "gtCoarse"))


def _pairs(root: Path, labels: str, part: str) -> list[Pair]:
    image_folder, label_folder, label_end = root / "leftImg8bit" / part, root / labels / part, f"_{labels}_labelIds.png"
    return pair_up(
        "cityscapes",
        _by_frame("image", image_folder, IMAGE_END),
        _by_frame("label", label_folder, label_end),
        lambda image: f"{label_folder / image.parent.name / image.name.removesuffix(IMAGE_END)}{label_end}",
        lambda label: f"{image_folder / label.parent.name / label.name.removesuffix(label_end)}{IMAGE_END}",
    )


def _by_frame(kind: str, folder: Path, end: str) -> dict[str, Path]:
    """Files CITY/CITY_SEQ_FRAME + end by CITY_SEQ_FRAME."""
    check_folder("cityscapes", kind, folder)
    files = {path.name.removesuffix(end): path for path in folder.glob(f"*/*{end}") if not path.name.startswith(".")}
    if not files:
        raise DataError(f"cityscapes: {folder} holds no {kind} files; expected CITY/CITY_SEQ_FRAME{end}")
    return files
