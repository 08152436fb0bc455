"""Shapes as pixels: outlines, lines, run lengths and bitmaps.

A pixel belongs to an outline if its centre lies inside: a box from 5 to 25 covers pixels 5 to 24, and neighbours
neither overlap nor leave a gap. (Pillow's polygons cut off fractions and include their outline, which gives 5 to 25.)
"""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nas.data.base import DataError
from search_spaces.validation import raised_as, require, short

__all__ = [
    "LINES",
    "Notes",
    "Shape",
    "Stamp",
    "bitmap",
    "ellipse",
    "fill",
    "from_runs",
    "outline",
    "paint",
    "rectangle",
    "to_points",
    "uncompressed",
]

LINES = frozenset({"line", "linestrip", "polyline"})
LINE_WIDTH = 10
"""Pixels; what labelme takes."""

Points = NDArray[np.float64]
"""[points, 2]: x, y, in pixels; the first pixel is from 0 to 1."""
Size = tuple[int, int]
"""Height, width."""
Notes = defaultdict[str, list[str]]
"""What was left out or taken for something else: names of files and entries for each remark."""


class Stamp(NamedTuple):
    """The pixels of a shape, within the image."""

    left: int
    top: int
    pixels: NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """A shape in an annotation file."""

    place: str
    """File and entry, for messages."""
    name: str
    """Name of its class."""
    draw: Callable[[Size], Stamp]
    """Raises a ValueError if the shape makes no sense in an image of this size."""
    layer: int = 0
    """Shapes of a higher layer cover those of a lower one."""


def paint(
    shapes: Collection[Shape], place: str, by_area: bool, size: Size, ids: Mapping[str, int], rest: int, notes: Notes
) -> NDArray[np.uint8]:
    """Draw shapes: higher layers over lower ones, then later shapes over earlier ones, or small ones over large ones.

    Args:
        shapes: The shapes in the order of their file.
        place: The file, for the notes.
        by_area: Small shapes cover large ones.
        size: Of the label.
        ids: Class id, or `IGNORE`, of each class.
        rest: Id of the pixels outside all shapes.
        notes: Takes the shapes that cover no pixel, and the file if it has no shape.

    Returns:
        uint8 [H, W].

    Raises:
        DataError: A shape is of an unknown class, or cannot be drawn; the message names it.
    """
    stamps = []
    if not shapes:
        notes["images without a shape, all of them background, or ignored"].append(place)
    for shape in shapes:
        with raised_as(DataError, f"{shape.place}: "):
            require(shape.name in ids, f"there is no class {short(shape.name)}: add it to the file of --colors")
            stamp = shape.draw(size)
        area = int(stamp.pixels.sum())
        if not area:
            notes["shapes that cover no pixel"].append(shape.place)
        stamps.append((shape.layer, -area if by_area else 0, ids[shape.name], stamp))
    label = np.full(size, rest, dtype=np.uint8)
    for _, _, number, (left, top, pixels) in sorted(stamps, key=lambda entry: entry[:2]):
        label[top : top + pixels.shape[0], left : left + pixels.shape[1]][pixels] = number
    return label


def to_points(numbers: Any, size: Size) -> Points:
    """Read [[x, y], ...] or [x, y, x, y, ...].

    Raises:
        ValueError: It is anything else, or a point lies further outside the image than the image is large.
    """
    try:
        points = np.array(numbers, dtype=np.float64)
        points = points.reshape(-1, 2) if points.ndim == 1 else points
    except (TypeError, ValueError):
        points = np.empty((0, 0))
    good = points.ndim == 2 and points.shape[1] == 2 and np.isfinite(points).all()
    require(bool(good), f"its points are {short(numbers)}: expected pairs of numbers, x and y")
    far = (np.abs(points - np.array(size[::-1]) / 2) > 1.5 * np.array(size[::-1])).any(axis=1)
    require(not far.any(), f"its point {points[far][:1].tolist()} lies far outside the image of {size[1]}x{size[0]}")
    return points


