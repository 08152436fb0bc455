"""The search: first-order DARTS on a supernet (Auto-DeepLab, sections 4.2 and 5.1).

Weights learn on trainA, alpha and beta on trainB, in turn; each epoch ends with a validation, a decoded genotype and a
checkpoint. Data order and augmentation are pure functions of (seed, epoch, sample), so a checkpoint needs only the
position in the run to go on with the very next batch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from nas.config import SearchConfig, from_plain, to_plain
from nas.data.loading import Key, epoch_batches, evaluation_loader, split_dataset, training_loader
from nas.data.splits import steps_per_epoch, training_split, validation_split
from nas.diagnostics.health import Checkup, reason_to_stop, warnings_of
from nas.evaluation.evaluate import evaluate_network
from nas.evaluation.memory import check_memory, search_memory
from nas.runs.checkpoint import fitting, load_checkpoint, save_checkpoint
from nas.runs.epoch_log import EachEpoch, decode_supernet, headline, report_epoch, show_history
from nas.runs.folder import RunFolder, check_resumable, claimed, has_begun, new_folder, run_to_resume
from nas.runs.names import BEST, CHECKPOINT, GENOTYPE, SPACE, RunError
from nas.runs.pictures import SampleKeeper
from nas.supernet.alpha_sampling import Relaxation
from nas.supernet.network import Supernet
from nas.supernet.penalties import architecture_penalty
from nas.training.cuda_graphs import graph_pool
from nas.training.devices import random_state, restore_random_state, seed_everything, set_float32
from nas.training.distributed import ALONE, Processes, joined
from nas.training.interruption import CheckpointClock, GivenUp, InterruptedRun, Interruption, give_up
from nas.training.losses import check_weights
from nas.training.optimizers import FUSED, cosine, make_optimizer
from nas.training.progress import StepProgress, Waiting
from nas.training.step import Stepper, rescaled, without_tensors
from search_spaces.files import write_atomically
from search_spaces.genotype import Genotype
from search_spaces.messages import counted
from search_spaces.space import SearchSpace, available, load
from search_spaces.synchronized import synchronize

__all__ = [
    "SearchResult",
    "check_levels",
    "resolve_space",
    "search",
]


KIND = "search"
Parts = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves."""

    folder: Path
    """The run folder."""
    genotype: Genotype
    """Decoded after the last epoch."""
    val_miou: float
    """mIoU of the supernet on the validation split after the last epoch, 0 to 1."""


@dataclass
class _State:
    """Position in the run, and what an epoch has gathered so far."""

    epoch: int = 0
    step: int = 0
    weight_loss: float | Tensor = 0.0  # on the device within an epoch
    architecture_loss: float | Tensor = 0.0
    best_miou: float = -1.0
    last_miou: float = float("nan")
    memory: dict[str, Any] = field(default_factory=dict)
    """What the health of the next epoch is measured by (see `nas.diagnostics.health.examine`)."""


def resolve_space(config: SearchConfig) -> SearchSpace:
    """The search space that the settings describe: the named one, with their numbers in place of its own."""
    return dataclasses.replace(load(config.space), **config.space_changes())  # type: ignore[arg-type]


def search(
    config: SearchConfig,
    resume: str | Path | None = None,
    quiet: bool = False,
    each_epoch: EachEpoch | None = None,
) -> SearchResult:
    """Searches an architecture and writes a run folder (see `nas.runs.folder`).

    Args:
        config: All settings.
        resume: A run folder to go on with, exactly where its checkpoint is; `config` must be that run's, but for the
            number of epochs, the device and how data is read.
        quiet: Say nothing on the screen.
        each_epoch: Called after each epoch, when it is saved, with its number from 0 and its validation metrics, such
            as miou; what it raises ends the run, which can be resumed.

    Raises:
        ValueError: Settings, data, space or checkpoint that cannot be used; one line with the remedy.
        NonFiniteLossError: A loss is not a number; the step was not taken.
        InterruptedRun: Ctrl-C or SIGTERM came; the state was saved.
    """
    with joined(config.device) as processes:
        resume = processes.agreed(partial(run_to_resume, config, resume))
        config = _with_own_space(config, resume)
        space = resolve_space(config)
        if resume is None:
            check_levels(space, config)
        folder = Path(resume or processes.agreed(lambda: new_folder(config, f"search-{space.name}-{config.data}")))
        with claimed(folder) if processes.first else nullcontext():
            resumes = resume is not None and processes.agreed(lambda: has_begun(folder))
            return _search(config, space, folder, resumes, quiet, processes, each_epoch)


