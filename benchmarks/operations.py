"""Speed and memory of the convolutional operations, against the plain dilated convolution. Prints Markdown.

    python benchmarks/operations.py
    python benchmarks/operations.py --into benchmarks/operations.md     # ... and puts it between that file's markers
    python benchmarks/operations.py --threads 2 --repeats 31 --shapes 2x8x81x81
    python benchmarks/operations.py --device cuda

First the candidate operations with weights, and G interact in their frame, at stride 1, against `atrous_3x3`. Then the
smoothed and the laterally inhibited convolutions alone at the shapes of DeepLabv2 (Efficient Smoothing of Dilated
Convolutions, section IV: output stride 8, crop 321), against the plain dilated convolution. Then whole networks with
and without them, which is what the papers' claims are about.

Time is that of a forward and a backward pass in float32. Each pass is timed beside one of the base line, so that a
machine that slows down slows both; the ratio is the median of the pairs'. Saved is what autograd keeps for the backward
pass, parameters left out, as a multiple of the input.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from documents import hardware, line, put
from torch import Tensor, nn

from nas.cost import measure
from nas.devices import choose_device
from retrain.network_config import NetworkConfig
from retrain.networks import NETWORKS, build
from search_spaces.lateral_inhibition import LIConv2d
from search_spaces.modules import BatchNorm
from search_spaces.operations import DEFAULTS, OPERATIONS
from search_spaces.smoothing import SmoothedAtrousConvolution, SmoothedConv2d

BASE_LINE = "atrous_3x3"
HEADS = ("operation", "time", "ms", "saved", "parameters", "M multiply-adds")
SMOOTHINGS = ("average", "gaussian", "ss_conv", "g_interact", "aggregated")
PAPER_SHAPES = ((2, 256, 41, 41, 2), (2, 512, 41, 41, 4))
"""N, C, H, W and the rate of the last two residual stages' dilated convolutions."""

NETWORK_SHAPE = (2, 3, 321, 321)

Builders = Mapping[str, Callable[[], nn.Module]]
Shape = tuple[int, int, int, int]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["6x40x81x81"], help="Of the operations' input, NxCxHxW.")
    parser.add_argument("--repeats", type=int, default=15, help="Timed passes of each operation; the median counts.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N.")
    parser.add_argument("--threads", type=int, default=1, help="Threads on the CPU.")
    parser.add_argument("--slow-repeats", type=int, default=3, help="The same for the ResNets, of many seconds each.")
    parser.add_argument("--only-operations", action="store_true", help="Only the candidate operations at --shapes.")
    parser.add_argument("--into", type=Path, help="Markdown file with the two markers.")
    values = parser.parse_args(arguments)
    if min(values.repeats, values.slow_repeats, values.threads) < 1:
        parser.error("--repeats, --slow-repeats and --threads are at least 1")
    try:
        values.shapes = [tuple(map(int, shape.split("x"))) for shape in values.shapes]
    except ValueError:
        values.shapes = [()]
    if any(len(shape) != 4 or min(shape) < 1 for shape in values.shapes):
        parser.error("--shapes are four numbers of at least 1 each, such as 6x40x81x81")
    return values


def operations(channels: int) -> Builders:
    """Builders of the registry's operations that have weights, the base line first, and of G interact."""
    names = [BASE_LINE, *(name for name in OPERATIONS if OPERATIONS[name].has_weights and name != BASE_LINE)]
    builders: dict[str, Callable[[], nn.Module]] = {
        name: partial(OPERATIONS[name].build, channels, 1, BatchNorm) for name in names
    }
    interaction = partial(SmoothedAtrousConvolution, channels, 3, 1, BatchNorm, DEFAULTS, "g_interact")
    return builders | {"g_interact_smoothed_atrous_3x3": interaction}


def convolutions(channels: int, rate: int) -> Builders:
    """Builders of the convolutions alone: plain, smoothed, and behind a lateral inhibition."""
    build = partial(SmoothedConv2d, channels, channels, 3, rate)
    builders: dict[str, Callable[[], nn.Module]] = {"plain": build}
    builders |= {smoothing: partial(build, smoothing) for smoothing in SMOOTHINGS}
    return builders | {"li": partial(LIConv2d, channels, channels, rate=rate)}


