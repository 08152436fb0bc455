"""Decoding a genotype's alpha and beta into several candidates, with the costs of their networks.

Each distinct part of a space's networks is measured once. Parameters and multiply-adds equal those that `nas-describe`
counts for the built network. Latency is a model: the times of the parts add up, without effects between neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch

from decoders import Candidate, Relaxed, best_candidates, pareto_front, redecode
from decoders.candidates import LimitError
from decoders.costs import Costs, CostTable, Kind, Step
from nas.evaluation.cost import measure_call, median_seconds, timed_on
from retrain.config import CandidateConfig
from retrain.networks.base import FeatureInfo
from retrain.networks.building import KINDS, build
from retrain.networks.settings import DEFAULT_FILTER_MULTIPLIER, NetworkConfig
from retrain.networks.walk import Part, Walk
from search_spaces.genotype import Genotype
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace

__all__ = ["COUNTED", "LATENCY", "Decoded", "cost_table", "decode_candidates"]


class Decoded(NamedTuple):
    """A candidate and its genotype, whose provenance has as `decoding` the settings, the probability and the costs."""

    candidate: Candidate
    genotype: Genotype


def decode_candidates(
    genotype: Genotype,
    config: CandidateConfig,
    network: NetworkConfig,
    classes: int,
    size: tuple[int, int],
    latency: torch.device | Measure | None = None,
) -> list[Decoded]:
    """Decodes alpha and beta into the requested candidates.

    Args:
        genotype: A genotype with alpha and beta; its cell and path are not read.
        config: Which candidates.
        network: Settings of their networks.
        classes: Number of classes.
        size: H, W of the image in pixels.
        latency: As for `cost_table`.

    Raises:
        ValueError: There is no alpha or beta, a setting of the network has no effect, nothing is within the limits
            (the message has the cheapest), or it would take too long.
    """
    greedy = redecode(genotype)
    with torch.device("meta"):
        build(greedy, classes, network)  # refuses settings that nothing reads
    assert greedy.alpha is not None and greedy.beta is not None  # or it could not be decoded
    relaxed = Relaxed(greedy.alpha, greedy.beta, greedy.space.operations, greedy.edge_weights)
    table = cost_table(greedy.space, classes, network, size, latency)
    vary = config.vary or "both"
    if config.pareto is not None:
        cost = LATENCY if config.pareto == "latency" else config.pareto
        candidates = pareto_front(relaxed, table, cost, vary)
    else:
        try:
            candidates = best_candidates(relaxed, config.top or 1, table, config.limits(), vary)
        except LimitError as error:
            smaller = f"a smaller --input than {size[0]}x{size[1]}, or "
            multiplier = network.filter_multiplier or DEFAULT_FILTER_MULTIPLIER
            raise ValueError(
                f"{error}, or give {'' if set(config.limits()) == {'parameters'} else smaller}a narrower network: "
                f"--network.filter-multiplier below {multiplier}, or other widths of stem and head (--network.*)"
            ) from None
    asked = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    asked.pop("candidate", None)
    if isinstance(latency, torch.device):
        asked["timed_on"] = timed_on(latency)
    decoded = []
    for number, candidate in enumerate(candidates, start=1):
        how: dict[str, Any] = {
            **asked,
            "candidate": number,
            "input": list(size),
            "classes": classes,
            "network": network.changed(),
            "log_probability": candidate.log_probability,
            **candidate.costs,
        }
        found = dataclasses.replace(
            greedy,
            cell=candidate.cell,
            path=tuple(greedy.space.strides[level] for level in candidate.levels),
            provenance={**greedy.provenance, "decoding": how},
        )
        decoded.append(Decoded(candidate, found))
    return decoded


COUNTED = ("multiply_adds", "parameters")
LATENCY = "microseconds"

Measure = Callable[[Part], int]
"""The latency of a part, in microseconds."""


def cost_table(
    space: SearchSpace,
    classes: int,
    config: NetworkConfig,
    size: tuple[int, int],
    latency: torch.device | Measure | None = None,
) -> CostTable:
    """Measures the parts of all networks that a decoding in `space` may become.

    Args:
        space: The search space.
        classes: Number of classes.
        config: Settings of the networks.
        size: H, W of the image in pixels.
        latency: Device on which to time the parts, for one image in float32, or a function that returns the latency of
            a part; None: the table has no latency.

    Returns:
        Costs `multiply_adds`, `parameters` and, unless `latency` is None, `microseconds`.
    """
    walk: Walk[Any] = KINDS[config.kind].load().walk(space, classes, config)
    known: dict[Hashable, Costs] = {}

    def cost(*of: Part) -> Costs:
        for part in of:
            if part.key not in known:
                known[part.key] = _measured(part, size, latency)
        return tuple(map(sum, zip(*(known[part.key] for part in of), strict=True)))

    numbers: dict[Any, int] = {walk.start: 0}
    states, steps = [walk.start], []
    for state in states:  # grows as new states are reached
        own = []
        for level in space.transitions(0, state.level):
            step = walk.step(state, level)
            if step.state not in numbers:
                numbers[step.state] = len(states)
                states.append(step.state)
            own.append(Step(numbers[step.state], step.place, cost(*step.parts, walk.frame(step))))
        steps.append(tuple(own))
    names = COUNTED if latency is None else (*COUNTED, LATENCY)
    nothing = (0,) * len(names)
    places = {step.place for own in steps for step in own}
    operations: dict[Kind, tuple[Costs, ...]] = {}
    for name in space.operations:
        for reads_input in (True, False) if name != NONE else ():
            operations[name, reads_input] = tuple(
                cost(walk.operation(name, reads_input, place)) if place in places else nothing
                for place in range(2 * space.levels)
            )
    ends = (nothing, *(cost(*walk.end(state)) for state in states[1:]))  # no path ends in the start
    return CostTable(names, tuple(state.level for state in states), tuple(steps), ends, operations)


def _measured(part: Part, size: tuple[int, int], latency: torch.device | Measure | None) -> Costs:
    with torch.device("meta"):
        cost = measure_call(part.build(), *_arguments(part, size))
    counted = (cost.multiply_adds, cost.parameters)
    if latency is None:
        return counted
    if not isinstance(latency, torch.device):
        return (*counted, latency(part))
    with latency:
        return (*counted, round(1e6 * median_seconds(part.build(), *_arguments(part, size))))


def _arguments(part: Part, size: tuple[int, int]) -> list[Any]:
    """Makes the arguments of a part for an image of this size, on the device of the context."""

    def at(stride: int) -> tuple[int, int]:
        return -(-size[0] // stride), -(-size[1] // stride)

    def argument(of: FeatureInfo | int | list[int]) -> Any:
        if isinstance(of, list):
            return [at(stride) for stride in of]
        return at(of) if isinstance(of, int) else torch.randn(1, of.channels, *at(of.stride))

    return list(map(argument, part.arguments))
