"""The FPLNet-style network of a genotype: FPLNet's macro-structure around the searched cells.

Shapes: N images of H x W pixels; C channels; h_s x w_s pixels at stride s, each stride's size half the one before,
rounded up. Sizes are computed once from the image, and tensors are resized or cropped to them: no size need be
divisible by anything.

Sources: FPLNet (Atif et al., 2023), section III, for everything around the cells; Auto-DeepLab (Liu et al., 2019),
section 3, for cells and path.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from torch import Tensor, nn

from retrain.networks.base import FeatureInfo, SegmentationNetwork, freeze_unread
from retrain.networks.blocks import FUSIONS, FusionUnit, fused_channels, halve, stem_strides
from retrain.networks.cell import Cell
from retrain.networks.fplnet import (
    INITIAL_CHANNELS,
    InitialModule,
    SequentialDecoder,
    batch_norm_factory,
    module_factory,
)
from retrain.networks.settings import SearchedFPLNetSettings
from retrain.networks.walk import Called, Part, Step, Walk
from search_spaces.genotype import Genotype
from search_spaces.modules import resize
from search_spaces.space import SearchSpace

__all__ = ["FPLNetWalk", "SearchedFPLNet", "SearchedStage"]

INITIAL_CONVOLUTIONS = 3


class FPLNetState(NamedTuple):
    """State of the walk of an FPLNet-style network."""

    before: FeatureInfo
    """H^{l-2}; at the start, the image."""
    last: FeatureInfo
    """H^{l-1}."""
    level: int
    cells: int
    """Cells of the stage so far: 0 (at the start), 1, or 2 for more than one."""


class FPLNetWalk(Walk[FPLNetState]):
    """Walk of `SearchedFPLNet`."""

    def __init__(self, space: SearchSpace, classes: int, config: SearchedFPLNetSettings) -> None:
        super().__init__(space, classes, config, batch_norm_factory(config))
        self.start = FPLNetState(self.image, self.image, 0, 0)

    def step(self, state: FPLNetState, level: int) -> Step[FPLNetState]:
        own, (before, last, previous, cells) = self.space.strides[level], state
        parts: tuple[Part, ...] = ()
        if cells == 0:
            before = last = FeatureInfo(INITIAL_CHANNELS + self.image.channels, max(1, own // 2))
            parts = (self.part(("initial", last), lambda: self.initial(last.stride), self.image),)
        elif level != previous:
            last, parts, cells = self.closed(state), (self._unit(state),), 0
        after = FPLNetState(last, self.feature(level), level, min(cells + 1, 2))
        return Step(after, before, last, 2 if own > last.stride else 1, parts)

    def end(self, state: FPLNetState) -> tuple[Part, ...]:
        closed = self.closed(state)

        def build() -> nn.Module:
            decoder = self.decoder(state)
            return Called(lambda x, sizes, size: resize(decoder(x, sizes), size), decoder)

        finer = [2**number for number in range(closed.stride.bit_length() - 1)]
        return self._unit(state), self.part(("decoder", closed), build, closed, finer, self.image.stride)

    def closed(self, state: FPLNetState) -> FeatureInfo:
        """Returns the output of a stage that ends in a state; it replaces that of its last cell."""
        channels = fused_channels(self._fusion(state), state.last.channels, self.image.channels)
        return FeatureInfo(channels, state.last.stride)

    def initial(self, stride: int) -> InitialModule:
        """Builds the initial module of networks whose first cell reads this stride."""
        return InitialModule(stem_strides(stride, INITIAL_CONVOLUTIONS), self.batch_norm, self.image.channels)

    def unit(self, state: FPLNetState) -> FusionUnit:
        """Builds the unit that closes a stage."""
        return FusionUnit(self._fusion(state), state.last.channels, self.batch_norm, self.image.channels)

    def decoder(self, state: FPLNetState) -> SequentialDecoder:
        """Builds the parts after the last stage."""
        (channels, stride), module = self.closed(state), module_factory("fpl", self.batch_norm, self.settings)
        return SequentialDecoder(channels, stride, self.classes, module, self.batch_norm)

    def _fusion(self, state: FPLNetState) -> tuple[str, ...]:
        return FUSIONS["fir" if state.cells > 1 else "if"]  # one cell has one feature

    def _unit(self, state: FPLNetState) -> Part:
        cell, image = state.last, FeatureInfo(self.image.channels, state.last.stride)
        return self.part(("unit", self.closed(state)), lambda: self.unit(state), cell, cell, image)


class SearchedStage(nn.Module):
    """Cells at one resolution, in the order of the path, closed by a FIR unit. The first cell changes the resolution.

    A stage of one cell has one feature, to which its unit adds only the image.
    """

    def __init__(self, cells: Sequence[Cell], fusion: FusionUnit) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.fusion = fusion

    def forward(self, before: Tensor, last: Tensor, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns H^{l-2} and H^{l-1} for the next cell; the FIR unit's output replaces the last cell's.

        Args:
            before: H^{l-2} of the first cell, at any size.
            last: H^{l-1} of the first cell, at any size.
            image: (N, 3, h, w), at the stage's resolution.
            size: (H, W) to which the first cell resizes its inputs: the stage's own, or that of a finer stage before.
        """
        outputs = []
        for cell in self.cells:
            before, last = last, cell(before, last, size)
            outputs.append(last)
            size = (image.shape[-2], image.shape[-1])
        return before, self.fusion(outputs[0], outputs[-1], image)


