"""Retraining: a genotype, or a published network, trained from scratch (Auto-DeepLab, section 5.2) or from weights.

Data order and augmentation are pure functions of (seed, epoch, sample), so a checkpoint needs only the position in the
run to go on with the very next batch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.config import from_plain, to_plain
from nas.data.base import SegmentationDataset
from nas.data.loading import Key, epoch_batches, evaluation_loader, training_loader
from nas.data.splits import steps_per_epoch, training_split, validation_split
from nas.evaluation.cost import count_parameters
from nas.evaluation.evaluate import evaluate_network
from nas.evaluation.memory import check_memory, step_memory
from nas.runs.checkpoint import fitting, load_checkpoint, save_checkpoint
from nas.runs.epoch_log import EachEpoch, record_epoch
from nas.runs.folder import RunFolder, check_resumable, claimed, has_begun, new_folder, run_to_resume
from nas.runs.names import BEST, CHECKPOINT, GENOTYPE, RunError
from nas.runs.pictures import SampleKeeper
from nas.training.class_weights import class_shares, inverse_log
from nas.training.devices import random_state, restore_random_state, seed_everything, set_float32
from nas.training.distributed import Processes, joined
from nas.training.interruption import CheckpointClock, InterruptedRun, Interruption
from nas.training.losses import check_weights
from nas.training.optimizers import make_optimizer, poly
from nas.training.progress import StepProgress, Waiting, waiting_advice
from nas.training.step import Stepper, rescaled, without_tensors
from retrain.config import RetrainConfig
from retrain.load import KIND, head_multipliers, initialize
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork
from search_spaces.genotype import load_genotype
from search_spaces.messages import counted
from search_spaces.synchronized import synchronize

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a retraining leaves."""

    folder: Path
    """The run folder."""
    best_miou: float
    """Highest mIoU on the validation split after any epoch, 0 to 1."""
    last_miou: float
    """The same after the last epoch."""


@dataclass
class _State:
    """Position in the run, and what an epoch has gathered so far."""

    epoch: int = 0
    step: int = 0
    loss: float | Tensor = 0.0  # on the device within an epoch
    best_miou: float = -1.0
    last_miou: float = float("nan")


def train(
    config: RetrainConfig,
    resume: str | Path | None = None,
    quiet: bool = False,
    each_epoch: EachEpoch | None = None,
) -> TrainResult:
    """Trains a network and writes a run folder (see `nas.runs.folder`).

    Args:
        config: All settings; `config.genotype` names a genotype file or a published network.
        resume: A run folder to go on with, exactly where its checkpoint is; `config` must be that run's, but for the
            number of epochs, the device and how data is read.
        quiet: Say nothing on the screen.
        each_epoch: Called after each epoch, when it is saved, with its number from 0 and its validation metrics, such
            as miou; what it raises ends the run, which can be resumed.

    Raises:
        ValueError: Settings, data, genotype or checkpoint that cannot be used; one line with the remedy.
        NonFiniteLossError: A loss is not a number; the step was not taken.
        InterruptedRun: Ctrl-C or SIGTERM came; the state was saved.
    """
    with joined(config.device) as processes:
        resume = processes.agreed(partial(run_to_resume, config, resume))
        name = config.genotype if config.genotype in NETWORKS else Path(config.genotype).resolve().parent.name
        folder = Path(resume or processes.agreed(lambda: new_folder(config, f"retrain-{name}-{config.data}")))
        with claimed(folder) if processes.first else nullcontext():
            resumes = resume is not None and processes.agreed(lambda: has_begun(folder))
            return _train(config, folder, resumes, quiet, processes, each_epoch)


