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
    from retrain.table.reading import Table, load_table
    from retrain.training import TrainResult, train

__getattr__, __dir__, __all__ = lazy_exports(__name__)
