"""Choosing a genotype by what networks do with the weights of a supernet, and the draws that train such a supernet.

One-shot search with sampled single paths (Guo et al., "Single path one-shot neural architecture search with uniform
sampling", ECCV 2020): each step trains the weights of one random network; then networks are measured with these
weights, batch-norm statistics estimated for each, and the best is taken. Strict fairness is that of FairNAS (Chu et
al., ICCV 2021): within a round, every operation of an edge is trained once. There, the gradients of a round make one
update, on one batch; here, each network of a round makes its own, on its own batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decoders.candidates import Relaxed, best_candidates
from decoders.costs import CostTable
from nas.config import DataChanged, SampledConfig
from nas.data.loading import evaluation_loader
from nas.data.splits import training_split
from nas.diagnostics.discretization import forced_matrix, part_batches
from nas.supernet.loading import load_supernet
from nas.supernet.penalties import architecture_cost
from nas.training.progress import StepProgress
from search_spaces.genotype import Block, Genotype, state_names
from search_spaces.graph import random_genotype
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace
from search_spaces.validation import counted, require

__all__ = ["Measured", "decode_by_supernet", "drawn_network", "drawn_networks", "evolved", "pareto"]

OUTSIDE = -1.0
"""In place of the mIoU of a network beyond the limits, which is not measured."""

_STEP, _CANDIDATES = 5, 6  # last words of a generator's seed; `nas.supernet.alpha_sampling` has 4


def drawn_network(space: SearchSpace, config: SampledConfig, seed: int, step: int) -> Genotype:
    """The network that a step of a run, counted from 0, trains: a pure function of the arguments."""
    operations = [name for name in space.operations if name != NONE]
    drawn, turn = divmod(step, len(operations) if config.fairness == "strict" else 1)
    rng, ends = np.random.default_rng([seed, drawn, _STEP]), space.node_levels(space.layers)
    end = ends[int(rng.integers(len(ends)))] if config.ends == "levels" else None
    genotype = random_genotype(space, rng, end)
    # In its turn of a round, an edge has the operation at that place of its own random order.
    orders = [[rng.permutation(len(operations)) for _ in block.inputs] for block in genotype.cell]
    cell = [
        Block(block.inputs, (operations[first[turn]], operations[second[turn]]))
        for block, (first, second) in zip(genotype.cell, orders, strict=True)
    ]
    return dataclasses.replace(genotype, cell=tuple(cell), provenance={})


def drawn_networks(space: SearchSpace, count: int, seed: int) -> list[Genotype]:
    """Up to `count` different networks, drawn uniformly; fewer in a space that has hardly more."""
    rng, found = np.random.default_rng([seed, _CANDIDATES]), dict[Any, Genotype]()
    for _ in range(10 * count):
        genotype = random_genotype(space, rng)
        found.setdefault((genotype.cell, genotype.path), genotype)
        if len(found) == count:
            break
    return list(found.values())


class Measured(NamedTuple):
    """A network, what it does with the supernet's weights, and what it costs."""

    genotype: Genotype
    miou: float
    """On the validation images, 0 to 1."""
    costs: Mapping[str, float]
    """By name."""


