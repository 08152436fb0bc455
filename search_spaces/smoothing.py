"""Dilated convolutions with smoothed input or output, which reduces gridding.

Shapes: N images, C channels, H x W pixels, r the dilation rate, k the side of a smoothing window.

Sources: Efficient Smoothing of Dilated Convolutions for Image Segmentation (Ziegler et al., 2019), section III, for the
average, Gaussian and aggregated filters; Smoothed Dilated Convolutions for Improved Dense Prediction (Wang and Ji,
2018) for SS conv and G interact. What both papers leave open follows the authors' code.

The smoothing in front of a convolution is one small filter that all channels share. An aggregated one is a sum of such
filters, so it is one, too, and costs as much as SS conv.
"""

from __future__ import annotations

import warnings
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.module_protocols import Reporting
from search_spaces.modules import AtrousConvolution, BatchNormFactory, filter_channels
from search_spaces.settings import OperationSettings, Smoothing, SmoothingWindow

__all__ = [
    "AggregatedFilter",
    "AggregationCoefficients",
    "AverageFilter",
    "GaussianFilter",
    "GroupInteraction",
    "SharedFilter",
    "SmoothedAtrousConvolution",
    "SmoothedConv2d",
    "average_kernel",
    "gaussian_kernel",
    "window_arguments",
    "window_side",
]

READERS: dict[str, tuple[Smoothing, ...]] = {
    "window": ("average", "gaussian", "aggregated"),
    "sigma": ("gaussian", "aggregated"),
    "coefficients": ("aggregated",),
}
"""The smoothings that read an argument of `SmoothedConv2d`."""


def window_arguments(smoothing: Smoothing, settings: OperationSettings) -> dict[str, Any]:
    """Those of the arguments `window` and `sigma` of `SmoothedConv2d` that the smoothing reads, from the settings."""
    given = {"window": settings.smoothing_window, "sigma": settings.smoothing_sigma}
    return {name: value for name, value in given.items() if smoothing in READERS[name]}


