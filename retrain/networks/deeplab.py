"""The network that a genotype is retrained as: stem, the cells along the path, ASPP, decoder.

Shapes: N images, C channels, H x W pixels of the image; h_l x w_l pixels at level l, each level half the one before,
rounded up. A level's size is computed once from the stem's output, and tensors are resized to it: no size need be
divisible by anything.

Source: Auto-DeepLab (Liu et al., 2019), sections 3.2 and 5.2, and the authors' network code.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from retrain.network_config import NetworkConfig
from retrain.networks.base import FeatureInfo, SegmentationNetwork, freeze_unread
from retrain.networks.blocks import ASPP, AtrousBranch, Decoder, Stem, aspp_rates
from retrain.networks.cell import Cell, drop_path_keep
from retrain.networks.operation_settings import check_operation_settings
from search_spaces.genotype import Genotype
from search_spaces.lateral_inhibition import lateral_inhibition
from search_spaces.modules import BatchNorm, strided
from search_spaces.smoothing import SmoothedConv2d, window_arguments

__all__ = ["DeepLab", "low_level_layer"]

DEFAULT_FILTER_MULTIPLIER = 20
BACKBONE_EPS, HEAD_EPS = 1e-3, 1e-5
DEFAULT_MOMENTUM = 0.0003


def low_level_layer(levels: tuple[int, ...]) -> int:
    """Layer whose output is the decoder's low-level feature, for the path's levels; 0 is the stem.

    It is the last cell of the path's leading run at level 0: cell 3 (the authors' Cell_2) for the published path. Where
    the path does not start there, or never leaves it (the last cell feeds the ASPP already), it is the stem.
    """
    return next((layer for layer, level in enumerate(levels) if level != 0), 0)


class DeepLab(SegmentationNetwork):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any genotype and any H and W of at least 1.

    Args:
        genotype: Cell and path.
        classes: Number of classes.
        config: Widths, regularisation, lateral inhibition and smoothing of the ASPP; None: the defaults. Settings of
            operations that are None are the space's.

    Attributes:
        feature_info: Channels and stride of each cell's output, in the order of `features`.

    Raises:
        ValueError: `classes` is below 1, or a setting is given of operations that there are none of.
    """

    head = ("aspp", "decoder")

    def __init__(self, genotype: Genotype, classes: int, config: NetworkConfig | None = None) -> None:
        super().__init__(classes)
        config = config or NetworkConfig()
        space, levels = genotype.space, genotype.levels
        multiplier = config.filter_multiplier or DEFAULT_FILTER_MULTIPLIER
        momentum = config.batch_norm_momentum or DEFAULT_MOMENTUM
        backbone_norm = partial(BatchNorm, eps=BACKBONE_EPS, momentum=momentum)
        head_norm = partial(BatchNorm, eps=HEAD_EPS, momentum=momentum)
        settings = config.operation_settings(space.settings)

        self.levels = levels
        self.low_level_layer = low_level_layer(levels)
        self.stem = Stem(config.stem_channels, space.stem.stride, backbone_norm)
        self.cells = nn.ModuleList()
        self.feature_info: list[FeatureInfo] = []
        before, last = self.stem.channels[-2:]
        low_level_channels, previous = last, 0
        for layer, level in enumerate(levels, start=1):
            cell = Cell(
                genotype.cell,
                before,
                last,
                multiplier * 2**level,
                stride=2 if level > previous else 1,
                keep=drop_path_keep(layer, len(levels), config.drop_path_keep),
                batch_norm=backbone_norm,
                settings=settings,
            )
            self.cells.append(cell)
            self.feature_info.append(FeatureInfo(cell.channels, space.strides[level]))
            before, last, previous = last, cell.channels, level
            if layer == self.low_level_layer:
                low_level_channels = cell.channels
        branches = []
        for rate in aspp_rates(space.strides[levels[-1]]):
            convolution = SmoothedConv2d(
                last,
                config.aspp_channels,
                rate=rate,
                smoothing=config.smoothing,
                **window_arguments(config.smoothing, settings),
            )
            branches.append(AtrousBranch(convolution, head_norm))
        inhibition = partial(lateral_inhibition, settings=settings) if config.aspp == "li" else None
        self.aspp = ASPP(last, config.aspp_channels, branches, config.dropout, head_norm, inhibition)
        self.decoder = Decoder(
            config.aspp_channels,
            low_level_channels,
            config.low_level_channels,
            config.decoder_channels,
            classes,
            head_norm,
        )
        check_operation_settings(config, self)
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
