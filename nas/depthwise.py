"""Gradients of depthwise convolutions for CPUs: where PyTorch's take most of a supernet's time.

The forward pass of a depthwise convolution in channels-last memory is fast on a CPU whatever its kernel; of the
gradients, only that of a kernel of at most three columns at rate 1 is. So all others are put as fast ones:

- the gradient of the input is a forward pass with the kernel turned by half a circle;
- that of a kernel at rate r is that of the same kernel at rate 1, on the r * r interleaved grids of pixels;
- that of a 5x5 kernel is that of its three left columns and that of its two right ones.

Shapes: N images, C channels, H x W pixels, k the side of a kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["depthwise_gradients", "has_own_gradients"]


def has_own_gradients(x: Tensor, weight: Tensor, padding: Sequence[int], dilation: Sequence[int], groups: int) -> bool:
    """Whether `depthwise_gradients` has those of this convolution, and is faster (the meta device stands for a CPU)."""
    side, rate = weight.shape[-1], dilation[0]
    return (
        x.device.type in ("cpu", "meta")
        and groups == len(weight) == x.shape[1]
        and weight.shape[-2:] in ((3, 3), (5, 5))
        and tuple(dilation) == (rate, rate)
        and tuple(padding) == (rate * (side // 2),) * 2
    )


def depthwise_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, rate: int, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The wanted gradients: of the input (N, C, H, W) and of the kernels [C, 1, k, k], given that of the output."""
    of_x = of_weight = None
    if wanted[0]:
        side = weight.shape[-1]
        of_x = F.conv2d(gradient, weight.flip(2, 3), None, 1, rate * (side // 2), rate, len(weight))
    if wanted[1]:
        # Grids of pixels apart from each other: a kernel at rate r meets pixels of one grid only.
        x, gradient = _grids(x, rate), _grids(gradient, rate)
        of_weight = _of_weight(x, gradient, 3, 3, 1) if weight.shape[-1] == 3 else _of_5x5(x, gradient)
    return of_x, of_weight


def _of_weight(x: Tensor, gradient: Tensor, rows: int, columns: int, padding: int) -> Tensor:
    """The gradient [C, 1, rows, columns] of a kernel, given that of the output."""
    weight = _shape_only(x.shape[1], rows, columns, x.dtype, x.device)
    return torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        [1, 1],
        [rows // 2, padding],
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [False, True, False],
    )[1]


def _of_5x5(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient [C, 1, 5, 5] of a 5x5 kernel, from those of parts that are at most three columns wide."""
    padded = F.pad(x, (2, 2))
    left = _of_weight(padded[..., :-2], gradient, 5, 3, 0)
    right = _of_weight(padded[..., 3:], gradient, 5, 2, 0)
    return torch.cat([left, right], dim=3)


@functools.cache
def _shape_only(channels: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A kernel of which only the shape is read, where a gradient is asked for by its side."""
    return torch.empty(channels, 1, rows, columns, dtype=dtype, device=device)


def _grids(x: Tensor, rate: int) -> Tensor:
    """Every r-th pixel and row: (N, C, H, W) -> (r * r * N, C, ceil(H / r), ceil(W / r)), zeros at the end."""
    if rate == 1:
        return x
    n, channels, height, width = x.shape
    x = F.pad(x, (0, -width % rate, 0, -height % rate)).permute(0, 2, 3, 1)
    rows, columns = x.shape[1] // rate, x.shape[2] // rate
    x = x.reshape(n, rows, rate, columns, rate, channels).permute(2, 4, 0, 1, 3, 5)
    return x.reshape(rate * rate * n, rows, columns, channels).permute(0, 3, 1, 2)
