"""The network that a genotype is retrained as: stem, the cells along the path, ASPP, decoder.

Shapes: N images, C channels, H x W pixels of the image; h_l x w_l pixels at level l, each level half the one before,
rounded up. A level's size is computed once from the stem's output, and tensors are resized to it: no size need be
divisible by anything.

Source: Auto-DeepLab (Liu et al., 2019), sections 3.2 and 5.2, and the authors' network code.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from retrain.config import NetworkConfig
from retrain.networks.blocks import ASPP, Decoder, DropPath, Stem
from retrain.networks.cell import Cell, drop_path_keep
from search_spaces.genotype import Genotype
from search_spaces.modules import BatchNorm, resize

__all__ = ["DeepLab", "FeatureInfo", "low_level_layer"]

DEFAULT_FILTER_MULTIPLIER = 20
BACKBONE_EPS, HEAD_EPS = 1e-3, 1e-5


class FeatureInfo(NamedTuple):
    """What is known of a feature before it is computed."""

    channels: int
    """Channels of the tensor."""
    stride: int
    """In pixels of the image."""


def low_level_layer(levels: tuple[int, ...]) -> int:
    """Layer whose output is the decoder's low-level feature, for the path's levels; 0 is the stem.

    It is the last cell of the path's leading run at level 0: cell 3 (the authors' Cell_2) for the published path. Where
    the path does not start there, or never leaves it (the last cell feeds the ASPP already), it is the stem.
    """
    return next((layer for layer, level in enumerate(levels) if level != 0), 0)


class DeepLab(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any genotype and any H and W of at least 1.

    Args:
        genotype: Cell and path.
        classes: Number of classes.
        config: Widths and regularisation; None: the defaults.

    Attributes:
        feature_info: Channels and stride of each cell's output, in the order of `features`.

    Raises:
        ValueError: `classes` is below 1.
    """

    def __init__(self, genotype: Genotype, classes: int, config: NetworkConfig | None = None) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"a network for {classes} classes cannot be built: give at least 1")
        config = config or NetworkConfig()
        space, levels = genotype.space, genotype.levels
        multiplier = config.filter_multiplier or DEFAULT_FILTER_MULTIPLIER
        backbone_norm = partial(BatchNorm, eps=BACKBONE_EPS, momentum=config.batch_norm_momentum)
        head_norm = partial(BatchNorm, eps=HEAD_EPS, momentum=config.batch_norm_momentum)

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
            )
            self.cells.append(cell)
            self.feature_info.append(FeatureInfo(cell.channels, space.strides[level]))
            before, last, previous = last, cell.channels, level
            if layer == self.low_level_layer:
                low_level_channels = cell.channels
        self.aspp = ASPP(last, config.aspp_channels, space.strides[levels[-1]], config.dropout, head_norm)
        self.decoder = Decoder(
            config.aspp_channels,
            low_level_channels,
            config.low_level_channels,
            config.decoder_channels,
            classes,
            head_norm,
        )
        self._freeze_unread(genotype)

    def set_progress(self, fraction: float) -> None:
        """Tells the drop path schedule which fraction of training is done, 0 (nothing is dropped) to 1.

        Raises:
            ValueError: `fraction` is not in that range.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress {fraction} is not a fraction of training: give a number from 0 to 1")
        for module in self.modules():
            if isinstance(module, DropPath):
                module.progress.fill_(fraction)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the cells' outputs "cell1" ... "cellL", each (N, B * F * 2**l, h_l, w_l)."""
        cells = self._backbone(x)[2:]
        return {f"cell{layer}": cell for layer, cell in enumerate(cells, start=1)}

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes, H, W).

        Raises:
            ValueError: The images have a wrong shape, or there is only one while training.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"the network got a tensor of shape {list(x.shape)}: give images (N, 3, H, W)")
        if self.training and x.shape[0] == 1:
            raise ValueError(
                "training needs at least 2 images in a batch: the batch norm behind image pooling has one value per "
                "image and channel. Raise the batch size, drop a last batch of one, or call eval()"
            )
        outputs = self._backbone(x)
        low = outputs[1 + self.low_level_layer]
        logits = self.decoder(self.aspp(F.relu(outputs[-1])), low)
        return resize(logits, (x.shape[-2], x.shape[-1]))  # (N, classes, H, W)

    def _backbone(self, x: Tensor) -> list[Tensor]:
        """The stem's last two outputs, then each cell's; all before a ReLU."""
        outputs = list(self.stem(x))
        sizes = [(outputs[-1].shape[-2], outputs[-1].shape[-1])]  # of level 0, 1, ...
        for _ in range(max(self.levels)):
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))
        previous = 0
        for cell, level in zip(self.cells, self.levels, strict=True):
            outputs.append(cell(outputs[-2], outputs[-1], sizes[min(previous, level)]))
            previous = level
        return outputs

    def _freeze_unread(self, genotype: Genotype) -> None:
        """Freezes what no output depends on, for a cell that reads only one of its inputs.

        Such weights never get a gradient: optimisers and distributed training shall not wait for one.
        """
        read = {name for block in genotype.cell for name in block.inputs}
        steps = [step for name, step in (("l-1", 1), ("l-2", 2)) if name in read]
        producers = [self.stem.layers[-2], self.stem.layers[-1], *self.cells]  # as in the list of `_backbone`
        needed = [False] * len(producers)
        needed[-1] = needed[1 + self.low_level_layer] = True
        for number in range(len(producers) - 1, 1, -1):
            if needed[number]:
                for step in steps:
                    needed[number - step] = True
        needed[0] = needed[0] or needed[1]  # the stem's convolutions follow each other
        for producer, is_needed in zip(producers, needed, strict=True):
            if not is_needed:
                producer.requires_grad_(False)
