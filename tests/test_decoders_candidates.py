"""The best networks under limits, and the Pareto front, against the enumeration of all networks in exact arithmetic."""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from decoders import Relaxed, best_candidates, decode, greedy_cell, pareto_front, viterbi
from decoders.candidates import Candidate, Vary
from decoders.cell import block_choices
from decoders.costs import MAX_LABELS, CostTable, Step, check_effort
from search_spaces.genotype import Block, state_names
from search_spaces.space import SearchSpace
from strategies import all_paths, alphas, betas

NAMES = ("multiply_adds", "parameters")
VARY: tuple[Vary, ...] = ("both", "path", "cell")


@st.composite
def tables(draw: st.DrawFn, space: SearchSpace) -> CostTable:
    """Any costs: a step's depend on the two levels before it, as those of built networks do."""
    costs = st.tuples(st.integers(0, 6), st.integers(0, 6))
    states = [(-1, 0)]  # (level before, level); the stem's own is like no other
    steps = []
    for state in states:
        own = []
        for level in space.transitions(0, state[1]):
            target = (state[1] if state[0] >= 0 else 0, level)
            if target not in states:
                states.append(target)
            own.append(Step(states.index(target), 2 * level + (level > state[1]), draw(costs)))
        steps.append(tuple(own))
    places = st.tuples(*[costs] * (2 * space.levels))
    operations = {(name, reads): draw(places) for name in space.operations for reads in (True, False) if name != "none"}
    ends = tuple(draw(costs) for _ in states)
    return CostTable(NAMES, tuple(level for _, level in states), tuple(steps), ends, operations)


def small_space(operations: tuple[str, ...], layers: int = 3, levels: int = 3) -> SearchSpace:
    return SearchSpace("small", layers, levels, 2, 1, operations)


