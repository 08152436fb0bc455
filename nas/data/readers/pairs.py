"""Data sets of image and label files: finding the pairs and reading them.

Pairing is checked when a data set is opened (one listing per folder), content when a sample is read. Every error is one
line that names the file. Shapes: image uint8 [H, W, 3], label uint8 [H, W].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.data.base import IGNORE, DataError, Sample, SegmentationDataset, file_state
from nas.data.readers.classes import default_colors
from nas.data.readers.listing import by_stem, listed, subfolders
from nas.data.readers.reading import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    read_header,
    read_image,
    read_label,
    read_palette,
)

__all__ = [
    "LoneFile",
    "Pair",
    "PairedDataset",
    "SizesDiffer",
    "check_root",
    "collecting",
    "find_pairs",
    "left_out",
    "listed_pairs",
    "pair_up",
    "parts_of_split",
]

_UNKNOWN = -1
"""In place of the class id of a value that is unknown."""


@dataclass(frozen=True)
class Pair:
    """An image file and its label file."""

    name: str
    image: Path
    label: Path


def check_root(name: str, root: Path, fits: Callable[[Path], bool], expected: str) -> None:
    """Check that a root folder exists and has the expected layout.

    Args:
        name: Name of the data set, for the message.
        root: The folder that the user named.
        fits: Whether a folder has the expected layout.
        expected: The layout in words, for the message.

    Raises:
        DataError: It does not; the message suggests a subfolder or one of the two folders above if that has the layout.
    """
    if not root.exists():
        raise DataError(f"{name}: the root folder {root} does not exist; expected a folder with {expected}")
    if not root.is_dir():
        raise DataError(f"{name}: the root {root} is a file; expected a folder with {expected}")
    if fits(root):
        return
    folders = subfolders(root)
    near = [path for path in (*folders, *root.resolve().parents[:2]) if fits(path)]
    hint = f"; that is the layout of {near[0]}: give this as the root" if near else ""
    raise DataError(f"{name}: {root} holds {listed(folders, root)}; expected {expected}{hint}")


Part = TypeVar("Part")


def parts_of_split(name: str, splits: Mapping[str, Part], split: str) -> Part:
    """Look up a split in the table of a data set's splits.

    Raises:
        DataError: There is no such split; the message lists them.
    """
    if split not in splits:
        raise DataError(f"{name}: there is no split {split!r}; choose one of {', '.join(splits)}")
    return splits[split]


def has_folders(*names: str) -> Callable[[Path], bool]:
    """A `fits` of `check_root`: whether a folder has these subfolders."""
    return lambda path: all((path / name).is_dir() for name in names)


def splits_with(**folders: str) -> Callable[[Path], tuple[str, ...]]:
    """A `DatasetEntry.splits`: the splits whose folder, below the root, exists."""
    return lambda root: tuple(split for split, folder in folders.items() if (root / folder).is_dir())


def find_pairs(name: str, image_folder: Path, label_folder: Path) -> tuple[list[Pair], list[Path]]:
    """Pair images and labels, also in subfolders, by path and stem, sorted by name.

    Returns:
        The pairs, and files with extensions outside `IMAGE_SUFFIXES` and `LABEL_SUFFIXES`, which are not read.

    Raises:
        DataError: A folder is missing or has no such file, a name occurs twice, or a partner is missing.
    """
    images = by_stem(name, "image", image_folder, IMAGE_SUFFIXES)
    labels = by_stem(name, "label", label_folder, LABEL_SUFFIXES)
    pairs = pair_up(
        name,
        images.files,
        labels.files,
        lambda image: f"{(label_folder / image.relative_to(image_folder)).with_suffix('.png')}",
        lambda label: f"{(image_folder / label.relative_to(label_folder)).with_suffix('')} with an image extension",
    )
    return pairs, images.unread + labels.unread


def pair_up(
    name: str,
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    label_of: Callable[[Path], str],
    image_of: Callable[[Path], str],
) -> list[Pair]:
    """Pair images and labels by name, sorted by name.

    Args:
        name: Name of the data set, for messages.
        images: Image files by name.
        labels: Label files by name.
        label_of: Expected place of an image's label, for messages.
        image_of: Expected place of a label's image, for messages.

    Raises:
        DataError: A partner is missing; the message names a file whose name differs in case only.
    """
    both = images.keys() & labels.keys()
    for kind, have, other, partner in (("label", images, labels, label_of), ("image", labels, images, image_of)):
        near = {stem.casefold(): f"{path} differs in case only: rename one" for stem, path in other.items()}
        lone = [
            LoneFile(path, f"{path} has no {kind}", f"; {near.get(stem.casefold()) or f'expected {partner(path)}'}")
            for stem, path in sorted(have.items())
            if stem not in other
        ]
        if lone and not (both and left_out(lone)):
            more = f" (and {len(lone) - 1} more files without one)" if len(lone) > 1 else ""
            raise DataError(f"{name}: {lone[0].missing}{more}{lone[0].expected}")
    return [Pair(stem, images[stem], labels[stem]) for stem in sorted(both)]


def listed_pairs(
    name: str,
    file: Path,
    names: Sequence[str],
    images: tuple[Path, Mapping[str, Path]],
    labels: tuple[Path, Mapping[str, Path]],
) -> list[Pair]:
    """Pair the samples of a list, in its order; files that it does not name are ignored.

    Args:
        name: Name of the data set, for messages.
        file: The list, for messages.
        names: Names of the samples in the list.
        images: Folder, for messages, and image files by name.
        labels: Folder, for messages, and label files by name.

    Raises:
        DataError: The list is empty, or names a sample twice or one that does not exist.
    """
    if not names:
        raise DataError(f"{name}: {file} names no sample of this split; expected one per line")
    twice = [sample for sample, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{name}: {file} names {twice[0]} more than once")
    both = [sample for sample in names if sample in images[1] and sample in labels[1]]
    for kind, (folder, files) in (("image", images), ("label", labels)):
        lone = [
            LoneFile(file, f"{file} names {sample}, which has no {kind} in {folder}", "")
            for sample in names
            if sample not in files
        ]
        if lone and not (both and left_out(lone)):
            more = f", and {len(lone) - 1} more without one" if len(lone) > 1 else ""
            raise DataError(f"{name}: {lone[0].missing}{more}")
    return [Pair(sample, images[1][sample], labels[1][sample]) for sample in both]


class SizesDiffer(DataError):
    """A label and its image differ in size."""


def _same(classes: int) -> dict[int, int]:
    """Class ids of label files that hold class ids, and 255 for `IGNORE`."""
    return {**{number: number for number in range(classes)}, IGNORE: IGNORE}


class PairedDataset(SegmentationDataset):
    """A data set of image and label files.

    Args:
        name: Name of the data set.
        split: Name of the split.
        classes: Class names, 1 to 255 of them.
        colors: uint8 [classes, 3].
        pairs: The files, in order.
        ids: Class id or `IGNORE` of each value in the label files; other values are errors. None if the files hold
            class ids, and 255 for `IGNORE`.
        video: Neighbouring samples are correlated frames.
        unread: Files next to those of the pairs that are not read.
    """

    large = False
    """Whether images may be of any size: only where windows of them are predicted."""

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
        unread: Sequence[Path] = (),
    ) -> None:
        self.name = name
        self.split = split
        self.classes = tuple(classes)
        self.colors = colors
        self.video = video
        self.unread = unread
        self.pairs = pairs
        self.ids = _same(len(self.classes)) if ids is None else ids
        self._table = np.full(max(self.ids) + 2, _UNKNOWN, dtype=np.int32)  # the last entry is for all larger values
        self._table[list(self.ids)] = list(self.ids.values())

    def __len__(self) -> int:
        return len(self.pairs)

    def sample_name(self, index: int) -> str:
        return self.pairs[index].name

    def where(self, index: int) -> str:
        return str(self.pairs[index].image)

    def identity(self, index: int) -> list[Any]:
        own = [*file_state(self.pairs[index].label), sorted(self.ids.items())]
        return [*super().identity(index), *own, self.images.channels, self.images.exif]

    def read(self, index: int) -> Sample:
        pair = self.pairs[index]
        values = self.read_values(index)
        image = self.fitted(read_image(pair.image, self.images, self.large), (values.shape[0], values.shape[1]))
        if values.shape != image.shape[:2]:
            raise SizesDiffer(
                f"label {pair.label} is {values.shape[1]}x{values.shape[0]} but its image {pair.image} is "
                f"{image.shape[1]}x{image.shape[0]} (width x height); {self._remedy(pair.image, image, values)}"
            )
        return image, self._ids(index, values)

    def read_ids(self, index: int) -> NDArray[np.uint8]:
        """Read the label of a sample without its image.

        Raises:
            DataError: The file cannot be read, or holds values that stand for nothing.
        """
        return self._ids(index, self.read_values(index))

    def _ids(self, index: int, values: NDArray[np.int32]) -> NDArray[np.uint8]:
        label = self._classes(values)
        wrong = _counts(values[label == _UNKNOWN])
        if wrong:
            shown = ", ".join(f"{value} ({count} pixels)" for value, count in list(wrong.items())[:5])
            more = f" and {len(wrong) - 5} more values" if len(wrong) > 5 else ""
            raise DataError(
                f"label {self.pairs[index].label} holds ids outside the {len(self.classes)} classes: {shown}{more}; "
                f"expected {self.expected_values(wrong)}"
            )
        return label.astype(np.uint8)

    def _remedy(self, file: Path, image: NDArray[Any], values: NDArray[np.int32]) -> str:
        """What to do about a label of another size than its image."""
        orientation = read_header(file)[1]
        if orientation < 5 or image.shape[1::-1] != values.shape:  # EXIF exchanges the sides from 5 on
            return "they must be the same size"
        turned = self.images.exif == "turn"
        return (
            f"the image has orientation {orientation}; {'turned' if turned else 'as stored'}, it is "
            f"{image.shape[1]}x{image.shape[0]} as its label is not: give --loader.exif "
            + ("ignore if labels were drawn on unturned pixels" if turned else "turn")
        )

    def palette_conflict(self, index: int) -> str:
        """Tell, in one line, of a colour in a label file's palette that contradicts the class file; empty if none does.

        A grey palette says nothing, and neither do classes with a default colour.

        Raises:
            DataError: The file cannot be read.
        """
        label = self.pairs[index].label
        palette = read_palette(label) if self.ids == _same(len(self.classes)) else None
        if palette is None or (palette == palette[:, :1]).all():
            return ""
        usual = default_colors(len(self.classes))
        for number in np.intersect1d(self.read_values(index), range(len(usual))).tolist():
            stated, drawn = self.colors[number].tolist(), palette[number].tolist()
            if drawn != stated != usual[number].tolist():
                return (
                    f"the palette of label {label} has the colour {drawn} for {number}, but the class file {stated} "
                    f"({self.classes[number]}): are the classes in another order?"
                )
        return ""

    def read_values(self, index: int) -> NDArray[np.int32]:
        """Read the values in the label file of a sample, int32 [H, W], unchecked.

        Raises:
            DataError: The file cannot be read.
        """
        return read_label(self.pairs[index].label, self.large)

    def fitted(self, image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        """The image, resized to the label's size (height, width) if that differs in this data set."""
        return image

    def unknown_values(self, index: int) -> dict[int, int]:
        """Count the pixels of each unknown value in the label file of a sample.

        Raises:
            DataError: The file cannot be read.
        """
        values = self.read_values(index)
        return _counts(values[self._classes(values) == _UNKNOWN])

    def _classes(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        """Class ids, `IGNORE` and _UNKNOWN for the values of a label file."""
        return self._table[np.where(values < 0, len(self._table) - 1, np.minimum(values, len(self._table) - 1))]

    def expected_values(self, found: Iterable[int] = ()) -> str:
        """Values that label files may hold, in words, given others that were found."""
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


@dataclass(frozen=True)
class LoneFile:
    """An image without a label, or a label without an image."""

    path: Path

    missing: str
    """Message that names the file and the missing partner."""
    expected: str
    """End of the message: the expected place of the partner."""


_found: ContextVar[list[LoneFile] | None] = ContextVar("_found", default=None)


@contextmanager
def collecting() -> Iterator[list[LoneFile]]:
    """Leave files without a partner out of the data sets opened in this context, and list them.

    Elsewhere they are errors: a run must stop, because they may come from an interrupted copy.
    """
    found: list[LoneFile] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def left_out(files: Iterable[LoneFile]) -> bool:
    """Record files without a partner and return True inside `collecting`; elsewhere return False."""
    found = _found.get()
    if found is not None:
        found.extend(files)
    return found is not None
