"""The expected cost of a relaxed architecture: against all paths and cells, its gradient, and what its weight does."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import nas.runs.epoch_log
from decoders.path import path_probability
from nas.config import ArchitectureConfig, CostName, HealthConfig
from nas.darts import search
from nas.runs.folder import read_metrics
from nas.supernet.architecture import Architecture
from nas.supernet.penalties import ExpectedCost
from search_spaces.graph import random_genotype
from search_spaces.operations import OPERATIONS
from search_spaces.space import SearchSpace
from strategies import all_paths
from test_search import LOADER, settings
from test_supernet import space

SIZE = (33, 47)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_history", lambda history: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)


def architecture_of(searched: SearchSpace, weighs_edges: bool = False) -> Architecture:
    torch.manual_seed(0)
    architecture = Architecture(searched, weighs_edges).double()
    for parameter in architecture.parameters():
        torch.nn.init.normal_(parameter)
    return architecture


def cost_of(searched: SearchSpace, operation: str, level: int, name: CostName) -> float:
    sides = [-(-side // (4 * 2**level)) for side in SIZE]
    return float(getattr(OPERATIONS[operation].cost(searched.operation_channels(level), sides[0], sides[1], 1), name))


@pytest.mark.parametrize("name", ["multiply_adds", "parameters"])
def test_it_is_the_mean_over_all_paths_pairs_of_inputs_and_operations(name: CostName) -> None:
    searched = space(layers=3, levels=2, blocks=2)
    architecture = architecture_of(searched)
    sample = architecture()
    alpha, beta = (tensor.detach().numpy() for tensor in (sample.alpha, sample.beta))
    total = 0.0
    for levels in all_paths(3, 2):
        cells = 0.0
        for level in levels:
            for block in range(2):
                pairs = list(itertools.combinations([e for e, (_, b) in enumerate(searched.edges) if b == block], 2))
                for pair in pairs:
                    for edge in pair:
                        costs = [cost_of(searched, o, level, name) for o in searched.operations]
                        cells += float(np.dot(alpha[edge], costs)) / len(pairs)
        total += path_probability(beta, levels) * cells
    assert ExpectedCost(searched, architecture, name, SIZE)().item() == pytest.approx(total, rel=1e-9)


def test_the_cost_of_a_genotype_is_that_of_its_operations_along_its_path() -> None:
    searched = space(layers=4)
    cost = ExpectedCost(searched, architecture_of(searched), "multiply_adds", SIZE)
    for seed in range(5):
        genotype = random_genotype(searched, seed)
        operations = [name for block in genotype.cell for name in block.operations]
        expected = sum(cost_of(searched, o, level, "multiply_adds") for level in genotype.levels for o in operations)
        assert cost.decoded(genotype) == pytest.approx(expected, rel=1e-6)


def test_the_penalty_is_nothing_below_the_target_and_has_a_gradient_above_it() -> None:
    searched = space()
    for weighs_edges in (False, True):
        architecture = architecture_of(searched, weighs_edges)
        cost = ExpectedCost(searched, architecture, "multiply_adds", SIZE)
        share = cost().item() / cost.start
        assert cost.penalty(3.0, share + 0.1).item() == 0
        assert cost.penalty(3.0, share - 0.1).item() == pytest.approx(0.3)
        cost.penalty(3.0, 0.0).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in architecture.parameters())
        for parameter in (architecture.alpha, architecture.beta):
            torch.nn.init.zeros_(parameter)
        if not weighs_edges:
            assert cost().item() == pytest.approx(cost.start)


@pytest.mark.parametrize("partial_channels", [1, 2])
def test_raising_the_weight_lowers_the_decoded_cost(tmp_path: Path, partial_channels: int) -> None:
    costs, shares = [], []
    searched = SearchSpace("priced", 2, 2, 1, 2, ("none", "skip", "separable_3x3", "atrous_5x5"))
    for weight in (0.0, 1.0, 100.0):
        options = ArchitectureConfig(lr=0.2, start_epoch=0, cost_weight=weight, cost_target=0.1 if weight else 0.5)
        changes = {"architecture": options, "health": HealthConfig(gap_batches=0), "epochs": 2}
        out = str(tmp_path / str(weight))
        config = settings(tmp_path, searched, partial_channels=partial_channels, out=out, **changes)
        result = search(config, quiet=True)
        architecture = Architecture(searched)
        cost = ExpectedCost(searched, architecture, "multiply_adds", LOADER.augment.crop)
        costs.append(cost.decoded(result.genotype))
        if weight:
            health = read_metrics(result.folder)[-1]["health"]
            assert health["decoded_cost"] == pytest.approx(costs[-1] / cost.start)
            shares.append(health["expected_cost"])
    assert costs[0] >= costs[1] >= costs[2] and costs[2] < costs[0]
    assert shares[1] < shares[0] < 1
