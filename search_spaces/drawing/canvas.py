"""What all pictures of genotypes are made of: a canvas in inches, boxes, curves, text; and how they are saved.

Uses matplotlib's object-oriented interface only. pyplot would keep global state, choose a window system and leak
figures, none of which suits a picture that is made each epoch of a search, perhaps in a thread.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.files import MARK, write_atomically
from search_spaces.genotype import Genotype
from search_spaces.validation import as_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ENDINGS",
    "LINE",
    "PALETTE",
    "TEXT",
    "Point",
    "canvas",
    "draw_box",
    "draw_curve",
    "draw_text",
    "draw_title",
    "ink_on",
    "save_figure",
    "space_name",
]

ENDINGS = (".svg", ".png", ".pdf")
DOTS_PER_INCH = 150
TEXT, LINE = "#222222", "#666666"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours (without yellow, which is too faint for a line on white): safe for colour-blind readers."""

Point = tuple[float, float]


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a picture as SVG, PNG or PDF, by the file's ending; the one that was there stays until it is whole.

    Raises:
        ValueError: Another ending.
        OSError: The folder cannot be written.
    """
    ending = (path := as_path(path)).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"picture {str(path)!r} ends in {ending!r}: expected {', '.join(ENDINGS)}")
    told = {"Software" if ending == ".png" else "Creator": MARK}
    return write_atomically(path, lambda file: figure.savefig(file, format=ending[1:], metadata=told))


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure whose data coordinates are inches from its lower left corner, so that boxes fit their text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def draw_box(
    axes: Axes,
    center: Point,
    width: float,
    height: float,
    color: str,
    label: str,
    edge: str = "none",
    rounding: float = 0.07,
    line: float = 1.0,
) -> None:
    """A rounded box with a label in it, in black or white."""
    from matplotlib.patches import FancyBboxPatch

    corner = (center[0] - width / 2, center[1] - height / 2)
    style = f"round,pad=0,rounding_size={rounding}"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color, edgecolor=edge, linewidth=line, zorder=4)
    )
    draw_text(axes, center, label, color=ink_on(color))


def draw_curve(axes: Axes, start: Point, end: Point, color: str, width: float) -> None:
    """A curve that leaves and arrives level."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    middle = (start[0] + end[0]) / 2
    outline = Outline([start, (middle, start[1]), (middle, end[1]), end], [1, 4, 4, 4])  # move, then one cubic Bezier
    axes.add_patch(PathPatch(outline, facecolor="none", edgecolor=color, linewidth=width, zorder=1, capstyle="round"))


def draw_text(axes: Axes, where: Point, text: str, size: float = 11, color: str = TEXT, align: str = "center") -> None:
    """Text with its middle at `where`, or beginning or ending there."""
    # A space's name is a stranger's text: no mathematics is read in it.
    axes.text(*where, text, fontsize=size, color=color, ha=align, va="center",
              zorder=5, parse_math=False)  # fmt: skip


def draw_title(axes: Axes, text: str, width: float) -> None:
    """The picture's title, in the middle of its upper edge."""
    draw_text(axes, (width / 2, axes.get_ylim()[1] - 0.28), text, size=13)


def space_name(genotype: Genotype) -> str:
    """The name of a genotype's space, without what is not printable, cut where it is too long."""
    text = "".join(character if character.isprintable() else " " for character in genotype.space.name)
    return textwrap.shorten(text, 60, placeholder="...") or "unnamed"


def ink_on(color: str) -> str:
    """Black or white, whichever stands out more against `color` (relative luminance, WCAG 2)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#FFFFFF" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"
