"""The parts around the cells: stem, ASPP, decoder; and scheduled drop path.

Shapes: N images, C channels, H x W pixels. No convolution in front of a batch norm has a bias.

Sources: Auto-DeepLab (Liu et al., 2019), section 5.2, and the authors' network code. ASPP: DeepLabv3 (Chen et al.,
2017), section 3.3. Decoder: DeepLabv3+ (Chen et al., 2018), section 3.1. Drop path: NASNet (Zoph et al., 2018).

Convolutions keep PyTorch's default initialisation, kaiming_uniform(a=sqrt(5)): uniform within 1 / sqrt(fan in), which
is the authors' variance_scaling(scale=1/3, FAN_IN, uniform). (In a depthwise kernel's fan-in TensorFlow counts all
channels; the batch norm behind it takes that scale out again.) Only the logits differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.modules import BatchNormFactory, ConvBatchNorm, resize

__all__ = ["ASPP", "ConvBatchNormRelu", "Decoder", "DropPath", "Stem", "stem_strides"]

ASPP_REACH = (96, 192, 288)
"""Reach of the atrous branches in pixels of the image: rates 12, 24, 36 at output stride 8."""


class ConvBatchNormRelu(ConvBatchNorm):
    """Convolution, batch norm, ReLU, with the arguments and shapes of `ConvBatchNorm`."""

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return F.relu(super().forward(x, source))


def stem_strides(total: int, convolutions: int) -> tuple[int, ...]:
    """Strides, each 1 or 2, of the stem's convolutions.

    The first convolution strides first (it makes all the others cheap), then the last (the two outputs are one level
    apart, as the inputs of a cell usually are), then those between. Three convolutions at total stride 4: 2, 1, 2.

    Args:
        total: Stride of the stem's output in pixels, a power of two.
        convolutions: How many there are at least; there are more where `total` needs more.
    """
    halvings = total.bit_length() - 1
    count = max(convolutions, halvings)
    order = [0, count - 1, *range(1, count - 1)]
    strided = set(order[:halvings])
    return tuple(2 if number in strided else 1 for number in range(count))


class Stem(nn.Module):
    """3x3 convolutions with batch norm in front of the cells; the authors' are 64 channels stride 2, 64, 128 stride 2.

    Args:
        channels: Output channels of each convolution, two or more; the first is repeated where the stride needs more.
        stride: Of the output, in pixels of the image; a power of two.
        batch_norm: Factory for the batch norms.
    """

    def __init__(self, channels: Sequence[int], stride: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        strides = stem_strides(stride, len(channels))
        self.channels = (channels[0],) * (len(strides) - len(channels)) + tuple(channels)
        widths = zip((3, *self.channels[:-1]), self.channels, strict=True)
        self.layers = nn.ModuleList(
            ConvBatchNorm(width_in, width_out, 3, step, batch_norm)
            for (width_in, width_out), step in zip(widths, strides, strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images (N, 3, H, W) to the last two convolutions' outputs, both before their ReLU: cells begin with one.

        Sizes halve, rounded up, at each convolution of stride 2.
        """
        before = x = self.layers[0](x)
        for layer in self.layers[1:]:
            before, x = x, layer(F.relu(x))
        return before, x


class DropPath(nn.Module):
    """Scheduled drop path: a branch's output is zeroed per image, and the rest scaled up so that the mean stays.

    At `progress` t of training a branch is kept with probability 1 - t * (1 - keep). Without effect in eval mode.

    Args:
        keep: Probability of keeping at the end of training.
    """

    progress: Tensor

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep
        # A buffer, not a number: changing it neither recompiles a compiled network nor waits for the device.
        self.register_buffer("progress", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)"""
        if not self.training:
            return x
        keep = 1 - self.progress * (1 - self.keep)
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < keep  # (N, 1, 1, 1)
        return x * (kept / keep).to(x.dtype)

    def extra_repr(self) -> str:
        return f"keep={self.keep}"


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: image pooling, 1x1 and atrous 3x3 branches, concatenated, reduced by a 1x1.

    Args:
        channels_in: C_in.
        channels: C_out, and the output channels of each branch.
        stride: Of the input, in pixels of the image: rates are 96, 192 and 288 pixels divided by it, at least 1.
        dropout: Probability of zeroing a value of the output.
        batch_norm: Factory for the batch norms.
    """

    def __init__(
        self, channels_in: int, channels: int, stride: int, dropout: float, batch_norm: BatchNormFactory
    ) -> None:
        super().__init__()
        rates = [max(1, reach // stride) for reach in ASPP_REACH]
        self.pooling = ConvBatchNormRelu(channels_in, channels, 1, 1, batch_norm)
        self.pointwise = ConvBatchNormRelu(channels_in, channels, 1, 1, batch_norm)
        self.atrous = nn.ModuleList(ConvBatchNormRelu(channels_in, channels, 3, 1, batch_norm, rate) for rate in rates)
        self.project = ConvBatchNormRelu((2 + len(rates)) * channels, channels, 1, 1, batch_norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)"""
        pooled = self.pooling(x.mean((2, 3), keepdim=True))  # (N, C_out, 1, 1)
        pooled = pooled.expand(-1, -1, *x.shape[-2:])  # (N, C_out, H, W)
        branches = [pooled, self.pointwise(x), *(branch(x) for branch in self.atrous)]
        return self.dropout(self.project(torch.cat(branches, dim=1)))


class Decoder(nn.Module):
    """DeepLabv3+'s decoder with full 3x3 convolutions, up to the logits at the size of the low-level feature.

    Args:
        channels_in: C_in, of the ASPP.
        channels_low: C_low, of the low-level feature.
        channels_reduced: What the low-level feature is reduced to: the ASPP's output shall weigh more.
        channels: Output channels of the two 3x3 convolutions.
        classes: Number of classes.
        batch_norm: Factory for the batch norms.
    """

    def __init__(
        self,
        channels_in: int,
        channels_low: int,
        channels_reduced: int,
        channels: int,
        classes: int,
        batch_norm: BatchNormFactory,
    ) -> None:
        super().__init__()
        self.reduce = ConvBatchNormRelu(channels_low, channels_reduced, 1, 1, batch_norm)
        self.first = ConvBatchNormRelu(channels_in + channels_reduced, channels, 3, 1, batch_norm)
        self.second = ConvBatchNormRelu(channels, channels, 3, 1, batch_norm)
        self.logits = nn.Conv2d(channels, classes, 1)
        # The authors' truncated normal: standard deviation 0.01, cut at two of them.
        nn.init.trunc_normal_(self.logits.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.logits.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        """(N, C_in, h, w) and (N, C_low, H, W) -> (N, classes, H, W)"""
        low = self.reduce(low)
        x = resize(x, (low.shape[-2], low.shape[-1]))  # (N, C_in, H, W)
        x = self.first(torch.cat([x, low], dim=1))
        return self.logits(self.second(x))