def _train(
    config: RetrainConfig,
    folder: Path,
    resumes: bool,
    quiet: bool,
    processes: Processes,
    each_epoch: EachEpoch | None,
) -> TrainResult:
    device = processes.device(config.device)
    set_float32(device, config.precision)
    seed_everything(config.seed)
    if resumes:
        config = _with_own_genotype(config, folder)
    train_set, validation = training_split(config, processes), validation_split(config, processes)
    classes = len(train_set.classes)
    steps = steps_per_epoch(len(train_set), config.images_per_update * processes.count)
    with torch.device("meta"):  # what it needs is known before any of it is taken
        without_memory = build(config.genotype, classes, config.network)
    needs = check_memory(config, device, lambda: _memory(config, without_memory), processes)
    network = build(config.genotype, classes, config.network)
    if processes.synchronizes(config.sync_batch_norm, device):
        synchronize(network)
    headline = _headline(config, network, train_set, validation, device, folder)
    saved = load_checkpoint(folder / CHECKPOINT, KIND) if resumes else None
    if saved is None:
        class_weights, begun = _begin(config, network, train_set)
    else:
        class_weights, begun = saved.get("class_weights"), []  # an older run has none
    network.to(device)
    stepper = _stepper(config, network, device, class_weights, processes)
    state = _State()
    if saved is not None:
        with fitting(folder / CHECKPOINT):
            state = _restore(saved, config, network, stepper, len(train_set), processes.count)
    elif config.genotype not in NETWORKS:  # the run keeps a copy, and needs the original no more
        if processes.first:
            load_genotype(config.genotype).save(folder / GENOTYPE)
        config = dataclasses.replace(config, genotype=str(folder / GENOTYPE))

    def save(*names: str) -> None:
        stepper.settle()
        check_weights(network)
        clock.reset()
        if not processes.first:
            return
        content = {
            "config": to_plain(config),
            "state": without_tensors(state),
            "samples": len(train_set),
            "processes": processes.count,
            "classes": list(train_set.classes),
            "colors": train_set.colors.tolist(),
            "mirror": dict(train_set.mirror),
            "network": network.state_dict(),
            "stepper": stepper.state_dict(),
            "class_weights": class_weights,
            "random": random_state(),
        }
        for name in names:
            save_checkpoint(folder / name, KIND, content)

    def stop() -> None:
        save(CHECKPOINT)
        raise InterruptedRun(f"stopped and saved; go on with: nas-retrain --resume {folder}")

    clock = CheckpointClock(config.checkpoint_minutes)
    loading = (config.loader.workers, config.loader.prefetch, device.type == "cuda")
    plan = map(processes.part, _plan(config, len(train_set), state.epoch, state.step, processes.count))
    with (
        RunFolder(folder, config, state.epoch, quiet, writes=processes.first) as run,
        Interruption(processes.several) as interruption,
        StepProgress(config.epochs * steps, state.epoch * steps + state.step, quiet or not processes.first) as progress,
        training_loader(train_set, plan, config.loader.augment, config.seed, *loading) as training,
        evaluation_loader(validation, *loading, processes.turns(len(validation))) as whole_images,
    ):
        for line in (headline, *processes.described(), *needs, *begun):
            run.log.info(line)
        if not resumes:
            save(CHECKPOINT)  # so that a run that is killed in its first epoch can go on, too
        if state.epoch >= config.epochs:
            run.log.info(f"all {config.epochs} epochs are done: give more --epochs to go on")
        batches = iter(training)
        for epoch in range(state.epoch, config.epochs):
            began = time.perf_counter()
            waiting = Waiting()
            while state.step < steps:
                images, labels = waiting.next(batches)
                progressed = (epoch * steps + state.step) / (config.epochs * steps)
                stepper.lr = poly(progressed, config.optimizer.lr, config.optimizer.power)
                network.set_progress(progressed)
                state.loss += stepper.step(images, labels, f"epoch {epoch + 1}, step {state.step + 1}")
                state.step += 1
                progress.step(f"epoch {epoch + 1}/{config.epochs}")
                asked, due = processes.any(interruption.requested, clock.due())
                if asked:
                    stop()
                if due:
                    save(CHECKPOINT)

            waited = waiting.share()
            stepper.settle()
            samples = SampleKeeper(4)
            processes.share_buffers(network)
            watched = interruption.watched(whole_images, stop)
            matrix = evaluate_network(network, watched, classes, device, config.precision, samples, processes=processes)
            metrics: dict[str, Any] = {
                "loss": {"training": float(state.loss) / steps},
                "val": {"miou": matrix.mean_iou(), "pixel_accuracy": matrix.pixel_accuracy()},
                "lr": {"training": stepper.lr},
                "seconds": time.perf_counter() - began,
                "waiting": waited,
            }
            state = _State(epoch + 1, best_miou=max(state.best_miou, matrix.mean_iou()), last_miou=matrix.mean_iou())
            if processes.first:
                record_epoch(run, epoch, metrics, network)
                run.show_samples(epoch, samples, train_set.colors)
            run.log.info(
                f"epoch {epoch + 1}/{config.epochs}: loss {metrics['loss']['training']:.3f}, "
                f"val mIoU {100 * state.last_miou:.2f} %, {metrics['seconds']:.0f} s{waiting_advice(waited)}"
            )
            save(*([BEST] if state.last_miou >= state.best_miou else []), CHECKPOINT)
            if each_epoch is not None:
                each_epoch(epoch, metrics["val"])
    return TrainResult(folder, state.best_miou, state.last_miou)


