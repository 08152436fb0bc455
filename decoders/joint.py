"""The search for the best networks under limits, and for the Pareto front: path and cell together, exactly.

A network is a path and a cell; its probability is the product of theirs. The costs of a cell depend on the path, so
neither can be decoded before the other. The search first finds the walks that some cell can make the best: of two walks
in the same state, the less probable one is dropped if it costs at least as much with any cell. Then it finds the best
cells for each walk within the rest of the limits, the most probable walk first, until no later walk can win.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add
from typing import Literal, NamedTuple, get_args

import numpy as np

from decoders.cell import Choice, block_choices, greedy_cell
from decoders.costs import Costs, CostTable, Kind, Label, best_labels, check_effort, kinds_of
from decoders.path import NO_PATH, exact_factors, viterbi
from decoders.trellis import Trellis, best_walks, likeliest_ahead, plain_trellis

__all__ = ["Found", "Relaxed", "Search", "Vary"]

Vary = Literal["both", "path", "cell"]
"""What may differ from the paper's decoding: both, the path alone (with the greedy cell), or the cell alone (on the
Viterbi path)."""

NARROW = (1, 3, 7, 15, 31)
"""Under limits, the search covers networks up to 2, 8, ... times less probable than the best, then all."""


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Probabilities to decode, with the names and shapes of `Genotype`'s fields."""

    alpha: np.ndarray
    """[edges, operations]"""
    beta: np.ndarray
    """[layers, levels, 3]"""
    operations: Sequence[str]
    """Names of alpha's columns."""
    edge_weights: np.ndarray | None = None
    """[edges], or None."""


class Found(NamedTuple):
    """A network; sorts by probability, then path, then cell."""

    negative: int
    """Minus its probability, over a power of two and the blocks' totals."""
    levels: tuple[int, ...]
    cell: tuple[int, ...]
    """Index of each block's choice."""


class _Option(NamedTuple):
    number: int
    """Index among the block's choices."""
    value: int
    kinds: tuple[Kind, Kind]


