"""Published networks by name. No torch: the names stand in `--help`; a record's `build` imports what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from retrain.networks.settings import (
    ASPPSettings,
    BackboneSettings,
    CommonSettings,
    DecoderSettings,
    DeepLabSettings,
    DeepLabV2Settings,
    FPLNetSettings,
    LISettings,
    NetworkConfig,
    names,
)
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from retrain.networks.base import SegmentationNetwork

__all__ = ["DEEPLAB_SETTINGS", "NETWORKS", "PublishedNetwork", "main_names"]

AUTO_DEEPLAB = (
    "Liu, Chen, Schroff, Adam, Hua, Yuille, Fei-Fei: Auto-DeepLab: Hierarchical Neural Architecture Search for "
    "Semantic Image Segmentation, CVPR 2019, Table 2"
)
LI_CONVS = (
    "Wang, Dong, Shen, Lin, Pantic: Dilated Convolutions with Lateral Inhibitions for Semantic Image Segmentation, "
    "2020, Tables 4 and 5"
)
SMOOTHING = (
    "Ziegler, Fritsche, Kuhn, Donhauser: Efficient Smoothing of Dilated Convolutions for Image Segmentation, 2019"
)
FPLNET = (
    "Atif, Mazhar, Sarma, Bhuyan, Ahamed: Efficient Context Integration through Factorized Pyramidal Learning for "
    "Ultra-Lightweight Semantic Segmentation, 2023, Tables II and VIII"
)
ESPNET = (
    "Mehta, Rastegari, Caspi, Shapiro, Hajishirzi: ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for "
    "Semantic Segmentation, ECCV 2018"
)

DEEPLAB_SETTINGS = names(DeepLabSettings)
DEEPLAB_V3_SETTINGS = names(BackboneSettings, ASPPSettings)
LI_SETTINGS = names(LISettings)
DECODER_SETTINGS = names(DecoderSettings)


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of a paper: all that the rest of the toolkit knows of it."""

    name: str
    paper: str
    """Authors, title, venue, table."""
    build: Callable[[int, NetworkConfig], SegmentationNetwork]
    """`build(classes, config)` -> network (N, 3, H, W) -> (N, classes, H, W)."""
    description: str
    """One line, for lists."""
    settings: frozenset[str]
    """The fields of `NetworkConfig` that it reads."""
    classes: int
    """Number of classes in the paper's count of parameters."""
    printed: str | None = None
    """Number of parameters as the paper prints it; None: it prints none."""
    ablation: bool = False
    """Whether it is a variant, for a comparison: lists have the names of these in a row."""


NETWORKS: Registry[PublishedNetwork] = Registry("published network")


def main_names() -> list[str]:
    """The names of the published networks without the variants for comparisons."""
    return [name for name in NETWORKS if not NETWORKS[name].ablation]


def _register(
    name: str,
    description: str,
    printed: str | None = None,
    *,
    where: str,
    paper: str,
    settings: frozenset[str],
    classes: int,
    ablation: bool = False,
    **arguments: Any,
) -> None:
    """Registers a network that `where`, "module:callable" in this package, builds from (classes, config, arguments)."""

    def build(number: int, config: NetworkConfig) -> SegmentationNetwork:
        module, _, function = where.partition(":")
        return getattr(import_module(f"retrain.networks.{module}"), function)(number, config, **arguments)

    record = PublishedNetwork(name, paper, build, description, settings, classes, printed, ablation)
    NETWORKS.register(name, record)


_auto_deeplab = partial(_register, where="deeplab:published", paper=AUTO_DEEPLAB, settings=DEEPLAB_SETTINGS, classes=19)
_auto_deeplab("auto-deeplab-s", "Auto-DeepLab-S: F = 20", "10.15 M", filter_multiplier=20)
_auto_deeplab("auto-deeplab-m", "Auto-DeepLab-M: F = 32", "21.62 M", filter_multiplier=32)
_auto_deeplab("auto-deeplab-l", "Auto-DeepLab-L: F = 48", "44.42 M", filter_multiplier=48)


