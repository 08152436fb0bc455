"""Candidate operations of a cell: the registry and its records. The modules are in `modules.py`.

This file does not import torch: a space is described, validated, counted and drawn without it. A record's `build`
imports the module when it is called.

Sources: Auto-DeepLab (Liu et al., 2019), section 3.1, and the authors' network code, which says what "separable" and
"atrous" mean there; DARTS (Liu et al., 2019) for the dilated depthwise-separable operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from search_spaces.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.modules import BatchNormFactory

__all__ = ["NONE", "OPERATIONS", "Cost", "Operation"]

NONE = "none"
"""Name of the operation that means "no connection": it has a probability, is never computed and never decoded."""


@dataclass(frozen=True)
class Cost:
    """What an operation, a cell or a network costs for one image."""

    parameters: int = 0
    """Trainable parameters."""
    multiply_adds: int = 0
    """Multiply-adds of its convolutions."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


class Build(Protocol):
    """Builds the module (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""

    def __call__(self, channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module: ...


@dataclass(frozen=True)
class Operation:
    """One candidate operation: all that the rest of the toolkit knows of it."""

    name: str
    build: Build
    """`build(channels, stride, batch_norm)` -> module that maps `channels` to `channels`; its forward takes the tensor
    and `source`, the number of the tensor's origin, by which batch norms choose their running statistics."""
    has_weights: bool
    """Whether it has trainable weights at stride 1."""
    cost: Callable[[int, int, int, int], Cost]
    """`cost(channels, height, width, stride)`: input size in pixels; affine batch norms are counted."""
    label: str
    """Short name, for pictures and tables."""
    color: str
    """Colour in pictures: one hue a family, safe for colour-blind readers (Okabe and Ito's palette)."""


OPERATIONS: Registry[Operation] = Registry("candidate operation")


def _register(
    name: str, label: str, color: str, has_weights: bool, cost: Callable[[int, int, int, int], Cost]
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        OPERATIONS.register(name, Operation(name, build, has_weights, cost, label, color))
        return build

    return add


def _pixels(height: int, width: int, stride: int) -> int:
    return -(-height // stride) * -(-width // stride)


def _separable_cost(kernel: int, times: int) -> Callable[[int, int, int, int], Cost]:
    def cost(channels: int, height: int, width: int, stride: int) -> Cost:
        weights = kernel * kernel * channels + channels * channels
        return Cost(times * (weights + 2 * channels), times * weights * _pixels(height, width, stride))

    return cost


def _atrous_cost(kernel: int) -> Callable[[int, int, int, int], Cost]:
    def cost(channels: int, height: int, width: int, stride: int) -> Cost:
        weights = kernel * kernel * channels * channels
        return Cost(weights + 2 * channels, weights * _pixels(height, width, stride))

    return cost


def _skip_cost(channels: int, height: int, width: int, stride: int) -> Cost:
    if stride == 1:
        return Cost()
    weights = channels * channels
    return Cost(weights + 2 * channels, weights * _pixels(height, width, stride))


def _free(channels: int, height: int, width: int, stride: int) -> Cost:
    return Cost()


SEPARABLE, ATROUS, DILATED_SEPARABLE = "#0072B2", "#D55E00", "#E69F00"
POOLING, SKIP, NO_CONNECTION = "#009E73", "#999999", "#DDDDDD"


@_register(NONE, "none", NO_CONNECTION, False, _free)
def _none(channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module:
    from search_spaces import modules

    return modules.NoConnection(stride)


@_register("skip", "skip", SKIP, False, _skip_cost)
def _skip(channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module:
    from search_spaces import modules

    return modules.Skip(channels, stride, batch_norm)


@_register("max_pooling_3x3", "max 3x3", POOLING, False, _free)
def _max_pooling(channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module:
    from search_spaces import modules

    return modules.Pooling("max", 3, stride)


@_register("average_pooling_3x3", "avg 3x3", POOLING, False, _free)
def _average_pooling(channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module:
    from search_spaces import modules

    return modules.Pooling("average", 3, stride)


def _register_convolutions(kernel: int) -> None:
    size = f"{kernel}x{kernel}"

    @_register(f"separable_{size}", f"sep {size}", SEPARABLE, True, _separable_cost(kernel, times=2))
    def separable(channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module:
        from search_spaces import modules

        return modules.SeparableConvolution(channels, kernel, stride, batch_norm)

    @_register(f"atrous_{size}", f"atr {size}", ATROUS, True, _atrous_cost(kernel))
    def atrous(channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module:
        from search_spaces import modules

        return modules.AtrousConvolution(channels, kernel, stride, batch_norm)

    @_register(
        f"dilated_separable_{size}", f"dil sep {size}", DILATED_SEPARABLE, True, _separable_cost(kernel, times=1)
    )
    def dilated_separable(channels: int, stride: int, batch_norm: BatchNormFactory) -> nn.Module:
        from search_spaces import modules

        return modules.DilatedSeparableConvolution(channels, kernel, stride, batch_norm)


for _kernel in (3, 5):
    _register_convolutions(_kernel)