class Search:
    """Searches for the best networks.

    Args:
        relaxed: Probabilities to decode.
        table: Costs of networks, or None.
        names: Names of the costs that count.
        vary: What may differ from the paper's decoding.

    Raises:
        ValueError: An argument is wrong, or a block has no choice of positive probability.
    """

    def __init__(self, relaxed: Relaxed, table: CostTable | None, names: tuple[str, ...], vary: Vary) -> None:
        if vary not in get_args(Vary):
            raise ValueError(f"vary is {vary!r}: give one of {', '.join(get_args(Vary))}")
        for name in names:
            if table is None or name not in table.names:
                known = ", ".join(table.names) if table else "none: give a table"
                raise ValueError(f"there is no cost {name!r}: the costs are {known}")
        self.table, self.used = table, [table.names.index(name) for name in names] if table else []
        self.factors, self.exponent = exact_factors(relaxed.beta)
        self.blocks = block_choices(relaxed.alpha, relaxed.operations, relaxed.edge_weights)
        self.scored = all(block.choices for block in self.blocks)
        if vary == "path":
            cell = greedy_cell(relaxed.alpha, relaxed.operations, relaxed.edge_weights)
            self.choices: list[Sequence[Choice]] = [(Choice(1, block),) for block in cell]
        else:
            self.choices = [block.choices for block in self.blocks]
        if vary == "cell":
            self.factors = _only(self.factors, viterbi(relaxed.beta).levels)
        for number, choices in enumerate(self.choices, start=1):
            if not choices:
                raise ValueError(
                    f"alpha leaves block{number} fewer than two inputs with an operation of positive probability: "
                    "the greedy cell is the only one; vary the path alone"
                )
        self.likeliest = math.prod(choices[0].value for choices in self.choices)

    def best(self, count: int, limits: Costs) -> list[Found]:
        """The best `count` networks; starts with the most probable: if these suffice, far fewer labels are made."""
        top = likeliest_ahead(self.factors)[0][0] * self.likeliest
        found: list[Found] = []
        if count > 1 and len(limits) > 1 and not self.best(1, limits):
            return []  # with several limits, it is far faster to prove this for one network than for many
        for bar in (*(top >> halvings for halvings in NARROW if limits), 0):
            found = self._best(count, limits, bar)
            if len(found) == count:
                break
        return found

    def _best(self, count: int, limits: Costs, bar: int) -> list[Found]:
        """The best of the networks whose probability is at least `bar`."""
        found: list[Found] = []
        options = self._options(count)
        for walk in self._walks(count, limits, -(-bar // self.likeliest)):
            need = bar  # of this walk's networks, to be among the best so far
            if len(found) == count:
                worst = found[-1]
                if (-walk.value * self.likeliest, walk.choice) > worst[:2]:
                    break
                need = max(bar, -worst.negative + (walk.choice > worst.levels))  # the finer path wins a tie
            for cell in self._cells(walk, options, count, limits, -(-need // walk.value)):
                insort(found, Found(-walk.value * cell.value, walk.choice, cell.choice))
            del found[count:]
        return found

    def front(self) -> Iterator[Found]:
        """The Pareto front of probability against the one cost, the most probable first."""
        found: list[Label] = []
        options, layers = self._options(1), len(self.factors)
        for walk in self._walks(1, (), 0):
            value, least = walk.value * self.likeliest, walk.costs[0]
            if any(label.value >= value and label.costs[0] <= least for label in found):
                continue
            found += [
                Label(walk.value * cell.value, cell.costs, walk.choice + cell.choice)
                for cell in self._cells(walk, options, 1, (), 0)
            ]
            found = best_labels(found, 1)
        # A label that comes first by a tie of probabilities alone is beaten by the next, which costs less.
        found = [a for a, b in zip(found, [*found[1:], None], strict=True) if b is None or b.value < a.value]
        return (Found(-label.value, label.choice[:layers], label.choice[layers:]) for label in found)

    def _options(self, count: int) -> list[list[_Option]]:
        """The choices of each block that can matter: the `count` best of each pair of kinds, which cost the same."""
        options = []
        for choices in self.choices:
            seen: Counter[tuple[Kind, ...]] = Counter()
            kept = []
            for index, choice in enumerate(choices):
                kinds = kinds_of(choice.block)
                seen[tuple(sorted(kinds))] += 1
                if not self.used and index >= count:
                    break
                if seen[tuple(sorted(kinds))] <= count:
                    kept.append(_Option(index, choice.value, kinds))
            options.append(kept)
        return options

    def _walks(self, count: int, limits: Costs, bar: int) -> list[Label]:
        """The walks that may be needed; their first costs assume the cheapest operation everywhere."""
        walks = best_walks(self.factors, self._trellis(), count, limits, bar)
        if not walks and not limits:
            raise ValueError(NO_PATH)
        return walks

    def _trellis(self) -> Trellis:
        if self.table is None or not self.used:
            return plain_trellis(len(self.factors[0]))
        table = self.table
        kinds = sorted({kind for choices in self.choices for choice in choices for kind in kinds_of(choice.block)})
        # [kinds, places, costs]
        each = np.array([[[c[d] for d in self.used] for c in table.operations[kind]] for kind in kinds], dtype=np.int64)
        if all(len(choices) == 1 for choices in self.choices):  # the cell is known: so is what it costs
            count = Counter(kind for choices in self.choices for kind in kinds_of(choices[0].block))
            floor = (each * np.array([count[kind] for kind in kinds])[:, None, None]).sum(axis=0)
            more = np.zeros((len(floor), 0), dtype=np.int64)
        else:
            floor = each.min(axis=0)
            more = _columns(each - floor)
            floor = 2 * len(self.choices) * floor
        floors, excess = [tuple(row) for row in floor.tolist()], [tuple(row) for row in more.tolist()]

        def step_costs(costs: Costs, place: int) -> Costs:
            return (*(costs[d] + least for d, least in zip(self.used, floors[place], strict=True)), *excess[place])

        steps = tuple(tuple((s.state, step_costs(s.costs, s.place)) for s in steps) for steps in table.steps)
        nothing = (0,) * more.shape[1]
        return Trellis(table.levels, steps, tuple((*(end[d] for d in self.used), *nothing) for end in table.ends))

    def _cells(self, walk: Label, options: list[list[_Option]], count: int, limits: Costs, bar: int) -> list[Label]:
        """The cells of at least score `bar` that may be the `count` best on a walk, with the networks' costs."""
        of_kind: dict[Kind, Costs] = {}
        start: Costs = ()
        if self.table is not None and self.used:
            around, places = self.table.surroundings(walk.choice)
            start = tuple(around[d] for d in self.used)
            times = Counter(places)
            for kind, costs in self.table.operations.items():
                of_kind[kind] = tuple(sum(n * costs[place][d] for place, n in times.items()) for d in self.used)
        blocks = []
        for choices in options:
            labels = [
                Label(value, tuple(map(add, of_kind[a], of_kind[b])) if of_kind else (), (number,))
                for number, value, (a, b) in choices
            ]
            blocks.append(best_labels(labels, count))
        likeliest, least = [1], [(0,) * len(start)]  # of the blocks from one on, the last first
        for labels in reversed(blocks):
            likeliest.append(likeliest[-1] * labels[0].value)
            cheapest = tuple(map(min, zip(*(label.costs for label in labels), strict=True)))
            least.append(tuple(map(add, least[-1], cheapest)))
        cells = [Label(1, start, ())]
        for labels, ahead, rest in zip(blocks, likeliest[-2::-1], least[-2::-1], strict=True):
            room = [limit - cost for limit, cost in zip(limits, rest, strict=False)]
            grown = []
            for value, spent, choice in cells:
                for label in labels:
                    if value * label.value * ahead < bar:
                        break  # the labels that follow are no more probable
                    total = tuple(map(add, spent, label.costs))
                    if all(cost <= most for cost, most in zip(total, room, strict=False)):
                        grown.append(Label(value * label.value, total, choice + label.choice))
                check_effort(len(grown))
            cells = best_labels(grown, count)
        return cells


def _only(factors: Sequence[Sequence[Sequence[int]]], levels: Sequence[int]) -> list[list[list[int]]]:
    """The factors of one path, 0 elsewhere."""
    kept, before = [], 0
    for table, level in zip(factors, levels, strict=True):
        step = level - before + 1
        kept.append([[f * (row == before and s == step) for s, f in enumerate(fs)] for row, fs in enumerate(table)])
        before = level
    return kept


def _columns(excess: np.ndarray) -> np.ndarray:
    """[kinds, places, costs] -> [places, columns], without columns of zeros or multiples, which compare alike."""
    columns = excess.transpose(1, 0, 2).reshape(excess.shape[1], -1)  # [places, kinds * costs]
    columns = columns[:, columns.any(axis=0)]
    return np.unique(columns // np.gcd.reduce(columns, axis=0), axis=1) if columns.size else columns
