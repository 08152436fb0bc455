"""What data sets of image and label files share: find the pairs, read them, check them.

Pairing is checked when a data set is opened (a listing per folder), content when a sample is read. Every
error is one line that names the file. Shapes: image uint8 [H, W, 3], label uint8 [H, W].
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nas.data.base import IGNORE, DataError, Sample, SegmentationDataset, file_state

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "Pair",
    "PairedDataset",
    "check_root",
    "find_pairs",
    "read_image",
]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
LABEL_SUFFIXES = (".png",)

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for files that it cannot decode."""

_EXPANDED = {"L;2": 85, "L;4": 17}
"""Pillow stretches greyscale of 2 and 4 bits to 0..255; ids are got back by dividing."""


_UNKNOWN = -1
"""In place of a class id, where a value in a label file stands for nothing."""


@dataclass(frozen=True)
class Pair:
    """An image file and its label file."""

    name: str
    image: Path
    label: Path


def check_root(name: str, root: Path, fits: Callable[[Path], bool], expected: str) -> None:
    """Check that a root folder exists and is laid out as expected.

    Args:
        name: Name of the data set, for the message.
        root: The folder that the user named.
        fits: Whether a folder has the expected layout.
        expected: The layout in words, for the message.

    Raises:
        DataError: It does not; where the expected layout is one level deeper or higher, the message says so.
    """
    if not root.exists():
        raise DataError(f"{name}: the root folder {root} does not exist; expected a folder with {expected}")
    if not root.is_dir():
        raise DataError(f"{name}: the root {root} is a file; expected a folder with {expected}")
    if fits(root):
        return
    folders = _folders(root)
    near = [path for path in (*folders, root.resolve().parent) if fits(path)]
    hint = f"; that is the layout of {near[0]}: give this as the root" if near else ""
    raise DataError(f"{name}: {root} holds {_listed(folders)}; expected {expected}{hint}")


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listed(folders: list[Path]) -> str:
    shown = ", ".join(f"{path.name}/" for path in folders[:8])
    return shown + (", ..." if len(folders) > 8 else "") or "no folders"


def find_pairs(name: str, image_folder: Path, label_folder: Path) -> list[Pair]:
    """Pair images and labels by stem, sorted by name.

    Hidden files and files with other extensions are passed over.

    Args:
        name: Name of the data set, for messages.
        image_folder: Folder with images (:data:`IMAGE_SUFFIXES`).
        label_folder: Folder with labels (:data:`LABEL_SUFFIXES`).

    Raises:
        DataError: A folder is missing or has no such file, a stem occurs twice, or a partner is missing.
    """
    images = _by_stem(name, "image", image_folder, IMAGE_SUFFIXES)
    labels = _by_stem(name, "label", label_folder, LABEL_SUFFIXES)
    for kind, have, other, folder in (
        ("label", images, labels, label_folder),
        ("image", labels, images, image_folder),
    ):
        lone = sorted(set(have) - set(other))
        if lone:
            more = f" (and {len(lone) - 1} more files without one)" if len(lone) > 1 else ""
            raise DataError(
                f"{name}: {have[lone[0]]} has no {kind}{more}; expected {folder / lone[0]}"
                f"{'.png' if kind == 'label' else ' with an image extension'}"
            )
    return [Pair(stem, images[stem], labels[stem]) for stem in sorted(images)]