_deeplab_v3 = partial(_register, where="deeplab_v3:DeepLabV3", paper=LI_CONVS, classes=21)
_mobilenet = partial(_deeplab_v3, backbone="mobilenet_v2")
_resnet = partial(_deeplab_v3, backbone="resnet50")
LI_BLOCKS = (10, 13, 16)
LI_UNITS = ("conv5_3",)

_mobilenet(
    "mnv2-aspp",
    "DeepLabv3: MobileNetV2, ASPP, output stride 16",
    "2568.02 K",
    settings=DEEPLAB_V3_SETTINGS,
)
_mobilenet(
    "mnv2-li-aspp",
    "DeepLabv3: MobileNetV2, LI-ASPP, output stride 16",
    "2568.98 K",
    settings=DEEPLAB_V3_SETTINGS | LI_SETTINGS,
    li_aspp=True,
)
_mobilenet(
    "li-mnv2-aspp",
    "DeepLabv3: LI-MobileNetV2, ASPP, output stride 16",
    "2569.94 K",
    settings=DEEPLAB_V3_SETTINGS | LI_SETTINGS | {"li_blocks"},
    li_blocks=LI_BLOCKS,
)
_mobilenet(
    "li-mnv2-li-aspp",  # the table prints 2570.52 K, which is li_blocks [13, 16]
    "DeepLabv3: LI-MobileNetV2, LI-ASPP, output stride 16",
    settings=DEEPLAB_V3_SETTINGS | LI_SETTINGS | {"li_blocks"},
    li_blocks=LI_BLOCKS,
    li_aspp=True,
)
_resnet(
    "resnet50-aspp",
    "DeepLabv3: ResNet-50, ASPP, output stride 16",
    "26656 K",
    settings=DEEPLAB_V3_SETTINGS,
)
_resnet(
    "li-resnet50-li-aspp",
    "DeepLabv3: LI-ResNet-50, LI-ASPP, output stride 16",
    "26663 K",
    settings=DEEPLAB_V3_SETTINGS | LI_SETTINGS,
    li_units=LI_UNITS,
    li_aspp=True,
)
_resnet(
    "resnet50-aspp-decoder",
    "DeepLabv3+: ResNet-50, ASPP, decoder, output stride 16",
    "26819 K",
    settings=DEEPLAB_V3_SETTINGS | DECODER_SETTINGS,
    decoder=True,
)
_resnet(
    "li-resnet50-li-aspp-decoder",
    "DeepLabv3+: LI-ResNet-50, LI-ASPP, decoder, output stride 16",
    "26826 K",
    settings=DEEPLAB_V3_SETTINGS | LI_SETTINGS | DECODER_SETTINGS,
    li_units=LI_UNITS,
    li_aspp=True,
    decoder=True,
)
# The same with torchvision's 7x7 stem, which its ImageNet weights fit.
_plain_stem = partial(_resnet, ablation=True, stem="plain")
_plain_stem(
    "resnet50-aspp-plain-stem",
    "resnet50-aspp with torchvision's 7x7 stem",
    settings=DEEPLAB_V3_SETTINGS,
)
_plain_stem(
    "li-resnet50-li-aspp-plain-stem",
    "li-resnet50-li-aspp with torchvision's 7x7 stem",
    settings=DEEPLAB_V3_SETTINGS | LI_SETTINGS,
    li_units=LI_UNITS,
    li_aspp=True,
)
_plain_stem(
    "resnet50-aspp-decoder-plain-stem",
    "resnet50-aspp-decoder with torchvision's 7x7 stem",
    settings=DEEPLAB_V3_SETTINGS | DECODER_SETTINGS,
    decoder=True,
)
_plain_stem(
    "li-resnet50-li-aspp-decoder-plain-stem",
    "li-resnet50-li-aspp-decoder with torchvision's 7x7 stem",
    settings=DEEPLAB_V3_SETTINGS | LI_SETTINGS | DECODER_SETTINGS,
    li_units=LI_UNITS,
    li_aspp=True,
    decoder=True,
)


