"""One run, from its folder to its last epoch: what the loops of search and retraining share.

A loop asks its session for epochs, steps and batches, and reads as in the papers; the session handles signals, the
lock, checkpoints, resuming, the log and the other processes. Data order and augmentation are pure functions of (seed,
epoch, sample), so a checkpoint needs only the position in the run to resume with the very next batch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from nas.config import RunConfig
from nas.data.base import DataError
from nas.data.identity import check_same_data, data_identity, recorded_data
from nas.data.label_counts import count_labels, label_doubts, label_faults
from nas.data.loading import Key, evaluation_loader, training_loader
from nas.data.readers.listing import not_read
from nas.data.splits import training_split, validation_split
from nas.evaluation.evaluate import evaluate_network
from nas.evaluation.memory import check_memory
from nas.evaluation.metrics import METRICS, ConfusionMatrix, numbers
from nas.runs.checkpoint import fitting, load_checkpoint, save_checkpoint
from nas.runs.folder import RunFolder, check_resumable, claimed, has_begun, new_folder, run_to_resume
from nas.runs.names import BEST, CHECKPOINT
from nas.runs.pictures import SampleKeeper
from nas.training.devices import random_state, restore_random_state, seed_everything, set_float32
from nas.training.distributed import Processes, process_group
from nas.training.interruption import CheckpointClock, InterruptedRun, Interruption, give_up
from nas.training.losses import check_weights
from nas.training.progress import StepProgress, Waiting
from nas.training.step import Stepper
from search_spaces.synchronized import synchronize
from search_spaces.validation import counted, to_plain

__all__ = ["EachEpoch", "RunState", "Session", "Step", "moved", "open_session"]

Config = TypeVar("Config", bound=RunConfig)
State = TypeVar("State", bound="RunState")
Network = TypeVar("Network", bound=nn.Module)
EachEpoch = Callable[[int, Mapping[str, Any]], None]
"""Called with the number of an epoch, from 0, and its validation metrics; `mean_over` has the number of classes whose
mean the mIoU is, and of all."""
SHOWN = 4
"""Validation images whose predictions are shown in TensorBoard."""


@dataclass
class RunState:
    """Position in the run; a loop adds the sums of its losses over the epoch's steps, as fields named `..._loss`."""

    epoch: int = 0
    step: int = 0
    best_miou: float = -1.0
    last_miou: float = float("nan")
    mean_over: list[int] | None = None
    """Number of classes whose mean `last_miou` is, and of all classes."""
    score: float = float("nan")
    """The metric that selects the best checkpoint, after the last epoch; negated if lower is better."""
    best_score: float = -math.inf


class Step(NamedTuple):
    """A step of an epoch."""

    number: int
    """From 0."""
    progress: float
    """Share of the run's steps that are done, 0 to below 1."""
    where: str
    """The position, for messages."""


@contextmanager
def open_session(
    config: Config,
    kind: str,
    resume: str | Path | None,
    quiet: bool,
    prepare: Callable[[Config, Path | None], tuple[Config, str, dict[str, str]]],
) -> Iterator[Session[Config, Any]]:
    """Joins the run's processes, finds its folder and locks it.

    Args:
        config: All settings.
        kind: search or retrain.
        resume: The run folder to resume in; None starts a new run.
        quiet: Print nothing.
        prepare: Checks the settings, given the folder to resume in or None; returns them, the name of a new folder, and
            the files that a new run begins with: name -> text.

    Raises:
        ValueError: Settings, data or folder cannot be used; one line with the remedy.
    """
    with process_group(config.device) as processes:
        before = processes.agreed(partial(run_to_resume, config, resume))
        config, name, copies = prepare(config, before)
        folder = before or Path(processes.agreed(lambda: new_folder(config, name, copies)))
        with claimed(folder) if processes.first else nullcontext():
            resumes = before is not None and processes.agreed(lambda: has_begun(folder))
            yield Session(config, kind, folder, resumes, quiet, processes)


