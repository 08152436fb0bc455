"""From a genotype, or a published network's name, to a trained and measured network."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.budget import cost_table, decode_candidates
    from retrain.config import CandidateConfig, LossConfig, OptimizerConfig, RankingConfig, RetrainConfig, recipe
    from retrain.evaluation import Evaluation, evaluate
    from retrain.export import Exported, export_onnx
    from retrain.load import TrainedNetwork, load_trained
    from retrain.networks.building import build
    from retrain.networks.published import NETWORKS, PublishedNetwork
    from retrain.networks.settings import NetworkConfig
    from retrain.prediction import Outputs, predict, predict_mask
    from retrain.ranking.result import Ranking
    from retrain.ranking.training import rank
    from retrain.training import TrainResult, train

_EXPORTS = {
    "NETWORKS": "retrain.networks.published",
    "CandidateConfig": "retrain.config",
    "Evaluation": "retrain.evaluation",
    "Exported": "retrain.export",
    "LossConfig": "retrain.config",
    "NetworkConfig": "retrain.networks.settings",
    "OptimizerConfig": "retrain.config",
    "Outputs": "retrain.prediction",
    "PublishedNetwork": "retrain.networks.published",
    "Ranking": "retrain.ranking.result",
    "RankingConfig": "retrain.config",
    "RetrainConfig": "retrain.config",
    "TrainResult": "retrain.training",
    "TrainedNetwork": "retrain.load",
    "build": "retrain.networks.building",
    "cost_table": "retrain.budget",
    "decode_candidates": "retrain.budget",
    "evaluate": "retrain.evaluation",
    "export_onnx": "retrain.export",
    "load_trained": "retrain.load",
    "predict": "retrain.prediction",
    "predict_mask": "retrain.prediction",
    "rank": "retrain.ranking.training",
    "recipe": "retrain.config",
    "train": "retrain.training",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
