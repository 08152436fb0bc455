"""Speed and memory of the convolutional operations, compared with the plain dilated convolution.

Three kinds of table: the candidate operations with weights, and G interact in their frame, at stride 1, compared with
`atrous_3x3`; single smoothed and laterally inhibited convolutions at the shapes of DeepLabv2 (Efficient Smoothing of
Dilated Convolutions, section IV: output stride 8, crop 321), compared with the plain dilated convolution; and whole
networks with and without them, which the papers' claims are about.

Time is that of a forward and a backward pass in float32. Each pass is timed in turn with one of the base line, so that
a machine that slows down slows both; the ratio is the median of the pairs' ratios. Saved is the memory that autograd
keeps for the backward pass, without parameters, as a multiple of the input.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from benchmarks.config import OperationsBench, numbers
from benchmarks.documents import hardware, made, origin, table
from benchmarks.measuring import in_turn, seconds
from nas.evaluation.cost import measure as measure_cost
from nas.training.devices import choose_device
from retrain.networks import NETWORKS, build
from retrain.networks.settings import NetworkConfig
from search_spaces.lateral_inhibition import LIConv2d
from search_spaces.modules import BatchNorm
from search_spaces.operations import DEFAULTS, OPERATIONS
from search_spaces.settings import Smoothing
from search_spaces.smoothing import SmoothedAtrousConvolution, SmoothedConv2d

__all__ = ["convolutions", "make_table", "measure", "operations", "saved_bytes"]

BASE_LINE = "atrous_3x3"
HEADS = ("operation", "time", "ms", "saved", "parameters", "M multiply-adds")
SMOOTHINGS: tuple[Smoothing, ...] = ("average", "gaussian", "ss_conv", "g_interact", "aggregated")
PAPER_SHAPES = ((2, 256, 41, 41, 2), (2, 512, 41, 41, 4))
"""N, C, H, W and the rate of the last two residual stages' dilated convolutions."""

NETWORK_SHAPE = (2, 3, 321, 321)

Builders = Mapping[str, Callable[[], nn.Module]]
Shape = tuple[int, int, int, int]


def operations(channels: int) -> Builders:
    """Returns builders of the registry's operations that have weights, the base line first, and of G interact."""
    names = [BASE_LINE, *(name for name in OPERATIONS if OPERATIONS[name].has_weights and name != BASE_LINE)]
    builders: dict[str, Callable[[], nn.Module]] = {
        name: partial(OPERATIONS[name].build, channels, 1, BatchNorm) for name in names
    }
    interaction = partial(SmoothedAtrousConvolution, channels, 3, 1, BatchNorm, DEFAULTS, "g_interact")
    return builders | {"g_interact_smoothed_atrous_3x3": interaction}


def convolutions(channels: int, rate: int) -> Builders:
    """Returns builders of single convolutions: plain, smoothed, and after a lateral inhibition."""
    build = partial(SmoothedConv2d, channels, channels, 3, rate)
    builders: dict[str, Callable[[], nn.Module]] = {"plain": build}
    builders |= {smoothing: partial(build, smoothing) for smoothing in SMOOTHINGS}
    return builders | {"li": partial(LIConv2d, channels, channels, rate=rate)}


def smoothed_networks() -> Builders:
    """Returns builders of the smoothing papers' network, with batch norms frozen as in the papers."""
    name = "deeplabv2-resnet101"
    return {
        f"{name} {smoothing}": partial(
            build, name, NETWORKS[name].classes, NetworkConfig(smoothing=smoothing, frozen_batch_norm=True)
        )
        for smoothing in get_args(Smoothing)
    }


def inhibited_networks() -> Builders:
    """Returns builders of the LI paper's networks on a MobileNetV2."""
    names = [name for name in NETWORKS if "mnv2" in name]
    return {name: partial(build, name, NETWORKS[name].classes) for name in names}


