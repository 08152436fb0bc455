"""Pretrained weights for a training: from another run, or from a file in torchvision's layout; and the head's rates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.data.identity import changed_parts, recorded_data, told
from nas.runs.checkpoint import load_checkpoint, read_plain
from nas.runs.names import BEST
from retrain.config import OptimizerConfig, RetrainConfig
from retrain.load import KIND
from retrain.networks import build
from retrain.networks.base import SegmentationNetwork
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.smoothing import AggregationCoefficients, GroupInteraction, SharedFilter
from search_spaces.validation import as_path

__all__ = ["head_multipliers", "initialize", "load_backbone_weights", "load_matching"]

WRAPPERS = ("state_dict", "model")
"""Names under which training scripts save a state dict among other things."""
PREFIX = "module."
"""Prefix of every name after data parallel training."""
COUNTER = "num_batches_tracked"
"""Buffer of a batch norm without effect here; files from before PyTorch 0.4.1 have none."""
OWN = (LateralInhibition, SharedFilter, GroupInteraction, AggregationCoefficients)
"""Modules that a plain backbone lacks; they are initialised to have no effect."""


def initialize(network: SegmentationNetwork, config: RetrainConfig, data: Mapping[str, Any]) -> str | None:
    """Loads the weights that the settings name into a fresh network.

    Args:
        network: The network, built by `config`.
        config: The settings.
        data: Identity of the data that it is trained on (see `nas.data.identity`).

    Returns:
        A report in one line; None if the settings name no weights.

    Raises:
        ValueError: The file cannot be used, or batch norms are frozen and nothing is loaded.
    """
    if config.init_from is not None:
        with torch.device("meta"):  # shapes only
            wider = build(config.genotype, network.classes + 1, config.network).state_dict()
        own = {name for name, tensor in network.state_dict().items() if wider[name].shape != tensor.shape}
        return load_matching(network, config.init_from, data, own)
    if config.network.backbone_weights is not None:
        return load_backbone_weights(network, config.network.backbone_weights)
    if config.network.frozen_batch_norm:
        raise ValueError(
            "network.frozen_batch_norm is true (in the recipe smoothing, too), and needs the statistics of trained "
            "weights: give --network.backbone-weights FILE or --init-from RUN, or --network.frozen-batch-norm false"
        )
    return None


@torch.no_grad()
def load_matching(
    network: nn.Module,
    source: str | Path,
    data: Mapping[str, Any] | None = None,
    of_classes: Collection[str] = (),
) -> str:
    """Copies the tensors of a trained network that have the same name and shape in this one.

    Args:
        network: The network to fill; tensors without a counterpart keep their values.
        source: The folder of a retraining run (its best checkpoint is taken), or a checkpoint file of one.
        data: Identity of the data of this network.
        of_classes: Names of the tensors that belong to the classes: they are copied only if the trained network has the
            same classes in the same order.

    Returns:
        A report in one line: how many tensors were copied, and which children of the network keep fresh ones.

    Raises:
        ValueError: There is no such checkpoint, or it has no parameter in common with the network.
    """
    path = as_path(source)
    path = path / BEST if path.is_dir() else path
    content, own = load_checkpoint(path, KIND), network.state_dict()
    weights = content["network"] if isinstance(content.get("network"), dict) else {}
    saved = {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    taken = {name for name, tensor in own.items() if name in saved and saved[name].shape == tensor.shape}
    if not taken & {name for name, _ in network.named_parameters()}:
        raise ValueError(
            f"{path} has no weights in common with the network: its parts are {_children(saved)}, those of the network "
            f"{_children(own)}; give --init-from a run of the same network or of a part of it, or leave it out"
        )
    note, before = "", recorded_data(content)
    if data is not None and "classes" in changed_parts(before, data):
        taken -= set(of_classes)
        note = f"; {told(before, data, ['classes'], str(source))}: what belongs to classes starts fresh"
    for name in taken:
        own[name].copy_(saved[name])
    fresh = [name for name in own if name not in taken]
    left = f"; fresh, wholly or in part: {_children(fresh)}" if fresh else ""
    return f"{len(taken)} of {len(own)} tensors from {path}{left}{note}"


def _children(names: Iterable[str]) -> str:
    """Lists the children to which the named tensors belong."""
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))


def head_multipliers(network: SegmentationNetwork, config: OptimizerConfig) -> dict[Tensor, float]:
    """Returns the learning rate multiplier of each parameter of the network's head; empty if all multipliers are 1.

    Raises:
        ValueError: A multiplier is set, but the network has no head, or the head no bias.
    """
    rest = config.head_lr_multiplier
    bias = rest if config.head_bias_lr_multiplier is None else config.head_bias_lr_multiplier
    if rest == bias == 1:
        return {}
    if not network.head:
        raise ValueError(
            f"optimizer.head_lr_multiplier is {rest:g} and optimizer.head_bias_lr_multiplier {bias:g}, but "
            f"{type(network).__name__} has no separate head: leave them out"
        )
    head = [module for name in network.head for module in network.get_submodule(name).modules()]
    multipliers: dict[Tensor, float] = {p: rest for module in head for p in module.parameters(recurse=False)}
    convolutions = [module for module in head if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    biases = [module.bias for module in convolutions if module.bias is not None]
    if bias != rest and not biases:
        raise ValueError(
            f"optimizer.head_bias_lr_multiplier is {bias:g}, but the convolutions in the head of "
            f"{type(network).__name__} have no bias: leave it out"
        )
    return multipliers | dict.fromkeys(biases, bias)


def load_backbone_weights(network: nn.Module, file: str | Path) -> str:
    """Loads all weights of the backbone, or none.

    Args:
        network: A network with a child `backbone` whose tensors have torchvision's names.
        file: A file of `torch.save`: a state dict, or a dict with one under "state_dict" or "model". It is read with
            `weights_only=True`: nothing in it is executed.

    Returns:
        A report in one line: how many tensors were loaded, and which of the file were not used.

    Raises:
        ValueError: The network has no backbone; the file is missing, damaged or no state dict; or a tensor of the
            backbone is missing or has another shape. The message names the first such tensor and what was expected.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"network.backbone_weights: {type(network).__name__} has no backbone to load weights into: leave it out"
        )
    found = _read(as_path(file))
    own = {f"{name}." for name, module in backbone.named_modules() if isinstance(module, OWN)}
    wanted = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if not name.endswith(COUNTER) and not name.startswith(tuple(own))
    }
    for name, tensor in wanted.items():
        expected = f"{type(backbone).__name__} needs {name} of shape {list(tensor.shape)}"
        if name not in found:
            raise ValueError(f"{file} does not fit: {expected}, and the file has none; {_remedy(name, found, tensor)}")
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{file} does not fit: {expected}, and the file's is {list(found[name].shape)}; "
                f"{_remedy(name, found, tensor)}"
            )
    backbone.load_state_dict({name: found[name] for name in wanted}, strict=False)
    unused = [name for name in found if name not in wanted and not name.endswith(COUNTER)]
    report = f"{len(wanted)} of {len(wanted)} tensors of the backbone from {file}"
    if unused:
        names = ", ".join(unused[:3]) + ", ..." * (len(unused) > 3)
        report += f"; {len(unused)} of the file not used ({names})"
    return report


