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
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from search_spaces.extensions import HINT
from search_spaces.registry import Registry
from search_spaces.settings import OperationSettings
from search_spaces.validation import short

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.modules import BatchNormFactory

__all__ = ["NONE", "OPERATIONS", "Cost", "Operation", "register_operation"]

NONE = "none"
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


def _register_class(
    name: str,
    label: str,
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
    module, _, class_name = where.partition(":")

    @register_operation(name, label=label, color=color, cost=cost, has_weights=has_weights, ends_in=ends_in)
    def build(
        channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS
    ) -> nn.Module:
        given = {"channels": channels, "stride": stride, "batch_norm": batch_norm, "settings": settings}
        made = getattr(import_module(f"search_spaces.{module}"), class_name)
        return made(**{key: given[key] for key in takes.split()}, **arguments)


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
POOLING, SKIP, NO_CONNECTION = "#009E73", "#999999", "#DDDDDD"
INHIBITED, SMOOTHED, FACTORIZED = "#56B4E9", "#F0E442", "#CC79A7"
WITH_SETTINGS = "channels stride batch_norm settings"

_register_class(NONE, "none", NO_CONNECTION, _free, "modules:NoConnection", "stride", has_weights=False)
_register_class("skip", "skip", SKIP, _skip_cost, "modules:Skip", has_weights=False)
for _kind, _label in (("max", "max"), ("average", "avg")):
    _register_class(
        f"{_kind}_pooling_3x3",
        f"{_label} 3x3",
        POOLING,
        _free,
        "modules:Pooling",
        "stride",
        has_weights=False,
        kind=_kind,
        kernel=3,
    )
for _kernel in (3, 5):
    _size = f"{_kernel}x{_kernel}"
    for _name, _label, _color, _cost, _class, _last in (
        (
            "separable",
            "sep",
            SEPARABLE,
            _separable_cost(_kernel, times=2),
            "SeparableConvolution",
            "second.batch_norm",
        ),
        ("atrous", "atr", ATROUS, _atrous_cost(_kernel), "AtrousConvolution", "body.batch_norm"),
        (
            "dilated_separable",
            "dil sep",
            DILATED_SEPARABLE,
            _separable_cost(_kernel, times=1),
            "DilatedSeparableConvolution",
            "batch_norm",
        ),
    ):
        _register_class(
            f"{_name}_{_size}", f"{_label} {_size}", _color, _cost, f"modules:{_class}", ends_in=_last, kernel=_kernel
        )

for _name, _label, _cost, _class, _kernel, _last in (
    ("li_atrous_3x3", "li atr 3x3", _inhibited(_atrous_cost(3), True), "LIAtrousConvolution", 3, "body.batch_norm"),
    ("li_atrous_5x5", "li atr 5x5", _inhibited(_atrous_cost(5), True), "LIAtrousConvolution", 5, "body.batch_norm"),
    (
        "li_dilated_separable_3x3",
        "li dsep 3x3",
        _inhibited(_separable_cost(3, times=1), False),
        "LIDilatedSeparableConvolution",
        3,
        "batch_norm",
    ),
):
    _where = f"lateral_inhibition:{_class}"
    _register_class(_name, _label, INHIBITED, _cost, _where, WITH_SETTINGS, ends_in=_last, kernel=_kernel)

for _kind, _label, _learned in (
    ("average", "avg", 0),
    ("gaussian", "gau", 0),
    ("ss_conv", "ss", 9),
    ("aggregated", "agg", 13),
):
    _register_class(
        f"{_kind}_smoothed_atrous_3x3",
        f"{_label} atr 3x3",
        SMOOTHED,
        _smoothed(_atrous_cost(3), _learned),
        "smoothing:SmoothedAtrousConvolution",
        WITH_SETTINGS,
        ends_in="body.batch_norm",
        kernel=3,
        smoothing=_kind,
    )

_register_class(
    "factorized_atrous_3x3",
    "fac atr 3x3",
    FACTORIZED,
    _factorized_cost,
    "factorized:FactorizedAtrousConvolution",
    ends_in="batch_norm",
)


@register_operation("fpl", label="fpl", color=FACTORIZED, cost=_fpl_cost, ends_in="batch_norm")
def _fpl(channels: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings = DEFAULTS) -> nn.Module:
    from search_spaces import factorized

    return factorized.FactorizedPyramid(
        channels, channels, batch_norm, stride, settings.fpl_rates, settings.fpl_fusion, pre_activation=True
    )
