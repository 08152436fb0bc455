"""ResNets of bottlenecks at output stride 16 or 8, with lateral inhibitions or smoothed convolutions in chosen units.

Shapes: N images of H x W pixels. Every size halves, rounded up, where a convolution or the pooling strides.

Tensors have torchvision's names and shapes, so that its ImageNet weights fit where the stem is plain: layer1 to layer4
are the stages that papers call conv2_x to conv5_x. The beta stem's three convolutions are conv1.0, conv1.3 and conv1.6,
the usual names of a deep stem. A lateral inhibition is one more child of its unit, `li`, and a smoothed convolution
keeps the name of its weight: neither shifts another name.

Sources: ResNet (He et al., 2016); DeepLabv3 (Chen et al., 2017), section 3, for output stride and multi-grid, and the
authors' code, which calls the network with the three convolutions resnet_v1_beta; Wang et al. (2020), Fig. 4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from retrain.networks.base import FeatureInfo
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.modules import BatchNorm, BatchNormFactory

__all__ = ["Bottleneck", "DilatedConvolution", "ResNet", "Stem", "resnet_batch_norm", "strides_and_rates"]

Stem = Literal["beta", "plain"]
DilatedConvolution = Callable[[int, int], nn.Module]
"""Builds a 3x3 convolution (N, C, H, W) -> (N, C, H, W) without bias, from C and its rate."""

EXPANSION = 4
BETA_CHANNELS = (64, 64, 128)
STEM_STRIDE = 4
"""Stride of the stem's convolution and pooling together."""
LOW_LEVEL = (1, 2)
"""Stage and unit whose residual branch is the decoder's low-level feature: block1/unit_2/conv3."""


def resnet_batch_norm(momentum: float | None) -> BatchNormFactory:
    """Returns the factory for the batch norms; None: the momentum of the authors' code (its decay is 0.95)."""
    return partial(BatchNorm, eps=1e-5, momentum=momentum or 0.05)


def dilated_convolution(channels: int, rate: int) -> nn.Module:
    """Builds a plain 3x3 convolution at a rate."""
    return nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=False)