def window_side(rate: int, window: SmoothingWindow) -> int:
    """Side k of the average and Gaussian windows at dilation `rate`.

    paper: 2 * floor(r / 2) + 1, the window |n| <= floor(r / 2) of section III-B. official: r - 1, as in the authors'
    code, which smooths nothing at rate 2.
    """
    return 2 * (rate // 2) + 1 if window == "paper" else max(1, rate - 1)


def average_kernel(side: int) -> Tensor:
    """The mean over a window: [side, side]."""
    return torch.full((side, side), 1 / side**2)


def gaussian_kernel(side: int, sigma: float) -> Tensor:
    """exp(-d^2 / (2 sigma^2)) at distance d in pixels, normalised to sum 1: [side, side].

    In the authors' code, sigma cancels out and is always sqrt(1 / 2). Here it acts.
    """
    steps = torch.arange(side, dtype=torch.float64) - (side - 1) // 2
    weights = torch.exp(-(steps[:, None] ** 2 + steps**2) / (2 * sigma**2))  # [side, side]
    return (weights / weights.sum()).float()


def _centred(kernel: Tensor, side: int) -> Tensor:
    """Puts [k, k] into zeros [side, side], side odd; an even window reaches one pixel further down and to the right."""
    before = side // 2 - (kernel.shape[-1] - 1) // 2
    after = side - before - kernel.shape[-1]
    return F.pad(kernel, (before, after, before, after))


class _FixedFilter(nn.Module):
    """Filters all channels with a kernel [k, k] that is not learned: (N, C, H, W) -> (N, C, H, W)."""

    kernel: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.side = kernel.shape[-1]
        self.register_buffer("kernel", _centred(kernel, self.side // 2 * 2 + 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.side == 1 else filter_channels(x, self.kernel[None, None])

    def extra_repr(self) -> str:
        return f"{self.side}x{self.side}"


class AverageFilter(_FixedFilter):
    """Mean over a window of k x k pixels, zeros around: (N, C, H, W) -> (N, C, H, W)."""

    settings_read = ("smoothing_window",)

    def __init__(self, side: int) -> None:
        super().__init__(average_kernel(side))


class GaussianFilter(_FixedFilter):
    """Gaussian mean over a window of k x k pixels, zeros around: (N, C, H, W) -> (N, C, H, W)."""

    settings_read = ("smoothing_window", "smoothing_sigma")

    def __init__(self, side: int, sigma: float) -> None:
        super().__init__(gaussian_kernel(side, sigma))
        self.sigma = sigma

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, sigma={self.sigma}"


class SharedFilter(nn.Module):
    """SS conv's filter: one learned kernel of side 2r - 1 for all channels, the identity at the start.

    (N, C, H, W) -> (N, C, H, W). `weight` [2r - 1, 2r - 1] is added to the identity.
    """

    undecayed = ("weight",)
    identity: Tensor

    def __init__(self, rate: int) -> None:
        super().__init__()
        side = 2 * rate - 1
        self.weight = nn.Parameter(torch.zeros(side, side))
        self.register_buffer("identity", _centred(torch.ones(1, 1), side), persistent=False)

    def kernel(self) -> Tensor:
        """[2r - 1, 2r - 1]"""
        return self.weight + self.identity

    def forward(self, x: Tensor) -> Tensor:
        return filter_channels(x, self.kernel()[None, None])

    def extra_repr(self) -> str:
        return f"{self.weight.shape[-1]}"


class AggregationCoefficients(nn.Module, Reporting):
    """The four coefficients of an aggregated filter: a softmax of `logits` [4], a quarter each at the start.

    One module may serve all layers of a network (as in the authors' code): see `SmoothedConv2d`.
    """

    names = ("identity", "average", "gaussian", "ss_conv")
    undecayed = ("logits",)

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(self.names)))

    def forward(self) -> Tensor:
        """[4], in the order of `names`: positive, sum 1."""
        return self.logits.softmax(0)

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """The coefficients by name."""
        return dict(zip(self.names, self().tolist(), strict=True))


class AggregatedFilter(nn.Module):
    """Convex combination of identity, average, Gaussian and SS conv: (N, C, H, W) -> (N, C, H, W).

    Args:
        rate: r.
        window: Of average and Gaussian.
        sigma: Of the Gaussian.
        coefficients: Shared ones, which their owner registers; None: its own.
    """

    settings_read = ("smoothing_window", "smoothing_sigma")
    fixed: Tensor

    def __init__(
        self, rate: int, window: SmoothingWindow, sigma: float, coefficients: AggregationCoefficients | None = None
    ) -> None:
        super().__init__()
        self.learned = SharedFilter(rate)
        side = window_side(rate, window)
        kernels = [torch.ones(1, 1), average_kernel(side), gaussian_kernel(side, sigma)]
        fixed = torch.stack([_centred(kernel, 2 * rate - 1) for kernel in kernels])
        self.register_buffer("fixed", fixed, persistent=False)  # [3, 2r - 1, 2r - 1]
        # A tuple keeps a shared module out of the children, so that its parameter has one name in a state dict.
        self.own = AggregationCoefficients() if coefficients is None else None
        self.shared: tuple[AggregationCoefficients, ...] = () if coefficients is None else (coefficients,)

    @property
    def coefficients(self) -> AggregationCoefficients:
        """Its own coefficients, or the shared ones."""
        return self.shared[0] if self.own is None else self.own

    def kernel(self) -> Tensor:
        """[2r - 1, 2r - 1]"""
        filters = torch.cat([self.fixed, self.learned.kernel()[None]])  # [4, 2r - 1, 2r - 1]
        return (self.coefficients()[:, None, None] * filters).sum(0)

    def forward(self, x: Tensor) -> Tensor:
        return filter_channels(x, self.kernel()[None, None])


class GroupInteraction(nn.Module):
    """G interact: mixes the r * r interleaved groups of pixels that a convolution at rate r keeps apart.

    (N, C, H, W) -> (N, C, H, W), H and W multiples of r. A pixel's group is (row mod r) * r + (column mod r); group i
    becomes sum_j weight[j, i] * group j. As in the paper, all groups take part; the authors' code leaves group 0 out of
    the other groups' sums. The initial weight is the identity.
    """

    undecayed = ("weight",)

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.eye(rate * rate))

    def forward(self, x: Tensor) -> Tensor:
        r, (n, channels, height, width) = self.rate, x.shape
        planes = x.reshape(n * channels, height // r, r, width // r, r)  # (N * C, H / r, r, W / r, r)
        groups = planes.permute(2, 4, 0, 1, 3).reshape(r * r, -1)  # (r * r, N * C * H / r * W / r)
        mixed = (self.weight.t() @ groups).view(r, r, n * channels, height // r, width // r)
        return mixed.permute(2, 3, 0, 4, 1).reshape(x.shape)

    def extra_repr(self) -> str:
        return f"{self.rate}"


class SmoothedConv2d(nn.Conv2d):
    """A dilated convolution with smoothing: (N, C_in, H, W) -> (N, C_out, H, W).

    An `nn.Conv2d` with zero padding that keeps the size; its weight has the same name, so that weights of a plain
    network load. At rate 1 there are no gaps between the taps and nothing to smooth: it is a plain convolution.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        kernel: Side of the square kernel, odd.
        rate: Dilation r.
        smoothing: none; in front of the convolution average, gaussian, ss_conv (one learned filter of side 2r - 1 for
            all channels) or aggregated (a learned convex combination of the identity and these three); behind it
            g_interact (a learned r^2 x r^2 mixture of the groups of pixels).
        window: Side of the average and Gaussian windows: paper, 2 * floor(r / 2) + 1; official, r - 1. None: paper.
        sigma: Standard deviation of the Gaussian in pixels, above 0. None: 1.
        bias: Whether the convolution has a bias.
        groups: Of the convolution.
        coefficients: Coefficients of an aggregated filter that several layers share. They are not a child of the layer:
            the caller registers them once. None: the layer has its own.

    Raises:
        ValueError: An argument is outside its limits, or window, sigma or coefficients are given to a smoothing that
            has none.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 3,
        rate: int = 2,
        smoothing: Smoothing = "none",
        window: SmoothingWindow | None = None,
        sigma: float | None = None,
        bias: bool = False,
        groups: int = 1,
        coefficients: AggregationCoefficients | None = None,
    ) -> None:
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}: give an odd side, so that the output is centred on the input")
        if rate < 1:
            raise ValueError(f"rate is {rate}: give a whole number of at least 1")
        padding = rate * (kernel // 2)
        super().__init__(channels_in, channels_out, kernel, padding=padding, dilation=rate, groups=groups, bias=bias)
        if smoothing not in get_args(Smoothing):
            raise ValueError(f"smoothing is {smoothing!r}: give one of {', '.join(get_args(Smoothing))}")
        for name, value in (("window", window), ("sigma", sigma), ("coefficients", coefficients)):
            if value is not None and smoothing not in READERS[name]:
                choices = " or ".join(map(repr, READERS[name]))
                raise ValueError(f"smoothing {smoothing!r} has no {name}: leave it out, or give {choices}")
        window, sigma = window or "paper", 1.0 if sigma is None else sigma
        OperationSettings(smoothing_window=window, smoothing_sigma=sigma)  # checks them
        self.rate = rate
        side = window_side(rate, window)
        if rate > 1 and side == 1 and smoothing in ("average", "gaussian", "aggregated"):
            warnings.warn(
                f"the official window at rate {rate} is 1x1: average and Gaussian smooth nothing; give window 'paper'",
                stacklevel=2,
            )
        self.smoothing: nn.Module | None = None
        self.interaction: GroupInteraction | None = None
        if rate > 1:
            if smoothing == "average":
                self.smoothing = AverageFilter(side)
            elif smoothing == "gaussian":
                self.smoothing = GaussianFilter(side, sigma)
            elif smoothing == "ss_conv":
                self.smoothing = SharedFilter(rate)
            elif smoothing == "aggregated":
                self.smoothing = AggregatedFilter(rate, window, sigma, coefficients)
            elif smoothing == "g_interact":
                self.interaction = GroupInteraction(rate)

    def forward(self, x: Tensor) -> Tensor:
        if self.smoothing is not None:
            x = self.smoothing(x)
        if self.interaction is None:
            return super().forward(x)
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.rate, 0, -height % self.rate))
        x = self.interaction(self._conv_forward(x, self.weight, None))[..., :height, :width]
        return x if self.bias is None else x + self.bias[:, None, None]


class SmoothedAtrousConvolution(AtrousConvolution):
    """`AtrousConvolution` with smoothing: ReLU, smoothed convolution at rate 2, batch norm.

    At stride s > 1 the convolution has rate 1, where there is nothing to smooth: it is the plain `AtrousConvolution`.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        batch_norm: BatchNormFactory,
        settings: OperationSettings,
        smoothing: Smoothing,
    ) -> None:
        super().__init__(channels, kernel, stride, batch_norm)
        self.body.convolution = SmoothedConv2d(
            channels, channels, kernel, self.rate, smoothing, **window_arguments(smoothing, settings)
        )
