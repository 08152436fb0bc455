"""One run, from its folder to its last epoch: what the loops of search and retraining share.

A loop asks its session for epochs, steps and batches, and reads as the papers write it; signals, the lock, checkpoints,
resuming, the log and the other processes are the session's. Data order and augmentation are pure functions of (seed,
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
from nas.data.loading import Key, evaluation_loader, training_loader
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
from search_spaces.validation import to_plain

__all__ = ["EachEpoch", "RunState", "Session", "Step", "moved", "open_session"]

Config = TypeVar("Config", bound=RunConfig)
State = TypeVar("State", bound="RunState")
Network = TypeVar("Network", bound=nn.Module)
EachEpoch = Callable[[int, Mapping[str, float]], None]
"""Is told the number of an epoch, from 0, and its validation metrics."""
SHOWN = 4
"""Validation images whose predictions are shown in TensorBoard."""


@dataclass
class RunState:
    """Position in the run, and what an epoch has gathered so far.

    A loop adds the sums of its losses over the steps of the epoch, as fields named `..._loss`.
    """

    epoch: int = 0
    step: int = 0
    best_miou: float = -1.0
    last_miou: float = float("nan")
    score: float = float("nan")
    """Value of the metric that chooses the best checkpoint, negative where lower is better, after the last epoch."""
    best_score: float = -math.inf


class Step(NamedTuple):
    """A step of an epoch."""

    number: int
    """From 0."""
    progress: float
    """Share of the run's steps that are done, 0 to below 1."""
    where: str
    """For messages."""


@contextmanager
def open_session(
    config: Config,
    kind: str,
    resume: str | Path | None,
    quiet: bool,
    prepare: Callable[[Config, Path | None], tuple[Config, str]],
) -> Iterator[Session[Config, Any]]:
    """Joins the run's processes, finds its folder and locks it.

    Args:
        config: All settings.
        kind: Of run: search or retrain.
        resume: The run folder to resume in; None starts a new run.
        quiet: Whether nothing is printed on the screen.
        prepare: Checks the settings, given the folder to resume in or None; returns them and the name of a new folder.

    Raises:
        ValueError: Settings, data or a folder that cannot be used; one line with the remedy.
    """
    with process_group(config.device) as processes:
        before = processes.agreed(partial(run_to_resume, config, resume))
        config, name = prepare(config, before)
        folder = before or Path(processes.agreed(lambda: new_folder(config, name)))
        with claimed(folder) if processes.first else nullcontext():
            resumes = before is not None and processes.agreed(lambda: has_begun(folder))
            yield Session(config, kind, folder, resumes, quiet, processes)


