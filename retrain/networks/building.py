"""One function that builds a network from whatever names one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retrain.config import NetworkConfig
from retrain.networks.published import NETWORKS
from search_spaces.genotype import Genotype, load_genotype

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build"]


def build(genotype_or_name: Genotype | str | Path, classes: int, config: NetworkConfig | None = None) -> nn.Module:
    """Builds a network with fresh weights.

    Args:
        genotype_or_name: A genotype, the path of a genotype file, or the name of a published network (a name wins over
            a file that is called the same).
        classes: Number of classes, at least 1.
        config: Widths and regularisation; None: the defaults.

    Returns:
        The network: (N, 3, H, W) -> logits (N, classes, H, W).

    Raises:
        ValueError: There is neither a network nor a file of that name (the message lists the names), the file is no
            valid genotype, or there are no classes.
    """
    config = config or NetworkConfig()
    if isinstance(genotype_or_name, str) and genotype_or_name in NETWORKS:
        return NETWORKS[genotype_or_name].build(classes, config)
    if isinstance(genotype_or_name, Genotype):
        genotype = genotype_or_name
    elif Path(genotype_or_name).is_file():
        genotype = load_genotype(genotype_or_name)
    else:
        inside = Path(genotype_or_name) / "genotype.json"
        if inside.is_file():
            raise ValueError(f"{genotype_or_name} is a folder: name the genotype in it, {inside}")
        raise ValueError(
            f"no published network and no genotype file {str(genotype_or_name)!r}: "
            f"choose one of {', '.join(NETWORKS)}, or name a genotype.json file"
        )
    from retrain.networks.deeplab import DeepLab

    return DeepLab(genotype, classes, config)
