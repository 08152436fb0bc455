"""Seconds of a piece of work, and what a machine can do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

__all__ = ["copy_speed", "finish", "in_turn", "seconds"]


def finish(device: torch.device) -> None:
    """Waits until a GPU is done; the CPU always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, with the device idle before and after."""
    finish(device)
    began = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - began


def in_turn(works: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """What each of `works` says that it took, [works, repeats].

    They take turns, so that a machine that slows down slows all of them. The first round is not among the results: in
    it memory is allocated and algorithms are chosen.
    """
    rounds = [[work() for work in works] for _ in range(1 + repeats)]
    return [list(times) for times in zip(*rounds[1:], strict=True)]


def copy_speed(device: torch.device, size: int = 2**28) -> float:
    """Bytes a second that are read and written when `size` bytes are copied: the median of five copies, behind one."""
    source = torch.zeros(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    (times,) = in_turn([lambda: seconds(lambda: target.copy_(source), device)], 5)
    return 2 * size / statistics.median(times)
