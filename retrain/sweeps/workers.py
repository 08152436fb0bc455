"""The loop of a worker, and lists of jobs that workers share.

A study has any number of workers, each in a process of its own, on one or more machines. They share nothing but the
storage, and no storage locks anything for them: a worker first creates its trial, and then looks whether it may run it
(see `ledger`). A trial whose worker gives no sign of life is marked failed and tried again.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.data.base import DataError
from nas.runs.folder import MovedError, claimed
from nas.runs.free_memory import is_out_of_memory
from nas.runs.names import RunError
from retrain.sweeps.ledger import END, FAILED, INTERRUPTED, LOST, SURPLUS
from retrain.sweeps.storage import BEAT, BEATS, Beat, LostTrialError, Watch, is_out_of_reach
from search_spaces.validation import differences, require

__all__ = ["Jobs", "Worker", "is_free", "reason_of", "wait_until_free"]

JOB, RESULT, IDENTITY = "job", "result", "jobs_of"
"""Attributes: of a trial, its job and what came of it; of a study, what all its jobs are of."""


class Worker(ABC):
    """One worker's part in a study.

    Args:
        storage: Where the study is kept.
        name: The study's, which must exist.
        patience: Seconds without a sign of life after which the others take a worker for dead.
        failures: Stop after so many failed trials in a row.
        say: Is given a line for each event.
    """

    def __init__(
        self, storage: BaseStorage, name: str, patience: float, failures: float, say: Callable[[str], object]
    ) -> None:
        self.storage, self.patience, self.failures, self.say = storage, patience, failures, say
        self._study_id = storage.get_study_id_from_name(name)
        self._watch = Watch(storage, patience)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, as the storage has them now."""
        return self.storage.get_all_trials(self._study_id, deepcopy=False)

    @abstractmethod
    def _next(self, trials: list[FrozenTrial]) -> dict[str, Any] | None:
        """Attributes of the trial to create next; None: nothing is left to take."""

    @abstractmethod
    def _is_rightful(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
        """Whether a trial that was just created may be run; if not, another worker was first."""

    @abstractmethod
    def _run(self, trial: FrozenTrial, beat: Beat) -> str | None:
        """Runs a trial and marks how it ended; returns why it failed, or None."""

    def run_trials(self) -> None:
        """Runs trials until none is left, those of other workers included.

        Raises:
            ValueError: Too many trials failed in a row, or the storage is gone.
            KeyboardInterrupt: As it came; the trial is tried again by whoever works next.
        """
        try:
            self._take_all()
        except Exception as error:
            if not is_out_of_reach(error):
                raise
            raise ValueError(
                f"the storage is out of reach: {str(error).partition(chr(10))[0]}. What it holds is safe: when it is "
                "back, give the same command again"
            ) from error

    def _take_all(self) -> None:
        failures, waits = 0, False
        while True:
            trials = self.trials
            for trial in self._watch.lost(trials):
                self._watch.fail(trial, **{END: LOST})
                self.say(f"trial {trial.number}: its worker is dead, it will be tried again")
                trials = self.trials
            wanted = self._next(trials)
            if wanted is None:
                if all(trial.state.is_finished() for trial in trials):
                    return
                if not waits:
                    self.say("waiting for the trials of other workers")
                waits = True
                time.sleep(min(2.0, self.patience / BEATS))  # another worker may yet die
                continue
            trial = self._create(wanted)
            if not self._is_rightful(trial, self.trials):
                self._watch.fail(trial, **{END: SURPLUS})
                continue
            with Beat(self.storage, trial._trial_id, self.patience) as beat:
                try:
                    reason = self._run(trial, beat)
                except (LostTrialError, UpdateFinishedTrialError):
                    reason = None
                    self.say(f"trial {trial.number}: given up, as this worker gave no sign of life and was taken for "
                             "dead")  # fmt: skip
                except (KeyboardInterrupt, MovedError):
                    with suppress(OSError):  # the journal may have moved with its folder
                        self._watch.fail(trial, **{END: INTERRUPTED})
                    raise
            failures, waits = 0 if reason is None else failures + 1, False
            if reason is not None and failures >= self.failures:
                raise ValueError(
                    f"{failures} trials failed in a row, the last with: {reason.rstrip('.')}. Mend that, then give the "
                    "same command again"
                )

    def _create(self, attributes: Mapping[str, Any]) -> FrozenTrial:
        made = create_trial(
            state=TrialState.RUNNING,
            user_attrs={"host": socket.gethostname(), **attributes},
            system_attrs={BEAT: 0},
        )
        trial_id = self.storage.create_new_trial(self._study_id, made)
        return next(trial for trial in self.trials if trial._trial_id == trial_id)


def reason_of(error: BaseException) -> str:
    """Why a trial failed, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_free(folder: Path) -> bool:
    """Whether no process is at work in a run folder: a worker that was taken for dead may be alive."""
    try:
        with claimed(folder):
            return True
    except RunError:
        return False


def wait_until_free(folder: Path, alive: Callable[[], None]) -> None:
    """Waits for a worker that was taken for dead but lives: it gives up after its epoch."""
    while not is_free(folder):
        alive()
        time.sleep(1.0)


class Jobs(Worker):
    """A list of jobs, each of which is done once by one of the workers that share the storage.

    A job is known by its name alone: lists of different workers may differ, and later ones may be longer.

    Args:
        storage: Where the study of the jobs is kept; it is created if there is none.
        name: The study's.
        identity: What all jobs have in common: dotted names and their values in plain containers.
        jobs: Names, in the order in which they are begun.
        do: Does a job, given its name and a function to be called at times, at least once an epoch; returns the result
            in plain containers. ArithmeticError, ValueError, and running out of memory are failures of the job, which
            the next call of the command tries again; all else, data that cannot be read included, ends the work.
        say, patience, failures: As of `Worker`.
        retries: How often a job whose worker died is tried again.

    Raises:
        ValueError: The study is of something else; the message names the difference.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        identity: Mapping[str, Any],
        jobs: Sequence[str],
        do: Callable[[str, Callable[[], None]], dict[str, Any]],
        say: Callable[[str], object] = print,
        patience: float = 60.0,
        failures: float = 3,
        retries: int = 2,
    ) -> None:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        super().__init__(storage, name, patience, failures, say)
        self.jobs, self._do, self._retries = jobs, do, retries
        kept = study.user_attrs.get(IDENTITY)
        if kept is None:
            require(not self.trials, f"the storage has a study {name} of something else: give another --study")
            study.set_user_attr(IDENTITY, dict(identity))
        elif changed := differences({**identity, **kept}, dict(identity)):  # without settings newer than the study
            raise ValueError(
                f"{name} was begun with another {', '.join(changed)}: give the same to resume it, or choose another "
                "--out"
            )
        self._first = len(self.trials)

    def _next(self, trials: list[FrozenTrial]) -> dict[str, Any] | None:
        """The first job that is neither done nor at work, and did not fail since this worker began."""
        by_job: dict[str, list[FrozenTrial]] = {}
        for trial in trials:
            by_job.setdefault(trial.user_attrs[JOB], []).append(trial)
        return next(({JOB: job} for job in self.jobs if self._is_open(by_job.get(job, []))), None)

    def _is_open(self, trials: Sequence[FrozenTrial]) -> bool:
        now = [trial.user_attrs.get(END) for trial in trials if trial.number >= self._first]
        taken = any(trial.state != TrialState.FAIL for trial in trials)
        return not taken and FAILED not in now and now.count(LOST) <= self._retries

    def _is_rightful(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
        """Whether no earlier trial of its job is done or at work."""
        others = (t for t in trials if t.user_attrs[JOB] == trial.user_attrs[JOB] and t.number < trial.number)
        return all(other.state == TrialState.FAIL for other in others)

    def _run(self, trial: FrozenTrial, beat: Beat) -> str | None:
        """Does the job of a trial."""
        trial_id, job = trial._trial_id, trial.user_attrs[JOB]
        try:
            result = self._do(job, beat.check)
            beat.check()
        except (LostTrialError, MovedError):
            raise
        except Exception as error:
            is_own = isinstance(error, ArithmeticError | ValueError) and not isinstance(error, DataError)
            if not (is_own or is_out_of_memory(error)):
                self._watch.fail(trial, **{END: INTERRUPTED})
                raise
            reason = reason_of(error)
            self._watch.fail(trial, **{END: FAILED, "reason": reason})
            self.say(f"   failed: {reason}")
            return reason
        self.storage.set_trial_user_attr(trial_id, RESULT, result)
        self.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [float(result.get("miou") or 0.0)])
        return None

    def results(self) -> dict[str, dict[str, Any]]:
        """What came of each job that is done, by name."""
        return {t.user_attrs[JOB]: t.user_attrs[RESULT] for t in self.trials if t.state == TrialState.COMPLETE}

    def reasons(self) -> dict[str, str]:
        """Why each job that is not done failed the last time, by name."""
        done, found = self.results(), dict[str, str]()
        for trial in self.trials:
            end = trial.user_attrs.get(END)
            if trial.user_attrs[JOB] not in done and end in (FAILED, LOST):
                found[trial.user_attrs[JOB]] = trial.user_attrs.get("reason", "its worker died")
        return found
