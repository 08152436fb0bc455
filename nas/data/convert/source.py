"""What the readers of the formats share: images by name, entries of JSON, and what they return."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.base import DataError
from nas.data.convert.shapes import Notes, Size
from nas.data.readers.listing import list_files
from nas.data.readers.reading import IMAGE_SUFFIXES
from search_spaces.validation import short

__all__ = ["FOLDERS", "Images", "Picture", "Source", "color_of", "entry", "has_area", "inside"]

FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages"})
"""Usual names of folders of images, in lower case."""

Color = tuple[int, int, int]

_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}
_WITHOUT_AREA = frozenset({"point", "points", "graph", "tag", "cuboid", "skeleton"})


@dataclass(frozen=True)
class Picture:
    """An image and its label."""

    image: Path
    place: str
    """The file with the label, for messages."""
    size: Size | None
    """Of the image, as the annotations say."""
    label: Callable[[Size, Mapping[str, int], int, Notes], NDArray[np.uint8]]
    """Called as label(size, ids, rest, notes): see `nas.data.convert.shapes.paint`."""


@dataclass
class Source:
    """What a format's reader has found."""

    classes: dict[str, Color | None] = field(default_factory=dict)
    """In the order of the ids, with colours where there are some."""
    pictures: list[Picture] = field(default_factory=list)
    complete: bool = False
    """Every pixel has its class: there is no background besides."""
    finish: Callable[[], None] = lambda: None
    """Raises a DataError about what all labels together were found to hold."""


class Images:
    """The images below a folder, SOURCE's if it is None, found by the names that annotations give them."""

    def __init__(self, source: Path, folder: Path | None, notes: Notes) -> None:
        self.root = source if source.is_dir() else source.parent
        self.folder, self._notes = folder or self.root, notes
        self.left = dict.fromkeys(list_files(self.folder, IMAGE_SUFFIXES)[0])
        """Images that nothing has asked for."""
        self._lacking: list[str] = notes[f"labelled images that are not in {self.folder}, left out"]
        self._named: dict[str, list[Path]] = defaultdict(list)
        for path in self.left:
            self._named[_parts(path.name)[-1]].append(path)

    def find(self, name: str, place: str) -> Path | None:
        """The image whose path ends most like this name: its folder may be another where the labels were made.

        Returns:
            The path, or None if there is no file of this name.

        Raises:
            DataError: Two images fit as well, or the image has a label already.
        """
        parts = _parts(name.replace("\\", "/"))
        alike: dict[tuple[int, bool], list[Path]] = defaultdict(list)
        for path in self._named.get(parts[-1] if parts else "", []):
            own = _parts(path.relative_to(self.folder).as_posix())
            same = [one == other for one, other in zip(reversed(own), reversed(parts), strict=False)]
            alike[(*same, False).index(False), own == parts].append(path)
        if not alike:
            self._lacking.append(name)
            return None
        found, *others = alike[max(alike)]
        if others:
            raise DataError(
                f"{place}: the image {short(name)} may be {found} or {others[0]}: name a folder by --images"
            )
        if found not in self.left:
            raise DataError(f"{place}: {found} has a label already: keep one of them")
        del self.left[found]
        return found

    def check(self, found: Collection[Picture]) -> None:
        """Note the images without a label; raise a DataError if none has one."""
        if not found:
            if self._lacking:
                raise DataError(
                    f"{self._lacking[0]} is not in {self.folder}: name the folder of the images by --images"
                )
            raise DataError(f"{self.root} holds no annotations of this format: give another --format, or auto")
        self._notes["images without a label, left out"] = [str(path.relative_to(self.folder)) for path in self.left]


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(unicodedata.normalize("NFC", name)).parts


def inside(source: str, name: str) -> Path:
    """A folder that the user names: in SOURCE, or anywhere.

    Raises:
        DataError: There is none.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    found = next((path for path in (root / name, Path(name)) if path.is_dir()), None)
    if found is None:
        raise DataError(f"there is no folder {name}, in {source} or here")
    return found


def entry(data: Any, key: str, kind: type, place: str, default: Any = None) -> Any:
    """The value of a key, of this kind.

    Raises:
        DataError: It is not; or it is missing, and there is no default.
    """
    value = data.get(key, default) if isinstance(data, dict) else None
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    what = f"{key} is missing" if value is None else f"{key} is {short(value)}"
    raise DataError(f"{place}: {what}: expected {_KINDS[kind]}")


def has_area(kind: str, kinds: Collection[str], place: str, notes: Notes) -> bool:
    """Whether a shape covers pixels; points, tags and the like are noted.

    Raises:
        DataError: It is neither of them nor of one of these kinds.
    """
    if kind not in kinds and kind not in _WITHOUT_AREA:
        raise DataError(f"{place} is of the kind {short(kind)}: expected one of {', '.join(sorted(kinds))}")
    if kind in _WITHOUT_AREA:
        notes["points, tags and the like, left out"].append(f"{place} ({kind})")
    return kind in kinds


def color_of(text: object) -> Color | None:
    """The colour of #rrggbb; None if it is anything else."""
    if not isinstance(text, str) or not re.fullmatch("#[0-9a-fA-F]{6}", text):
        return None
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
