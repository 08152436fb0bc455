"""Operations with PyTorch's results and gradients that keep less for the backward pass (`nas.recomputation.Recipes`).

Those given no recipes keep all, as PyTorch's own do. Depthwise convolutions on a CPU have gradients of their own
(`nas.depthwise`).

Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.depthwise import depthwise_gradients, has_own_gradients
from nas.recomputation import Kept, Recipes, autocast_of

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
        dilation = (2, 2)  # the same for one pixel, but PyTorch leaves no dilated one to its slow code on one thread
    if not torch.is_grad_enabled():
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return _Convolution.apply(x, weight, bias, stride, padding, dilation, groups, recipes)


def relu(x: Tensor, recipes: Recipes | None) -> Tensor:
    """`torch.nn.functional.relu`, made again in the backward pass if there are recipes."""
    return _ReLU.apply(x, recipes) if torch.is_grad_enabled() else F.relu(x)


def _save(ctx: Any, recipes: Recipes | None, *tensors: Tensor) -> None:
    kept = tensors if recipes is None else [recipes.keep(tensor) for tensor in tensors]
    ctx.save_for_backward(*(None if isinstance(entry, Kept) else entry for entry in kept))
    ctx.kept = [entry if isinstance(entry, Kept) else None for entry in kept]


def _saved(ctx: Any) -> list[Tensor]:
    tensors = [saved if kept is None else kept.get() for saved, kept in zip(ctx.saved_tensors, ctx.kept, strict=True)]
    ctx.kept = [None] * len(tensors)  # or what recipes hold would live as long as the graph
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
        ctx.shape = stride, padding, dilation
        ctx.groups = groups
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = _saved(ctx)
        mask = list(ctx.needs_input_grad[:3])
        stride, padding, dilation = ctx.shape
        if stride == (1, 1) and has_own_gradients(x, weight, padding, dilation, ctx.groups):
            found = (*depthwise_gradients(gradient, x, weight, dilation[0], mask), None)
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
        # Both say where the gradient goes on. What reads y makes it anyway; without recipes, x costs fewer calls.
        _save(ctx, recipes, x if recipes is None else y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.threshold_backward(gradient, *_saved(ctx), 0), None
