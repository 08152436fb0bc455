"""Decoding a path: the likeliest walks through the trellis, by the Viterbi algorithm.

Source: Auto-DeepLab (Liu et al., 2019), section 4.3, "Network Architecture": beta holds the transition probabilities
between the levels of successive layers, and the path has maximum probability. For the k best paths, each node keeps its
k best walks (Seshadri and Sundberg, 1994, "List Viterbi decoding algorithms"). All probabilities are exact
(`decoders/exact.py`), so ties are exact, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decoders.exact import logarithm, rounded, scaled
from decoders.trellis import Factors, best_walks, plain_trellis

__all__ = ["NO_PATH", "Path", "best_paths", "exact_factors", "path_probability", "viterbi"]

NO_PATH = "beta gives every path from the stem probability 0: expected one with a positive probability"


@dataclass(frozen=True)
class Path:
    """A walk through the trellis, from the stem to the last layer."""

    levels: tuple[int, ...]
    """The level of each layer's cell, 0 the finest."""
    probability: float
    """Product of the path's transition probabilities; 0.0 where that is below the smallest float."""
    log_probability: float
    """Its natural logarithm, finite however long the path."""


def viterbi(beta: np.ndarray) -> Path:
    """Finds the path of maximum probability from the stem to any level of the last layer.

    Of equally probable paths it returns the lexicographically smallest: the finest first level, then the finest second
    one, and so on. Equal means equal as real numbers, not nearly equal.

    Args:
        beta: Outgoing probabilities [layers, levels, 3] as in `Genotype.beta`: of the step from layer l - 1 at that
            level (row 0 of layer 0 is the stem) to the finer, the same and the coarser level in layer l.

    Raises:
        ValueError: The shape is wrong, an entry is negative or not finite, an entry leads outside the levels, or no
            path has a positive probability.
    """
    return best_paths(beta, 1)[0]


def best_paths(beta: np.ndarray, count: int) -> list[Path]:
    """The most probable paths, the best first, equally probable ones in lexicographic order.

    Args:
        beta: As for `viterbi`, whose path is the first.
        count: Number of paths, at least 1; fewer are returned if fewer have a positive probability.

    Raises:
        ValueError: As for `viterbi`, or `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"{count} paths are asked for: give at least 1")
    factors, exponent = exact_factors(beta)
    walks = best_walks(factors, plain_trellis(len(factors[0])), count)
    if not walks:
        raise ValueError(NO_PATH)
    return [Path(walk.choice, rounded(walk.value, exponent), logarithm(walk.value, exponent)) for walk in walks]


def exact_factors(beta: np.ndarray) -> tuple[Factors, int]:
    """The transition probabilities as integers.

    Returns:
        Integers [layers][levels][3], those of a layer over one power of two; the exponent of a whole path.

    Raises:
        ValueError: As for `viterbi`, except that paths of probability 0 are not an error.
    """
    table = _checked(beta)
    factors, exponent = [], 0
    for layer in table:
        integers, own = scaled(probability for row in layer for probability in row)
        factors.append([integers[first : first + 3] for first in range(0, len(integers), 3)])
        exponent += own
    return factors, exponent


def path_probability(beta: np.ndarray, levels: Sequence[int]) -> float:
    """The product of a path's transition probabilities, rounded once.

    Args:
        beta: As for `viterbi`.
        levels: The level of each layer.

    Raises:
        ValueError: `beta` is wrong as for `viterbi`, or `levels` is not a path: it has a wrong length, an unknown
            level, or a step of more than one level.
    """
    table = _checked(beta)
    if len(levels) != len(table):
        raise ValueError(f"levels has {len(levels)} entries: expected {len(table)}, beta's number of layers")
    total, exponent, level = 1, 0, 0
    for layer, target in enumerate(levels):
        if not 0 <= target < len(table[0]) or abs(target - level) > 1:
            raise ValueError(f"levels[{layer}] is {target}: expected a level of beta, at most one step from {level}")
        (factor,), own = scaled([table[layer][level][target - level + 1]])
        total, exponent, level = total * factor, exponent + own, target
    return rounded(total, exponent)


def _checked(beta: np.ndarray) -> list[list[list[float]]]:
    """Checks beta and returns it as nested lists, whose elements are faster to access than an array's."""
    beta = np.asarray(beta, dtype=np.float64)
    if beta.ndim != 3 or beta.shape[2] != 3 or 0 in beta.shape:
        raise ValueError(f"beta has shape {list(beta.shape)}: expected [layers, levels, 3]")
    if not np.isfinite(beta).all() or (beta < 0).any():
        raise ValueError("beta has an entry that is negative or not finite: expected probabilities")
    if beta[:, 0, 0].any() or beta[:, -1, 2].any():
        raise ValueError("beta steps to finer than the finest or coarser than the coarsest level: expected 0 there")
    table: list[list[list[float]]] = beta.tolist()
    return table