def training_time(module: nn.Module, x: Tensor) -> float:
    """Times a forward and a backward pass in seconds."""
    module.zero_grad()
    x.grad = None

    def work() -> None:
        output = module(x)
        output.backward(output.detach())

    return seconds(work, x.device)


def saved_bytes(module: nn.Module, x: Tensor) -> int:
    """Counts the bytes that autograd keeps for the backward pass besides parameters and buffers; shared memory once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(x)  # keeps the saved tensors alive, so that no address is reused
    assert output.requires_grad
    return sum(size for address, size in kept.items() if address not in own)


def compare(builders: Builders, shape: Shape, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Compares every builder's module with the first one's at one shape."""
    x = torch.randn(shape, device=device, requires_grad=True)
    base_line = next(iter(builders.values()))().to(device)
    rows = []
    for name, builder in builders.items():
        print(f"  {name}", file=sys.stderr)
        module = builder().to(device)
        base, own = in_turn([partial(training_time, one, x) for one in (base_line, module)], repeats)
        cost = measure_cost(module, (shape[2], shape[3]), channels=shape[1])
        rows.append(
            {
                "operation": name,
                "time": statistics.median(mine / its for its, mine in zip(base, own, strict=True)),
                "seconds": statistics.median(own),
                "saved": saved_bytes(module, x) / x.untyped_storage().nbytes(),
                "parameters": cost.parameters,
                "multiply_adds": cost.multiply_adds,
            }
        )
    return rows


def measure(config: OperationsBench) -> dict[str, Any]:
    """Measures the operations at each shape and, unless `only_operations` is set, convolutions and networks.

    Returns:
        `tables`, each with a `title` and `rows`: operation, `time` relative to the first row's, `seconds`, `saved` as a
        multiple of the input, parameters, multiply-adds of one image. And `command`, `machine`.

    Raises:
        ValueError: There is no such device.
    """
    device = choose_device(config.device)
    torch.set_num_threads(config.threads)
    parts: list[tuple[str, Builders, Shape, int]] = []
    for text, shape in zip(config.shapes, numbers("shapes", config.shapes, 4, ""), strict=True):
        parts.append((f"Candidate operations at {text}", operations(shape[1]), shape, config.repeats))  # type: ignore[arg-type]
    if not config.only_operations:
        for n, channels, height, width, rate in PAPER_SHAPES:
            title = f"Convolutions at rate {rate}, {n}x{channels}x{height}x{width}"
            parts.append((title, convolutions(channels, rate), (n, channels, height, width), config.repeats))
        title = f"Networks at {'x'.join(map(str, NETWORK_SHAPE))}"
        parts.append((title, smoothed_networks(), NETWORK_SHAPE, config.slow_repeats))
        parts.append((title, inhibited_networks(), NETWORK_SHAPE, config.repeats))
    return {
        **origin("operations", config, hardware(config.device, config.threads)),
        "slow_repeats": config.slow_repeats,
        "tables": [
            {"title": title, "rows": compare(builders, shape, device, repeats)}
            for title, builders, shape, repeats in parts
        ],
    }


def make_table(data: Mapping[str, Any]) -> str:
    """Formats the measurements as tables in Markdown."""
    note = (
        f"On {data['machine']}: a forward and a backward pass in float32, medians of {data['repeats']} (ResNets: "
        f"{data['slow_repeats']}). Time is relative to the first line's; saved is what autograd keeps, as a multiple "
        "of the input; multiply-adds are those of one image."
    )
    lines = made(note, data)
    for part in data["tables"]:
        rows = []
        for row in part["rows"]:
            rows.append([f"`{row['operation']}`", f"{row['time']:.2f}", f"{1e3 * row['seconds']:.1f}"])
            rows[-1] += [f"{row['saved']:.2f}", f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e6:,.1f}"]
        lines += ["", f"{part['title']}:", "", *table(HEADS, rows)]
    return "\n".join(lines)
