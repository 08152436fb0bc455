"""Depthwise convolution with a backward pass for CPUs: what PyTorch's takes most of a supernet's time for.

The forward pass of a depthwise convolution in channels-last memory is fast on a CPU whatever its kernel; of the
gradients, only that of a 3x3 kernel at rate 1 is. So all others are put as fast ones:

- the gradient of the input is a forward pass with the kernel turned by half a circle;
- that of a kernel at rate r is that of the same kernel at rate 1, on the r * r interleaved grids of pixels;
- that of a 5x5 kernel is that of four 3x3 kernels, one in each corner.

Other devices, types and kernels take PyTorch's own.

Shapes: N images, C channels, H x W pixels, k the side of a kernel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["depthwise"]


def depthwise(x: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Filters every channel of (N, C, H, W) with its own kernel of [C, 1, k, k], k odd, zeros around."""
    if x.device.type == "cpu" and weight.shape[-1] in (3, 5) and torch.is_grad_enabled():
        if torch.is_autocast_enabled("cpu"):  # here, so that the backward pass, which is not under it, sees one type
            x, weight = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (x, weight))
        return _Depthwise.apply(x, weight, rate)
    return _forward(x, weight, rate)


def _forward(x: Tensor, weight: Tensor, rate: int) -> Tensor:
    return F.conv2d(x, weight, None, 1, rate * (weight.shape[-1] // 2), rate, len(weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rate: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rate = rate
        return _forward(x, weight, rate)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = _forward(gradient, weight.flip(2, 3), ctx.rate) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            # Grids of pixels apart from each other: a kernel at rate r meets pixels of one grid only.
            x, gradient = _grids(x, ctx.rate), _grids(gradient, ctx.rate)
            of_weight = _of_3x3(x, gradient) if weight.shape[-1] == 3 else _of_5x5(x, gradient)
        return of_x, of_weight, None


def _of_3x3(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient [C, 1, 3, 3] of a 3x3 kernel, given that of the output."""
    channels = x.shape[1]
    weight = x.new_empty(channels, 1, 3, 3)
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], channels, [False, True, False]
    )[1]


def _of_5x5(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient [C, 1, 5, 5] of a 5x5 kernel, from those of four 3x3 kernels, one in each corner."""
    height, width = x.shape[-2:]
    padded, gradient = F.pad(x, (2, 2, 2, 2)), F.pad(gradient, (1, 1, 1, 1))
    rows = []
    for a in (0, 2):
        left, right = (_of_3x3(padded[..., a : a + height + 2, b : b + width + 2], gradient) for b in (0, 2))
        rows.append(torch.cat([left, right[..., 1:]], dim=3))  # [C, 1, 3, 5]: the corners share the middle column
    return torch.cat([rows[0], rows[1][..., 1:, :]], dim=2)


def _grids(x: Tensor, rate: int) -> Tensor:
    """Every r-th pixel and row: (N, C, H, W) -> (r * r * N, C, ceil(H / r), ceil(W / r)), zeros at the end."""
    if rate == 1:
        return x
    n, channels, height, width = x.shape
    x = F.pad(x, (0, -width % rate, 0, -height % rate)).permute(0, 2, 3, 1)
    rows, columns = x.shape[1] // rate, x.shape[2] // rate
    x = x.reshape(n, rows, rate, columns, rate, channels).permute(2, 4, 0, 1, 3, 5)
    return x.reshape(rate * rate * n, rows, columns, channels).permute(0, 3, 1, 2)
