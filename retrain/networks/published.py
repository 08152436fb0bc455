"""Published networks by name. No torch, as `--help` lists the names; a record's `build` imports the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
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


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of a paper: everything that the rest of the toolkit knows about it."""

    name: str
    paper: str
    """Authors, title, venue, table."""
    build: Callable[[int, NetworkConfig], SegmentationNetwork]
    """`build(classes, config)` -> network (N, C, H, W) -> (N, classes, H, W), with C = `config.image_channels`."""
    description: str
    """One line, for lists."""
    settings: frozenset[str]
    """The fields of `NetworkConfig` that it reads."""
    classes: int
    """Number of classes in the paper's count of parameters."""
    printed: str | None = None
    """Number of parameters as the paper prints it; None: it prints none."""
    ablation: bool = False
    """Whether it is a variant for a comparison, which lists name in a row."""


NETWORKS: Registry[PublishedNetwork] = Registry("published network")


def main_names() -> list[str]:
    """Returns the names of the published networks without ablations."""
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
        return resolve_name(f"retrain.networks.{where}")(number, config, **arguments)

    record = PublishedNetwork(name, paper, build, description, settings, classes, printed, ablation)
    NETWORKS.register(name, record)


_auto_deeplab = partial(_register, where="deeplab:published", paper=AUTO_DEEPLAB, settings=DEEPLAB_SETTINGS, classes=19)
_auto_deeplab("auto-deeplab-s", "Auto-DeepLab-S: F = 20", "10.15 M", filter_multiplier=20)
_auto_deeplab("auto-deeplab-m", "Auto-DeepLab-M: F = 32", "21.62 M", filter_multiplier=32)
_auto_deeplab("auto-deeplab-l", "Auto-DeepLab-L: F = 48", "44.42 M", filter_multiplier=48)


V3, DECODER = names(BackboneSettings, ASPPSettings), names(DecoderSettings)
V3_LI = V3 | names(LISettings)
BLOCKS, UNITS = (10, 13, 16), ("conv5_3",)

_deeplab_v3 = partial(_register, where="deeplab_v3:DeepLabV3", paper=LI_CONVS, classes=21)
_mobilenet = partial(_deeplab_v3, backbone="mobilenet_v2")
_inhibited_mobilenet = partial(_mobilenet, settings=V3_LI | {"li_blocks"}, li_blocks=BLOCKS)
_mobilenet("mnv2-aspp", "DeepLabv3: MobileNetV2, ASPP, output stride 16", "2568.02 K", settings=V3)
_mobilenet(
    "mnv2-li-aspp", "DeepLabv3: MobileNetV2, LI-ASPP, output stride 16", "2568.98 K", settings=V3_LI, li_aspp=True
)
_inhibited_mobilenet("li-mnv2-aspp", "DeepLabv3: LI-MobileNetV2, ASPP, output stride 16", "2569.94 K")
# The table prints 2570.52 K, which is li_blocks [13, 16].
_inhibited_mobilenet("li-mnv2-li-aspp", "DeepLabv3: LI-MobileNetV2, LI-ASPP, output stride 16", li_aspp=True)

_resnet = partial(_deeplab_v3, backbone="resnet50", settings=V3)
_decoder = partial(_resnet, settings=V3 | DECODER, decoder=True)
_li_resnet = partial(_resnet, settings=V3_LI, li_aspp=True, li_units=UNITS)
_li_decoder = partial(_li_resnet, settings=V3_LI | DECODER, decoder=True)
_resnet("resnet50-aspp", "DeepLabv3: ResNet-50, ASPP, output stride 16", "26656 K")
_li_resnet("li-resnet50-li-aspp", "DeepLabv3: LI-ResNet-50, LI-ASPP, output stride 16", "26663 K")
_decoder("resnet50-aspp-decoder", "DeepLabv3+: ResNet-50, ASPP, decoder, output stride 16", "26819 K")
_li_decoder("li-resnet50-li-aspp-decoder", "DeepLabv3+: LI-ResNet-50, LI-ASPP, decoder, output stride 16", "26826 K")
# The same with torchvision's stem of one 7x7 convolution, which its ImageNet weights fit.
PLAIN: dict[str, Any] = {"stem": "plain", "ablation": True}
_resnet("resnet50-aspp-plain-stem", "resnet50-aspp with torchvision's stem", **PLAIN)
_li_resnet("li-resnet50-li-aspp-plain-stem", "li-resnet50-li-aspp with torchvision's stem", **PLAIN)
_decoder("resnet50-aspp-decoder-plain-stem", "resnet50-aspp-decoder with torchvision's stem", **PLAIN)
_li_decoder("li-resnet50-li-aspp-decoder-plain-stem", "li-resnet50-li-aspp-decoder with torchvision's stem", **PLAIN)

