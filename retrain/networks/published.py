"""Published networks by name. No torch: the names stand in `--help`; a record's `build` imports what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrain.config import NetworkConfig
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NETWORKS", "PublishedNetwork"]


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of a paper: all that the rest of the toolkit knows of it."""

    name: str
    paper: str
    """Authors, title, venue."""
    build: Callable[[int, NetworkConfig], nn.Module]
    """`build(classes, config)` -> network (N, 3, H, W) -> (N, classes, H, W)."""
    description: str
    """One line, for lists."""


NETWORKS: Registry[PublishedNetwork] = Registry("published network")


def _register_auto_deeplab(suffix: str, multiplier: int, size: str) -> None:
    def build(classes: int, config: NetworkConfig) -> nn.Module:
        from retrain.networks.deeplab import DeepLab
        from search_spaces.published import auto_deeplab

        if config.filter_multiplier is None:
            config = dataclasses.replace(config, filter_multiplier=multiplier)
        return DeepLab(auto_deeplab(), classes, config)

    name = f"auto-deeplab-{suffix}"
    NETWORKS.register(
        name,
        PublishedNetwork(
            name=name,
            paper="Liu, Chen, Schroff, Adam, Hua, Yuille, Fei-Fei: Auto-DeepLab: Hierarchical Neural Architecture "
            "Search for Semantic Image Segmentation, CVPR 2019, Table 2",
            build=build,
            description=f"Auto-DeepLab-{suffix.upper()}: F = {multiplier}, {size} parameters at 19 classes",
        ),
    )


for _suffix, _multiplier, _size in (("s", 20, "10.15 M"), ("m", 32, "21.62 M"), ("l", 48, "44.42 M")):
    _register_auto_deeplab(_suffix, _multiplier, _size)
