"""Masks: a picture of the classes for each image, in colours, in ids, or in 0 and 255."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.config import ImageConfig
from nas.data.base import IGNORE, DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.formats import inside
from nas.data.convert.shapes import Color, Notes, Picture, Source
from nas.data.readers.classes import class_colors, read_class_file
from nas.data.readers.listing import few, list_files
from nas.data.readers.reading import IMAGE_SUFFIXES, read_image, read_label
from search_spaces.validation import counted

__all__ = ["read"]

MASK_FOLDERS = frozenset({"masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentationclass"})
USUAL_FOLDERS = MASK_FOLDERS | {"images", "image", "imgs", "img", "jpegimages"}
"""In lower case."""


def read(config: ConvertConfig, folder: Path, notes: Notes) -> Source:
    """Pair images and masks, and find out what all masks hold: colours, if --colors lists some, or ids, or 0 and 255.

    Raises:
        DataError: No image has a mask, or masks hold values that stand for no class.
    """
    images, pairs = _pairs(config, folder, notes)
    names: tuple[str, ...] = ()
    colors: dict[Color, int] = {}
    if config.colors is not None:
        names, colors = read_class_file(Path(config.colors))[0], class_colors(Path(config.colors))
    seen, first = Counter[int](), dict[int, Path]()
    for mask in pairs.values():
        values, pixels = np.unique(_values(mask, bool(colors)), return_counts=True)
        for value, count in zip(values.tolist(), pixels.tolist(), strict=True):
            seen[value] += count
            first.setdefault(value, mask)
    if colors:
        ids = _with_near(
            seen, {red << 16 | green << 8 | blue: n for (red, green, blue), n in colors.items()}, config, notes
        )
    elif seen.keys() == {0, IGNORE} and len(names) in (0, 2):
        notes["masks of 0 and 255, taken for two classes"] = [str(first[IGNORE])]
        names, ids = names or ("background", "foreground"), {0: 0, IGNORE: 1}
    else:
        names = names or tuple(f"class {number}" for number in range(len(seen.keys() - {IGNORE})))
        ids = {**{number: number for number in range(len(names))}, IGNORE: IGNORE}
        if config.colors is None:
            notes["classes without names: name them in classes.json, or by --colors FILE"] = list(names)
    if unknown := Counter({value: count for value, count in seen.items() if value not in ids}):
        where = f"{unknown.total():,} pixels, such as in {first[unknown.most_common(1)[0][0]]},"
        if colors:
            raise DataError(
                f"{where} have colours that {config.colors} does not list: {few(_listed(unknown))}. List them, or give "
                "--nearest DISTANCE (in RGB) if they come from compression; a first line `__ignore__ R G B` is for "
                "pixels of no class"
            )
        raise DataError(
            f"{where} are no ids: the masks hold {few([*map(str, sorted(seen))])}: expected 0 to {len(names) - 1}, and "
            "255 for no class. If they are greys, or do not begin with 0, give a file that names their classes, "
            "`name R G B` a line (R = G = B): --colors FILE"
        )
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


def _with_near(seen: Counter[int], ids: dict[int, int], config: ConvertConfig, notes: Notes) -> dict[int, int]:
    """Add to the ids of listed colours those of other colours that are near one, which are noted."""
    others = np.array([code for code in seen if code not in ids], dtype=np.int64)
    best, found = np.full(len(others), (config.nearest or 0) + 1e-6), np.full(len(others), -1)
    for code, number in ids.items():  # JPEG files may hold a hundred thousand colours
        distance = np.linalg.norm([(others >> shift & 255) - (code >> shift & 255) for shift in (16, 8, 0)], axis=0)
        found, best = np.where(distance < best, number, found), np.minimum(distance, best)
    near = {code: number for code, number in zip(others.tolist(), found.tolist(), strict=True) if number >= 0}
    counts = Counter({code: seen[code] for code in near})
    notes[f"colours near listed ones, taken for those, in {counts.total():,} pixels"] = _listed(counts)
    return ids | near


def _listed(colors: Counter[int]) -> list[str]:
    """Colours with their pixels, the most frequent first."""
    return [f"{code >> 16},{code >> 8 & 255},{code & 255} ({n:,} pixels)" for code, n in colors.most_common()]
