"""Pretrained weights for a network's backbone, from a file with a state dict in torchvision's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nas.runs.checkpoint import read_plain
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.smoothing import AggregationCoefficients, GroupInteraction, SharedFilter

__all__ = ["load_backbone_weights"]

WRAPPERS = ("state_dict", "model")
"""Names under which training scripts save a state dict beside other things."""
PREFIX = "module."
"""What data parallel training puts in front of every name."""
COUNTER = "num_batches_tracked"
"""Of a batch norm, without effect here; files from before PyTorch 0.4.1 have none."""
OWN = (LateralInhibition, SharedFilter, GroupInteraction, AggregationCoefficients)
"""Modules that the plain network has not: they start as if they were not there."""


def load_backbone_weights(network: nn.Module, file: str | Path) -> str:
    """Loads the backbone's weights, or nothing.

    Args:
        network: A network with a child `backbone` whose tensors have torchvision's names.
        file: What `torch.save` wrote: a state dict, or a dict with one under "state_dict" or "model". It is read with
            `weights_only=True`: nothing in it is executed.

    Returns:
        One line: how many tensors matched, and which of the file were not used.

    Raises:
        ValueError: The network has no backbone; the file is missing, damaged or no state dict; or a tensor of the
            backbone is missing or has another shape. The message names the first such tensor and what was expected.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"network.backbone_weights: {type(network).__name__} has no backbone to load weights into: leave it out"
        )
    found = _read(Path(file))
    own = {f"{name}." for name, module in backbone.named_modules() if isinstance(module, OWN)}
    wanted = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if not name.endswith(COUNTER) and not name.startswith(tuple(own))
    }
    for name, tensor in wanted.items():
        expected = f"{type(backbone).__name__} needs {name} of shape {list(tensor.shape)}"
        if name not in found:
            raise ValueError(f"{file} does not fit: {expected}, and the file has none; {_remedy(name, found)}")
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{file} does not fit: {expected}, and the file's is {list(found[name].shape)}; {_remedy(name, found)}"
            )
    backbone.load_state_dict({name: found[name] for name in wanted}, strict=False)
    unused = [name for name in found if name not in wanted and not name.endswith(COUNTER)]
    report = f"{len(wanted)} of {len(wanted)} tensors of the backbone from {file}"
    if unused:
        names = ", ".join(unused[:3]) + ", ..." * (len(unused) > 3)
        report += f"; {len(unused)} of the file not used ({names})"
    return report


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name."""
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


def _remedy(name: str, found: dict[str, Tensor]) -> str:
    if name.startswith("conv1.") and "conv1.weight" in found and name != "conv1.weight":
        return "its stem is one 7x7 convolution: take the network whose name ends in -plain-stem"
    if name == "conv1.weight" and "conv1.0.weight" in found:
        return "its stem has several convolutions: give the weights of a ResNet with one 7x7 convolution"
    return "give a state dict of the same backbone in torchvision's layout"
