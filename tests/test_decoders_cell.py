"""The greedy cell decoder, by hand and against the enumeration of all cells."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders import greedy_cell
from search_spaces.genotype import Block, state_names
from search_spaces.operations import NONE
from strategies import alphas, spaces


def brute_force(alpha: np.ndarray, operations: tuple[str, ...], blocks: int) -> tuple[Block, ...]:
    """Tries every pair of inputs and operations of every block; the first of the best ones wins."""
    states, cell, first = state_names(blocks), [], 0
    columns = [column for column, name in enumerate(operations) if name != NONE]
    for block in range(blocks):
        best, found = (-1.0, -1.0), None
        for low, high in itertools.combinations(range(2 + block), 2):
            for a, b in itertools.product(columns, columns):
                pair = alpha[first + low, a], alpha[first + high, b]
                value = (max(pair), min(pair))
                if value > best:
                    best = value
                    found = Block((states[low], states[high]), (operations[a], operations[b]))
        assert found is not None
        cell.append(found)
        first += 2 + block
    return tuple(cell)


@given(st.data())
def test_is_the_best_of_all_cells(data: st.DataObject) -> None:
    space = data.draw(spaces(max_blocks=4))
    alpha = data.draw(alphas(space))
    before = alpha.copy()
    cell = greedy_cell(alpha, space.operations)
    assert cell == brute_force(alpha, space.operations, space.blocks)
    assert cell == greedy_cell(alpha, space.operations)
    assert np.array_equal(alpha, before)
    for block in cell:
        assert NONE not in block.operations
        assert block.inputs[0] != block.inputs[1]
        states = state_names(space.blocks)
        assert states.index(block.inputs[0]) < states.index(block.inputs[1])


def test_by_hand() -> None:
    operations = ("none", "skip", "separable_3x3")
    alpha = [
        [0.1, 0.2, 0.7],  # l-2 -> block1
        [0.0, 0.9, 0.1],  # l-1 -> block1
        [0.9, 0.06, 0.04],  # l-2 -> block2: strong only by `none`
        [0.4, 0.35, 0.25],  # l-1 -> block2: `none` is the likeliest, and not chosen
        [0.2, 0.2, 0.6],  # block1 -> block2
    ]
    assert greedy_cell(np.array(alpha), operations) == (
        Block(("l-2", "l-1"), ("separable_3x3", "skip")),
        Block(("l-1", "block1"), ("skip", "separable_3x3")),
    )


def test_ties_go_to_the_earlier_state_and_operation() -> None:
    alpha = np.full((9, 3), 1 / 3)
    assert greedy_cell(alpha, ("none", "skip", "atrous_3x3")) == (Block(("l-2", "l-1"), ("skip", "skip")),) * 3


def test_single_operation_and_no_none() -> None:
    assert greedy_cell(np.ones((2, 1)), ("skip",)) == (Block(("l-2", "l-1"), ("skip", "skip")),)


@pytest.mark.parametrize(
    ("alpha", "operations", "message"),
    [
        (np.ones((3, 1)), ("skip",), "3 rows"),
        (np.ones((0, 1)), ("skip",), "0 rows"),
        (np.ones((1, 1)), ("skip",), "1 rows"),
        (np.ones((2, 2)), ("skip",), "1 operations"),
        (np.ones(2), ("skip",), r"shape \[2\]"),
        (np.array([[np.nan], [1]]), ("skip",), "not finite"),
        (np.ones((2, 1)), ("none",), "one other than 'none'"),
        (np.ones((2, 0)), (), "one other than 'none'"),
    ],
)
def test_wrong_alpha_is_refused(alpha: np.ndarray, operations: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        greedy_cell(alpha, operations)
