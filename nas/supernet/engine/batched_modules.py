"""What computes m modules of a kind as one: the leaves of a batch (see `nas.supernet.engine.batched_modules`).

Each part takes the modules of all edges, whose parameters it joins, and the layout
(`nas.supernet.engine.pass_context`). Shapes: as in `nas.supernet.engine.memory_format`.

The modules of many edges as one module: each convolution, batch norm and activation is called once for all of them.

The edges of a cell carry the same candidate operations with weights of their own, and those that leave a state read
the same tensor. `Batch` takes the modules of one operation on all edges, and computes those of one state together; the
sources of the tensor (the K cells that flow into a node share all weights, but no statistics) likewise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.supernet.engine.convolutions import convolve
from nas.supernet.engine.memory_format import deep, of_rows, rows_of, wide
from nas.supernet.engine.pass_context import Joined, Layout
from search_spaces.factorized import AddChannels, JoinChannels, Residual
from search_spaces.lateral_inhibition import LateralInhibition, sum_neighbours
from search_spaces.module_protocols import Projected, Reporting
from search_spaces.modules import BatchNorm, repeating
from search_spaces.smoothing import AggregatedFilter, AggregationCoefficients, SharedFilter, SmoothedConv2d
from search_spaces.synchronized import Synchronizable, batch_norm_of_all

__all__ = [
    "Batch",
    "BatchedBatchNorm",
    "PARTS",
    "Part",
]


class Part(nn.Module):
    """A leaf of a batch: the modules of one kind on all edges, their parameters joined along the first dimension."""

    def __init__(self, members: Sequence[nn.Module], layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        names = [name for name, _ in members[0].named_parameters(recurse=False)]
        for name in names:
            joined = torch.cat([member.get_parameter(name) for member in members])
            if joined.dim() == 4:  # as the tensors that convolutions work on, or each call would turn it around
                joined = joined.contiguous(memory_format=torch.channels_last)
            self.register_parameter(name, nn.Parameter(joined))

    def prepare(self) -> None:
        """Makes what a forward pass needs of the parameters: before the first state, so that all of them find it."""
        for parameter in self.parameters(recurse=False):
            self.layout.own(parameter)


class BatchedConvolution(Part):
    """m convolutions of stride 1: (N, K * C_in, H, W) if they read a state, else (N, K * m * C_in, H, W)."""

    weight: Tensor

    def __init__(self, members: Sequence[nn.Conv2d], layout: Layout) -> None:
        super().__init__(members, layout)
        first = members[0]
        if first.stride != (1, 1) or isinstance(first.padding, str) or first.padding_mode != "zeros":
            raise ValueError(f"{first} cannot be computed for many edges at once: give stride 1 and zero padding")
        self.channels, self.groups = first.in_channels, first.groups
        self.padding, self.dilation, side = first.padding, first.dilation, first.kernel_size[0]
        square = first.kernel_size == (side, side) and self.dilation == (self.dilation[0],) * 2
        centred = square and self.padding == (self.dilation[0] * (side // 2),) * 2
        plain = first.groups == 1 and first.bias is None
        self.depthwise = 1 < self.groups == self.channels == first.out_channels and centred and first.bias is None
        self.pointwise = plain and first.kernel_size == (1, 1) and self.padding == (0, 0)
        if first.bias is None:
            self.bias = None

    def prepare(self) -> None:
        if self.depthwise or self.pointwise:
            self.layout.repeated(self.weight)
        else:
            super().prepare()

    def forward(self, x: Tensor) -> Tensor:
        layout, sources, edges = self.layout, self.layout.sources, self.layout.edges
        if self.groups > 1:
            x = layout.per_edge(x, self.channels)
        if self.depthwise:  # sources have channels of their own, and the same filters
            return depthwise(x, layout.repeated(self.weight), self.dilation[0], layout)
        own_inputs = x.shape[1] != sources * self.channels or edges == 1  # each edge has an input of its own
        if self.pointwise:
            groups = sources * (edges if own_inputs else 1)
            return convolve(x, layout.repeated(self.weight), None, (0, 0), (1, 1), groups, layout.recipes)
        weight, groups = layout.own(self.weight), self.groups * (edges if own_inputs else 1)
        bias = None if self.bias is None else layout.own(self.bias)
        padding, dilation = (self.padding[0], sources * self.padding[1]), (self.dilation[0], sources * self.dilation[1])
        x = layout.once("wide", x, partial(wide, sources=sources))
        return deep(convolve(x, weight, bias, padding, dilation, groups, layout.recipes), sources)


def depthwise(x: Tensor, weight: Tensor, rate: int, layout: Layout) -> Tensor:
    """Filters every channel of (N, C, H, W) with its own kernel of [C, 1, k, k], k odd: cheap to make again."""
    around = (rate * (weight.shape[-1] // 2),) * 2
    shape = None, around, (rate, rate), len(weight)
    return layout.cheap(convolve(x, weight, *shape, layout.recipes), convolve, x, weight, *shape, None)


class BatchedBatchNorm(Synchronizable):
    """m batch norms without scale and shift: (N, K * m * C, H, W) -> the same; `scale` [K * m * C] multiplies it."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: Sequence[BatchNorm], layout: Layout) -> None:
        super().__init__()
        first = members[0]
        self.layout, self.sources, self.eps = layout, first.sources, first.eps
        self.momentum = 0.0 if first.momentum is None else first.momentum
        if first.affine:
            raise ValueError("batch norms with scale and shift cannot be computed for many edges at once")
        for name in ("running_mean", "running_var"):
            buffers = [member.get_buffer(name) for member in members]
            how = Joined(layout.all_edges, torch.Size((self.sources, len(buffers[0]))), by_source=True)
            self.register_buffer(name, how.join(buffers))
        counters = [member.get_buffer("num_batches_tracked") for member in members]
        self.register_buffer("num_batches_tracked", torch.stack(counters))  # without effect, but in the state dict
        self._views: dict[tuple[int, bool], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._viewed: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}, "_viewed": None}  # a copy has other buffers, and makes views of its own

    def _statistics(self, shared: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Running means and variances of the state that is being read, and where the batch's go: [K * m * C] each.

        Shared: all sources are the same tensor, of which each keeps statistics: [K, m * C]; the batch's are [m * C].
        """
        if self._viewed is not self.running_mean:  # views last until the module is moved
            self._viewed, self._views = self.running_mean, {}
        key = self.layout.state, shared
        if key not in self._views:
            mean, variance = (self.layout.split(b)[key[0]] for b in (self.running_mean, self.running_var))
            if shared:
                mean, variance = mean.view(self.sources, -1), variance.view(self.sources, -1)
                self._views[key] = mean, variance, torch.zeros_like(mean[0]), torch.zeros_like(variance[0])
            else:
                self._views[key] = mean, variance, mean, variance
        return self._views[key]

    def forward(self, x: Tensor, source: int = 0, scale: Tensor | None = None) -> Tensor:
        shared = self.layout.sources != self.sources
        mean, variance, mean_now, variance_now = self._statistics(shared)
        if not self.training:
            return F.batch_norm(x, mean, variance, scale, None, False, 0.0, self.eps)
        momentum = 0.0 if repeating() else self.momentum
        if self.sources == 1 and not repeating():
            self.layout.own(self.num_batches_tracked).add_(1)  # as the plain module does
        kept = scale, None, mean_now, variance_now
        momentum_now = 1.0 if shared else momentum
        if self.synchronized:
            y, center, inverse = batch_norm_of_all(x, *kept, momentum_now, self.eps)
        else:
            y, center, inverse = torch.native_batch_norm(x, *kept, True, momentum_now, self.eps)
        if shared:
            mean.lerp_(mean_now, momentum)
            variance.lerp_(variance_now, momentum)
        return y if scale is not None else self.layout.cheap(y, _normalized, x, center, inverse)


def _normalized(x: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """(x - mean) * inverse, channel by channel: the batch norm's own arithmetic, given the statistics."""
    return torch.native_batch_norm(x, None, None, mean, inverse.pow(-2), False, 0.0, 0.0)[0]


class BatchedReLU(nn.Module):
    """A ReLU; that of the state is shared."""

    def __init__(self, members: Sequence[nn.ReLU], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        return self.layout.relu(x)


class BatchedPReLU(Part):
    """m PReLUs of C slopes each: (N, K * m * C, H, W) -> the same."""

    weight: Tensor

    def prepare(self) -> None:
        self.layout.repeated(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layout.again(F.prelu, x, self.layout.repeated(self.weight))


class BatchedLateralInhibition(Part, Projected, Reporting):
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
        layout, x = self.layout, self.layout.relu(x)
        received = layout.once("received", x, partial(sum_neighbours, neighbours=self.neighbours, rate=self.rate))
        intensity = layout.own(self.intensity).to(x.dtype).view(-1, self.channels)  # [m, C]
        return layout.relu(layout.again(partial(_inhibited, layout.sources), x, received, intensity))

    @torch.no_grad()
    def reports(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Mean and largest intensity of each of the m."""
        rows = self.intensity.view(-1, self.channels)
        found = [{"mean": row.mean().item(), "max": row.max().item()} for row in rows]
        return {str(edge): (LateralInhibition.__name__, report) for edge, report in enumerate(found)}


def _inhibited(sources: int, x: Tensor, received: Tensor, intensity: Tensor) -> Tensor:
    """Two tensors (N, K * C, H, W), [m, C] -> (N, K * m * C, H, W)."""
    rows, received = (rows_of(tensor, sources, intensity.shape[1]) for tensor in (x, received))
    return of_rows(torch.addcmul(rows, intensity, received, value=-1))


class BatchedSharedFilter(Part):
    """m filters of SS conv."""

    undecayed = SharedFilter.undecayed
    weight: Tensor
    identity: Tensor

    def __init__(self, members: Sequence[SharedFilter], layout: Layout) -> None:
        super().__init__(members, layout)
        self.register_buffer("identity", members[0].identity, persistent=False)

    def kernels(self) -> Tensor:
        """[m, 2r - 1, 2r - 1]"""
        return self.layout.own(self.weight).view(-1, *self.identity.shape) + self.identity


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


class BatchedCoefficients(Part, Reporting):
    """m times the four logits of an aggregated filter."""

    undecayed = AggregationCoefficients.undecayed
    logits: Tensor

    def forward(self) -> Tensor:
        """[m, 4]: each line positive, with sum 1."""
        return _rows(self.layout.own(self.logits)).softmax(1)

    @torch.no_grad()
    def reports(self) -> dict[str, tuple[str, dict[str, float]]]:
        """The coefficients of each of the m by name."""
        rows = _rows(self.logits).softmax(1).tolist()
        found = [dict(zip(AggregationCoefficients.names, row, strict=True)) for row in rows]
        return {str(edge): (AggregationCoefficients.__name__, report) for edge, report in enumerate(found)}


def _rows(logits: Tensor) -> Tensor:
    return logits.view(-1, len(AggregationCoefficients.names))


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
            x = self.layout.per_edge(x, self.channels)
            x = depthwise(x, kernels.flatten(0, 1)[:, None], 1, self.layout)
        elif self.smoothing is not None:
            x = self.layout.again(self.smoothing, x)  # the same for all edges
        return super().forward(x)


class BatchedJoinChannels(nn.Module):
    """Tensors (N, K * m * C_i, H, W) side by side, edge by edge."""

    def __init__(self, members: Sequence[JoinChannels], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        copies = self.layout.sources * self.layout.edges
        return of_rows(torch.cat([rows_of(t, self.layout.sources, t.shape[1] // copies) for t in tensors], dim=-1))


class BatchedAddChannels(nn.Module):
    """The sums of m pairs of tensors, each pair over the channels that both have."""

    def __init__(self, members: Sequence[AddChannels], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        copies = self.layout.sources * self.layout.edges
        x, y = (rows_of(tensor, self.layout.sources, tensor.shape[1] // copies) for tensor in (x, y))
        return of_rows(x + F.pad(y, (0, x.shape[-1] - y.shape[-1])))


class BatchedResidual(nn.Module):
    """m tensors (N, K * m * C, H, W) and the state that they were made of, (N, K * C, H, W)."""

    def __init__(self, members: Sequence[Residual], layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        channels = x.shape[1] // self.layout.sources
        return of_rows(rows_of(y, self.layout.sources, channels) + rows_of(x, self.layout.sources, channels))


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


class _Through(nn.Module):
    """In place of the batch norm that ends an operation: its caller applies it, with alpha as its scale."""

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return x


class Batch(nn.Module):
    """The modules of one operation, m at a time computed as one: (N, K * c, H, W) -> (N, K * m * c, H, W).

    It has the structure of each of the modules, and runs their code; only the leaves are others.

    Args:
        members: The modules of all edges, ordered by the state that they leave; each maps (N, c, H, W) to this shape.
        last: Name of the batch norm that ends them.
        layout: Shared by all batches of a node.
    """

    def __init__(self, members: Sequence[nn.Module], last: str, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.body = copy.deepcopy(members[0])
        for path, kind in _leaves(self.body):
            self.body.set_submodule(path, kind([member.get_submodule(path) for member in members], self.layout))
        self.last = self.body.get_submodule(last)
        self.body.set_submodule(last, _Through())
        self.last_name = last

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """Maps a state (N, K * c, H, W) that is being read, and alpha for each channel [K * m * c]."""
        return self.last(self.body(x), scale=scale)

    def tensors(self) -> Iterator[tuple[str, str, Joined]]:
        """(name here, name in each of the modules, how they are joined) of all parameters and buffers."""
        edges = self.layout.all_edges
        for name, tensor in self.state_dict(keep_vars=True).items():
            path, _, leaf = name.rpartition(".")
            inner = f"{self.last_name}.{leaf}" if path == "last" else name.removeprefix("body.")
            part, rows = self.get_submodule(path), len(tensor) // sum(edges)
            if leaf == "num_batches_tracked":
                yield name, inner, Joined(edges, torch.Size())
            elif isinstance(part, BatchedBatchNorm) and part.sources > 1:
                yield name, inner, Joined(edges, torch.Size((part.sources, rows // part.sources)), by_source=True)
            else:
                yield name, inner, Joined(edges, torch.Size((rows, *tensor.shape[1:])))


def _leaves(module: nn.Module) -> list[tuple[str, Callable[[list[Any], Layout], nn.Module]]]:
    found: list[tuple[str, Callable[[list[Any], Layout], nn.Module]]] = []
    for path, child in module.named_modules():
        kind = PARTS.get(type(child))
        if found and path.startswith(f"{found[-1][0]}."):  # within a part
            continue
        if kind is not None:
            found.append((path, kind))
        elif any(True for _ in child.parameters(recurse=False)) or any(True for _ in child.buffers(recurse=False)):
            raise ValueError(f"{type(child).__name__} cannot be computed for many edges at once")
    return found
