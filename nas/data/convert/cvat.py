"""CVAT for images 1.1: one XML file with the shapes in many images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from nas.data.base import DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import (
    Notes,
    Shape,
    Size,
    Stamp,
    ellipse,
    fill,
    from_runs,
    outline,
    paint,
    rectangle,
    to_points,
)
from nas.data.convert.source import Images, Picture, Source, color_of, has_area
from nas.data.readers.listing import list_files
from search_spaces.validation import require, short

__all__ = ["load_xml", "read"]

KINDS = frozenset({"polygon", "polyline", "box", "ellipse", "mask"})


class _Plain(ElementTree.TreeBuilder):
    """Refuses entities, of which a few lines may stand for more text than fits into any memory."""

    def doctype(self, *_: object) -> None:
        raise ValueError("it has a DOCTYPE, which CVAT does not write: remove it")


def load_xml(path: Path) -> ElementTree.Element:
    """Read an XML file without a DOCTYPE.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=_Plain())).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path} cannot be read as XML: {error}") from error


def read(config: ConvertConfig, images: Images, notes: Notes) -> Source:
    """Read all CVAT files; shapes of a higher `z_order` cover others, then later ones earlier ones.

    Raises:
        DataError: A file is not as the format says; the message names the entry.
    """
    source, given = Source(), Path(config.source)
    for path in list_files(given, {".xml"})[0] if given.is_dir() else [given]:
        root = load_xml(path)
        if root.tag != "annotations" or root.find("track") is not None:
            raise DataError(f"{path} is {root.tag!r} of another format: export it as `CVAT for images 1.1`")
        for label in root.iterfind("meta//labels/label"):
            source.classes[label.findtext("name", "")] = color_of(label.findtext("color"))
        for image in root.iterfind("image"):
            name = image.get("name", "")
            place, shapes = f"{path}, image {name!r}", []
            for number, item in enumerate(image):
                where = f"{place}, {item.tag} (entry {number})"
                if not has_area(item.tag, KINDS, where, notes):
                    continue
                draw = partial(_draw, item.tag, item.attrib, config.line_width)
                source.classes.setdefault(item.get("label", ""))
                shapes.append(Shape(where, item.get("label", ""), draw, int(_number(item.attrib, "z_order", where, 0))))
            size = tuple(int(_number(image.attrib, key, place)) for key in ("height", "width"))
            if found := images.find(name, place):
                source.pictures.append(Picture(found, place, (size[0], size[1]), partial(paint, shapes, place, False)))
    return source


def _number(values: Mapping[str, str], key: str, place: str = "", default: float | None = None) -> float:
    text = values.get(key, default)
    try:
        number = float(text)  # type: ignore[arg-type]
        if math.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise DataError(f"{place}{', ' * bool(place)}its {key} is {short(text)}: expected a number")


def _draw(kind: str, values: Mapping[str, str], line_width: int | None, size: Size) -> Stamp:
    def numbers(*keys: str) -> list[float]:
        return [_number(values, key) for key in keys]

    if kind == "mask":
        left, top, width, height = map(int, numbers("left", "top", "width", "height"))
        inside = min(left, top, width, height) >= 0 and left + width <= size[1] and top + height <= size[0]
        require(inside, f"its {width}x{height} pixels at {left}, {top} are not all in the image")
        runs = [run.strip() for run in values.get("rle", "").split(",")]
        stamp = from_runs([int(run) if run.isdecimal() else run for run in runs], height, width)
        return Stamp(left + stamp.left, top + stamp.top, stamp.pixels)
    if kind in ("polygon", "polyline"):
        return outline(kind, [pair.split(",") for pair in values.get("points", "").split(";")], line_width, size)
    if kind == "ellipse":
        middle = np.array(numbers("cx", "cy"))
        points = ellipse(middle, np.array(numbers("rx", "ry")))
    else:
        points = rectangle(np.array([numbers("xtl", "ytl"), numbers("xbr", "ybr")]))
        middle = points.mean(axis=0)
    angle = math.radians(_number(values, "rotation", default=0))  # clockwise, as y points down
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return fill([[to_points((points - middle) @ turn + middle, size)]], size)
