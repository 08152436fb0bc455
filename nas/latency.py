"""How long one call of a module takes on a device."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

__all__ = ["median_seconds"]

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
