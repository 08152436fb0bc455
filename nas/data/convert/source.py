"""What the readers of the formats have in common: files, images by name, entries of JSON, and what they return."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.base import DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import Notes, Shape, Size, paint
from nas.data.readers.listing import list_files
from nas.data.readers.reading import IMAGE_SUFFIXES
from search_spaces.files import parse_json
from search_spaces.validation import raised_as, short

__all__ = [
    "FOLDERS",
    "Images",
    "Picture",
    "Source",
    "documents",
    "entry",
    "has_area",
    "hexadecimal",
    "inside",
    "load_json",
    "shape_label",
]

FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages"})
"""Usual names of folders of images, in lower case."""

Color = tuple[int, int, int]

LabelOf = Callable[[Size, Mapping[str, int], int, Notes], NDArray[np.uint8]]
"""Called as label(size, ids, rest, notes): see `nas.data.convert.shapes.paint`."""

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
    label: LabelOf


@dataclass
class Source:
    """What a format's reader has found."""

    classes: dict[str, Color | None] = field(default_factory=dict)
    """In the order of the ids, with colours where there are some."""
    pictures: list[Picture] = field(default_factory=list)
    complete: bool = False
    """Every pixel has its class: there is no background besides."""
    finish: Callable[[], None] = lambda: None
    """Raises a DataError about all that the labels were found to hold."""


def shape_label(shapes: list[Shape], place: str, by_area: bool = False) -> LabelOf:
    """The label of an image with these shapes."""

    def label(size: Size, ids: Mapping[str, int], rest: int, notes: Notes) -> NDArray[np.uint8]:
        if not shapes:
            notes.setdefault("images have no shape: all of them is background, or ignored", []).append(place)
        return paint(shapes, size, ids, rest, notes, by_area)

    return label


class Images:
    """The images below a folder, found by the names that annotations give them."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self.folder, self._notes = folder, notes
        self.left = dict.fromkeys(list_files(folder, IMAGE_SUFFIXES)[0])
        """Images that nothing has asked for."""
        self.found = 0
        self._named: dict[str, list[Path]] = defaultdict(list)
        for path in self.left:
            self._named[_normal(path.name)].append(path)
        self._lacking: list[str] = self._notes.setdefault(f"images that are labelled are not in {folder}", [])

    def find(self, name: str, place: str) -> Path | None:
        """The image whose path ends most like this name: folders may be others where the labels were made.

        Returns:
            The path, or None if there is no file of this name.

        Raises:
            DataError: Two images fit as well, or the image has a label already.
        """
        parts = PurePosixPath(_normal(name).replace("\\", "/")).parts
        alike: dict[tuple[int, bool], list[Path]] = defaultdict(list)
        for path in self._named.get(parts[-1] if parts else "", []):
            own = PurePosixPath(_normal(path.relative_to(self.folder).as_posix())).parts
            same = [one == other for one, other in zip(reversed(own), reversed(parts), strict=False)]
            alike[(*same, False).index(False), own == parts].append(path)
        if not alike:
            self._lacking.append(name)
            return None
        best = alike[max(alike)]
        if len(best) > 1:
            raise DataError(
                f"{place}: the image {short(name)} may be {best[0]} or {best[1]}: name their folder by --images"
            )
        if best[0] not in self.left:
            raise DataError(f"{place}: {best[0]} has a label already: keep one of them")
        del self.left[best[0]]
        self.found += 1
        return best[0]

    def check(self) -> None:
        """Note the images without a label.

        Raises:
            DataError: None has one.
        """
        if not self.found:
            what = f"{self._lacking[0]} is not in {self.folder}" if self._lacking else "no image has a label"
            raise DataError(f"{what}: name the folder of the images by --images")
        if self.left:
            names = [str(path.relative_to(self.folder)) for path in self.left]
            self._notes["images have no label, and are left out"] = names


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


@lru_cache(maxsize=1)  # a file is looked at to find its format, and read next
def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It cannot be read.
    """
    with raised_as(DataError, f"{path} cannot be read as JSON: "):
        return parse_json(path.read_text(encoding="utf-8-sig"))


def documents(
    config: ConvertConfig, keys: Collection[str], notes: Notes, besides: str = ""
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Read the JSON files at SOURCE that have these keys; note the others, except those with the name `besides`."""
    source = Path(config.source)
    for path in list_files(source, {".json"})[0] if source.is_dir() else [source]:
        data = load_json(path)
        if isinstance(data, dict) and data.keys() >= set(keys):
            yield path, data
        elif path.name != besides:
            notes.setdefault("JSON files are of another format, and are left out", []).append(str(path))


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
        notes.setdefault("shapes of a kind without area, and tags, are left out", []).append(f"{place} ({kind})")
    return kind in kinds


def hexadecimal(text: object) -> Color | None:
    """The colour of #rrggbb; None if it is anything else."""
    match = re.fullmatch("#([0-9a-fA-F]{6})", text) if isinstance(text, str) else None
    if match is None:
        return None
    red, green, blue = bytes.fromhex(match[1])
    return red, green, blue


def inside(source: str, name: str | None) -> Path | None:
    """A folder that the user names, as it is or in SOURCE; None if none is named.

    Raises:
        DataError: There is none, or one in both places.
    """
    if name is None:
        return None
    found = [path for path in (Path(name), Path(source) / name) if path.is_dir()]
    if len({path.resolve() for path in found}) != 1:
        raise DataError(
            f"{found[0]} and {found[1]} are both there: give the whole path"
            if found
            else f"there is no folder {name}, here or in {source}"
        )
    return found[0]
