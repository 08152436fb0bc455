"""What all formats are read as, a list of shapes or a label for each image, and shapes as pixels.

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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nas.data.base import DataError
from search_spaces.validation import raised_as, require, short

__all__ = ["LINE_WIDTH", "Color", "Notes", "Picture", "Shape", "Source", "draw", "fill", "paint", "uncompressed"]

LINE_WIDTH = 10
"""Pixels; what labelme takes."""

Color = tuple[int, int, int]
Points = NDArray[np.float64]
"""[points, 2]: x, y, in pixels; the first pixel is from 0 to 1."""
Size = tuple[int, int]
"""Height, width."""
Notes = defaultdict[str, list[str]]
"""What was left out or taken for something else: names of files and entries for each remark."""


Stamp = tuple[int, int, NDArray[np.bool_]]
"""Left, top, and the pixels of a shape, within the image."""


class Shape(NamedTuple):
    """A shape in an annotation file; shapes of a higher layer cover those of a lower one."""

    place: str
    """File and entry, for messages."""
    name: str
    """Name of its class."""
    kind: str
    content: Any
    """As `draw` takes it, unchecked."""
    layer: int = 0


class Picture(NamedTuple):
    """An image with shapes, or with a mask."""

    image: str
    """Path below the folder of the images, with slashes."""
    place: str
    """The file with the shapes or the mask, for messages."""
    shapes: list[Shape] | tuple[()] = ()
    size: Size | None = None
    """Of the image, as the file with the shapes says."""
    mask: Callable[[], NDArray[np.uint8]] | None = None
    """Reads the class ids [H, W]."""


class Source(NamedTuple):
    """What SOURCE holds."""

    format: str
    folder: Path
    images: set[str]
    """All images in the folder, with a label or without."""
    classes: dict[str, Color | None]
    """In the order of the ids, with colours where there are some."""
    pictures: list[Picture]
    """The images with a label."""


def paint(
    shapes: Collection[Shape],
    size: Size,
    ids: Mapping[str, int],
    rest: int,
    notes: Notes,
    line_width: int = LINE_WIDTH,
    by_area: bool = False,
) -> NDArray[np.uint8]:
    """Draw shapes as class ids [H, W]: higher layers over lower ones, then later shapes over earlier ones.

    With `by_area`, small shapes are over large ones instead. Pixels outside all shapes are `rest`; shapes that cover
    no pixel are noted.

    Raises:
        DataError: A shape is of an unknown class, or cannot be drawn; the message names it.
    """
    stamps = []
    for shape in shapes:
        with raised_as(DataError, f"{shape.place}: "):
            require(shape.name in ids, f"there is no class {short(shape.name)}: add it to the file of --colors")
            stamp = draw(shape.kind, shape.content, size, line_width)
        area = int(stamp[2].sum())
        if not area:
            notes["shapes that cover no pixel"].append(shape.place)
        stamps.append((shape.layer, -area if by_area else 0, ids[shape.name], stamp))
    label = np.full(size, rest, dtype=np.uint8)
    for _, _, number, (left, top, pixels) in sorted(stamps, key=lambda entry: entry[:2]):
        label[top : top + pixels.shape[0], left : left + pixels.shape[1]][pixels] = number
    return label


def draw(kind: str, content: Any, size: Size, line_width: int = LINE_WIDTH) -> Stamp:
    """Draw a shape in an image of this size.

    Kinds and their contents are `polygon`: rings, the inner ones around holes; `polygons`: rings that are joined;
    `rectangle`: four corners, or two opposite ones; `circle`: its centre and a point on it; `line`: points; `runs`:
    left, top, height, width, order (C by rows, F by columns), and run lengths or COCO's text of them; `bitmap`: origin
    and text of a PNG in base 64.

    Raises:
        ValueError: The content is not as described, or does not fit into the image.
    """
    if kind == "runs":
        return _from_runs(content, size)
    if kind == "bitmap":
        return _from_bitmap(content, size)
    if kind in ("polygon", "polygons"):
        rings = [_points(ring, size) for ring in content]
        return fill([rings] if kind == "polygon" else [[ring] for ring in rings], size)
    points = _points(content, size)
    if kind == "line":
        canvas, ends = Image.new("1", (size[1], size[0])), [(x, y) for x, y in points.tolist()]
        ImageDraw.Draw(canvas).line(ends, 1, line_width, joint="curve")
        return _cropped(np.array(canvas))
    if kind == "circle" or len(points) != 4:
        require(len(points) == 2, f"it has {len(points)} points: expected 2 for a {kind}")
        (left, top), (right, bottom) = points.tolist()
        angles = np.linspace(0, 2 * np.pi, 256, endpoint=False)
        around = np.hypot(right - left, bottom - top) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        points = points[0] + around if kind == "circle" else box
    return fill([[points]], size)


def _points(numbers: Any, size: Size) -> Points:
    """Read [[x, y], ...] or [x, y, x, y, ...]; a ValueError if it is anything else, or far outside the image."""
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
        return 0, 0, np.zeros((0, 0), dtype=bool)
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
    return left, top, pixels


def _from_runs(content: Any, size: Size) -> Stamp:
    """Decode run lengths: so many pixels outside the shape, so many inside, and so on."""
    left, top, height, width, order, counts = content
    _check_inside(left, top, height, width, size)
    counts = uncompressed(counts) if isinstance(counts, str) else counts
    good = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    require(good, f"its run lengths are {short(counts)}: expected whole numbers from 0")
    require(sum(counts) == height * width, f"its run lengths add up to {sum(counts)}: expected {height * width} pixels")
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, dtype=np.int64))
    return _cropped(pixels.reshape((height, width), order=order), left, top)


def uncompressed(text: str) -> list[int]:
    """Decode the text of COCO's run lengths (pycocotools, `rleFrString`); a ValueError if it is none.

    Five bits a character, the lowest first; from the fourth number on, differences to the last but one.
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


def _from_bitmap(content: Any, size: Size) -> Stamp:
    """Decode a PNG, compressed with zlib once more; what is neither 0 nor transparent belongs to the shape."""
    origin, text = content
    left, top = _points([origin], size).astype(int)[0].tolist()
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 2**26)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            _check_inside(left, top, image.height, image.width, size)
            band = image.getchannel("A") if image.mode in ("LA", "RGBA") else image
            return left, top, np.array(band) > 0
    except (binascii.Error, zlib.error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"its bitmap cannot be read: {error}") from error


def _check_inside(left: int, top: int, height: int, width: int, size: Size) -> None:
    inside = min(left, top, height, width) >= 0 and left + width <= size[1] and top + height <= size[0]
    require(inside, f"its {width}x{height} pixels at {left}, {top} are not all in the image")


def _cropped(pixels: NDArray[np.bool_], left: int = 0, top: int = 0) -> Stamp:
    """The part of a mask that is not empty: an image may have hundreds of shapes."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, pixels[:0, :0]
    first, low = int(columns[0]), int(rows[0])
    return left + first, top + low, pixels[low : rows[-1] + 1, first : columns[-1] + 1].copy()
