"""The networks that are retrained: from a genotype, or published ones by name. Torch is imported when one is built."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.networks.base import FeatureInfo, SegmentationNetwork
    from retrain.networks.building import build
    from retrain.networks.deeplab import DeepLab
    from retrain.networks.published import NETWORKS, PublishedNetwork

__getattr__, __dir__, __all__ = lazy_exports(__name__)
