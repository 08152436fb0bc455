"""Masks: a picture of the classes for each image, in colours, in ids, or in 0 and 255."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.base import IGNORE, DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import Notes, Size
from nas.data.convert.source import FOLDERS, Images, Picture, Source, inside
from nas.data.readers.classes import class_colors, read_class_file
from nas.data.readers.listing import list_files
from nas.data.readers.reading import IMAGE_SUFFIXES, read_image, read_label
from search_spaces.validation import counted

__all__ = ["read"]

MASK_FOLDERS = frozenset({"masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentationclass"})
"""Usual names of folders of masks, in lower case."""
SUFFIX = "_mask"
SHOWN = 8
"""Most colours and values in a message."""


def read(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Pair images and masks by name, and find out what the masks hold.

    With colours in the file of --colors, masks are colours; without, ids, or 0 and 255 for two classes.

    Raises:
        DataError: No image has a mask, or masks hold values that stand for no class.
    """
    pairs = _pairs(config, images, notes)
    file = None if config.colors is None else Path(config.colors)
    names = read_class_file(file)[0] if file else ()
    if file and (table := class_colors(file)):
        by_color = _ByColor(table, config)
        source = Source(dict.fromkeys(names), complete=True, finish=by_color.check)
        source.pictures = [Picture(image, str(mask), None, partial(by_color.label, mask)) for image, mask in pairs]
        return source
    names, ids = _meaning([mask for _, mask in pairs], names, notes)
    source = Source(dict.fromkeys(names), complete=True)
    source.pictures = [Picture(image, str(mask), None, partial(_by_id, mask, ids)) for image, mask in pairs]
    return source


def _pairs(config: ConvertConfig, images: Images, notes: Notes) -> list[tuple[Path, Path]]:
    """Pair by the path without the names of usual folders and without the suffix of masks."""
    suffix = config.suffix or SUFFIX
    folder = inside(config.source, config.masks) if config.masks else Path(config.source)

    def key(path: Path, folder: Path) -> tuple[str, ...]:
        *folders, _ = path.relative_to(folder).parts
        return (*(name for name in folders if name.lower() not in FOLDERS | MASK_FOLDERS), path.stem)

    def is_mask(path: Path) -> bool:
        folders = {name.lower() for name in path.relative_to(folder).parts[:-1]}
        return config.masks is not None or bool(folders & MASK_FOLDERS) or path.stem.endswith(suffix)

    masks = [path for path in list_files(folder, IMAGE_SUFFIXES)[0] if is_mask(path)]
    for mask in masks:
        images.left.pop(mask, None)
    left: dict[tuple[str, ...], Path] = {}
    for image in images.left:
        if (other := left.setdefault(key(image, images.folder), image)) != image:
            raise DataError(
                f"{other} and {image} share one name: keep one, or name the folders by --images and --masks"
            )
    pairs: dict[Path, Path] = {}
    for mask in masks:
        *folders, stem = key(mask, folder)
        found = left.get((*folders, stem)) or left.get((*folders, stem.removesuffix(suffix)))
        if found is None:
            notes["masks without an image, left out"].append(str(mask))
        elif (other := pairs.setdefault(found, mask)) != mask:
            raise DataError(f"{other} and {mask} are both masks of {found}: keep one of them")
    if not pairs:
        what = (
            f"{counted(len(left), 'image')} and {counted(len(masks), 'mask')} at {config.source} have no name in common"
        )
        raise DataError(f"{what}: give the folders by --images and --masks, or the end of masks' names by --suffix")
    for image in pairs:
        del images.left[image]
    return list(pairs.items())


