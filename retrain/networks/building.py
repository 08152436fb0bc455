"""One function that builds a network from whatever names one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retrain.network_config import NetworkConfig
from retrain.networks.published import DEEPLAB_SETTINGS, NETWORKS, SEARCHED_FPLNET_SETTINGS
from search_spaces.genotype import Genotype, load_genotype

if TYPE_CHECKING:
    from retrain.networks.base import SegmentationNetwork

__all__ = ["build"]


def build(
    genotype_or_name: Genotype | str | Path, classes: int, config: NetworkConfig | None = None
) -> SegmentationNetwork:
    """Builds a network with fresh weights.

    Args:
        genotype_or_name: A genotype, the path of a genotype file, or the name of a published network (a name wins over
            a file that is called the same).
        classes: Number of classes, at least 1.
        config: Widths and regularisation; None: the defaults. `config.backbone_weights` is not read here: see
            `load_backbone_weights`.

    Returns:
        The network: (N, 3, H, W) -> logits (N, classes, H, W).

    Raises:
        ValueError: There is neither a network nor a file of that name (the message lists the names), the file is no
            valid genotype, there are no classes, or a setting is given that the network does not read.
    """
    config = config or NetworkConfig()
    network = _build(genotype_or_name, classes, config)
    if config.frozen_batch_norm:
        from retrain.networks.base import freeze_batch_norm

        freeze_batch_norm(network)
    return network


def _build(source: Genotype | str | Path, classes: int, config: NetworkConfig) -> SegmentationNetwork:
    if isinstance(source, str) and source in NETWORKS:
        record = NETWORKS[source]
        config.refuse_others(record.name, record.settings)
        return record.build(classes, config)
    genotype = source if isinstance(source, Genotype) else _load(source)
    if config.kind == "fplnet":
        from retrain.networks.searched_fplnet import SearchedFPLNet

        config.refuse_others("a genotype's FPLNet-style network", SEARCHED_FPLNET_SETTINGS | {"kind"})
        return SearchedFPLNet(genotype, classes, config)
    from retrain.networks.deeplab import DeepLab

    config.refuse_others("a genotype's DeepLab-style network", DEEPLAB_SETTINGS | {"kind"})
    return DeepLab(genotype, classes, config)


def _load(source: str | Path) -> Genotype:
    if Path(source).is_file():
        return load_genotype(source)
    inside = Path(source) / "genotype.json"
    if inside.is_file():
        raise ValueError(f"{source} is a folder: name the genotype in it, {inside}")
    raise ValueError(
        f"no published network and no genotype file {str(source)!r}: "
        f"choose one of {', '.join(NETWORKS)}, or name a genotype.json file"
    )
