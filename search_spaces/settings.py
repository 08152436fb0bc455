"""Settings of the candidate operations that have any. No torch: a space and a command line carry them as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search_spaces.validation import Settings, require, short

__all__ = ["FplFusion", "OperationSettings", "Smoothing", "SmoothingWindow"]

Smoothing = Literal["none", "average", "gaussian", "ss_conv", "g_interact", "aggregated"]
SmoothingWindow = Literal["paper", "official"]
FplFusion = Literal["stage1", "pair", "none"]


@dataclass(frozen=True)
class OperationSettings(Settings):
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
        super().__post_init__()
        self.limit("li_zone", least=3, most=31)
        require(self.li_zone % 2 == 1, f"li_zone is {self.li_zone}: give an odd number")
        self.limit("li_rate", "fpl_rates", least=1, most=64)
        self.limit("li_sigma", "smoothing_sigma", above=0)
        self.limit("li_init", least=0, most=1)
        low, high = self.li_init
        require(low <= high, f"li_init is {short([low, high])}: give the smallest value first")
        self.entries("fpl_rates", most=16, note=", such as [2, 4, 8, 16]")
