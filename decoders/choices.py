"""The choices of each block of a cell with their probabilities: what the k best cells are put together from.

The greedy decoder keeps, for each block, the two strongest of its inputs with the likeliest operation on each. That is
the choice of two distinct inputs and two operations with the largest product of their alphas (each times the weight of
its edge, where the search weighed the edges). So this product is the score of a choice; its share of the sum over all
choices is the choice's probability, and the product over the blocks the probability of a cell. `none` can be chosen by
neither, and has no share.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from decoders.cell import checked_strengths
from decoders.exact import scaled
from search_spaces.genotype import Block, state_names

__all__ = ["BlockChoices", "Choice", "block_choices"]


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
