"""The parts that the networks of a space are made of, so that each can be measured once.

A network is a walk of cells between a stem and a head. What stands at a layer is settled by the state in which the walk
is (where its last two features come from) and by the level that it goes to; `DeepLabParts` and `FPLNetParts` say so for
the two networks that a genotype may become, and must build what `DeepLab` and `SearchedFPLNet` build. (They are held to
it by `tests/test_costs.py`: the sums equal what `nas-describe` counts.)

Shapes: one image of H x W pixels; at stride s a feature has ceil(H / s) x ceil(W / s).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from retrain.network_config import NetworkConfig
from retrain.networks.base import freeze_batch_norm
from retrain.networks.blocks import FUSIONS, IMAGE_CHANNELS, FusionUnit, stem_strides
from retrain.networks.cell import Cell
from retrain.networks.deeplab import DEFAULT_FILTER_MULTIPLIER, DeepLab
from retrain.networks.fplnet import (
    INITIAL_CHANNELS,
    InitialModule,
    SequentialDecoder,
    batch_norm_factory,
    module_factory,
)
from retrain.networks.searched_fplnet import INITIAL_CONVOLUTIONS
from search_spaces.genotype import CELL_INPUTS, Block, Genotype
from search_spaces.modules import BatchNorm, resize
from search_spaces.operations import NONE, OPERATIONS, SKIP
from search_spaces.settings import OperationSettings
from search_spaces.space import SearchSpace

__all__ = ["DeepLabParts", "FPLNetParts", "Part", "Parts", "Shape"]


class Shape(NamedTuple):
    """Of a tensor (1, channels, height, width)."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Part:
    """A part of a network and what it is called with; parts of the same key are alike."""

    key: Hashable
    build: Callable[[], nn.Module]
    arguments: tuple[Any, ...]
    """A `Shape` for each tensor, everything else as it is."""


class Move(NamedTuple):
    """What stands at a layer."""

    state: Hashable
    parts: tuple[Part, ...]
    place: int
    """2 * level, and 1 more where the cell halves its inputs."""


