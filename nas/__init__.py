"""How a space is searched: supernet, architecture parameters, bilevel loop; and what every run shares."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from nas.architecture import Architecture
    from nas.config import (
        ArchitectureConfig,
        CosineSgdConfig,
        HealthConfig,
        LoaderConfig,
        RunConfig,
        SearchConfig,
        SgdConfig,
        SupernetConfig,
        recipe,
    )
    from nas.cost import count_parameters, describe, measure
    from nas.darts import SearchResult, resolve_space, search
    from nas.data.base import DataError, open_dataset
    from nas.data.config import AugmentConfig
    from nas.inference import Inference, Viewing
    from nas.interrupt import InterruptedRun
    from nas.loss import NonFiniteLossError
    from nas.metrics import ConfusionMatrix
    from nas.optimizers import make_optimizer
    from nas.supernet import Supernet

_EXPORTS = {
    "Architecture": "nas.architecture",
    "ArchitectureConfig": "nas.config",
    "AugmentConfig": "nas.data.config",
    "ConfusionMatrix": "nas.metrics",
    "CosineSgdConfig": "nas.config",
    "DataError": "nas.data.base",
    "HealthConfig": "nas.config",
    "Inference": "nas.inference",
    "InterruptedRun": "nas.interrupt",
    "LoaderConfig": "nas.config",
    "NonFiniteLossError": "nas.loss",
    "RunConfig": "nas.config",
    "SearchConfig": "nas.config",
    "SearchResult": "nas.darts",
    "SgdConfig": "nas.config",
    "Supernet": "nas.supernet",
    "SupernetConfig": "nas.config",
    "Viewing": "nas.inference",
    "count_parameters": "nas.cost",
    "describe": "nas.cost",
    "make_optimizer": "nas.optimizers",
    "measure": "nas.cost",
    "open_dataset": "nas.data.base",
    "recipe": "nas.config",
    "resolve_space": "nas.darts",
    "search": "nas.darts",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
