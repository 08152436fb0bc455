"""PASCAL VOC 2012 (Everingham et al.), 21 classes, with the augmented training set (Hariharan et al., ICCV 2011).

    VOC2012/JPEGImages/NAME.jpg
    VOC2012/SegmentationClass/NAME.png            palette: 0 is background, 1..20 are objects, 255 their borders
    VOC2012/ImageSets/Segmentation/{train,val,trainval}.txt
    VOC2012/SegmentationClassAug/NAME.png         for train_aug alone, as is ImageSets/Segmentation/train_aug.txt

Images differ in size. The labels of the test images are not public.
"""

from __future__ import annotations

from pathlib import Path

from nas.data.base import DataError, register_dataset
from nas.data.readers.classes import default_colors
from nas.data.readers.listing import by_stem
from nas.data.readers.pairs import PairedDataset, check_root, listed_pairs, parts_of_split
from nas.data.readers.reading import read_text

__all__ = ["CLASSES", "SPLITS", "Voc2012"]

_NAMES = """
background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
pottedplant sheep sofa train tvmonitor
"""

CLASSES = tuple(_NAMES.split())
"""In the order of the ids; the colours are `nas.data.readers.classes.default_colors`."""

SPLITS = {
    "train": (("train.txt",), "SegmentationClass"),
    "val": (("val.txt",), "SegmentationClass"),
    "trainval": (("trainval.txt",), "SegmentationClass"),
    "train_aug": (("train_aug.txt", "trainaug.txt"), "SegmentationClassAug"),
}
"""Possible names of each split's list, and the folder of its labels."""

LISTS = Path("ImageSets") / "Segmentation"


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits that have a list; train_aug is left out, as it overlaps train."""
    folder = _folder(root)
    return tuple(part for part in ("train", "val") if folder and (folder / LISTS / f"{part}.txt").is_file())


@register_dataset(
    "voc2012",
    needs_root=True,
    summary="PASCAL VOC 2012, 21 classes, with the augmented training set",
    splits=find_splits,
)
class Voc2012(PairedDataset):
    """PASCAL VOC 2012 read from disk, in the order of the split's list.

    Args:
        root: The folder VOC2012, or VOCdevkit, or the one above it.
        split: `train` (1,464 images), `val` (1,449), `trainval`, or `train_aug` (10,582, none of them in `val`). Each
            line of a list is a name or, as in some lists of `train_aug`, the paths of image and label.

    Raises:
        DataError: Root, split or list are not as expected, or a listed file is missing.
    """

    def __init__(self, root: Path, split: str) -> None:
        check_root(
            "voc2012",
            root,
            lambda path: _folder(path) is not None,
            "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/, or VOC2012/ or VOCdevkit/VOC2012/ with them",
        )
        folder = _folder(root)
        assert folder is not None
        files, labels = parts_of_split("voc2012", SPLITS, split)
        chosen = _list(folder / LISTS, files, split, labels)
        names = [Path(line.split()[0]).stem for line in read_text("list", chosen).splitlines() if line.strip()]
        pairs = listed_pairs(
            "voc2012",
            chosen,
            names,
            (folder / "JPEGImages", by_stem("voc2012", "image", folder / "JPEGImages", (".jpg",)).files),
            (folder / labels, by_stem("voc2012", "label", folder / labels, (".png",)).files),
        )
        super().__init__("voc2012", split, CLASSES, default_colors(len(CLASSES)), pairs)


def _folder(root: Path) -> Path | None:
    """The folder VOC2012, given itself or one of the two folders above it."""
    for path in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (path / "JPEGImages").is_dir() and (path / LISTS).is_dir():
            return path
    return None


def _list(folder: Path, names: tuple[str, ...], split: str, labels: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    there = ", ".join(sorted(path.name for path in folder.glob("*.txt"))[:8]) or "no lists"
    own = f"; it is not of the official release, but comes with {labels}/" if labels.endswith("Aug") else ""
    raise DataError(f"voc2012: split {split} needs {' or '.join(names)} in {folder}, which holds {there}{own}")
