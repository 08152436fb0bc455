"""A trained network made ready to be used: its precision, batch norms folded, compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from nas.config import Precision
from nas.devices import choose_device, set_float32
from nas.inference import Inference
from nas.out_of_memory import is_out_of_memory
from retrain.folding import fold_batch_norms
from retrain.networks.base import FeatureInfo
from retrain.source import TrainedNetwork, load_trained

__all__ = ["ReadyNetwork", "load_ready", "memory_advice"]


@dataclasses.dataclass(frozen=True)
class ReadyNetwork:
    """A trained network on its device, in eval mode, and how it is computed."""

    network: nn.Module
    """(N, 3, H, W) in [-1, 1] -> logits (N, classes, H, W)."""
    trained: TrainedNetwork
    """What it was made from: settings, classes, colours."""
    device: torch.device
    """Where it is."""
    precision: Precision
    """Of the forward pass."""
    folded: int
    """Batch norms that became part of a convolution."""


def load_ready(run: str | Path, which: str, device: str, how: Inference) -> ReadyNetwork:
    """Loads the network of a retraining run for use.

    Args:
        run: The run folder.
        which: "best" (highest validation mIoU) or "last".
        device: auto, cpu, cuda, cuda:N.
        how: Precision, folding, compiling; windows are checked against the network.

    Raises:
        ValueError: The run, its checkpoint, the device, the precision or the window cannot be used, or there is no
            compiler; one line.
    """
    place = choose_device(device)
    trained = load_trained(run, which)
    network: nn.Module = trained.network
    _check_window(network, how)
    own = trained.config.precision
    if own == "tf32" and place.type != "cuda":
        own = "float32"  # which the run's own stood for, and is here
    precision = how.precision or own
    set_float32(place, precision)
    folded = 0
    if how.fold:
        network, folded = fold_batch_norms(network)  # on the CPU, where float32 is float32
    network = network.to(place)
    if how.compile:
        _check_compiler(place)
        network.compile()
    return ReadyNetwork(network, trained, place, precision, folded)


def _check_window(network: nn.Module, how: Inference) -> None:
    features: list[FeatureInfo] = getattr(network, "feature_info", [])
    largest = max((info.stride for info in features), default=1)
    if how.window is not None and min(how.window) < largest:
        raise ValueError(
            f"window {how.window[0]}x{how.window[1]} is smaller than the network's largest stride, {largest} pixels: "
            f"give at least {largest}x{largest}; about the crop that it was trained on is best"
        )


def _check_compiler(device: torch.device) -> None:
    """Compiles one addition: what PyTorch needs for that (a C++ compiler; on a GPU, Triton) may not be there.

    Raises:
        ValueError: It cannot be compiled.
    """

    def work(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    try:
        torch.compile(work, options={"fx_graph_cache": False})(torch.zeros(8, device=device))
    except Exception as error:  # each backend, and each missing part, raises something of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(error).__name__
        raise ValueError(
            f"--compile cannot work here ({reason}): install a C++ compiler such as g++ (on a GPU, Triton, too), or "
            "leave it out"
        ) from error


@contextmanager
def memory_advice() -> Iterator[None]:
    """Running out of memory within it ends in one line that says what to do.

    Raises:
        ValueError: There is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            "out of memory: see large images in windows (--window 512x512; fewer at once by --window-batch 1), give "
            "--precision bfloat16 or smaller --scales"
        ) from error
