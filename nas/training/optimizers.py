"""The registry of optimisers; learning rates and weight decay per parameter, and projections after a step.

A loop takes steps and sets one learning rate; everything else is arranged here once. Parameters that are treated alike
share a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.config import Decay, SgdConfig, named_options
from search_spaces.extensions import HINT
from search_spaces.module_protocols import Projected, Stacking, project, undecayed
from search_spaces.registry import Registry
from search_spaces.validation import Settings

__all__ = [
    "FUSED",
    "OPTIMIZERS",
    "OptimizerRecord",
    "convolution_weights",
    "cosine",
    "load_optimizer_state",
    "make_optimizer",
    "multiplier",
    "optimizer_state",
    "poly",
    "register_optimizer",
]

BETA2 = 0.999
"""Decay of Adam's second moment, if the settings give none."""
FUSED = True
"""Compute a step for all parameters in one call, on CPUs and NVIDIA GPUs; equal to the others to rounding. On a CPU it
is three times as fast as one call each and needs no memory for intermediate results, as `foreach` does; on a GPU the
host can have a step skipped without waiting."""
HOW = ("foreach", "fused", "capturable", "differentiable")
"""Keys of a group that say how it is computed: not saved, so that a run may resume with others."""
Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class OptimizerRecord:
    """An optimiser of the registry."""

    build: Callable[..., torch.optim.Optimizer]
    """`build(groups, betas, **options)`: groups of parameters with their lr and weight_decay; decay of the first moment
    (SGD's momentum) and of the second."""
    states: Callable[[float], int]
    """Decay of the first moment -> numbers kept for each number of a parameter."""
    options: type | None = None
    """A dataclass of the fields of `optimizer.options`; None: there are none."""


OPTIMIZERS: Registry[OptimizerRecord] = Registry("optimiser", HINT)


