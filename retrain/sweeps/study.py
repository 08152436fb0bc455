"""The work on a study: any number of workers, each in a process of its own, on one or more machines.

A worker takes a trial (see `ledger`), draws its values, runs it in a run folder of its own, and reports each epoch. It
ends when the study has its trials. A trial whose worker died is marked failed and tried again, in the same run folder
where that is at hand: from its last checkpoint.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from nas.config import RunConfig
from nas.data.identity import check_same_data
from nas.evaluation.cost import timed_on
from nas.runs.folder import CHANGEABLE, claimed, read_metrics
from nas.runs.free_memory import is_out_of_memory
from nas.runs.names import CONFIG, SWEEP_FILE, RunError
from nas.training.devices import choose_device
from retrain.sweeps.ledger import END, FAILED, INTERRUPTED, LOST, RETRY_OF, SURPLUS, Ledger
from retrain.sweeps.settings import StudyConfig, load_sweep
from retrain.sweeps.space import Label, Space, check_cmaes, make_pruner, make_sampler, suggest
from retrain.sweeps.storage import BEAT, BEATS, Beat, LostTrialError, Watch, is_out_of_reach, open_storage
from search_spaces.validation import differences, from_plain, require, to_plain

__all__ = [
    "DIRECTIONS",
    "Objective",
    "Study",
    "TrialRun",
    "amount",
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


@dataclass(frozen=True)
class _Taken:
    """A trial that this worker runs."""

    trial: FrozenTrial
    parent: FrozenTrial | None
    """The one that it tries again."""
    fixed: Mapping[str, Any]
    """Values that are given; the others are drawn."""


@dataclass
class Study:
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
        self._study_id = self.storage.get_study_id_from_name(self.name)
        self._watch = Watch(self.storage, self.config.patience)
        # In this order: a worker that starts at the same time describes the study before it makes a trial.
        begun, trials = sorted(self.folder.glob("trial-*")), study.trials
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

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, as the storage has them now."""
        return self.storage.get_all_trials(self._study_id, deepcopy=False)

    def work(self, objective: Objective) -> None:
        """Runs trials until the study has them all, those of other workers included.

        Raises:
            ValueError: Too many trials failed in a row, or the storage is gone.
            KeyboardInterrupt: As it came; the trial is tried again by whoever works next.
        """
        try:
            self._work(objective)
        except Exception as error:
            if not is_out_of_reach(error):
                raise
            raise ValueError(
                f"the storage is out of reach: {str(error).partition(chr(10))[0]}. What it holds is safe: when it is "
                "back, give the same command again"
            ) from error

    def _work(self, objective: Objective) -> None:
        failures, waits = 0, False
        while True:
            trials = self.trials
            for trial in self._watch.lost(trials):
                self._watch.fail(trial, **{END: LOST})
                self.say(f"trial {trial.number}: its worker is dead, it will be tried again")
                trials = self.trials
            ledger = self._ledger(trials)
            again = ledger.pending[0] if ledger.pending else None
            if again is None and ledger.occupied() >= self.places:
                if not ledger.running:
                    return
                if not waits:
                    self.say("waiting for the trials of other workers")
                waits = True
                time.sleep(min(2.0, self.config.patience / BEATS))  # another worker may yet die
                continue
            taken = self._take(again)
            if taken is None:
                continue
            reason = self._run(taken, objective)
            failures, waits = 0 if reason is None else failures + 1, False
            if reason is not None and failures >= self.config.failures:
                raise ValueError(
                    f"{failures} trials failed in a row, the last with: {reason.rstrip('.')}. Mend that, then give the "
                    "same command again"
                )

    def _ledger(self, trials: list[FrozenTrial]) -> Ledger:
        return Ledger(trials, self.config.retries, replaces=self.config.sampler != "grid")

    def _take(self, again: int | None) -> _Taken | None:
        """Creates a trial; None where another worker was first."""
        attributes = {"host": socket.gethostname()} | ({} if again is None else {RETRY_OF: again})
        made = create_trial(state=TrialState.RUNNING, user_attrs=attributes, system_attrs={BEAT: 0})
        trial_id = self.storage.create_new_trial(self._study_id, made)
        trials = self.trials
        trial = next(trial for trial in trials if trial._trial_id == trial_id)
        ledger = self._ledger(trials)
        if not ledger.is_rightful(trial.number, self.places):
            self._watch.fail(trial, **{END: SURPLUS})
            return None
        if again is not None:
            parent = next(trial for trial in trials if trial.number == again)
            return _Taken(trial, parent, parent.params)
        rank = ledger.rank(trial.number)
        return _Taken(trial, None, self.points[rank] if rank < len(self.points) else {})

    def _run(self, taken: _Taken, objective: Objective) -> str | None:
        """Runs a trial; returns why it failed, or None."""
        number, reason, values = taken.trial.number, None, None
        with Beat(self.storage, taken.trial._trial_id, self.config.patience) as beat:
            trial = self._begin(taken)
            try:
                values = self._values(trial, taken.parent, beat, objective)
                outcome = TrialState.COMPLETE
            except (LostTrialError, UpdateFinishedTrialError):
                self.say(f"trial {number}: given up, as this worker gave no sign of life and was taken for dead")
                return None
            except KeyboardInterrupt:
                self._watch.fail(taken.trial, **{END: INTERRUPTED})
                raise
            except optuna.TrialPruned:
                outcome = TrialState.PRUNED
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                if not (isinstance(error, ValueError | ArithmeticError | OSError) or is_out_of_memory(error)):
                    self._watch.fail(taken.trial, **{END: FAILED, "reason": reason})
                    raise  # a mistake of ours
                # A loss that is not a number is the end of bad settings: as much a result as a low mIoU.
                diverged = isinstance(error, ArithmeticError) and len(self.config.objectives) == 1
                outcome = TrialState.PRUNED if diverged else TrialState.FAIL
                trial.set_user_attr("reason", reason)
                if outcome == TrialState.FAIL:
                    trial.set_user_attr(END, FAILED)
        try:
            told = trial.study.tell(trial, values, outcome, skip_if_finished=True)
        except UpdateFinishedTrialError:
            return None
        self.say(self._line(told))
        self.each_trial()
        return reason if outcome == TrialState.FAIL else None

    def _begin(self, taken: _Taken) -> Trial:
        """Optuna's trial, with a sampler of its own: its draws go by the seed and the trial's number alone."""
        sampler = make_sampler(self.config, self.places, int(self.space.base["seed"]), taken.trial.number)
        if taken.fixed:
            sampler = optuna.samplers.PartialFixedSampler(dict(taken.fixed), sampler)
        pruner = make_pruner(self.config, int(self.space.base["epochs"]))
        study = optuna.load_study(study_name=self.name, storage=self.storage, sampler=sampler, pruner=pruner)
        return Trial(study, taken.trial._trial_id)

    def _values(self, trial: Trial, parent: FrozenTrial | None, beat: Beat, objective: Objective) -> list[float]:
        plain = self.space.draw(partial(suggest, trial))
        folder, resume = self._run_folder(trial.number, parent)
        trial.set_user_attr("folder", folder.name)
        reported: set[int] = set()

        def each_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            beat.check()
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
        values = objective(TrialRun(self.space.config({**plain, "out": str(folder)}), folder, resume, each_epoch))
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
            if (begun / CONFIG).exists() and _is_free(begun):
                return begun, True
        return self.folder / f"trial-{number}", False

    def _line(self, trial: FrozenTrial) -> str:
        text = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")
        epochs = len(trial.intermediate_values) or trial.user_attrs.get("epochs", 0)
        values = trial.values or list(trial.intermediate_values.values())[-1:]
        shown = [written(name, value) for name, value in zip(self.config.objectives, values, strict=False)]
        reason = [trial.user_attrs["reason"]] if "reason" in trial.user_attrs else []
        parts = [text, *shown, f"{epochs} of {self.space.base['epochs']} epochs", *reason]
        return f"trial {trial.number}: {', '.join(parts)}"

    def _identity(self) -> dict[str, Any]:
        """What makes the study this one; where data lies and how it is read may differ between machines."""
        settings: dict[str, Any] = {}
        for name, value in _leaves(self.space.base):
            if name not in CHANGEABLE - {"epochs", "space"}:
                settings[name] = value
        parameters = {p.name: to_plain(replace(p, name="")) for p in self.space.parameters}
        plain = {"parameters": parameters, "objectives": self.config.objectives, "first": self.space.first}
        return {**to_plain(plain), "grid": self.config.sampler == "grid", "settings": settings}


def amount(objective: str, value: float) -> str:
    """A value with the unit of its objective."""
    if objective == "miou":
        return f"{100 * value:.2f} %"
    return f"{1000 * value:.1f} ms" if objective == "latency" else f"{value / 1e6:,.2f} M"


def written(objective: str, value: float) -> str:
    """A value with the name and the unit of its objective."""
    return f"{spoken(objective)} {amount(objective, value)}"


def spoken(objective: str) -> str:
    """The name of an objective in words."""
    return "val mIoU" if objective == "miou" else objective.replace("_", "-")


def _is_free(folder: Path) -> bool:
    """Whether no process is at work in a run folder: a worker that was taken for dead may be alive."""
    try:
        with claimed(folder):
            return True
    except RunError:
        return False


def _leaves(plain: Mapping[str, Any], where: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in plain.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, f"{where}{name}.")
        else:
            leaves.append((f"{where}{name}", value))
    return leaves


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
    folder = Path(folder)
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
        if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where} cannot be read as a study's storage ({reason}): take a whole copy") from error
    name = name or (names[0] if len(names) == 1 else folder.resolve().name)
    require(name in names, f"the storage has no study {name!r}: give --storage and --study as nas-sweep had them")
    return Study(name, space, sweep.study, opened, folder)
