"""Choosing a genotype by what networks do with the weights of a supernet, and the draws that train such a supernet.

One-shot search with sampled single paths (Guo et al., "Single path one-shot neural architecture search with uniform
sampling", ECCV 2020, sections 3.2 and 3.3): each step trains the weights of one random network; then networks are
measured with these weights, batch-norm statistics estimated for each, and the best is taken. Strict fairness is that of
FairNAS (Chu et al., ICCV 2021, section 3.2): within a round, every operation of an edge is trained once. There, the
gradients of a round make one update, on one batch; here, each network of a round makes its own, on its own batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from nas.config import SampledConfig
from search_spaces.genotype import Block, Genotype, state_names
from search_spaces.graph import random_genotype
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace

__all__ = ["Measure", "Measured", "drawn_network", "drawn_networks", "evolved", "pareto"]

_STEP, _CANDIDATES = 5, 6  # last words of a generator's seed; `nas.supernet.alpha_sampling` has 4


def drawn_network(space: SearchSpace, config: SampledConfig, seed: int, step: int) -> Genotype:
    """The network that a step trains, a pure function of the arguments.

    Args:
        space: The search space.
        config: How it is drawn.
        seed: The run's.
        step: Number of the step in the run, from 0.
    """
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
    cost: float


Measure = Callable[[Genotype], Measured]


def evolved(space: SearchSpace, evaluations: int, seed: int, measure: Measure) -> list[Measured]:
    """Networks of an evolution by NSGA-II (Deb et al., 2002; Optuna's): high mIoU, low cost; each network once.

    Args:
        space: The search space.
        evaluations: Networks that the evolution makes; those that it makes again are not measured again.
        seed: Of its draws.
        measure: Measures a network.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[Any, Measured] = {}

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        genotype = _suggested(space, trial)
        key = genotype.cell, genotype.path
        if key not in found:
            found[key] = measure(genotype)
        return found[key].miou, found[key].cost

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


def pareto(measured: Iterable[Measured]) -> list[Measured]:
    """The networks that no other beats in both mIoU and cost, the best first."""
    front: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.cost, -one.miou)):
        if not front or one.miou > front[-1].miou:
            front.append(one)
    return front[::-1]
