"""The weights that a training starts from, and which of them learn faster: pretrained parts, and the head on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.checkpoint import load_checkpoint
from nas.run import BEST
from retrain.config import OptimizerConfig, RetrainConfig
from retrain.networks.base import SegmentationNetwork
from retrain.source import KIND

__all__ = ["head_multipliers", "initialize", "load_matching"]


def initialize(network: SegmentationNetwork, config: RetrainConfig) -> str | None:
    """Loads the weights that the settings name into a fresh network.

    Returns:
        One line that says what was loaded; None where nothing is asked for.

    Raises:
        ValueError: The file cannot be used, or batch norms shall be kept as they are and nothing is loaded.
    """
    if config.init_from is not None:
        return load_matching(network, config.init_from)
    if config.network.backbone_weights is not None:
        from retrain.networks.backbone_weights import load_backbone_weights

        return load_backbone_weights(network, config.network.backbone_weights)
    if config.network.frozen_batch_norm:
        raise ValueError(
            "network.frozen_batch_norm is true (in the recipe smoothing, too), and needs the statistics of trained "
            "weights: give --network.backbone-weights FILE or --init-from RUN, or --network.frozen-batch-norm false"
        )
    return None


@torch.no_grad()
def load_matching(network: nn.Module, source: str | Path) -> str:
    """Copies the tensors of a trained network that have the same name and shape here.

    Args:
        network: Where to; what finds no counterpart stays as it is.
        source: The folder of a retraining run (its best checkpoint is taken), or a checkpoint file of one.

    Returns:
        One line that says how many tensors were taken, and which children of the network were left fresh.

    Raises:
        ValueError: There is no such checkpoint, or it has no parameter in common with the network.
    """
    path = Path(source)
    path = path / BEST if path.is_dir() else path
    weights, own = load_checkpoint(path, KIND).get("network"), network.state_dict()
    weights = weights if isinstance(weights, dict) else {}
    saved = {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    taken = {name for name, tensor in own.items() if name in saved and saved[name].shape == tensor.shape}
    if not taken & {name for name, _ in network.named_parameters()}:
        raise ValueError(
            f"{path} has no weights in common with the network: its parts are {_children(saved)}, those of the network "
            f"{_children(own)}; give --init-from a run of the same network or of a part of it, or leave it out"
        )
    for name in taken:
        own[name].copy_(saved[name])
    fresh = [name for name in own if name not in taken]
    left = f"; fresh, wholly or in part: {_children(fresh)}" if fresh else ""
    return f"{len(taken)} of {len(own)} tensors from {path}{left}"


def _children(names: Iterable[str]) -> str:
    """The children that the named tensors belong to."""
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))


def head_multipliers(network: SegmentationNetwork, config: OptimizerConfig) -> dict[Tensor, float]:
    """The factor on the learning rate of each parameter of the network's head, where the settings ask for one.

    Raises:
        ValueError: They do, and the network has no head, or the head no bias.
    """
    rest = config.head_lr_multiplier
    bias = rest if config.head_bias_lr_multiplier is None else config.head_bias_lr_multiplier
    if rest == bias == 1:
        return {}
    if not network.head:
        raise ValueError(
            f"optimizer.head_lr_multiplier is {rest:g} and optimizer.head_bias_lr_multiplier {bias:g}, but "
            f"{type(network).__name__} has no head that is told from the rest: leave them out"
        )
    head = [module for name in network.head for module in network.get_submodule(name).modules()]
    multipliers: dict[Tensor, float] = {
        parameter: rest for module in head for parameter in module.parameters(recurse=False)
    }
    convolutions = [module for module in head if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    biases = [module.bias for module in convolutions if module.bias is not None]
    if bias != rest and not biases:
        raise ValueError(
            f"optimizer.head_bias_lr_multiplier is {bias:g}, but the convolutions in the head of "
            f"{type(network).__name__} have no bias: leave it out"
        )
    return multipliers | dict.fromkeys(biases, bias)
