"""Picture of a genotype's cell as a graph.

The layout is layered (Sugiyama et al., 1981): a block is one column right of the last of its inputs. A state that is
read further right gets a lane, a slot of its own, in every column that it passes, so that no line runs behind a block;
all its readers share the lane. Heights follow from the order within each column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

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

__all__ = ["CONCAT", "CellLayout", "cell_layout", "draw_cell", "draw_legend", "operation_families"]


FAINT, STATE = "#CCCCCC", "#F2F2F2"
STATE_ROUNDING = 0.12  # inches; an operation is less round

# In inches.
BOX_WIDTH, BOX_HEIGHT, OPERATION_WIDTH, OPERATION_HEIGHT = 0.78, 0.5, 1.04, 0.31
PORT, JOIN, GAP, ROW, MARGIN, HEADER, FOOTER = 0.2, 0.26, 0.85, 1.05, 0.3, 0.5, 0.55


def draw_cell(genotype: Genotype, path: str | Path | None = None, title: str | None = None) -> Figure:
    """Draws the decoded cell: inputs at the left, a block right of the blocks it reads, the output at the right.

    An operation is a coloured box where its edge enters the block. Lines of one state share a lane; it is faint where
    it only leads to the output.

    Args:
        genotype: Genotype whose cell is drawn.
        path: If given, `save_figure` writes the picture there.
        title: Replaces the space's name and "cell".
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
                style = _lane(layout.last_read[state] > number)
                draw_curve(axes, (left[number], height), (right[number], height), *style)
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
            if layout.column[state] == number:
                center = (right[number] - BOX_WIDTH / 2, height)
                draw_box(axes, center, BOX_WIDTH, BOX_HEIGHT, STATE, state, LINE, STATE_ROUNDING)
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
    """(colour, names) of the space's families of operations: a family has one colour; kernel sizes are left out.

    Names with the same ending become one: average smoothed atrous, Gaussian smoothed atrous, ... -> smoothed atrous.
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
    """The words that all names end in."""
    columns = zip(*(reversed(name.split()) for name in names), strict=False)
    common = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, columns)]
    return " ".join(reversed(common))


def draw_legend(axes: Axes, families: list[tuple[str, str]], width: float) -> None:
    """Draws a row of colours and names at the bottom of a canvas that is `width` inches wide."""
    sizes = [0.5 + 0.074 * len(names) for _, names in families]
    x = (width - sum(sizes)) / 2
    for (color, names), size in zip(families, sizes, strict=True):
        draw_box(axes, (x + 0.08, 0.28), 0.16, 0.16, color, "", rounding=0.04)
        draw_text(axes, (x + 0.22, 0.28), names, size=10, align="left")
        x += size


CONCAT = "concat"
"""Name of the cell's output."""

BLOCK_HEIGHT, LANE_HEIGHT, SWEEPS = 1.0, 0.4, 12


@dataclass(frozen=True)
class CellLayout:
    """Columns from left to right: column 0 holds the cell's inputs, the last one its output."""

    columns: tuple[tuple[str, ...], ...]
    """States in each column from bottom to top, including those on lanes; the output is `CONCAT`."""
    heights: tuple[dict[str, float], ...]
    """Height of the centre of each state, for each column."""
    column: dict[str, int]
    """Column that computes each state; in others it is on a lane."""
    last_read: dict[str, int]
    """Last column where a block reads the state, else its own column; further right it only leads to the output."""


def cell_layout(genotype: Genotype) -> CellLayout:
    """Lays out the cell of `genotype`."""
    states = state_names(genotype.space.blocks)
    inputs: dict[str, Sequence[str]] = {
        state: block.inputs for state, block in zip(states[2:], genotype.cell, strict=True)
    }
    column = dict.fromkeys(states[:2], 0)
    last_read = dict(column)
    for state, sources in inputs.items():
        column[state] = last_read[state] = 1 + max(column[source] for source in sources)
        for source in sources:
            last_read[source] = max(last_read[source], column[state])
    column[CONCAT] = last_read[CONCAT] = 1 + max(column.values())
    inputs[CONCAT] = states[2:]

    def present(state: str, number: int) -> bool:
        end = last_read[state] if state in states[:2] else column[CONCAT]
        return column[state] == number or column[state] < number < end

    # Bottom to top, so that without a reason for another order the first state is at the top.
    columns = [[state for state in reversed(column) if present(state, number)] for number in range(column[CONCAT] + 1)]
    readers = [
        {state: _readers(state, number, column, inputs, columns) for state in columns[number]}
        for number in range(len(columns))
    ]
    columns = _fewest_crossings(columns, readers)
    heights = _heights(columns, readers, column)
    return CellLayout(tuple(map(tuple, columns)), tuple(heights), column, last_read)


