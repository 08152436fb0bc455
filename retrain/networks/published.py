"""Published networks by name. No torch: the names stand in `--help`; a record's `build` imports what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from retrain.network_config import (
    ASPP_SETTINGS,
    LI_SETTINGS,
    PYRAMID_SETTINGS,
    SMOOTHING_SETTINGS,
    NetworkConfig,
)
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from retrain.networks.base import SegmentationNetwork

__all__ = ["NETWORKS", "PublishedNetwork"]

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

DEEPLAB_SETTINGS = (
    frozenset({"filter_multiplier", "stem_channels", "aspp", "decoder_channels", "low_level_channels"})
    | frozenset({"drop_path_keep"})
    | ASPP_SETTINGS
    | LI_SETTINGS
    | SMOOTHING_SETTINGS
    | PYRAMID_SETTINGS
)
"""What a DeepLab-style network of a genotype reads."""
SEARCHED_FPLNET_SETTINGS = (
    frozenset({"filter_multiplier", "drop_path_keep"})
    | LI_SETTINGS
    | PYRAMID_SETTINGS
    | SMOOTHING_SETTINGS - {"smoothing"}
)
"""What an FPLNet-style network of a genotype reads."""
FPL_SETTINGS = PYRAMID_SETTINGS | {"modules", "module", "fusion", "factorization"}


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
    """The fields of `NetworkConfig` that it reads, besides those that all networks read."""
    classes: int
    """Number of classes in the paper's count of parameters."""
    printed: str | None = None
    """Number of parameters as the paper prints it; None: it prints none."""


NETWORKS: Registry[PublishedNetwork] = Registry("published network")


def _register(
    name: str,
    paper: str,
    description: str,
    settings: frozenset[str],
    classes: int,
    printed: str | None,
    where: str,
    **arguments: Any,
) -> None:
    """Registers a network that `where`, "module:callable" in this package, builds from (classes, config, arguments)."""

    def build(number: int, config: NetworkConfig) -> SegmentationNetwork:
        module, _, function = where.partition(":")
        return getattr(import_module(f"retrain.networks.{module}"), function)(number, config, **arguments)

    NETWORKS.register(name, PublishedNetwork(name, paper, build, description, settings, classes, printed))


def _register_auto_deeplab(suffix: str, multiplier: int, size: str) -> None:
    def build(classes: int, config: NetworkConfig) -> SegmentationNetwork:
        from retrain.networks.deeplab import DeepLab
        from search_spaces.published import auto_deeplab

        if config.filter_multiplier is None:
            config = dataclasses.replace(config, filter_multiplier=multiplier)
        return DeepLab(auto_deeplab(), classes, config)

    name = f"auto-deeplab-{suffix}"
    description = f"Auto-DeepLab-{suffix.upper()}: F = {multiplier}"
    NETWORKS.register(name, PublishedNetwork(name, AUTO_DEEPLAB, build, description, DEEPLAB_SETTINGS, 19, f"{size} M"))


for _suffix, _multiplier, _size in (("s", 20, "10.15"), ("m", 32, "21.62"), ("l", 48, "44.42")):
    _register_auto_deeplab(_suffix, _multiplier, _size)


def _register_deeplab_v3(name: str, printed: str | None, backbone: str) -> None:
    inhibited, li_aspp, decoder = name.startswith("li-"), "-li-aspp" in name, name.endswith("-decoder")
    settings = ASPP_SETTINGS | {"backbone_weights"}
    if inhibited or li_aspp:
        settings |= LI_SETTINGS
    if inhibited:
        settings |= {"li_blocks" if backbone == "mobilenet_v2" else "li_units"}
    if backbone == "resnet50":
        settings |= {"resnet_stem"}
    if decoder:
        settings |= {"decoder_channels", "low_level_channels"}
    label = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet-50"}[backbone]
    description = (
        f"DeepLabv3{'+' * decoder}: {'LI-' * inhibited}{label}, {'LI-' * li_aspp}ASPP{', decoder' * decoder}, "
        "output stride 16"
    )
    _register(
        name,
        LI_CONVS,
        description,
        frozenset(settings),
        21,
        printed,
        "deeplab_v3:DeepLabV3",
        backbone=backbone,
        inhibited=inhibited,
        li_aspp=li_aspp,
        decoder=decoder,
    )


for _name, _printed, _backbone in (
    ("mnv2-aspp", "2568.02 K", "mobilenet_v2"),
    ("mnv2-li-aspp", "2568.98 K", "mobilenet_v2"),
    ("li-mnv2-aspp", "2569.94 K", "mobilenet_v2"),
    ("li-mnv2-li-aspp", None, "mobilenet_v2"),  # the table prints 2570.52 K, which is li_blocks [13, 16]
    ("resnet50-aspp", "26656 K", "resnet50"),
    ("li-resnet50-li-aspp", "26663 K", "resnet50"),
    ("resnet50-aspp-decoder", "26819 K", "resnet50"),
    ("li-resnet50-li-aspp-decoder", "26826 K", "resnet50"),
):
    _register_deeplab_v3(_name, _printed, _backbone)

for _depth, _units in ((50, (3, 4, 6, 3)), (101, (3, 4, 23, 3))):
    _register(
        f"deeplabv2-resnet{_depth}",
        SMOOTHING,
        f"DeepLabv2: ResNet-{_depth}, output stride 8, any smoothing of its dilated convolutions",
        SMOOTHING_SETTINGS | {"backbone_weights"},
        21,
        None,
        "deeplab_v2:DeepLabV2",
        units=_units,
    )

_register(
    "fplnet-encoder",
    FPLNET,
    "FPLNet's encoder: FPL modules, FIR units, classifier at stride 8",
    FPL_SETTINGS | {"hasty_stem"},
    20,
    "419.994 K",
    "fplnet:FPLNetEncoder",
)
_register(
    "fplnet",
    FPLNET,
    "FPLNet: the encoder and the sequential decoder",
    FPL_SETTINGS | {"hasty_stem"},
    20,
    "0.49 M",
    "fplnet:FPLNet",
)
_register(
    "espnet-c",
    ESPNET,
    "ESPNet-C: the encoder of ESPNet, classifier at stride 8",
    PYRAMID_SETTINGS | {"modules", "module", "factorization"},
    20,
    "0.34 M",
    "espnet:ESPNetC",
)
_register(
    "espnet",
    ESPNET,
    "ESPNet: the encoder and its decoder",
    PYRAMID_SETTINGS | {"modules", "module", "factorization"},
    20,
    "0.36 M",
    "espnet:ESPNet",
)
