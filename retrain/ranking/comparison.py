"""Statistics of a comparison: mean and spread, Welch's interval, Kendall's tau."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import mean, stdev, variance

__all__ = ["Comparison", "compare", "kendall", "pooled", "spread", "student", "welch"]

CONFIDENCE = 0.95
STEPS = 400
"""Intervals of Simpson's rule; even."""

Comparison = tuple[float, tuple[float, float] | None, str]
"""Difference of the means, its interval if there is one, and the verdict in words."""


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample (n - 1); None for fewer than two."""
    return stdev(values) if len(values) > 1 else None


def pooled(samples: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation within samples, each around its own mean; None if no sample has two values."""
    several = [(len(sample) - 1, variance(sample)) for sample in samples if len(sample) > 1]
    freedom = sum(free for free, _ in several)
    return math.sqrt(sum(free * square for free, square in several) / freedom) if several else None


def student(freedom: float) -> float:
    """The bound of |t| at probability 0.95 in Student's distribution; `freedom` is at least 1."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) * 2 / math.sqrt(math.pi)

    def within(t: float) -> float:
        """P(|T| <= t): with t = sqrt(freedom) tan(x), the density is cos(x) ** (freedom - 1)."""
        width = math.atan(t / math.sqrt(freedom)) / STEPS
        heights = [math.cos(width * step) ** (freedom - 1) for step in range(STEPS + 1)]
        inner = 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
        return scale * width / 3 * (heights[0] + inner + heights[-1])

    low, high = 1.0, 13.0  # 12.706 for one degree of freedom, 1.960 for very many
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < CONFIDENCE else (low, middle)
    return (low + high) / 2


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Welch's 95 % interval of the difference of two means, without equal variances (Welch, 1947).

    None if a sample has fewer than two values, or if both samples are constant.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [(variance(values) / len(values), len(values) - 1) for values in (first, second)]
    error = sum(part for part, _ in parts)
    if error == 0:
        return None
    freedom = error**2 / sum(part**2 / free for part, free in parts)
    half = student(freedom) * math.sqrt(error)
    difference = mean(first) - mean(second)
    return difference - half, difference + half


def compare(name: str, first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compares a group of genotypes with random ones.

    Args:
        name: Of the group, such as "searched".
        first: mIoU of the group, 0 to 1; at least one.
        second: mIoU of the random genotypes; at least one.
    """
    difference, interval = mean(first) - mean(second), welch(first, second)
    points = f"{_signed(difference)} points of mIoU"
    if interval is not None:
        low, high = map(_signed, interval)
        verdict = (
            "0 is within it: this does not tell the two apart"
            if interval[0] <= 0 <= interval[1]
            else "0 is outside of it: more than chance would give"
        )
        return difference, interval, f"{name} - random: {points}, 95 % interval {low} to {high} (Welch); {verdict}"
    if len({*first, *second}) == 1:
        return difference, None, f"{name} - random: {points}: all are equal, which tells nothing"
    largest = max((s for s in map(spread, (first, second)) if s is not None), default=None)
    if not largest:
        why = "with one genotype each" if largest is None else "with equal mIoU within the groups"
        return difference, None, f"{name} - random: {points}; {why} there is no spread to judge it by"
    clear = abs(difference) > largest
    verdict = "more" if clear else "no more"
    few = "; that is a hint, with so few genotypes" if clear else ": this does not tell them apart"
    return difference, None, f"{name} - random: {points}, {verdict} than the spread (s.d.) of {100 * largest:.2f}{few}"


def _signed(value: float) -> str:
    return f"{round(100 * value, 2) + 0.0:+.2f}"  # no -0.00


def kendall(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b, from 1 (same order by both numbers) to -1 (opposite order); None if one number is constant.

    (concordant - discordant) / sqrt(pairs that differ in the first * pairs that differ in the second) (Kendall, 1945).
    """
    agree, first, second = 0, 0, 0
    for (a, b), (c, d) in combinations(pairs, 2):
        signs = (a > c) - (a < c), (b > d) - (b < d)
        agree += signs[0] * signs[1]
        first += signs[0] != 0
        second += signs[1] != 0
    return agree / math.sqrt(first * second) if first and second else None