def register_optimizer(
    name: str, *, states: Callable[[float], int], options: type | None = None
) -> Callable[[Callable[..., torch.optim.Optimizer]], Callable[..., torch.optim.Optimizer]]:
    """Decorator that registers a function that builds an optimiser, for `optimizer.name`; see `OptimizerRecord`.

    Raises:
        ValueError: The name is taken.
    """

    def register(build: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        OPTIMIZERS.register(name, OptimizerRecord(build, states, options))
        return build

    return register


@register_optimizer("sgd", states=lambda momentum: 1 if momentum else 0)
def _sgd(groups: Groups, betas: tuple[float, float]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=betas[0], fused=FUSED)


@dataclass(frozen=True)
class AdamOptions(Settings):
    """Options of Adam."""

    eps: float = 1e-8
    """Added to the root of the second moment, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("eps", above=0)


@register_optimizer("adam", states=lambda _: 2, options=AdamOptions)
def _adam(groups: Groups, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, betas=betas, eps=eps, fused=FUSED)


def convolution_weights(network: nn.Module, depthwise: bool = True) -> list[Tensor]:
    """The weights (no biases) of all convolutions and transposed convolutions, with or without depthwise ones."""
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    return [m.weight for m in convolutions if depthwise or not 1 < m.groups == m.in_channels]


def make_optimizer(
    network: nn.Module,
    parameters: Iterable[nn.Parameter],
    config: SgdConfig,
    name: str = "sgd",
    beta2: float = BETA2,
    decay: Decay = "all",
    multipliers: Mapping[Tensor, float] | None = None,
    options: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """Builds the optimiser of (some of) a network's parameters.

    After each of its steps the constrained parameters of the network are projected (see
    `search_spaces.module_protocols`). Parameters that a module names as undecayed never decay, whatever `decay` is.

    Args:
        network: The network that has the parameters.
        parameters: The parameters to train, in a fixed order.
        config: Learning rate, momentum (Adam's beta1), weight decay (an L2 penalty, for Adam too).
        name: One of `OPTIMIZERS`.
        beta2: Decay of the second moment, if the optimiser has one.
        decay: Which weights decay.
        multipliers: Factor on the learning rate of a parameter, where it is not 1; saved with the optimiser's state, as
            `lr_multiplier` of the parameter's group.
        options: The optimiser's own settings, in place of their defaults.

    Raises:
        ValueError: There is no such optimiser, or it has no such option.
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
    groups: Groups = [
        {"params": members, "lr": config.lr * factor, "lr_multiplier": factor, "weight_decay": weight_decay}
        for (factor, weight_decay), members in alike.items()
    ]
    record = OPTIMIZERS[name]
    arguments = named_options("optimizer.options", options or {}, record.options)
    optimizer = record.build(groups, (config.momentum, beta2), **arguments)
    if any(isinstance(module, Projected) for module in network.modules()):
        optimizer.register_step_post_hook(lambda *_: project(network))
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Any]:
    """The state of an optimiser by parameter name, in plain containers.

    If a module stacks several parameters in one tensor (`search_spaces.module_protocols.Stacking`), as the fast
    engine's nodes do, each of them has its own state, under the name of the separate parameter.
    """
    stacked = _stacked(network)
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    state: dict[str, dict[str, Any]] = {}
    for parameter, values in optimizer.state.items():
        own = names[parameter]
        apart, how = stacked.get(own, ([own], None))
        for key, value in values.items():
            parts = [value] * len(apart)
            if how is not None and torch.is_tensor(value) and value.shape == parameter.shape:
                parts = how.separate(value)
            for name, part in zip(apart, parts, strict=True):
                state.setdefault(name, {})[key] = part
    saved = [{key: group[key] for key in group if key not in ("params", *HOW)} for group in optimizer.param_groups]
    return {"by_name": state, "groups": saved}


def load_optimizer_state(optimizer: torch.optim.Optimizer, network: nn.Module, state: Mapping[str, Any]) -> None:
    """Restores the result of `optimizer_state`, of this network or of one that stacks its parameters otherwise.

    Raises:
        ValueError: The state belongs to other parameters.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    stacked = _stacked(network)
    indices: dict[int, Tensor] = {}
    numbered = optimizer.state_dict()
    for group, saved, own in zip(numbered["param_groups"], state["groups"], optimizer.param_groups, strict=True):
        group.update((key, value) for key, value in saved.items() if key not in HOW)
        indices.update(zip(group["params"], own["params"], strict=True))
    for index, parameter in indices.items():
        apart, how = stacked.get(names[parameter], ([names[parameter]], None))
        values = [state["by_name"].get(name) for name in apart]
        if values[0] is None:
            continue  # no step was taken yet
        found: dict[str, Any] = {}
        for key, first in values[0].items():
            joins = how is not None and torch.is_tensor(first) and first.shape == how.shape
            found[key] = how.join([value[key] for value in values]) if joins else first
            if torch.is_tensor(found[key]) and found[key].shape == parameter.shape:
                # In the parameter's memory format: a fused step reads both linearly.
                found[key] = torch.empty_like(parameter).copy_(found[key])
        numbered["state"][index] = found
    optimizer.load_state_dict(numbered)
    _check_shapes(optimizer, names)


def _check_shapes(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> None:
    """Checks the state's shapes: a fused step would read memory by the parameter's size."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if torch.is_tensor(value) and value.shape != parameter.shape and value.numel() != 1:
                raise ValueError(
                    f"the checkpoint's {key} of {names[parameter]} has shape {list(value.shape)}, the parameter "
                    f"{list(parameter.shape)}: it is of another network"
                )


def _stacked(network: nn.Module) -> dict[str, tuple[list[str], Any]]:
    """(separate names, layout of the stack) of every stacked tensor, by its name."""
    return {
        f"{path}.{name}": ([f"{path}.{apart}" for apart in names], how)
        for path, module in network.named_modules()
        if isinstance(module, Stacking)
        for name, names, how in module.stacked_tensors()
    }


def multiplier(group: Mapping[str, Any]) -> float:
    """The factor on a group's learning rate; 1 if the group was made elsewhere."""
    return group.get("lr_multiplier", 1.0)


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` down to `end` (Loshchilov and Hutter, 2017, Eq. 5, one period)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def poly(progress: float, start: float, power: float = 0.9) -> float:
    """start * (1 - progress) ** power, the schedule of the DeepLab papers."""
    return start * (1 - progress) ** power
