"""DeepLabv3 and DeepLabv3+ on MobileNetV2 or ResNet-50, with or without lateral inhibitions in backbone and ASPP.

Shapes: N images of H x W pixels; h x w at the backbone's output stride, 16.

Sources: DeepLabv3 (Chen et al., 2017); DeepLabv3+ (Chen et al., 2018); Wang et al. (2020), section 3.3, for LI-ASPP,
LI-MNV2 and LI-ResNet, and the authors' network code for all that the papers leave open.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from retrain.network_config import NetworkConfig
from retrain.networks.base import SegmentationNetwork
from retrain.networks.blocks import ASPP, Decoder, SeparableConvBatchNormRelu, aspp_rates, logits_convolution
from retrain.networks.mobilenet_v2 import MobileNetV2, mobilenet_batch_norm
from retrain.networks.resnet import ResNet, resnet_batch_norm
from search_spaces.lateral_inhibition import lateral_inhibition
from search_spaces.modules import BatchNorm

__all__ = ["DeepLabV3"]

DEFAULT_BLOCKS = (10, 13, 16)
DEFAULT_UNITS = ("conv5_3",)
DEFAULT_MOMENTUM = 0.0003
RESNET50 = (3, 4, 6, 3)

Place = TypeVar("Place", int, str)


class DeepLabV3(SegmentationNetwork):
    """Backbone, ASPP, then the logits at stride 16 or, with a decoder, at stride 4.

    Args:
        classes: Number of classes.
        config: Widths, lateral inhibitions and regularisation; None: the defaults.
        backbone: Which one.
        inhibited: Whether it has lateral inhibitions, in `config.li_blocks` or `config.li_units`.
        li_aspp: Whether the ASPP is an LI-ASPP: a ReLU in front of the whole, and a lateral inhibition in front of each
            atrous branch.
        decoder: Whether DeepLabv3+'s decoder joins in the backbone's low-level feature; ResNet only.

    Attributes:
        feature_info: Channels and stride of the backbone's features.

    Raises:
        ValueError: `classes` is below 1, or `config` names no place for lateral inhibitions, or one that there is not.
    """

    head = ("aspp", "classifier")

    def __init__(
        self,
        classes: int,
        config: NetworkConfig | None = None,
        backbone: Literal["mobilenet_v2", "resnet50"] = "mobilenet_v2",
        inhibited: bool = False,
        li_aspp: bool = False,
        decoder: bool = False,
    ) -> None:
        super().__init__(classes)
        config = config or NetworkConfig()
        inhibition = partial(lateral_inhibition, settings=config.operation_settings())
        self.backbone: MobileNetV2 | ResNet
        if backbone == "mobilenet_v2":
            blocks = _places("li_blocks", config.li_blocks, DEFAULT_BLOCKS) if inhibited else ()
            self.backbone = MobileNetV2(mobilenet_batch_norm(config.batch_norm_momentum), blocks, inhibition)
        else:
            units = _places("li_units", config.li_units, DEFAULT_UNITS) if inhibited else ()
            norm = resnet_batch_norm(config.batch_norm_momentum)
            self.backbone = ResNet(RESNET50, norm, config.resnet_stem, inhibited=units, inhibition=inhibition)
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


def _places(name: str, given: tuple[Place, ...] | None, default: tuple[Place, ...]) -> tuple[Place, ...]:
    """Where the backbone has lateral inhibitions: as given, or by default."""
    if given == ():
        raise ValueError(
            f"network.{name} is empty: name one place or more, or take the network without lateral inhibitions in its "
            "backbone"
        )
    return default if given is None else given