def _search(
    config: SearchConfig,
    space: SearchSpace,
    folder: Path,
    resumes: bool,
    quiet: bool,
    processes: Processes,
    each_epoch: EachEpoch | None,
) -> SearchResult:
    device = processes.device(config.device)
    set_float32(device, config.precision)
    seed_everything(config.seed)
    train_set, validation = training_split(config, processes), validation_split(config, processes)
    classes = len(train_set.classes)
    how = classes, config.supernet.engine, config.supernet.recompute, config.partial_channels
    with torch.device("meta"):  # what it needs is known before any of it is taken
        without_memory = Supernet(space, *how)
    needs = check_memory(config, device, lambda: search_memory(without_memory, config), processes)
    supernet = Supernet(space, *how).to(device)
    if processes.synchronizes(config.sync_batch_norm, device):
        synchronize(supernet)
    relaxation = Relaxation(space, config.architecture, config.seed, config.epochs)
    if config.architecture.varies:
        supernet.relaxation = relaxation
    weights, architecture = _steppers(config, supernet, device, processes)
    state, split = _State(), split_dataset(train_set, config.seed)
    steps = steps_per_epoch(min(len(part) for part in split), config.images_per_update * processes.count)
    if resumes:
        saved = load_checkpoint(folder / CHECKPOINT, KIND)
        with fitting(folder / CHECKPOINT):
            state, split = _restore(saved, config, len(train_set), supernet, weights, architecture, processes.count)
    elif config.space not in available():  # the run keeps a copy, and needs the original no more
        if processes.first:
            write_atomically(folder / SPACE, load(config.space).to_yaml())
        config = dataclasses.replace(config, space=str(folder / SPACE))

    def save(*names: str) -> None:
        weights.settle()
        architecture.settle()
        check_weights(supernet)
        clock.reset()
        if not processes.first:
            return
        content = {
            "config": to_plain(config),
            "state": without_tensors(state),
            "space": space.to_dict(),
            "samples": len(train_set),
            "processes": processes.count,
            "split": [torch.from_numpy(part) for part in split],
            "supernet": supernet.state_dict(),
            "weights": weights.state_dict(),
            "architecture": architecture.state_dict(),
            "random": random_state(),
        }
        for name in names:
            save_checkpoint(folder / name, KIND, content)

    def stop() -> NoReturn:
        save(CHECKPOINT)
        if processes.first:
            show_history(run)
        raise InterruptedRun(f"stopped and saved; go on with: nas-search --resume {folder}")

    clock = CheckpointClock(config.checkpoint_minutes)
    checkup = Checkup(config, supernet, architecture, train_set, split, processes)
    loading = (config.loader.workers, config.loader.prefetch, device.type == "cuda")
    plan = map(processes.part, _plan(config, split, steps, state.epoch, state.step, processes.count))
    with (
        RunFolder(folder, config, state.epoch, quiet, writes=processes.first) as run,
        Interruption(processes.several) as interruption,
        StepProgress(config.epochs * steps, state.epoch * steps + state.step, quiet or not processes.first) as progress,
        training_loader(train_set, plan, config.loader.augment, config.seed, *loading) as training,
        evaluation_loader(validation, *loading, processes.turns(len(validation))) as whole_images,
    ):
        first_line = headline(config, space, train_set, validation, split, device, folder)
        for line in (first_line, *processes.described(), *needs):
            run.log.info(line)
        if not resumes:
            save(CHECKPOINT)  # so that a run that is killed in its first epoch can go on, too
        if state.epoch >= config.epochs:
            run.log.info(f"all {config.epochs} epochs are done: give more --epochs to go on")
        batches = iter(training)
        for epoch in range(state.epoch, config.epochs):
            reason = reason_to_stop(config.health, state.memory)
            if reason is not None:
                run.log.info(f"ended after epoch {epoch}: {reason}; with another value, --resume {folder} goes on")
                break
            began = time.perf_counter()
            learns = epoch >= config.architecture.start_epoch
            waiting = Waiting()
            while state.step < steps:
                where = f"epoch {epoch + 1}, step {state.step + 1}"
                progressed = (epoch * steps + state.step) / (config.epochs * steps)
                weights.lr = cosine(progressed, config.optimizer.lr, config.optimizer.lr_end)
                images, labels = waiting.next(batches)
                relaxation.begin("weight", epoch, state.step, steps, device)
                state.weight_loss += weights.step(images, labels, where)
                if learns:
                    images, labels = waiting.next(batches)
                    relaxation.begin("architecture", epoch, state.step, steps, device)
                    state.architecture_loss += architecture.step(images, labels, where)
                state.step += 1
                progress.step(f"epoch {epoch + 1}/{config.epochs}")
                asked, due = processes.any(interruption.requested, clock.due())
                if asked:
                    stop()
                if due:
                    save(CHECKPOINT)

            waited = waiting.share()
            weights.settle()
            architecture.settle()
            samples = SampleKeeper(4)
            for name, logits in supernet.architecture.named_parameters():
                processes.check_same(name, logits)
            processes.share_buffers(supernet)
            watched = interruption.watched(whole_images, stop)
            matrix = evaluate_network(
                supernet, watched, classes, device, config.precision, samples, processes=processes
            )
            metrics: dict[str, Any] = {
                "loss": {"weights": float(state.weight_loss) / steps},
                "val": {"miou": matrix.mean_iou(), "pixel_accuracy": matrix.pixel_accuracy()},
                "lr": {"weights": weights.lr},
                "seconds": time.perf_counter() - began,
                "waiting": waited,
            }
            if learns:
                metrics["loss"]["architecture"] = float(state.architecture_loss) / steps
                metrics["lr"]["architecture"] = architecture.lr
            miou = matrix.mean_iou()
            done = _State(epoch + 1, best_miou=max(state.best_miou, miou), last_miou=miou)
            genotype = decode_supernet(supernet, _provenance(config, classes, done))
            watched = interruption.watched(whole_images, give_up)
            try:
                metrics["health"], done.memory = checkup.numbers(epoch, genotype, miou, state.memory, watched)
            except GivenUp:  # the supernet is as it was before
                stop()
            state = done
            metrics["warnings"] = warnings_of(metrics["health"], space, config.learned(epoch), miou) if learns else []
            if processes.first:
                genotype.save(folder / GENOTYPE)
                report_epoch(run, epoch, config.epochs, metrics, supernet, genotype, samples, train_set.colors)
            save(*([BEST] if state.last_miou >= state.best_miou else []), CHECKPOINT)
            if each_epoch is not None:
                each_epoch(epoch, metrics["val"])
        if processes.first:
            show_history(run)
    return SearchResult(folder, decode_supernet(supernet, _provenance(config, classes, state)), state.last_miou)


