"""What modules offer to the loops: projection, no decay, numbers for the log; and where the numbers go."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from nas.config import RunConfig
from nas.runs.epoch_log import RECORDED, record_epoch
from nas.runs.folder import RunFolder
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.module_protocols import Projected, Reporting, project, reported, undecayed


class Level(nn.Module, Projected, Reporting):
    """One number that stays at 3 or below, does not decay and is reported."""

    undecayed = ("level",)

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))
        self.other = nn.Parameter(torch.tensor(9.0))

    @torch.no_grad()
    def project(self) -> None:
        self.level.clamp_(max=3)

    def report(self) -> dict[str, float]:
        return {"level": self.level.item(), "square": self.level.item() ** 2}


def many(count: int) -> nn.Sequential:
    return nn.Sequential(*(Level(float(number)) for number in range(count)))


def test_every_module_projects_its_own() -> None:
    network = nn.ModuleDict({"deep": nn.Sequential(nn.ReLU(), many(6)), "plain": nn.Conv2d(1, 1, 1)})
    plain = network["plain"].weight.detach().clone()
    project(network)
    levels = [module.level for module in network.modules() if isinstance(module, Level)]
    assert [level.item() for level in levels] == [0, 1, 2, 3, 3, 3]
    assert all(level.requires_grad and level.is_leaf for level in levels)
    assert torch.equal(network["plain"].weight, plain)


def test_a_child_called_project_is_no_projection() -> None:
    network = nn.ModuleDict({"project": nn.Conv2d(1, 1, 1), "report": nn.Conv2d(1, 1, 1)})
    project(network)
    assert reported(network) == {}


def test_what_a_module_names_does_not_decay() -> None:
    network = nn.Sequential(Level(1.0), nn.Conv2d(1, 1, 1), LateralInhibition(2))
    assert [id(p) for p in undecayed(network)] == [id(network[0].level), id(network[2].intensity)]


@pytest.mark.parametrize("count", [1, 32])
def test_few_modules_are_reported_by_name(count: int) -> None:
    numbers = reported(many(count))
    assert len(numbers) == 2 * count
    assert numbers[f"{count - 1}/level"] == count - 1
    assert numbers[f"{count - 1}/square"] == (count - 1) ** 2


def test_of_many_modules_of_a_class_the_mean_is_reported() -> None:
    network = nn.ModuleDict({"levels": many(33), "inhibition": LateralInhibition(2, init=(0.25, 0.25))})
    numbers = reported(network)
    assert numbers.pop("Level/mean level") == pytest.approx(16)
    assert numbers.pop("Level/mean square") == pytest.approx(sum(n * n for n in range(33)) / 33)
    assert numbers == {"inhibition/mean": 0.25, "inhibition/max": 0.25}


def test_a_network_without_such_modules_reports_nothing(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 1)
    assert reported(network) == {}
    with RunFolder(tmp_path, RunConfig(), quiet=True) as run:
        record_epoch(run, 0, {"loss": 0.5}, network)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"epoch": 0, "loss": 0.5}


class Chatty(nn.Module, Reporting):
    """Reports more numbers than people read."""

    def report(self) -> dict[str, float]:
        return {f"n{number}": float(number) for number in range(RECORDED + 1)}


@pytest.mark.parametrize(("network", "recorded"), [(many(RECORDED // 2), True), (Chatty(), False)])
def test_numbers_go_to_tensorboard_and_few_of_them_to_the_record(
    network: nn.Module, recorded: bool, tmp_path: Path
) -> None:
    numbers = reported(network)
    with RunFolder(tmp_path, RunConfig(), quiet=True) as run:
        for epoch in range(2):
            record_epoch(run, epoch, {"loss": 0.5}, network)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("modules") for line in lines] == [numbers if recorded else None] * 2
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, value in numbers.items():
        shown = events.Scalars(f"modules/{name}")
        assert [(event.step, event.value) for event in shown] == [(0, value), (1, value)]
    assert math.isfinite(events.Scalars("loss")[0].value)
