"""Counts of what a step asks of the machine: tensor operations, bytes, kernels; and the largest batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Dispatched", "kernels_launched", "largest", "launches"]


class Dispatched(TorchDispatchMode):
    """While it is entered, counts the tensor operations that PyTorch dispatches, those of the backward pass too.

    Attributes:
        operations: Their number, views among them.
        bytes: What they read and write if each reads its tensors once and writes its results once, and if nothing is
            still in a cache from the operation before. Views move nothing.
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
    """Of an expanded tensor, those that are there."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def launches(names: Iterable[str]) -> int:
    """How many of a profile's events are launches of a kernel by the host."""
    return sum("LaunchKernel" in name or "LaunchCooperativeKernel" in name for name in names)


def kernels_launched(work: Callable[[], object]) -> int:
    """Kernels that `work` launches on a GPU; copies and fills of memory are none."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    return launches(event.name for event in profile.events() or ())


def largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number from `low` to `high` that fits, where all below one that fits do; 0 if `low` does not.

    Doubles until one does not fit, then halves the interval.
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