def _with_own_space(config: SearchConfig, resume: str | Path | None) -> SearchConfig:
    """A run that goes on, and whose space was read from a file that is gone, has a copy of it in its folder."""
    if resume is None or config.space in available() or Path(config.space).is_file():
        return config
    return dataclasses.replace(config, space=str(Path(resume) / SPACE))


def _steppers(
    config: SearchConfig, supernet: Supernet, device: torch.device, processes: Processes = ALONE
) -> tuple[Stepper, Stepper]:
    """The two optimisers: SGD for the weights, Adam for alpha and beta."""
    sgd = make_optimizer(supernet, supernet.weights(), config.optimizer)
    adam = torch.optim.Adam(
        supernet.architecture.parameters(),
        config.architecture.lr,
        weight_decay=config.architecture.weight_decay,
        fused=FUSED,
    )
    if config.supernet.graphs and processes.several:
        raise ValueError("supernet.graphs is on, but there are several processes: leave it out, or start one process")
    penalty = architecture_penalty(config, supernet)
    # Their graphs run in turn, so they can share memory.
    common: Any = {
        "accumulate": config.accumulate,
        "graph_pool": graph_pool(device) if config.supernet.graphs else None,
        "processes": processes,
    }
    return (
        Stepper("weight", supernet, sgd, device, config.precision, config.optimizer.clip, **common),
        Stepper(
            "architecture",
            supernet,
            adam,
            device,
            config.precision,
            **common,
            penalty=penalty,
        ),
    )


