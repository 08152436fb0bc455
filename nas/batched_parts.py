"""What computes m modules of a kind as one: the leaves of a batch (see `nas.batching`).

Each part takes the m modules, whose parameters it joins, and the layout of the tensors that it will get (`nas.layout`,
which has the shapes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.depthwise import depthwise
from nas.layout import Joined, Layout, deep, of_rows, per_edge, rows_of, wide
from search_spaces.factorized import AddChannels, JoinChannels, Residual
from search_spaces.lateral_inhibition import LateralInhibition, sum_neighbours
from search_spaces.modules import BatchNorm
from search_spaces.smoothing import AggregatedFilter, AggregationCoefficients, SharedFilter, SmoothedConv2d
from search_spaces.traits import Projected, Reporting

__all__ = ["PARTS", "BatchedBatchNorm"]

FEW = 16
"""With fewer channels, convolutions in groups are slower than one that has zeros between them."""


class _Part(nn.Module):
    """A leaf of a batch: m modules of one kind, whose parameters are joined along their first dimension."""

    def __init__(self, members: Sequence[nn.Module], layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        names = [name for name, _ in members[0].named_parameters(recurse=False)]
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.cat([member.get_parameter(name) for member in members])))


class BatchedConvolution(_Part):
    """m convolutions of stride 1: (N, K * C_in, H, W) if they read a state, else (N, K * m * C_in, H, W)."""

    weight: Tensor
    identity: Tensor

    def __init__(self, members: Sequence[nn.Conv2d], layout: Layout) -> None:
        super().__init__(members, layout)
        first = members[0]
        if first.stride != (1, 1) or isinstance(first.padding, str) or first.padding_mode != "zeros":
            raise ValueError(f"{first} cannot be computed for many edges at once: give stride 1 and zero padding")
        self.channels, self.groups = first.in_channels, first.groups
        self.padding, self.dilation, side = first.padding, first.dilation, first.kernel_size[0]
        square = first.kernel_size == (side, side) and self.dilation == (self.dilation[0],) * 2
        centred = square and self.padding == (self.dilation[0] * (side // 2),) * 2
        self.depthwise = 1 < self.groups == self.channels == first.out_channels and centred and first.bias is None
        if first.bias is None:
            self.bias = None
        identity = torch.eye(layout.edges)[:, None, :, None]  # [m, 1, m, 1]
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        sources, edges = self.layout.sources, self.layout.edges
        if self.groups > 1:
            x = per_edge(x, self.layout, self.channels)
        if self.depthwise:  # sources have channels of their own, and the same filters
            return depthwise(x, self.weight.repeat(sources, 1, 1, 1), self.dilation[0])
        weight, groups = self.weight, self.groups
        if x.shape[1] != sources * self.channels:  # each edge has an input of its own
            groups *= edges
            if self.channels < FEW and weight.shape[-2:] == (1, 1) and self.groups == 1:
                weight, groups = self._dense_weight(), 1
        padding, dilation = (self.padding[0], sources * self.padding[1]), (self.dilation[0], sources * self.dilation[1])
        return deep(F.conv2d(wide(x, sources), weight, self.bias, 1, padding, dilation, groups), sources)

    def _dense_weight(self) -> Tensor:
        """[m * C_out, m * C_in, 1, 1] with zeros between the edges: for few channels faster than groups."""
        edges = self.layout.edges
        blocks = self.weight.view(edges, -1, 1, self.channels) * self.identity  # [m, C_out, m, C_in]
        return blocks.view(len(self.weight), edges * self.channels, 1, 1)


class BatchedBatchNorm(nn.Module):
    """m batch norms without scale and shift: (N, K * m * C, H, W) -> the same; `scale` [K * m * C] multiplies it."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: Sequence[BatchNorm], layout: Layout) -> None:
        super().__init__()
        first = members[0]
        if first.affine:
            raise ValueError("batch norms with scale and shift cannot be computed for many edges at once")
        self.layout, self.sources = layout, first.sources
        self.eps, self.momentum = first.eps, 0.0 if first.momentum is None else first.momentum
        for name in ("running_mean", "running_var"):
            joined = Joined(1, members[0].get_buffer(name).shape)
            self.register_buffer(name, joined.join([member.get_buffer(name) for member in members]))  # [K, m * C]
        counters = [member.get_buffer("num_batches_tracked") for member in members]
        self.register_buffer("num_batches_tracked", torch.stack(counters))  # without effect, but in the state dict

    def forward(self, x: Tensor, source: int = 0, scale: Tensor | None = None) -> Tensor:
        if self.training and self.sources == 1:
            self.num_batches_tracked += 1  # as the plain module does
        if self.layout.sources == self.sources:
            mean, variance = self.running_mean.view(-1), self.running_var.view(-1)
            return F.batch_norm(x, mean, variance, scale, None, self.training, self.momentum, self.eps)
        # All sources are the same tensor, computed once; each keeps statistics of it.
        mean, variance = torch.zeros_like(self.running_mean[0]), torch.zeros_like(self.running_var[0])
        y = F.batch_norm(x, mean, variance, scale, None, True, 1.0, self.eps)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        return y


