"""Parts around the cells: stem, ASPP, decoder, scheduled drop path, FPLNet's fusion units.

Shapes: N images, C channels, H x W pixels. No convolution in front of a batch norm has a bias.

Sources: Auto-DeepLab (Liu et al., 2019), section 5.2, and the authors' network code. ASPP: DeepLabv3 (Chen et al.,
2017), section 3.3. Decoder and separable convolutions: DeepLabv3+ (Chen et al., 2018), section 3.1, and its authors'
code. Drop path: NASNet (Zoph et al., 2018).

Convolutions keep PyTorch's default initialisation, kaiming_uniform(a=sqrt(5)): uniform within 1 / sqrt(fan in), which
is the authors' variance_scaling(scale=1/3, FAN_IN, uniform). (In a depthwise kernel's fan-in TensorFlow counts all
channels; the batch norm after it removes that scale again.) Only the logits and DeepLabv3+'s separable convolutions
differ.

FPLNet's fusion units close a stage: they fuse shallow and deep features with the image at the stage's stride, h x w
pixels (Atif et al., 2023, section III-A.3, Figure 3 and Table VIII).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.factorized import BatchNormPReLU
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.modules import BatchNormFactory, ConvBatchNorm, resize

__all__ = [
    "ASPP",
    "AtrousBranch",
    "ConvBatchNormRelu",
    "Decoder",
    "DepthwiseConvolution",
    "DropPath",
    "FUSIONS",
    "FusionUnit",
    "SeparableConvBatchNormRelu",
    "Stem",
    "aspp_rates",
    "halve",
    "fused_channels",
    "logits_convolution",
    "stem_layout",
    "stem_strides",
    "truncated_normal",
]

ASPP_REACH = (96, 192, 288)
"""Reach of the atrous branches in pixels of the image: rates 12, 24, 36 at output stride 8, as in Auto-DeepLab, and 6,
12, 18 at 16, as in DeepLabv3."""


class ConvBatchNormRelu(ConvBatchNorm):
    """Convolution, batch norm, ReLU, with the arguments and shapes of `ConvBatchNorm`."""

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return F.relu(super().forward(x, source))


def truncated_normal(weight: Tensor, deviation: float) -> None:
    """Initialises `weight` as the authors do: a normal of this deviation, truncated at two deviations."""
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


def logits_convolution(channels: int, classes: int, kernel: int = 1, rate: int = 1) -> nn.Conv2d:
    """Builds the convolution with a bias that ends DeepLab networks: (N, C, H, W) -> (N, classes, H, W)."""
    convolution = nn.Conv2d(channels, classes, kernel, padding=rate * (kernel // 2), dilation=rate)
    truncated_normal(convolution.weight, 0.01)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def aspp_rates(stride: int) -> list[int]:
    """Returns the rates of the atrous branches at an output stride, each at least 1."""
    return [max(1, reach // stride) for reach in ASPP_REACH]


def stem_strides(total: int, convolutions: int) -> tuple[int, ...]:
    """Returns the strides, each 1 or 2, of the stem's convolutions.

    The first convolution strides first (it makes all the others cheap), then the last (the two outputs are one level
    apart, as the inputs of a cell usually are), then those between. Three convolutions at total stride 4: 2, 1, 2.

    Args:
        total: Stride of the stem's output in pixels, a power of two.
        convolutions: Least number of convolutions; there are more where `total` needs more.
    """
    halvings = total.bit_length() - 1
    count = max(convolutions, halvings)
    order = [0, count - 1, *range(1, count - 1)]
    strided = set(order[:halvings])
    return tuple(2 if number in strided else 1 for number in range(count))


def stem_layout(channels: Sequence[int], stride: int) -> list[tuple[int, int]]:
    """Returns the output channels and stride of each of the stem's convolutions, with the arguments of `Stem`."""
    strides = stem_strides(stride, len(channels))
    return list(zip((channels[0],) * (len(strides) - len(channels)) + tuple(channels), strides, strict=True))