def fill(parts: Sequence[Sequence[Points]], size: Size) -> Stamp:
    """Fill outlines: the pixels of any part, which are those inside an odd number of its rings: the inner are holes."""
    corners = np.concatenate([np.empty((0, 2)), *(ring for rings in parts for ring in rings)])
    if not len(corners):
        return Stamp(0, 0, np.zeros((0, 0), dtype=bool))
    low, high = (
        np.clip(edge, 0, size[::-1]).astype(int) for edge in (np.floor(corners.min(0)), np.ceil(corners.max(0)))
    )
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    pixels = np.zeros((bottom - top, right - left), dtype=bool)
    for rings in parts:
        crossed = np.zeros((bottom - top, right - left + 1), dtype=bool)  # an edge lies left of this pixel's centre
        for x, y, next_x, next_y in (row for ring in rings for row in np.hstack([ring, np.roll(ring, -1, 0)]).tolist()):
            first, last = np.clip(np.ceil(np.array([min(y, next_y), max(y, next_y)]) - 0.5), top, bottom).astype(int)
            if first < last:
                rows = np.arange(first, last)
                at = x + (rows + 0.5 - y) * ((next_x - x) / (next_y - y))
                crossed[rows - top, np.clip(np.ceil(at - 0.5), left, right).astype(int) - left] ^= True
        pixels |= np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
    return Stamp(left, top, pixels)


def ellipse(center: NDArray[np.float64], radii: NDArray[np.float64] | float) -> Points:
    """An ellipse as a polygon."""
    angles = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    return center + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def rectangle(corners: Points) -> Points:
    """A rectangle as a polygon, from two opposite corners."""
    (left, top), (right, bottom) = corners.tolist()
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def outline(kind: str, numbers: Any, line_width: int | None, size: Size) -> Stamp:
    """Draw a polygon, a rectangle (two corners), a circle (its centre and a point on it), or a line.

    Raises:
        ValueError: There is no such kind, or its points are not as described.
    """
    points = to_points(numbers, size)
    if kind in LINES:
        canvas, ends = Image.new("1", (size[1], size[0])), [(x, y) for x, y in points.tolist()]
        ImageDraw.Draw(canvas).line(ends, 1, line_width or LINE_WIDTH, joint="curve")
        return _cropped(np.array(canvas))
    if kind == "circle" or (kind == "rectangle" and len(points) != 4):
        require(len(points) == 2, f"it has {len(points)} points: expected 2 for a {kind}")
        radius = float(np.linalg.norm(points[1] - points[0]))
        points = ellipse(points[0], radius) if kind == "circle" else rectangle(points)
    return fill([[points]], size)


def from_runs(counts: Any, height: int, width: int, by_column: bool = False) -> Stamp:
    """Decode run lengths: so many pixels outside the shape, so many inside, and so on.

    Raises:
        ValueError: They are no whole numbers, or do not add up to the number of pixels.
    """
    good = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    require(good, f"its run lengths are {short(counts)}: expected whole numbers from 0")
    require(sum(counts) == height * width, f"its run lengths add up to {sum(counts)}: expected {height * width} pixels")
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, dtype=np.int64))
    return _cropped(pixels.reshape((height, width), order="F" if by_column else "C"))


def uncompressed(text: str) -> list[int]:
    """Decode the text of COCO's compressed run lengths (pycocotools, `rleFrString`).

    Five bits a character, the lowest first; from the fourth number on, differences to the last but one.

    Raises:
        ValueError: The text is none.
    """
    counts: list[int] = []
    value = bits = 0
    for code in (ord(character) - 48 for character in text):
        require(0 <= code < 64 and bits < 60, f"its run lengths are {short(text)}: not the text that COCO writes")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            value -= (1 << bits) * (code >> 4 & 1)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = bits = 0
    require(bits == 0, f"its run lengths are {short(text)}: the end is missing")
    return counts


def bitmap(text: str, left: int, top: int, size: Size) -> Stamp:
    """Decode a PNG in base 64, compressed with zlib once more or not; what is neither 0 nor transparent belongs to it.

    Raises:
        ValueError: It cannot be read, or is not inside the image.
    """
    try:
        content = base64.b64decode(text, validate=True)
        if content[:1] == b"\x78":
            content = zlib.decompressobj().decompress(content, 2**26)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            inside = left >= 0 and top >= 0 and left + image.width <= size[1] and top + image.height <= size[0]
            require(inside, f"its {image.width}x{image.height} pixels at {left}, {top} are not all in the image")
            band = image.getchannel("A") if image.mode in ("LA", "RGBA") else image
            return Stamp(left, top, np.array(band) > 0)
    except (binascii.Error, zlib.error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"its bitmap cannot be read: {error}") from error


def _cropped(pixels: NDArray[np.bool_]) -> Stamp:
    """The part of a mask that is not empty: an image may have hundreds of shapes."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Stamp(0, 0, pixels[:0, :0])
    left, top = int(columns[0]), int(rows[0])
    return Stamp(left, top, pixels[top : rows[-1] + 1, left : columns[-1] + 1].copy())
