"""Where numbers lie in memory when many edges and sources of a node are computed together.

Shapes: N images of H x W pixels, K sources (the cells that flow into a node), m edges, c channels of an operation. A
state is a tensor (N, K * c, H, W), what its edges make of it (N, K * m * c, H, W): channels are ordered by source, then
by edge, and memory is channels-last, so that one and the same memory can be read in several ways:

    deep  (N, K * C, H, W)      each source has channels of its own, hence statistics of its own: for batch norms
    wide  (N, C, H, W * K)      each source has columns of its own, between those of the others, hence shares the
                                weights of a convolution, which steps over the others with K times the dilation
    rows  [N, H, W, K, m, C]    in the order of memory, to add, repeat and join

None of them moves a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Joined", "Layout", "deep", "of_rows", "per_edge", "reread", "rows_of", "wide"]


class Layout:
    """What the parts of the batches of one state must know of the tensors that they get, and what they share.

    Args:
        edges: m.
        channels: c.

    Attributes:
        sources: K, of the state that is being read.
    """

    def __init__(self, edges: int, channels: int) -> None:
        self.edges, self.channels, self.sources = edges, channels, 1
        self._shared: dict[tuple[str, int], Tensor] = {}
        self._known: dict[int, Tensor] = {}

    @contextmanager
    def reading(self, state: Tensor) -> Iterator[None]:
        """While it lasts, what is computed of the state (N, K * c, H, W) alone is computed once."""
        self.sources = state.shape[1] // self.channels
        self._known = {id(state): state}
        try:
            yield
        finally:
            self._shared, self._known = {}, {}

    def once(self, name: str, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, which is `name` of `x`; if x is the state, or was given by this, all who ask get one tensor."""
        if id(x) not in self._known:
            return compute()
        key = name, id(x)
        if key not in self._shared:
            result = compute()
            self._shared[key] = self._known[id(result)] = result
        return self._shared[key]


@dataclass(frozen=True)
class Joined:
    """How tensors of m modules are one tensor: along a dimension, after they were given one more where they need it."""

    dimension: int
    shape: torch.Size
    """Of each of them."""

    def separate(self, tensor: Tensor, number: int) -> list[Tensor]:
        """The tensors of the modules, as views."""
        parts = (tensor,) if number == 1 else tensor.chunk(number, self.dimension)
        return [part.reshape(self.shape) for part in parts]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """The one tensor. Scalars become a vector, and vectors along dimension 1 a matrix of one row or of several."""
        rank = self.dimension + 1
        return torch.cat([t.reshape((1,) * (rank - t.dim()) + tuple(t.shape)) for t in tensors], self.dimension)


class _Reread(torch.autograd.Function):
    """One dispatched operation in place of the permutations and views that say the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        return _dense(x).as_strided(shape, _strides(shape))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _dense(gradients[0]).as_strided(ctx.shape, _strides(ctx.shape)), None


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        _, channels, height, width = shape
        return channels * height * width, 1, channels * width, channels
    return tuple(math.prod(shape[number + 1 :]) for number in range(len(shape)))


def reread(x: Tensor, *shape: int) -> Tensor:
    """The same memory in another shape.

    A shape of four numbers is (N, C, H, W) in channels-last memory; one of more is [N, H, W, ...] in memory's order.
    """
    return x if x.shape == shape else _Reread.apply(x, shape)


def wide(x: Tensor, sources: int) -> Tensor:
    """(N, K * C, H, W) -> (N, C, H, W * K)"""
    n, channels, height, width = x.shape
    return reread(x, n, channels // sources, height, width * sources)


def deep(x: Tensor, sources: int) -> Tensor:
    """(N, C, H, W * K) -> (N, K * C, H, W)"""
    n, channels, height, width = x.shape
    return reread(x, n, channels * sources, height, width // sources)


def rows_of(x: Tensor, layout: Layout, channels: int) -> Tensor:
    """Of C channels: a state (N, K * C, H, W) -> [N, H, W, K, 1, C], another -> [N, H, W, K, m, C]."""
    n, width_of_all, height, width = x.shape
    return reread(x, n, height, width, layout.sources, width_of_all // (layout.sources * channels), channels)


def of_rows(rows: Tensor) -> Tensor:
    """[N, H, W, K, m, C] -> (N, K * m * C, H, W)"""
    n, height, width, *channels = rows.shape
    return reread(rows, n, math.prod(channels), height, width)


def per_edge(x: Tensor, layout: Layout, channels: int) -> Tensor:
    """Repeats a state of C channels for each edge, to (N, K * m * C, H, W); another tensor stays as it is."""
    if x.shape[1] != layout.sources * channels or layout.edges == 1:
        return x
    return layout.once(
        "per edge", x, lambda: of_rows(rows_of(x, layout, channels).expand(-1, -1, -1, -1, layout.edges, -1))
    )
