"""Settings of the candidate operations that have any. No torch: a space and a command line carry them as data."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = ["FplFusion", "OperationSettings", "SmoothingWindow", "changed"]

SmoothingWindow = Literal["paper", "official"]
FplFusion = Literal["stage1", "pair", "none"]


@dataclass(frozen=True)
class OperationSettings:
    """What the lateral inhibitions, smoothed and factorized convolutions of a network have in common.

    Raises:
        ValueError: A field is outside its limits; the message names it and what to give.
    """

    li_zone: int = 3
    """Side of the lateral inhibition zone in pixels, odd, 3 to 31."""
    li_rate: int = 1
    """Dilation e of the zone, 1 to 64."""
    li_sigma: float = 1.0
    """Standard deviation of the inhibition's Gaussian in steps of the zone, above 0."""
    li_init: tuple[float, float] = (0.0, 0.0)
    """Range in [0, 1] from which the intensities W are drawn at the start."""
    smoothing_window: SmoothingWindow = "paper"
    """Side of the average and Gaussian windows at rate r: paper, 2 * floor(r / 2) + 1; official, r - 1 (nothing is
    smoothed at rate 2)."""
    smoothing_sigma: float = 1.0
    """Standard deviation of the Gaussian window in pixels, above 0."""
    fpl_rates: tuple[int, ...] = (2, 4, 8, 16)
    """Dilation of each branch of an FPL module, 1 to 64."""
    fpl_fusion: FplFusion = "stage1"
    """Pairwise feature fusion in an FPL module: each branch with the first stage's output, pair by pair, or none."""

    def __post_init__(self) -> None:
        for name, example in (("li_init", "[0, 0.05]"), ("fpl_rates", "[2, 4, 8, 16]")):
            value = getattr(self, name)
            _require(isinstance(value, list | tuple), name, value, f"a list, such as {example}")
            object.__setattr__(self, name, tuple(value))
        _require(
            _whole(self.li_zone, 3, 31) and self.li_zone % 2 == 1, "li_zone", self.li_zone, "an odd number, 3 to 31"
        )
        _require(_whole(self.li_rate, 1, 64), "li_rate", self.li_rate, "a whole number from 1 to 64")
        for name in ("li_sigma", "smoothing_sigma"):
            value = getattr(self, name)
            _require(_number(value) and value > 0, name, value, "a number above 0")
        good = len(self.li_init) == 2 and all(_number(value) for value in self.li_init)
        good = good and 0 <= self.li_init[0] <= self.li_init[1] <= 1
        _require(
            good, "li_init", list(self.li_init), "the smallest and the largest value, from 0 to 1, such as [0, 0.05]"
        )
        _require(
            1 <= len(self.fpl_rates) <= 16 and all(_whole(rate, 1, 64) for rate in self.fpl_rates),
            "fpl_rates",
            list(self.fpl_rates),
            "1 to 16 whole numbers from 1 to 64, such as [2, 4, 8, 16]",
        )
        for name, choices in (("smoothing_window", SmoothingWindow), ("fpl_fusion", FplFusion)):
            allowed = get_args(choices)
            _require(getattr(self, name) in allowed, name, getattr(self, name), f"one of {', '.join(allowed)}")


def changed(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from the defaults, in plain containers."""
    values = {f.name: (getattr(settings, f.name), f.default) for f in dataclasses.fields(settings)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (value, default) in values.items()
        if value != default
    }


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r:.60}: give {expected}")
