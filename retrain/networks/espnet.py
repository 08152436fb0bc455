"""ESPNet-C and ESPNet: an encoder of ESP modules whose features are joined by the image, and a light decoder.

Shapes: N images of H x W pixels; C channels; h_s x w_s pixels at stride s, each stride's size half the one before,
rounded up. The decoder restores the sizes that the encoder recorded: no size need be divisible by anything.

Source: ESPNet (Mehta et al., ECCV 2018), section 3.3 and Figure 4, and the authors' network code. FPLNet (Atif et al.,
2023) compares its own module with ESP in both networks (Table VI).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrain.networks.base import FeatureInfo, SegmentationNetwork
from retrain.networks.blocks import halve
from retrain.networks.fplnet import (
    ConvBatchNormPReLU,
    ModuleFactory,
    ModuleKind,
    Upsampling,
    batch_norm_factory,
    module_factory,
)
from retrain.networks.settings import CommonSettings
from search_spaces.factorized import BatchNormPReLU
from search_spaces.modules import BatchNormFactory

__all__ = ["ESPNet", "ESPNetC"]

FIRST_CHANNELS, STAGE_CHANNELS = 16, (64, 128)


class Stage(nn.Module):
    """A module that halves the sides, then modules that keep them: (N, C_in, H, W) -> two tensors (N, C, h, w)."""

    def __init__(self, channels_in: int, channels: int, count: int, module: ModuleFactory) -> None:
        super().__init__()
        self.down = module(channels_in, channels, 2)
        self.body = nn.Sequential(*(module(channels, channels, 1) for _ in range(count)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shallow = self.down(x)
        return shallow, self.body(shallow)


class Encoder(nn.Module):
    """The three stages: images (N, 3, H, W) -> [(N, C, h_s, w_s) for s in 2, 4, 8].

    The pooled image is concatenated to the features at strides 2 and 4; the last two stages end with the outputs of
    their first and last modules, concatenated. `modules` follow the first in each of these stages.
    """

    def __init__(
        self, module: ModuleFactory, modules: tuple[int, int], batch_norm: BatchNormFactory, image_channels: int
    ) -> None:
        super().__init__()
        middle, last = STAGE_CHANNELS
        widths = (FIRST_CHANNELS + image_channels, 2 * middle + image_channels, 2 * last)
        self.feature_info = [FeatureInfo(width, stride) for width, stride in zip(widths, (2, 4, 8), strict=True)]
        self.first = ConvBatchNormPReLU(image_channels, FIRST_CHANNELS, 2, batch_norm)
        self.stage2 = Stage(widths[0], middle, modules[0], module)
        self.stage3 = Stage(widths[1], last, modules[1], module)
        self.outputs = nn.ModuleList(BatchNormPReLU(width, batch_norm) for width in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        half = halve(image)
        stage1 = self.outputs[0](torch.cat([self.first(image), half], dim=1))  # (N, 19, h_2, w_2)
        shallow, deep = self.stage2(stage1)
        stage2 = self.outputs[1](torch.cat([deep, shallow, halve(half)], dim=1))  # (N, 131, h_4, w_4)
        shallow, deep = self.stage3(stage2)
        stage3 = self.outputs[2](torch.cat([shallow, deep], dim=1))  # (N, 256, h_8, w_8)
        return [stage1, stage2, stage3]


class Decoder(nn.Module):
    """ESPNet's decoder: upsamples `classes` channels to the image, and joins them with the encoder's features."""

    def __init__(
        self, feature_info: list[FeatureInfo], classes: int, module: ModuleFactory, batch_norm: BatchNormFactory
    ) -> None:
        super().__init__()
        fine, middle, _ = (info.channels for info in feature_info)
        self.coarse = batch_norm(classes)
        self.up_to_4 = Upsampling(classes, classes, 2)
        self.project = nn.Conv2d(middle, classes, 1, bias=False)
        self.fuse = nn.Sequential(BatchNormPReLU(2 * classes, batch_norm), module(2 * classes, classes, 1))
        self.up_to_2 = Upsampling(classes, classes, 2)
        self.middle = BatchNormPReLU(classes, batch_norm)
        self.refine = ConvBatchNormPReLU(fine + classes, classes, 1, batch_norm)
        self.up_to_1 = Upsampling(classes, classes, 2)

    def forward(self, logits: Tensor, stage1: Tensor, stage2: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, classes, h_8, w_8) and the features at strides 2 and 4 -> (N, classes, H, W), with `size` (H, W)"""
        x = self.up_to_4(self.coarse(logits), (stage2.shape[-2], stage2.shape[-1]))
        x = self.fuse(torch.cat([self.project(stage2), x], dim=1))  # (N, classes, h_4, w_4)
        x = self.middle(self.up_to_2(x, (stage1.shape[-2], stage1.shape[-1])))
        x = self.refine(torch.cat([x, stage1], dim=1))  # (N, classes, h_2, w_2)
        return self.up_to_1(x, size)


class ESPNetC(SegmentationNetwork):
    """ESPNet-C, the encoder with a classifier at stride 8: (N, 3, H, W) -> (N, classes, H, W).

    Args:
        classes: Number of classes.
        config: Momentum, and settings of FPL modules; None: the paper's.
        modules: Number of modules after the first in stages 2 and 3.
        module: Kind of the modules of encoder and decoder.

    Attributes:
        feature_info: Channels and stride of each stage's output, in the order of `features`.

    Raises:
        ValueError: `classes` is below 1.
    """

    head = ("classifier",)

    def __init__(
        self,
        classes: int,
        config: CommonSettings | None = None,
        modules: tuple[int, int] = (2, 8),
        module: ModuleKind = "esp",
    ) -> None:
        config = config or CommonSettings()
        super().__init__(classes, config.image_channels)
        batch_norm = batch_norm_factory(config)
        factory = module_factory(module, batch_norm, config.operation_settings())
        self.encoder = Encoder(factory, modules, batch_norm, self.channels)
        self.feature_info = self.encoder.feature_info
        self.classifier = nn.Conv2d(self.feature_info[-1].channels, classes, 1, bias=False)
        self._end(factory, batch_norm)

    def _end(self, module: ModuleFactory, batch_norm: BatchNormFactory) -> None:
        """Builds the parts after the classifier: none."""

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the outputs of the stages, "stage1" to "stage3", at strides 2, 4 and 8."""
        return {f"stage{number}": output for number, output in enumerate(self.encoder(x), start=1)}

    def logits(self, x: Tensor) -> Tensor:
        return self.classifier(self.encoder(x)[-1])


class ESPNet(ESPNetC):
    """ESPNet-C and a decoder, with the arguments, shapes and errors of `ESPNetC`.

    The decoder starts from the logits of ESPNet-C, whose weights, including the classifier's, keep their names.
    """

    head = ("decoder",)

    def _end(self, module: ModuleFactory, batch_norm: BatchNormFactory) -> None:
        self.decoder = Decoder(self.feature_info, self.classes, module, batch_norm)

    def logits(self, x: Tensor) -> Tensor:
        stage1, stage2, stage3 = self.encoder(x)
        return self.decoder(self.classifier(stage3), stage1, stage2, (x.shape[-2], x.shape[-1]))
