"""The walks through the levels and what they cost: states, steps, and the best labels along them.

What a layer costs may depend on more than its level: on the levels before it, where the stem was left. The states of a
`Trellis` say all that the costs depend on, each of them at one level.
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
    """From each state: (next state, what the step costs), the finest first, at most one for each level."""
    ends: tuple[Costs, ...]
    """What ending in each state costs."""


def plain_trellis(levels: int) -> Trellis:
    """A state a level, nothing costs anything."""
    steps = tuple(
        tuple((target, ()) for target in range(max(level - 1, 0), min(level + 2, levels))) for level in range(levels)
    )
    return Trellis(tuple(range(levels)), steps, ((),) * levels)


def best_walks(factors: Factors, trellis: Trellis, count: int, limits: Sequence[int] = (), bar: int = 0) -> list[Label]:
    """The walks from which the `count` best may come, the best first, as of `best_labels`.

    Args:
        factors: Of the transitions; a walk with a factor of 0 does not exist.
        trellis: What may follow what, at which costs.
        count: How many are asked for, at least 1.
        limits: Of the first costs, inclusive; walks beyond are left out.
        bar: Walks of a smaller value are left out.

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
    """The largest value with which a walk goes on from each level of each layer, [layers + 1][levels]; 0: none does."""
    table = [[1] * len(factors[0])]
    for rows in reversed(factors):
        padded = [0, *table[-1], 0]
        table.append([max(f * padded[level + s] for s, f in enumerate(row)) for level, row in enumerate(rows)])
    return table[::-1]


def _least_ahead(factors: Factors, trellis: Trellis, dimensions: int) -> list[list[Costs | None]]:
    """Least of each of the first costs from each state on, [layers + 1][states]; None where no walk goes on."""
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
