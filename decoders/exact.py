"""Exact probabilities: floats as integers over one power of two.

Floats that share the power, as those of one layer or block do here, compare as plain integers. So do products of one
factor from each layer, without rounding or underflow. Sums of logarithms would round: paths with the same transitions
in another order (a search that has just begun has thousands) would tie or not by the last bit of a logarithm, and
decode differently from machine to machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["logarithm", "rounded", "scaled"]


def scaled(probabilities: Iterable[float]) -> tuple[list[int], int]:
    """Writes probabilities as `integer / 2**exponent`, with the smallest common exponent.

    Args:
        probabilities: Finite and not negative.

    Returns:
        The integers in their order; the exponent.
    """
    ratios = [float(probability).as_integer_ratio() for probability in probabilities]
    exponents = [denominator.bit_length() - 1 for _, denominator in ratios]  # a float's denominator is a power of two
    exponent = max(exponents, default=0)
    return [numerator << (exponent - own) for (numerator, _), own in zip(ratios, exponents, strict=True)], exponent


def rounded(value: int, exponent: int) -> float:
    """`value / 2**exponent`, rounded once; 0.0 below the smallest float."""
    return value / (1 << exponent)


def logarithm(value: int, exponent: int) -> float:
    """The natural logarithm of `value / 2**exponent` for a positive value, finite however small the quotient."""
    length = value.bit_length()  # value / 2**length is in [0.5, 1): the two terms do not cancel
    return math.log(value / (1 << length)) + (length - exponent) * math.log(2)