@dataclass(frozen=True)
class Problem:
    space: SearchSpace
    relaxed: Relaxed
    table: CostTable


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    operations = draw(
        st.sampled_from([("skip", "separable_3x3"), ("none", "skip", "atrous_3x3", "average_pooling_3x3")])
    )
    space = small_space(operations, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    weights = draw(st.none() | st.sampled_from([(0.25, 0.75, 0.5, 0.125, 0.375), (0.5, 0.5, 0.2, 0.3, 0.5)]))
    alpha = draw(alphas(space))
    relaxed = Relaxed(alpha, draw(betas(space)), operations, None if weights is None else np.array(weights))
    assume(all(block.choices for block in block_choices(alpha, operations, relaxed.edge_weights)))
    return Problem(space, relaxed, draw(tables(space)))


def every_cell(relaxed: Relaxed) -> dict[tuple[Block, ...], tuple[Fraction, int]]:
    """Each cell with a positive probability: this, and where it stands in the order of ties."""
    states, first, blocks = state_names(2), 0, []
    weights = np.ones(len(relaxed.alpha)) if relaxed.edge_weights is None else relaxed.edge_weights
    for inputs in (2, 3):
        scores: dict[Block, Fraction] = {}
        for low, high in itertools.combinations(range(inputs), 2):
            rows = [relaxed.alpha[first + state] * weights[first + state] for state in (low, high)]
            # Of equal ones those that alpha prefers: a weight of an edge is common to all of its operations.
            ranked = [sorted(range(len(row)), key=lambda column, row=row: -row[column]) for row in rows]
            for a, b in itertools.product(*ranked):
                if "none" not in (names := (relaxed.operations[a], relaxed.operations[b])):
                    score = Fraction(float(rows[0][a])) * Fraction(float(rows[1][b]))
                    scores[Block((states[low], states[high]), names)] = score
        ordered = sorted((b for b, score in scores.items() if score), key=lambda block, s=scores: -s[block])
        blocks.append([(block, scores[block] / sum(scores.values())) for block in ordered])
        first += inputs
    return {(one, two): (p * q, number) for number, ((one, p), (two, q)) in enumerate(itertools.product(*blocks))}


def every_network(problem: Problem, vary: Vary) -> list[tuple[Fraction, tuple[int, ...], tuple[Block, ...]]]:
    """(probability, levels, cell) of each, in the documented order."""
    relaxed, cells = problem.relaxed, every_cell(problem.relaxed)
    greedy, likeliest = (
        greedy_cell(relaxed.alpha, relaxed.operations, relaxed.edge_weights),
        viterbi(relaxed.beta).levels,
    )
    networks = []
    for levels in all_paths(problem.space.layers, problem.space.levels):
        steps = zip(relaxed.beta, (0, *levels), levels, strict=False)
        path = math.prod(Fraction(float(table[before, level - before + 1])) for table, before, level in steps)
        for cell, (probability, number) in cells.items():
            fixed = {"both": False, "path": cell != greedy, "cell": levels != likeliest}[vary]
            if path and not fixed:
                networks.append((-path * probability, levels, number, cell))
    return [(-negative, levels, cell) for negative, levels, _, cell in sorted(networks, key=lambda n: n[:3])]


def as_found(candidates: list[Candidate]) -> list[tuple[tuple[int, ...], tuple[Block, ...]]]:
    return [(candidate.levels, candidate.cell) for candidate in candidates]


@given(problems(), st.sampled_from(VARY), st.integers(1, 6))
def test_the_best_are_the_best_of_all(problem: Problem, vary: Vary, count: int) -> None:
    networks = every_network(problem, vary)
    found = best_candidates(problem.relaxed, count, vary=vary)
    assert as_found(found) == [(levels, cell) for _, levels, cell in networks[:count]]
    for candidate, (probability, _, _) in zip(found, networks, strict=False):
        assert math.isclose(candidate.path_probability * candidate.cell_probability, probability)
        assert math.isclose(candidate.log_probability, math.log(probability), abs_tol=1e-12)
    assert found[0].levels == viterbi(problem.relaxed.beta).levels
    assert found[0].cell == greedy_cell(problem.relaxed.alpha, problem.relaxed.operations, problem.relaxed.edge_weights)


@given(problems(), st.sampled_from(VARY), st.integers(1, 4), st.data())
def test_the_best_within_limits_are_the_best_of_all_within_limits(
    problem: Problem, vary: Vary, count: int, data: st.DataObject
) -> None:
    table = problem.table
    networks = [(levels, cell, table.cost(cell, levels)) for _, levels, cell in every_network(problem, vary)]
    names = data.draw(st.sampled_from([("multiply_adds",), ("parameters",), NAMES, NAMES[::-1]]))
    limits = {}
    for name in names:
        costs = sorted({cost[NAMES.index(name)] for _, _, cost in networks})
        limits[name] = data.draw(st.sampled_from([costs[0] - 1, *costs]))
    within = [
        (levels, cell, cost)
        for levels, cell, cost in networks
        if all(cost[NAMES.index(name)] <= limit for name, limit in limits.items())
    ]
    if not within:
        least = " and ".join(
            f"{min(cost[NAMES.index(name)] for _, _, cost in networks)} {name.replace('_', '-')}" for name in names
        )
        with pytest.raises(ValueError, match=f"no network is within .*: the cheapest has {least}"):
            best_candidates(problem.relaxed, count, table, limits, vary)
        return
    found = best_candidates(problem.relaxed, count, table, limits, vary)
    assert as_found(found) == [(levels, cell) for levels, cell, _ in within[:count]]
    assert [tuple(candidate.costs.values()) for candidate in found] == [cost for _, _, cost in within[:count]]


@given(problems(), st.sampled_from(VARY), st.sampled_from(NAMES))
def test_the_front_is_that_of_all_networks(problem: Problem, vary: Vary, name: str) -> None:
    front: list[tuple[Fraction, int]] = []
    for probability, levels, cell in every_network(problem, vary):
        cost = problem.table.cost(cell, levels)[NAMES.index(name)]
        if not front or cost < front[-1][1]:
            if front and front[-1][0] == probability:
                front.pop()
            front.append((probability, cost))
    found = pareto_front(problem.relaxed, problem.table, name, vary)
    assert [candidate.costs[name] for candidate in found] == [cost for _, cost in front]
    for candidate, (probability, _) in zip(found, front, strict=True):
        assert math.isclose(candidate.log_probability, math.log(probability), abs_tol=1e-12)


def test_by_hand() -> None:
    """One block: two inputs, on each skip (free) or separable (1 a layer at the finest level, 10 where it halves)."""
    relaxed = Relaxed(np.array([[0.4, 0.6], [0.3, 0.7]]), np.zeros((2, 2, 3)), ("skip", "separable_3x3"))
    relaxed.beta[:, 0, 1:], relaxed.beta[1, 1, :2] = (0.6, 0.4), (0.5, 0.5)
    steps = (
        (Step(1, 0, (0,)), Step(2, 3, (5,))),
        (Step(1, 0, (0,)), Step(2, 3, (5,))),
        (Step(1, 0, (0,)), Step(2, 2, (5,))),
    )
    free, dear = ((0,),) * 4, ((1,), (0,), (10,), (10,))
    operations = {
        (name, reads): costs for name, costs in (("skip", free), ("separable_3x3", dear)) for reads in (True, False)
    }
    table = CostTable(("parameters",), (0, 0, 1), steps, ((0,), (0,), (0,)), operations)
    best = best_candidates(relaxed, 2, table)
    # 0.6 * 0.6 = 0.36 of the paths (0, 0); 0.6 * 0.7 = 0.42 of the cells.
    assert [(c.levels, c.costs["parameters"]) for c in best] == [((0, 0), 4), ((0, 0), 2)]
    assert math.isclose(best[0].path_probability, 0.36) and math.isclose(best[0].cell_probability, 0.42)
    (cheap,) = best_candidates(relaxed, 1, table, {"parameters": 1})
    assert (cheap.levels, cheap.cell[0].operations, cheap.costs) == ((0, 0), ("skip", "skip"), {"parameters": 0})
    assert [c.costs["parameters"] for c in pareto_front(relaxed, table, "parameters")] == [4, 2, 0]


def test_a_block_without_a_choice_leaves_the_path_to_vary() -> None:
    space = small_space(("none", "skip"), 2, 2)
    alpha = np.tile([1.0, 0.0], (5, 1))
    alpha[:2] = 0.5
    beta = np.zeros((2, 2, 3))
    beta[0, 0, 1:] = beta[1, 0, 1:] = beta[1, 1, :2] = (0.75, 0.25)
    relaxed = Relaxed(alpha, beta, space.operations)
    with pytest.raises(ValueError, match=r"block2 fewer than two inputs.*vary the path alone"):
        best_candidates(relaxed, 1)
    found = best_candidates(relaxed, 4, vary="path")
    assert [candidate.levels for candidate in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found[0].cell == decode(space, alpha, beta).cell
    assert found[0].cell_probability == 0


def test_wrong_arguments_are_refused() -> None:
    relaxed = Relaxed(np.full((2, 1), 1.0), np.array([[[0.0, 1.0, 0.0]]]), ("skip",))
    for arguments, message in (
        ({"count": 0}, "0 candidates are asked for: give at least 1"),
        ({"count": 1, "limits": {"parameters": 1}}, "no cost 'parameters': the costs are none: give a table"),
        ({"count": 1, "vary": "all"}, "vary is 'all': give one of both, path, cell"),
    ):
        with pytest.raises(ValueError, match=message):
            best_candidates(relaxed, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fewer candidates"):
        check_effort(MAX_LABELS + 1)