class _Strided(nn.Module):
    """In place of an operation: its output's size, and no work."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


class Parts:
    """What both kinds of network have in common.

    Args:
        space: The space.
        classes: Number of classes.
        config: Of the network.
        size: H, W in pixels.
    """

    start: Hashable

    def __init__(self, space: SearchSpace, classes: int, config: NetworkConfig, size: tuple[int, int]) -> None:
        self.space, self.classes, self.config, self.image = space, classes, config, Shape(3, *size)
        self.settings = config.operation_settings(space.settings)
        self.multiplier = config.filter_multiplier or DEFAULT_FILTER_MULTIPLIER
        self.batch_norm = BatchNorm

    def level(self, state: Any) -> int:
        """The level of a state."""
        raise NotImplementedError

    def move(self, state: Any, level: int) -> Move:
        """What stands at a layer at `level` behind a state."""
        raise NotImplementedError

    def end(self, state: Any) -> tuple[Part, ...]:
        """What stands behind the last layer; the stem, too, where it is the same for all paths."""
        raise NotImplementedError

    def operation(self, name: str, reads_input: bool, place: int) -> Part:
        """An operation of a cell."""
        level, halves = divmod(place, 2)
        stride = 2 if halves and reads_input else 1
        channels = self.multiplier * 2**level
        height, width = self.size(self.space.strides[level] // stride)

        def build() -> nn.Module:
            return OPERATIONS[name].build(channels, stride, BatchNorm, self.settings)

        return self.part(("operation", name, stride, level), build, Shape(channels, height, width))

    def cell(self, key: Hashable, before: Shape, last: Shape, level: int, stride: int) -> Part:
        """All of a cell but its operations: projections, resizing, sums and concatenation."""
        blocks = (Block(CELL_INPUTS, (NONE, NONE)),) * self.space.blocks

        def build() -> nn.Module:
            channels = self.multiplier * 2**level
            cell = Cell(blocks, before.channels, last.channels, channels, stride, 1, BatchNorm)
            cell.operations = nn.ModuleList(nn.ModuleList(_Strided(stride) for _ in range(2)) for _ in blocks)
            return cell

        return self.part(("cell", key), build, before, last, self.size(self.space.strides[level] // stride))

    def feature(self, level: int) -> Shape:
        """Of a cell's output."""
        return Shape(self.space.blocks * self.multiplier * 2**level, *self.size(self.space.strides[level]))

    def size(self, stride: int) -> tuple[int, int]:
        """Height and width at a stride."""
        return -(-self.image.height // stride), -(-self.image.width // stride)

    def part(self, key: Hashable, build: Callable[[], nn.Module], *arguments: Any) -> Part:
        """A part in eval mode, frozen as `build` freezes a network."""

        def built() -> nn.Module:
            module = build().eval()
            if self.config.frozen_batch_norm:
                freeze_batch_norm(module)
            return module

        return Part(key, built, arguments)


STEM_BEFORE, STEM = -2, -1
"""The features of the stem's last two convolutions; features of cells are named by their levels."""


class _Head(nn.Module):
    """ASPP, decoder, and logits at the image's size."""

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.aspp, self.decoder = network.aspp, network.decoder

    def forward(self, x: Tensor, low: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(self.decoder(self.aspp(F.relu(x)), low), size)


class _DeepLabState(NamedTuple):
    before: int
    last: int
    low: int | None
    """What the decoder reads: the stem, or the last cell of the leading run at level 0; None: still in this run."""


class DeepLabParts(Parts):
    """Of `retrain.networks.deeplab.DeepLab`."""

    start = _DeepLabState(STEM_BEFORE, STEM, None)

    def level(self, state: _DeepLabState) -> int:
        return max(state.last, 0)

    def move(self, state: _DeepLabState, level: int) -> Move:
        before, last, low = state
        previous = self.level(state)
        stride = 2 if level > previous else 1
        if low is None and level != 0:
            low = last  # the stem, or level 0
        cell = self.cell((before, last, level), self._feature(before), self._feature(last), level, stride)
        return Move(_DeepLabState(last, level, low), (cell,), 2 * level + stride - 1)

    def end(self, state: _DeepLabState) -> tuple[Part, ...]:
        low = STEM if state.low is None else state.low
        stem = self.part("stem", lambda: self._probe(0, STEM).stem, self.image)
        features = (self._feature(state.last), self._feature(low), self.image[1:])
        return stem, self.part(("head", state.last, low), lambda: _Head(self._probe(state.last, low)), *features)

    def _feature(self, name: int) -> Shape:
        if name >= 0:
            return self.feature(name)
        strides = stem_strides(self.space.stem.stride, len(self.config.stem_channels))
        channels = (self.config.stem_channels[0],) * len(strides) + self.config.stem_channels
        stride = self.space.stem.stride // (strides[-1] if name == STEM_BEFORE else 1)
        return Shape(channels[name], *self.size(stride))

    def _probe(self, last: int, low: int) -> DeepLab:
        """A network with the stem and the head of those whose path ends at a level, with that low-level feature."""
        path = (*([0] if low == 0 else []), *range(1, last + 1)) or (0,)
        if low == 0 and last == 0:
            path = (0, 1, 0)
        # The operations' settings are given by the space: a network refuses those that none of its operations reads.
        unset: dict[str, Any] = {f.name: None for f in dataclasses.fields(OperationSettings)}
        config = dataclasses.replace(self.config, **unset)
        space = dataclasses.replace(self.space, layers=len(path), operations=(SKIP,), settings=self.settings)
        cell = (Block(CELL_INPUTS, (SKIP, SKIP)),) * space.blocks
        return DeepLab(Genotype(space, cell, tuple(space.strides[level] for level in path)), self.classes, config)


class _FPLNetState(NamedTuple):
    before: tuple[str, int]
    last: tuple[str, int]
    several: bool
    """Whether there is more than one cell at this level by now."""


class _Decoder(nn.Module):
    """The decoder, and logits at the image's size."""

    def __init__(self, decoder: SequentialDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor, sizes: list[tuple[int, int]], size: tuple[int, int]) -> Tensor:
        return resize(self.decoder(x, sizes), size)


class FPLNetParts(Parts):
    """Of `retrain.networks.searched_fplnet.SearchedFPLNet`.

    Features are the initial module's, by its stride; those of cells, by level; and those of a stage of one cell (unit)
    or of several (units), by level.
    """

    start = None

    def __init__(self, space: SearchSpace, classes: int, config: NetworkConfig, size: tuple[int, int]) -> None:
        super().__init__(space, classes, config, size)
        self.batch_norm = batch_norm_factory(config)  # type: ignore[assignment]

    def level(self, state: _FPLNetState | None) -> int:
        return 0 if state is None else state.last[1]

    def move(self, state: _FPLNetState | None, level: int) -> Move:
        own = self.space.strides[level]
        if state is None:
            stride = max(1, own // 2)
            last = before = ("initial", stride)
            parts: tuple[Part, ...] = (self._initial(stride),)
        elif level == self.level(state):
            before, last, stride, parts = state.before, state.last, own, ()
        else:
            stride = self.space.strides[self.level(state)]
            before, last, parts = state.before, self._closed(state), (self._unit(state),)
        halves = own > stride
        cell = self.cell((before, last, level), self._feature(before), self._feature(last), level, 1 + halves)
        several = state is not None and level == self.level(state)
        return Move(_FPLNetState(last, ("cell", level), several), (*parts, cell), 2 * level + halves)

    def end(self, state: _FPLNetState | None) -> tuple[Part, ...]:
        assert state is not None  # there is at least one layer
        name = self._closed(state)
        stride = self.space.strides[state.last[1]]
        channels = self._feature(name).channels

        def build() -> nn.Module:
            module = module_factory(self.config, "fpl", self.space.settings)
            return _Decoder(SequentialDecoder(channels, stride, self.classes, module, self.batch_norm))

        halvings = stride.bit_length() - 1
        sizes = [self.size(2**number) for number in range(halvings)]
        decoder = self.part(("decoder", name), build, self._feature(name), sizes, self.image[1:])
        return self._unit(state), decoder

    def _initial(self, stride: int) -> Part:
        def build() -> nn.Module:
            return InitialModule(stem_strides(stride, INITIAL_CONVOLUTIONS), self.batch_norm)

        return self.part(("initial", stride), build, self.image)

    def _unit(self, state: _FPLNetState) -> Part:
        cell = self._feature(state.last)
        fusion = FUSIONS["fir" if state.several else "if"]
        image = Shape(IMAGE_CHANNELS, cell.height, cell.width)
        key = ("unit", self._closed(state))
        return self.part(key, lambda: FusionUnit(fusion, cell.channels, self.batch_norm), cell, cell, image)

    def _closed(self, state: _FPLNetState) -> tuple[str, int]:
        return ("units" if state.several else "unit", state.last[1])

    def _feature(self, name: tuple[str, int]) -> Shape:
        kind, number = name
        if kind == "initial":
            return Shape(INITIAL_CHANNELS + IMAGE_CHANNELS, *self.size(number))
        cell = self.feature(number)
        widths = {"cell": cell.channels, "unit": cell.channels, "units": 2 * cell.channels}
        return Shape(widths[kind] + IMAGE_CHANNELS * (kind != "cell"), cell.height, cell.width)
