"""Candidate operations of a cell: the registry and its records. The modules are in `modules.py`.

This file does not import torch: spaces are described, validated, counted and drawn without it. A record's `build`
imports the module when it is called. docs/extending.md explains how to register operations outside the package.

Sources: Auto-DeepLab (Liu et al., 2019), section 3.1, and the authors' network code, which defines "separable" and
"atrous"; DARTS (Liu et al., 2019) for the dilated depthwise-separable operations; the papers named in
`lateral_inhibition.py`, `smoothing.py` and `factorized.py` for the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from search_spaces.extensions import HINT
from search_spaces.registry import Registry
from search_spaces.settings import OperationSettings
from search_spaces.validation import short

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.modules import BatchNormFactory

__all__ = ["NONE", "OPERATIONS", "SKIP", "Cost", "Operation", "register_operation"]

NONE, SKIP = "none", "skip"
"""`none` means "no connection": it has a probability, but is never computed and never decoded."""

DEFAULTS = OperationSettings()


@dataclass(frozen=True)
class Cost:
    """Cost of an operation, a cell or a network for one image."""

    parameters: int = 0
    """Trainable parameters."""
    multiply_adds: int = 0
    """Multiply-adds of its convolutions."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


CostFunction = Callable[[int, int, int, int], Cost]


class Build(Protocol):
    """Builds the module (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""

    def __call__(
        self, channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS
    ) -> nn.Module: ...


@dataclass(frozen=True)
class Operation:
    """Record of a candidate operation: all that the rest of the toolkit knows about it.

    Raises:
        ValueError: A field is wrong; the message names it and says what to give.
    """

    name: str
    """Name in spaces and genotypes: letters, digits and underscores."""
    build: Build
    """`build(channels, stride, batch_norm, settings)` -> module that maps `channels` to `channels`; its forward takes
    the tensor and `source`, the index of the tensor's origin, by which batch norms choose their running statistics."""
    has_weights: bool
    """Whether it has trainable weights at stride 1."""
    cost: CostFunction
    """`cost(channels, height, width, stride)` with the input size in pixels and the default settings; affine batch
    norms are counted."""
    label: str
    """Short name in pictures and tables: at most 11 characters."""
    color: str
    """Colour in pictures, `#RRGGBB`: one hue per family, safe for colour-blind readers (Okabe and Ito's palette)."""
    ends_in: str | None = None
    """Path of the batch norm that ends the module at stride 1: the search then computes the modules of many edges as
    one. The module must treat all channels alike, except in children that `nas.supernet.engine.batched_modules` knows.
    None: they are computed one by one (those without weights, once for all)."""

    def __post_init__(self) -> None:
        for field, expected, good in (
            ("name", "letters, digits and underscores, such as shift_3x3", str(self.name).isidentifier()),
            ("label", f"1 to {LABEL_LENGTH} characters", 1 <= len(str(self.label)) <= LABEL_LENGTH),
            ("color", "#RRGGBB, such as #009E73", re.fullmatch("#[0-9A-Fa-f]{6}", str(self.color))),
            ("has_weights", "True or False", isinstance(self.has_weights, bool)),
            ("cost", "a function of channels, height, width and stride", callable(self.cost)),
            ("build", "a class or a function of channels, stride, batch_norm and settings", callable(self.build)),
        ):
            if not good:
                value = getattr(self, field)
                raise ValueError(f"candidate operation {short(self.name)}: {field} is {short(value)}: give {expected}")


LABEL_LENGTH = 11
"""Characters that fit into a box of a cell's picture."""

OPERATIONS: Registry[Operation] = Registry("candidate operation", HINT)

Builder = TypeVar("Builder", bound=Build)


def register_operation(
    name: str, *, label: str, color: str, cost: CostFunction, has_weights: bool = True, ends_in: str | None = None
) -> Callable[[Builder], Builder]:
    """Registers the decorated class or function, which builds the module, as a candidate operation.

    The arguments are fields of `Operation`. `build` may take `settings` or not.

    Raises:
        ValueError: The name is taken, or a field is wrong.
    """

    def register(build: Builder) -> Builder:
        OPERATIONS.register(name, Operation(name, _with_settings(build), has_weights, cost, label, color, ends_in))
        return build

    return register