def _plan(config: SearchConfig, split: Parts, steps: int, epoch: int, step: int, processes: int) -> Iterator[list[Key]]:
    """The batches of the run from a step on: of trainA, and once alpha and beta learn, of trainA and trainB in turn."""
    for number in range(epoch, config.epochs):
        parts = split if number >= config.architecture.start_epoch else split[:1]
        plans = [epoch_batches(part, config.images_per_update * processes, config.seed, number) for part in parts]
        for batches in islice(zip(*plans, strict=False), step if number == epoch else 0, steps):
            yield from batches


def _restore(
    saved: Any,
    config: SearchConfig,
    samples: int,
    supernet: Supernet,
    weights: Stepper,
    architecture: Stepper,
    processes: int,
) -> tuple[_State, Parts]:
    """Puts a checkpoint's content back in place; returns the position and the split of the training data."""
    saved["config"] = to_plain(from_plain(SearchConfig, saved["config"]))  # an older run lacks the newer settings
    check_resumable(saved, config, samples)
    if saved["space"] != supernet.space.to_dict():  # its file is not among the settings, only the file's name
        raise RunError(
            f"--resume with another search space than the one the run began with would be another run: put "
            f"{config.space} back as it was, or start a new run without --resume"
        )
    supernet.load_state_dict(saved["supernet"])
    weights.load_state_dict(saved["weights"])
    architecture.load_state_dict(saved["architecture"])
    restore_random_state(saved["random"])
    state = rescaled(_State(**saved["state"]), saved.get("processes", 1), processes)
    return state, tuple(part.numpy() for part in saved["split"])


def _provenance(config: SearchConfig, classes: int, state: _State) -> dict[str, Any]:
    known = {"data": config.data, "classes": classes, "seed": config.seed, "epoch": state.epoch}
    return {**known, "supernet_val_miou": state.last_miou}


def check_levels(space: SearchSpace, config: SearchConfig) -> None:
    """Refuses levels at which nothing would be left of a training crop, and those that no path reaches.

    Raises:
        ValueError: There are such; the message has the most that are of use.
    """
    side, reached = min(config.loader.augment.crop), len(space.node_levels(space.layers))
    fit = sum(stride <= side for stride in space.strides)
    if space.strides[reached - 1] > side:
        raise ValueError(
            f"levels is {space.levels}: the coarsest has stride {space.strides[-1]}, more than the side of a crop, "
            f"{side} pixels; give --levels {max(1, fit)}, or a larger --loader.augment.crop"
        )
    if config.levels is not None and config.levels > reached:
        raise ValueError(
            f"levels is {config.levels}, but in {counted(space.layers, 'layer')} a path reaches no more than "
            f"{reached}; give --levels {reached}, or more --layers"
        )
