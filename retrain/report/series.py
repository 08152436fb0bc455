"""The numbers of a record as curves that are small enough to be drawn."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["Curve", "finite", "read_series", "thinned"]

MOST_POINTS = 400
MOST_GROUPS, MOST_CURVES = 24, 8
"""A record with more is a stranger's: the others are not drawn."""

HEALTH = {
    **dict.fromkeys(("edges_prefer_skip", "edges_prefer_none", "decoded_skips", "stable_epochs"), "health counts"),
    **dict.fromkeys(("forced_miou", "gap"), "health forced"),
    **dict.fromkeys(("expected_cost", "decoded_cost"), "health cost"),
}
"""Of a search's health: numbers that are no shares, in groups of their own."""

Curve = list[tuple[int, float]]
"""(epoch from 1, value)."""


def read_series(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """The numbers of metrics.jsonl by group and name: {"loss": {"weights": [(1, 0.9), ...]}}.

    A number that stands alone is a group of its own. Of the modules' numbers ("classifier.0/mean") each epoch's mean
    over the modules is taken, by the number's name. The health of a search is told apart by what it counts (`HEALTH`).
    What is not finite is left out.
    """
    series: dict[str, dict[str, Curve]] = {}
    for line in lines:
        for group, value in line.items():
            if group == "epoch":
                continue
            numbers = _modules(value) if group == "modules" else _numbers(value)
            for name, number in numbers.items():
                own = HEALTH.get(name, group) if group == "health" else group
                curves = series.setdefault(own, {}) if len(series) < MOST_GROUPS else series.get(own)
                if curves is not None and (name in curves or len(curves) < MOST_CURVES):
                    curves.setdefault(name, []).append((line["epoch"] + 1, number))
    return series


def _numbers(value: object, name: str = "") -> dict[str, float]:
    if isinstance(value, Mapping):
        found: dict[str, float] = {}
        for key, entry in value.items():
            found |= _numbers(entry, f"{name}/{key}" if name else str(key))
        return found
    number = finite(value)
    return {} if number is None else {name: number}


def finite(value: object) -> float | None:
    """A number that can be drawn, or None: a file may hold NaN, infinities and integers of any length."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if usable else None  # type: ignore[arg-type]


def _modules(value: object) -> dict[str, float]:
    by_number: dict[str, list[float]] = defaultdict(list)
    for name, number in _numbers(value).items():
        by_number[name.rpartition("/")[2]].append(number)
    return {name: math.fsum(numbers) / len(numbers) for name, numbers in by_number.items()}


def thinned(curve: Sequence[tuple[int, float]], most: int = MOST_POINTS) -> Curve:
    """A curve of at most about `most` points: of each stretch its lowest and its highest one, so that peaks stay."""
    if len(curve) <= most:
        return list(curve)
    kept = [curve[0]]
    stretches = max(1, most // 2)
    for number in range(stretches):
        stretch = curve[number * len(curve) // stretches : (number + 1) * len(curve) // stretches]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    kept.append(curve[-1])
    return sorted(dict.fromkeys(kept))
