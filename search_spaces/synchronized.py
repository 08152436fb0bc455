"""Batch norm whose statistics are of the batches of all processes, as one process with all of them would have it.

PyTorch's SyncBatchNorm is a module of its own, for GPUs only, and knows no tensors that are several networks' channels
side by side; this is a function that any batch norm can call, on any device.

Shapes: x (N, C, H, W), everything else [C]. n is the number of values of a channel, N * H * W, in one process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Synchronizable", "batch_norm_of_all", "synchronize"]


class Synchronizable(nn.Module):
    """A batch norm that asks `synchronized` whether its statistics are to be those of all processes."""

    synchronized = False


def synchronize(network: nn.Module) -> None:
    """From now on, the batch norms of a network take the statistics of all processes in training."""
    for module in network.modules():
        if isinstance(module, Synchronizable):
            module.synchronized = True


def batch_norm_of_all(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_variance: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm in training, over all processes; all must call it, in the same order.

    Returns:
        The result (N, C, H, W), and [C] each of the mean and of 1 / sqrt(variance + eps), as `torch.native_batch_norm`.
    """
    return _BatchNormOfAll.apply(x, weight, bias, running_mean, running_variance, momentum, eps)


class _BatchNormOfAll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_variance: Tensor,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance, count = _statistics(x)
        # In PyTorch, too, the running variance is the unbiased one.
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_variance.lerp_((variance * (count / (count - 1).clamp(min=1))).to(running_variance.dtype), momentum)
        inverse = (variance + eps).rsqrt()
        y = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, inverse)
        return y, mean, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        by_channel = (1, -1, 1, 1)
        centered = x - mean.view(by_channel)
        of_shift = gradient.sum((0, 2, 3), dtype=mean.dtype)
        of_scale = (gradient * centered).sum((0, 2, 3), dtype=mean.dtype) * inverse
        of_x = None
        if ctx.needs_input_grad[0]:
            of_all = torch.stack([of_shift, of_scale])
            dist.all_reduce(of_all)
            shift, scale = of_all / count  # the means over all values of a channel
            factor = inverse if weight is None else inverse * weight
            of_x = (gradient - shift.view(by_channel) - centered * (scale * inverse).view(by_channel)) * factor.view(
                by_channel
            )
            of_x = of_x.to(x.dtype)
        return (
            of_x,
            None if weight is None else of_scale.to(weight.dtype),
            of_shift if ctx.needs_input_grad[2] else None,
            *(None,) * 4,
        )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all processes, [C] in at least float32, and how many values they are of.

    Those of each process are brought together as Chan et al. do (1979), which loses no digits as a sum of squares does.
    """
    x = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    own = torch.cat([mean, variance, mean.new_full((1,), x.numel() / x.shape[1])])  # [2 * C + 1]
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    means, variances, counts = torch.stack(gathered).split([len(mean), len(mean), 1], dim=1)  # [processes, ...]
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    variance = ((variances + (means - mean) ** 2) * counts).sum(0) / count
    return mean, variance, count
