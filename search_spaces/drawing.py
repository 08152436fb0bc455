"""Pictures of a genotype: its cell as a graph, its path on the trellis.

Uses matplotlib's object-oriented interface only. pyplot would keep global state, choose a window system and leak
figures, none of which suits a picture that is made each epoch of a search, perhaps in a thread.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.cell_layout import CONCAT, cell_layout
from search_spaces.files import write_atomically
from search_spaces.genotype import Genotype, state_names
from search_spaces.operations import NONE, OPERATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_cell", "draw_trellis", "save_figure"]

ENDINGS = (".svg", ".png", ".pdf")
DOTS_PER_INCH = 150
TEXT, LINE, FAINT, STATE, HIGHLIGHT = "#222222", "#666666", "#CCCCCC", "#F2F2F2", "#D55E00"

# The cell, in inches.
BOX_WIDTH, BOX_HEIGHT, OPERATION_WIDTH, OPERATION_HEIGHT = 0.78, 0.5, 1.04, 0.31
PORT, JOIN, GAP, ROW, MARGIN, HEADER, FOOTER = 0.2, 0.26, 0.85, 1.05, 0.3, 0.5, 0.55

Point = tuple[float, float]


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a picture as SVG, PNG or PDF, by the file's ending; the one that was there stays until it is whole.

    Raises:
        ValueError: Another ending.
        OSError: The folder cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"picture {str(path)!r} ends in {ending!r}: expected {', '.join(ENDINGS)}")
    return write_atomically(path, lambda file: figure.savefig(file, format=ending[1:]))


def draw_cell(genotype: Genotype, path: str | Path | None = None) -> Figure:
    """Draws the decoded cell: inputs at the left, a block right of the blocks it reads, the output at the right.

    An operation is a coloured box where its edge enters the block. Lines of one state share a lane; it is faint where
    it only goes on to the output.

    Args:
        genotype: Whose cell to draw.
        path: If given, `save_figure` writes the picture there.
    """
    from matplotlib.patches import Circle

    layout = cell_layout(genotype)
    states = state_names(genotype.space.blocks)
    blocks = dict(zip(states[2:], genotype.cell, strict=True))
    last = len(layout.columns) - 1
    block_width = OPERATION_WIDTH + JOIN + BOX_WIDTH
    left = [MARGIN + (number > 0) * (BOX_WIDTH + GAP) + max(number - 1, 0) * (block_width + GAP)
            for number in range(last + 1)]  # fmt: skip
    right = [x + (BOX_WIDTH if number in (0, last) else block_width) for number, x in enumerate(left)]
    low = min(min(column.values()) for column in layout.heights)
    high = max(max(column.values()) for column in layout.heights)
    families = _families(genotype)
    width = max(right[-1] + MARGIN, 1.45 * len(families) + 2 * MARGIN, 6.0)
    figure, axes = _canvas(width, HEADER + FOOTER + ROW * (high - low + 1))
    shift = (width - right[-1] - MARGIN) / 2  # centres a cell that is narrower than its legend
    left, right = [x + shift for x in left], [x + shift for x in right]

    def y(state: str, number: int) -> float:
        return FOOTER + ROW * (layout.heights[number][state] - low + 0.5)

    for number in range(last + 1):
        for state in layout.columns[number]:
            height = y(state, number)
            if layout.column[state] < number:
                _curve(axes, (left[number], height), (right[number], height), *_lane(layout.last_read[state] > number))
            elif state in blocks:
                block = blocks[state]
                sources = [y(source, number - 1) for source in block.inputs]
                ports = [height + PORT, height - PORT] if sources[0] >= sources[1] else [height - PORT, height + PORT]
                join = right[number] - BOX_WIDTH
                for start, operation, port in zip(sources, block.operations, ports, strict=True):
                    color = OPERATIONS[operation].color
                    _curve(axes, (right[number - 1], start), (left[number], port), color, 2.2)
                    _curve(axes, (left[number] + OPERATION_WIDTH, port), (join, height), color, 2.2)
                    where = (left[number] + OPERATION_WIDTH / 2, port)
                    _box(axes, where, OPERATION_WIDTH, OPERATION_HEIGHT, color, OPERATIONS[operation].label)
                    axes.add_patch(Circle((right[number - 1], start), 0.035, color=LINE, zorder=3, linewidth=0))
                _box(axes, (join + BOX_WIDTH / 2, height), BOX_WIDTH, BOX_HEIGHT, STATE, state, edge=LINE)
            else:
                _box(axes, (left[number] + BOX_WIDTH / 2, height), BOX_WIDTH, BOX_HEIGHT, STATE, state, edge=LINE)
            if number < last and state in layout.columns[number + 1] and state != CONCAT:
                style = _lane(layout.last_read[state] > number + 1)
                _curve(axes, (right[number], height), (left[number + 1], y(state, number + 1)), *style)
            elif number == last - 1 and state in blocks:
                _curve(axes, (right[number], height), (left[last], y(CONCAT, last)), *_lane(False))

    _title(axes, f"{_name(genotype)}: cell", width)
    _legend(axes, families, width)
    if path is not None:
        save_figure(figure, path)
    return figure


def draw_trellis(genotype: Genotype, path: str | Path | None = None) -> Figure:
    """Draws the trellis with the genotype's path: layers from left to right, the finest level at the top.

    With beta a transition is the wider and darker the likelier it is; without, all are thin.

    Args:
        genotype: Whose path to draw.
        path: If given, `save_figure` writes the picture there.
    """
    space = genotype.space
    step = 0.8 if space.layers <= 14 else 0.5 if space.layers <= 60 else 30 / space.layers
    row, radius = 0.75, min(0.15, step / 4)
    header, footer, labels = 0.9, 0.95 if genotype.beta is not None else 0.65, 1.1
    width = max(labels + step * space.layers + 0.5, 6.0)
    figure, axes = _canvas(width, header + footer + row * max(space.levels - 1, 0.5))
    shift = (width - labels - step * space.layers - 0.5) / 2

    def at(layer: int, level: int) -> Point:
        return labels + shift + step * layer, footer + row * (max(space.levels - 1, 0.25) - level)

    _transitions(axes, genotype, at, min(1.0, step / 0.5))
    chosen = {(0, 0), *((layer + 1, level) for layer, level in enumerate(genotype.levels))}
    nodes = [(0, 0), *((layer, level) for layer in range(1, space.layers + 1) for level in space.node_levels(layer))]
    _nodes(axes, [at(*node) for node in nodes if node not in chosen], "#FFFFFF", LINE, radius)
    _nodes(axes, [at(*node) for node in nodes if node in chosen], HIGHLIGHT, HIGHLIGHT, radius)
    _text(axes, (at(0, 0)[0], at(0, 0)[1] + 0.3), "stem")
    for level, stride in enumerate(space.strides):
        label = f"stride {stride}" if level == 0 else str(stride)
        _text(axes, (at(0, level)[0] - 0.3, at(0, level)[1]), label, align="right")
    every = max(1, math.ceil(0.4 / step))
    for layer in range(1, space.layers + 1):
        if layer == 1 or layer % every == 0:
            _text(axes, (at(layer, 0)[0], footer - 0.3), str(layer))
    _text(axes, (at(0, 0)[0], footer - 0.3), "layer")

    probability = ""
    if genotype.beta is not None:
        probability = f", probability {_probability(genotype)}"
        _text(axes, (width / 2, 0.25), "the wider and darker a transition, the likelier", size=10)
    _title(axes, f"{_name(genotype)}: path{probability}", width)
    if path is not None:
        save_figure(figure, path)
    return figure


def _transitions(axes: Axes, genotype: Genotype, at: Any, scale: float) -> None:
    """All edges of the trellis as one collection (a search draws this each epoch), the path's on top of it."""
    from matplotlib.collections import LineCollection

    space = genotype.space
    segments, widths, greys, path_segments = [], [], [], []
    levels = (0, *genotype.levels)
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            for target in space.transitions(layer, level):
                segment = [at(layer, level), at(layer + 1, target)]
                probability = 0.2 if genotype.beta is None else float(genotype.beta[layer, level, target - level + 1])
                segments.append(segment)
                widths.append(scale * (0.7 + 3.3 * min(probability, 1.0)))
                greys.append(str(round(0.82 - 0.67 * min(probability, 1.0), 3)))
                if (levels[layer], levels[layer + 1]) == (level, target):
                    path_segments.append(segment)
    axes.add_collection(LineCollection(segments, linewidths=widths, colors=greys, zorder=1, capstyle="round"))
    # A wide translucent line: what it highlights, and how wide that is, stays visible.
    axes.add_collection(
        LineCollection(path_segments, linewidths=10 * scale, colors=HIGHLIGHT, alpha=0.45, zorder=2, capstyle="round")
    )


