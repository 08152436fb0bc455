"""DeepLabv3 and DeepLabv3+ on MobileNetV2 or ResNet-50, with or without lateral inhibitions in backbone and ASPP.

Shapes: N images of H x W pixels; h x w at the backbone's output stride, 16.

Sources: DeepLabv3 (Chen et al., 2017); DeepLabv3+ (Chen et al., 2018); Wang et al. (2020), section 3.3, for LI-ASPP,
LI-MNV2 and LI-ResNet, and the authors' network code for all that the papers leave open.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from retrain.networks.base import SegmentationNetwork
from retrain.networks.blocks import ASPP, Decoder, SeparableConvBatchNormRelu, aspp_rates, logits_convolution
from retrain.networks.mobilenet_v2 import MobileNetV2, mobilenet_batch_norm
from retrain.networks.resnet import ResNet, Stem, resnet_batch_norm
from retrain.networks.settings import DeepLabV3Settings
from search_spaces.lateral_inhibition import lateral_inhibition
from search_spaces.modules import BatchNorm

__all__ = ["DeepLabV3"]

DEFAULT_MOMENTUM = 0.0003
RESNET50 = (3, 4, 6, 3)


class DeepLabV3(SegmentationNetwork):
    """Backbone, ASPP, then the logits at stride 16 or, with a decoder, at stride 4.

    Args:
        classes: Number of classes.
        config: Widths, lateral inhibitions and regularisation; None: the defaults.
        backbone: Name of the backbone.
        li_blocks: Blocks of a MobileNetV2 with a lateral inhibition, where `config.li_blocks` is None.
        li_units: Units of a ResNet with a lateral inhibition in front of the 3x3 convolution, conv2_1 to conv5_3.
        stem: Stem of a ResNet: beta, three 3x3 convolutions (resnet_v1_beta), or plain, one 7x7, with torchvision's
            names, shapes and strides.
        li_aspp: Whether the ASPP is an LI-ASPP: a ReLU in front of it, and a lateral inhibition in front of each atrous
            branch.
        decoder: Whether DeepLabv3+'s decoder adds the backbone's low-level feature; ResNet only.

    Attributes:
        feature_info: Channels and stride of the backbone's features.

    Raises:
        ValueError: `classes` is below 1, or the ResNet has no such unit.
    """

    head = ("aspp", "classifier")

    def __init__(
        self,
        classes: int,
        config: DeepLabV3Settings | None = None,
        backbone: Literal["mobilenet_v2", "resnet50"] = "mobilenet_v2",
        li_blocks: Collection[int] = (),
        li_units: Collection[str] = (),
        stem: Stem = "beta",
        li_aspp: bool = False,
        decoder: bool = False,
    ) -> None:
        config = config or DeepLabV3Settings()
        super().__init__(classes, config.image_channels)
        inhibition = partial(lateral_inhibition, settings=config.operation_settings())
        self.backbone: MobileNetV2 | ResNet
        if backbone == "mobilenet_v2":
            blocks = li_blocks if config.li_blocks is None else config.li_blocks
            batch_norm = mobilenet_batch_norm(config.batch_norm_momentum)
            self.backbone = MobileNetV2(batch_norm, blocks, inhibition, self.channels)
        else:
            norm = resnet_batch_norm(config.batch_norm_momentum)
            self.backbone = ResNet(
                RESNET50, norm, stem, inhibited=li_units, inhibition=inhibition, image_channels=self.channels
            )
        self.feature_info = self.backbone.feature_info
        channels, stride = self.feature_info[-1]

        head_norm = partial(BatchNorm, eps=1e-5, momentum=config.batch_norm_momentum or DEFAULT_MOMENTUM)
        branches = [
            SeparableConvBatchNormRelu(channels, config.aspp_channels, head_norm, rate) for rate in aspp_rates(stride)
        ]
        self.li_aspp, self.decoder = li_aspp, decoder
        self.aspp = ASPP(
            channels, config.aspp_channels, branches, config.dropout, head_norm, inhibition if li_aspp else None
        )
        self.classifier: nn.Module
        if decoder:
            self.classifier = Decoder(
                config.aspp_channels,
                self.feature_info[0].channels,
                config.low_level_channels,
                config.decoder_channels,
                classes,
                head_norm,
                separable=True,
            )
        else:
            self.classifier = logits_convolution(config.aspp_channels, classes)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the backbone's features by name, in the order of `feature_info`."""
        return self.backbone(x)

    def logits(self, x: Tensor) -> Tensor:
        features = self.features(x)
        high = list(features.values())[-1]  # (N, C, h, w)
        if self.li_aspp:
            high = F.relu(high)  # a MobileNetV2's last convolution is linear, and a lateral inhibition reads rates
        high = self.aspp(high)
        return self.classifier(high, features["low"]) if self.decoder else self.classifier(high)