class Session(Generic[Config, State]):
    """An open run: its device, data, folder and position.

    Before `running`, a loop builds its networks and optimisers, sets `state`, `parts`, `extras` and `steps_per_epoch`,
    and restores the checkpoint if `resumes`.

    Attributes:
        config: All settings; a loop may replace them before `running`.
        folder: The run folder.
        resumes: Whether there is a checkpoint to resume from.
        device: Device of the networks.
        train_set, validation: The data of the settings.
        classes: Number of classes.
        data: Identity of the data (see `nas.data.identity`).
        data_changed: Whether the run is resumed on other samples, which the settings accept.
        state: The position in the run.
        parts: Saved objects with a state dict, by name in the checkpoint.
        extras: Other saved values: plain containers and tensors.
        steps_per_epoch: Number of steps.
        pixels: Pixels of each value in the labels of both splits, by the split's name (see `nas.data.label_counts`).
        notes: Lines to log when the run starts.
        warnings: Likely mistakes in the data, to log then, too.
        run: The run folder's writer, within `running`.
    """

    state: State
    steps_per_epoch: int
    run: RunFolder

    def __init__(
        self, config: Config, kind: str, folder: Path, resumes: bool, quiet: bool, processes: Processes
    ) -> None:
        self.config, self.kind, self.folder, self.resumes, self.quiet = config, kind, folder, resumes, quiet
        self.processes = processes
        self.device = processes.device(config.device)
        set_float32(self.device, config.precision)
        seed_everything(config.seed)
        self.train_set, self.validation = training_split(config, processes), validation_split(config, processes)
        self.classes = len(self.train_set.classes)
        splits = {data.split: data for data in (self.train_set, self.validation)}
        self.pixels = {
            split: processes.agreed(partial(count_labels, data, quiet or not processes.first))
            for split, data in splits.items()
        }
        self.warnings = self._examined()
        self.data = data_identity(config.data_root, self.train_set, self.validation)
        self.data_changed = False
        self.parts: dict[str, Any] = {}
        self.extras: dict[str, Any] = {}
        self.notes = processes.described()
        self._saved: dict[str, Any] | None = None
        self._clock = CheckpointClock(config.checkpoint_minutes)

    def _examined(self) -> list[str]:
        """Likely mistakes in the data, a line each, to log when the run starts.

        Raises:
            DataError: Nothing can be learnt from the labels of a split, or measured on them.
        """
        names, train, val = self.train_set.classes, self.train_set.split, self.validation.split
        for _, message in label_faults(self.pixels, names, train):
            raise DataError(f"{self.config.data}: {message}")
        unread = list(dict.fromkeys([*self.train_set.unread, *self.validation.unread]))
        told = not_read(unread, Path(self.config.data_root or "."))
        return [told] * bool(told) + list(label_doubts(self.pixels, names, train, val))

    def build(self, make: Callable[[], Network], memory: Callable[[Network], int]) -> Network:
        """Builds a network on the CPU after checking that a step fits into memory.

        Args:
            make: Builds it; called twice, first on the device "meta", where it takes no memory.
            memory: Network -> bytes that the run needs at its peak.

        Raises:
            ValueError: The memory does not suffice, and the settings say to stop then.
        """
        with torch.device("meta"):
            outline = make()
        self.notes += check_memory(self.config, self.device, lambda: memory(outline), self.processes)
        network = make()
        if self.processes.synchronizes(self.config.sync_batch_norm, self.device):
            synchronize(network)
        return network

    @contextmanager
    def checkpoint(self, renamed: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """The content of the checkpoint to resume from; errors while reading it become one line.

        Args:
            renamed: Settings whose saved value is out of date, such as the path of a folder that was moved.

        Raises:
            CheckpointError: The file is damaged or of another kind.
            RunError: It belongs to a run with other settings or data; the message names the difference.
        """
        path = self.folder / CHECKPOINT
        if self._saved is None:
            self._saved = load_checkpoint(path, self.kind)
            with fitting(path):
                self._saved["config"].update(renamed or {})
                check_resumable(self._saved, self.config, len(self.train_set))
            accept, before = self.config.data_changed == "accept", recorded_data(self._saved)
            self.data_changed = check_same_data(before, self.data, self.folder, accept, self.notes.append)
        with fitting(path):
            yield self._saved

    def restore(self, state: type[State]) -> None:
        """Restores `parts`, `state` and the random generators from the checkpoint."""
        with self.checkpoint() as saved:
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            restore_random_state(saved["random"])
            ours, theirs = self.processes.count * max(1, saved["samples"]), saved["processes"] * len(self.train_set)
            self.state = moved(state(**saved["state"]), theirs, ours)
            threads = saved.get("threads", torch.get_num_threads())
            if threads != torch.get_num_threads() and self.device.type == "cpu":
                self.notes.append(
                    f"resumed with {counted(torch.get_num_threads(), 'thread')}, after {threads} before: the result "
                    f"may differ by rounding; OMP_NUM_THREADS={threads} keeps the number"
                )
        self._saved = None

    def save(self, *names: str) -> None:
        """Writes the state to files of the run folder after checking that the weights are finite.

        Raises:
            NonFiniteLossError: They are not.
        """
        self._settle()
        for part in self.parts.values():
            if isinstance(part, nn.Module):
                check_weights(part)
        self._clock.reset()
        if not self.processes.first:
            return
        content = {
            "config": to_plain(self.config),
            "state": _plain(self.state),
            "samples": len(self.train_set),
            "data": self.data,
            "processes": self.processes.count,
            "threads": torch.get_num_threads(),
            **self.extras,
            **{name: part.state_dict() for name, part in self.parts.items()},
            "random": random_state(),
        }
        for name in names:
            save_checkpoint(self.run.file(name), self.kind, content)

    def _settle(self) -> None:
        """Waits for the last steps and checks their losses."""
        for part in self.parts.values():
            if isinstance(part, Stepper):
                part.settle()

    def stop(self) -> NoReturn:
        """Saves and ends the run.

        Raises:
            InterruptedRun: Always.
        """
        self.save(CHECKPOINT)
        raise InterruptedRun(f"stopped and saved; continue with: nas-{self.kind} --resume {self.folder}")

    @contextmanager
    def running(self, headline: str, plan: Callable[[int, int], Iterator[list[Key]]]) -> Iterator[None]:
        """Opens the folder, the loaders and the progress bar, handles signals, and starts the log.

        Args:
            headline: The first line of the log.
            plan: (epoch, step) -> the batches of all processes from that step to the end of the run.
        """
        config, device, processes, state = self.config, self.device, self.processes, self.state
        loading = (config.loader.workers, config.loader.prefetch, device.type == "cuda")
        batches = map(processes.part, plan(state.epoch, state.step))
        self._total = config.epochs * self.steps_per_epoch
        done, silent = state.epoch * self.steps_per_epoch + state.step, self.quiet or not processes.first
        with (
            RunFolder(self.folder, config, state.epoch, self.quiet, writes=processes.first) as self.run,
            Interruption(processes.several) as self._interruption,
            StepProgress(self._total, done, silent) as self._progress,
            training_loader(self.train_set, batches, config.loader.augment, config.seed, *loading) as training,
            evaluation_loader(self.validation, *loading, processes.turns(len(self.validation))) as self._whole_images,
        ):
            self._batches = iter(training)
            for line in (headline, *self.notes):
                self.run.log.info(line)
            for line in self.warnings:
                self.run.log.warning(line)
            if not self.resumes:
                self.save(CHECKPOINT)  # so that a run that is killed in its first epoch can be resumed, too
            if state.epoch >= config.epochs:
                self.run.log.info(f"all {config.epochs} epochs are done: give more --epochs to continue")
            yield

    def epochs(self) -> Iterator[int]:
        """The numbers of the remaining epochs, from 0."""
        for epoch in range(self.state.epoch, self.config.epochs):
            self._began, self._waiting = time.perf_counter(), Waiting()
            yield epoch

    def steps(self, epoch: int) -> Iterator[Step]:
        """The remaining steps of an epoch, each followed by a checkpoint if one is due.

        Raises:
            InterruptedRun: The run was asked to stop, and was saved.
        """
        while self.state.step < self.steps_per_epoch:
            number = self.state.step
            progress = (epoch * self.steps_per_epoch + number) / self._total
            yield Step(number, progress, f"epoch {epoch + 1}, step {number + 1}")
            self.state.step += 1
            self._progress.step(f"epoch {epoch + 1}/{self.config.epochs}")
            asked, due = self.processes.any(self._interruption.requested, self._clock.due())
            if asked:
                self.stop()
            if due:
                self.save(CHECKPOINT)
        self._waited = self._waiting.share()

    def batch(self) -> tuple[Tensor, Tensor]:
        """The next training batch: images (N, 3, h, w) in [-1, 1], labels (N, h, w)."""
        return self._waiting.next(self._batches)

    def validate(self, network: nn.Module) -> tuple[ConfusionMatrix, SampleKeeper]:
        """Evaluates a network on the validation split; keeps a few samples to show.

        Raises:
            InterruptedRun: The run was asked to stop, and was saved.
        """
        self._settle()
        samples = SampleKeeper(SHOWN)
        self.processes.share_buffers(network)
        whole_images = self._interruption.watched(self._whole_images, self.stop)
        how = self.classes, self.device, self.config.precision, samples
        return evaluate_network(network, whole_images, *how, processes=self.processes), samples

    def validation_images(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The validation split again, for work that undoes its own changes.

        Raises:
            GivenUp: The run was asked to stop.
        """
        return self._interruption.watched(self._whole_images, give_up)

    def metrics(
        self, matrix: ConfusionMatrix, losses: Mapping[str, float | Tensor], rates: Mapping[str, float]
    ) -> dict[str, Any]:
        """An epoch's numbers: mean losses, validation metrics, learning rates, seconds, share of waiting."""
        return {
            "loss": {name: float(total) / self.steps_per_epoch for name, total in losses.items()},
            "val": {**numbers(matrix), "mean_over": matrix.mean_over()},
            "lr": dict(rates),
            "seconds": time.perf_counter() - self._began,
            "waiting": self._waited,
        }

    def advanced(self, epoch: int, values: Mapping[str, Any]) -> State:
        """The position after an epoch with these validation metrics; sums over steps restart at 0."""
        before, miou, metric = self.state, values["miou"], METRICS[self.config.best_metric]
        score = values[metric.name] if metric.higher_is_better else -values[metric.name]
        return type(before)(
            epoch + 1,
            best_miou=max(before.best_miou, miou),
            last_miou=miou,
            mean_over=values["mean_over"],
            score=score,
            best_score=max(before.best_score, score),
        )

    def save_epoch(self) -> None:
        """Writes the checkpoint after an epoch, also as the best one if it is."""
        self.save(*([BEST] if self.state.score >= self.state.best_score else []), CHECKPOINT)


def _plain(state: RunState) -> dict[str, Any]:
    """The fields of a state; tensors become Python numbers."""
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}


def moved(state: State, before: int, now: int) -> State:
    """The same share of the epoch for another number of processes or samples, which needs fewer or more steps.

    Args:
        state: The position; sums over its steps are fields named `...loss`.
        before: Number of processes until now; times the samples from now on.
        now: Number of processes from now on; times the samples until now.
    """
    if before == now:
        return state
    step = state.step * before // now
    losses = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name.endswith("loss")}
    share = step / max(1, state.step)
    return dataclasses.replace(state, step=step, **{name: value * share for name, value in losses.items()})