def _nodes(axes: Axes, points: Sequence[Point], face: str, edge: str, radius: float) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    circles = [Circle(point, radius) for point in points]
    axes.add_collection(PatchCollection(circles, facecolor=face, edgecolor=edge, linewidth=1.2, zorder=3))


def _probability(genotype: Genotype) -> str:
    """The path's probability to three digits, however small."""
    assert genotype.beta is not None
    levels = (0, *genotype.levels)
    logarithm = 0.0
    for layer, (level, target) in enumerate(pairwise(levels)):
        probability = float(genotype.beta[layer, level, target - level + 1])
        if probability == 0:
            return "0"
        logarithm += math.log10(probability)
    if logarithm > -4:
        return f"{10**logarithm:.3g}"
    exponent = math.floor(logarithm)
    return f"{10 ** (logarithm - exponent):.2f}e{exponent}"


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure whose data coordinates are inches from its lower left corner, so that boxes fit their text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def _box(axes: Axes, center: Point, width: float, height: float, color: str, label: str, edge: str = "none") -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (center[0] - width / 2, center[1] - height / 2)
    style = f"round,pad=0,rounding_size={0.07 if edge == 'none' else 0.12}"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color, edgecolor=edge, zorder=4))
    _text(axes, center, label, color=_ink(color))


