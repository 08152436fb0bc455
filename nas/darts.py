"""The search: first-order DARTS on a supernet (Auto-DeepLab, sections 4.2 and 5.1), or sampled single paths.

Weights learn on trainA, alpha and beta on trainB, in turn; each epoch ends with a validation, a decoded genotype and a
checkpoint. By sampled paths (`nas.choosing`), there is no alpha and beta: trainB gives the batch-norm statistics of the
networks that are measured at the end of an epoch, of which the best is the genotype.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.choosing import Measured, drawn_network, drawn_networks, evolved
from nas.config import SearchConfig, SgdConfig
from nas.data.identity import data_provenance
from nas.data.loading import Key, epoch_batches, split_dataset
from nas.data.splits import steps_per_epoch
from nas.diagnostics.discretization import forced_matrix
from nas.diagnostics.health import Checkup, reason_to_stop, too_few_steps, verdict, warnings_of
from nas.evaluation.memory import search_memory
from nas.evaluation.metrics import ConfusionMatrix
from nas.runs.epoch_log import report_epoch, show_history
from nas.runs.names import GENOTYPE, SPACE, RunError
from nas.runs.pictures import SampleKeeper
from nas.supernet.alpha_sampling import AlphaSampling
from nas.supernet.network import Supernet, decode_supernet, make_supernet
from nas.supernet.penalties import architecture_cost, architecture_penalty
from nas.training.cuda_graphs import graph_pool
from nas.training.distributed import ALONE, Processes
from nas.training.interruption import GivenUp, InterruptedRun
from nas.training.losses import make_loss
from nas.training.optimizers import cosine, make_optimizer
from nas.training.session import SHOWN, EachEpoch, RunState, Session, open_session
from nas.training.step import Execution, Stepper
from search_spaces.files import write_atomically
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.space import SearchSpace, available, load
from search_spaces.validation import counted

__all__ = ["SearchResult", "check_levels", "make_steppers", "resolve_space", "search"]

KIND = "search"
PROBES = 4
"""Networks that are measured after each epoch of sampled paths: the first of those of the last epoch."""
Halves = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class SearchResult:
    """The result of a search."""

    folder: Path
    """The run folder."""
    genotype: Genotype
    """Decoded after the last epoch."""
    val_miou: float
    """mIoU of the supernet on the validation split after the last epoch, 0 to 1."""


@dataclass
class SearchState(RunState):
    """Position in the search."""

    weight_loss: float | Tensor = 0.0  # on the device within an epoch
    architecture_loss: float | Tensor = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    """Memory of the health checks, from one epoch to the next (see `nas.diagnostics.health.examine`)."""


def search(
    config: SearchConfig, resume: str | Path | None = None, quiet: bool = False, each_epoch: EachEpoch | None = None
) -> SearchResult:
    """Searches an architecture and writes a run folder (see `nas.runs.folder`).

    Args:
        config: All settings.
        resume: A run folder to resume in, exactly where its checkpoint is; `config` must be that run's, except for the
            settings in `nas.config.CHANGEABLE`.
        quiet: Print nothing.
        each_epoch: Called after each epoch is saved, with its number from 0 and its validation metrics, such as miou;
            an exception that it raises ends the run, which can be resumed.

    Raises:
        ValueError: Settings, data, space or checkpoint cannot be used; one line with the remedy.
        NonFiniteLossError: A loss is not a number; the step was not taken.
        InterruptedRun: Ctrl-C or SIGTERM arrived; the state was saved.
    """
    with open_session(config, KIND, resume, quiet, _prepared) as session:
        found = _begin(session)
        supernet, weights, architecture, sampling, _, halves = found
        config, space = session.config, supernet.space
        sampled, metrics = config.method == "sampled", dict[str, Any]()
        with session.running(_headline(session, space, halves), partial(_plan, session, halves)), _history(session):
            for epoch in session.epochs():
                if (reason := reason_to_stop(config.health, session.state.memory)) is not None:
                    remedy = f"to continue, change that setting and give --resume {session.folder}"
                    session.run.log.info(f"ended after epoch {epoch}: {reason}; {remedy}")
                    break
                state, learns = session.state, not sampled and epoch >= config.architecture.start_epoch
                for step in session.steps(epoch):
                    weights.lr = cosine(step.progress, config.optimizer.lr, config.optimizer.lr_end)
                    if sampled:
                        number = epoch * session.steps_per_epoch + step.number
                        supernet.forced = drawn_network(space, config.sampled, config.seed, number)
                    sampling.begin("weight", epoch, step.number, session.steps_per_epoch, session.device)
                    state.weight_loss += weights.step(*session.batch(), step.where)
                    if learns:
                        sampling.begin("architecture", epoch, step.number, session.steps_per_epoch, session.device)
                        state.architecture_loss += architecture.step(*session.batch(), step.where)

                for name, logits in supernet.architecture.named_parameters():
                    session.processes.check_same(name, logits)
                measure = _measure_networks if sampled else _measure_supernet
                metrics, genotype, samples, session.state = measure(session, found, epoch)
                if session.processes.first:
                    genotype.save(session.run.file(GENOTYPE))
                    colors = session.train_set.colors
                    # A warning is said once, and again only after an epoch without it.
                    said = state.memory.get("warnings", {})
                    new = [text for kind, text in session.state.memory["warnings"].items() if kind not in said]
                    report_epoch(session.run, epoch, config.epochs, metrics, new, supernet, genotype, samples, colors)
                session.save_epoch()
                if each_epoch is not None:
                    each_epoch(epoch, metrics["val"])
            if metrics:
                session.run.log.info(f"{verdict(metrics['health'], metrics['val']['miou'])}; {_next(session)}")
        if sampled:
            genotype = load_genotype(session.folder / GENOTYPE)
        else:
            genotype = decode_supernet(supernet, _provenance(session, session.state))
        return SearchResult(session.folder, genotype, session.state.last_miou)


Measurement = tuple[dict[str, Any], Genotype, SampleKeeper, SearchState]
"""Metrics of an epoch, its genotype, predictions to show, and the position after it."""


def _measure_supernet(session: Session[SearchConfig, SearchState], found: _Search, epoch: int) -> Measurement:
    """Ends an epoch of DARTS: validates the supernet, decodes alpha and beta, and measures the search's health."""
    config, state, learns = session.config, session.state, epoch >= session.config.architecture.start_epoch
    matrix, samples = session.validate(found.supernet)
    losses, rates = {"weights": state.weight_loss}, {"weights": found.weights.lr}
    if learns:
        losses["architecture"], rates["architecture"] = state.architecture_loss, found.architecture.lr
    metrics = session.metrics(matrix, losses, rates)
    done, miou = session.advanced(epoch, metrics["val"]), metrics["val"]["miou"]
    genotype = decode_supernet(found.supernet, _provenance(session, done))
    try:
        images = session.validation_images()
        metrics["health"], done.memory = found.health.numbers(epoch, genotype, miou, state.memory, images)
    except GivenUp:  # the supernet is as it was before
        session.stop()
    learned = config.learned(epoch)
    done.memory["warnings"] = warnings_of(metrics["health"], genotype.space, learned, miou) if learns else {}
    metrics["warnings"] = list(done.memory["warnings"].values())
    return metrics, genotype, samples, done


