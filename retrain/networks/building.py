"""Building a network from a genotype or a published name, and the kinds of network that a genotype may become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from retrain.networks.published import NETWORKS, main_names
from retrain.networks.settings import CellSettings, DeepLabSettings, NetworkConfig, SearchedFPLNetSettings, names
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.registry import Registry
from search_spaces.settings import OperationSettings
from search_spaces.validation import as_path

if TYPE_CHECKING:
    from retrain.networks.base import SegmentationNetwork

__all__ = ["KINDS", "NetworkKind", "build", "named_genotype"]


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network that a genotype may become."""

    style: str
    """Its name in messages, such as "DeepLab-style"."""
    where: str
    """Its class, "module:class" in this package: built from (genotype, classes, config), with its `Walk` as `walk`."""
    settings: type[CellSettings]
    """The settings that it reads; a base class of `NetworkConfig`."""

    def load(self) -> Any:
        return resolve_name(f"retrain.networks.{self.where}")


KINDS: Registry[NetworkKind] = Registry("kind of network")
"""By the values of `network.kind`."""
KINDS.register("deeplab", NetworkKind("DeepLab-style", "deeplab:DeepLab", DeepLabSettings))
KINDS.register("fplnet", NetworkKind("FPLNet-style", "searched_fplnet:SearchedFPLNet", SearchedFPLNetSettings))


def build(
    genotype_or_name: Genotype | str | Path, classes: int, config: NetworkConfig | None = None
) -> SegmentationNetwork:
    """Builds a network with fresh weights.

    Args:
        genotype_or_name: A genotype, the path of a genotype file or of a run folder that has one, or the name of a
            published network (which wins over a file of the same name).
        classes: Number of classes, at least 1.
        config: Widths and regularisation; None: the defaults. `config.backbone_weights` is not loaded here: see
            `retrain.pretrained.load_backbone_weights`.

    Returns:
        The network: (N, C, H, W) -> logits (N, classes, H, W), with C = `config.in_channels`, or 3.

    Raises:
        ValueError: There is neither a network nor a file of that name (the message lists the names), the file is no
            valid genotype, there are no classes, or a setting is given that the network does not read.
    """
    config = config or NetworkConfig()
    make: Callable[[int, NetworkConfig], SegmentationNetwork]
    if isinstance(genotype_or_name, str) and genotype_or_name in NETWORKS:
        record = NETWORKS[genotype_or_name]
        name, settings, make = record.name, record.settings, record.build
    else:
        genotype = genotype_or_name if isinstance(genotype_or_name, Genotype) else named_genotype(genotype_or_name)
        kind = KINDS[config.kind]
        name, settings = f"a genotype's {kind.style} network", names(kind.settings) | {"kind"}
        make = partial(kind.load(), genotype)
    config.refuse_others(name, settings)
    network = make(classes, config)
    if network.channels != config.image_channels:  # a user's own network
        raise ValueError(
            f"{name} reads {network.channels} channels, and network.in_channels is {config.image_channels}: it must "
            "hand that on to SegmentationNetwork, and build its first layer for it"
        )

    from retrain.networks.base import freeze_batch_norm
    from search_spaces.module_protocols import settings_read

    # Which settings of operations act depends on the operations of a genotype, and on the ASPP and smoothing chosen.
    unread = {f.name for f in dataclasses.fields(OperationSettings)} - settings_read(network)
    config.refuse_others(f"{name} without operations that read it", settings - unread)
    if config.frozen_batch_norm:
        freeze_batch_norm(network)
    return network


def named_genotype(source: str | Path) -> Genotype:
    """The genotype in a file or folder; ValueError, naming the published networks too, if there is none."""
    if as_path(source).exists():
        return load_genotype(source)
    raise ValueError(
        f"no published network and no genotype file {str(source)!r}: "
        f"choose one of {', '.join(main_names())}, or name a genotype.json file"
    )
