"""What a network costs: trainable parameters, multiply-adds, and the features it makes.

Networks are run on the "meta" device, where tensors have a shape and no memory, so that a large network at a large
image is measured in about a second on any machine.
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.operations import Cost

__all__ = [
    "Cost",
    "breakdown",
    "count_parameters",
    "describe",
    "measure",
    "measure_call",
    "median_seconds",
    "to_meta",
]


def count_parameters(module: nn.Module) -> int:
    """Number of trainable parameters; one that is shared counts once."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def measure(network: nn.Module, size: tuple[int, int], channels: int = 3) -> Cost:
    """Measures a network for one image in eval mode; the network itself is not run and not changed.

    Args:
        network: Maps (1, channels, H, W) to anything.
        size: H, W in pixels.
        channels: Of the input.

    Returns:
        Trainable parameters; multiply-adds of convolutions and matrix products (biases, batch norms, activations,
        pooling and resizing are not counted, as is the custom).

    Raises:
        ValueError: A side of `size` is below 1.
    """
    return _measure(network, size, channels)[""]


def measure_call(module: nn.Module, *arguments: object) -> Cost:
    """As `measure`, for one call of a part of a network that is on the meta device already, in eval mode.

    Args:
        module: Any module.
        arguments: What it is called with; tensors are on the meta device.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*arguments)
    return Cost(count_parameters(module), counter.get_total_flops() // 2)


def breakdown(network: nn.Module, size: tuple[int, int], channels: int = 3) -> dict[str, Cost]:
    """As `measure`, for each child of `network` by its name."""
    costs = _measure(network, size, channels)
    return {name: cost for name, cost in costs.items() if name}


def describe(network: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Describes a network at an input size, in plain containers.

    Args:
        network: Maps images (N, 3, H, W) to anything. If it has `features(x)`, a dict of tensors (N, C, h, w), and
            `feature_info`, a (channels, stride) for each of them, these are listed.
        size: H, W in pixels.

    Returns:
        `parameters`; `multiply_adds`; `parts`, a list of {name, parameters, multiply_adds} of the network's children;
        `features`, a list of {name, channels, stride, size}, where size is [h, w].

    Raises:
        ValueError: A side of `size` is below 1.
    """
    costs = _measure(network, size, 3)
    features = []
    if hasattr(network, "features") and hasattr(network, "feature_info"):
        with torch.no_grad():
            tensors: dict[str, Tensor] = to_meta(network).features(_image(size, 3))  # type: ignore[operator]
        for (name, tensor), (channels, stride) in zip(tensors.items(), network.feature_info, strict=True):  # type: ignore[arg-type]
            features.append({"name": name, "channels": channels, "stride": stride, "size": list(tensor.shape[-2:])})
    return {
        "parameters": costs[""].parameters,
        "multiply_adds": costs[""].multiply_adds,
        "parts": [
            {"name": name, "parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
            for name, cost in costs.items()
            if name
        ],
        "features": features,
    }


def _measure(network: nn.Module, size: tuple[int, int], channels: int) -> dict[str, Cost]:
    """Costs of the whole, under "", and of each child."""
    image = _image(size, channels)
    counter = FlopCounterMode(display=False, depth=1)
    with torch.no_grad(), counter:
        to_meta(network)(image)
    counts, root = counter.get_flop_counts(), type(network).__name__

    def multiply_adds(module: nn.Module, name: str) -> int:
        if name in counts:
            return sum(counts[name].values()) // 2  # the counter counts a multiply-add as two operations
        # A list of modules is never called itself.
        return sum(multiply_adds(child, f"{name}.{key}") for key, child in module.named_children())

    costs = {"": Cost(count_parameters(network), sum(counts.get("Global", {}).values()) // 2)}
    for name, child in network.named_children():
        costs[name] = Cost(count_parameters(child), multiply_adds(child, f"{root}.{name}"))
    return costs


def _image(size: tuple[int, int], channels: int) -> Tensor:
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"an input of {height}x{width} pixels has no cost: give sides of at least 1")
    return torch.empty(1, channels, height, width, device="meta")


def to_meta(network: nn.Module) -> nn.Module:
    """A copy of `network` on the meta device, in eval mode; `deepcopy` alone would copy the weights."""
    twins: dict[int, Any] = {}
    for parameter in network.parameters():
        twins[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in network.buffers():
        twins[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, twins).eval()


LEAST, MOST, ENOUGH = 5, 50, 0.2
"""Timed calls: at least so many, at most so many, and no more once they took so many seconds in all."""


@torch.inference_mode()
def median_seconds(module: nn.Module, *arguments: object) -> float:
    """The median time of a call, behind two that are not counted: memory is allocated and algorithms are chosen there.

    Args:
        module: On its device, in eval mode.
        arguments: What it is called with; tensors are on that device.
    """
    device = next((a.device for a in arguments if isinstance(a, torch.Tensor)), torch.device("cpu"))
    times: list[float] = []
    for number in range(-2, MOST):
        began = time.perf_counter()
        module(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 0:
            times.append(time.perf_counter() - began)
        if len(times) >= LEAST and sum(times) >= ENOUGH:
            break
    return statistics.median(times)
