"""What decodings cost, as a table: no torch here, whoever builds networks fills it in.

The cost of a decoded network is a sum. The path alone settles what surrounds the operations (`Step.costs`, `ends`);
each operation of the cell adds, in each layer, what it costs at that place. A *place* is a level together with whether
a cell there halves its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

from decoders.labels import Costs
from search_spaces.genotype import Block

__all__ = ["CELL_INPUTS", "CostTable", "Kind", "Step", "kinds_of"]

CELL_INPUTS = ("l-2", "l-1")

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
