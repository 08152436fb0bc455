"""Memory layout of tensors in which many edges and sources of a node are computed together.

Shapes: N images of H x W pixels, K sources (the cells that flow into a node), m edges, c channels of an operation. A
state is a tensor (N, K * c, H, W), the output of its edges (N, K * m * c, H, W): channels are ordered by source, then
by edge, and memory is channels-last, so that the same memory can be read in several forms:

    channels  (N, K * C, H, W)      the default: each source has its own channels, hence its own batch-norm statistics
    columns   (N, C, H, W * K)      `to_columns`, `from_columns`: each source has its own columns, interleaved with
                                    those of the others, hence all share the weights of a convolution, which skips
                                    the others with K times the dilation
    rows      [N, H, W, K, m, C]    `to_rows`, `from_rows`: the order of memory, to add, repeat and join

Changing the form moves no data. `repeat_per_edge` and `join_columns` copy.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["from_columns", "from_rows", "join_columns", "reinterpret", "repeat_per_edge", "to_columns", "to_rows"]


class _Reinterpret(torch.autograd.Function):
    """One dispatched operation in place of several permutations and views."""

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


def reinterpret(x: Tensor, *shape: int) -> Tensor:
    """The same memory in another shape.

    A shape of four dimensions is (N, C, H, W) in channels-last memory; one of more is [N, H, W, ...], contiguous.
    """
    return x if x.shape == shape else _Reinterpret.apply(x, shape)


def to_columns(x: Tensor, sources: int) -> Tensor:
    """Channels to columns: (N, K * C, H, W) -> (N, C, H, W * K)."""
    n, channels, height, width = x.shape
    return reinterpret(x, n, channels // sources, height, width * sources)


def from_columns(x: Tensor, sources: int) -> Tensor:
    """Columns to channels: (N, C, H, W * K) -> (N, K * C, H, W)."""
    n, channels, height, width = x.shape
    return reinterpret(x, n, channels * sources, height, width // sources)


def to_rows(x: Tensor, sources: int, channels: int) -> Tensor:
    """Channels to rows of C: (N, K * m * C, H, W) -> [N, H, W, K, m, C]; m is 1 for a state."""
    n, width_of_all, height, width = x.shape
    return reinterpret(x, n, height, width, sources, width_of_all // (sources * channels), channels)


def from_rows(rows: Tensor) -> Tensor:
    """Rows to channels: [N, H, W, K, m, C] -> (N, K * m * C, H, W)."""
    n, height, width, *channels = rows.shape
    return reinterpret(rows, n, math.prod(channels), height, width)


def repeat_per_edge(sources: int, edges: int, x: Tensor) -> Tensor:
    """Repeats a state for each edge: (N, K * C, H, W) -> (N, K * m * C, H, W)."""
    return _RepeatPerEdge.apply(x, sources, edges)


class _RepeatPerEdge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sources: int, edges: int) -> Tensor:
        n, channels, height, width = x.shape
        ctx.shape, ctx.rows = x.shape, (n, height, width, sources, edges, channels // sources)
        *outer, _, inner = _strides((n, height, width, sources, 1, channels // sources))
        rows = _dense(x).as_strided(ctx.rows, (*outer, 0, inner)).clone(memory_format=torch.contiguous_format)
        shape = (n, channels * edges, height, width)
        return rows.as_strided(shape, _strides(shape))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows = _dense(gradients[0]).as_strided(ctx.rows, _strides(ctx.rows)).sum(4)  # [N, H, W, K, C]
        return rows.as_strided(ctx.shape, _strides(ctx.shape)), None, None


def join_columns(sources: int, *tensors: Tensor) -> Tensor:
    """T tensors (N, K * C, H, W) as one in columns, (N, T * C, H, W * K)."""
    return _JoinColumns.apply(sources, *tensors)


class _JoinColumns(torch.autograd.Function):
    """In place of `to_columns` and `torch.cat`: the backward pass makes one copy instead of one per tensor."""

    @staticmethod
    def forward(ctx: Any, sources: int, *tensors: Tensor) -> Tensor:
        n, channels, height, width = tensors[0].shape
        ctx.shape, ctx.number, ctx.sources = tensors[0].shape, len(tensors), sources
        shape = (n, channels // sources, height, width * sources)
        return torch.cat([_dense(x).as_strided(shape, _strides(shape)) for x in tensors], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        n, channels, height, width = ctx.shape
        each = channels // ctx.sources
        memory = (n, height, width, ctx.sources, ctx.number, each)
        s = _strides(memory)
        rows = _dense(gradients[0]).as_strided((ctx.number, *memory[:4], each), (s[4], *s[:4], s[5]))
        shape = (ctx.number * n, channels, height, width)
        one = rows.clone(memory_format=torch.contiguous_format).as_strided(shape, _strides(shape))
        return None, *one.split(n)  # [T, N, H, W, K, C] in memory
