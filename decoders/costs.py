"""What decodings cost, as a table: no torch here, whoever builds networks fills it in.

The cost of a decoded network is a sum. The path alone settles what surrounds the operations (`Step.costs`, `ends`);
each operation of the cell adds, in each layer, what it costs at that place. A *place* is a level together with whether
a cell there halves its inputs.

Labels: unfinished decodings with their probability and costs, and which of them can still be among the best.

Label-setting with dominance is the textbook method for shortest paths under resource limits (Irnich and Desaulniers,
2005, "Shortest path problems with resource constraints", section 4). All numbers are integers: nothing is rounded.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

import numpy as np

from search_spaces.genotype import CELL_INPUTS, Block

__all__ = ["CostTable", "Costs", "Kind", "Label", "MAX_LABELS", "Step", "best_labels", "check_effort", "kinds_of"]


Kind = tuple[str, bool]
"""An operation by name, and whether it reads an input of the cell: that one is halved where the path goes coarser."""


class Step(NamedTuple):
    """From a state into a layer."""

    state: int
    """The state that it leads to."""
    place: int
    """Where the layer's operations work: an index of `CostTable.operations`."""
    costs: Costs
    """Of all that is there whatever the cell: projections, resizing, the sums of its blocks."""


@dataclass(frozen=True)
class CostTable:
    """Costs of every network that a space has, as whole numbers; state 0 is the stem."""

    names: tuple[str, ...]
    """What is counted, such as "multiply_adds"; all costs are in this order."""
    levels: tuple[int, ...]
    """The level of each state."""
    steps: tuple[tuple[Step, ...], ...]
    """From each state, the finest level first, at most one for each level."""
    ends: tuple[Costs, ...]
    """Of the head behind each state, and of the stem."""
    operations: Mapping[Kind, tuple[Costs, ...]]
    """Of each kind of operation, at each place."""

    def cost(self, cell: Sequence[Block], levels: Sequence[int]) -> Costs:
        """What the network of a cell and a path costs.

        Raises:
            ValueError: The table has no such step or operation.
        """
        total, places = self.surroundings(levels)
        kinds = [kind for block in cell for kind in kinds_of(block)]
        for kind in kinds:
            if kind not in self.operations:
                raise ValueError(f"the table of costs has no operation {kind[0]}: make it for that space")
        for place in places:
            for kind in kinds:
                total = tuple(map(add, total, self.operations[kind][place]))
        return total

    def surroundings(self, levels: Sequence[int]) -> tuple[Costs, list[int]]:
        """What a path costs without the operations of its cells, and the place of each layer.

        Raises:
            ValueError: The table has no such step.
        """
        total, state, places = (0,) * len(self.names), 0, []
        for number, level in enumerate(levels):
            step = next((step for step in self.steps[state] if self.levels[step.state] == level), None)
            if step is None:
                raise ValueError(f"levels[{number}] is {level}: the table of costs has no such step")
            total, state = tuple(map(add, total, step.costs)), step.state
            places.append(step.place)
        return tuple(map(add, total, self.ends[state])), places


def kinds_of(block: Block) -> tuple[Kind, Kind]:
    """The kinds of a block's two operations."""
    first, second = (
        (operation, source in CELL_INPUTS) for source, operation in zip(block.inputs, block.operations, strict=True)
    )
    return first, second


Costs = tuple[int, ...]
"""Integers that add up along a decoding; may be empty."""

MAX_LABELS = 200_000
"""Labels at one place of a decoding that are still sorted; beyond, it is refused rather than waited for."""


class Label(NamedTuple):
    """A decoding up to some place."""

    value: int
    """Product of its probabilities, over a power of two that all labels at that place share."""
    costs: Costs
    """What it has cost so far."""
    choice: tuple[int, ...]
    """What was chosen, in order; of equally probable labels the lexicographically smallest comes first."""

    @property
    def rank(self) -> tuple[int, tuple[int, ...]]:
        """Sorts labels: the most probable first."""
        return -self.value, self.choice


def best_labels(labels: list[Label], count: int) -> list[Label]:
    """The labels from which the `count` best decodings may come, the best first.

    A label is left out if `count` labels that come before it cost at most as much in every respect: whatever it goes on
    with, they can go on with, too. Without costs these are the first `count`; with `count` = 1 it is the Pareto front.

    Args:
        labels: All at the same place, so that the same may follow.
        count: At least 1.
    """
    labels = sorted(labels, key=lambda label: label.rank)
    if len(labels) <= count:
        return labels
    dimensions = len(labels[0].costs)
    if dimensions == 0:
        return labels[:count]
    return _by_one_cost(labels, count) if dimensions == 1 else _by_several_costs(labels, count)


def _by_one_cost(labels: list[Label], count: int) -> list[Label]:
    kept, cheapest = [], list[int]()  # the `count` smallest costs so far, ascending
    for label in labels:
        cost = label.costs[0]
        if bisect_right(cheapest, cost) >= count:
            continue
        kept.append(label)
        insort(cheapest, cost)
        del cheapest[count:]
    return kept


def _by_several_costs(labels: list[Label], count: int) -> list[Label]:
    costs = np.array([label.costs for label in labels], dtype=np.int64).T.copy()  # [costs, labels]
    left, dominators = np.arange(len(labels)), np.zeros(len(labels), dtype=np.int64)  # dominators: among those kept
    kept = []
    while len(left):
        kept.append(labels[left[0]])
        dominators = dominators[1:] + (costs[:, 1:] >= costs[:, :1]).all(axis=0)
        left, costs = left[1:], costs[:, 1:]
        open_ = dominators < count
        if not open_.all():
            left, costs, dominators = left[open_], costs[:, open_], dominators[open_]
    return kept


def check_effort(labels: int) -> None:
    """Refuses a decoding that would take too long.

    Raises:
        ValueError: There are more than `MAX_LABELS`.
    """
    if labels > MAX_LABELS:
        raise ValueError(
            f"more than {MAX_LABELS:,} unfinished decodings at one place, none of which rules out another: ask for "
            "fewer candidates, give one limit instead of several, or vary the path or the cell alone"
        )