class Stem(nn.Module):
    """3x3 convolutions with batch norm in front of the cells; the authors' are 64 channels stride 2, 64, 128 stride 2.

    Args:
        channels: Output channels of each convolution, two or more; the first is repeated where the stride needs more.
        stride: Output stride in pixels of the image; a power of two.
        batch_norm: Factory for the batch norms.
        image_channels: Channels of the image.
    """

    def __init__(
        self, channels: Sequence[int], stride: int, batch_norm: BatchNormFactory, image_channels: int = 3
    ) -> None:
        super().__init__()
        layout = stem_layout(channels, stride)
        self.layers = nn.ModuleList(
            ConvBatchNorm(width_in, width_out, 3, step, batch_norm)
            for (width_in, _), (width_out, step) in pairwise([(image_channels, 1), *layout])
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images (N, 3, H, W) to the outputs of the last two convolutions, before their ReLU: cells begin with it.

        Each convolution of stride 2 halves the size, rounded up.
        """
        before = x = self.layers[0](x)
        for layer in self.layers[1:]:
            before, x = x, layer(F.relu(x))
        return before, x


class DropPath(nn.Module):
    """Scheduled drop path: zeroes a branch's output per image, and scales the rest up so that the mean stays.

    At `progress` t of training a branch is kept with probability 1 - t * (1 - keep). Without effect in eval mode.
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


class DepthwiseConvolution(nn.Conv2d):
    """Dilated depthwise 3x3 convolution without weight decay, as in the authors' code of DeepLabv3+."""

    undecayed = ("weight",)

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__(channels, channels, 3, padding=rate, dilation=rate, groups=channels, bias=False)


class SeparableConvBatchNormRelu(nn.Module):
    """3x3 depthwise convolution, batch norm, ReLU, 1x1 convolution, batch norm, ReLU, as in DeepLabv3+."""

    def __init__(self, channels_in: int, channels_out: int, batch_norm: BatchNormFactory, rate: int = 1) -> None:
        super().__init__()
        self.depthwise = DepthwiseConvolution(channels_in, rate)
        self.batch_norm = batch_norm(channels_in)
        self.pointwise = ConvBatchNormRelu(channels_in, channels_out, 1, 1, batch_norm)
        truncated_normal(self.depthwise.weight, 0.33)
        truncated_normal(self.pointwise.convolution.weight, 0.06)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)"""
        return self.pointwise(F.relu(self.batch_norm(self.depthwise(x))))


class AtrousBranch(nn.Module):
    """A dilated 3x3 convolution, smoothed or not, batch norm, ReLU: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, convolution: nn.Conv2d, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.convolution = convolution
        self.batch_norm = batch_norm(convolution.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.batch_norm(self.convolution(x)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: image pooling, 1x1 and atrous branches, concatenated, reduced by a 1x1.

    With lateral inhibitions in front of the atrous branches it is an LI-ASPP (Wang et al., 2020), whose input must have
    passed a ReLU, as all branches read the same. Every other tensor keeps its name.

    Args:
        channels_in: C_in.
        channels: C_out, and the output channels of each branch.
        atrous: The atrous branches: (N, C_in, H, W) -> (N, C_out, H, W).
        dropout: Probability of zeroing a value of the output.
        batch_norm: Factory for the batch norms.
        inhibition: Builds a lateral inhibition for a number of channels; None: there are none.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        atrous: Sequence[nn.Module],
        dropout: float,
        batch_norm: BatchNormFactory,
        inhibition: Callable[[int], LateralInhibition] | None = None,
    ) -> None:
        super().__init__()
        self.pooling = ConvBatchNormRelu(channels_in, channels, 1, 1, batch_norm)
        self.pointwise = ConvBatchNormRelu(channels_in, channels, 1, 1, batch_norm)
        self.inhibitions = nn.ModuleList(inhibition(channels_in) if inhibition else nn.Identity() for _ in atrous)
        self.atrous = nn.ModuleList(atrous)
        self.project = ConvBatchNormRelu((2 + len(atrous)) * channels, channels, 1, 1, batch_norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)"""
        pooled = self.pooling(x.mean((2, 3), keepdim=True))  # (N, C_out, 1, 1)
        pooled = pooled.expand(-1, -1, *x.shape[-2:])  # (N, C_out, H, W)
        branches = [pooled, self.pointwise(x)]
        branches += [branch(inhibition(x)) for inhibition, branch in zip(self.inhibitions, self.atrous, strict=True)]
        return self.dropout(self.project(torch.cat(branches, dim=1)))


class Decoder(nn.Module):
    """DeepLabv3+'s decoder, up to the logits at the size of the low-level feature.

    Args:
        channels_in: C_in, of the ASPP.
        channels_low: C_low, of the low-level feature.
        channels_reduced: Channels to which the low-level feature is reduced, so that the ASPP's output weighs more.
        channels: Output channels of the two 3x3 convolutions.
        classes: Number of classes.
        batch_norm: Factory for the batch norms.
        separable: Whether the 3x3 convolutions are depthwise separable, as in DeepLabv3+, or full, as in Auto-DeepLab.
    """

    def __init__(
        self,
        channels_in: int,
        channels_low: int,
        channels_reduced: int,
        channels: int,
        classes: int,
        batch_norm: BatchNormFactory,
        separable: bool = False,
    ) -> None:
        super().__init__()

        def convolution(width_in: int, width_out: int) -> nn.Module:
            if separable:
                return SeparableConvBatchNormRelu(width_in, width_out, batch_norm)
            return ConvBatchNormRelu(width_in, width_out, 3, 1, batch_norm)

        self.reduce = ConvBatchNormRelu(channels_low, channels_reduced, 1, 1, batch_norm)
        self.first = convolution(channels_in + channels_reduced, channels)
        self.second = convolution(channels, channels)
        self.logits = logits_convolution(channels, classes)

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        """(N, C_in, h, w) and (N, C_low, H, W) -> (N, classes, H, W)"""
        low = self.reduce(low)
        x = resize(x, (low.shape[-2], low.shape[-1]))  # (N, C_in, H, W)
        x = self.first(torch.cat([x, low], dim=1))
        return self.logits(self.second(x))


FUSIONS: dict[str, tuple[str, ...]] = {
    "fir": ("sum", "deep", "image"),
    "if": ("deep", "image"),
    "isff-add": ("sum",),
    "isff-concat": ("deep", "shallow"),
    "if+isff-add": ("sum", "image"),
    "if+isff-concat": ("deep", "shallow", "image"),
}
"""Tensors that each fusion concatenates: shallow and deep are the outputs of a stage's first and last module, sum is
their sum. "fir" is the paper's feature-image reinforcement unit; its Table VIII compares the others with it."""


def fused_channels(parts: tuple[str, ...], channels: int, image_channels: int = 3) -> int:
    """Counts the channels of a fusion's output, with the arguments of `FusionUnit`."""
    return sum(image_channels if part == "image" else channels for part in parts)


class FusionUnit(nn.Module):
    """Features and image of a stage -> (N, channels_out, h, w): concatenation, batch norm, PReLU.

    Args:
        parts: Tensors to concatenate, an entry of `FUSIONS`.
        channels: C, of the shallow and of the deep feature.
        batch_norm: Factory for the batch norm.
        image_channels: Channels of the image.

    Attributes:
        channels_out: Channels of the output.
    """

    def __init__(
        self, parts: tuple[str, ...], channels: int, batch_norm: BatchNormFactory, image_channels: int = 3
    ) -> None:
        super().__init__()
        self.parts = parts
        self.channels_out = fused_channels(parts, channels, image_channels)
        self.output = BatchNormPReLU(self.channels_out, batch_norm)

    def forward(self, shallow: Tensor, deep: Tensor, image: Tensor) -> Tensor:
        """(N, C, h, w), (N, C, h, w) and (N, 3, h, w) -> (N, channels_out, h, w)"""
        sources = {"shallow": shallow, "deep": deep, "image": image}
        if "sum" in self.parts:
            sources["sum"] = shallow + deep
        return self.output(torch.cat([sources[part] for part in self.parts], dim=1))

    def extra_repr(self) -> str:
        return ", ".join(self.parts)


def halve(image: Tensor, times: int = 1) -> Tensor:
    """Halves an image's sides, rounded up, `times` times: (N, 3, H, W) -> (N, 3, ceil(H / 2**times), ...).

    This is ESPNet's pooling, a cascade of averages over 3x3 windows at stride 2: the size is that after a strided 3x3
    convolution, for any H and W. FPLNet's paper does not name its pooling.
    """
    for _ in range(times):
        image = F.avg_pool2d(image, 3, stride=2, padding=1)
    return image