def _read(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file by name."""
    try:
        content = read_plain(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file raises anything: UnpicklingError, RuntimeError, EOFError, ...
        raise ValueError(
            f"{path} is damaged, or not a file of weights: give one that torch.save wrote, with tensors by name"
        ) from error
    if isinstance(content, dict):
        inside = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
        tensors = {str(name).removeprefix(PREFIX): value for name, value in inside.items() if torch.is_tensor(value)}
        if tensors:
            return tensors
    raise ValueError(
        f"{path} holds no state dict: give a file with tensors by name, alone or under {' or '.join(WRAPPERS)}"
    )


def _remedy(name: str, found: dict[str, Tensor], wanted: Tensor) -> str:
    if name in found and found[name].shape[1:2] == (3,) and found[name][:, :1].shape == wanted[:, :1].shape:
        return f"it is for images of 3 channels, not {wanted.shape[1]}: leave network.backbone_weights out"
    if name.startswith("conv1.") and "conv1.weight" in found and name != "conv1.weight":
        return "its stem is one 7x7 convolution: take the network whose name ends in -plain-stem"
    if name == "conv1.weight" and "conv1.0.weight" in found:
        return "its stem has several convolutions: give the weights of a ResNet with one 7x7 convolution"
    return "give a state dict of the same backbone in torchvision's layout"