def evolved(
    space: SearchSpace, evaluations: int, seed: int, measure: Callable[[Genotype], Measured], cost: str
) -> list[Measured]:
    """Networks of an evolution by NSGA-II (Deb et al., 2002; Optuna's): high mIoU, low `cost`.

    It makes `evaluations` networks; one that it makes again is neither measured nor returned again.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[Any, Measured] = {}

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        genotype = _suggested(space, trial)
        key = genotype.cell, genotype.path
        if key not in found:
            found[key] = measure(genotype)
        return found[key].miou, found[key].costs[cost]

    sampler = optuna.samplers.NSGAIISampler(population_size=max(4, min(50, evaluations // 5)), seed=seed)
    optuna.create_study(directions=["maximize", "minimize"], sampler=sampler).optimize(objective, evaluations)
    return list(found.values())


def _suggested(space: SearchSpace, trial: Any) -> Genotype:
    """The network of a trial: a step (finer, same, coarser; cut to the trellis) a layer; inputs, operations a block."""
    states, operations = state_names(space.blocks), [name for name in space.operations if name != NONE]
    level, levels, cell = 0, [], []
    for layer in range(space.layers):
        step, targets = trial.suggest_categorical(f"layer{layer + 1}", (-1, 0, 1)), space.transitions(layer, level)
        level = min(max(level + step, targets[0]), targets[-1])
        levels.append(level)
    for block in range(space.blocks):
        pairs = ["+".join(pair) for pair in combinations(states[: 2 + block], 2)]
        first, second = trial.suggest_categorical(f"inputs{block + 1}", pairs).split("+")
        names = [trial.suggest_categorical(f"block{block + 1}_{side}", operations) for side in ("first", "second")]
        cell.append(Block((first, second), (names[0], names[1])))
    return Genotype(space, tuple(cell), tuple(space.strides[level] for level in levels))


def pareto(measured: Iterable[Measured], cost: str) -> list[Measured]:
    """The networks that no other beats in both mIoU and this cost, the best first."""
    front: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.costs[cost], -one.miou)):
        if not front or one.miou > front[-1].miou:
            front.append(one)
    return front[::-1]


def decode_by_supernet(
    folder: str | Path,
    top: int = 50,
    evolve: int = 0,
    table: CostTable | None = None,
    limits: Mapping[str, int] | None = None,
    cost: str = "multiply_adds",
    images: int | None = None,
    device: str = "auto",
    data_root: str | None = None,
    quiet: bool = False,
    data_changed: DataChanged = "refuse",
) -> list[Measured]:
    """Measures networks with the weights of a search's supernet on its validation split; returns the best first.

    Batch-norm statistics are estimated for each network, on `health.gap_batches` (at least 1) batches of trainB. The
    other arguments are those of `load_supernet`.

    Args:
        folder: The run folder, of either method.
        top: Networks to measure: the most probable by alpha and beta, or random ones of a search by sampled paths.
        evolve: Networks of an evolution to measure in their place (see `evolved`); the Pareto front is returned.
        table: Costs of networks; None: those of the candidate operations alone.
        limits: Inclusive limits by the names of the table.
        cost: One of the table's names: the cost of the front, which the evolution lowers.
        images: Validation images, evenly spread; None: as many as the run had.
        quiet: Show no progress.

    Raises:
        ValueError: The run, its data or the device cannot be used, or no measured network is within the limits.
    """
    run = load_supernet(folder, images, device, data_root, "plain", data_changed)
    config, supernet, space, bounds = run.config, run.supernet, run.supernet.space, dict(limits or {})
    few = max(1, config.health.gap_batches)
    batches = list(part_batches(config, training_split(config), run.halves[1], 0, config.loader.batch_size, few))
    operations, genotypes = architecture_cost(config, supernet), list[Genotype]()
    if config.method == "sampled":
        genotypes = drawn_networks(space, top, config.seed)
    elif not evolve:
        own = run.decoded()
        relaxed = Relaxed(own.alpha, own.beta, space.operations, own.edge_weights)  # type: ignore[arg-type]
        for one in best_candidates(relaxed, top, table, bounds):
            path = tuple(space.strides[level] for level in one.levels)
            genotypes.append(dataclasses.replace(own, cell=one.cell, path=path))
    total = evolve or len(genotypes)
    with (
        StepProgress(total, quiet=quiet) as progress,
        evaluation_loader(run.validation, 0, 2, run.device.type == "cuda") as whole_images,
    ):
        rest = batches, whole_images, supernet.classes, run.device, config.precision

        def measure(genotype: Genotype) -> Measured:
            costs = {cost: operations.decoded(genotype)}
            if table is not None:
                costs = dict(zip(table.names, table.cost(genotype.cell, genotype.levels), strict=True))
            within = all(costs[name] <= bound for name, bound in bounds.items())
            miou = forced_matrix(supernet, genotype, *rest).mean_iou() if within else OUTSIDE
            progress.step("networks")
            return Measured(genotype, miou, costs)

        measured = evolved(space, evolve, config.seed, measure, cost) if evolve else list(map(measure, genotypes))
    measured = [one for one in measured if one.miou != OUTSIDE]
    require(bool(measured), f"none of {counted(total, 'network')} is within the limits: raise them, or measure more")
    known = run.decoded(decoded_by="supernet", images=len(run.validation), networks=len(measured)).provenance
    found = pareto(measured, cost) if evolve else sorted(measured, key=lambda one: -one.miou)
    return [
        one._replace(genotype=dataclasses.replace(one.genotype, provenance={**known, "forced_miou": one.miou}))
        for one in found
    ]
