"""A user's own data set: two folders of files and a list of classes.

    ROOT/images/SPLIT/NAME.jpg, .png, .tif, ...    whatever Pillow reads
    ROOT/labels/SPLIT/NAME.png                     class ids, greyscale or palette; 255 = ignored
    ROOT/classes.txt or ROOT/classes.json          see `nas.data.readers.classes.read_class_file`

Images and labels may lie in subfolders, the same for both. Images may differ in size; there may be 2 to 255 classes
(ids 0..254).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nas.config import LabelIds
from nas.data.base import IGNORE, DataError, register_dataset
from nas.data.readers.classes import read_class_file
from nas.data.readers.pairs import PairedDataset, check_root, find_pairs, has_folders

__all__ = ["Folder", "class_ids"]


def class_ids(ids: LabelIds, classes: int) -> dict[int, int]:
    """The class id, or `IGNORE`, of each value that label files may hold.

    Args:
        ids: As `nas.config.LoaderConfig.ids`.
        classes: Number of classes.

    Raises:
        DataError: A value stands for a class that there is not, or none stands for a class.
    """
    if ids is None or isinstance(ids, str):
        first = {0: IGNORE} if ids == "zero-ignored" else {}
        ids = {**first, **{number + (ids is not None): number for number in range(classes)}}
    for value, number in ids.items():
        if number != IGNORE and not 0 <= number < classes:
            raise DataError(f"loader.ids maps {value} to {number}: give an id from 0 to {classes - 1}, or {IGNORE}")
    missing = sorted(set(range(classes)).difference(ids.values()))
    if missing:
        raise DataError(f"loader.ids maps no value to class {missing[0]}: give one for each of 0 to {classes - 1}")
    return {IGNORE: IGNORE, **ids}


def find_splits(root: Path) -> tuple[str, ...]:
    """Folders in `images` or `labels`: train, val and test first, then the others by name."""
    found = {
        path.name
        for folder in (root / "images", root / "labels")
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    }
    usual = [split for split in ("train", "val", "test") if split in found]
    return (*usual, *sorted(found.difference(usual)))


@register_dataset(
    "folder",
    needs_root=True,
    summary="your own images and labels in folders, with a list of classes",
    splits=find_splits,
)
class Folder(PairedDataset):
    """A user-made data set, sorted by name.

    Args:
        root: Folder with `images`, `labels` and the class file.
        split: Name of a folder in both `images` and `labels`.
        video: The files, sorted by name, are video frames.
        ids: What the values in label files stand for.

    Raises:
        DataError: The root, the class file or the split are not as expected, or files do not pair up.
    """

    def __init__(self, root: Path, split: str, video: bool = False, ids: LabelIds = None) -> None:
        check_root(
            "folder",
            root,
            has_folders("images", "labels"),
            "images/SPLIT/, labels/SPLIT/ and classes.txt or classes.json",
        )
        files = [path for path in (root / "classes.txt", root / "classes.json") if path.is_file()]
        if not files:
            lists = sorted(path for path in root.iterdir() if path.suffix.lower() in (".txt", ".csv", ".json"))
            raise DataError(
                f"folder: {root} holds no classes.txt; expected one class name a line (or 'name R G B'), "
                "in the order of the ids, or the same as classes.json"
                + (f"; if {lists[0].name} is that list, rename it" if lists else "")
            )
        if len(files) > 1:
            raise DataError(f"folder: {root} holds classes.txt and classes.json; keep one of them")
        names, colors = read_class_file(files[0])
        splits = sorted(path.name for path in (root / "images").iterdir() if path.is_dir())
        if split not in splits:
            raise DataError(
                f"folder: there is no split {split!r} in {root / 'images'}; "
                + (f"choose one of {', '.join(splits)}" if splits else "expected a folder per split, such as train/")
            )
        pairs, unread = find_pairs("folder", root / "images" / split, root / "labels" / split)
        for folder in (root / "images", root / "labels"):
            unread += sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        table = class_ids(ids, len(names))
        super().__init__("folder", split, names, colors, pairs, ids=table, video=video, unread=unread)

    def expected_values(self, found: Iterable[int] = ()) -> str:
        first, count = min(self.ids), len(self.classes)
        if first == 0 and count in found:
            hint = "; if 1 is the first class, give --loader.ids one-based, or zero-ignored where 0 is to be ignored"
        elif first == 1 and 0 in found:
            hint = "; where 0 is to be ignored, give --loader.ids zero-ignored"
        else:
            hint = "; for other values give --loader.ids, such as '{0: 0, 128: 1}'"
        return super().expected_values(found) + hint
