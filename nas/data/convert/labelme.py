"""labelme: a JSON file for each image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import LINES, Notes, Shape, Size, Stamp, bitmap, outline, to_points
from nas.data.convert.source import Images, Picture, Source, documents, entry, has_area, shape_label
from search_spaces.validation import require

__all__ = ["KEYS", "read"]

KEYS = ("shapes", "imagePath")
KINDS = LINES | {"polygon", "rectangle", "circle", "mask"}


def read(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Read all labelme files; classes are in the order of their names, and later shapes cover earlier ones.

    Raises:
        DataError: A file is not as the format says; the message names the entry.
    """
    source, names = Source(), set[str]()
    for path, data in documents(config, KEYS, notes):
        shapes = []
        for number, item in enumerate(entry(data, "shapes", list, str(path))):
            place = f"{path}, shapes[{number}]"
            kind = entry(item, "shape_type", str, place, "polygon")
            if not has_area(kind, KINDS, place, notes):
                continue
            names.add(entry(item, "label", str, place))
            shapes.append(Shape(place, item["label"], partial(_draw, kind, item, config.line_width)))
        height, width = (data.get(key) for key in ("imageHeight", "imageWidth"))
        size = (height, width) if height and width else None
        folder = path.parent.relative_to(config.source) if path != Path(config.source) else Path()
        if found := images.find(f"{folder.as_posix()}/{entry(data, 'imagePath', str, str(path))}", str(path)):
            source.pictures.append(Picture(found, str(path), size, shape_label(shapes, str(path))))
    source.classes = dict.fromkeys(sorted(names))
    return source


def _draw(kind: str, item: dict[str, Any], line_width: int | None, size: Size) -> Stamp:
    if kind != "mask":
        return outline(kind, item.get("points"), line_width, size)
    require(isinstance(item.get("mask"), str), "its mask is missing: expected a PNG in base 64")
    corners = to_points(item.get("points"), size)
    require(len(corners) > 0, "it has no points: expected the corners of its mask")
    return bitmap(item["mask"], int(corners[0, 0]), int(corners[0, 1]), size)