def _with_settings(build: Any) -> Build:
    """Adds the argument `settings` to a builder that does not take it."""
    if not callable(build):
        return build  # its record refuses it
    try:
        signature(build).bind("channels", "stride", "batch_norm", "settings")
        return build
    except TypeError:  # one argument too many
        return lambda channels, stride, batch_norm, settings=DEFAULTS: build(channels, stride, batch_norm)


def _register(
    name: str,
    label: str,
    *,
    color: str,
    cost: CostFunction,
    where: str,
    takes: str = "channels stride batch_norm",
    has_weights: bool = True,
    ends_in: str | None = None,
    **arguments: Any,
) -> None:
    """Registers the class at `where`, "module:class" in this package, which is imported when it is first built.

    The class is called with the arguments of `Build` that `takes` names, and with `arguments`.
    """

    @register_operation(name, label=label, color=color, cost=cost, has_weights=has_weights, ends_in=ends_in)
    def build(
        channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS
    ) -> nn.Module:
        given = {"channels": channels, "stride": stride, "batch_norm": batch_norm, "settings": settings}
        return resolve_name(f"search_spaces.{where}")(**{key: given[key] for key in takes.split()}, **arguments)


def _pixels(height: int, width: int, stride: int) -> int:
    return -(-height // stride) * -(-width // stride)


def _convolution_cost(dense: int, depthwise: int = 0, vectors: int = 2, times: int = 1) -> CostFunction:
    """Cost of convolutions at the output's size that are applied `times` times.

    For C channels: dense * C**2 + depthwise * C weights, and `vectors` * C parameters, such as scale and shift.
    """

    def cost(channels: int, height: int, width: int, stride: int) -> Cost:
        weights = times * (dense * channels + depthwise) * channels
        return Cost(weights + times * vectors * channels, weights * _pixels(height, width, stride))

    return cost


def _separable_cost(kernel: int, times: int) -> CostFunction:
    return _convolution_cost(1, kernel**2, times=times)


def _atrous_cost(kernel: int) -> CostFunction:
    return _convolution_cost(kernel**2)


def _skip_cost(channels: int, height: int, width: int, stride: int) -> Cost:
    return Cost() if stride == 1 else _convolution_cost(1)(channels, height, width, stride)


def _free(channels: int, height: int, width: int, stride: int) -> Cost:
    return Cost()


def _inhibited(cost: CostFunction, strided_before: bool) -> CostFunction:
    """Cost of an operation behind a 3x3 lateral inhibition at the output's size or at the input's."""

    def inhibited(channels: int, height: int, width: int, stride: int) -> Cost:
        pixels = _pixels(height, width, stride if strided_before else 1)
        return cost(channels, height, width, stride) + Cost(channels, 9 * channels * pixels)

    return inhibited


def _smoothed(cost: CostFunction, learned: int) -> CostFunction:
    """Cost of an operation behind a 3x3 filter at stride 1, which has `learned` parameters."""

    def smoothed(channels: int, height: int, width: int, stride: int) -> Cost:
        filtering = Cost(learned, 9 * channels * height * width) if stride == 1 else Cost()
        return cost(channels, height, width, stride) + filtering

    return smoothed


def _fpl_cost(channels: int, height: int, width: int, stride: int) -> Cost:
    branches = min(len(DEFAULTS.fpl_rates), channels)
    narrow, rest = divmod(channels, branches)  # `rest` branches are one channel wider
    entry = narrow + (rest > 0)
    reduce = channels * entry
    squares = rest * (narrow + 1) ** 2 + (branches - rest) * narrow**2
    pyramid = 9 * entry**2 + 3 * entry * channels + 3 * squares
    bias = entry if stride > 1 else 0
    multiply_adds = reduce * height * width + pyramid * _pixels(height, width, stride)
    return Cost(reduce + bias + pyramid + 3 * channels, multiply_adds)


SEPARABLE, ATROUS, DILATED_SEPARABLE = "#0072B2", "#D55E00", "#E69F00"
POOLING, IDENTITY, NO_CONNECTION = "#009E73", "#999999", "#DDDDDD"
INHIBITED, SMOOTHED, FACTORIZED = "#56B4E9", "#F0E442", "#CC79A7"
WITH_SETTINGS = "channels stride batch_norm settings"

_register(
    NONE, "none", color=NO_CONNECTION, cost=_free, where="modules:NoConnection", takes="stride", has_weights=False
)
_register(SKIP, "skip", color=IDENTITY, cost=_skip_cost, where="modules:Skip", has_weights=False)

_pooling = partial(_register, color=POOLING, cost=_free, where="modules:Pooling", takes="stride", has_weights=False)
_pooling("max_pooling_3x3", "max 3x3", kind="max", kernel=3)
_pooling("average_pooling_3x3", "avg 3x3", kind="average", kernel=3)

_separable = partial(_register, color=SEPARABLE, where="modules:SeparableConvolution", ends_in="second.batch_norm")
_atrous = partial(_register, color=ATROUS, where="modules:AtrousConvolution", ends_in="body.batch_norm")
_dilated = partial(
    _register, color=DILATED_SEPARABLE, where="modules:DilatedSeparableConvolution", ends_in="batch_norm"
)
_separable("separable_3x3", "sep 3x3", cost=_separable_cost(3, times=2), kernel=3)
_atrous("atrous_3x3", "atr 3x3", cost=_atrous_cost(3), kernel=3)
_dilated("dilated_separable_3x3", "dil sep 3x3", cost=_separable_cost(3, times=1), kernel=3)
_separable("separable_5x5", "sep 5x5", cost=_separable_cost(5, times=2), kernel=5)
_atrous("atrous_5x5", "atr 5x5", cost=_atrous_cost(5), kernel=5)
_dilated("dilated_separable_5x5", "dil sep 5x5", cost=_separable_cost(5, times=1), kernel=5)

_inhibition = partial(_register, color=INHIBITED, takes=WITH_SETTINGS)
_li_atrous = partial(_inhibition, where="lateral_inhibition:LIAtrousConvolution", ends_in="body.batch_norm")
_li_atrous("li_atrous_3x3", "li atr 3x3", cost=_inhibited(_atrous_cost(3), True), kernel=3)
_li_atrous("li_atrous_5x5", "li atr 5x5", cost=_inhibited(_atrous_cost(5), True), kernel=5)
_inhibition(
    "li_dilated_separable_3x3",
    "li dsep 3x3",
    cost=_inhibited(_separable_cost(3, times=1), False),
    where="lateral_inhibition:LIDilatedSeparableConvolution",
    ends_in="batch_norm",
    kernel=3,
)

_smooth = partial(
    _register,
    color=SMOOTHED,
    where="smoothing:SmoothedAtrousConvolution",
    takes=WITH_SETTINGS,
    ends_in="body.batch_norm",
    kernel=3,
)
_smooth("average_smoothed_atrous_3x3", "avg atr 3x3", cost=_smoothed(_atrous_cost(3), 0), smoothing="average")
_smooth("gaussian_smoothed_atrous_3x3", "gau atr 3x3", cost=_smoothed(_atrous_cost(3), 0), smoothing="gaussian")
_smooth("ss_conv_smoothed_atrous_3x3", "ss atr 3x3", cost=_smoothed(_atrous_cost(3), 9), smoothing="ss_conv")
_smooth("aggregated_smoothed_atrous_3x3", "agg atr 3x3", cost=_smoothed(_atrous_cost(3), 13), smoothing="aggregated")

_register(
    "factorized_atrous_3x3",
    "fac atr 3x3",
    color=FACTORIZED,
    cost=_convolution_cost(2 * 3, vectors=3),  # a PReLU's slope, a batch norm's scale and shift
    where="factorized:FactorizedAtrousConvolution",
    ends_in="batch_norm",
)


@register_operation("fpl", label="fpl", color=FACTORIZED, cost=_fpl_cost, ends_in="batch_norm")
def _fpl(channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS) -> nn.Module:
    from search_spaces import factorized

    return factorized.FactorizedPyramid(
        channels, channels, batch_norm, stride, settings.fpl_rates, settings.fpl_fusion, pre_activation=True
    )
