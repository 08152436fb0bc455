"""The candidate operations as modules, and the batch norm that they share.

Shapes: N images, C channels, H x W pixels. Every operation maps (N, C, H, W) to (N, C, ceil(H/stride), ceil(W/stride)).
Order everywhere: ReLU, convolution, batch norm; no convolution has a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.synchronized import Synchronizable, batch_norm_of_all

__all__ = [
    "AtrousConvolution",
    "BatchNorm",
    "BatchNormFactory",
    "ConvBatchNorm",
    "DilatedSeparableConvolution",
    "NoConnection",
    "Pooling",
    "ReluConvBatchNorm",
    "repeated_pass",
    "repeating",
    "SeparableConvolution",
    "Skip",
    "filter_channels",
    "resize",
    "strided",
]

_repeated = ContextVar("repeated", default=False)


@contextmanager
def repeated_pass() -> Iterator[None]:
    """Marks a repeated forward pass: batch norms have seen the batch and keep their running statistics."""
    before = _repeated.set(True)
    try:
        yield
    finally:
        _repeated.reset(before)


def repeating() -> bool:
    """Whether the current forward pass is a `repeated_pass`."""
    return _repeated.get()


BatchNormFactory = Callable[[int], "BatchNorm"]
"""Builds the batch norm for a number of channels."""


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of (N, C, H, W) to (N, C, *size); corners aligned, as in the authors' network code."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def filter_channels(x: Tensor, kernel: Tensor, rate: int = 1) -> Tensor:
    """Filters every channel of (N, C, H, W) with one kernel [1, 1, k, k], k odd, dilated by `rate`, zero-padded."""
    channels, side = x.shape[1], kernel.shape[-1]
    # A depthwise convolution whose filters share memory is far faster than a convolution of N * C one-channel images.
    shared = kernel.to(x.dtype).expand(channels, -1, -1, -1)
    return F.conv2d(x, shared, padding=rate * (side // 2), dilation=rate, groups=channels)


def strided(size: Sequence[int], stride: int) -> tuple[int, int]:
    """(H, W) behind a stride, rounded up, as of a strided convolution whose padding keeps the size.

    Avoids negative numbers: an exported graph rounds a quotient towards zero, Python rounds down.
    """
    height, width = size
    return (height - 1) // stride + 1, (width - 1) // stride + 1


class BatchNorm(nn.BatchNorm2d, Synchronizable):
    """Batch norm of an operation whose weights several source tensors share.

    Each source has its own statistics and running statistics; scale and shift, if any, are shared. With one source it
    equals `nn.BatchNorm2d`, state dict included; with K sources, the running buffers are [K, C].

    Args:
        channels: C.
        sources: K, the number of source tensors.
        affine: Whether there are a scale and a shift.
        eps: Added to the variance.
        momentum: Weight of the newest batch in the running statistics.
    """

    def __init__(
        self, channels: int, sources: int = 1, affine: bool = True, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)
        self.sources = sources
        if sources > 1:
            self.running_mean: Tensor = torch.zeros(sources, channels)
            self.running_var: Tensor = torch.ones(sources, channels)
        self.frozen = False

    def freeze(self) -> None:
        """Keeps statistics, scale and shift fixed, even in training mode, for fine-tuning."""
        self.frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> BatchNorm:
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        # Momentum does not matter outside training, where `repeating` would break a compiled network's graph.
        momentum = self.momentum if self.training and self.momentum is not None and not repeating() else 0.0
        if self.sources == 1:
            if self.training and not repeating():
                self.get_buffer("num_batches_tracked").add_(1)
            mean, variance = self.running_mean, self.running_var
        else:
            mean, variance = self.running_mean[source], self.running_var[source]  # views: updated in place
        if self.training and self.synchronized:
            return batch_norm_of_all(x, self.weight, self.bias, mean, variance, momentum, self.eps)[0]
        return F.batch_norm(x, mean, variance, self.weight, self.bias, self.training, momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, sources={self.sources}"


class ConvBatchNorm(nn.Module):
    """Convolution, batch norm: (N, C_in, H, W) -> (N, C_out, ceil(H/stride), ceil(W/stride)).

    Args:
        channels_in: C_in.
        channels_out: C_out.
        kernel: Side of the square kernel, odd.
        stride: Of the convolution.
        batch_norm: Factory for the batch norm.
        rate: Dilation.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, batch_norm: BatchNormFactory, rate: int = 1
    ) -> None:
        super().__init__()
        padding = rate * (kernel // 2)
        self.convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation=rate, bias=False)
        self.batch_norm = batch_norm(channels_out)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return self.batch_norm(self.convolution(x), source)


class ReluConvBatchNorm(ConvBatchNorm):
    """ReLU, convolution, batch norm, with the arguments and shapes of `ConvBatchNorm`."""

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return super().forward(F.relu(x), source)


class _DepthwiseSeparable(nn.Module):
    """ReLU, depthwise, pointwise, batch norm."""

    def __init__(self, channels: int, kernel: int, stride: int, rate: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        padding = rate * (kernel // 2)
        self.activation: nn.Module = nn.ReLU()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, stride, padding, dilation=rate, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.batch_norm = batch_norm(channels)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return self.batch_norm(self.pointwise(self.depthwise(self.activation(x))), source)


class SeparableConvolution(nn.Module):
    """Auto-DeepLab's separable convolution: ReLU, depthwise, pointwise, batch norm, applied twice.

    The first depthwise convolution has the stride.
    """

    def __init__(self, channels: int, kernel: int, stride: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.first = _DepthwiseSeparable(channels, kernel, stride, 1, batch_norm)
        self.second = _DepthwiseSeparable(channels, kernel, 1, 1, batch_norm)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return self.second(self.first(x, source), source)


class DilatedSeparableConvolution(_DepthwiseSeparable):
    """DARTS's dilated convolution: ReLU, depthwise at rate 2, pointwise, batch norm, applied once."""

    def __init__(self, channels: int, kernel: int, stride: int, batch_norm: BatchNormFactory) -> None:
        super().__init__(channels, kernel, stride, 2, batch_norm)


class AtrousConvolution(nn.Module):
    """Auto-DeepLab's atrous convolution: ReLU, full convolution at rate 2, batch norm.

    At stride s > 1 the tensor is first shrunk bilinearly, then convolved at rate 1, as in the authors' code.
    """

    def __init__(self, channels: int, kernel: int, stride: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.stride = stride
        self.rate = 2 if stride == 1 else 1
        self.activation: nn.Module = nn.ReLU()
        self.body = ConvBatchNorm(channels, channels, kernel, 1, batch_norm, self.rate)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        x = resize(x, strided(x.shape[-2:], self.stride))
        return self.body(self.activation(x), source)


class Pooling(nn.Module):
    """Average or max pooling; averages leave out the padding."""

    def __init__(self, kind: str, kernel: int, stride: int) -> None:
        super().__init__()
        average = nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
        self.pool = nn.MaxPool2d(kernel, stride, kernel // 2) if kind == "max" else average

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return self.pool(x)


class Skip(nn.Module):
    """The identity; at stride s > 1 ReLU, 1x1 convolution at that stride, batch norm."""

    def __init__(self, channels: int, stride: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.reduce = ReluConvBatchNorm(channels, channels, 1, stride, batch_norm) if stride > 1 else None

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return x if self.reduce is None else self.reduce(x, source)


class NoConnection(nn.Module):
    """Zeros. The search never computes it; it exists so that every registered name can be built."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return torch.zeros_like(x[..., :: self.stride, :: self.stride])
