"""Decoding a path: the likeliest walk through the trellis, by the Viterbi algorithm.

Source: Auto-DeepLab (Liu et al., 2019), section 4.3, "Network Architecture": beta holds the transition probabilities
between levels from layer to layer, and the path is the one of maximum probability from start to end.

The recursion works on exact numbers. A product of floats is an integer times a power of two, so that Python's integers
hold it without rounding and without underflow after any number of layers. Sums of logarithms would round: paths with
the same transitions in another order, of which a search that has just begun has thousands, would tie or not by the last
bit of a logarithm, and decode differently from machine to machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Path", "path_probability", "viterbi"]

_Exact = tuple[int, int]
"""(mantissa, exponent): mantissa * 2**exponent, exactly. The mantissa is positive."""


@dataclass(frozen=True)
class Path:
    """A walk through the trellis, from the stem to the last layer."""

    levels: tuple[int, ...]
    """The level of each layer's cell, 0 the finest."""
    probability: float
    """Product of the path's transition probabilities; 0.0 where that is below the smallest float."""
    log_probability: float
    """Its natural logarithm, which is finite however long the path."""


def viterbi(beta: np.ndarray) -> Path:
    """Finds the path of maximum probability that starts at the stem and ends at any level of the last layer.

    Of equally probable paths it gives the lexicographically smallest: the finest first level, then the finest second
    one, and so on. The recursion therefore runs from the end to the start, so that the choice at a layer is made
    knowing the best that can follow. Equal means equal as real numbers, not nearly so.

    Args:
        beta: Outgoing probabilities [layers, levels, 3] as in `Genotype.beta`: of the step from layer l - 1 at that
            level (row 0 of layer 0 is the stem) to the finer, the same and the coarser level in layer l.

    Raises:
        ValueError: The shape is wrong, an entry is negative or not finite, an entry leads outside the levels, or no
            path has a positive probability.
    """
    table = _checked(beta)
    layers, levels = len(table), len(table[0])
    best: list[_Exact | None] = [(1, 0)] * levels  # of the rest of the path, by level; None where there is none
    steps: list[list[int]] = []
    for layer in reversed(range(layers)):
        ahead: list[_Exact | None] = [None] * levels
        step = [0] * levels
        for level in range(levels):
            for target in range(max(level - 1, 0), min(level + 2, levels)):  # finest first: it wins a tie
                probability, rest = table[layer][level][target - level + 1], best[target]
                if probability == 0 or rest is None:
                    continue
                value = _times(_exact(probability), rest)
                found = ahead[level]
                if found is None or _less(found, value):
                    ahead[level], step[level] = value, target
        best = ahead
        steps.append(step)
    total = best[0]
    if total is None:
        raise ValueError("beta gives every path from the stem probability 0: expected one with a positive probability")
    path, level = [], 0
    for step in reversed(steps):
        level = step[level]
        path.append(level)
    return Path(tuple(path), _rounded(total), _logarithm(total))


def path_probability(beta: np.ndarray, levels: Sequence[int]) -> float:
    """The product of a path's transition probabilities, rounded once.

    Args:
        beta: As for `viterbi`.
        levels: The level of each layer, one a layer.

    Raises:
        ValueError: `beta` is wrong as for `viterbi`, or `levels` is no path: a wrong length, a level that there is not,
            a step of more than one level.
    """
    table = _checked(beta)
    if len(levels) != len(table):
        raise ValueError(f"levels has {len(levels)} entries: expected {len(table)}, beta's number of layers")
    total, level = (1, 0), 0
    for layer, target in enumerate(levels):
        if not 0 <= target < len(table[0]) or abs(target - level) > 1:
            raise ValueError(f"levels[{layer}] is {target}: expected a level of beta, at most one step from {level}")
        probability = table[layer][level][target - level + 1]
        if probability == 0:
            return 0.0
        total, level = _times(total, _exact(probability)), target
    return _rounded(total)


def _checked(beta: np.ndarray) -> list[list[list[float]]]:
    """Checks beta and returns it as nested lists: element access on arrays is what would cost time here."""
    beta = np.asarray(beta, dtype=np.float64)
    if beta.ndim != 3 or beta.shape[2] != 3 or 0 in beta.shape:
        raise ValueError(f"beta has shape {list(beta.shape)}: expected [layers, levels, 3]")
    if not np.isfinite(beta).all() or (beta < 0).any():
        raise ValueError("beta has an entry that is negative or not finite: expected probabilities")
    if beta[:, 0, 0].any() or beta[:, -1, 2].any():
        raise ValueError("beta steps to finer than the finest or coarser than the coarsest level: expected 0 there")
    table: list[list[list[float]]] = beta.tolist()
    return table


def _exact(probability: float) -> _Exact:
    numerator, denominator = probability.as_integer_ratio()  # the denominator is a power of two
    return numerator, 1 - denominator.bit_length()


def _times(a: _Exact, b: _Exact) -> _Exact:
    return a[0] * b[0], a[1] + b[1]


def _less(a: _Exact, b: _Exact) -> bool:
    magnitude_a, magnitude_b = a[0].bit_length() + a[1], b[0].bit_length() + b[1]
    if magnitude_a != magnitude_b:
        return magnitude_a < magnitude_b
    shift = a[1] - b[1]
    return a[0] << shift < b[0] if shift > 0 else a[0] < b[0] << -shift


def _rounded(value: _Exact) -> float:
    mantissa, exponent = value
    return float(mantissa << exponent) if exponent >= 0 else mantissa / (1 << -exponent)


def _logarithm(value: _Exact) -> float:
    mantissa, exponent = value
    length = mantissa.bit_length()  # mantissa / 2**length is in [0.5, 1): the two terms do not cancel
    return math.log(mantissa / (1 << length)) + (exponent + length) * math.log(2)
