"""Workers of a sweep as processes of their own, with an objective that trains nothing."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from nas.config import SearchConfig
from retrain.sweeps.settings import Parameter, StudyConfig
from retrain.sweeps.space import Space
from retrain.sweeps.storage import open_storage
from retrain.sweeps.study import Study, TrialRun
from retrain.sweeps.workers import Jobs

PARAMETERS = (
    Parameter("optimizer.lr", range=(0.001, 1.0), log=True),
    Parameter("optimizer.momentum", range=(0.0, 0.9)),
)


def value_of(config: Any) -> float:
    """Highest, 1, at a rate of 0.1 and a momentum of 0.5."""
    return 1 - (math.log10(config.optimizer.lr) + 1) ** 2 / 10 - (config.optimizer.momentum - 0.5) ** 2


def make_study(
    folder: Path,
    storage: str | None = None,
    parameters: Sequence[Parameter] = PARAMETERS,
    base: SearchConfig | None = None,
    **config: Any,
) -> Study:
    """A study in a folder; it says nothing."""
    space = Space(parameters, base or SearchConfig())
    return Study("study", space, StudyConfig(**config), open_storage(storage, folder), folder, say=lambda line: None)


def objective(trial: TrialRun) -> list[float]:
    """Three epochs that grow towards the value."""
    value = value_of(trial.config)
    for epoch in range(3):
        trial.each_epoch(epoch, {"miou": value * (epoch + 1) / 3})
    return [value]


def work(folder: Path, storage: str | None, dies_in: int | None, config: dict[str, Any]) -> None:
    """One worker; it writes a line for each trial that it begins, and kills itself in the middle of one."""
    begun = 0

    def logged(trial: TrialRun) -> list[float]:
        nonlocal begun
        begun += 1
        with (folder / "begun.txt").open("a") as file:
            file.write(f"{trial.folder.name}\n")
        trial.each_epoch(0, {"miou": 0.0})
        if begun == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return [value_of(trial.config)]

    make_study(folder, storage, **config).work(logged)


def start(folder: Path, storage: str | None, dies_in: int | None = None, **config: Any) -> BaseProcess:
    """Starts a worker. Processes are forked from one that has imported all this, and no more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweep_workers"])
    process = context.Process(target=work, args=(folder, storage, dies_in, config))
    process.start()
    return process


def work_on_jobs(folder: Path, dies: bool) -> None:
    """One worker of twelve jobs; it writes a line for each that it did, or kills itself in its second one."""
    begun = 0

    def do(job: str, alive: Callable[[], None]) -> dict[str, Any]:
        nonlocal begun
        begun += 1
        if dies and begun == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        alive()
        time.sleep(0.05)
        with (folder / "done.txt").open("a") as file:
            file.write(f"{job}\n")
        return {"miou": 0.5, "by_epoch": [0.25, None, 0.5]}

    names = [str(number) for number in range(12)]
    Jobs(open_storage(None, folder), "jobs", {}, names, do, lambda line: None, patience=2.0).run_trials()


def start_on_jobs(folder: Path, dies: bool) -> BaseProcess:
    """Starts a worker of a list of jobs."""
    process = multiprocessing.get_context("forkserver").Process(target=work_on_jobs, args=(folder, dies))
    process.start()
    return process
