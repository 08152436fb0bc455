"""Factorized convolutions and pyramids of dilated convolutions: the modules of FPLNet and ESPNet, and two candidates.

Shapes: N images, C channels, H x W pixels; h x w = ceil(H / stride) x ceil(W / stride) behind a stride. A pyramid has b
branches; n is the width of what they all read.

Sources: FPLNet (Atif et al., 2023), section III-A and Table I; ESPNet (Mehta et al., ECCV 2018), section 3, and its
authors' network code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.modules import BatchNorm, BatchNormFactory, resize, strided
from search_spaces.settings import FplFusion, OperationSettings

__all__ = [
    "ESP",
    "ESP_RATES",
    "FPL",
    "FPL_RATES",
    "BatchNormPReLU",
    "FactorizedAtrousConvolution",
    "FactorizedConv2d",
    "FactorizedPyramid",
    "branch_widths",
]

FPL_RATES = (2, 4, 8, 16)
FACTORIZATIONS = ("composite", "none", "all")
ESP_RATES = (1, 2, 4, 8, 16)


class BatchNormPReLU(nn.Module):
    """Batch norm, then a PReLU with one slope a channel: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.batch_norm = batch_norm(channels)
        self.activation = nn.PReLU(channels)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return self.activation(self.batch_norm(x, source))


class FactorizedConv2d(nn.Module):
    """3x1 convolution, PReLU, 1x3 convolution: (N, C_in, H, W) -> (N, C_out, h, w).

    The receptive field of a 3x3 convolution for 3 * C_out * (C_in + C_out) weights, and a non-linearity more.

    Args:
        channels_in: C_in.
        channels_out: C_out, of both convolutions.
        rate: Dilation of both.
        stride: The 3x1 convolution strides over the rows, the 1x3 over the columns.
    """

    def __init__(self, channels_in: int, channels_out: int, rate: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(
            channels_in, channels_out, (3, 1), (stride, 1), (rate, 0), dilation=(rate, 1), bias=False
        )
        self.activation = nn.PReLU(channels_out)
        self.horizontal = nn.Conv2d(
            channels_out, channels_out, (1, 3), (1, stride), (0, rate), dilation=(1, rate), bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.horizontal(self.activation(self.vertical(x)))


class JoinChannels(nn.Module):
    """Concatenates tensors (N, C_i, H, W) to (N, sum of C_i, H, W). A module, so that a search can batch it."""

    def forward(self, tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors, dim=1)


class AddChannels(nn.Module):
    """`x` plus `y` over the channels that both have: (N, C_x, H, W) and (N, C_y, H, W) -> (N, C_x, H, W)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        surplus = x.shape[1] - y.shape[1]
        return x + (F.pad(y, (0, 0, 0, 0, 0, surplus)) if surplus else y)  # a negative pad cuts


class Residual(nn.Module):
    """A module's output plus its input: (N, C, H, W) twice -> (N, C, H, W)."""

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y + x


def branch_widths(channels: int, branches: int) -> tuple[int, ...]:
    """Widths that add up to `channels`, as even as can be, the wider ones first; fewer branches for fewer channels."""
    count = min(branches, channels)
    narrow, rest = divmod(channels, count)
    return (narrow + 1,) * rest + (narrow,) * (count - rest)


class FactorizedPyramid(nn.Module):
    """Convolutions and residual of an FPL module, and a batch norm: (N, C_in, H, W) -> (N, C, h, w).

    Stage 1: a 1x1 convolution to n channels, then a 3x3 convolution, y. Stage 2: b branches of dilated convolutions on
    y, pairwise feature fusion, concatenation to C channels. There is no batch norm or activation in between. At stride
    1 and equal widths the input is added. With a stride it is not, and the 1x1 convolution has a bias, as in the later
    networks of FPLNet's first author: nothing else explains the paper's number of parameters.

    The paper has n = C / b. Where b does not divide C, n is rounded up and the last branches are one channel narrower;
    additions then cover the channels that both sides have. With fewer channels than rates there are C branches, at the
    first rates.

    Args:
        channels_in: C_in.
        channels_out: C, at least 1.
        batch_norm: Factory for the batch norm.
        stride: Of the 3x3 convolution.
        rates: Dilation of each branch. The paper prints them only in figures; these are its first author's later ones.
        fusion: Pairwise feature fusion: "stage1" adds y to each branch; "pair" takes the branches two by two, of which
            the one nearer to the pyramid's middle has the other added (rate 2 to rate 4, rate 16 to rate 8; a last one
            without a partner stays as it is); "none" adds nothing. The paper's words fit both.
        factorization: Convolutions that are split into 3x1 and 1x3: "composite", those of stage 2; "none"; or "all",
            stage 1's 3x3 too.
        pre_activation: Whether a ReLU comes first, as in a candidate operation.

    Raises:
        ValueError: An argument is outside its limits.
    """

    settings_read = ("fpl_rates", "fpl_fusion")

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        batch_norm: BatchNormFactory,
        stride: int = 1,
        rates: Sequence[int] = FPL_RATES,
        fusion: FplFusion = "stage1",
        factorization: str = "composite",
        pre_activation: bool = False,
    ) -> None:
        super().__init__()
        OperationSettings(fpl_rates=tuple(rates), fpl_fusion=fusion)  # checks them
        if factorization not in FACTORIZATIONS:
            raise ValueError(f"factorization is {factorization!r}: give one of {', '.join(FACTORIZATIONS)}")
        widths = branch_widths(channels_out, len(rates))
        width = widths[0]
        self.fusion = fusion
        self.activation = nn.ReLU() if pre_activation else None
        self.add, self.join = AddChannels(), JoinChannels()
        self.add_input = Residual() if stride == 1 and channels_in == channels_out else None
        self.reduce = nn.Conv2d(channels_in, width, 1, bias=stride > 1)
        self.local = _convolution(width, width, 1, stride, split=factorization == "all")
        self.branches = nn.ModuleList(
            _convolution(width, branch, rate, 1, split=factorization != "none")
            for branch, rate in zip(widths, rates, strict=False)  # a narrow pyramid leaves the last rates out
        )
        self.batch_norm = batch_norm(channels_out)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        if self.activation is not None:
            x = self.activation(x)
        y = self.local(self.reduce(x))  # (N, n, h, w)
        branches = [branch(y) for branch in self.branches]
        if self.fusion == "stage1":
            branches = [self.add(branch, y) for branch in branches]
        elif self.fusion == "pair":
            for receiver, giver in _pairs(len(branches)):
                branches[receiver] = self.add(branches[receiver], branches[giver])
        output = self.join(branches)  # (N, C, h, w)
        return self.batch_norm(output if self.add_input is None else self.add_input(output, x), source)


class FPL(nn.Module):
    """Factorized pyramidal learning module, (N, C_in, H, W) -> (N, C, h, w): `FactorizedPyramid`, then a PReLU.

    A 1x1 and a 3x3 convolution to n = C / b channels, b dilated 3x1 and 1x3 convolutions side by side, pairwise feature
    fusion, the input added, batch norm, PReLU. Its convolutions have C_in * n + 9 * n**2 + 6 * n * C weights where b
    divides C: 8325 at C_in = C = 60 (Table I).

    Args:
        channels_in: C_in.
        channels_out: C, at least 1.
        batch_norm: Builds the batch norm, a `search_spaces.BatchNorm`, for a number of channels.
        stride: Of the 3x3 convolution.
        rates: Dilation of each of the b branches.
        fusion: Pairwise feature fusion: "stage1", "pair" or "none"; see `FactorizedPyramid`.
        factorization: Convolutions that are split into 3x1 and 1x3: "composite", "none" or "all"; see there.

    Raises:
        ValueError: An argument is outside its limits.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        batch_norm: BatchNormFactory = BatchNorm,
        stride: int = 1,
        rates: Sequence[int] = FPL_RATES,
        fusion: FplFusion = "stage1",
        factorization: str = "composite",
    ) -> None:
        super().__init__()
        self.pyramid = FactorizedPyramid(channels_in, channels_out, batch_norm, stride, rates, fusion, factorization)
        self.activation = nn.PReLU(channels_out)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return self.activation(self.pyramid(x, source))


class ESP(nn.Module):
    """Efficient spatial pyramid: (N, C_in, H, W) -> (N, C, h, w).

    A 1x1 convolution to n = C / b channels, rounded down (behind a stride: a 3x3 convolution), b parallel 3x3
    convolutions at the rates, of which the first gets what the rounding leaves over, hierarchical feature fusion (each
    branch but the first is the sum of itself and those before it, the first left out), the residual at stride 1 and
    equal widths, batch norm, PReLU. With fewer channels than rates there are C branches, at the first rates.

    Args:
        channels_in: C_in.
        channels_out: C, at least 1.
        batch_norm: Builds the batch norm, a `search_spaces.BatchNorm`, for a number of channels.
        stride: Of the first convolution.
        rates: Dilation of each branch.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        batch_norm: BatchNormFactory = BatchNorm,
        stride: int = 1,
        rates: Sequence[int] = ESP_RATES,
    ) -> None:
        super().__init__()
        rates = rates[:channels_out]
        width, rest = divmod(channels_out, len(rates))
        self.residual = stride == 1 and channels_in == channels_out
        kernel = 1 if stride == 1 else 3
        self.reduce = nn.Conv2d(channels_in, width, kernel, stride, kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            _convolution(width, width if number else width + rest, rate, 1, split=False)
            for number, rate in enumerate(rates)
        )
        self.output = BatchNormPReLU(channels_out, batch_norm)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        y = self.reduce(x)  # (N, n, h, w)
        first, *others = [branch(y) for branch in self.branches]
        output = torch.cat([first, *accumulate(others)], dim=1)  # (N, C, h, w)
        return self.output(output + x if self.residual else output, source)


