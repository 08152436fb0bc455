"""DeepLabv2 on a ResNet at output stride 8, with or without smoothing of its dilated convolutions.

Shapes: N images of H x W pixels; h x w at output stride 8.

Sources: DeepLab (Chen et al., 2018), sections 3.1 and 3.2; Ziegler et al. (2019) and Wang and Ji (2018), whose code
smooths the 3x3 convolutions of the last two stages (rates 2 and 4), and never those of the ASPP.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from retrain.networks.base import FeatureInfo, SegmentationNetwork
from retrain.networks.blocks import logits_convolution
from retrain.networks.resnet import ResNet, resnet_batch_norm
from retrain.networks.settings import DeepLabV2Settings
from search_spaces.smoothing import AggregationCoefficients, SmoothedConv2d, window_arguments

__all__ = ["DeepLabV2"]

ASPP_RATES = (6, 12, 18, 24)


class DeepLabV2(SegmentationNetwork):
    """ResNet, then the sum of four 3x3 convolutions at different rates, each with a bias, to the logits at stride 8.

    `config.smoothing_window` None is the authors' window of side r - 1: average and Gaussian filters then act in the
    last stage only, as in the published networks.

    Args:
        classes: Number of classes.
        config: Smoothing and regularisation; None: the defaults.
        units: Number of units of each residual stage, two or more in the first.

    Attributes:
        coefficients: The four coefficients that all aggregated filters share; None with another smoothing.
        feature_info: Channels and stride of the backbone's features.

    Raises:
        ValueError: `classes` is below 1.
    """

    head = ("aspp",)

    def __init__(
        self, classes: int, config: DeepLabV2Settings | None = None, units: Sequence[int] = (3, 4, 23, 3)
    ) -> None:
        config = config or DeepLabV2Settings()
        super().__init__(classes, config.image_channels)
        window = config.smoothing_window or "official"
        settings = dataclasses.replace(config.operation_settings(), smoothing_window=window)
        self.coefficients = AggregationCoefficients() if config.smoothing == "aggregated" else None

        def dilated(channels: int, rate: int) -> nn.Module:
            return SmoothedConv2d(
                channels,
                channels,
                rate=rate,
                smoothing=config.smoothing,
                **window_arguments(config.smoothing, settings),
                coefficients=self.coefficients,
            )

        norm = resnet_batch_norm(config.batch_norm_momentum)
        with warnings.catch_warnings():  # one warning below stands for those of all layers
            warnings.simplefilter("ignore")
            self.backbone = ResNet(
                units, norm, "plain", output_stride=8, multi_grid=(1,), dilated=dilated, image_channels=self.channels
            )
        self.feature_info: list[FeatureInfo] = self.backbone.feature_info
        channels = self.feature_info[-1].channels
        self.aspp = nn.ModuleList(logits_convolution(channels, classes, 3, rate) for rate in ASPP_RATES)
        if window == "official" and config.smoothing in ("average", "gaussian", "aggregated"):
            warnings.warn(
                "the official window is 1x1 at rate 2: as in the paper, average and Gaussian filters act only in the "
                f"{units[3]} convolutions of rate 4, not in the {units[2]} of rate 2; network.smoothing_window paper "
                "smooths all",
                stacklevel=2,
            )

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the backbone's features by name, in the order of `feature_info`."""
        return self.backbone(x)

    def logits(self, x: Tensor) -> Tensor:
        x = list(self.features(x).values())[-1]  # (N, C, h, w)
        first, *others = (convolution(x) for convolution in self.aspp)
        return sum(others, first)