def _measure_networks(session: Session[SearchConfig, SearchState], found: _Search, epoch: int) -> Measurement:
    """Ends an epoch of sampled paths: measures networks, a few random ones or, at the end, those of the settings."""
    config, supernet, samples = session.config, found.supernet, SampleKeeper(SHOWN)
    last, how, cost = epoch + 1 == config.epochs, config.sampled, architecture_cost(config, supernet).decoded
    batches = list(found.health.batches(1, 0, config.loader.batch_size, config.health.gap_batches))
    rest = session.classes, session.device, config.precision

    def matrix_of(genotype: Genotype, each: SampleKeeper | None = None) -> ConfusionMatrix:
        return forced_matrix(supernet, genotype, batches, session.validation_images(), *rest, each=each)

    def measure(genotype: Genotype) -> Measured:
        return Measured(genotype, matrix_of(genotype).mean_iou(), {"operations": cost(genotype)})

    found.weights.settle()
    try:
        if last and how.evolve:
            measured = evolved(supernet.space, how.evolve, config.seed, measure, "operations")
        else:
            networks = drawn_networks(supernet.space, how.top if last else PROBES, config.seed)
            measured = [measure(genotype) for genotype in networks]
        best = max(measured, key=lambda one: one.miou)
        matrix = matrix_of(best.genotype, samples)
    except GivenUp:  # the supernet is as it was before
        session.stop()
    metrics = session.metrics(matrix, {"weights": session.state.weight_loss}, {"weights": found.weights.lr})
    done, mious = session.advanced(epoch, metrics["val"]), [one.miou for one in measured]
    numbers = {"forced_mean": float(np.mean(mious)), "forced_spread": float(np.std(mious)), "networks": len(mious)}
    metrics |= {"health": {"forced_miou": best.miou, **numbers}, "warnings": []}
    done.memory["warnings"] = {}
    provenance = {**_provenance(session, done), "decoded_by": "supernet", "networks": len(mious)}
    return metrics, dataclasses.replace(best.genotype, provenance=provenance), samples, done