_deeplab_v2 = partial(
    _register, where="deeplab_v2:DeepLabV2", paper=SMOOTHING, settings=names(DeepLabV2Settings), classes=21
)
_deeplab_v2(
    "deeplabv2-resnet50",
    "DeepLabv2: ResNet-50, output stride 8, any smoothing of its dilated convolutions",
    units=(3, 4, 6, 3),
)
_deeplab_v2(
    "deeplabv2-resnet101",
    "DeepLabv2: ResNet-101, output stride 8, any smoothing of its dilated convolutions",
    units=(3, 4, 23, 3),
)


_fplnet = partial(_register, paper=FPLNET, settings=names(FPLNetSettings), classes=20)
_fplnet(
    "fplnet-encoder",
    "FPLNet's encoder: FPL modules, FIR units, classifier at stride 8",
    "419.994 K",
    where="fplnet:FPLNetEncoder",
)
_fplnet("fplnet", "FPLNet: the encoder and the sequential decoder", "0.49 M", where="fplnet:FPLNet")
# Tables VI to X of the paper, which compare encoders.
_encoder = partial(_fplnet, where="fplnet:FPLNetEncoder", ablation=True)
_fplnet("espnet-c-fpl", "ESPNet-C of FPL modules", "0.38 M", where="espnet:ESPNetC", ablation=True, module="fpl")
_encoder("fplnet-encoder-esp", "of ESP modules", "0.38 M", settings=names(CommonSettings), module="esp")
_encoder("fplnet-encoder-hasty-stem", "with one convolution at half resolution", "0.40 M", hasty_stem=True)
_encoder("fplnet-encoder-if", "stages closed by image fusion", "414.810 K", fusion="if")
_encoder("fplnet-encoder-isff-add", "stages closed by added features", "414.636 K", fusion="isff-add")
_encoder("fplnet-encoder-isff-concat", "stages closed by joined features", "419.820 K", fusion="isff-concat")
_encoder("fplnet-encoder-if+isff-add", "added features and the image", "414.810 K", fusion="if+isff-add")
_encoder("fplnet-encoder-if+isff-concat", "joined features and the image", "419.994 K", fusion="if+isff-concat")
_encoder("fplnet-encoder-modules-2-6", "2 and 6 modules", "0.32 M", modules=(2, 6))
_encoder("fplnet-encoder-modules-2-8", "2 and 8 modules", "0.40 M", modules=(2, 8))
_encoder("fplnet-encoder-modules-2-10", "2 and 10 modules", "0.47 M", modules=(2, 10))
_encoder("fplnet-encoder-modules-2-12", "2 and 12 modules", "0.57 M", modules=(2, 12))
_encoder("fplnet-encoder-modules-4-6", "4 and 6 modules", "0.34 M", modules=(4, 6))
_encoder("fplnet-encoder-modules-4-10", "4 and 10 modules", "0.49 M", modules=(4, 10))
_encoder("fplnet-encoder-modules-4-12", "4 and 12 modules", "0.57 M", modules=(4, 12))
_encoder("fplnet-encoder-factorization-none", "no convolution split", "0.54 M", factorization="none")
_encoder("fplnet-encoder-factorization-all", "all 3x3 convolutions split", "0.38 M", factorization="all")


_espnet = partial(_register, paper=ESPNET, settings=names(CommonSettings), classes=20)
_espnet("espnet-c", "ESPNet-C: the encoder of ESPNet, classifier at stride 8", "0.34 M", where="espnet:ESPNetC")
_espnet("espnet", "ESPNet: the encoder and its decoder", "0.36 M", where="espnet:ESPNet")
