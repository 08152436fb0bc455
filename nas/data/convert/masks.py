"""Masks: a picture of the classes for each image, in colours, in ids, or in 0 and 255."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.config import ImageConfig
from nas.data.base import IGNORE, DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import Color, Notes, Picture, Source
from nas.data.convert.splitting import inside
from nas.data.readers.classes import class_colors, read_class_file
from nas.data.readers.listing import few, list_files
from nas.data.readers.reading import IMAGE_SUFFIXES, read_image, read_label
from search_spaces.validation import counted

__all__ = ["read"]

MASK_FOLDERS = frozenset({"masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentationclass"})
USUAL_FOLDERS = MASK_FOLDERS | {"images", "image", "imgs", "img", "jpegimages"}
"""In lower case."""


def read(config: ConvertConfig, folder: Path, notes: Notes) -> Source:
    """Pair images and masks by name, and find out what all masks hold.

    With colours in the file of --colors, masks are colours; without, ids, or 0 and 255 for two classes.

    Raises:
        DataError: No image has a mask, or masks hold values that stand for no class.
    """
    images, pairs = _pairs(config, folder, notes)
    names: tuple[str, ...] = ()
    colors: Mapping[Color, int] = {}
    if config.colors is not None:
        names, colors = read_class_file(Path(config.colors))[0], class_colors(Path(config.colors))
    seen, first = Counter[int](), dict[int, Path]()
    for mask in pairs.values():
        values, pixels = np.unique(_values(mask, bool(colors)), return_counts=True)
        for value, count in zip(values.tolist(), pixels.tolist(), strict=True):
            seen[value] += count
            first.setdefault(value, mask)
    if colors:
        ids = _ids_of_colours(seen, first, colors, config, notes)
    else:
        names, ids = _ids_of_values(first, names, notes)
    table = np.array(sorted(ids.items())).T  # values, ids

    def label(mask: Path) -> NDArray[np.uint8]:
        return table[1].astype(np.uint8)[np.searchsorted(table[0], _values(mask, bool(colors)))]

    pictures = [Picture(image, str(mask), mask=partial(label, mask)) for image, mask in pairs.items()]
    return Source("masks", folder, images, dict.fromkeys(names), pictures)


def _pairs(config: ConvertConfig, folder: Path, notes: Notes) -> tuple[set[str], dict[str, Path]]:
    """All images, and the masks of those that have one: by path, without usual folders and the suffix of masks."""
    suffix = "_mask" if config.suffix is None else config.suffix
    mask_folder = inside(config.source, config.masks or ".")

    def key(path: Path, below: Path, end: str = "") -> tuple[str, ...]:
        parents = [part for part in path.relative_to(below).parts[:-1] if part.lower() not in USUAL_FOLDERS]
        return (*parents, path.stem.removesuffix(end))

    def is_mask(path: Path) -> bool:
        parents = {part.lower() for part in path.relative_to(mask_folder).parts[:-1]}
        return config.masks is not None or bool(parents & MASK_FOLDERS) or path.stem.endswith(suffix)

    masks = dict.fromkeys(filter(is_mask, list_files(mask_folder, IMAGE_SUFFIXES)[0]))
    images = [path for path in list_files(folder, IMAGE_SUFFIXES)[0] if path not in masks]
    by_key: dict[tuple[str, ...], Path] = {}
    for image in images:
        if (other := by_key.setdefault(key(image, folder), image)) != image:
            raise DataError(f"{other} and {image} share one name: keep one, or give --images and --masks")
    pairs: dict[str, Path] = {}
    for mask in masks:
        found = by_key.get(key(mask, mask_folder)) or by_key.get(key(mask, mask_folder, suffix))
        if found is None:
            notes["masks without an image, left out"].append(str(mask))
        elif (other := pairs.setdefault(found.relative_to(folder).as_posix(), mask)) != mask:
            raise DataError(f"{other} and {mask} are both masks of {found}: keep one of them")
    if not pairs:
        raise DataError(
            f"{counted(len(images), 'image')} and {counted(len(masks), 'mask')} at {config.source} have no name in "
            "common: give the folders by --images and --masks, or the end of masks' names by --suffix"
        )
    return {image.relative_to(folder).as_posix() for image in images}, pairs


def _values(mask: Path, in_colours: bool) -> NDArray[Any]:
    """The ids in a mask, or its colours as whole numbers 0xRRGGBB [H, W]."""
    if in_colours:
        return read_image(mask, ImageConfig(exif="ignore")) @ np.array([1 << 16, 1 << 8, 1])
    try:
        return read_label(mask)
    except DataError:
        held = Counter(_values(mask, in_colours=True).ravel().tolist())
        hint = "Give a file that names their classes, `name R G B` a line: --colors FILE"
        raise DataError(f"{mask} holds colours: {few(_listed(held))}. {hint}") from None


def _ids_of_colours(
    seen: Counter[int], first: Mapping[int, Path], colors: Mapping[Color, int], config: ConvertConfig, notes: Notes
) -> dict[int, int]:
    """The id, or `IGNORE`, of each colour that was seen; those near listed ones are noted."""
    codes = np.array(list(seen))
    found = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    ids, nearest = np.zeros(len(codes), dtype=np.int64), np.full(len(codes), np.inf)
    for color, number in colors.items():  # JPEG files may hold a hundred thousand colours
        distance = np.linalg.norm(found - color, axis=1)
        ids, nearest = np.where(distance < nearest, number, ids), np.minimum(distance, nearest)
    far = nearest > (config.nearest or 0)
    unknown, near = (
        Counter({code: seen[code] for code in codes[which].tolist()}) for which in (far, ~far & (nearest > 0))
    )
    if unknown:
        raise DataError(
            f"{unknown.total():,} pixels, such as in {first[unknown.most_common(1)[0][0]]}, have colours that "
            f"{config.colors} does not list: {few(_listed(unknown))}. List them, or give --nearest DISTANCE (in RGB) "
            "if they come from compression; a first line `__ignore__ R G B` is for pixels of no class"
        )
    notes[f"colours near listed ones, taken for those, in {near.total():,} pixels"] = _listed(near)
    return dict(zip(codes.tolist(), ids.tolist(), strict=True))


def _ids_of_values(
    first: Mapping[int, Path], names: tuple[str, ...], notes: Notes
) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes, and the id of each value, that masks without colours hold."""
    if first.keys() == {0, IGNORE} and len(names) in (0, 2):
        notes["masks of 0 and 255, taken for two classes"] = [str(first[IGNORE])]
        return names or ("background", "foreground"), {0: 0, IGNORE: 1}
    count = len(names) or len(first.keys() - {IGNORE})
    wrong = next((value for value in sorted(first) if value != IGNORE and not 0 <= value < count), None)
    if wrong is not None:
        raise DataError(
            f"the masks hold {few([*map(str, sorted(first))])}: expected ids 0 to {count - 1}, and 255 for no class, "
            f"but {first[wrong]} has {wrong}. If they are greys, or do not begin with 0, give a file that names their "
            "classes, `name R G B` a line (R = G = B): --colors FILE"
        )
    if not names:
        notes["values taken for ids: name the classes in classes.json, or by --colors FILE"] = [
            *map(str, sorted(first))
        ]
    return names or tuple(f"class {number}" for number in range(count)), {value: value for value in first}


def _listed(colors: Counter[int]) -> list[str]:
    """Colours with their pixels, the most frequent first."""
    return [f"{code >> 16},{code >> 8 & 255},{code & 255} ({n:,} pixels)" for code, n in colors.most_common()]
