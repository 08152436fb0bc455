"""The dominant eigenvalue: against NumPy's, against the whole Hessian of a supernet, and in a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.config import HealthConfig
from nas.darts import search
from nas.diagnostics.curvature import architecture_eigenvalue, dominant_eigenvalue
from nas.diagnostics.health import warnings_of, with_eigenvalue
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.training.step import Execution, Stepper
from test_discretization import equal
from test_fast_node import engines
from test_health import SPACE
from test_search import settings
from test_supernet import images

LENGTH = 1e-5
"""In float64: short enough for no ReLU to change its side on the way, or for few."""


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_eigenvalue_of_the_largest_magnitude(seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(6, 6))
    matrix = half + half.T  # of both signs
    values = np.linalg.eigvalsh(matrix)
    largest = values[np.abs(values).argmax()]
    hessian, at = torch.from_numpy(matrix), torch.from_numpy(rng.normal(size=6))
    found = dominant_eigenvalue(lambda x: hessian @ x, at, steps=400)
    assert found == pytest.approx(largest, rel=1e-6)


def test_it_is_0_where_there_is_no_gradient() -> None:
    assert dominant_eigenvalue(torch.zeros_like, torch.ones(3), steps=2) == 0.0


def make_stepper(network: torch.nn.Module) -> Stepper:
    adam = torch.optim.Adam(network.architecture.parameters(), 0.1)  # type: ignore[union-attr,operator]
    return Stepper("architecture", network, adam, Execution(torch.device("cpu")))


def test_of_a_supernet_it_is_that_of_the_whole_hessian_and_both_engines_agree() -> None:
    x = images(2, 17, 17)
    y = torch.randint(0, 3, (x.shape[0], *x.shape[2:]), generator=torch.Generator().manual_seed(0))
    found, before = [], []
    for network in engines(SPACE):
        with torch.no_grad():  # away from the saddle at which alpha and beta begin
            for number, parameter in enumerate(network.architecture.parameters()):
                parameter.add_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)).to(parameter)
                )
        stepper = make_stepper(network)
        before = [value.clone() for value in network.state_dict().values()]
        found.append(architecture_eigenvalue(stepper, x, y, steps=20, length=LENGTH))
        assert all(map(torch.equal, before, network.state_dict().values()))
        assert all(parameter.grad is None for parameter in stepper.parameters)
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[1] == pytest.approx(largest_of_whole_hessian(stepper, x, y), rel=1e-3)


def largest_of_whole_hessian(stepper: Stepper, x: Tensor, y: Tensor) -> float:
    """From a difference of gradients along each logit."""
    rows = []
    for parameter in stepper.parameters:
        flat = parameter.data.view(-1)
        for number in range(flat.numel()):
            sides = []
            for sign in (1, -2):  # to +length, then to -length
                flat[number] += sign * LENGTH
                stepper.gradients(x, y)
                sides.append(torch.cat([p.grad.flatten() for p in stepper.parameters if p.grad is not None]))
            flat[number] += LENGTH
            rows.append((sides[0] - sides[1]) / (2 * LENGTH))
    hessian = torch.stack(rows).double().numpy()
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    return float(values[np.abs(values).argmax()])


def test_a_run_that_computes_it_is_the_run_that_does_not(tmp_path: Path) -> None:
    states, records = [], []
    for name, steps in (("off", 0), ("on", 2)):
        health = HealthConfig(gap_batches=0, eigenvalue_steps=steps)
        folder = search(settings(tmp_path, health=health, out=str(tmp_path / name)), quiet=True).folder
        states.append(load_checkpoint(folder / "checkpoint.pt", "search"))
        records.append([line["health"] for line in read_metrics(folder)])
    for key in states[0].keys() - {"config", "state"}:
        assert equal(states[0][key], states[1][key]), key
    assert not any("eigenvalue" in line for line in records[0])
    assert ["eigenvalue" in line for line in records[1]] == [False, True, True]  # alpha learns from the second epoch on
    assert states[1]["state"]["memory"]["eigenvalues"] == [line["eigenvalue"] for line in records[1][1:]]


def test_growth_is_over_five_epochs_and_warned_of_from_four_thirds_on() -> None:
    before: dict[str, list[float]] = {}
    grown = []
    for value in (3.0, 1.0, 1.0, 1.0, 1.0, 3.5, 1.5):
        memory: dict[str, list[float]] = {}
        grown.append(with_eigenvalue(value, before, memory).get("eigenvalue_growth"))
        before = memory
    assert grown == [None] * 5 + [3.5 / 3, 1.5]
    said = [
        list(
            warnings_of(
                {"alpha_entropy": 0.5, "decoded_skips": 0, "eigenvalue_growth": growth}, SPACE, 0.5, 0.5
            ).values()
        )
        for growth in (3.5 / 3, 1.5)
    ]
    assert said[0] == [] and len(said[1]) == 1 and "1.5 times that of 5 epochs ago" in said[1][0]
