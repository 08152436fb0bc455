"""The DeepLab-style network of a genotype: stem, the cells along the path, ASPP, decoder.

Shapes: N images, C channels, H x W pixels of the image; h_l x w_l pixels at level l, each level half the one before,
rounded up. A level's size is computed once from the stem's output, and tensors are resized to it: no size need be
divisible by anything.

Source: Auto-DeepLab (Liu et al., 2019), sections 3.2 and 5.2, and the authors' network code.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from retrain.networks.base import FeatureInfo, SegmentationNetwork, freeze_unread
from retrain.networks.blocks import ASPP, AtrousBranch, Decoder, Stem, aspp_rates, stem_layout
from retrain.networks.settings import DeepLabSettings
from retrain.networks.walk import Called, Part, Step, Walk
from search_spaces.genotype import Genotype
from search_spaces.lateral_inhibition import lateral_inhibition
from search_spaces.modules import BatchNorm, resize, strided
from search_spaces.published import auto_deeplab
from search_spaces.smoothing import SmoothedConv2d, window_arguments
from search_spaces.space import SearchSpace

__all__ = ["DeepLab", "DeepLabWalk", "published"]

BACKBONE_EPS, HEAD_EPS = 1e-3, 1e-5
DEFAULT_MOMENTUM = 0.0003


class DeepLabState(NamedTuple):
    """State of the walk of a DeepLab-style network."""

    before: FeatureInfo
    """H^{l-2}; at the start, `before` and `last` are the outputs of the stem's last two convolutions."""
    last: FeatureInfo
    """H^{l-1}."""
    level: int
    low: FeatureInfo | None
    """The decoder's low-level feature: the last cell of the path's leading run at level 0 (cell 3 of the published
    path, the authors' Cell_2); None: the path is still in that run. Where the path does not start there, or never
    leaves it (the last cell feeds the ASPP already), the stem's output takes its place."""


class DeepLabWalk(Walk[DeepLabState]):
    """Walk of `DeepLab`."""

    def __init__(self, space: SearchSpace, classes: int, config: DeepLabSettings) -> None:
        norm = partial(BatchNorm, momentum=config.batch_norm_momentum or DEFAULT_MOMENTUM)
        super().__init__(space, classes, config, partial(norm, eps=BACKBONE_EPS))
        self.config, self.head_norm = config, partial(norm, eps=HEAD_EPS)
        (before, _), (last, stride) = stem_layout(config.stem_channels, space.stem.stride)[-2:]
        self.stem_output = FeatureInfo(last, space.stem.stride)
        self.start = DeepLabState(FeatureInfo(before, space.stem.stride // stride), self.stem_output, 0, None)

    def step(self, state: DeepLabState, level: int) -> Step[DeepLabState]:
        low = state.last if state.low is None and level != 0 else state.low
        after = DeepLabState(state.last, self.feature(level), level, low)
        return Step(after, state.before, state.last, 2 if level > state.level else 1)

    def end(self, state: DeepLabState) -> tuple[Part, ...]:
        low = state.low or self.stem_output

        def build() -> nn.Module:
            aspp, decoder = self.head(state)
            return Called(lambda x, low, size: resize(decoder(aspp(F.relu(x)), low), size), aspp, decoder)

        head = self.part(("head", state.last, low), build, state.last, low, self.image.stride)
        return self.part("stem", self.stem, self.image), head

    def stem(self) -> Stem:
        return Stem(self.config.stem_channels, self.space.stem.stride, self.batch_norm, self.image.channels)

    def head(self, state: DeepLabState) -> tuple[ASPP, Decoder]:
        """Builds the parts after the last layer."""
        config, (channels, stride) = self.config, state.last
        branches = []
        for rate in aspp_rates(stride):
            convolution = SmoothedConv2d(
                channels,
                config.aspp_channels,
                rate=rate,
                smoothing=config.smoothing,
                **window_arguments(config.smoothing, self.settings),
            )
            branches.append(AtrousBranch(convolution, self.head_norm))
        inhibition = partial(lateral_inhibition, settings=self.settings) if config.aspp == "li" else None
        aspp = ASPP(channels, config.aspp_channels, branches, config.dropout, self.head_norm, inhibition)
        decoder = Decoder(
            config.aspp_channels,
            (state.low or self.stem_output).channels,
            config.low_level_channels,
            config.decoder_channels,
            self.classes,
            self.head_norm,
        )
        return aspp, decoder


class DeepLab(SegmentationNetwork):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any genotype and any H and W of at least 1.

    Args:
        genotype: Cell and path.
        classes: Number of classes.
        config: Widths, regularisation, lateral inhibition and smoothing of the ASPP; None: the defaults. The space's
            settings of operations replace those that are None.

    Attributes:
        feature_info: Channels and stride of each cell's output, in the order of `features`.
        low_level_layer: Layer whose output is the decoder's low-level feature; 0: the stem.

    Raises:
        ValueError: `classes` is below 1.
    """

    head = ("aspp", "decoder")
    walk = DeepLabWalk

    def __init__(self, genotype: Genotype, classes: int, config: DeepLabSettings | None = None) -> None:
        config = config or DeepLabSettings()
        super().__init__(classes, config.image_channels)
        walk = self.walk(genotype.space, classes, config)
        self.levels = genotype.levels
        self.stem = walk.stem()
        self.cells = nn.ModuleList()
        self.feature_info: list[FeatureInfo] = []
        leading = 0
        for step, cell in walk.cells(genotype):
            self.cells.append(cell)
            self.feature_info.append(step.state.last)
            leading += step.state.low is None
        self.low_level_layer = leading if leading < len(self.levels) else 0
        self.aspp, self.decoder = walk.head(step.state)
        freeze_unread(self, genotype)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the cells' outputs "cell1" ... "cellL", each (N, B * F * 2**l, h_l, w_l)."""
        cells = self._backbone(x)[2:]
        return {f"cell{layer}": cell for layer, cell in enumerate(cells, start=1)}

    def logits(self, x: Tensor) -> Tensor:
        outputs = self._backbone(x)
        low = outputs[1 + self.low_level_layer]
        return self.decoder(self.aspp(F.relu(outputs[-1])), low)

    def _backbone(self, x: Tensor) -> list[Tensor]:
        """The stem's last two outputs, then each cell's; all before a ReLU."""
        outputs = list(self.stem(x))
        sizes = [(outputs[-1].shape[-2], outputs[-1].shape[-1])]  # of level 0, 1, ...
        for _ in range(max(self.levels)):
            sizes.append(strided(sizes[-1], 2))
        previous = 0
        for cell, level in zip(self.cells, self.levels, strict=True):
            outputs.append(cell(outputs[-2], outputs[-1], sizes[min(previous, level)]))
            previous = level
        return outputs


def published(classes: int, config: DeepLabSettings, filter_multiplier: int) -> DeepLab:
    """Builds the paper's network, at `filter_multiplier` where `config` has none."""
    multiplier = config.filter_multiplier or filter_multiplier
    return DeepLab(auto_deeplab(), classes, dataclasses.replace(config, filter_multiplier=multiplier))
