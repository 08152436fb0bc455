"""Labels: unfinished decodings with their probability and costs, and which of them can still be among the best.

Label-setting with dominance is the textbook method for shortest paths under resource limits (Irnich and Desaulniers,
2005, "Shortest path problems with resource constraints", section 4). All numbers are integers: nothing is rounded.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import NamedTuple

import numpy as np

__all__ = ["MAX_LABELS", "Costs", "Label", "best_labels", "check_effort"]

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
