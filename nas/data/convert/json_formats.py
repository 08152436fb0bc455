"""The formats in JSON: COCO, one file for many images; labelme and Supervisely, a file for each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.base import DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import (
    LINES,
    Notes,
    Shape,
    Size,
    Stamp,
    bitmap,
    fill,
    from_runs,
    outline,
    paint,
    to_points,
    uncompressed,
)
from nas.data.convert.source import Images, Picture, Source, color_of, entry, has_area
from nas.data.readers.listing import list_files
from search_spaces.files import parse_json
from search_spaces.validation import raised_as, require, short

__all__ = ["KEYS", "load_json", "read_coco", "read_labelme", "read_supervisely"]

KEYS = {
    "coco": {"images", "annotations", "categories"},
    "labelme": {"shapes", "imagePath"},
    "supervisely": {"objects", "size"},
}
"""Keys by which a file is known to be of a format."""

META = "meta.json"
"""The classes of a Supervisely project."""


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It cannot be read.
    """
    with raised_as(DataError, f"{path} cannot be read as JSON: "):
        return parse_json(path.read_text(encoding="utf-8-sig"))


def _documents(config: ConvertConfig, kind: str, notes: Notes) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Read the JSON files of a format at SOURCE; the others are noted."""
    source = Path(config.source)
    for path in list_files(source, {".json"})[0] if source.is_dir() else [source]:
        data = load_json(path)
        if isinstance(data, dict) and data.keys() >= KEYS[kind]:
            yield path, data
        elif path.name != META:
            notes["JSON files of another format, left out"].append(str(path))


def read_coco(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Read all COCO files; their categories are joined by name, in the order of their ids.

    Small instances cover large ones, as COCO has no order. A crowd (`iscrowd`) is of its category, below all others.

    Raises:
        DataError: A file is not as the format says; the message names the entry.
    """
    source = Source()
    for path, data in _documents(config, "coco", notes):
        tables: dict[str, dict[int, Any]] = {"images": {}, "categories": {}}
        for key, table in tables.items():
            for number, item in enumerate(entry(data, key, list, str(path))):
                place = f"{path}, {key}[{number}]"
                if (known := entry(item, "id", int, place)) in table:
                    raise DataError(f"{place} has the id {known}, as another one has: give each its own")
                table[known] = item
        names = {
            known: entry(item, "name", str, f"{path}, category {known}")
            for known, item in sorted(tables["categories"].items())
        }
        source.classes.update(dict.fromkeys(names.values()))
        shapes: dict[int, list[Shape]] = defaultdict(list)
        for number, item in enumerate(entry(data, "annotations", list, str(path))):
            place = f"{path}, annotations[{number}]"
            image, category = (entry(item, f"{key}_id", int, place) for key in ("image", "category"))
            for key, known, table in (("image", image, tables["images"]), ("category", category, names)):
                if known not in table:
                    raise DataError(f"{place} has the {key}_id {known}, which the file does not list")
            if not (segmentation := item.get("segmentation")):
                notes["annotations without segmentation, such as a box alone, left out"].append(place)
                continue
            if crowd := bool(item.get("iscrowd")):
                notes["crowds, of their class where nothing else is"].append(place)
            shapes[image].append(Shape(place, names[category], partial(_draw_coco, segmentation), -crowd))
        for known, item in tables["images"].items():
            name = entry(item, "file_name", str, f"{path}, image {known}")
            place = f"{path}, image {known} ({name})"
            size = entry(item, "height", int, place), entry(item, "width", int, place)
            if found := images.find(name, place):
                source.pictures.append(Picture(found, place, size, partial(paint, shapes[known], place, True)))
    return source


def _draw_coco(segmentation: Any, size: Size) -> Stamp:
    """Draw polygons ([[x, y, x, y, ...], ...]) or run lengths ({"size": [h, w], "counts": list or text})."""
    if isinstance(segmentation, dict):
        of, counts = segmentation.get("size"), segmentation.get("counts")
        require(of == list(size), f"its run lengths are for the size {short(of)}: expected {list(size)}, the image's")
        counts = uncompressed(counts) if isinstance(counts, str) else counts
        return from_runs(counts, *size, by_column=True)
    good = isinstance(segmentation, list) and all(
        isinstance(ring, list) and len(ring) % 2 == 0 for ring in segmentation
    )
    require(good, f"its segmentation is {short(segmentation)}: expected lists of x, y, x, y, ..., or run lengths")
    return fill([[to_points(ring, size)] for ring in segmentation], size)


