"""The search: supernet, architecture parameters, bilevel loop; and what every run shares."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from nas.choosing import Measured, decode_by_supernet
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
    from nas.evaluation.metrics import METRICS, ConfusionMatrix, Metric, numbers, register_metric
    from nas.supernet.architecture import Architecture
    from nas.supernet.network import Supernet
    from nas.training.interruption import InterruptedRun
    from nas.training.losses import LOSSES, Loss, LossContext, NonFiniteLossError, register_loss, resize_labels
    from nas.training.optimizers import OPTIMIZERS, make_optimizer, register_optimizer

__getattr__, __dir__, __all__ = lazy_exports(__name__)
