"""The table of costs of a space: each distinct part of its networks is measured once.

Parameters and multiply-adds are those that `nas-describe` counts of the built network, to the digit. Latency is a
model: the parts' times on a device add up, which leaves out what two parts next to each other gain or lose.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch

from decoders.costs import CostTable, Kind, Step
from decoders.labels import Costs
from nas.cost import measure_call
from nas.latency import median_seconds
from retrain.network_config import NetworkConfig
from retrain.network_parts import DeepLabParts, FPLNetParts, Part, Parts, Shape
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace

__all__ = ["COUNTED", "LATENCY", "cost_table"]

COUNTED = ("multiply_adds", "parameters")
LATENCY = "microseconds"
PARTS: dict[str, type[Parts]] = {"deeplab": DeepLabParts, "fplnet": FPLNetParts}

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
        space: The space.
        classes: Number of classes.
        config: Of the networks.
        size: H, W of the image in pixels.
        latency: The device to time the parts on, for one image in float32; or what says how long each takes; None:
            latency is no cost of the table.

    Returns:
        Costs `multiply_adds`, `parameters` and, if asked for, `microseconds`.
    """
    parts = PARTS[config.kind](space, classes, config, size)
    known: dict[Hashable, Costs] = {}

    def cost(*of: Part) -> Costs:
        for part in of:
            if part.key not in known:
                known[part.key] = _measured(part, latency)
        return tuple(map(sum, zip(*(known[part.key] for part in of), strict=True)))

    numbers: dict[Any, int] = {parts.start: 0}
    states, steps = [parts.start], []
    for state in states:  # it grows as new ones are reached
        own = []
        for level in space.transitions(0, parts.level(state)):
            move = parts.move(state, level)
            if move.state not in numbers:
                numbers[move.state] = len(states)
                states.append(move.state)
            own.append(Step(numbers[move.state], move.place, cost(*move.parts)))
        steps.append(tuple(own))
    names = COUNTED if latency is None else (*COUNTED, LATENCY)
    nothing = (0,) * len(names)
    places = {step.place for own in steps for step in own}
    operations: dict[Kind, tuple[Costs, ...]] = {}
    for name in space.operations:
        for reads_input in (True, False) if name != NONE else ():
            operations[name, reads_input] = tuple(
                cost(parts.operation(name, reads_input, place)) if place in places else nothing
                for place in range(2 * space.levels)
            )
    ends = (nothing, *(cost(*parts.end(state)) for state in states[1:]))  # no path is empty: the first has no end
    return CostTable(names, tuple(map(parts.level, states)), tuple(steps), ends, operations)


def _measured(part: Part, latency: torch.device | Measure | None) -> Costs:
    with torch.device("meta"):
        cost = measure_call(part.build(), *_arguments(part, torch.device("meta")))
    counted = (cost.multiply_adds, cost.parameters)
    if latency is None:
        return counted
    if not isinstance(latency, torch.device):
        return (*counted, latency(part))
    with latency:
        module = part.build()
    return (*counted, round(1e6 * median_seconds(module, *_arguments(part, latency))))


def _arguments(part: Part, device: torch.device) -> list[Any]:
    return [torch.randn(1, *a, device=device) if isinstance(a, Shape) else a for a in part.arguments]
