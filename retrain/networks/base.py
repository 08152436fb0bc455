"""Base class of all networks: checks the images, and resizes the logits to their size.

Shapes: N images of H x W pixels; h x w at the network's own output stride.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nas.evaluation.cost import to_meta
from retrain.networks.blocks import DropPath
from search_spaces.genotype import CELL_INPUTS, Genotype
from search_spaces.modules import BatchNorm, resize

__all__ = ["FeatureInfo", "SegmentationNetwork", "freeze_batch_norm", "freeze_unread"]


class FeatureInfo(NamedTuple):
    """Channels of a feature, and its stride in pixels of the image."""

    channels: int
    stride: int


class SegmentationNetwork(nn.Module):
    """(N, channels, H, W) -> logits (N, classes, H, W), for any H and W of at least 1.

    A network implements `logits`; it may have `features(x)`, a dict of tensors, with `feature_info` for each of them.
    """

    head: ClassVar[tuple[str, ...]] = ()
    """Children that start from scratch when the others are pretrained, with their own learning rate if asked for."""

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"a network for {classes} classes cannot be built: give at least 1")
        self.classes, self.channels = classes, channels

    def logits(self, x: Tensor) -> Tensor:
        """Maps images (N, channels, H, W) to logits at the network's own stride, (N, classes, h, w)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, channels, H, W) to logits (N, classes, H, W).

        Raises:
            ValueError: The images have a wrong shape, or there is only one while training.
        """
        if x.dim() != 4 or x.shape[1] != self.channels:
            wanted = f"give images (N, {self.channels}, H, W)"
            raise ValueError(f"the network got a tensor of shape {list(x.shape)}: {wanted}")
        if self.training and x.shape[0] == 1:
            raise ValueError(
                "training needs at least 2 images in a batch: the batch norm after image pooling has one value per "
                "image and channel. Raise the batch size, drop a last batch of one, or call eval()"
            )
        return resize(self.logits(x), (x.shape[-2], x.shape[-1]))

    def set_progress(self, fraction: float) -> None:
        """Sets the fraction of training that is done for scheduled drop path, 0 (nothing is dropped) to 1.

        Raises:
            ValueError: `fraction` is not in that range.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress {fraction} is not a fraction of training: give a number from 0 to 1")
        for module in self.modules():
            if isinstance(module, DropPath):
                module.progress.fill_(fraction)


def freeze_batch_norm(network: nn.Module) -> None:
    """Keeps the statistics, scales and shifts of all batch norms as they are, in training too."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.freeze()


def freeze_unread(network: SegmentationNetwork, genotype: Genotype) -> None:
    """Freezes the parameters on which no output depends, as in a cell that reads only one of its inputs.

    They never get a gradient, and optimisers and distributed training must not wait for one. Autograd finds them, on
    tensors without memory. Where the genotype's cell reads both of its inputs there are none.
    """
    if set(CELL_INPUTS) <= {name for block in genotype.cell for name in block.inputs}:
        return
    twin = to_meta(network)
    parameters = list(twin.parameters())
    output = twin(torch.empty(2, network.channels, 64, 64, device="meta"))
    gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