def _curve(axes: Axes, start: Point, end: Point, color: str, width: float) -> None:
    """A curve that leaves and arrives level."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    middle = (start[0] + end[0]) / 2
    outline = Outline([start, (middle, start[1]), (middle, end[1]), end], [1, 4, 4, 4])  # move, then one cubic Bezier
    axes.add_patch(PathPatch(outline, facecolor="none", edgecolor=color, linewidth=width, zorder=1, capstyle="round"))


def _lane(still_read: bool) -> tuple[str, float]:
    return (LINE, 1.6) if still_read else (FAINT, 1.2)


def _text(axes: Axes, where: Point, text: str, size: float = 11, color: str = TEXT, align: str = "center") -> None:
    # A space's name is a stranger's text: no mathematics is read in it.
    axes.text(*where, text, fontsize=size, color=color, ha=align, va="center",
              zorder=5, parse_math=False)  # fmt: skip


def _title(axes: Axes, text: str, width: float) -> None:
    _text(axes, (width / 2, axes.get_ylim()[1] - 0.28), text, size=13)


def _name(genotype: Genotype) -> str:
    text = "".join(character if character.isprintable() else " " for character in genotype.space.name)
    return textwrap.shorten(text, 60, placeholder="...") or "unnamed"


def _ink(color: str) -> str:
    """Black or white, whichever stands out more against `color` (relative luminance, WCAG 2)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#FFFFFF" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _families(genotype: Genotype) -> list[tuple[str, str]]:
    """(colour, names) of the space's families of operations: those of one colour, without their kernel sizes.

    Names that end alike are one: average smoothed atrous, Gaussian smoothed atrous, ... are smoothed atrous.
    """
    families: dict[str, list[str]] = {}
    for name in genotype.space.operations:
        if name != NONE:
            family = re.sub(r"_\d+x\d+$", "", name).replace("_", " ")
            names = families.setdefault(OPERATIONS[name].color, [])
            if family not in names:
                names.append(family)
    return [(color, _common_ending(names) or ", ".join(names)) for color, names in families.items()]


def _common_ending(names: list[str]) -> str:
    """The words with which all names end."""
    ending: list[str] = []
    for words in zip(*(reversed(name.split()) for name in names), strict=False):
        if len(set(words)) > 1:
            break
        ending.insert(0, words[0])
    return " ".join(ending)


def _legend(axes: Axes, families: list[tuple[str, str]], width: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    sizes = [0.5 + 0.074 * len(names) for _, names in families]
    x = (width - sum(sizes)) / 2
    for (color, names), size in zip(families, sizes, strict=True):
        style = "round,pad=0,rounding_size=0.04"
        axes.add_patch(FancyBboxPatch((x, 0.2), 0.16, 0.16, boxstyle=style, facecolor=color, edgecolor="none"))
        _text(axes, (x + 0.22, 0.28), names, size=10, align="left")
        x += size
