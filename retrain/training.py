"""Retraining: a genotype, or a published network, trained from scratch (Auto-DeepLab, section 5.2) or from weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.data.identity import changed_parts, told
from nas.data.loading import Key, epoch_batches
from nas.data.splits import steps_per_epoch
from nas.evaluation.cost import count_parameters
from nas.evaluation.memory import step_memory
from nas.evaluation.metrics import epoch_text
from nas.runs.epoch_log import record_epoch
from nas.runs.names import CHECKPOINT, GENOTYPE, RunError
from nas.training.class_weights import class_shares, inverse_log
from nas.training.losses import make_loss
from nas.training.optimizers import OPTIMIZERS, make_optimizer, poly
from nas.training.progress import waiting_advice
from nas.training.session import EachEpoch, RunState, Session, open_session
from nas.training.step import Execution, Stepper
from retrain.config import RetrainConfig
from retrain.load import KIND, check_genotype, genotype_source
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork
from retrain.networks.building import named_genotype
from retrain.pretrained import head_multipliers, initialize
from search_spaces.genotype import Genotype, genotype_file, load_genotype
from search_spaces.validation import counted

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """Result of a retraining."""

    folder: Path
    """The run folder."""
    best_miou: float
    """Highest mIoU on the validation split after any epoch, 0 to 1."""
    last_miou: float
    """The same after the last epoch."""
    mean_over: list[int] | None
    """Number of classes whose mean `last_miou` is, and of all classes; None before the first epoch."""


@dataclass
class TrainState(RunState):
    """Position in the training."""

    loss: float | Tensor = 0.0  # on the device within an epoch


def train(
    config: RetrainConfig,
    resume: str | Path | None = None,
    quiet: bool = False,
    each_epoch: EachEpoch | None = None,
) -> TrainResult:
    """Trains a network and writes a run folder (see `nas.runs.folder`).

    Args:
        config: All settings; `config.genotype` names a genotype file or a published network.
        resume: A run folder to resume from its checkpoint; `config` must be that run's, except for the number of
            epochs, the device and the loading of data.
        quiet: Print nothing on the screen.
        each_epoch: Called after each epoch, when it is saved, with its number from 0 and its validation metrics, such
            as miou; an exception in it ends the run, which can be resumed.

    Raises:
        ValueError: Settings, data, genotype or checkpoint that cannot be used; one line with the remedy.
        NonFiniteLossError: A loss is not a number; the step was not taken.
        InterruptedRun: Ctrl-C or SIGTERM came; the state was saved.
    """
    with open_session(config, KIND, resume, quiet, _prepared) as session:
        network, stepper = _begin(session)
        config = session.config
        with session.running(_headline(session, network), partial(_plan, session)):
            for epoch in session.epochs():
                state = session.state
                for step in session.steps(epoch):
                    stepper.lr = poly(step.progress, config.optimizer.lr, config.optimizer.power)
                    network.set_progress(step.progress)
                    state.loss += stepper.step(*session.batch(), step.where)

                matrix, samples = session.validate(network)
                metrics = session.metrics(matrix, {"training": state.loss}, {"training": stepper.lr})
                session.state = session.advanced(epoch, metrics["val"])
                if session.processes.first:
                    record_epoch(session.run, epoch, metrics, network)
                    session.run.show_samples(epoch, samples, session.train_set.colors)
                session.run.log.info(
                    f"epoch {epoch + 1}/{config.epochs}: loss {metrics['loss']['training']:.3f}, "
                    f"{epoch_text(metrics['val'])}, {metrics['seconds']:.0f} s{waiting_advice(metrics['waiting'])}"
                )
                session.save_epoch()
                if each_epoch is not None:
                    each_epoch(epoch, metrics["val"])
        state = session.state
        return TrainResult(session.folder, state.best_miou, state.last_miou, state.mean_over)


def _prepared(config: RetrainConfig, resume: Path | None) -> tuple[RetrainConfig, str, dict[str, str]]:
    if resume is not None or config.genotype in NETWORKS:
        return config, f"retrain-{config.genotype}-{config.data}", {}
    name = genotype_file(config.genotype).resolve().parent.name
    return config, f"retrain-{name}-{config.data}", {GENOTYPE: named_genotype(config.genotype).to_json()}


def _begin(session: Session[RetrainConfig, TrainState]) -> tuple[SegmentationNetwork, Stepper]:
    """Builds the network and its optimiser, and restores them where the run is resumed."""
    if session.resumes:
        session.config = _with_own_genotype(session.config, session.folder)
    config, train_set, processes = session.config, session.train_set, session.processes
    session.steps_per_epoch = steps_per_epoch(len(train_set), config.images_per_update * processes.count)
    network = session.build(lambda: build(config.genotype, session.classes, config.network), partial(_memory, config))
    published = config.genotype in NETWORKS
    if session.resumes:  # the run's own copy of a genotype, whose folder may have been moved
        with session.checkpoint({} if published else {"genotype": config.genotype}) as saved:
            check_genotype(saved, genotype_source(config, session.folder), session.folder / CHECKPOINT)
            class_weights = saved["class_weights"]
    else:
        loaded = initialize(network, config, session.data)
        session.notes += [] if loaded is None else [f"starting from {loaded}"]
        class_weights = _class_weights(session)
    network.to(session.device)
    stepper = _stepper(session, network, class_weights)
    session.parts = {"network": network, "stepper": stepper}
    session.extras = {
        "genotype": None if published else load_genotype(config.genotype).digest,
        "classes": list(train_set.classes),
        "colors": train_set.colors.tolist(),
        "mirror": dict(train_set.mirror),
        "class_weights": class_weights,
    }
    session.state = TrainState()
    if session.resumes:
        session.restore(TrainState)
    elif not published:  # the run keeps a copy, and no longer needs the original
        genotype = load_genotype(config.genotype)
        session.notes += _searched_elsewhere(genotype, session.data)
        if processes.first:
            genotype.save(session.folder / GENOTYPE)
        session.config = dataclasses.replace(config, genotype=str(session.folder / GENOTYPE))
    return network, stepper


def _searched_elsewhere(genotype: Genotype, data: Mapping[str, Any]) -> list[str]:
    """A note that a genotype was searched on other data, which may be intended."""
    searched = genotype.provenance.get("data_identity", {})
    changed = changed_parts(searched, data)
    return [f"note: {told(searched, data, changed, 'the search of the genotype')}"] if changed else []


def _with_own_genotype(config: RetrainConfig, folder: Path) -> RetrainConfig:
    """Makes a resumed run read its own copy of the genotype; refuses settings that name another genotype."""
    if config.genotype in NETWORKS:
        return config
    own = folder / GENOTYPE
    original = genotype_file(config.genotype)
    if original.is_file() and load_genotype(original).to_json() != load_genotype(own).to_json():
        raise RunError(f"--resume with another genotype, {original}, would be another run: leave it as it was")
    return dataclasses.replace(config, genotype=str(own))


def _class_weights(session: Session[RetrainConfig, TrainState]) -> Tensor | None:
    """Computes class weights, float32 [classes], from the training split; None: all are 1."""
    settings, train_set = session.config.loss, session.train_set
    if settings.class_weights == "none":
        return None
    weights = inverse_log(class_shares(session.pixels[train_set.split][: session.classes]))
    pairs = zip(train_set.classes, weights.tolist(), strict=True)
    session.notes.append(f"class weights: {', '.join(f'{name} {weight:.2f}' for name, weight in pairs)}")
    return weights


def _stepper(
    session: Session[RetrainConfig, TrainState], network: SegmentationNetwork, class_weights: Tensor | None
) -> Stepper:
    """Makes optimiser and loss from the settings."""
    config, settings = session.config, session.config.optimizer
    optimizer = make_optimizer(
        network,
        [p for p in network.parameters() if p.requires_grad],
        settings,
        settings.name,
        decay=settings.decay,
        multipliers=head_multipliers(network, settings),
        options=settings.options if settings.eps is None else {**settings.options, "eps": settings.eps},
    )
    execution = Execution(session.device, config.precision, config.accumulate, session.processes)
    loss = make_loss(config.loss, session.classes, session.device, class_weights, session.processes)
    forward = network.logits if config.loss.resolution == "logits" else network
    return Stepper("training", network, optimizer, execution, loss, settings.clip, forward)


def _memory(config: RetrainConfig, network: SegmentationNetwork) -> int:
    """Estimates the peak memory of training in bytes."""
    trained = [p for p in network.parameters() if p.requires_grad]
    states = OPTIMIZERS[config.optimizer.name].states(config.optimizer.momentum)
    images = (config.loader.batch_size, *config.loader.augment.crop)
    forward = "logits" if config.loss.resolution == "logits" else "__call__"
    return step_memory(network, [(trained, states)], images, config.precision, config.accumulate, forward)


def _plan(session: Session[RetrainConfig, TrainState], epoch: int, step: int) -> Iterator[list[Key]]:
    """Yields the batches of the run, starting at a step."""
    config, samples = session.config, range(len(session.train_set))
    for number in range(epoch, config.epochs):
        batches = epoch_batches(samples, config.images_per_update * session.processes.count, config.seed, number)
        yield from batches[step if number == epoch else 0 :]


def _headline(session: Session[RetrainConfig, TrainState], network: SegmentationNetwork) -> str:
    config = session.config
    return (
        f"training {config.genotype} ({count_parameters(network):,} parameters) on {config.data}: "
        f"{counted(len(session.train_set), 'training image')}, {len(session.validation)} for validation, "
        f"{session.classes} classes; {counted(config.epochs, 'epoch')} on {session.device}; run folder {session.folder}"
    )
