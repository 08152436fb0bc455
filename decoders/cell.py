"""Decoding a cell: the greedy cell, and all choices of each block with their probabilities.

Source: Auto-DeepLab (Liu et al., 2019), section 4.3, "Cell Architecture": a block keeps its two strongest inputs with
the likeliest operation on each. The strength of an edge is the largest probability among its operations other than
`none`. `none` is left out of the ranking AND of the choice of the operation: leaving it out of the ranking alone
decodes edges that carry nothing. Where the search weighed the edges into a block, the weight of an edge is a factor of
its strength (PC-DARTS, Xu et al., 2020, section 3.3).

The greedy choice has the largest product of two (weighted) alphas on distinct inputs. This product is the score of a
choice, and its share of the sum over all choices of the block is the choice's probability. The probability of a cell is
the product over its blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from decoders.exact import scaled
from search_spaces.genotype import Block, state_names
from search_spaces.operations import NONE

__all__ = ["BlockChoices", "Choice", "block_choices", "checked_strengths", "greedy_cell"]


def greedy_cell(
    alpha: np.ndarray, operations: Sequence[str], edge_weights: np.ndarray | None = None
) -> tuple[Block, ...]:
    """Keeps two distinct predecessors for each block and one operation other than `none` on each.

    Ties are settled by position: the earlier state wins (`l-2`, `l-1`, `block1`, ...), and the operation that
    `operations` names first. The two inputs of a block are in ascending order of state, not of strength.

    Args:
        alpha: Probabilities [edges, operations], rows in the order of `SearchSpace.edges`: B * (B + 3) / 2 of them,
            from which B follows.
        operations: Names of the columns.
        edge_weights: Weights of the edges, [edges]; None: equal weights.

    Returns:
        One entry per block.

    Raises:
        ValueError: No B gives that number of rows, the number of columns or weights is wrong, an entry is not finite,
            or there is no operation other than `none`.
    """
    blocks, columns, connecting, weights = checked_strengths(alpha, operations, edge_weights)
    strength = connecting.max(axis=1) * weights  # [edges]
    chosen = connecting.argmax(axis=1)  # [edges]; argmax returns the first of equals
    states, cell, first = state_names(blocks), [], 0
    for block in range(blocks):
        inputs = 2 + block
        ranked = np.argsort(-strength[first : first + inputs], kind="stable")  # stable: the earlier of equals first
        low, high = sorted(int(state) for state in ranked[:2])
        names = [operations[columns[chosen[first + state]]] for state in (low, high)]
        cell.append(Block((states[low], states[high]), (names[0], names[1])))
        first += inputs
    return tuple(cell)


def checked_strengths(
    alpha: np.ndarray, operations: Sequence[str], edge_weights: np.ndarray | None
) -> tuple[int, list[int], np.ndarray, np.ndarray]:
    """Checks the arguments of `greedy_cell`, and leaves `none` out.

    Returns:
        The number of blocks; the columns of alpha that are not `none`; alpha with only those columns; the edge weights,
        or ones.

    Raises:
        ValueError: As `greedy_cell`.
    """
    alpha = np.asarray(alpha)
    if alpha.ndim != 2 or alpha.shape[1] != len(operations):
        raise ValueError(
            f"alpha has shape {list(alpha.shape)}: expected [edges, operations] with {len(operations)} operations"
        )
    blocks = (math.isqrt(9 + 8 * len(alpha)) - 3) // 2  # solves B * (B + 3) / 2 = edges
    if blocks < 1 or blocks * (blocks + 3) // 2 != len(alpha):
        raise ValueError(
            f"alpha has {len(alpha)} rows: expected B * (B + 3) / 2 for B blocks, one of 2, 5, 9, 14, 20, ..."
        )
    if not np.isfinite(alpha).all():
        raise ValueError("alpha has an entry that is not finite: expected probabilities")
    columns = [column for column, name in enumerate(operations) if name != NONE]
    if not columns:
        raise ValueError(f"operations are {', '.join(operations) or 'empty'}: expected one other than {NONE!r}")
    weights = np.ones(len(alpha)) if edge_weights is None else np.asarray(edge_weights)
    if weights.shape != (len(alpha),):
        raise ValueError(
            f"edge_weights has shape {list(weights.shape)}: expected [{len(alpha)}], one number per row of alpha"
        )
    if not np.isfinite(weights).all():
        raise ValueError("edge_weights has an entry that is not finite: expected numbers from 0 to 1")
    return blocks, columns, alpha[:, columns], weights


class Choice(NamedTuple):
    """Two inputs of a block and the operations on them."""

    value: int
    """Score times a power of two that the block's choices share."""
    block: Block


class BlockChoices(NamedTuple):
    """The choices of a block, the best first."""

    choices: tuple[Choice, ...]
    """Choices with a positive score; ties are ordered as in the greedy decoder: by earlier inputs, then operations."""
    total: int
    """Sum of the scores: a choice's probability is its score over this."""


def block_choices(
    alpha: np.ndarray, operations: Sequence[str], edge_weights: np.ndarray | None = None
) -> tuple[BlockChoices, ...]:
    """The choices of each block of a cell; arguments and errors as for `greedy_cell`.

    A block has no choices if fewer than two of its inputs have an operation with a positive probability.
    """
    blocks, columns, connecting, weights = checked_strengths(alpha, operations, edge_weights)
    # Ties are ordered by alpha, as in the greedy decoder: a product with a weight may round two alphas to one.
    order = np.argsort(-connecting, axis=1, kind="stable")  # [edges, operations other than none]
    scores = connecting * weights[:, None]
    states, found, first = state_names(blocks), [], 0
    for block in range(blocks):
        inputs = 2 + block
        integers, _ = scaled(scores[first : first + inputs].ravel())
        rows = [integers[row * len(columns) : (row + 1) * len(columns)] for row in range(inputs)]
        choices = []
        for low, high in itertools.combinations(range(inputs), 2):
            for a, b in itertools.product(order[first + low], order[first + high]):
                if (value := rows[low][a] * rows[high][b]) > 0:
                    names = (operations[columns[a]], operations[columns[b]])
                    choices.append(Choice(value, Block((states[low], states[high]), names)))
        choices.sort(key=lambda choice: -choice.value)  # stable
        found.append(BlockChoices(tuple(choices), sum(choice.value for choice in choices)))
        first += inputs
    return tuple(found)