def _with_own_genotype(config: RetrainConfig, folder: Path) -> RetrainConfig:
    """A run that goes on reads the genotype's copy in its folder, wherever the original or the folder are now.

    Raises:
        ValueError: The settings name another genotype.
    """
    if config.genotype in NETWORKS:
        return config
    own = folder / GENOTYPE
    original = Path(config.genotype)
    if original.is_file() and load_genotype(original).to_json() != load_genotype(own).to_json():
        raise RunError(f"--resume with another genotype, {original}, would be another run: leave it as it was")
    return dataclasses.replace(config, genotype=str(own))


def _begin(
    config: RetrainConfig, network: SegmentationNetwork, train_set: SegmentationDataset
) -> tuple[Tensor | None, list[str]]:
    """What only a fresh start does: loads the weights to start from, and weighs the classes.

    Returns:
        Weight of each class in the loss, float32 [classes] (None: all alike), and what to say of it all.
    """
    loaded = initialize(network, config)
    said = [] if loaded is None else [f"starting from {loaded}"]
    if config.loss.class_weights == "none":
        return None, said
    class_weights = inverse_log(class_shares(train_set, config.loader.workers), config.loss.constant)
    weighed = zip(train_set.classes, class_weights.tolist(), strict=True)
    return class_weights, [*said, f"class weights: {', '.join(f'{name} {weight:.2f}' for name, weight in weighed)}"]


def _stepper(
    config: RetrainConfig,
    network: SegmentationNetwork,
    device: torch.device,
    class_weights: Tensor | None,
    processes: Processes,
) -> Stepper:
    """The optimiser of what is trained, and the loss as the settings say."""
    settings = config.optimizer
    optimizer = make_optimizer(
        network,
        [p for p in network.parameters() if p.requires_grad],
        settings,
        settings.name,
        settings.eps,
        settings.decay,
        head_multipliers(network, settings),
    )
    forward = network.logits if config.loss.resolution == "logits" else network
    return Stepper(
        "training",
        network,
        optimizer,
        device,
        config.precision,
        settings.clip,
        class_weights,
        forward,
        config.accumulate,
        processes=processes,
    )


def _memory(config: RetrainConfig, network: SegmentationNetwork) -> int:
    """Bytes that training needs at its peak."""
    kept = 2 if config.optimizer.name == "adam" else 1 if config.optimizer.momentum else 0
    trained = [p for p in network.parameters() if p.requires_grad]
    images = (config.loader.batch_size, *config.loader.augment.crop)
    forward = "logits" if config.loss.resolution == "logits" else "__call__"
    return step_memory(network, [(trained, kept)], images, config.precision, config.accumulate, forward)


def _plan(config: RetrainConfig, samples: int, epoch: int, step: int, processes: int) -> Iterator[list[Key]]:
    """The batches of the run from a step on."""
    for number in range(epoch, config.epochs):
        batches = epoch_batches(range(samples), config.images_per_update * processes, config.seed, number)
        yield from batches[step if number == epoch else 0 :]


def _restore(
    saved: dict[str, Any],
    config: RetrainConfig,
    network: SegmentationNetwork,
    stepper: Stepper,
    samples: int,
    processes: int,
) -> _State:
    """Puts a checkpoint's content back in place; returns the position."""
    saved["config"] = to_plain(from_plain(RetrainConfig, saved["config"]))  # an older run lacks the newer settings
    if not {config.genotype, saved["config"]["genotype"]} & set(NETWORKS):
        saved["config"]["genotype"] = config.genotype  # the same file, but the folder may have been moved
    check_resumable(saved, config, samples)
    network.load_state_dict(saved["network"])
    stepper.load_state_dict(saved["stepper"])
    restore_random_state(saved["random"])
    return rescaled(_State(**saved["state"]), saved.get("processes", 1), processes)


def _headline(
    config: RetrainConfig,
    network: SegmentationNetwork,
    train_set: SegmentationDataset,
    validation: SegmentationDataset,
    device: torch.device,
    folder: Path,
) -> str:
    return (
        f"training {config.genotype} ({count_parameters(network):,} parameters) on {config.data}: "
        f"{counted(len(train_set), 'training image')}, {len(validation)} for validation, {len(train_set.classes)} "
        f"classes; {counted(config.epochs, 'epoch')} on {device}; run folder {folder}"
    )
