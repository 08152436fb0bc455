"""Costs of decodings as a table, and labels: unfinished decodings that can still be among the best.

The cost of a decoded network is a sum. The path alone determines the costs around the operations (`Step.costs`,
`ends`); each operation of the cell adds its cost at the place of each layer. A *place* is a level together with whether
a cell there halves its inputs. No torch here: the packages that build networks fill in the table.

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
    """A step from a state into a layer."""

    state: int
    """The next state."""
    place: int
    """Place of the layer's operations: an index of `CostTable.operations`."""
    costs: Costs
    """Costs that do not depend on the cell: projections, resizing, the sums of its blocks."""


@dataclass(frozen=True)
class CostTable:
    """Costs of every network of a space, as whole numbers; state 0 is the stem."""

    names: tuple[str, ...]
    """Names of the costs, such as "multiply_adds"; all costs are in this order."""
    levels: tuple[int, ...]
    """The level of each state."""
    steps: tuple[tuple[Step, ...], ...]
    """Steps from each state, the finest level first, at most one to each level."""
    ends: tuple[Costs, ...]
    """Costs of the stem and of the head behind each state."""
    operations: Mapping[Kind, tuple[Costs, ...]]
    """Costs of each kind of operation at each place."""

    def cost(self, cell: Sequence[Block], levels: Sequence[int]) -> Costs:
        """Costs of the network of a cell and a path.

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
        """Costs of a path without the operations of its cells, and the place of each layer.

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
    first, second = ((block.operations[branch], block.inputs[branch] in CELL_INPUTS) for branch in range(2))
    return first, second


Costs = tuple[int, ...]
"""Integers that add up along a decoding; may be empty."""

MAX_LABELS = 200_000
"""Labels at one place of a decoding; with more, it would take too long and is refused."""


class Label(NamedTuple):
    """A decoding up to some place."""

    value: int
    """Product of its probabilities times a power of two that all labels at that place share."""
    costs: Costs
    """Costs so far."""
    choice: tuple[int, ...]
    """Choices in order; of equally probable labels the lexicographically smallest comes first."""

    @property
    def rank(self) -> tuple[int, tuple[int, ...]]:
        """Sorts labels: the most probable first."""
        return -self.value, self.choice


def best_labels(labels: list[Label], count: int) -> list[Label]:
    """The labels from which the `count` best decodings may come, the best first.

    A label is left out if `count` labels before it cost at most as much in every respect: they can continue as it can.
    Without costs these are the first `count` labels; with `count` = 1 they are the Pareto front.

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
