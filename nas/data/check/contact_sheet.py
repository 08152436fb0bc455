"""A contact sheet: samples of a data set in one picture, each image next to a copy with its classes in colour.

Lengths are in pixels.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from nas.data.base import IGNORE, DataError, SegmentationDataset
from nas.runs.pictures import as_picture, colorize
from search_spaces.files import MARK, write_atomically
from search_spaces.validation import as_path

__all__ = ["draw_contact_sheet", "overlay", "write_contact_sheet"]

SIDE = 320
"""Longer side of a resized image."""

GAP = 10
TEXT = 15
"""Height of a line of text, with descenders."""

COLUMNS = 3
"""Samples in a row."""

OPACITY = 0.6
"""Opacity of the colours over an image."""

INK, PAPER = (20, 20, 20), (255, 255, 255)

Picture = NDArray[np.uint8]


def write_contact_sheet(splits: Sequence[SegmentationDataset], samples: int, path: str | Path) -> None:
    """Draw a contact sheet and write it as a PNG.

    Raises:
        OSError: The file cannot be written.
    """
    sheet = draw_contact_sheet(splits, samples)
    mark = PngInfo()
    mark.add_text("Software", MARK)
    write_atomically(as_path(path), lambda file: sheet.save(file, format="PNG", pnginfo=mark))


def draw_contact_sheet(splits: Sequence[SegmentationDataset], samples: int) -> Image.Image:
    """Draw samples, spread evenly over all splits from the first to the last, and a legend of the classes.

    Args:
        splits: Splits of one data set.
        samples: Number of samples, at least 1; all if there are fewer.
    """
    starts = list(accumulate(map(len, splits), initial=0))
    tiles = []
    for at in spread(starts[-1], samples):
        split = bisect_right(starts, at) - 1
        tiles.append(_tile(splits[split], at - starts[split]))
    columns = min(COLUMNS, len(tiles))
    width = max(max((tile.width for tile in tiles), default=0), 2 * SIDE) + GAP
    height = max((tile.height for tile in tiles), default=0) + GAP
    rows = math.ceil(len(tiles) / max(1, columns))
    total = max(1, columns) * width + GAP
    legend = _legend(splits[0].classes, splits[0].colors, total - 2 * GAP)
    sheet = Image.new("RGB", (total, rows * height + legend.height + 2 * GAP), PAPER)
    for position, tile in enumerate(tiles):
        row, column = divmod(position, columns)
        sheet.paste(tile, (GAP + column * width, GAP + row * height))
    sheet.paste(legend, (GAP, GAP + rows * height))
    return sheet


def spread(length: int, number: int) -> list[int]:
    """Up to `number` of 0..length-1 at equal distances, including the first and, if there are two, the last."""
    indices: list[int] = np.linspace(0, length - 1, min(length, number)).round().astype(int).tolist()
    return indices


def overlay(image: Picture, label: Picture, colors: Picture) -> Picture:
    """Blend an image [H, W, 3] with the colours of its label [H, W], except for ignored pixels.

    Args:
        image: uint8.
        label: Class ids, and 255 for ignored pixels.
        colors: uint8 [classes, 3].
    """
    mixed = (1 - OPACITY) * image + OPACITY * colorize(label, colors)
    return np.where((label == IGNORE)[..., None], image, mixed.round().astype(np.uint8))


def _tile(dataset: SegmentationDataset, index: int) -> Image.Image:
    """An image, its overlay to the right, and its name below; only the name if it cannot be read."""
    caption = f"{dataset.split}  {dataset.sample_name(index)}"
    try:
        parts = _pictures(*dataset.read(index), dataset.colors)
    except DataError:
        caption += "  (cannot be read)"
        parts = [Image.new("RGB", (SIDE, 1), PAPER)] * 2
    width, height = parts[0].size
    tile = Image.new("RGB", (2 * width, height + TEXT + 4), PAPER)
    for position, part in enumerate(parts):
        tile.paste(part, (position * width, 0))
    font = _font()
    ImageDraw.Draw(tile).text((0, height + 2), _shortened(caption, 2 * width, font), INK, font)
    return tile


def _pictures(image: Picture, label: Picture, colors: Picture) -> list[Image.Image]:
    """An image and its overlay, resized."""
    factor = SIDE / max(label.shape)
    height, width = (max(1, round(side * factor)) for side in label.shape)
    small = Image.fromarray(as_picture(image)).resize((width, height), Image.Resampling.BILINEAR)
    classes = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
    return [small, Image.fromarray(overlay(np.asarray(small), np.asarray(classes), colors))]


def _legend(classes: Sequence[str], colors: Picture, width: int) -> Image.Image:
    """A coloured square and a name for each class, in columns from left to right."""
    font = _font()
    texts = [*(f"{number} {name}" for number, name in enumerate(classes)), "without colour: ignored"]
    cell = min(width, max(math.ceil(font.getlength(text)) for text in texts) + TEXT + 3 * GAP)
    columns = max(1, width // cell)
    line = TEXT + 6
    legend = Image.new("RGB", (width, math.ceil(len(texts) / columns) * line), PAPER)
    draw = ImageDraw.Draw(legend)
    for position, text in enumerate(texts):
        row, column = divmod(position, columns)
        x, y = column * cell, row * line
        if position < len(classes):
            draw.rectangle((x, y + 1, x + TEXT, y + 1 + TEXT), tuple(colors[position].tolist()), INK)
        draw.text((x + TEXT + GAP, y), _shortened(text, cell - TEXT - GAP, font), INK, font)
    return legend


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, cut to `width`."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's font: Pillow's own has few letters outside Latin."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT - 2)