class _ByColor:
    """The labels in masks of colours; counts the colours that stand for no class.

    Args:
        table: The id, or `IGNORE`, of each colour.
        config: The settings; `nearest` is the distance in RGB up to which a colour is taken for one of the table.
    """

    def __init__(self, table: Mapping[tuple[int, int, int], int], config: ConvertConfig) -> None:
        self._colors, self._ids = np.array(list(table)), np.array(list(table.values()), dtype=np.uint8)
        self._config = config
        self._unknown: Counter[tuple[int, ...]] = Counter()
        self._files: list[Path] = []

    def label(self, mask: Path, size: Size, ids: Mapping[str, int], rest: int, notes: Notes) -> NDArray[np.uint8]:
        """Read a mask, uint8 [H, W]; unknown colours become 255 until `check` refuses them."""
        picture = read_image(mask).astype(np.int64)
        codes, inverse, pixels = np.unique(
            picture @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True, return_counts=True
        )
        found = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
        best, distance = np.zeros(len(found), dtype=np.int64), np.full(len(found), np.inf)
        for number, color in enumerate(self._colors):  # a JPEG may hold a hundred thousand colours
            to_color = np.linalg.norm(found - color, axis=1)
            best, distance = np.where(to_color < distance, number, best), np.minimum(to_color, distance)
        unknown = distance > (self._config.nearest or 0)
        if unknown.any():
            self._files.append(mask)
            self._unknown.update(dict(zip(map(tuple, found[unknown].tolist()), pixels[unknown].tolist(), strict=True)))
        if near := int(pixels[~unknown & (distance > 0)].sum()):
            notes["masks of colours near listed ones, taken for those"].append(f"{mask} ({near:,} pixels)")
        return np.where(unknown, IGNORE, self._ids[best]).astype(np.uint8)[inverse.reshape(picture.shape[:2])]

    def check(self) -> None:
        """Raises a DataError about colours that stand for no class."""
        if self._unknown:
            raise DataError(
                f"{self._unknown.total():,} pixels in {counted(len(self._files), 'mask')}, the first {self._files[0]}, "
                f"have colours that {self._config.colors} does not list: {_listed(self._unknown)}. List them, or give "
                "--nearest DISTANCE (in RGB) if they come from compression; a first line `__ignore__ R G B` is for "
                "pixels of no class"
            )


def _meaning(masks: list[Path], names: tuple[str, ...], notes: Notes) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes, and the id of each value, that masks without colours hold."""
    seen: dict[int, Path] = {}
    for mask in masks:
        try:
            values = np.unique(read_label(mask))
        except DataError:
            found, pixels = np.unique(read_image(mask).reshape(-1, 3), axis=0, return_counts=True)
            held = Counter(dict(zip(map(tuple, found.tolist()), pixels.tolist(), strict=True)))
            raise DataError(
                f"{mask} holds colours: {_listed(held)}. Give a file that names their classes, `name R G B` a line: "
                "--colors FILE"
            ) from None
        for value in values.tolist():
            seen.setdefault(value, mask)
    if seen.keys() == {0, IGNORE} and len(names) in (0, 2):
        notes["masks of 0 and 255, taken for two classes"] = [str(seen[IGNORE])]
        return names or ("background", "foreground"), {0: 0, IGNORE: 1}
    count = len(names) or len(seen.keys() - {IGNORE})
    wrong = [value for value in sorted(seen) if value != IGNORE and not 0 <= value < count]
    if wrong:
        raise DataError(
            f"the masks hold {', '.join(map(str, sorted(seen)[:SHOWN]))}{', ...' * (len(seen) > SHOWN)}: expected ids "
            f"0 to {count - 1}, and 255 for no class, but {seen[wrong[0]]} has {wrong[0]}. If they are greys, or "
            "do not begin with 0, give a file that names their classes, `name R G B` a line (R = G = B): --colors FILE"
        )
    if not names:
        notes["masks of ids without names: name the classes in classes.json, or by --colors FILE"] = [str(masks[0])]
    return names or tuple(f"class {number}" for number in range(count)), {number: number for number in range(count)}


def _by_id(
    mask: Path, meaning: Mapping[int, int], size: Size, ids: Mapping[str, int], rest: int, notes: Notes
) -> NDArray[np.uint8]:
    table = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
    table[list(meaning)] = list(meaning.values())
    return table[read_label(mask)]


def _listed(colors: Counter[tuple[int, ...]]) -> str:
    shown = [f"{','.join(map(str, color))} ({pixels:,} pixels)" for color, pixels in colors.most_common(SHOWN)]
    return ", ".join([*shown, *["..."] * (len(colors) > SHOWN)])
