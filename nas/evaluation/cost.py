"""The cost of a network: trainable parameters, multiply-adds and latency; and its features.

Costs are counted on the "meta" device, where tensors have a shape but no memory, so that even a large network at a
large image takes about a second on any machine.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.config import Precision
from nas.training.devices import autocast
from search_spaces.operations import Cost
from search_spaces.validation import counted

__all__ = [
    "Cost",
    "WARM_UP",
    "call_seconds",
    "channels_of",
    "count_parameters",
    "describe",
    "measure",
    "measure_call",
    "median_seconds",
    "meta_twin",
    "timed_on",
    "to_meta",
]

META = torch.device("meta")


def count_parameters(module: nn.Module) -> int:
    """Number of trainable parameters; a shared one counts once."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def measure(network: nn.Module, size: tuple[int, int], channels: int | None = None) -> Cost:
    """Measures a network for one image in eval mode; the network itself is not run and not changed.

    Args:
        network: Maps (1, channels, H, W) to anything.
        size: H, W in pixels.
        channels: Channels of the input; None: those that the network reads (`channels_of`).

    Returns:
        Trainable parameters; multiply-adds of convolutions and matrix products (biases, batch norms, activations,
        pooling and resizing are not counted, as usual).

    Raises:
        ValueError: A side of `size` is below 1.
    """
    return _measure(network, size, channels or channels_of(network))[""]


def channels_of(network: nn.Module) -> int:
    """Channels of the images that a network reads: its attribute `channels`, or 3."""
    return int(getattr(network, "channels", 3))


def measure_call(module: nn.Module, *arguments: object) -> Cost:
    """Measures one call of a module that is on the meta device and in eval mode, with arguments on that device."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*arguments)
    return Cost(count_parameters(module), counter.get_total_flops() // 2)


def describe(network: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Describes a network at an input size, in plain containers.

    Args:
        network: Maps images (N, C, H, W) to anything. Its features are listed if it has `features(x)`, a dict of
            tensors (N, C, h, w), and `feature_info`, a (channels, stride) for each of them.
        size: H, W in pixels.

    Returns:
        `parameters`; `multiply_adds`; `parts`, a list of {name, parameters, multiply_adds} of the network's children;
        `features`, a list of {name, channels, stride, size}, where size is [h, w].

    Raises:
        ValueError: A side of `size` is below 1.
    """
    channels = channels_of(network)
    costs = _measure(network, size, channels)
    features = []
    if hasattr(network, "features") and hasattr(network, "feature_info"):
        with torch.no_grad():
            tensors: dict[str, Tensor] = to_meta(network).features(_image(size, channels))  # type: ignore[operator]
        for (name, tensor), (width, stride) in zip(tensors.items(), network.feature_info, strict=True):  # type: ignore[arg-type]
            features.append({"name": name, "channels": width, "stride": stride, "size": list(tensor.shape[-2:])})
    whole = asdict(costs.pop(""))
    return {**whole, "parts": [{"name": name, **asdict(cost)} for name, cost in costs.items()], "features": features}


def _measure(network: nn.Module, size: tuple[int, int], channels: int) -> dict[str, Cost]:
    """Costs of the whole network, under "", and of each child."""
    image = _image(size, channels)
    counter = FlopCounterMode(display=False, depth=1)
    with torch.no_grad(), counter:
        to_meta(network)(image)
    counts, root = counter.get_flop_counts(), type(network).__name__

    def multiply_adds(module: nn.Module, name: str) -> int:
        if name in counts:
            return sum(counts[name].values()) // 2  # the counter counts a multiply-add as two operations
        # A list of modules is not called itself.
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
    """A copy of `network` on the meta device, in eval mode."""
    return meta_twin(network)[0].eval()


def meta_twin(network: nn.Module) -> tuple[nn.Module, dict[Any, Any]]:
    """A copy of a network on the meta device, which takes no memory, and the twin of each of its parameters."""
    twins: dict[Any, Any] = {p: nn.Parameter(p.detach().to(META), p.requires_grad) for p in network.parameters()}
    known = {id(tensor): twin for tensor, twin in twins.items()}  # or `deepcopy` would copy the weights
    known |= {id(buffer): buffer.to(META) for buffer in network.buffers()}
    return copy.deepcopy(network, known), twins


WARM_UP = 2
"""Calls that are not timed, in which memory is allocated and algorithms are chosen."""
LEAST, MOST, ENOUGH = 10, 100, 0.5
"""Smallest and largest number of timed calls, and the seconds in all after which no more are timed."""


@torch.inference_mode()
def call_seconds(
    call: Callable[..., object], *arguments: object, precision: Precision = "float32", repeats: int | None = None
) -> list[float]:
    """The seconds of each timed call of a network, a module, or a function.

    This is the only protocol for latency, so that the numbers of `nas-decode --max-latency`, `nas-sweep` and `nas-bench
    networks` are comparable: eval mode and inference mode; 2 calls that are not timed, then 10 to 100, until they took
    half a second in all (or `repeats` calls); a GPU has finished before the clock is read. The result is the median.
    PyTorch's number of threads is that of the process: `timed_on` names it.

    Args:
        call: A module, which is put into eval mode, or a function.
        arguments: Its arguments; tensors determine the device.
        precision: Precision of the call, with autocast if it is mixed.
        repeats: Number of timed calls, in place of 10 to 100.
    """
    if isinstance(call, nn.Module):
        call.eval()
    device = next((a.device for a in arguments if isinstance(a, Tensor)), torch.device("cpu"))
    times: list[float] = []
    for number in range(-WARM_UP, repeats or MOST):
        began = time.perf_counter()
        with autocast(device, precision):
            call(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 0:
            times.append(time.perf_counter() - began)
        if repeats is None and len(times) >= LEAST and sum(times) >= ENOUGH:
            break
    return times


def median_seconds(call: Callable[..., object], *arguments: object, precision: Precision = "float32") -> float:
    """The median of `call_seconds`: the latency."""
    return statistics.median(call_seconds(call, *arguments, precision=precision))


def timed_on(device: torch.device) -> str:
    """The place of a latency measurement, such as "cpu, 2 threads" or "cuda:0"."""
    return f"{device}, {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else str(device)