class Session(Generic[Config, State]):
    """A run that is open: its device, data, folder and position.

    Before `running`, a loop builds its networks and optimisers, sets `state`, `parts`, `extras` and `steps_per_epoch`,
    and restores the checkpoint if `resumes`.

    Attributes:
        config: All settings; a loop may replace them before `running`.
        folder: The run folder.
        resumes: Whether there is a checkpoint to resume from.
        device: Where networks are.
        train_set, validation: The data, as the settings say.
        classes: Number of classes.
        state: The position in the run.
        parts: What has a state dict and is saved, by its name in the checkpoint.
        extras: What else is saved: plain containers and tensors.
        steps_per_epoch: Number of steps.
        notes: Lines for the log, said when the run starts.
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
        self.parts: dict[str, Any] = {}
        self.extras: dict[str, Any] = {}
        self.notes = processes.described()
        self._saved: dict[str, Any] | None = None
        self._clock = CheckpointClock(config.checkpoint_minutes)

    def build(self, make: Callable[[], Network], memory: Callable[[Network], int]) -> Network:
        """Builds a network, on the CPU, once it is known that a step fits into memory.

        Args:
            make: Builds it; called twice, first on the device "meta", where it takes no memory.
            memory: Bytes that the run needs at its peak, given that network.

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
        """The content of the checkpoint to resume from; what does not fit in it becomes one line.

        Args:
            renamed: Settings whose value is the run's own under another name, as the path of a folder that was moved.

        Raises:
            CheckpointError: The file is damaged or of another kind.
            RunError: It is of a run with other settings or other data; the message names what differs.
        """
        path = self.folder / CHECKPOINT
        if self._saved is None:
            self._saved = load_checkpoint(path, self.kind)
            with fitting(path):
                self._saved["config"].update(renamed or {})
                check_resumable(self._saved, self.config, len(self.train_set))
        with fitting(path):
            yield self._saved

    def restore(self, state: type[State]) -> None:
        """Puts the checkpoint's content back into `parts`, `state` and the random generators."""
        with self.checkpoint() as saved:
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            restore_random_state(saved["random"])
            self.state = moved(state(**saved["state"]), saved["processes"], self.processes.count)
        self._saved = None

    def save(self, *names: str) -> None:
        """Writes the state to files of the run folder, once the weights are known to be finite.

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
            "processes": self.processes.count,
            **self.extras,
            **{name: part.state_dict() for name, part in self.parts.items()},
            "random": random_state(),
        }
        for name in names:
            save_checkpoint(self.folder / name, self.kind, content)

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
        raise InterruptedRun(f"stopped and saved; go on with: nas-{self.kind} --resume {self.folder}")

    @contextmanager
    def running(self, headline: str, plan: Callable[[int, int], Iterator[list[Key]]]) -> Iterator[None]:
        """Opens the folder, the loaders and the progress bar, takes over signals, and logs what is run.

        Args:
            headline: The first line of the log.
            plan: (epoch, step) -> the batches of all processes from that step on, to the end of the run.
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
            if not self.resumes:
                self.save(CHECKPOINT)  # so that a run that is killed in its first epoch can be resumed, too
            if state.epoch >= config.epochs:
                self.run.log.info(f"all {config.epochs} epochs are done: give more --epochs to go on")
            yield

    def epochs(self) -> Iterator[int]:
        """The numbers of the epochs that are left, from 0."""
        for epoch in range(self.state.epoch, self.config.epochs):
            self._began, self._waiting = time.perf_counter(), Waiting()
            yield epoch

    def steps(self, epoch: int) -> Iterator[Step]:
        """The steps of an epoch that are left; behind each, a checkpoint if one is due.

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
        precision, processes = self.config.precision, self.processes
        matrix = evaluate_network(
            network, whole_images, self.classes, self.device, precision, samples, processes=processes
        )
        return matrix, samples

    def validation_images(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The validation split once more, for work that puts back what it changed.

        Raises:
            GivenUp: The run was asked to stop.
        """
        return self._interruption.watched(self._whole_images, give_up)

    def metrics(
        self, matrix: ConfusionMatrix, losses: Mapping[str, float | Tensor], rates: Mapping[str, float]
    ) -> dict[str, Any]:
        """The numbers of an epoch: mean losses, validation metrics, learning rates, seconds, share of waiting."""
        return {
            "loss": {name: float(total) / self.steps_per_epoch for name, total in losses.items()},
            "val": numbers(matrix),
            "lr": dict(rates),
            "seconds": time.perf_counter() - self._began,
            "waiting": self._waited,
        }

    def advanced(self, epoch: int, values: Mapping[str, float]) -> State:
        """The position behind an epoch with these validation metrics; sums over steps start at 0 again."""
        before, miou, metric = self.state, values["miou"], METRICS[self.config.best_metric]
        score = values[metric.name] if metric.higher_is_better else -values[metric.name]
        return type(before)(
            epoch + 1,
            best_miou=max(before.best_miou, miou),
            last_miou=miou,
            score=score,
            best_score=max(before.best_score, score),
        )

    def save_epoch(self) -> None:
        """Writes the checkpoint of an epoch that is done, and the best one if it is that."""
        self.save(*([BEST] if self.state.score >= self.state.best_score else []), CHECKPOINT)


def _plain(state: RunState) -> dict[str, Any]:
    """The fields of a state; sums that are still on a device become Python numbers."""
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}


def moved(state: State, before: int, now: int) -> State:
    """The position in a run, for another number of processes: as large a part of the epoch, in fewer or more steps.

    Args:
        state: The position; sums over its steps are fields named `...loss`.
        before: Number of processes until now.
        now: Number of processes from now on.
    """
    if before == now:
        return state
    step = state.step * before // now
    losses = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name.endswith("loss")}
    share = step / max(1, state.step)
    return dataclasses.replace(state, step=step, **{name: value * share for name, value in losses.items()})
