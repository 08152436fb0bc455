"""FPLNet: an encoder of FPL modules whose stages are closed by FIR units, and a sequential decoder.

Shapes: N images of H x W pixels; C channels; h_s x w_s pixels at stride s, each stride's size half the one before,
rounded up. The decoder restores the sizes that the encoder recorded: no size need be divisible by anything.

Source: FPLNet (Atif et al., 2023), section III-B, Figure 4 and Table II. Its numbers of parameters settle what the text
leaves open: 419,994 for the encoder at 20 classes (Table VIII).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from retrain.networks.base import FeatureInfo, SegmentationNetwork
from retrain.networks.blocks import FUSIONS, FusionUnit, halve
from retrain.networks.settings import CommonSettings, FPLNetSettings
from search_spaces.factorized import ESP, FPL, BatchNormPReLU
from search_spaces.modules import BatchNorm, BatchNormFactory
from search_spaces.settings import OperationSettings

__all__ = [
    "INITIAL_CHANNELS",
    "ConvBatchNormPReLU",
    "FPLNet",
    "FPLNetEncoder",
    "InitialModule",
    "ModuleFactory",
    "ModuleKind",
    "SequentialDecoder",
    "Upsampling",
    "batch_norm_factory",
    "module_factory",
]

ModuleKind = Literal["fpl", "esp"]
ModuleFactory = Callable[[int, int, int], nn.Module]
"""`module(channels_in, channels_out, stride)` -> module (N, channels_in, H, W) -> (N, channels_out, h, w)."""

EPS, DEFAULT_MOMENTUM = 1e-3, 0.1
INITIAL_CHANNELS, STAGE_CHANNELS = 32, (64, 128)
DECODER_CHANNELS, LAST_DECODER_CHANNELS, DECODER_MODULES = 64, 16, 2


def batch_norm_factory(config: CommonSettings) -> BatchNormFactory:
    """Returns the factory for the batch norms of FPLNet and ESPNet."""
    momentum = DEFAULT_MOMENTUM if config.batch_norm_momentum is None else config.batch_norm_momentum
    return partial(BatchNorm, eps=EPS, momentum=momentum)


def module_factory(
    kind: ModuleKind, batch_norm: BatchNormFactory, settings: OperationSettings, factorization: str = "composite"
) -> ModuleFactory:
    """Returns the factory for the modules of stages and decoder; ESP modules read neither of the last two arguments."""
    if kind == "esp":
        return lambda channels_in, channels_out, stride: ESP(channels_in, channels_out, batch_norm, stride)
    return lambda channels_in, channels_out, stride: FPL(
        channels_in, channels_out, batch_norm, stride, settings.fpl_rates, settings.fpl_fusion, factorization
    )


class ConvBatchNormPReLU(nn.Module):
    """3x3 convolution without bias, batch norm, PReLU: (N, C_in, H, W) -> (N, C_out, h, w)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.output = BatchNormPReLU(channels_out, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.convolution(x))


class InitialModule(nn.Module):
    """Stage 1: 3x3 convolutions joined by the image, PReLU, batch norm, PReLU: (N, 3, H, W) -> (N, 35, h, w).

    With `image_channels` other than 3, there are 32 more than those.

    The PReLU in front of the batch norm is not in the paper, but in its number of parameters and in the later networks
    of its first author. The paper's strides are 2, 1, 1.
    """

    def __init__(self, strides: Sequence[int], batch_norm: BatchNormFactory, image_channels: int = 3) -> None:
        super().__init__()
        self.channels_out = INITIAL_CHANNELS + image_channels
        self.halvings = sum(stride == 2 for stride in strides)
        widths = (image_channels,) + (INITIAL_CHANNELS,) * len(strides)
        self.convolutions = nn.Sequential(
            *(
                ConvBatchNormPReLU(width, INITIAL_CHANNELS, stride, batch_norm)
                for width, stride in zip(widths[:-1], strides, strict=True)
            )
        )
        self.activation = nn.PReLU(self.channels_out)
        self.output = BatchNormPReLU(self.channels_out, batch_norm)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.cat([self.convolutions(image), halve(image, self.halvings)], dim=1)  # (N, 35, h, w)
        return self.output(self.activation(x))