class FactorizedAtrousConvolution(nn.Module):
    """Candidate: ReLU, 3x1 convolution at rate 2, PReLU, 1x3 convolution at rate 2, batch norm.

    At stride s > 1 the tensor is shrunk bilinearly first and convolved at rate 1, as by `AtrousConvolution`.
    """

    def __init__(self, channels: int, stride: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.stride = stride
        self.activation = nn.ReLU()
        self.convolution = FactorizedConv2d(channels, channels, rate=2 if stride == 1 else 1)
        self.batch_norm = batch_norm(channels)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        x = resize(x, strided(x.shape[-2:], self.stride))
        return self.batch_norm(self.convolution(self.activation(x)), source)


def _convolution(channels_in: int, channels_out: int, rate: int, stride: int, split: bool) -> nn.Module:
    """A 3x3 convolution without bias, or the two that it is split into."""
    if split:
        return FactorizedConv2d(channels_in, channels_out, rate, stride)
    return nn.Conv2d(channels_in, channels_out, 3, stride, rate, dilation=rate, bias=False)


def _pairs(branches: int) -> list[tuple[int, int]]:
    """(receiver, giver) of each pair of neighbours: the receiver is nearer to the middle, the later one in a tie."""
    pairs = [(first, first + 1) for first in range(0, branches - 1, 2)]
    middle = (branches - 1) / 2
    return [(b, a) if abs(b - middle) <= abs(a - middle) else (a, b) for a, b in pairs]
