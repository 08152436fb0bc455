"""The optimiser of a network's weights: who learns at which rate, what decays, what is put back into its set.

A loop takes steps and sets one learning rate; all else that a parameter needs is arranged here, once. Parameters that
are treated alike share a group, so that a network in which all are alike has one group, as it always had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.config import Decay, OptimizerName, SgdConfig
from search_spaces.traits import Projected, project, undecayed

__all__ = ["convolution_weights", "make_optimizer", "multiplier"]

ADAM_BETA2, ADAM_EPS = 0.999, 1e-8


def convolution_weights(network: nn.Module, depthwise: bool = True) -> list[Tensor]:
    """The weights (no biases) of all convolutions and transposed convolutions.

    Args:
        network: Where to look.
        depthwise: Whether those count whose every filter reads one channel of several.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    return [m.weight for m in convolutions if depthwise or not 1 < m.groups == m.in_channels]


def make_optimizer(
    network: nn.Module,
    parameters: Iterable[nn.Parameter],
    config: SgdConfig,
    name: OptimizerName = "sgd",
    eps: float | None = None,
    decay: Decay = "all",
    multipliers: Mapping[Tensor, float] | None = None,
) -> torch.optim.Optimizer:
    """Builds the optimiser of (some of) a network's parameters.

    After each of its steps the constrained parameters of the network are projected (see `search_spaces.traits`), and
    what a module names as undecayed never decays, whatever `decay` says.

    Args:
        network: Whose parameters they are.
        parameters: Those to train, in a fixed order.
        config: Learning rate, momentum (Adam's beta1), weight decay (an L2 penalty, for Adam too).
        name: sgd or adam.
        eps: Adam's, added to the root of the second moment; None: 1e-8.
        decay: Which weights decay.
        multipliers: Factor on the learning rate of a parameter, where it is not 1; stored in the parameter's group as
            `lr_multiplier`, and so with the optimiser's state.
    """
    multipliers = multipliers or {}
    decayed: set[Tensor] = set(network.parameters())
    if decay != "all":
        decayed = set(convolution_weights(network, depthwise=decay == "convolutions"))
    decayed -= set(undecayed(network))
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        key = (multipliers.get(parameter, 1.0), config.weight_decay if parameter in decayed else 0.0)
        alike.setdefault(key, []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": members, "lr": config.lr * factor, "lr_multiplier": factor, "weight_decay": weight_decay}
        for (factor, weight_decay), members in alike.items()
    ]
    optimizer: torch.optim.Optimizer
    if name == "adam":
        optimizer = torch.optim.Adam(groups, betas=(config.momentum, ADAM_BETA2), eps=ADAM_EPS if eps is None else eps)
    else:
        optimizer = torch.optim.SGD(groups, momentum=config.momentum)
    if any(isinstance(module, Projected) for module in network.modules()):
        optimizer.register_step_post_hook(lambda *_: project(network))
    return optimizer


def multiplier(group: Mapping[str, Any]) -> float:
    """The factor on a group's learning rate; 1 in a group of another making, or of an older state."""
    return group.get("lr_multiplier", 1.0)