def _prepared(config: SearchConfig, resume: Path | None) -> tuple[SearchConfig, str, dict[str, str]]:
    """Checks the space before any data is read; a resumed run has a copy of its space in its folder."""
    if resume is not None and config.space not in available() and not Path(config.space).is_file():
        config = dataclasses.replace(config, space=str(resume / SPACE))
    space = resolve_space(config)
    if resume is None:
        check_levels(space, config)
    copies = {} if config.space in available() else {SPACE: load(config.space).to_yaml()}
    return config, f"search-{space.name}-{config.data}", copies


class _Search(NamedTuple):
    supernet: Supernet
    weights: Stepper
    architecture: Stepper
    sampling: AlphaSampling
    health: Checkup
    halves: Halves
    """Indices of trainA and of trainB."""


def _begin(session: Session[SearchConfig, SearchState]) -> _Search:
    """Builds the supernet and its optimisers, and restores them if the run is resumed."""
    config, processes = session.config, session.processes
    space = resolve_space(config)
    halves = split_dataset(session.train_set, config.seed)
    if config.method == "sampled" and processes.several:
        raise ValueError("method sampled runs in one process: start it without torchrun, or give --method darts")
    make = partial(make_supernet, config, space, session.classes)
    supernet = session.build(make, partial(search_memory, config=config))
    supernet = supernet.to(session.device)
    sampling = AlphaSampling(space, config.architecture, config.seed, config.epochs)
    if config.architecture.varies:
        supernet.alpha_sampling = sampling
    weights, architecture = make_steppers(config, supernet, session.device, processes)
    session.parts = {"supernet": supernet, "weights": weights, "architecture": architecture}
    session.steps_per_epoch = steps_per_epoch(min(map(len, halves)), config.images_per_update * processes.count)
    few = too_few_steps(config, len(session.train_set), session.steps_per_epoch)
    session.warnings += [few] if few and not session.resumes else []
    session.state = SearchState()
    if session.resumes:
        with session.checkpoint() as saved:
            if saved["space"] != space.to_dict():  # the settings have only the name of its file
                raise RunError(
                    f"--resume with another search space than the one the run began with would be another run: put "
                    f"{config.space} back as it was, or start a new run without --resume"
                )
            if not session.data_changed:  # otherwise their indices are of other samples
                halves = tuple(part.numpy() for part in saved["split"])
        session.restore(SearchState)
    elif config.space not in available():  # the run keeps a copy and no longer needs the original
        if processes.first:
            write_atomically(session.folder / SPACE, load(config.space).to_yaml())
        session.config = dataclasses.replace(config, space=str(session.folder / SPACE))
    session.extras = {"space": space.to_dict(), "split": [torch.from_numpy(half) for half in halves]}
    health = Checkup(config, supernet, architecture, session.train_set, halves, processes)
    return _Search(supernet, weights, architecture, sampling, health, halves)


