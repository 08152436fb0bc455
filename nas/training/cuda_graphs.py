"""CUDA graphs: the GPU work of a step, recorded once and replayed from then on.

Source: PyTorch's notes on CUDA semantics, "CUDA Graphs", whole-network capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Graphed", "Pool", "graph_pool"]

WARM_UPS = 3
"""Runs before the capture, in which libraries choose their algorithms and set up their work spaces."""
Pool = Any
"""Handle of memory that graphs share; they must run one after the other, and not use each other's results."""


def graph_pool(device: torch.device) -> Pool:
    """A pool of memory for graphs.

    Raises:
        ValueError: The device has no CUDA graphs.
    """
    if device.type != "cuda":
        raise ValueError(
            f"supernet.graphs is on, but the device is {device}: leave it out, or give --device cuda on a machine with "
            "an NVIDIA GPU"
        )
    return torch.cuda.graph_pool_handle()


class Graphed:
    """A function of images and labels that is recorded at its first call and replayed from then on.

    Args:
        compute: (images, labels) -> loss, with gradients in new tensors; called with the same shapes every time, and
            never waits for the device.
        state: Tensors that it changes in place, such as running statistics; the warm-up's changes are undone.
        pool: From `graph_pool`.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor], state: Sequence[Tensor], pool: Pool) -> None:
        self._compute, self._state, self._pool = compute, state, pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._loss: Tensor | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, whose memory the next call overwrites."""
        if self._inputs is None:
            self._inputs = images.clone(), labels.clone()
        for own, given in zip(self._inputs, (images, labels), strict=True):
            assert own.shape == given.shape and own.dtype == given.dtype, "a graph has one shape"
            own.copy_(given, non_blocking=True)
        if self._graph is None:
            self._warm_up(*self._inputs)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=self._pool):
                self._loss = self._compute(*self._inputs)
        self._graph.replay()
        assert self._loss is not None
        return self._loss

    def _warm_up(self, images: Tensor, labels: Tensor) -> None:
        before = [tensor.clone() for tensor in self._state]
        random = torch.cuda.get_rng_state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._compute(images, labels)
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(self._state, before, strict=True):
            tensor.copy_(value)
        torch.cuda.set_rng_state(random)
