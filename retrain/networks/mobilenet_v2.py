"""MobileNetV2 at output stride 16, with lateral inhibitions in chosen blocks (LI-MNV2).

Shapes: N images of H x W pixels. Every size halves, rounded up, where a convolution strides.

Tensors have torchvision's names and shapes, so that its ImageNet weights fit: features.0.0.weight is the first
convolution, features.K.conv... are residual bottleneck K = 1..17. The last 1x1 convolution (320 to 1280) is left out,
as in DeepLab. A lateral inhibition is one more child of its block, `li`: it shifts no other name.

Sources: MobileNetV2 (Sandler et al., 2018), Table 2; DeepLabv3 (Chen et al., 2017), section 3.2, for the output stride;
Wang et al. (2020), Fig. 4, for the place of the lateral inhibition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from torch import Tensor, nn

from retrain.networks.base import FeatureInfo
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.modules import BatchNorm, BatchNormFactory

__all__ = ["MobileNetV2", "mobilenet_batch_norm"]

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, number of blocks and first block's stride of each stage."""
FIRST_CHANNELS = 32
OUTPUT_STRIDE = 16


def mobilenet_batch_norm(momentum: float | None) -> BatchNormFactory:
    """Returns the factory for the batch norms; None: the momentum of the authors' code (its decay is 0.997).

    Epsilon is torchvision's 1e-5, not the 1e-3 of TensorFlow's MobileNet: pretrained scales and shifts are those of
    torchvision's layout, and mean something else with another epsilon.
    """
    return partial(BatchNorm, eps=1e-5, momentum=momentum or 0.003)


class _ConvBatchNormRelu6(nn.Sequential):
    """Convolution, batch norm, ReLU6; torchvision's names 0 and 1."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        batch_norm: BatchNormFactory,
        kernel: int,
        stride: int = 1,
        rate: int = 1,
        groups: int = 1,
    ) -> None:
        padding = rate * (kernel // 2)
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding, rate, groups, bias=False),
            batch_norm(channels_out),
            nn.ReLU6(),
        )


class ResidualBottleneck(nn.Module):
    """1x1 expansion (if above 1), 3x3 depthwise convolution, linear 1x1; plus the input where the shape stays.

    `inhibition` builds the lateral inhibition in front of the depthwise convolution; None: there is none.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        expansion: int,
        stride: int,
        rate: int,
        batch_norm: BatchNormFactory,
        inhibition: Callable[[int], LateralInhibition] | None = None,
    ) -> None:
        super().__init__()
        width = channels_in * expansion
        expand = [_ConvBatchNormRelu6(channels_in, width, batch_norm, 1)] if expansion > 1 else []
        self.expanding = len(expand)
        self.conv = nn.Sequential(
            *expand,
            _ConvBatchNormRelu6(width, width, batch_norm, 3, stride, rate, groups=width),
            nn.Conv2d(width, channels_out, 1, bias=False),
            batch_norm(channels_out),
        )
        self.residual = stride == 1 and channels_in == channels_out
        self.li = inhibition(width) if inhibition is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))"""
        y = x
        for number, layer in enumerate(self.conv):
            if self.li is not None and number == self.expanding:
                y = self.li(y)
            y = layer(y)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Images (N, 3, H, W) -> the output of each stage by name, "stage1" to "stage7": the last is (N, 320, h, w).

    The strides stop at 16: block 14 does not stride, and the following depthwise convolutions have rate 2.

    Args:
        batch_norm: Factory for the batch norms.
        inhibited: Blocks, 1 to 17, with a lateral inhibition. In block 1, which has no expansion, it also stands in
            front of the depthwise convolution.
        inhibition: Builds a lateral inhibition for a number of channels.
        image_channels: Channels of the image.

    Attributes:
        feature_info: Channels and stride of each output.
    """

    def __init__(
        self,
        batch_norm: BatchNormFactory,
        inhibited: Collection[int] = (),
        inhibition: Callable[[int], LateralInhibition] = LateralInhibition,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        channels, total, rate = FIRST_CHANNELS, 2, 1
        layers: list[nn.Module] = [_ConvBatchNormRelu6(image_channels, channels, batch_norm, 3, 2)]
        self.feature_info: list[FeatureInfo] = []
        self.last_blocks: list[int] = []
        for expansion, channels_out, blocks, stage_stride in STAGES:
            for number in range(blocks):
                asked = stage_stride if number == 0 else 1
                stride = asked if total * asked <= OUTPUT_STRIDE else 1
                place = inhibition if len(layers) in inhibited else None
                layers.append(ResidualBottleneck(channels, channels_out, expansion, stride, rate, batch_norm, place))
                channels, total = channels_out, total * stride
                rate *= asked // stride  # a stride that is left out dilates the following blocks
            self.feature_info.append(FeatureInfo(channels, total))
            self.last_blocks.append(len(layers) - 1)
        self.features = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        stages: dict[str, Tensor] = {}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.last_blocks:
                stages[f"stage{len(stages) + 1}"] = x
        return stages
