"""The networks that are retrained: from a genotype, or published ones by name. Torch is imported when one is built."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.networks.base import FeatureInfo, SegmentationNetwork
    from retrain.networks.building import build
    from retrain.networks.deeplab import DeepLab
    from retrain.networks.published import NETWORKS, PublishedNetwork

_EXPORTS = {
    "DeepLab": "retrain.networks.deeplab",
    "FeatureInfo": "retrain.networks.base",
    "NETWORKS": "retrain.networks.published",
    "PublishedNetwork": "retrain.networks.published",
    "SegmentationNetwork": "retrain.networks.base",
    "build": "retrain.networks.building",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
