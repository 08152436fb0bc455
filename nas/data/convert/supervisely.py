"""Supervisely: meta.json with the classes, and for each image DATASET/ann/IMAGE.json next to DATASET/img/IMAGE."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import Notes, Shape, Size, Stamp, bitmap, fill, outline, to_points
from nas.data.convert.source import (
    Images,
    Picture,
    Source,
    documents,
    entry,
    has_area,
    hexadecimal,
    load_json,
    shape_label,
)

__all__ = ["KEYS", "META", "read"]

KEYS = ("objects", "size")
META = "meta.json"
KINDS = frozenset({"polygon", "bitmap", "rectangle", "line", "polyline"})


def read(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Read a project, or the annotations of one data set in it; later objects cover earlier ones.

    Raises:
        DataError: A file is not as the format says; the message names the entry.
    """
    source, names = Source(), dict[str, None]()
    metas = [path for path in (Path(config.source) / META, Path(config.source).parent / META) if path.is_file()]
    for number, item in enumerate(entry(load_json(metas[0]), "classes", list, str(metas[0])) if metas else []):
        place = f"{metas[0]}, classes[{number}]"
        source.classes[entry(item, "title", str, place)] = hexadecimal(item.get("color"))
    for path, data in documents(config, KEYS, notes, META):
        shapes = []
        for number, item in enumerate(entry(data, "objects", list, str(path))):
            place = f"{path}, objects[{number}]"
            kind = entry(item, "geometryType", str, place)
            if not has_area(kind, KINDS, place, notes):
                continue
            names[entry(item, "classTitle", str, place)] = None
            content = entry(item, "bitmap" if kind == "bitmap" else "points", dict, place)
            shapes.append(Shape(place, item["classTitle"], partial(_draw, kind, content, config.line_width, place)))
        of = entry(data, "size", dict, str(path))
        size = entry(of, "height", int, str(path)), entry(of, "width", int, str(path))
        folder = path.parent.parent.relative_to(config.source).as_posix()
        if found := images.find(f"{folder}/img/{path.stem}", str(path)):
            source.pictures.append(Picture(found, str(path), size, shape_label(shapes, str(path))))
    source.classes = source.classes or dict.fromkeys(sorted(names))
    return source


def _draw(kind: str, content: dict[str, Any], line_width: int | None, place: str, size: Size) -> Stamp:
    if kind == "bitmap":
        left, top = to_points([content.get("origin")], size).astype(int)[0].tolist()
        return bitmap(entry(content, "data", str, place), left, top, size)
    points = to_points(entry(content, "exterior", list, place), size)
    if kind == "rectangle" and len(points) == 2:  # from the first pixel to the last one
        points = np.array([points.min(axis=0), points.max(axis=0) + 1])
    if kind != "polygon":
        return outline(kind, points, line_width, size)
    holes = [to_points(ring, size) for ring in entry(content, "interior", list, place, [])]
    return fill([[points, *holes]], size)