def smoothed_networks() -> Builders:
    """Builders of the smoothing papers' network; batch norms frozen, as there."""
    name = "deeplabv2-resnet101"
    return {
        f"{name} {smoothing}": partial(
            build, name, NETWORKS[name].classes, NetworkConfig(smoothing=smoothing, frozen_batch_norm=True)
        )
        for smoothing in ("none", *SMOOTHINGS)
    }


def inhibited_networks() -> Builders:
    """Builders of the LI paper's networks on a MobileNetV2."""
    names = [name for name in NETWORKS if "mnv2" in name]
    return {name: partial(build, name, NETWORKS[name].classes) for name in names}


def training_time(module: nn.Module, x: Tensor) -> float:
    """Seconds of a forward and a backward pass, with the device idle before and after."""
    module.zero_grad()
    x.grad = None
    _finish(x.device)
    began = time.perf_counter()
    output = module(x)
    output.backward(output.detach())
    _finish(x.device)
    return time.perf_counter() - began


def saved_bytes(module: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, besides parameters and buffers; shared memory counts once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(x)  # holds what was kept, so that no address is used twice
    assert output.requires_grad
    return sum(size for address, size in kept.items() if address not in own)


def make_table(builders: Builders, shape: Shape, device: torch.device, repeats: int) -> list[str]:
    """One table: every builder's module at one shape, against the first one's."""
    x = torch.randn(shape, device=device, requires_grad=True)
    base_line = next(iter(builders.values()))().to(device)
    lines = [line(HEADS), line(["---"] + ["---:"] * (len(HEADS) - 1))]
    for name, builder in builders.items():
        print(f"  {name}", file=sys.stderr)
        module = builder().to(device)
        pairs = [[training_time(one, x) for one in (base_line, module)] for _ in range(1 + repeats)]
        del pairs[0]  # it allocates, and chooses algorithms
        cost = measure(module, (shape[2], shape[3]), channels=shape[1])
        cells = [
            f"`{name}`",
            f"{statistics.median(own / base for base, own in pairs):.2f}",
            f"{1e3 * statistics.median(own for _, own in pairs):.1f}",
            f"{saved_bytes(module, x) / x.untyped_storage().nbytes():.2f}",
            f"{cost.parameters:,}",
            f"{cost.multiply_adds / 1e6:,.1f}",
        ]
        lines.append(line(cells))
    return lines


def make_tables(values: argparse.Namespace) -> str:
    """All tables, with what they need to be made again."""
    device = choose_device(values.device)
    torch.set_num_threads(values.threads)
    shapes = ["x".join(map(str, shape)) for shape in values.shapes]
    arguments = ["--shapes", *shapes, "--repeats", str(values.repeats), "--device", values.device]
    arguments += ["--threads", str(values.threads), "--slow-repeats", str(values.slow_repeats)]
    arguments += ["--only-operations"] * values.only_operations
    lines = [
        f"On {hardware(device, values.threads)}, PyTorch {torch.__version__}: a forward and a backward pass in "
        f"float32, medians of {values.repeats} (ResNets: {values.slow_repeats}). Time is relative to the "
        "first line's; saved is what autograd keeps, as a multiple of the input; multiply-adds are those of one image. "
        "Made by",
        "",
        f"    python benchmarks/operations.py {' '.join(arguments)}",
    ]
    for text, shape in zip(shapes, values.shapes, strict=True):
        lines += ["", f"Candidate operations at {text}:", ""]
        lines += make_table(operations(shape[1]), shape, device, values.repeats)
    if values.only_operations:
        return "\n".join(lines)
    for *paper_shape, rate in PAPER_SHAPES:
        n, channels, height, width = paper_shape
        lines += ["", f"Convolutions at rate {rate}, {n}x{channels}x{height}x{width}:", ""]
        lines += make_table(convolutions(channels, rate), (n, channels, height, width), device, values.repeats)
    for builders, repeats in ((smoothed_networks(), values.slow_repeats), (inhibited_networks(), values.repeats)):
        lines += ["", f"Networks at {'x'.join(map(str, NETWORK_SHAPE))}:", ""]
        lines += make_table(builders, NETWORK_SHAPE, device, repeats)
    return "\n".join(lines)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    settings = parse_arguments()
    result = make_tables(settings)
    print(result)
    if settings.into is not None:
        put(result, settings.into)
