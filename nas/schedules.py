"""Learning rates as pure functions of progress, which runs from 0 at the first step to 1 behind the last."""

from __future__ import annotations

import math

__all__ = ["cosine", "poly"]


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` down to `end` (Loshchilov and Hutter, 2017, Eq. 5, one period)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def poly(progress: float, start: float, power: float = 0.9) -> float:
    """start * (1 - progress) ** power, the schedule of the DeepLab papers."""
    return start * (1 - progress) ** power