class SearchedFPLNet(SegmentationNetwork):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any genotype and any H and W of at least 1.

    FPLNet's initial module at half the stride at which the path begins (its output is both inputs of the first cell);
    the cells along the path in stages, each a longest run of one resolution closed by a FIR unit; FPLNet's decoder.

    Args:
        genotype: Cell and path.
        classes: Number of classes.
        config: Widths and regularisation; None: the defaults. The space's settings of operations replace those that are
            None.

    Attributes:
        feature_info: Channels and stride of each stage's output, in the order of `features`.

    Raises:
        ValueError: `classes` is below 1.
    """

    head = ("decoder",)
    walk = FPLNetWalk

    def __init__(self, genotype: Genotype, classes: int, config: SearchedFPLNetSettings | None = None) -> None:
        config = config or SearchedFPLNetSettings()
        super().__init__(classes, config.image_channels)
        walk = self.walk(genotype.space, classes, config)
        first = walk.step(walk.start, genotype.levels[0]).last
        self.initial = walk.initial(first.stride)
        self.stages = nn.ModuleList()
        self.feature_info = [first]
        for _, run in groupby(walk.cells(genotype), key=lambda item: item[0].state.level):
            steps, cells = zip(*run, strict=True)
            state = steps[-1].state
            self.stages.append(SearchedStage(cells, walk.unit(state)))
            self.feature_info.append(walk.closed(state))
        self.halvings = [info.stride.bit_length() - 1 for info in self.feature_info]
        self.decoder = walk.decoder(state)
        freeze_unread(self, genotype)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the stages' outputs: "stage1", the initial module's, then those of cells."""
        return {f"stage{number}": output for number, output in enumerate(self._stages(x, self._images(x)), start=1)}

    def logits(self, x: Tensor) -> Tensor:
        images = self._images(x)
        return self.decoder(self._stages(x, images)[-1], [_size(image) for image in images[: self.halvings[-1]]])

    def _stages(self, x: Tensor, images: list[Tensor]) -> list[Tensor]:
        before = last = self.initial(x)
        outputs = [last]
        for stage, (previous, own) in zip(self.stages, pairwise(self.halvings), strict=True):
            before, last = stage(before, last, images[own], _size(images[min(previous, own)]))
            outputs.append(last)
        return outputs

    def _images(self, x: Tensor) -> list[Tensor]:
        """Returns the image at strides 1, 2, 4 and so on, up to the coarsest of the network."""
        images = [x]
        for _ in range(max(self.halvings)):
            images.append(halve(images[-1]))
        return images


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