def _readers(
    state: str, number: int, column: dict[str, int], inputs: dict[str, Sequence[str]], columns: list[list[str]]
) -> list[str]:
    """The targets of the line of `state` in the column after `number`: its next lane and the blocks that read it."""
    if number + 1 == len(columns):
        return []
    return [
        other
        for other in columns[number + 1]
        if other == state or (column[other] == number + 1 and state in inputs.get(other, ()))
    ]


def _fewest_crossings(columns: list[list[str]], readers: list[dict[str, list[str]]]) -> list[list[str]]:
    """Sweeps right and left, sorting each column by the mean place of its neighbours; keeps the best order met."""
    best, fewest = [list(states) for states in columns], _crossings(columns, readers)
    for sweep in range(SWEEPS):
        numbers = range(1, len(columns)) if sweep % 2 == 0 else range(len(columns) - 2, -1, -1)
        for number in numbers:
            neighbour = number - 1 if sweep % 2 == 0 else number + 1
            place = {state: position for position, state in enumerate(columns[neighbour])}
            mean = {
                state: _mean([place[other] for other in _neighbours(state, number, neighbour, readers)], default=0.0)
                for state in columns[number]
            }
            columns[number] = sorted(columns[number], key=mean.__getitem__)
        crossings = _crossings(columns, readers)
        if crossings < fewest:
            best, fewest = [list(states) for states in columns], crossings
    return best


def _neighbours(state: str, number: int, neighbour: int, readers: list[dict[str, list[str]]]) -> list[str]:
    if neighbour > number:
        return readers[number][state]
    return [source for source, targets in readers[neighbour].items() if state in targets]


def _crossings(columns: list[list[str]], readers: list[dict[str, list[str]]]) -> int:
    total = 0
    for number in range(len(columns) - 1):
        place = {state: position for position, state in enumerate(columns[number + 1])}
        lines = [(i, place[target]) for i, state in enumerate(columns[number]) for target in readers[number][state]]
        total += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for k, a in enumerate(lines) for b in lines[:k])
    return total


def _heights(
    columns: list[list[str]], readers: list[dict[str, list[str]]], column: dict[str, int]
) -> list[dict[str, float]]:
    """Moves every state towards the mean height of its neighbours, keeping order and distances."""

    def size(state: str, number: int) -> float:
        return BLOCK_HEIGHT if column[state] == number else LANE_HEIGHT

    offsets = []  # of each state above the lowest of its column, where they stand as close as they may
    for number, states in enumerate(columns):
        offset, height = [0.0], 0.0
        for below, above in pairwise(states):
            height += (size(below, number) + size(above, number)) / 2
            offset.append(height)
        offsets.append(offset)
    heights = [
        {state: offset[i] - offset[-1] / 2 for i, state in enumerate(states)}
        for states, offset in zip(columns, offsets, strict=True)
    ]
    for sweep in range(2 * SWEEPS):
        numbers = range(len(columns)) if sweep % 2 == 0 else range(len(columns) - 1, -1, -1)
        for number in numbers:
            wanted = []
            for state in columns[number]:
                near = [
                    heights[neighbour][other]
                    for neighbour in (number - 1, number + 1)
                    if 0 <= neighbour < len(columns)
                    for other in _neighbours(state, number, neighbour, readers)
                ]
                wanted.append(_mean(near, default=heights[number][state]))
            spread = _ascending([want - offset for want, offset in zip(wanted, offsets[number], strict=True)])
            heights[number] = {
                state: base + offset
                for state, base, offset in zip(columns[number], spread, offsets[number], strict=True)
            }
    return heights


def _ascending(values: list[float]) -> list[float]:
    """The nearest non-decreasing sequence in least squares (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return [value for value, number in pools for _ in range(number)]


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
