"""Time, memory and dispatched operations of a piece of work, and the paper's search hours from its steps' seconds."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.evaluation.cost import WARM_UP

__all__ = [
    "Dispatched",
    "PeakMemory",
    "copy_speed",
    "finish",
    "in_turn",
    "kernels_launched",
    "largest",
    "launches",
    "protocol_hours",
    "seconds",
]

IMAGES = 2975
"""Training images of Cityscapes: half for the weights, half for alpha and beta."""
EPOCHS, START_EPOCH = 40, 20
"""Passes over the weights' half, and the epoch from which the other half is used, too."""


def protocol_hours(weight: float, architecture: float, batch_size: int = 2) -> float:
    """Returns the hours of all steps of Auto-DeepLab's search (Liu et al., 2019, 5.1), without validation and waiting.

    The paper's batches are of 2 images, at crop 321.

    Args:
        weight: Seconds of a step of the weights.
        architecture: Seconds of a step of alpha and beta.
        batch_size: Images in a step; an incomplete last batch is dropped, as `nas-search` does.
    """
    steps = IMAGES // 2 // batch_size
    return steps * (EPOCHS * weight + (EPOCHS - START_EPOCH) * architecture) / 3600


def finish(device: torch.device) -> None:
    """Waits until the device is idle; the CPU always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Times `work` in seconds, with the device idle before and after."""
    finish(device)
    began = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - began


def in_turn(works: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Calls `works` in turn and collects their results, [works, repeats].

    Taking turns, a machine that slows down slows all of them. The first two rounds are warm-up and left out, as in
    `nas.evaluation.cost.call_seconds`.
    """
    rounds = [[work() for work in works] for _ in range(WARM_UP + repeats)]
    return [list(times) for times in zip(*rounds[WARM_UP:], strict=True)]


def copy_speed(device: torch.device, size: int = 2**28) -> float:
    """Returns the bytes read and written a second when copying `size` bytes: the median of five copies."""
    source = torch.zeros(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    (times,) = in_turn([lambda: seconds(lambda: target.copy_(source), device)], 5)
    return 2 * size / statistics.median(times)


MIB = 2**20


class PeakMemory:
    """Peak memory from now on, above what is in use now.

    On a GPU, memory given out by PyTorch's allocator. On the CPU, the process's resident memory as Linux counts it;
    elsewhere `mib` is None. Where Linux refuses to reset its peak, only memory above the process's former peak counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before: float | None = torch.cuda.memory_allocated(device) / MIB
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS (man 5 proc)
            self.before = _resident("VmRSS")
        except OSError:
            self.before = _resident("VmHWM")

    def mib(self) -> float | None:
        """Returns the MiB of the peak since this object was made, above what was in use then."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) / MIB if cuda else _resident("VmHWM")
        return None if peak is None or self.before is None else peak - self.before


def _resident(name: str) -> float | None:
    """MiB of VmRSS (in use) or VmHWM (peak)."""
    file = Path("/proc/self/status")
    match = re.search(rf"^{name}:\s*(\d+) kB", file.read_text(), re.MULTILINE) if file.exists() else None
    return int(match[1]) / 1024 if match else None


class Dispatched(TorchDispatchMode):
    """Context manager that counts the tensor operations that PyTorch dispatches, also in the backward pass.

    Attributes:
        operations: Their number, including views.
        bytes: Bytes read and written if each operation reads its tensors and writes its results once, and no cache
            keeps anything between operations. Views move nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        read, written = _tensors((args, kwargs)), _tensors(results)
        places = {tensor.untyped_storage()._cdata for tensor in read}
        is_view = written and all(tensor.untyped_storage()._cdata in places for tensor in written)
        self.operations += 1
        if func._schema.is_mutable or not is_view:
            self.bytes += sum(_bytes(tensor) for tensor in (*read, *written))
        return results


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def launches(names: Iterable[str]) -> int:
    """Counts the kernel launches by the host among a profile's events."""
    return sum("LaunchKernel" in name or "LaunchCooperativeKernel" in name for name in names)


def kernels_launched(work: Callable[[], object]) -> int:
    """Counts the kernels that `work` launches on a GPU, without copies and fills of memory."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    return launches(event.name for event in profile.events() or ())


def largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """Finds the largest number from `low` to `high` that fits, by doubling, then bisection; 0 if `low` does not fit.

    Every number below one that fits must fit.
    """
    if not fits(low):
        return 0
    bad = high + 1
    while low < high:
        if not fits(guess := min(2 * low, high)):
            bad = guess
            break
        low = guess
    while bad - low > 1:
        middle = (low + bad) // 2
        low, bad = (middle, bad) if fits(middle) else (low, middle)
    return low
