"""The Viterbi decoder, by hand and against the enumeration of all paths in exact arithmetic."""

import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders import best_paths, path_probability, viterbi
from strategies import all_paths, betas, spaces


def exact_probability(beta: np.ndarray, path: tuple[int, ...]) -> Fraction:
    result, level = Fraction(1), 0
    for layer, target in enumerate(path):
        result *= Fraction(float(beta[layer, level, target - level + 1]))
        level = target
    return result


def random_beta(layers: int, levels: int) -> np.ndarray:
    beta = np.random.default_rng(0).random((layers, levels, 3))
    beta[:, 0, 0] = beta[:, -1, 2] = 0
    return beta / beta.sum(axis=2, keepdims=True)


@given(st.data())
def test_is_the_best_of_all_paths(data: st.DataObject) -> None:
    space = data.draw(spaces(max_layers=6))
    beta = data.draw(betas(space))
    before = beta.copy()
    path = viterbi(beta)
    probabilities = {levels: exact_probability(beta, levels) for levels in all_paths(space.layers, space.levels)}
    best = max(probabilities.values())
    assert path.levels == min(levels for levels, value in probabilities.items() if value == best)
    assert path.probability == float(best) == path_probability(beta, path.levels)
    assert math.isclose(path.log_probability, math.log(best), abs_tol=1e-12)
    assert path == viterbi(beta)
    assert np.array_equal(beta, before)


@given(st.data(), st.integers(1, 12))
def test_the_k_best_are_the_k_best_of_all_paths(data: st.DataObject, count: int) -> None:
    space = data.draw(spaces(max_layers=5))
    beta = data.draw(betas(space))
    probabilities = {levels: exact_probability(beta, levels) for levels in all_paths(space.layers, space.levels)}
    ranked = sorted((-probability, levels) for levels, probability in probabilities.items() if probability)
    found = best_paths(beta, count)
    assert [path.levels for path in found] == [levels for _, levels in ranked[:count]]
    assert [path.probability for path in found] == [float(-negative) for negative, _ in ranked[:count]]
    assert found[0] == viterbi(beta)


def test_fewer_paths_than_asked_for_and_none_asked_for() -> None:
    beta = random_beta(2, 2)
    assert {path.levels for path in best_paths(beta, 9)} == set(all_paths(2, 2))
    with pytest.raises(ValueError, match="0 paths are asked for: give at least 1"):
        best_paths(beta, 0)


@given(st.data())
def test_probability_of_any_path(data: st.DataObject) -> None:
    space = data.draw(spaces())
    beta = data.draw(betas(space))
    levels = data.draw(st.sampled_from(sorted(all_paths(space.layers, space.levels))))
    assert path_probability(beta, levels) == float(exact_probability(beta, levels))


def test_by_hand() -> None:
    beta = np.zeros((3, 2, 3))
    beta[0, 0] = [0, 0.6, 0.4]
    beta[1, 0], beta[1, 1] = [0, 0.5, 0.5], [0.1, 0.9, 0]
    beta[2, 0], beta[2, 1] = [0, 0.5, 0.5], [0.2, 0.8, 0]
    path = viterbi(beta)  # the greedy first step, 0.6, is not on it: 0.6 * 0.5 * 0.8 = 0.24 < 0.4 * 0.9 * 0.8
    assert path.levels == (1, 1, 1)
    assert math.isclose(path.probability, 0.288)
    assert math.isclose(path_probability(beta, (0, 1, 0)), 0.6 * 0.5 * 0.2)


@pytest.mark.parametrize(("probability", "steps"), [(0.5, (1, 2)), (0.1, (1, 2))])
def test_ties_go_to_the_finest_path(probability: float, steps: tuple[int, int]) -> None:
    beta = np.zeros((4, 2, 3))
    for step in steps:
        beta[:, 0, step] = probability
    for step in (0, 1):
        beta[:, 1, step] = probability
    assert viterbi(beta).levels == (0, 0, 0, 0)


@pytest.mark.parametrize("order", list(itertools.permutations((0.1, 0.7, 0.3))))
def test_ties_are_exact_whatever_the_order_of_the_factors(order: tuple[float, float, float]) -> None:
    # Sums of the logarithms of the same three factors in another order may differ in the last bit.
    beta = np.zeros((4, 2, 3))
    beta[0, 0] = [0, 0.5, 0.5]
    beta[1:, 0, 1], beta[1:, 1, 1] = (0.1, 0.7, 0.3), order
    assert viterbi(beta).levels == (0, 0, 0, 0)
    beta[1:, 0, 1], beta[1:, 1, 1] = order, (0.1, 0.7, 0.3)
    assert viterbi(beta).levels == (0, 0, 0, 0)


def test_one_layer_one_level() -> None:
    path = viterbi(np.array([[[0.0, 1.0, 0.0]]]))
    assert (path.levels, path.probability, path.log_probability) == ((0,), 1.0, 0.0)


def test_a_thousand_layers_do_not_underflow() -> None:
    beta = np.zeros((1000, 1, 3))
    beta[:, 0, 1] = 1e-3
    path = viterbi(beta)
    assert path.levels == (0,) * 1000
    assert path.probability == 0.0
    assert math.isclose(path.log_probability, 1000 * math.log(1e-3), rel_tol=1e-12)


@pytest.mark.parametrize(("layers", "levels", "limit"), [(12, 4, 0.005), (200, 8, 0.1)])
def test_is_fast(layers: int, levels: int, limit: float) -> None:
    beta = random_beta(layers, levels)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        viterbi(beta)
        times.append(time.perf_counter() - start)
    assert min(times) < limit


def changed(index: tuple[int, int, int], value: float) -> np.ndarray:
    beta = random_beta(3, 2)
    beta[index] = value
    return beta


@pytest.mark.parametrize(
    ("beta", "message"),
    [
        (np.ones((3, 3)), "expected .layers, levels, 3."),
        (np.ones((3, 2, 2)), "expected .layers, levels, 3."),
        (np.ones((0, 2, 3)), "expected .layers, levels, 3."),
        (changed((1, 1, 1), np.nan), "not finite"),
        (changed((1, 1, 1), np.inf), "not finite"),
        (changed((1, 1, 1), -0.1), "negative"),
        (changed((1, 0, 0), 0.1), "finer than the finest"),
        (changed((1, 1, 2), 0.1), "coarser than the coarsest"),
        (np.zeros((3, 2, 3)), "positive probability"),
    ],
)
def test_wrong_beta_is_refused(beta: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viterbi(beta)


@pytest.mark.parametrize("levels", [(0, 0), (0, 0, 0, 0), (0, 0, 2), (0, 0, -1)])
def test_wrong_path_is_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        path_probability(random_beta(3, 2), levels)


def test_a_step_of_two_levels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"levels\[0\] is 2"):
        path_probability(random_beta(2, 3), (2, 2))