def strides_and_rates(
    units: Sequence[int], stem: Stem, output_stride: int, multi_grid: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """Returns stride and rate of each unit's 3x3 convolution, stage by stage.

    beta: the last units of the first three stages stride; plain: the first units of the last three. Once the output
    stride is reached, a unit that would stride doubles the rates instead: beta, of the following units; plain, its own
    too. `multi_grid` multiplies the rates of the last stage.
    """
    total, rate = STEM_STRIDE, 1
    layout: list[list[tuple[int, int]]] = []
    last = len(units) - 1
    for stage, count in enumerate(units):
        layout.append([])
        for unit in range(count):
            halves = stage < last and unit == count - 1 if stem == "beta" else stage > 0 and unit == 0
            stride = 2 if halves and total < output_stride else 1
            total *= stride
            wider = 2 * rate if halves and stride == 1 else rate
            grid = multi_grid[unit % len(multi_grid)] if stage == last else 1
            layout[-1].append((stride, grid * (rate if stem == "beta" else wider)))
            rate = wider
    return layout


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut; the 3x3 convolution strides.

    Args:
        channels_in: C_in.
        width: Channels of the 3x3 convolution; the output has four times as many, C_out.
        stride: Stride of the unit.
        convolution: The 3x3 convolution.
        batch_norm: Factory for the batch norms.
        li: The lateral inhibition in front of the 3x3 convolution; None: there is none.
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        stride: int,
        convolution: nn.Module,
        batch_norm: BatchNormFactory,
        li: LateralInhibition | None = None,
    ) -> None:
        super().__init__()
        channels_out = EXPANSION * width
        self.stride = stride
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = batch_norm(width)
        self.li = li
        self.conv2 = convolution
        self.bn2 = batch_norm(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = batch_norm(channels_out)
        self.downsample: nn.Module | None = None
        if channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), batch_norm(channels_out)
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C_in, H, W) -> the output and the residual branch before the addition, (N, C_out, h, w) each"""
        branch = F.relu(self.bn1(self.conv1(x)))
        if self.li is not None:
            branch = self.li(branch)
        branch = F.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = x[..., :: self.stride, :: self.stride] if self.downsample is None else self.downsample(x)
        return F.relu(branch + shortcut), branch


class ResNet(nn.Module):
    """Images (N, 3, H, W) -> features by name: "low" (N, 256, H / 4, W / 4) and the stages, "layer4" (N, 2048, h, w).

    Once the output stride is reached, strides become rates of all following units: at output stride 16 layer4 has rate
    2, at 8 layer3 has rate 2 and layer4 4; `multi_grid` multiplies those of layer4.

    Args:
        units: Number of units of each stage, two or more in the first: (3, 4, 6, 3) is ResNet-50.
        batch_norm: Factory for the batch norms.
        stem: beta, three 3x3 convolutions, strides in the last units of layer1, layer2 and layer3; plain, one 7x7
            convolution, strides in the first units of layer2, layer3 and layer4.
        output_stride: 8 or 16.
        multi_grid: Factors of the rates in layer4, repeated as needed.
        inhibited: Units with a lateral inhibition, such as "conv5_3" for layer4's third.
        inhibition: Builds a lateral inhibition for a number of channels.
        dilated: Builds the 3x3 convolutions that have a rate above 1.
        image_channels: Channels of the image.

    Attributes:
        feature_info: Channels and stride of each feature.

    Raises:
        ValueError: `inhibited` names a unit that does not exist.
    """

    def __init__(
        self,
        units: Sequence[int],
        batch_norm: BatchNormFactory,
        stem: Stem = "beta",
        output_stride: int = 16,
        multi_grid: Sequence[int] = (1, 2, 4),
        inhibited: Collection[str] = (),
        inhibition: Callable[[int], LateralInhibition] = LateralInhibition,
        dilated: DilatedConvolution = dilated_convolution,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        names = [f"conv{stage}_{unit}" for stage, count in enumerate(units, 2) for unit in range(1, count + 1)]
        for name in inhibited:
            if name not in names:
                raise ValueError(f"this ResNet has no unit {name!r}: choose among {', '.join(names)}")

        self.conv1: nn.Module
        if stem == "beta":
            first, second, channels = BETA_CHANNELS
            self.conv1 = nn.Sequential(
                nn.Conv2d(image_channels, first, 3, 2, 1, bias=False),
                batch_norm(first),
                nn.ReLU(),
                nn.Conv2d(first, second, 3, 1, 1, bias=False),
                batch_norm(second),
                nn.ReLU(),
                nn.Conv2d(second, channels, 3, 1, 1, bias=False),
            )
        else:
            channels = 64
            self.conv1 = nn.Conv2d(image_channels, channels, 7, 2, 3, bias=False)
        self.bn1 = batch_norm(channels)

        layout = strides_and_rates(units, stem, output_stride, multi_grid)
        self.feature_info = [FeatureInfo(64 * EXPANSION, STEM_STRIDE)]
        total, layers = STEM_STRIDE, []
        for stage, steps in enumerate(layout):
            width, layer = 64 * 2**stage, nn.Sequential()
            for unit, (stride, rate) in enumerate(steps, start=1):
                convolution = dilated(width, rate) if rate > 1 else nn.Conv2d(width, width, 3, stride, 1, bias=False)
                li = inhibition(width) if f"conv{stage + 2}_{unit}" in inhibited else None
                layer.append(Bottleneck(channels, width, stride, convolution, batch_norm, li))
                channels, total = EXPANSION * width, total * stride
            layers.append(layer)
            self.feature_info.append(FeatureInfo(channels, total))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)  # (N, C, H / 4, W / 4)
        features: dict[str, Tensor] = {}
        for number, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            for unit, bottleneck in enumerate(layer, start=1):
                x, branch = bottleneck(x)
                if (number, unit) == LOW_LEVEL:
                    features["low"] = branch
            features[f"layer{number}"] = x
        return features
