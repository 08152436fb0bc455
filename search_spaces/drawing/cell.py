"""A genotype's cell as a graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.cell_layout import CONCAT, cell_layout
from search_spaces.drawing.canvas import (
    LINE,
    canvas,
    draw_box,
    draw_curve,
    draw_text,
    draw_title,
    save_figure,
    space_name,
)
from search_spaces.genotype import Genotype, state_names
from search_spaces.operations import NONE, OPERATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_cell", "draw_legend", "operation_families"]

FAINT, STATE = "#CCCCCC", "#F2F2F2"
STATE_ROUNDING = 0.12  # inches; an operation is less round

# In inches.
BOX_WIDTH, BOX_HEIGHT, OPERATION_WIDTH, OPERATION_HEIGHT = 0.78, 0.5, 1.04, 0.31
PORT, JOIN, GAP, ROW, MARGIN, HEADER, FOOTER = 0.2, 0.26, 0.85, 1.05, 0.3, 0.5, 0.55


def draw_cell(genotype: Genotype, path: str | Path | None = None, title: str | None = None) -> Figure:
    """Draws the decoded cell: inputs at the left, a block right of the blocks it reads, the output at the right.

    An operation is a coloured box where its edge enters the block. Lines of one state share a lane; it is faint where
    it only goes on to the output.

    Args:
        genotype: Whose cell to draw.
        path: If given, `save_figure` writes the picture there.
        title: In place of the space's name and "cell".
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
    families = operation_families(genotype)
    width = max(right[-1] + MARGIN, 1.45 * len(families) + 2 * MARGIN, 6.0)
    figure, axes = canvas(width, HEADER + FOOTER + ROW * (high - low + 1))
    shift = (width - right[-1] - MARGIN) / 2  # centres a cell that is narrower than its legend
    left, right = [x + shift for x in left], [x + shift for x in right]

    def y(state: str, number: int) -> float:
        return FOOTER + ROW * (layout.heights[number][state] - low + 0.5)

    for number in range(last + 1):
        for state in layout.columns[number]:
            height = y(state, number)
            if layout.column[state] < number:
                draw_curve(
                    axes, (left[number], height), (right[number], height), *_lane(layout.last_read[state] > number)
                )
            elif state in blocks:
                block = blocks[state]
                sources = [y(source, number - 1) for source in block.inputs]
                ports = [height + PORT, height - PORT] if sources[0] >= sources[1] else [height - PORT, height + PORT]
                join = right[number] - BOX_WIDTH
                for start, operation, port in zip(sources, block.operations, ports, strict=True):
                    color = OPERATIONS[operation].color
                    draw_curve(axes, (right[number - 1], start), (left[number], port), color, 2.2)
                    draw_curve(axes, (left[number] + OPERATION_WIDTH, port), (join, height), color, 2.2)
                    where = (left[number] + OPERATION_WIDTH / 2, port)
                    draw_box(axes, where, OPERATION_WIDTH, OPERATION_HEIGHT, color, OPERATIONS[operation].label)
                    axes.add_patch(Circle((right[number - 1], start), 0.035, color=LINE, zorder=3, linewidth=0))
                draw_box(
                    axes, (join + BOX_WIDTH / 2, height), BOX_WIDTH, BOX_HEIGHT, STATE, state, LINE, STATE_ROUNDING
                )
            else:
                draw_box(
                    axes,
                    (left[number] + BOX_WIDTH / 2, height),
                    BOX_WIDTH,
                    BOX_HEIGHT,
                    STATE,
                    state,
                    LINE,
                    STATE_ROUNDING,
                )
            if number < last and state in layout.columns[number + 1] and state != CONCAT:
                style = _lane(layout.last_read[state] > number + 1)
                draw_curve(axes, (right[number], height), (left[number + 1], y(state, number + 1)), *style)
            elif number == last - 1 and state in blocks:
                draw_curve(axes, (right[number], height), (left[last], y(CONCAT, last)), *_lane(False))

    draw_title(axes, title or f"{space_name(genotype)}: cell", width)
    draw_legend(axes, families, width)
    if path is not None:
        save_figure(figure, path)
    return figure


def _lane(still_read: bool) -> tuple[str, float]:
    return (LINE, 1.6) if still_read else (FAINT, 1.2)


def operation_families(genotype: Genotype) -> list[tuple[str, str]]:
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


def draw_legend(axes: Axes, families: list[tuple[str, str]], width: float) -> None:
    """A row of colours and names at the bottom of a canvas that is `width` inches wide."""
    from matplotlib.patches import FancyBboxPatch

    sizes = [0.5 + 0.074 * len(names) for _, names in families]
    x = (width - sum(sizes)) / 2
    for (color, names), size in zip(families, sizes, strict=True):
        style = "round,pad=0,rounding_size=0.04"
        axes.add_patch(FancyBboxPatch((x, 0.2), 0.16, 0.16, boxstyle=style, facecolor=color, edgecolor="none"))
        draw_text(axes, (x + 0.22, 0.28), names, size=10, align="left")
        x += size
