"""Settings of the augmentation. Imports neither torch nor NumPy: the command line reads them for its help."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["AugmentConfig"]

MAX_SIDE = 16384
"""Pixels: far above any use; settings may come from a stranger."""


@dataclass(frozen=True)
class AugmentConfig:
    """How a training sample is varied: scaled, cropped to one size, mirrored.

    Raises:
        ValueError: A field is outside its limits; the message gives the value and the fix.
    """

    crop: tuple[int, int] = (321, 321)
    """Height and width of every training sample, in pixels, each 1 to 16384. A smaller image is padded."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor of the random scale, above 0; drawn uniformly. (1, 1) keeps the size."""

    flip: bool = True
    """Mirror left and right with probability one half."""

    scale_step: float = 0.0
    """Distance of the factors of the random scale, as in 0.5, 0.75, ... 2 with 0.25; 0 draws from all in between."""

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or any(not isinstance(side, int) or not 1 <= side <= MAX_SIDE for side in self.crop):
            raise ValueError(
                f"loader.augment.crop is {self.crop}: give height and width in whole pixels, 1 to {MAX_SIDE}, as in "
                "[321, 321]"
            )
        if len(self.scale) != 2 or not all(math.isfinite(factor) and factor > 0 for factor in self.scale):
            raise ValueError(
                f"loader.augment.scale is {self.scale}: give two finite factors above 0, such as [0.5, 2.0]"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(
                f"loader.augment.scale is {self.scale}: the smaller factor comes first: "
                f"[{self.scale[1]}, {self.scale[0]}]"
            )
        widest = self.scale[1] - self.scale[0]
        if not 0 <= self.scale_step <= widest:
            raise ValueError(
                f"loader.augment.scale_step is {self.scale_step}: give a number from 0 (any factor) to {widest:g}, the "
                f"distance of the two factors of loader.augment.scale"
            )
