"""COCO: one JSON file with the instances in many images, as polygons or run lengths."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

from nas.data.base import DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import Notes, Shape, Size, Stamp, fill, from_runs, to_points, uncompressed
from nas.data.convert.source import Images, Picture, Source, documents, entry, shape_label
from search_spaces.validation import require, short

__all__ = ["KEYS", "read"]

KEYS = ("images", "annotations", "categories")


def read(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Read all COCO files; their categories are joined by name, in the order of their ids.

    Small instances cover large ones, as COCO has no order. A crowd (`iscrowd`) is of its category, below all others.

    Raises:
        DataError: A file is not as the format says; the message names the entry.
    """
    source = Source()
    for path, data in documents(config, KEYS, notes):
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
            if not (outline := item.get("segmentation")):
                notes.setdefault("annotations have no segmentation, such as a box alone, and are left out", []).append(
                    place
                )
                continue
            crowd = bool(item.get("iscrowd"))
            if crowd:
                notes.setdefault("crowds are of their class where nothing else is", []).append(place)
            shapes[image].append(Shape(place, names[category], partial(_draw, outline), -crowd))
        for known, item in tables["images"].items():
            place = f"{path}, image {known}"
            name = entry(item, "file_name", str, place)
            size = entry(item, "height", int, place), entry(item, "width", int, place)
            if found := images.find(name, place):
                place = f"{place} ({name})"
                source.pictures.append(Picture(found, place, size, shape_label(shapes[known], place, by_area=True)))
    return source


def _draw(outline: Any, size: Size) -> Stamp:
    """Draw polygons ([[x, y, x, y, ...], ...]) or run lengths ({"size": [h, w], "counts": list or text})."""
    if isinstance(outline, dict):
        counts, of = outline.get("counts"), outline.get("size")
        require(
            of == list(size), f"its run lengths are for the size {short(of)}: expected {list(size)}, as its image has"
        )
        require(isinstance(counts, list | str), f"its counts are {short(counts)}: expected a list or a text")
        return from_runs(uncompressed(counts) if isinstance(counts, str) else counts or [], *size, by_column=True)
    good = isinstance(outline, list) and all(isinstance(ring, list) and len(ring) % 2 == 0 for ring in outline)
    require(good, f"its segmentation is {short(outline)}: expected lists of x, y, x, y, ..., or run lengths")
    return fill([[to_points(ring, size)] for ring in outline], size)
