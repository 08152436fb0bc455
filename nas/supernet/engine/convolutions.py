"""Convolution and ReLU with PyTorch's results and gradients, in less memory and, on CPUs, in less time.

Both replace tensors that are cheap to recompute by recipes (`nas.supernet.recomputation.Recipes`); without recipes they
keep everything, as PyTorch's own do.

On CPUs, PyTorch's gradients of depthwise convolutions take most of a supernet's time, so there are own ones. PyTorch's
forward pass in channels-last memory is fast for any kernel, but its gradient only for kernels of at most three columns
at rate 1. All other gradients are computed from these:

- the gradient of the input is a forward pass with the kernel rotated by 180 degrees;
- that of a kernel at rate r is that of the same kernel at rate 1, on the r * r interleaved grids of pixels;
- that of a 5x5 kernel consists of that of its three left columns and that of its two right ones.

Shapes: N images, C channels, H x W pixels, k the side of a kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.supernet.recomputation import Kept, Recipes, autocast_of

__all__ = ["convolve", "relu"]


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    recipes: Recipes | None,
    stride: tuple[int, int] = (1, 1),
) -> Tensor:
    """`torch.nn.functional.conv2d`: (N, C_in, H, W) -> (N, C_out, ..., ...)."""
    _, dtype, lower = autocast_of(x.device)
    if lower:
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if weight.shape[-2:] == (1, 1) and x.device.type in ("cpu", "meta"):
        dilation = (2, 2)  # no effect on 1x1, but keeps PyTorch from choosing its slow code for one thread
    if not torch.is_grad_enabled():
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return _Convolution.apply(x, weight, bias, stride, padding, dilation, groups, recipes)


def relu(x: Tensor, recipes: Recipes | None) -> Tensor:
    """`torch.nn.functional.relu`, recomputed in the backward pass if there are recipes."""
    return _ReLU.apply(x, recipes) if torch.is_grad_enabled() else F.relu(x)


def _save(ctx: Any, recipes: Recipes | None, *tensors: Tensor) -> None:
    kept = tensors if recipes is None else [recipes.keep(tensor) for tensor in tensors]
    ctx.save_for_backward(*(None if isinstance(entry, Kept) else entry for entry in kept))
    ctx.kept = [entry if isinstance(entry, Kept) else None for entry in kept]


def _saved(ctx: Any) -> list[Tensor]:
    tensors = [saved if kept is None else kept.get() for saved, kept in zip(ctx.saved_tensors, ctx.kept, strict=True)]
    ctx.kept = [None] * len(tensors)  # otherwise the recipes' tensors would live as long as the graph
    return tensors


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        recipes: Recipes | None,
    ) -> Tensor:
        _save(ctx, recipes, x, weight)
        ctx.biases = None if bias is None else [len(bias)]
        ctx.shape, ctx.groups = (stride, padding, dilation), groups
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = _saved(ctx)
        mask = list(ctx.needs_input_grad[:3])
        stride, padding, dilation = ctx.shape
        if stride == (1, 1) and _has_own_gradients(x, weight, padding, dilation, ctx.groups):
            found = (*_depthwise_gradients(gradient, x, weight, dilation[0], mask), None)
        else:
            found = torch.ops.aten.convolution_backward.default(
                gradient, x, weight, ctx.biases, stride, padding, dilation, False, [0, 0], ctx.groups, mask
            )
        return *found, None, None, None, None, None


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, recipes: Recipes | None) -> Tensor:
        y = F.relu(x)
        if recipes is not None:
            recipes.add(y, F.relu, x)
        # Both tell where the gradient passes. y is recomputed for its readers anyway; without recipes, x is cheaper.
        _save(ctx, recipes, x if recipes is None else y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.threshold_backward(gradient, *_saved(ctx), 0), None


def _has_own_gradients(x: Tensor, weight: Tensor, padding: Sequence[int], dilation: Sequence[int], groups: int) -> bool:
    """Whether `_depthwise_gradients` supports this convolution and is faster; the meta device stands for a CPU."""
    side, rate = weight.shape[-1], dilation[0]
    return (
        x.device.type in ("cpu", "meta")
        and groups == len(weight) == x.shape[1]
        and weight.shape[-2:] in ((3, 3), (5, 5))
        and tuple(dilation) == (rate, rate)
        and tuple(padding) == (rate * (side // 2),) * 2
    )


def _depthwise_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, rate: int, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The wanted gradients, of the input (N, C, H, W) and of the kernels [C, 1, k, k], given that of the output."""
    of_x = of_weight = None
    if wanted[0]:
        side = weight.shape[-1]
        of_x = F.conv2d(gradient, weight.flip(2, 3), None, 1, rate * (side // 2), rate, len(weight))
    if wanted[1]:
        # The grids do not interact: a kernel at rate r reads pixels of one grid only.
        x, gradient = _grids(x, rate), _grids(gradient, rate)
        of_weight = _of_weight(x, gradient, 3, 3, 1) if weight.shape[-1] == 3 else _of_5x5(x, gradient)
    return of_x, of_weight


def _of_weight(x: Tensor, gradient: Tensor, rows: int, columns: int, padding: int) -> Tensor:
    """The gradient [C, 1, rows, columns] of a kernel, given that of the output."""
    weight = _shape_only(x.shape[1], rows, columns, x.dtype, x.device)
    shape = [1, 1], [rows // 2, padding], [1, 1], False, [0, 0], len(weight), [False, True, False]
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *shape)[1]


def _of_5x5(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient [C, 1, 5, 5] of a 5x5 kernel, from those of its left and right columns."""
    padded = F.pad(x, (2, 2))
    left = _of_weight(padded[..., :-2], gradient, 5, 3, 0)
    right = _of_weight(padded[..., 3:], gradient, 5, 2, 0)
    return torch.cat([left, right], dim=3)


@functools.cache
def _shape_only(channels: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A kernel for a call that reads only its shape."""
    return torch.empty(channels, 1, rows, columns, dtype=dtype, device=device)


def _grids(x: Tensor, rate: int) -> Tensor:
    """The grids of every r-th pixel: (N, C, H, W) -> (r * r * N, C, ceil(H / r), ceil(W / r)), padded with zeros."""
    if rate == 1:
        return x
    n, channels, height, width = x.shape
    x = F.pad(x, (0, -width % rate, 0, -height % rate)).permute(0, 2, 3, 1)
    rows, columns = x.shape[1] // rate, x.shape[2] // rate
    x = x.reshape(n, rows, rate, columns, rate, channels).permute(2, 4, 0, 1, 3, 5)
    return x.reshape(rate * rate * n, rows, columns, channels).permute(0, 3, 1, 2)
