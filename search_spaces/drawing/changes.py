"""Picture of a search's progress: the path and the cell after some of its epochs, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.drawing.canvas import (
    Point,
    canvas,
    draw_box,
    draw_curve,
    draw_text,
    draw_title,
    save_figure,
    space_name,
)
from search_spaces.drawing.cell import draw_legend, operation_families
from search_spaces.drawing.trellis import draw_trellis_graph, path_probability_text
from search_spaces.genotype import Genotype
from search_spaces.operations import OPERATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_changes"]

COLUMNS = 4
"""Trellises next to each other."""

# In inches.
PANEL_WIDTH, PANEL_GAP, CAPTION, ROW = 2.45, 0.3, 0.4, 0.3
LABELS, ENTRY_WIDTH, ENTRY_HEIGHT, BOX_HEIGHT = 0.9, 1.2, 0.62, 0.31
HEADER, FOOTER, MARGIN, BETWEEN, LINE = 1.15, 0.55, 0.3, 0.85, 0.27

CHANGED = "#000000"


def draw_changes(epochs: Sequence[tuple[int, Genotype]], path: str | Path | None = None) -> Figure:
    """Draws the trellis of each epoch, and below a table of the cells: a column an epoch, a row an edge of the cell.

    An entry of the table is the operation, coloured by its family, over the name of what it reads. It is framed where
    it differs from the entry to its left.

    Args:
        epochs: (epochs done, genotype) in order, all of one space; up to about eight are legible.
        path: If given, `save_figure` writes the picture there.

    Raises:
        ValueError: There are no epochs, or their spaces differ.
    """
    if not epochs:
        raise ValueError("there is no epoch to draw: let the search finish one")
    first = epochs[0][1]
    space = first.space
    if any(genotype.space != space for _, genotype in epochs):
        raise ValueError("the epochs are of different search spaces: give those of one search")
    columns = min(COLUMNS, len(epochs))
    panel_height = CAPTION + ROW * max(space.levels, 2)
    trellises = math.ceil(len(epochs) / columns) * panel_height
    table = ENTRY_HEIGHT * 2 * space.blocks + CAPTION
    families = operation_families(first)
    width = 2 * MARGIN + max(
        columns * PANEL_WIDTH + (columns - 1) * PANEL_GAP,
        LABELS + ENTRY_WIDTH * len(epochs),
        sum(0.5 + 0.074 * len(names) for _, names in families),
        5.7,
    )
    figure, axes = canvas(width, HEADER + trellises + BETWEEN + table + FOOTER)

    left = (width - columns * PANEL_WIDTH - (columns - 1) * PANEL_GAP) / 2
    top = FOOTER + table + BETWEEN + trellises
    for number, (epoch, genotype) in enumerate(epochs):
        row, column = divmod(number, columns)
        corner = (left + column * (PANEL_WIDTH + PANEL_GAP), top - row * panel_height)
        _panel(axes, f"epoch {epoch}", genotype, corner)
    note = "the cell: operations, each over what it reads; framed: not as in the column before"
    draw_text(axes, (width / 2, FOOTER + table + BETWEEN / 3), note, size=10)
    _table(axes, epochs, ((width - LABELS - ENTRY_WIDTH * len(epochs)) / 2, FOOTER + table))
    draw_legend(axes, families, width)
    ends = f"stride {space.strides[0]}"
    if space.levels > 1:
        ends = f"strides {space.strides[0]} to {space.strides[-1]} from top to bottom"
    color = "orange: the path" + ("" if first.beta is None else ", p: its probability; wide and dark: likely")
    for number, line in enumerate((f"stem and layers from left to right, {ends}", color)):
        draw_text(axes, (width / 2, axes.get_ylim()[1] - 0.62 - LINE * number), line, size=10)
    draw_title(axes, f"{space_name(first)}: path and cell over the search", width)
    if path is not None:
        save_figure(figure, path)
    return figure


def _panel(axes: Axes, caption: str, genotype: Genotype, corner: Point) -> None:
    """One trellis below its caption; `corner` is at the upper left."""
    space = genotype.space
    step = PANEL_WIDTH / (space.layers + 1)

    def at(layer: int, level: int) -> Point:
        return corner[0] + step * (layer + 0.5), corner[1] - CAPTION - ROW * (level + 0.25)

    if genotype.beta is not None:
        caption += f", p = {path_probability_text(genotype)}"
    draw_text(axes, (corner[0] + PANEL_WIDTH / 2, corner[1] - CAPTION / 2), caption)
    draw_trellis_graph(axes, genotype, at, min(0.6, 2.2 * step), min(0.07, step / 4))


def _table(axes: Axes, epochs: Sequence[tuple[int, Genotype]], corner: Point) -> None:
    """The cells' edges below the epochs; `corner` is at the upper left."""
    x, y = corner
    for number in range(epochs[0][1].space.blocks):
        height = y - CAPTION - ENTRY_HEIGHT * (2 * number + 1)
        draw_text(axes, (x, height), f"block{number + 1}", align="left")
        if number > 0:
            end = x + LABELS + ENTRY_WIDTH * len(epochs)
            draw_curve(axes, (x, height + ENTRY_HEIGHT), (end, height + ENTRY_HEIGHT), "#DDDDDD", 1.0)
    before: list[tuple[str, str]] = []
    for column, (epoch, genotype) in enumerate(epochs):
        center = x + LABELS + ENTRY_WIDTH * (column + 0.5)
        draw_text(axes, (center, y - CAPTION / 2), f"epoch {epoch}")
        edges = [edge for block in genotype.cell for edge in zip(block.inputs, block.operations, strict=True)]
        for row, (source, name) in enumerate(edges):
            height = y - CAPTION - ENTRY_HEIGHT * (row + 0.5)
            operation = OPERATIONS[name]
            frame = CHANGED if before and before[row] != (source, name) else "none"
            draw_box(axes, (center, height + 0.1), ENTRY_WIDTH - 0.14, BOX_HEIGHT, operation.color,
                     operation.label, edge=frame, line=2.0)  # fmt: skip
            draw_text(axes, (center, height - 0.17), source, size=10)
        before = edges
