"""Runs of a second, and commands in this process, for the tests of strangers' files and of faults."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import nas.runs.epoch_log
from cli import common
from nas.config import ArchitectureConfig, AugmentConfig, LoaderConfig, SearchConfig
from retrain.config import RetrainConfig
from retrain.networks.settings import NetworkConfig
from search_spaces.genotype import Block, Genotype
from search_spaces.space import SearchSpace

SPACE = SearchSpace("tiny", 2, 2, 1, 2, ("none", "skip", "separable_3x3"))
GENOTYPE = Genotype(SPACE, (Block(("l-2", "l-1"), ("separable_3x3", "skip")),), (4, 8))
NETWORK = NetworkConfig(
    filter_multiplier=2,
    stem_channels=(4, 4, 4),
    aspp_channels=8,
    decoder_channels=8,
    low_level_channels=4,
    dropout=0.2,
    batch_norm_momentum=0.1,
)
LOADER = LoaderConfig(train_limit=8, val_limit=2, batch_size=2, augment=AugmentConfig(crop=(33, 33)))


def searching(folder: Path, **changes: Any) -> SearchConfig:
    """Two epochs of two steps each for weights and architecture; the space is a file beside the run folder."""
    file = folder / "tiny.yaml"
    file.write_text(SPACE.to_yaml(), encoding="utf-8")
    values: dict[str, Any] = {"space": str(file), "out": str(folder / "run"), "epochs": 2, "loader": LOADER}
    return SearchConfig(**({**values, "architecture": ArchitectureConfig(start_epoch=0)} | changes))


def training(folder: Path, **changes: Any) -> RetrainConfig:
    """Two epochs of four steps; the genotype is a file beside the run folder."""
    file = GENOTYPE.save(folder / "tiny.json")
    values: dict[str, Any] = {"genotype": str(file), "out": str(folder / "run"), "epochs": 2, "loader": LOADER}
    return RetrainConfig(**({**values, "network": NETWORK} | changes))


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take half of a tiny search's time."""
    monkeypatch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_history", lambda history: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


def command(name: str, *arguments: object) -> Outcome:
    """Runs a command, such as nas-decode, in this process."""
    module = importlib.import_module(f"cli.{name.removeprefix('nas-')}")
    return called(name, module.main, *map(str, arguments))


def called(name: str, main: Callable[[list[str]], object], *arguments: str) -> Outcome:
    """Runs a function as a command."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as stop, redirect_stdout(out), redirect_stderr(err):
        common.run(name, lambda words: main(words) and None, arguments)
    return Outcome(stop.value.code or 0, out.getvalue(), err.getvalue())  # type: ignore[arg-type]


def refused(name: str, *arguments: object) -> str:
    """Runs a command that must fail: exit code 2 and one line, which is returned."""
    outcome = command(name, *arguments)
    assert outcome.code == 2, outcome
    assert outcome.err.startswith(f"{name}: ") and outcome.err.count("\n") == 1, outcome.err
    assert len(outcome.err) < 1500
    return outcome.err
