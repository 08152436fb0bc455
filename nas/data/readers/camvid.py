"""CamVid with the 11 classes, 480x360 frames and split of SegNet (Badrinarayanan et al., PAMI 2017).

Two layouts are read:

- `images/{train,val,test}/NAME.jpg|png` and `labels/{train,val,test}/NAME.png`, 255 = void, with an optional
  `classes.json`;
- SegNet's own: `train/`, `trainannot/` and so on, PNG, 11 = void.

Frames are video: neighbours within a split are correlated. Source: G. Brostow, J. Fauqueur, R. Cipolla, "Semantic
object classes in video", Pattern Recognition Letters 30(2), 2009.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.data.base import IGNORE, DataError, register_dataset
from nas.data.readers.classes import read_class_file
from nas.data.readers.pairs import Pair, PairedDataset, check_root, find_pairs, has_folders, parts_of_split

__all__ = ["CLASSES", "COLORS", "SPLITS", "CamVid"]

COLORS = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
"""RGB of each class, in the order of the ids, from SegNet's `Scripts/test_segmentation_camvid.py`."""

CLASSES = tuple(COLORS)

SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
"""Folders of each split."""

SEGNET_IDS = {**{number: number for number in range(11)}, 11: IGNORE}
"""Class id of each value in SegNet's own label files; 11 is void."""


_is_plain = has_folders("images", "labels")


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits that have a folder of images or of labels, in either layout."""
    plain = _is_plain(root)
    return tuple(
        split
        for split in ("train", "val", "test")
        if any((root / folder).is_dir() for folder in _folders_of(split, plain))
    )


@register_dataset(
    "camvid", needs_root=True, summary="CamVid, 11 classes, 480x360 video frames (SegNet split)", splits=find_splits
)
class CamVid(PairedDataset):
    """CamVid read from disk, sorted by name, so that contiguous indices are contiguous frames.

    Args:
        root: Folder with one of the two layouts.
        split: `train`, `val`, `test` or `trainval` (train, then val).

    Raises:
        DataError: Root or split are not as expected, `classes.json` lists other classes, or files do not pair up.
    """

    def __init__(self, root: Path, split: str) -> None:
        check_root(
            "camvid",
            root,
            lambda path: _is_plain(path) or _is_segnet(path),
            "images/ and labels/ with train/, val/ and test/ in each, or train/ and trainannot/ and so on",
        )
        parts = parts_of_split("camvid", SPLITS, split)
        plain = _is_plain(root)
        if plain and (root / "classes.json").is_file():
            names, _ = read_class_file(root / "classes.json")
            if names != CLASSES:
                raise DataError(
                    f"camvid: {root / 'classes.json'} lists {', '.join(names)}; "
                    f"expected {', '.join(CLASSES)}: read other classes with the data set 'folder'"
                )
        pairs, unread = list[Pair](), list[Path]()
        for part in parts:
            images, labels = _folders_of(part, plain)
            found, others = find_pairs("camvid", root / images, root / labels)
            pairs, unread = pairs + found, unread + others
        super().__init__(
            "camvid",
            split,
            CLASSES,
            np.array(list(COLORS.values()), dtype=np.uint8),
            pairs,
            ids=None if plain else SEGNET_IDS,
            video=True,
            unread=unread,
        )


def _folders_of(split: str, plain: bool) -> tuple[str, str]:
    return (f"images/{split}", f"labels/{split}") if plain else (split, f"{split}annot")


def _is_segnet(path: Path) -> bool:
    return any((path / part).is_dir() and (path / f"{part}annot").is_dir() for part in ("train", "val", "test"))
