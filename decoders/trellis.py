"""Walks through the levels and their costs: states, steps, and the best labels along them.

A layer's cost may also depend on the levels before it. A state of a `Trellis` is one level together with everything
that the costs depend on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

from decoders.costs import Costs, Label, best_labels, check_effort

__all__ = ["Factors", "Trellis", "best_walks", "likeliest_ahead", "plain_trellis"]

Factors = Sequence[Sequence[Sequence[int]]]
"""Transition probabilities [layers][levels][3] as integers, as in `Genotype.beta`; those of a layer share a power."""


@dataclass(frozen=True)
class Trellis:
    """States and steps, the same in every layer; state 0 is the stem."""

    levels: tuple[int, ...]
    """The level of each state."""
    steps: tuple[tuple[tuple[int, Costs], ...], ...]
    """(next state, costs of the step) from each state, the finest level first, at most one for each level."""
    ends: tuple[Costs, ...]
    """Costs of ending in each state."""


def plain_trellis(levels: int) -> Trellis:
    """A trellis with one state per level and no costs."""
    steps = tuple(tuple((to, ()) for to in range(max(at - 1, 0), min(at + 2, levels))) for at in range(levels))
    return Trellis(tuple(range(levels)), steps, ((),) * levels)


def best_walks(factors: Factors, trellis: Trellis, count: int, limits: Sequence[int] = (), bar: int = 0) -> list[Label]:
    """The walks from which the `count` best may come, the best first, as of `best_labels`.

    Args:
        factors: Transition probabilities; a walk with a factor of 0 does not exist.
        trellis: States and steps with their costs.
        count: Number of walks, at least 1.
        limits: Inclusive limits of the first costs; walks above them are left out.
        bar: Smallest value of a walk that is kept.

    Returns:
        Labels whose choice is the walk's levels.

    Raises:
        ValueError: There would be more labels than `check_effort` allows.
    """
    ahead, likeliest = _least_ahead(factors, trellis, len(limits)), likeliest_ahead(factors)
    at: dict[int, list[Label]] = {0: [Label(1, (0,) * len(trellis.ends[0]), ())]}
    for layer, table in enumerate(factors):
        reached: defaultdict[int, list[Label]] = defaultdict(list)
        for state, labels in at.items():
            level = trellis.levels[state]
            for target, costs in trellis.steps[state]:
                to = trellis.levels[target]
                factor, least = table[level][to - level + 1], ahead[layer + 1][target]
                if factor == 0 or least is None:
                    continue
                enough = -(-bar // (factor * likeliest[layer + 1][to]))
                room = [limit - rest for limit, rest in zip(limits, least, strict=True)]
                for value, spent, choice in labels:
                    if value < enough:
                        break  # the labels that follow are no more probable
                    total = tuple(map(add, spent, costs))
                    if all(cost <= most for cost, most in zip(total, room, strict=False)):
                        reached[target].append(Label(value * factor, total, (*choice, to)))
            check_effort(max(map(len, reached.values()), default=0))
        at = {state: best_labels(labels, count) for state, labels in reached.items()}
    ended = [
        Label(value, tuple(map(add, spent, trellis.ends[state])), choice)
        for state, labels in at.items()
        for value, spent, choice in labels
    ]
    check_effort(len(ended))
    return best_labels(ended, count)


def likeliest_ahead(factors: Factors) -> list[list[int]]:
    """The largest value of a walk's rest from each level of each layer, [layers + 1][levels]; 0 if there is none."""
    table = [[1] * len(factors[0])]
    for rows in reversed(factors):
        padded = [0, *table[-1], 0]
        table.append([max(f * padded[level + s] for s, f in enumerate(row)) for level, row in enumerate(rows)])
    return table[::-1]


def _least_ahead(factors: Factors, trellis: Trellis, dimensions: int) -> list[list[Costs | None]]:
    """The least of each of the first costs of a walk's rest, [layers + 1][states]; None if there is no rest."""
    table: list[list[Costs | None]] = [[end[:dimensions] for end in trellis.ends]]
    for row in reversed(factors):
        after, now = table[-1], list[Costs | None]()
        for level, steps in zip(trellis.levels, trellis.steps, strict=True):
            ways = [
                tuple(map(add, costs, rest))
                for target, costs in steps
                if (rest := after[target]) is not None and row[level][trellis.levels[target] - level + 1]
            ]
            now.append(tuple(map(min, zip(*ways, strict=True))) if ways else None)
        table.append(now)
    return table[::-1]