def make_steppers(
    config: SearchConfig, supernet: Supernet, device: torch.device, processes: Processes = ALONE
) -> tuple[Stepper, Stepper]:
    """The steppers of the weights and of the architecture, which take turns.

    Raises:
        ValueError: CUDA graphs are asked for with several processes, or on another device.
    """
    if config.supernet.graphs and processes.several:
        raise ValueError("supernet.graphs is on, but there are several processes: leave it out, or start one process")
    pool = graph_pool(device) if config.supernet.graphs else None  # graphs that run in turn can share memory
    execution = Execution(device, config.precision, config.accumulate, processes, pool)
    loss = make_loss(config.loss, supernet.classes, device, processes=processes)
    settings = config.optimizer
    weights = make_optimizer(supernet, supernet.weights(), settings, settings.name, options=settings.options)
    if config.method == "sampled" and settings.name == "sgd" and settings.momentum > 0:
        for parameter in supernet.weights():  # a fused step takes the buffers of all or of none
            weights.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    alpha, (beta1, beta2), logits = config.architecture, config.architecture.betas, supernet.architecture
    sgd = SgdConfig(alpha.lr, alpha.weight_decay, beta1)
    architecture = make_optimizer(logits, logits.parameters(), sgd, alpha.optimizer, beta2)
    penalty = architecture_penalty(config, supernet)
    return (
        Stepper("weight", supernet, weights, execution, loss, config.optimizer.clip),
        Stepper("architecture", supernet, architecture, execution, loss, penalty=penalty),
    )


def _plan(session: Session[SearchConfig, SearchState], halves: Halves, epoch: int, step: int) -> Iterator[list[Key]]:
    """The batches of the run from a step on: of trainA and, once alpha and beta learn, of trainB in turn."""
    config, size = session.config, session.config.images_per_update * session.processes.count
    for number in range(epoch, config.epochs):
        learns = config.method == "darts" and number >= config.architecture.start_epoch
        parts = halves if learns else halves[:1]
        plans = [epoch_batches(part, size, config.seed, number) for part in parts]
        for batches in islice(zip(*plans, strict=False), step if number == epoch else 0, session.steps_per_epoch):
            yield from batches


@contextmanager
def _history(session: Session[SearchConfig, SearchState]) -> Iterator[None]:
    """Draws the changes of path and cell when a search ends or is interrupted."""
    try:
        yield
    except InterruptedRun:
        if session.processes.first:
            show_history(session.run)
        raise
    if session.processes.first:
        show_history(session.run)


def _headline(session: Session[SearchConfig, SearchState], space: SearchSpace, halves: Halves) -> str:
    config = session.config
    how = f"alpha and beta from epoch {config.architecture.start_epoch + 1}"
    if config.method == "sampled":
        how = "one random network a step"
    return (
        f"searching {space.name} (layers {space.layers}, levels {space.levels}, blocks {space.blocks}, filter "
        f"multiplier {space.filter_multiplier}, {counted(len(space.operations), 'operation')}) on {config.data}: "
        f"{len(halves[0])} + {counted(len(halves[1]), 'training image')}, {len(session.validation)} for validation, "
        f"{session.classes} classes; {counted(config.epochs, 'epoch')} on {session.device}, {how}; "
        f"run folder {session.folder}"
    )


def _next(session: Session[SearchConfig, SearchState]) -> str:
    """The command that follows a search."""
    return (
        f"next: nas-rank {session.folder}, which trains it and random networks alike, or nas-retrain {session.folder}"
    )


def _provenance(session: Session[SearchConfig, SearchState], state: SearchState) -> dict[str, Any]:
    known = {"seed": session.config.seed, "epoch": state.epoch}
    miou = {"supernet_val_miou": state.last_miou, "supernet_val_mean_over": state.mean_over}
    return data_provenance(session.config, session.data) | known | miou


def resolve_space(config: SearchConfig) -> SearchSpace:
    """The search space of the settings: the named one, with the numbers that the settings give."""
    return dataclasses.replace(load(config.space), **config.space_changes())  # type: ignore[arg-type]


def check_levels(space: SearchSpace, config: SearchConfig) -> None:
    """Refuses levels that are coarser than a training crop, or that no path reaches.

    Raises:
        ValueError: There are such levels; the message gives the largest number that works.
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