class Stage(nn.Module):
    """A module that halves the sides, `count` modules that keep them, and a fusion unit of `FUSIONS`."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        count: int,
        fusion: str,
        module: ModuleFactory,
        batch_norm: BatchNormFactory,
        image_channels: int,
    ) -> None:
        super().__init__()
        self.down = module(channels_in, channels, 2)
        self.body = nn.Sequential(*(module(channels, channels, 1) for _ in range(count)))
        self.fusion = FusionUnit(FUSIONS[fusion], channels, batch_norm, image_channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """(N, channels_in, H, W) and the image (N, 3, h, w) -> (N, fusion.channels_out, h, w)"""
        shallow = self.down(x)
        return self.fusion(shallow, self.body(shallow), image)


class Encoder(nn.Module):
    """The three stages: images (N, 3, H, W) -> [(N, C, h_s, w_s) for s in 2, 4, 8].

    `modules` follow the first in each of the last two stages; with `hasty_stem` the initial module has one convolution
    instead of three.
    """

    def __init__(
        self,
        module: ModuleFactory,
        modules: tuple[int, int],
        fusion: str,
        hasty_stem: bool,
        batch_norm: BatchNormFactory,
        image_channels: int,
    ) -> None:
        super().__init__()
        self.initial = InitialModule((2,) if hasty_stem else (2, 1, 1), batch_norm, image_channels)
        self.feature_info = [FeatureInfo(self.initial.channels_out, 2)]
        self.stages = nn.ModuleList()
        for channels, count in zip(STAGE_CHANNELS, modules, strict=True):
            before = self.feature_info[-1]
            stage = Stage(before.channels, channels, count, fusion, module, batch_norm, image_channels)
            self.stages.append(stage)
            self.feature_info.append(FeatureInfo(stage.fusion.channels_out, 2 * before.stride))

    def forward(self, image: Tensor) -> list[Tensor]:
        outputs, image = [self.initial(image)], halve(image)
        for stage in self.stages:
            image = halve(image)
            outputs.append(stage(outputs[-1], image))
        return outputs


class Upsampling(nn.ConvTranspose2d):
    """Transposed convolution of 2x2 or 3x3 at stride 2, no bias, cropped: (N, C_in, h, w) -> (N, C_out, *size)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        odd = kernel % 2
        super().__init__(channels_in, channels_out, kernel, 2, padding=odd, output_padding=odd, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        return super().forward(x)[..., : size[0], : size[1]]  # cropped from (N, C_out, 2h, 2w), where a side was odd


class Upsampler(nn.Module):
    """Transposed convolution, batch norm, PReLU, then modules: (N, C_in, h, w) -> (N, C, *size)."""

    def __init__(self, channels_in: int, channels: int, module: ModuleFactory, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.upsampling = Upsampling(channels_in, channels, 3)
        self.output = BatchNormPReLU(channels, batch_norm)
        self.body = nn.Sequential(*(module(channels, channels, 1) for _ in range(DECODER_MODULES)))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.body(self.output(self.upsampling(x, size)))


class SequentialDecoder(nn.Module):
    """FPLNet's decoder, from any stride to the image's size: (N, C_in, h, w) -> (N, classes, H, W).

    A 1x1 projection to 64 channels; upsamplers to 64 channels, the last of them to 16, each followed by two modules; a
    transposed convolution to the classes. At stride 1 there is only a 1x1 convolution to the classes.

    The paper prints no kernel sizes. Upsamplers of 3x3 and a last convolution of 2x2, without biases, give 499,758
    parameters at 20 classes, as the paper's "0.49 M" and "less than 0.5 M".

    Args:
        channels_in: C_in.
        stride: Stride of the input in pixels of the image; a power of two.
        classes: Number of classes.
        module: Factory for the modules.
        batch_norm: Factory for the batch norms.
    """

    def __init__(
        self, channels_in: int, stride: int, classes: int, module: ModuleFactory, batch_norm: BatchNormFactory
    ) -> None:
        super().__init__()
        self.upsamplers = nn.ModuleList()
        halvings = stride.bit_length() - 1
        if halvings == 0:
            self.projection: nn.Module = nn.Identity()
            self.classifier: nn.Module = nn.Conv2d(channels_in, classes, 1, bias=False)
            return
        self.projection = nn.Conv2d(channels_in, DECODER_CHANNELS, 1, bias=False)
        widths = [DECODER_CHANNELS] * max(1, halvings - 1) + [LAST_DECODER_CHANNELS] * (halvings > 1)
        for before, width in pairwise(widths):
            self.upsamplers.append(Upsampler(before, width, module, batch_norm))
        self.classifier = Upsampling(widths[-1], classes, 2)

    def forward(self, x: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Maps x to logits.

        Args:
            x: (N, C_in, h, w).
            sizes: (H, W) at strides 1, 2 and so on, up to half the stride of x; empty at stride 1.
        """
        x = self.projection(x)
        if not sizes:
            return self.classifier(x)
        for upsampler, size in zip(self.upsamplers, reversed(sizes[1:]), strict=True):
            x = upsampler(x, size)
        return self.classifier(x, sizes[0])


class _FPLNetwork(SegmentationNetwork):
    """Encoder and features of FPLNet, without the parts after them."""

    def __init__(
        self,
        classes: int,
        config: FPLNetSettings | None = None,
        modules: tuple[int, int] = (4, 8),
        module: ModuleKind = "fpl",
        fusion: str = "fir",
        factorization: str = "composite",
        hasty_stem: bool = False,
    ) -> None:
        config = config or FPLNetSettings()
        super().__init__(classes, config.image_channels)
        batch_norm = batch_norm_factory(config)
        factory = module_factory(module, batch_norm, config.operation_settings(), factorization)
        self.encoder = Encoder(factory, modules, fusion, hasty_stem, batch_norm, self.channels)
        self.feature_info = self.encoder.feature_info
        self._end(*self.feature_info[-1], factory, batch_norm)

    def _end(self, channels: int, stride: int, module: ModuleFactory, batch_norm: BatchNormFactory) -> None:
        """Builds the parts after the encoder, whose last output has these channels and this stride."""
        raise NotImplementedError

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to the outputs of the stages, "stage1" to "stage3", at strides 2, 4 and 8."""
        return {f"stage{number}": output for number, output in enumerate(self.encoder(x), start=1)}


class FPLNetEncoder(_FPLNetwork):
    """The encoder with a classifier at stride 8: (N, 3, H, W) -> (N, classes, H, W).

    The paper trains it first, then the whole network from its weights.

    Args:
        classes: Number of classes.
        config: FPL modules and momentum; None: the paper's.
        modules: Number of modules after the first in stages 2 and 3 (Table IX).
        module: Kind of the modules of encoder and decoder (Table VI); ESP modules read no setting of FPL modules.
        fusion: Unit that closes a stage, one of `FUSIONS` (Table VIII).
        factorization: 3x3 convolutions of an FPL module that are split, as in `FactorizedPyramid` (Table X).
        hasty_stem: Whether the two extra convolutions at half resolution are left out (Table VII).

    Attributes:
        feature_info: Channels and stride of each stage's output, in the order of `features`.

    Raises:
        ValueError: `classes` is below 1.
    """

    head = ("classifier",)

    def _end(self, channels: int, stride: int, module: ModuleFactory, batch_norm: BatchNormFactory) -> None:
        self.classifier = nn.Conv2d(channels, self.classes, 1, bias=False)

    def logits(self, x: Tensor) -> Tensor:
        return self.classifier(self.encoder(x)[-1])


class FPLNet(_FPLNetwork):
    """The encoder, its weights named as in `FPLNetEncoder`, and the decoder, with the same arguments and errors."""

    head = ("decoder",)

    def _end(self, channels: int, stride: int, module: ModuleFactory, batch_norm: BatchNormFactory) -> None:
        self.decoder = SequentialDecoder(channels, stride, self.classes, module, batch_norm)

    def logits(self, x: Tensor) -> Tensor:
        outputs = self.encoder(x)
        sizes = [(tensor.shape[-2], tensor.shape[-1]) for tensor in (x, *outputs[:-1])]
        return self.decoder(outputs[-1], sizes)
