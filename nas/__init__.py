"""How a space is searched: supernet, architecture parameters, bilevel loop; and what every run shares."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from nas.config import (
        ArchitectureConfig,
        AugmentConfig,
        CosineSgdConfig,
        HealthConfig,
        LoaderConfig,
        RunConfig,
        SearchConfig,
        SgdConfig,
        SupernetConfig,
        recipe,
    )
    from nas.darts import SearchResult, resolve_space, search
    from nas.data.base import DataError, open_dataset
    from nas.evaluation.cost import count_parameters, describe, measure
    from nas.evaluation.inference import Inference, Viewing
    from nas.evaluation.metrics import ConfusionMatrix
    from nas.supernet.architecture import Architecture
    from nas.supernet.network import Supernet
    from nas.training.interruption import InterruptedRun
    from nas.training.losses import NonFiniteLossError
    from nas.training.optimizers import make_optimizer

_EXPORTS = {
    "Architecture": "nas.supernet.architecture",
    "ArchitectureConfig": "nas.config",
    "AugmentConfig": "nas.config",
    "ConfusionMatrix": "nas.evaluation.metrics",
    "CosineSgdConfig": "nas.config",
    "DataError": "nas.data.base",
    "HealthConfig": "nas.config",
    "Inference": "nas.evaluation.inference",
    "InterruptedRun": "nas.training.interruption",
    "LoaderConfig": "nas.config",
    "NonFiniteLossError": "nas.training.losses",
    "RunConfig": "nas.config",
    "SearchConfig": "nas.config",
    "SearchResult": "nas.darts",
    "SgdConfig": "nas.config",
    "Supernet": "nas.supernet.network",
    "SupernetConfig": "nas.config",
    "Viewing": "nas.evaluation.inference",
    "count_parameters": "nas.evaluation.cost",
    "describe": "nas.evaluation.cost",
    "make_optimizer": "nas.training.optimizers",
    "measure": "nas.evaluation.cost",
    "open_dataset": "nas.data.base",
    "recipe": "nas.config",
    "resolve_space": "nas.darts",
    "search": "nas.darts",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