_deeplab_v2 = partial(
    _register, where="deeplab_v2:DeepLabV2", paper=SMOOTHING, settings=names(DeepLabV2Settings), classes=21
)
_V2 = "output stride 8, any smoothing of its dilated convolutions"
_deeplab_v2("deeplabv2-resnet50", f"DeepLabv2: ResNet-50, {_V2}", units=(3, 4, 6, 3))
_deeplab_v2("deeplabv2-resnet101", f"DeepLabv2: ResNet-101, {_V2}", units=(3, 4, 23, 3))

_fplnet = partial(_register, paper=FPLNET, settings=names(FPLNetSettings), classes=20)
_fplnet(
    "fplnet-encoder",
    "FPLNet's encoder: FPL modules, FIR units, classifier at stride 8",
    "419.994 K",
    where="fplnet:FPLNetEncoder",
)
_fplnet("fplnet", "FPLNet: the encoder and the sequential decoder", "0.49 M", where="fplnet:FPLNet")
# Tables VI to X of the paper, which compare encoders.
_espnet_c = partial(_fplnet, where="espnet:ESPNetC", ablation=True)
_espnet_c("espnet-c-fpl", "ESPNet-C of FPL modules (Table VI)", "0.38 M", module="fpl")
_encoder = partial(_fplnet, where="fplnet:FPLNetEncoder", ablation=True)
_encoder(
    "fplnet-encoder-esp", "encoder: of ESP modules (Table VI)", "0.38 M", settings=names(CommonSettings), module="esp"
)
_encoder(
    "fplnet-encoder-hasty-stem", "encoder: one convolution in stage 1, not three (Table VII)", "0.40 M", hasty_stem=True
)
_encoder("fplnet-encoder-if", "encoder: IF in place of FIR (Table VIII)", "414.810 K", fusion="if")
_encoder("fplnet-encoder-isff-add", "encoder: ISFF by addition (Table VIII)", "414.636 K", fusion="isff-add")
_encoder("fplnet-encoder-isff-concat", "encoder: ISFF by concatenation (Table VIII)", "419.820 K", fusion="isff-concat")
_encoder(
    "fplnet-encoder-if+isff-add", "encoder: IF and ISFF by addition (Table VIII)", "414.810 K", fusion="if+isff-add"
)
_encoder(
    "fplnet-encoder-if+isff-concat", "encoder: IF and ISFF joined (Table VIII)", "419.994 K", fusion="if+isff-concat"
)
_encoder("fplnet-encoder-modules-2-6", "encoder: 2 and 6 modules (Table IX)", "0.32 M", modules=(2, 6))
_encoder("fplnet-encoder-modules-2-8", "encoder: 2 and 8 modules (Table IX)", "0.40 M", modules=(2, 8))
_encoder("fplnet-encoder-modules-2-10", "encoder: 2 and 10 modules (Table IX)", "0.47 M", modules=(2, 10))
_encoder("fplnet-encoder-modules-2-12", "encoder: 2 and 12 modules (Table IX)", "0.57 M", modules=(2, 12))
_encoder("fplnet-encoder-modules-4-6", "encoder: 4 and 6 modules (Table IX)", "0.34 M", modules=(4, 6))
_encoder("fplnet-encoder-modules-4-10", "encoder: 4 and 10 modules (Table IX)", "0.49 M", modules=(4, 10))
_encoder("fplnet-encoder-modules-4-12", "encoder: 4 and 12 modules (Table IX)", "0.57 M", modules=(4, 12))
_encoder("fplnet-encoder-factorization-none", "encoder: no 3x3 split (Table X)", "0.54 M", factorization="none")
_encoder("fplnet-encoder-factorization-all", "encoder: every 3x3 split (Table X)", "0.38 M", factorization="all")

_espnet = partial(_register, paper=ESPNET, settings=names(CommonSettings), classes=20)
_espnet("espnet-c", "ESPNet-C: the encoder of ESPNet, classifier at stride 8", "0.34 M", where="espnet:ESPNetC")
_espnet("espnet", "ESPNet: the encoder and its decoder", "0.36 M", where="espnet:ESPNet")
