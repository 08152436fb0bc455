"""Where the parts of a decoded cell go in a picture: columns by dependency, lanes for what passes a column.

A layered layout (Sugiyama et al., 1981): a block stands one column right of the last of its inputs. A state that is
read further right gets a lane, a slot of its own, in every column that it passes, so that no line runs behind a block;
all that read it share the lane. Heights then follow from the order within each column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from search_spaces.genotype import Genotype, state_names

__all__ = ["CONCAT", "CellLayout", "cell_layout"]

CONCAT = "concat"
"""Name of the cell's output."""

BLOCK_HEIGHT, LANE_HEIGHT, SWEEPS = 1.0, 0.4, 12


@dataclass(frozen=True)
class CellLayout:
    """Columns from left to right: 0 holds the cell's inputs, the last one its output."""

    columns: tuple[tuple[str, ...], ...]
    """The states in each column from bottom to top, those on lanes included; the output is `CONCAT`."""
    heights: tuple[dict[str, float], ...]
    """For each column, the height of each of its states' centres."""
    column: dict[str, int]
    """The column where each state is made; elsewhere it is on a lane."""
    last_read: dict[str, int]
    """The last column where a block reads the state, its own column if none does; further right it only goes to the
    output."""


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
    """What the line of `state` leads to in the column after `number`: its next lane and the blocks that read it."""
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