class BatchedReLU(nn.Module):
    """A ReLU; that of the state is shared."""

    def __init__(self, members: Sequence[nn.ReLU], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        return self.layout.once("relu", x, partial(F.relu, x))


class BatchedPReLU(_Part):
    """m PReLUs of C slopes each: (N, K * m * C, H, W) -> the same."""

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight.repeat(self.layout.sources))


class BatchedLateralInhibition(_Part, Projected, Reporting):
    """m lateral inhibitions of C channels: a state, (N, K * C, H, W), or not -> (N, K * m * C, H, W)."""

    undecayed = LateralInhibition.undecayed
    intensity: Tensor
    neighbours: Tensor
    project = LateralInhibition.project

    def __init__(self, members: Sequence[LateralInhibition], layout: Layout) -> None:
        super().__init__(members, layout)
        self.channels, self.rate = len(members[0].intensity), members[0].rate
        self.register_buffer("neighbours", members[0].neighbours, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layout.once("relu", x, partial(F.relu, x))
        received = self.layout.once("received", x, partial(sum_neighbours, x, self.neighbours, self.rate))
        rows, received = (rows_of(tensor, self.layout, self.channels) for tensor in (x, received))
        intensity = self.intensity.to(x.dtype).view(-1, self.channels)  # [m, C]
        return of_rows(F.relu(torch.addcmul(rows, intensity, received, value=-1)))

    @torch.no_grad()
    def reports(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Mean and largest intensity of each of the m."""
        rows = self.intensity.view(-1, self.channels)
        found = [{"mean": row.mean().item(), "max": row.max().item()} for row in rows]
        return {str(edge): (LateralInhibition.__name__, report) for edge, report in enumerate(found)}


class BatchedSharedFilter(_Part):
    """m filters of SS conv."""

    undecayed = SharedFilter.undecayed
    weight: Tensor
    identity: Tensor

    def __init__(self, members: Sequence[SharedFilter], layout: Layout) -> None:
        super().__init__(members, layout)
        self.register_buffer("identity", members[0].identity, persistent=False)

    def kernels(self) -> Tensor:
        """[m, 2r - 1, 2r - 1]"""
        return self.weight.view(-1, *self.identity.shape) + self.identity


class BatchedAggregatedFilter(nn.Module):
    """m aggregated filters, each with coefficients of its own."""

    fixed: Tensor

    def __init__(self, members: Sequence[AggregatedFilter], layout: Layout) -> None:
        super().__init__()
        self.learned = BatchedSharedFilter([member.learned for member in members], layout)
        self.own = BatchedCoefficients([member.coefficients for member in members], layout)
        self.register_buffer("fixed", members[0].fixed, persistent=False)

    def kernels(self) -> Tensor:
        """[m, 2r - 1, 2r - 1]"""
        coefficients = self.own()  # [m, 4]
        learned = coefficients[:, -1, None, None] * self.learned.kernels()
        return torch.einsum("mf,fhw->mhw", coefficients[:, :-1], self.fixed) + learned


class BatchedCoefficients(_Part, Reporting):
    """m times the four logits of an aggregated filter."""

    undecayed = AggregationCoefficients.undecayed
    logits: Tensor

    def forward(self) -> Tensor:
        """[m, 4]: each line positive, with sum 1."""
        return self.logits.view(-1, len(AggregationCoefficients.names)).softmax(1)

    @torch.no_grad()
    def reports(self) -> dict[str, tuple[str, dict[str, float]]]:
        """The coefficients of each of the m by name."""
        found = [dict(zip(AggregationCoefficients.names, row, strict=True)) for row in self().tolist()]
        return {str(edge): (AggregationCoefficients.__name__, report) for edge, report in enumerate(found)}


class BatchedSmoothedConvolution(BatchedConvolution):
    """m convolutions whose input is smoothed, by one filter or by m."""

    def __init__(self, members: Sequence[SmoothedConv2d], layout: Layout) -> None:
        super().__init__(members, layout)
        filters = [member.smoothing for member in members]
        kind = {SharedFilter: BatchedSharedFilter, AggregatedFilter: BatchedAggregatedFilter}.get(type(filters[0]))
        self.smoothing = filters[0] if kind is None else kind(filters, layout)
        if members[0].interaction is not None:
            raise ValueError("G interact cannot be computed for many edges at once")

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.smoothing, BatchedSharedFilter | BatchedAggregatedFilter):
            kernels = self.smoothing.kernels().to(x.dtype)
            kernels = kernels[:, None].expand(-1, self.channels, -1, -1).repeat(self.layout.sources, 1, 1, 1)
            x = depthwise(per_edge(x, self.layout, self.channels), kernels.flatten(0, 1)[:, None], 1)
        elif self.smoothing is not None:
            x = self.smoothing(x)  # the same for all edges
        return super().forward(x)


class BatchedJoinChannels(nn.Module):
    """Tensors (N, K * m * C_i, H, W) side by side, edge by edge."""

    def __init__(self, members: Sequence[JoinChannels], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        copies = self.layout.sources * self.layout.edges
        return of_rows(torch.cat([rows_of(t, self.layout, t.shape[1] // copies) for t in tensors], dim=-1))


class BatchedAddChannels(nn.Module):
    """The sums of m pairs of tensors, each pair over the channels that both have."""

    def __init__(self, members: Sequence[AddChannels], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        copies = self.layout.sources * self.layout.edges
        x, y = (rows_of(tensor, self.layout, tensor.shape[1] // copies) for tensor in (x, y))
        return of_rows(x + F.pad(y, (0, x.shape[-1] - y.shape[-1])))


class BatchedResidual(nn.Module):
    """m tensors (N, K * m * C, H, W) and the state that they were made of, (N, K * C, H, W)."""

    def __init__(self, members: Sequence[Residual], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        channels = x.shape[1] // self.layout.sources
        return of_rows(rows_of(y, self.layout, channels) + rows_of(x, self.layout, channels))


PARTS: dict[type[nn.Module], Callable[[list[Any], Layout], nn.Module]] = {
    nn.Conv2d: BatchedConvolution,
    BatchNorm: BatchedBatchNorm,
    nn.PReLU: BatchedPReLU,
    nn.ReLU: BatchedReLU,
    LateralInhibition: BatchedLateralInhibition,
    SmoothedConv2d: BatchedSmoothedConvolution,
    JoinChannels: BatchedJoinChannels,
    AddChannels: BatchedAddChannels,
    Residual: BatchedResidual,
}
"""What computes m modules of a type as one."""