def _by_stem(name: str, kind: str, folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        parent = folder.parent
        there = _listed(_folders(parent))
        raise DataError(f"{name}: the {kind} folder {folder} does not exist; {parent} holds {there}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes:
            continue
        if path.stem in files:
            raise DataError(f"{name}: {files[path.stem]} and {path} share one name; keep one of them")
        files[path.stem] = path
    if not files:
        raise DataError(f"{name}: {folder} holds no {kind} files; expected {', '.join(suffixes)}")
    return files


def read_image(path: Path, upright: bool = False) -> NDArray[np.uint8]:
    """Read an image as RGB.

    Args:
        path: The file.
        upright: Turn it as its EXIF says, as viewers do; labels lie over the pixels as they are stored.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: The file is missing, broken, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"image {path} has more than 8 bits per channel ({image.mode}): convert it to 8 bits")
            turned: Image.Image = ImageOps.exif_transpose(image) if upright else image
            if turned.mode == "P" and "transparency" in turned.info:
                turned = turned.convert("RGBA")  # Pillow would warn
            return np.array(turned.convert("RGB"), dtype=np.uint8)
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"image {path} cannot be read: {_one_line(error)}") from error


def read_label(path: Path) -> NDArray[np.int32]:
    """Read the ids in a label file: greyscale or palette, 1 to 16 bits.

    Returns:
        int32 [H, W], unchecked.

    Raises:
        DataError: The file is missing, broken, or holds colours instead of ids.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
                raise DataError(
                    f"label {path} holds colours ({image.mode}); expected one class id per pixel, "
                    "as a greyscale or palette PNG: convert colours to ids"
                )
            tile = image.tile[0] if image.tile else None
            factor = _EXPANDED.get(str(tile[3]), 1) if tile is not None and image.mode == "L" else 1
            return np.array(image).astype(np.int32) // factor
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"label {path} cannot be read: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class PairedDataset(SegmentationDataset):
    """A data set of image and label files.

    Args:
        name: Name of the data set.
        split: Name of the split.
        classes: Class names, 1 to 255 of them.
        colors: uint8 [classes, 3].
        pairs: The files, in order.
        ids: What each value in the label files stands for: a class id or :data:`IGNORE`; every other value is an error.
            None: the class ids themselves, and 255 for :data:`IGNORE`.
        video: Neighbouring samples are correlated frames.
    """

    def __init__(
        self,
        name: str,
        split: str,
        classes: Iterable[str],
        colors: NDArray[np.uint8],
        pairs: list[Pair],
        *,
        ids: Mapping[int, int] | None = None,
        video: bool = False,
    ) -> None:
        self.name = name
        self.split = split
        self.classes = tuple(classes)
        self.colors = colors
        self.video = video
        self.pairs = pairs
        self.ids = {**{number: number for number in range(len(self.classes))}, IGNORE: IGNORE} if ids is None else ids
        self._table = np.full(max(self.ids) + 2, _UNKNOWN, dtype=np.int32)  # the last entry is for all larger values
        self._table[list(self.ids)] = list(self.ids.values())

    def __len__(self) -> int:
        return len(self.pairs)

    def sample_name(self, index: int) -> str:
        return self.pairs[index].name

    def where(self, index: int) -> str:
        return str(self.pairs[index].image)

    def identity(self, index: int) -> list[Any]:
        return [*super().identity(index), *file_state(self.pairs[index].label), sorted(self.ids.items())]

    def read(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_image(pair.image)
        values = read_label(pair.label)
        if values.shape != image.shape[:2]:
            raise DataError(
                f"label {pair.label} is {values.shape[1]}x{values.shape[0]} but its image {pair.image} is "
                f"{image.shape[1]}x{image.shape[0]} (width x height); they must be the same size"
            )
        label = self._classes(values)
        wrong = _counts(values[label == _UNKNOWN])
        if wrong:
            shown = ", ".join(f"{value} ({count} pixels)" for value, count in list(wrong.items())[:5])
            more = f" and {len(wrong) - 5} more values" if len(wrong) > 5 else ""
            raise DataError(
                f"label {pair.label} holds ids outside the {len(self.classes)} classes: {shown}{more}; "
                f"expected {self._expected()}"
            )
        return image, label.astype(np.uint8)

    def unknown_values(self, index: int) -> dict[int, int]:
        """Values in the label file of a sample that stand neither for a class nor for :data:`IGNORE`, and their pixels.

        Raises:
            DataError: The file cannot be read.
        """
        values = read_label(self.pairs[index].label)
        return _counts(values[self._classes(values) == _UNKNOWN])

    def _classes(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        """Class ids, :data:`IGNORE` and _UNKNOWN for values of a label file; same shape."""
        return self._table[np.where(values < 0, len(self._table) - 1, np.minimum(values, len(self._table) - 1))]

    def _expected(self) -> str:
        ignored = {value for value, stands_for in self.ids.items() if stands_for == IGNORE}
        return f"{_ranges(self.ids.keys() - ignored)}, or {_ranges(ignored)} for pixels to ignore"


def _counts(values: NDArray[np.int32]) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))


def _ranges(numbers: Iterable[int]) -> str:
    """Whole numbers as text, neighbours together: "0..10, 255"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in runs)
