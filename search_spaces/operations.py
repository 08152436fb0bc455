"""Candidate operations of a cell: the registry and its records. The modules are in `modules.py`.

This file does not import torch: a space is described, validated, counted and drawn without it. A record's `build`
imports the module when it is called. Operations from outside the package are registered in the same way: see
docs/extending.md.

Sources: Auto-DeepLab (Liu et al., 2019), section 3.1, and the authors' network code, which says what "separable" and
"atrous" mean there; DARTS (Liu et al., 2019) for the dilated depthwise-separable operations; the papers named in
`lateral_inhibition.py`, `smoothing.py` and `factorized.py` for the operations that are built there.
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
"""Name of the operation that means "no connection": it has a probability, is never computed and never decoded."""

DEFAULTS = OperationSettings()


@dataclass(frozen=True)
class Cost:
    """What an operation, a cell or a network costs for one image."""

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
    """One candidate operation: all that the rest of the toolkit knows of it.

    Raises:
        ValueError: A field cannot be; the message names it and what to give.
    """

    name: str
    """In spaces and genotypes: letters, digits and underscores."""
    build: Build
    """`build(channels, stride, batch_norm, settings)` -> module that maps `channels` to `channels`; its forward takes
    the tensor and `source`, the number of the tensor's origin, by which batch norms choose their running statistics."""
    has_weights: bool
    """Whether it has trainable weights at stride 1."""
    cost: CostFunction
    """`cost(channels, height, width, stride)`: input size in pixels; settings as by default; affine batch norms are
    counted."""
    label: str
    """Short name, for pictures and tables: at most 11 characters."""
    color: str
    """Colour in pictures, `#RRGGBB`: one hue a family, safe for colour-blind readers (Okabe and Ito's palette)."""
    ends_in: str | None = None
    """How the search batches it: the path of the batch norm that ends its module at stride 1, where all that the module
    does treats channels alike or is done by children that `nas.supernet.engine.batched_modules` knows. The modules of
    many edges are then computed as one. None: they are computed one by one (those without weights, once for all)."""

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
"""What a box in the picture of a cell has room for."""

OPERATIONS: Registry[Operation] = Registry("candidate operation", HINT)

Builder = TypeVar("Builder", bound=Build)


def register_operation(
    name: str, *, label: str, color: str, cost: CostFunction, has_weights: bool = True, ends_in: str | None = None
) -> Callable[[Builder], Builder]:
    """Decorates what builds an operation's module, a class or a function, so that spaces can name the operation.

    Args:
        name: In spaces and genotypes.
        label: As all below, see `Operation`.
        color: See there.
        cost: See there.
        has_weights: See there.
        ends_in: See there.

    Raises:
        ValueError: The name is taken, or a field cannot be.
    """

    def register(build: Builder) -> Builder:
        OPERATIONS.register(name, Operation(name, _with_settings(build), has_weights, cost, label, color, ends_in))
        return build

    return register


def _with_settings(build: Any) -> Build:
    """What is built without `settings` need not name them."""
    if not callable(build):
        return build  # refused by its record
    try:
        signature(build).bind("channels", "stride", "batch_norm", "settings")
        return build
    except TypeError:  # one argument too many
        pass

    def without(
        channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS
    ) -> nn.Module:
        return build(channels, stride, batch_norm)

    return without


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
    """Registers the class at `where`, "module:class" in this package; it is imported when one is built.

    It is given those of the arguments of `Build` that `takes` names, and `arguments`.
    """

    @register_operation(name, label=label, color=color, cost=cost, has_weights=has_weights, ends_in=ends_in)
    def build(
        channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS
    ) -> nn.Module:
        given = {"channels": channels, "stride": stride, "batch_norm": batch_norm, "settings": settings}
        return resolve_name(f"search_spaces.{where}")(**{key: given[key] for key in takes.split()}, **arguments)


def _pixels(height: int, width: int, stride: int) -> int:
    return -(-height // stride) * -(-width // stride)


def _separable_cost(kernel: int, times: int) -> CostFunction:
    def cost(channels: int, height: int, width: int, stride: int) -> Cost:
        weights = kernel * kernel * channels + channels * channels
        return Cost(times * (weights + 2 * channels), times * weights * _pixels(height, width, stride))

    return cost


def _atrous_cost(kernel: int) -> CostFunction:
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


def _inhibited(cost: CostFunction, strided_before: bool) -> CostFunction:
    """Cost of an operation with a 3x3 lateral inhibition in front, at the input's size or at the output's."""

    def inhibited(channels: int, height: int, width: int, stride: int) -> Cost:
        pixels = _pixels(height, width, stride if strided_before else 1)
        return cost(channels, height, width, stride) + Cost(channels, 9 * channels * pixels)

    return inhibited


def _smoothed(cost: CostFunction, learned: int) -> CostFunction:
    """Cost of an operation with a 3x3 filter, of which so many numbers are learned, in front at stride 1."""

    def smoothed(channels: int, height: int, width: int, stride: int) -> Cost:
        filtering = Cost(learned, 9 * channels * height * width) if stride == 1 else Cost()
        return cost(channels, height, width, stride) + filtering

    return smoothed


def _factorized_cost(channels: int, height: int, width: int, stride: int) -> Cost:
    weights = 2 * 3 * channels * channels
    return Cost(weights + 3 * channels, weights * _pixels(height, width, stride))  # a PReLU and a batch norm


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
    cost=_factorized_cost,
    where="factorized:FactorizedAtrousConvolution",
    ends_in="batch_norm",
)


@register_operation("fpl", label="fpl", color=FACTORIZED, cost=_fpl_cost, ends_in="batch_norm")
def _fpl(channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS) -> nn.Module:
    from search_spaces import factorized

    return factorized.FactorizedPyramid(
        channels, channels, batch_norm, stride, settings.fpl_rates, settings.fpl_fusion, pre_activation=True
    )
