"""What tests of runs share: stopping one at a step, and comparing two."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.training.step import Stepper


class Killed(BaseException):
    """Stands for `kill -9`: nothing that runs afterwards is the run's own."""


def kill() -> None:
    raise Killed


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def on_step(patch: pytest.MonkeyPatch, number: int, action: Any) -> None:
    """Calls `action` after step `number`, from 1; steps of the weights and of the architecture count alike."""
    steps, step = [0], Stepper.step

    def counting(self: Stepper, images: Any, labels: Any, where: str) -> float:
        value = step(self, images, labels, where)
        steps[0] += 1
        if steps[0] == number:
            action()
        return value

    patch.setattr(Stepper, "step", counting)


def equal(first: Any, second: Any) -> bool:
    """Whether nested containers are equal, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def record(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the time that it took, and without warnings, which go by the epochs that are planned."""
    others = ("seconds", "waiting", "warnings")
    return [{key: value for key, value in line.items() if key not in others} for line in read_metrics(folder)]


def check_same_run(first: Path, second: Path, kind: str) -> None:
    """Two run folders hold the same run: record, genotype, and all of the checkpoint but the folder's own name."""
    assert record(first) == record(second)
    saved = [load_checkpoint(folder / "checkpoint.pt", kind) for folder in (first, second)]
    for one in saved:
        one["state"].get("memory", {}).pop("warnings", None)  # as in `record`
    assert saved[0].keys() == saved[1].keys()
    for key in saved[0].keys() - {"config"}:
        assert equal(saved[0][key], saved[1][key]), key
    for name in ("genotype.json", "genotypes.jsonl"):
        texts = [(folder / name).read_text() for folder in (first, second) if (folder / name).exists()]
        assert len(texts) != 1 and len(set(texts)) <= 1  # a published network has none
