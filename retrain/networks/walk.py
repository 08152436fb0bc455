"""The walk along a path: the cell at each layer of a searched network, and the parts before and after the cells.

A layer is determined by the state of the walk (where its last two features come from) and by the level that it goes to.
A network follows the walk along its genotype's path and builds its parts; the table of costs visits all states that any
path may reach, and measures each part once. The walk of a kind of network is in its module.

Shapes: one image of H x W pixels; at stride s a feature has ceil(H / s) x ceil(W / s).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn

from retrain.networks.base import FeatureInfo, freeze_batch_norm
from retrain.networks.cell import Cell, drop_path_keep
from retrain.networks.settings import DEFAULT_FILTER_MULTIPLIER, CellSettings
from search_spaces.genotype import CELL_INPUTS, Block, Genotype
from search_spaces.modules import BatchNormFactory
from search_spaces.operations import NONE, OPERATIONS
from search_spaces.space import SearchSpace

__all__ = ["Called", "Part", "State", "Step", "Walk"]


class State(Protocol):
    """State of a walk: everything that the next layers depend on."""

    @property
    def level(self) -> int: ...


S = TypeVar("S", bound=State)


class Part(NamedTuple):
    """A part of a network and its arguments; parts with the same key are alike."""

    key: Hashable
    build: Callable[[], nn.Module]
    arguments: tuple[FeatureInfo | int | list[int], ...]
    """A feature is a tensor, a number is the size (height, width) at this stride, a list is a list of sizes."""


class Step(NamedTuple, Generic[S]):
    """A layer: the inputs of its cell, and the parts between it and the layer before."""

    state: S
    """State after the layer."""
    before: FeatureInfo
    """H^{l-2}."""
    last: FeatureInfo
    """H^{l-1}."""
    stride: int
    """Stride of the cell, 1 or 2."""
    parts: tuple[Part, ...] = ()
    """Parts in front of the cell."""

    @property
    def place(self) -> int:
        """Index of the cell's kind: 2 * level, plus 1 where the cell halves its inputs."""
        return 2 * self.state.level + self.stride - 1


class Called(nn.Module):
    """Modules and the function that calls them, as one part."""

    def __init__(self, function: Callable[..., Tensor], *children: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(children)

    def forward(self, *arguments: Any) -> Tensor:
        return self.function(*arguments)


class _Strided(nn.Module):
    """A stand-in for an operation with the same output size and no work."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


class Walk(Generic[S]):
    """Base class of the walks, one for each kind of network.

    Args:
        space: The space of the genotypes.
        classes: Number of classes.
        config: Settings of the networks; the space's settings of operations replace those that are None.
        batch_norm: Factory for the batch norms of cells.
    """

    start: S
    """State in front of the first layer."""
    image: FeatureInfo
    """Input of the networks."""

    def __init__(self, space: SearchSpace, classes: int, config: CellSettings, batch_norm: BatchNormFactory) -> None:
        self.space, self.classes, self.frozen, self.batch_norm = space, classes, config.frozen_batch_norm, batch_norm
        self.settings = config.operation_settings(space.settings)
        self.image = FeatureInfo(config.image_channels, 1)
        self.multiplier = config.filter_multiplier or DEFAULT_FILTER_MULTIPLIER
        self.keep = config.drop_path_keep

    def step(self, state: S, level: int) -> Step[S]:
        """Returns the layer at `level` after a state."""
        raise NotImplementedError

    def end(self, state: S) -> tuple[Part, ...]:
        """Returns the parts after the last layer, and the stem where it is the same for all paths."""
        raise NotImplementedError

    def cells(self, genotype: Genotype) -> Iterator[tuple[Step[S], Cell]]:
        """Builds the cells along a genotype's path."""
        state, layers = self.start, len(genotype.levels)
        for layer, level in enumerate(genotype.levels, start=1):
            step = self.step(state, level)
            yield step, self.cell(step, genotype.cell, drop_path_keep(layer, layers, self.keep))
            state = step.state

    def cell(self, step: Step[S], blocks: Sequence[Block], keep: float = 1.0) -> Cell:
        """Builds the cell of a layer; `keep` as in `Cell`."""
        channels = self.multiplier * 2**step.state.level
        before, last = step.before.channels, step.last.channels
        return Cell(blocks, before, last, channels, step.stride, keep, self.batch_norm, self.settings)

    def feature(self, level: int) -> FeatureInfo:
        """Returns the output of a cell."""
        return FeatureInfo(self.space.blocks * self.multiplier * 2**level, self.space.strides[level])

    def frame(self, step: Step[S]) -> Part:
        """Returns the cell of a layer without its operations: projections, resizing, sums and concatenation."""
        blocks = (Block(CELL_INPUTS, (NONE, NONE)),) * self.space.blocks

        def build() -> nn.Module:
            cell = self.cell(step, blocks)
            cell.operations = nn.ModuleList(nn.ModuleList(_Strided(step.stride) for _ in range(2)) for _ in blocks)
            return cell

        key, stride = ("cell", step.before, step.last, step.place), self.space.strides[step.state.level] // step.stride
        return self.part(key, build, step.before, step.last, stride)

    def operation(self, name: str, reads_input: bool, place: int) -> Part:
        """Returns an operation of a cell."""
        level, halves = divmod(place, 2)
        stride = 2 if halves and reads_input else 1
        channels = self.multiplier * 2**level

        def build() -> nn.Module:
            return OPERATIONS[name].build(channels, stride, self.batch_norm, self.settings)

        feature = FeatureInfo(channels, self.space.strides[level] // stride)
        return self.part(("operation", name, stride, level), build, feature)

    def part(self, key: Hashable, build: Callable[[], nn.Module], *arguments: FeatureInfo | int | list[int]) -> Part:
        """Returns a part in eval mode, frozen as `build` freezes a network."""

        def built() -> nn.Module:
            module = build().eval()
            if self.frozen:
                freeze_batch_norm(module)
            return module

        return Part(key, built, arguments)
