"""Decoding a cell: the two strongest predecessors of each block, and the likeliest operation on each.

Source: Auto-DeepLab (Liu et al., 2019), section 4.3, "Cell Architecture". The strength of an edge is the largest
probability among its operations other than `none`. `none` is left out of the ranking AND of the choice of the
operation: leaving it out of the ranking alone decodes edges that carry nothing. Where the search weighed the edges into
a block, the weight of an edge is a factor of its strength (PC-DARTS, Xu et al., 2020, section 3.3).

The choices of each block of a cell with their probabilities: what the k best cells are put together from.

The greedy decoder keeps, for each block, the two strongest of its inputs with the likeliest operation on each. That is
the choice of two distinct inputs and two operations with the largest product of their alphas (each times the weight of
its edge, where the search weighed the edges). So this product is the score of a choice; its share of the sum over all
choices is the choice's probability, and the product over the blocks the probability of a cell. `none` can be chosen by
neither, and has no share.
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

    Ties are settled by position: of equally strong predecessors the earlier state is kept (`l-2`, `l-1`, `block1`,
    ...), of equally likely operations the one that `operations` names first. The two inputs of a block are listed in
    ascending order of state, not of strength.

    Args:
        alpha: Probabilities [edges, operations], rows in the order of `SearchSpace.edges`: B * (B + 3) / 2 of them,
            from which B follows.
        operations: Names of the columns.
        edge_weights: Weights of the edges, [edges]; None: all are alike.

    Returns:
        One entry a block.

    Raises:
        ValueError: No B gives that number of rows, the columns are not as many as the names, the weights are not as
            many as the rows, an entry is not finite, or there is no operation other than `none`.
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
        The number of blocks; the columns of alpha that are not `none`; alpha with those alone; weights of the edges,
        ones where there are none.

    Raises:
        ValueError: As `greedy_cell`.
    """
    alpha = np.asarray(alpha)
    if alpha.ndim != 2 or alpha.shape[1] != len(operations):
        raise ValueError(
            f"alpha has shape {list(alpha.shape)}: expected [edges, operations] with {len(operations)} operations"
        )
    blocks = _number_of_blocks(len(alpha))
    if not np.isfinite(alpha).all():
        raise ValueError("alpha has an entry that is not finite: expected probabilities")
    columns = [column for column, name in enumerate(operations) if name != NONE]
    if not columns:
        raise ValueError(f"operations are {', '.join(operations) or 'empty'}: expected one other than {NONE!r}")
    weights = np.ones(len(alpha)) if edge_weights is None else _checked_weights(edge_weights, len(alpha))
    return blocks, columns, alpha[:, columns], weights


def _checked_weights(edge_weights: np.ndarray, edges: int) -> np.ndarray:
    weights = np.asarray(edge_weights)
    if weights.shape != (edges,):
        raise ValueError(f"edge_weights has shape {list(weights.shape)}: expected [{edges}], one number a row of alpha")
    if not np.isfinite(weights).all():
        raise ValueError("edge_weights has an entry that is not finite: expected numbers from 0 to 1")
    return weights


def _number_of_blocks(edges: int) -> int:
    """Solves B * (B + 3) / 2 = edges."""
    blocks = (math.isqrt(9 + 8 * edges) - 3) // 2
    if blocks < 1 or blocks * (blocks + 3) // 2 != edges:
        raise ValueError(f"alpha has {edges} rows: expected B * (B + 3) / 2 for B blocks, one of 2, 5, 9, 14, 20, ...")
    return blocks


class Choice(NamedTuple):
    """Two inputs of a block and the operations on them."""

    value: int
    """Score, over the power of two that the block's choices share."""
    block: Block


class BlockChoices(NamedTuple):
    """What a block may be, the best first."""

    choices: tuple[Choice, ...]
    """Those with a positive score; of equal ones the greedy decoder's comes first: the earlier inputs, then the earlier
    operations."""
    total: int
    """Sum of the scores: a choice's probability is its score over this."""


def block_choices(
    alpha: np.ndarray, operations: Sequence[str], edge_weights: np.ndarray | None = None
) -> tuple[BlockChoices, ...]:
    """The choices of each block of a cell; arguments and what is raised as of `greedy_cell`.

    A block has no choices where fewer than two of its inputs have an operation with a positive probability.
    """
    blocks, columns, connecting, weights = checked_strengths(alpha, operations, edge_weights)
    # The order of ties is by alpha, as the greedy decoder's: a product with a weight may round two alphas to one.
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
