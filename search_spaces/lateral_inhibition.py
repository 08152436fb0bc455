"""Lateral inhibition: neighbouring pixels lower each other's activation. The layer, and convolutions behind it.

Shapes: N images, C channels, H x W pixels, z the side of the inhibition zone.

Source: Dilated Convolutions with Lateral Inhibitions for Semantic Image Segmentation (Wang et al., 2020), section 3,
equations 4 and 5. The paper leaves open where the ReLUs are, that distances are counted in steps of the zone, and that
the intensities are clipped after each optimiser step; these follow the authors' code.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.module_protocols import Projected, Reporting
from search_spaces.modules import AtrousConvolution, BatchNormFactory, DilatedSeparableConvolution, filter_channels
from search_spaces.settings import OperationSettings

__all__ = [
    "ConvolutionKind",
    "LIAtrousConvolution",
    "LIConv2d",
    "LIDilatedSeparableConvolution",
    "LateralInhibition",
    "inhibition_kernel",
    "lateral_inhibition",
]

ConvolutionKind = Literal["full", "depthwise", "separable"]


def inhibition_kernel(zone: int, sigma: float) -> Tensor:
    """The inhibition of a pixel by each neighbour in the zone at intensity 1: [z, z].

    exp(-d^2 / (2 sigma^2)) at distance d from the centre in steps of the zone, at any rate; 0 in the centre.
    """
    steps = torch.arange(zone, dtype=torch.float64) - zone // 2
    squares = steps[:, None] ** 2 + steps**2  # [z, z]
    return torch.where(squares > 0, torch.exp(-squares / (2 * sigma**2)), 0.0).float()


class _Inhibit(torch.autograd.Function):
    """x - W * (K x), where K is the neighbours' kernel and W has one number per channel.

    Autograd alone would save K x for the gradient of W. The zone is symmetric, so <g, K x> = <K g, x> for a gradient g,
    and the gradient of x needs K g anyway: only x is saved, and the backward pass is one convolution with K.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, intensity: Tensor, neighbours: Tensor, rate: int) -> Tensor:
        ctx.save_for_backward(x, intensity, neighbours)
        ctx.rate = rate
        # In this form W = 0 leaves x as it is, bit for bit, in whatever precision a device convolves.
        return torch.addcmul(x, intensity.to(x.dtype)[:, None, None], filter_channels(x, neighbours, rate), value=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        x, intensity, neighbours = ctx.saved_tensors
        received = filter_channels(gradient, neighbours, ctx.rate)
        of_x = torch.addcmul(gradient, intensity.to(gradient.dtype)[:, None, None], received, value=-1)
        return of_x, -(x * received).sum((0, 2, 3), dtype=intensity.dtype), None, None


class LateralInhibition(nn.Module, Projected, Reporting):
    """ReLU, inhibition by the neighbours, ReLU: (N, C, H, W) -> (N, C, H, W).

    The inhibition is a depthwise kernel of side `zone`: 1 in the centre and -W exp(-d^2 / (2 sigma^2)) at distance d
    (equation 5), with one learned intensity W per channel. A pixel at the border has fewer neighbours and is inhibited
    less. After each optimiser step, `search_spaces.module_protocols.project` puts W back into [0, 1].

    Args:
        channels: C.
        zone: z, odd, 3 to 31.
        rate: Dilation e of the zone, 1 to 64.
        sigma: Standard deviation of the Gaussian in steps of the zone, above 0.
        init: Range in [0, 1] from which the intensities are drawn; (0, 0) starts as a plain ReLU.

    Raises:
        ValueError: An argument is outside its limits.
    """

    undecayed = ("intensity",)
    settings_read = ("li_zone", "li_rate", "li_sigma", "li_init")
    neighbours: Tensor

    def __init__(
        self, channels: int, zone: int = 3, rate: int = 1, sigma: float = 1.0, init: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        super().__init__()
        try:
            OperationSettings(li_zone=zone, li_rate=rate, li_sigma=sigma, li_init=init)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("li_")) from None
        self.zone, self.rate, self.sigma = zone, rate, sigma
        self.intensity = nn.Parameter(torch.full((channels,), float(init[0])))
        if init[0] < init[1]:  # otherwise draw nothing: other weights are then initialised as in the plain network
            nn.init.uniform_(self.intensity, *init)
        self.register_buffer("neighbours", inhibition_kernel(zone, sigma)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return F.relu(_Inhibit.apply(x, self.intensity, self.neighbours, self.rate))

    @torch.no_grad()
    def project(self) -> None:
        """Clips the intensities to [0, 1] in place."""
        self.intensity.clamp_(0, 1)

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Mean and largest intensity."""
        return {"mean": self.intensity.mean().item(), "max": self.intensity.max().item()}

    def extra_repr(self) -> str:
        return f"{self.intensity.numel()}, zone={self.zone}, rate={self.rate}, sigma={self.sigma}"


def lateral_inhibition(channels: int, settings: OperationSettings) -> LateralInhibition:
    """Builds the lateral inhibition that the settings describe."""
    return LateralInhibition(channels, settings.li_zone, settings.li_rate, settings.li_sigma, settings.li_init)


class LIConv2d(nn.Module):
    """A dilated convolution behind a lateral inhibition (LI-Conv, equation 3), without bias.

    (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)).

    Args:
        channels_in: C_in.
        channels_out: C_out.
        kernel: Side of the square kernel, odd.
        stride: Of the convolution.
        rate: Dilation of the convolution.
        kind: full; depthwise (one filter a channel); separable (a depthwise and a 1x1 convolution).
        zone: As in `LateralInhibition`.
        li_rate: As `rate` in `LateralInhibition`.
        sigma: As in `LateralInhibition`.
        init: As in `LateralInhibition`.

    Raises:
        ValueError: An argument is outside its limits.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 3,
        stride: int = 1,
        rate: int = 1,
        kind: ConvolutionKind = "full",
        zone: int = 3,
        li_rate: int = 1,
        sigma: float = 1.0,
        init: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        super().__init__()
        if kind not in get_args(ConvolutionKind):
            raise ValueError(f"kind is {kind!r}: give one of {', '.join(get_args(ConvolutionKind))}")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}: give an odd side, so that the output is centred on the input")
        if kind == "depthwise" and channels_out != channels_in:
            raise ValueError(
                f"a depthwise convolution of {channels_in} channels has as many outputs, not {channels_out}: "
                "give kind separable or full to change their number"
            )
        self.inhibition = LateralInhibition(channels_in, zone, li_rate, sigma, init)
        width, groups = (channels_out, 1) if kind == "full" else (channels_in, channels_in)
        padding = rate * (kernel // 2)
        self.convolution = nn.Conv2d(channels_in, width, kernel, stride, padding, rate, groups, bias=False)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False) if kind == "separable" else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(self.inhibition(x))
        return x if self.pointwise is None else self.pointwise(x)


class LIAtrousConvolution(AtrousConvolution):
    """`AtrousConvolution` with a lateral inhibition in place of its ReLU."""

    def __init__(
        self, channels: int, kernel: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings
    ) -> None:
        super().__init__(channels, kernel, stride, batch_norm)
        self.activation = lateral_inhibition(channels, settings)


class LIDilatedSeparableConvolution(DilatedSeparableConvolution):
    """`DilatedSeparableConvolution` with a lateral inhibition in place of its ReLU."""

    def __init__(
        self, channels: int, kernel: int, stride: int, batch_norm: BatchNormFactory, settings: OperationSettings
    ) -> None:
        super().__init__(channels, kernel, stride, batch_norm)
        self.activation = lateral_inhibition(channels, settings)
