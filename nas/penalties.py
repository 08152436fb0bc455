"""What the settings add to the architecture's loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from nas.config import SearchConfig
from nas.expected_cost import ExpectedCost
from nas.supernet import Supernet

__all__ = ["architecture_cost", "architecture_penalty"]


def architecture_cost(config: SearchConfig, supernet: Supernet) -> ExpectedCost:
    """The expected cost that the settings name, at the size of a training crop."""
    size = config.loader.augment.crop
    return ExpectedCost(supernet.space, supernet.architecture, config.architecture.cost, size)


def architecture_penalty(config: SearchConfig, supernet: Supernet) -> Callable[[], Tensor] | None:
    """Gives the sum of the penalties in force at a step, a scalar; None: there is none."""
    settings, relaxation = config.architecture, supernet.relaxation
    terms: list[Callable[[], Tensor]] = []
    if settings.entropy > 0 and relaxation is not None:
        terms.append(partial(relaxation.penalty, supernet.architecture.alpha))
    if settings.cost_weight > 0:
        cost = architecture_cost(config, supernet)
        terms.append(partial(cost.penalty, settings.cost_weight, settings.cost_target))
    return (lambda: torch.stack([term().double() for term in terms]).sum()) if terms else None
