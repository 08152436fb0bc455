"""The work on a study: any number of workers, each in a process of its own, on one or more machines.

A worker takes a trial (see `ledger`), draws its values, runs it in a run folder of its own, and reports each epoch. It
ends when the study has its trials. A trial whose worker died is marked failed and tried again, in the same run folder
where that is at hand: from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.config import RunConfig
from nas.data.identity import check_same_data
from nas.evaluation.cost import timed_on
from nas.evaluation.metrics import is_collapse, mean_note
from nas.runs.folder import CHANGEABLE, MovedError, read_metrics, refuse_links
from nas.runs.free_memory import is_out_of_memory
from nas.runs.names import CONFIG, SWEEP_FILE
from nas.training.devices import choose_device
from retrain.sweeps.ledger import END, FAILED, RETRY_OF, Ledger
from retrain.sweeps.settings import StudyConfig, load_sweep
from retrain.sweeps.space import Label, Space, check_cmaes, make_pruner, make_sampler, suggest
from retrain.sweeps.storage import Beat, LostTrialError, open_storage
from retrain.sweeps.workers import Worker, is_free, reason_of
from search_spaces.validation import as_path, differences, from_plain, require, to_plain, without_password

__all__ = [
    "COLLAPSED",
    "DIRECTIONS",
    "Objective",
    "Study",
    "TrialRun",
    "amount",
    "leaves",
    "open_study",
    "spoken",
    "written",
]


DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "miou": "maximize",
    "multiply_adds": "minimize",
    "parameters": "minimize",
    "latency": "minimize",
}
COLLAPSED = "collapsed"
"""Attribute of a trial whose network predicts one class everywhere after the last epoch."""
SWEEP = "sweep"
"""Attribute of a study: what it is of. Workers with other parameters or settings are refused."""


@dataclass(frozen=True)
class TrialRun:
    """What an objective is called with."""

    config: RunConfig
    """All settings."""
    folder: Path
    """The run folder."""
    resume: bool
    """Whether the folder holds the run, to resume it."""
    each_epoch: Callable[[int, Mapping[str, float]], None]
    """To be called after each epoch, counted from 0, with its validation metrics; what it raises ends the run."""


Objective = Callable[[TrialRun], Sequence[float]]
"""Runs a trial and returns the value of each objective."""


@dataclass
class Study(Worker):
    """A study and one worker's part in it.

    Raises:
        ValueError: The storage has another study of this name.
    """

    name: str
    space: Space
    config: StudyConfig
    storage: BaseStorage
    folder: Path
    """Of the trials' run folders."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the data of all trials (see `nas.data.identity`); empty to read a study only."""
    say: Callable[[str], None] = print
    """Is given a line for each trial that ends here."""
    each_trial: Callable[[], object] = lambda: None
    """Is called after each trial that ends here."""
    points: list[dict[str, Label]] = field(init=False)
    """Values given in advance: the whole grid, or those to try first."""
    places: int = field(init=False)
    """Number of trials to reach."""

    def __post_init__(self) -> None:
        is_grid = self.config.sampler == "grid"
        self.points = self.space.points() if is_grid else self.space.first
        self.places = self.config.places(len(self.points))
        if self.config.sampler == "cmaes":
            check_cmaes(self.space.parameters)
        study = optuna.create_study(
            storage=self.storage,
            study_name=self.name,
            directions=[DIRECTIONS[name] for name in self.config.objectives],
            load_if_exists=True,
        )
        super().__init__(self.storage, self.name, self.config.patience, self.config.failures, self.say)
        # In this order: a worker that starts at the same time describes the study before it makes a trial.
        begun, trials = sorted(self.folder.glob("trial-*")), study.trials
        refuse_links(begun)
        kept = study.user_attrs.get(SWEEP)
        if kept is None:
            require(not trials, f"the storage has a study {self.name} of something else: give another --study")
            require(
                not begun,
                f"{self.folder} has trials of another study: give the --storage it had, or choose another --out",
            )
            study.set_user_attr(SWEEP, self._identity() | {"data": self.data})
            return
        now = self._identity()
        kept["settings"] = now["settings"] | kept["settings"]  # those that are newer than the study
        before = kept.pop("data", {})
        if changed := differences(kept, now):
            raise ValueError(
                f"the study {self.name} has another {', '.join(changed)}: give the same to resume it, or choose "
                "another --out (or --study) for a new one"
            )
        check_same_data(before, self.data, f"the study {self.name}", self.space.base["data_changed"] == "accept")

    def work(self, objective: Objective) -> None:
        """Runs trials until the study has them all; see `Worker.run_trials`."""
        self._objective = objective
        self.run_trials()

    def _next(self, trials: list[FrozenTrial]) -> dict[str, Any] | None:
        """A trial to try again, or a new one if there is a place."""
        ledger = self._ledger(trials)
        if ledger.pending:
            return {RETRY_OF: ledger.pending[0]}
        return {} if ledger.occupied() < self.places else None

    def _is_rightful(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
        return self._ledger(trials).is_rightful(trial.number, self.places)

    def _ledger(self, trials: list[FrozenTrial]) -> Ledger:
        return Ledger(trials, self.config.retries, replaces=self.config.sampler != "grid")

    def _run(self, taken: FrozenTrial, beat: Beat) -> str | None:
        number, reason, values = taken.number, None, None
        trials = self.trials
        parent = next((trial for trial in trials if trial.number == taken.user_attrs.get(RETRY_OF)), None)
        rank = self._ledger(trials).rank(number)
        fixed = parent.params if parent else self.points[rank] if rank < len(self.points) else {}
        trial = self._begin(taken, fixed)
        try:
            values = self._values(trial, parent, beat)
            outcome = TrialState.COMPLETE
        except (LostTrialError, UpdateFinishedTrialError, MovedError):
            raise
        except optuna.TrialPruned:
            outcome = TrialState.PRUNED
        except Exception as error:
            reason = reason_of(error)
            if not (isinstance(error, ValueError | ArithmeticError | OSError) or is_out_of_memory(error)):
                self._watch.fail(taken, **{END: FAILED, "reason": reason})
                raise  # a mistake of ours
            # A loss that is not a number is the end of bad settings: as much a result as a low mIoU.
            diverged = isinstance(error, ArithmeticError) and len(self.config.objectives) == 1
            outcome = TrialState.PRUNED if diverged else TrialState.FAIL
            trial.set_user_attr("reason", reason)
            if outcome == TrialState.FAIL:
                trial.set_user_attr(END, FAILED)
        told = trial.study.tell(trial, values, outcome, skip_if_finished=True)
        self.say(self._line(told))
        self.each_trial()
        return reason if outcome == TrialState.FAIL else None

    def _begin(self, taken: FrozenTrial, fixed: Mapping[str, Any]) -> Trial:
        """Optuna's trial, with a sampler of its own: its draws go by the seed and the trial's number alone."""
        sampler = make_sampler(self.config, self.places, int(self.space.base["seed"]), taken.number)
        if fixed:
            sampler = optuna.samplers.PartialFixedSampler(dict(fixed), sampler)
        pruner = make_pruner(self.config, int(self.space.base["epochs"]))
        study = optuna.load_study(study_name=self.name, storage=self.storage, sampler=sampler, pruner=pruner)
        return Trial(study, taken._trial_id)

    def _values(self, trial: Trial, parent: FrozenTrial | None, beat: Beat) -> list[float]:
        plain = self.space.draw(partial(suggest, trial))
        folder, resume = self._run_folder(trial.number, parent)
        trial.set_user_attr("folder", folder.name)
        reported: set[int] = set()

        def each_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            beat.check()
            if (epoch + 1 == self.space.base["epochs"]) and is_collapse(metrics):
                trial.set_user_attr(COLLAPSED, True)
            trial.set_user_attr("mean_over", metrics.get("mean_over"))
            if len(self.config.objectives) > 1:  # there is nothing to prune by
                trial.set_user_attr("epochs", epoch + 1)
                trial.set_user_attr("miou", metrics["miou"])
            elif epoch not in reported:
                reported.add(epoch)
                trial.report(metrics["miou"], epoch + 1)
                if trial.should_prune():
                    raise optuna.TrialPruned

        if resume:
            for line in read_metrics(folder):
                each_epoch(line["epoch"], line["val"])
        began = time.monotonic()
        values = self._objective(TrialRun(self.space.config({**plain, "out": str(folder)}), folder, resume, each_epoch))
        beat.check()
        if "latency" in self.config.objectives:
            trial.set_user_attr("timed_on", timed_on(choose_device(self.space.base["device"])))
        trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
        require(bool(np.isfinite(values).all()), f"the values of {', '.join(self.config.objectives)} are {values}")
        return [float(value) for value in values]

    def _run_folder(self, number: int, parent: FrozenTrial | None) -> tuple[Path, bool]:
        """The trial's run folder, and whether it holds what another worker began."""
        if parent is not None and "folder" in parent.user_attrs:
            begun = self.folder / parent.user_attrs["folder"]
            if (begun / CONFIG).exists() and is_free(begun):
                return begun, True
        return self.folder / f"trial-{number}", False

    def _line(self, trial: FrozenTrial) -> str:
        text = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")
        epochs = len(trial.intermediate_values) or trial.user_attrs.get("epochs", 0)
        values = trial.values or list(trial.intermediate_values.values())[-1:]
        shown = [f"{spoken(n)} {amount(n, v, trial)}" for n, v in zip(self.config.objectives, values, strict=False)]
        reason = [trial.user_attrs["reason"]] if "reason" in trial.user_attrs else []
        parts = [text, *shown, f"{epochs} of {self.space.base['epochs']} epochs", *reason]
        return f"trial {trial.number}: {', '.join(parts)}"

    def _identity(self) -> dict[str, Any]:
        """What makes the study this one; where data lies and how it is read may differ between machines."""
        settings: dict[str, Any] = {}
        for name, value in leaves(self.space.base):
            if name not in CHANGEABLE - {"epochs", "space"}:
                settings[name] = value
        parameters = {p.name: to_plain(replace(p, name="")) for p in self.space.parameters}
        plain = {"parameters": parameters, "objectives": self.config.objectives, "first": self.space.first}
        return {**to_plain(plain), "grid": self.config.sampler == "grid", "settings": settings}


def amount(objective: str, value: float, trial: FrozenTrial | None = None) -> str:
    """A value with the unit of its objective; of an mIoU, also whether its trial had not all classes."""
    if objective == "miou":
        return f"{100 * value:.2f} %{mean_note(trial.user_attrs.get('mean_over')) if trial else ''}"
    return f"{1000 * value:.1f} ms" if objective == "latency" else f"{value / 1e6:,.2f} M"


def written(objective: str, value: float) -> str:
    """A value with the name and the unit of its objective."""
    return f"{spoken(objective)} {amount(objective, value)}"


def spoken(objective: str) -> str:
    """The name of an objective in words."""
    return "val mIoU" if objective == "miou" else objective.replace("_", "-")


def leaves(plain: Mapping[str, Any], where: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of each setting in plain containers."""
    found: list[tuple[str, Any]] = []
    for name, value in plain.items():
        if isinstance(value, Mapping):
            found += leaves(value, f"{where}{name}.")
        else:
            found.append((f"{where}{name}", value))
    return found


KEPT = {"journal.log": "journal", "study.db": "sqlite"}
"""Where a study is, if it is in its own folder: file -> --storage."""


def open_study(folder: str | Path, storage: str | None = None, name: str | None = None) -> Study:
    """Opens the study of a folder that nas-sweep made.

    Args:
        folder: The study's.
        storage: Where it is kept, as nas-sweep had it; None: in the folder.
        name: The study's in the storage; None: the only one there, or the folder's.

    Raises:
        ValueError: It is no study's folder, the storage is elsewhere, broken or out of reach, or it has no such study;
            one line.
    """
    folder = as_path(folder)
    require((folder / SWEEP_FILE).is_file(), f"{folder} is not the folder of a study: it has no {SWEEP_FILE}")
    sweep = load_sweep(folder / SWEEP_FILE)
    space = Space.of(sweep, from_plain(sweep.config_class, sweep.settings))
    where = storage
    if storage is None:
        here = [file for file in KEPT if (folder / file).is_file()]
        message = f"{folder} has no {' and no '.join(KEPT)}: the study is elsewhere; give --storage as nas-sweep had it"
        require(bool(here), message)
        where, storage = str(folder / here[-1]), KEPT[here[-1]]
    try:
        opened = open_storage(storage, folder)
        names = optuna.get_all_study_names(opened)
    except Exception as error:  # of Optuna, of a driver: a broken journal is whatever its first wrong line leads to
        if isinstance(error, ValueError):
            raise
        reason = " ".join(str(error).split())[:200]
        shown = without_password(str(where))
        raise ValueError(f"{shown} cannot be read as a study's storage ({reason}): take a whole copy") from error
    name = name or (names[0] if len(names) == 1 else folder.resolve().name)
    require(name in names, f"the storage has no study {name!r}: give --storage and --study as nas-sweep had them")
    return Study(name, space, sweep.study, opened, folder)
