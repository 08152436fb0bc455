"""The networks that are retrained: from a genotype, or published ones by name. Torch is imported when one is built."""

from typing import TYPE_CHECKING

# Not lazy: importing a module `build` later would hide the function of that name.
from retrain.networks.build import build
from retrain.networks.published import NETWORKS, PublishedNetwork
from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.networks.deeplab import DeepLab, FeatureInfo

__getattr__, _lazy_names = lazy_exports(
    __name__, {"DeepLab": "retrain.networks.deeplab", "FeatureInfo": "retrain.networks.deeplab"}
)
__all__ = ["NETWORKS", "DeepLab", "FeatureInfo", "PublishedNetwork", "build"]


def __dir__() -> list[str]:
    return sorted({*globals(), *_lazy_names()})