def _files(
    config: ConvertConfig,
    notes: Notes,
    kind: str,
    kinds: Collection[str],
    keys: tuple[str, str, str],
    draw: Callable[[str, dict[str, Any], int | None, Size], Stamp],
) -> Iterator[tuple[Path, dict[str, Any], list[Shape]]]:
    """Read the files of a format with a file for each image; `keys` are those of the list, the kind and the class."""
    for path, data in _documents(config, kind, notes):
        shapes = []
        for number, item in enumerate(entry(data, keys[0], list, str(path))):
            place = f"{path}, {keys[0]}[{number}]"
            of = entry(item, keys[1], str, place, "polygon")
            if has_area(of, kinds, place, notes):
                name = entry(item, keys[2], str, place)
                shapes.append(Shape(place, name, partial(draw, of, item, config.line_width)))
        yield path, data, shapes


def read_labelme(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Read all labelme files; classes are in the order of their names, and later shapes cover earlier ones.

    Raises:
        DataError: A file is not as the format says; the message names the entry.
    """
    source, names, kinds = Source(), set[str](), LINES | {"polygon", "rectangle", "circle", "mask"}
    for path, data, shapes in _files(config, notes, "labelme", kinds, ("shapes", "shape_type", "label"), _draw_labelme):
        names.update(shape.name for shape in shapes)
        height, width = (data.get(key) for key in ("imageHeight", "imageWidth"))
        size = (height, width) if height and width else None
        folder = path.parent.relative_to(images.root).as_posix()
        if found := images.find(f"{folder}/{entry(data, 'imagePath', str, str(path))}", str(path)):
            source.pictures.append(Picture(found, str(path), size, partial(paint, shapes, str(path), False)))
    source.classes = dict.fromkeys(sorted(names))
    return source


def _draw_labelme(kind: str, item: dict[str, Any], line_width: int | None, size: Size) -> Stamp:
    points = to_points(item.get("points"), size)
    if kind != "mask":
        return outline(kind, points, line_width, size)
    good = isinstance(item.get("mask"), str) and len(points) > 0
    require(good, "its mask is missing: expected a PNG in base 64, and its corners as points")
    return bitmap(item["mask"], int(points[0, 0]), int(points[0, 1]), size)


def read_supervisely(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Read a project, or data sets of one: DATASET/ann/IMAGE.json is of DATASET/img/IMAGE. Later objects cover others.

    Raises:
        DataError: A file is not as the format says; the message names the entry.
    """
    source, names, kinds = Source(), set[str](), LINES | {"polygon", "bitmap", "rectangle"}
    metas = [folder / META for folder in (images.root, images.root.parent) if (folder / META).is_file()]
    for number, item in enumerate(entry(load_json(metas[0]), "classes", list, str(metas[0])) if metas else []):
        source.classes[entry(item, "title", str, f"{metas[0]}, classes[{number}]")] = color_of(item.get("color"))
    keys = ("objects", "geometryType", "classTitle")
    for path, data, shapes in _files(config, notes, "supervisely", kinds, keys, _draw_supervisely):
        names.update(shape.name for shape in shapes)
        of = entry(data, "size", dict, str(path))
        size = entry(of, "height", int, str(path)), entry(of, "width", int, str(path))
        folder = path.parent.parent.relative_to(images.root).as_posix()
        if found := images.find(f"{folder}/img/{path.stem}", str(path)):
            source.pictures.append(Picture(found, str(path), size, partial(paint, shapes, str(path), False)))
    source.classes = source.classes or dict.fromkeys(sorted(names))
    return source


def _draw_supervisely(kind: str, item: dict[str, Any], line_width: int | None, size: Size) -> Stamp:
    content: Any = item.get("bitmap" if kind == "bitmap" else "points")
    require(isinstance(content, dict), f"its points are {short(content)}: expected an object")
    if kind == "bitmap":
        require(isinstance(content.get("data"), str), "its bitmap has no data: expected a PNG in base 64")
        left, top = to_points([content.get("origin")], size).astype(int)[0].tolist()
        return bitmap(content["data"], left, top, size)
    points = to_points(content.get("exterior"), size)
    if kind == "rectangle" and len(points) == 2:  # from the first pixel to the last one
        points = np.array([points.min(axis=0), points.max(axis=0) + 1])
    if kind != "polygon":
        return outline(kind, points, line_width, size)
    return fill([[points, *(to_points(ring, size) for ring in content.get("interior") or [])]], size)
