"""The candidate operations of many edges as one: each leaf is called once per state, not once per edge.

The edges of a cell have the same candidate operations with their own weights, and those that leave a state read the
same tensor. `BatchedOperation` takes the modules of one operation on all edges. It has the structure of one of them and
runs its code, with leaves (`BATCHED`) that compute all edges that leave the state together. It treats sources alike:
the K cells that flow into a node share all weights, but no statistics.

A leaf takes the modules of all edges, stacks their parameters, and looks up the state that is being read in the
`PassContext` of its node. Shapes: as in `nas.supernet.engine.memory_format`.
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
from nas.supernet.engine.memory_format import from_columns, from_rows, to_columns, to_rows
from nas.supernet.engine.pass_context import NodePass, PassContext, StateView
from nas.supernet.engine.stacked_tensors import StackedTensors
from search_spaces.factorized import AddChannels, JoinChannels, Residual
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.module_protocols import Projected, Reporting
from search_spaces.modules import BatchNorm, filter_channels, repeating
from search_spaces.smoothing import AggregatedFilter, AggregationCoefficients, SharedFilter, SmoothedConv2d
from search_spaces.synchronized import Synchronizable, batch_norm_of_all

__all__ = ["BATCHED", "BatchedBatchNorm", "BatchedModule", "BatchedOperation"]


class BatchedModule(nn.Module):
    """A leaf of a batched operation: the modules of one kind on all edges, their parameters stacked."""

    repeats = False
    """Whether the parameters are repeated for each source."""

    def __init__(self, members: Sequence[nn.Module], context: PassContext) -> None:
        super().__init__()
        self.context = context
        for name, _ in members[0].named_parameters(recurse=False):
            stacked = torch.cat([member.get_parameter(name) for member in members])
            if stacked.dim() == 4:  # as the input of convolutions; otherwise each call would convert it
                stacked = stacked.contiguous(memory_format=torch.channels_last)
            self.register_parameter(name, nn.Parameter(stacked))

    def prepare(self, node_pass: NodePass) -> None:
        """Splits the parameters for a forward pass, before its first state is read."""
        for parameter in self.parameters(recurse=False):
            (node_pass.repeated if self.repeats else node_pass.own)(parameter)


class BatchedConvolution(BatchedModule):
    """m convolutions of stride 1: (N, K * C_in, H, W) if they read a state, else (N, K * m * C_in, H, W)."""

    weight: Tensor

    def __init__(self, members: Sequence[nn.Conv2d], context: PassContext) -> None:
        super().__init__(members, context)
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
        self.repeats = self.depthwise or self.pointwise
        if first.bias is None:
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        view = self.context.view
        sources, edges = view.sources, view.edges
        if self.groups > 1:
            x = view.per_edge(x, self.channels)
        if self.depthwise:  # sources have their own channels and the same filters
            return depthwise(x, view.repeated(self.weight), self.dilation[0], view)
        own_inputs = x.shape[1] != sources * self.channels or edges == 1  # each edge has its own input
        if self.pointwise:
            groups = sources * (edges if own_inputs else 1)
            return convolve(x, view.repeated(self.weight), None, (0, 0), (1, 1), groups, view.recipes)
        weight, groups = view.own(self.weight), self.groups * (edges if own_inputs else 1)
        bias = None if self.bias is None else view.own(self.bias)
        padding, dilation = (self.padding[0], sources * self.padding[1]), (self.dilation[0], sources * self.dilation[1])
        x = view.cached("columns", x, partial(to_columns, sources=sources))
        return from_columns(convolve(x, weight, bias, padding, dilation, groups, view.recipes), sources)


def depthwise(x: Tensor, weight: Tensor, rate: int, view: StateView) -> Tensor:
    """Filters every channel of (N, C, H, W) with its own kernel of [C, 1, k, k], k odd: cheap to recompute."""
    around = (rate * (weight.shape[-1] // 2),) * 2
    shape = None, around, (rate, rate), len(weight)
    return view.mark_recomputable(convolve(x, weight, *shape, view.recipes), convolve, x, weight, *shape, None)


class BatchedBatchNorm(Synchronizable):
    """m batch norms without scale and shift: (N, K * m * C, H, W) -> the same; `scale` [K * m * C] multiplies it."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: Sequence[BatchNorm], context: PassContext) -> None:
        super().__init__()
        first = members[0]
        self.context, self.sources, self.eps = context, first.sources, first.eps
        self.momentum = 0.0 if first.momentum is None else first.momentum
        if first.affine:
            raise ValueError("batch norms with scale and shift cannot be computed for many edges at once")
        for name in ("running_mean", "running_var"):
            buffers = [member.get_buffer(name) for member in members]
            how = StackedTensors(context.edges, torch.Size((self.sources, len(buffers[0]))), by_source=True)
            self.register_buffer(name, how.join(buffers))
        counters = [member.get_buffer("num_batches_tracked") for member in members]
        self.register_buffer("num_batches_tracked", torch.stack(counters))  # unused, but in the state dict
        self._views: dict[tuple[int, bool], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._viewed: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}, "_viewed": None}  # a copy makes views of its own buffers

    def _statistics(self, state: int, shared: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Running means and variances of a state, and the buffers for the batch's: [K * m * C] each.

        Shared: all sources are the same tensor and each keeps statistics, [K, m * C]; the batch's are [m * C].
        """
        if self._viewed is not self.running_mean:  # views are valid until the module is moved
            self._viewed, self._views = self.running_mean, {}
        key = state, shared
        if key not in self._views:
            mean, variance = (self.context.split(b)[state] for b in (self.running_mean, self.running_var))
            if shared:
                mean, variance = mean.view(self.sources, -1), variance.view(self.sources, -1)
                self._views[key] = mean, variance, torch.zeros_like(mean[0]), torch.zeros_like(variance[0])
            else:
                self._views[key] = mean, variance, mean, variance
        return self._views[key]

    def forward(self, x: Tensor, source: int = 0, scale: Tensor | None = None) -> Tensor:
        view = self.context.view
        shared = view.sources != self.sources
        mean, variance, mean_now, variance_now = self._statistics(view.state, shared)
        if not self.training:
            return F.batch_norm(x, mean, variance, scale, None, False, 0.0, self.eps)
        momentum = 0.0 if repeating() else self.momentum
        if self.sources == 1 and not repeating():
            view.own(self.num_batches_tracked).add_(1)  # as the plain module does
        kept = scale, None, mean_now, variance_now
        momentum_now = 1.0 if shared else momentum
        if self.synchronized:
            y, center, inverse = batch_norm_of_all(x, *kept, momentum_now, self.eps)
        else:
            y, center, inverse = torch.native_batch_norm(x, *kept, True, momentum_now, self.eps)
        if shared:
            mean.lerp_(mean_now, momentum)
            variance.lerp_(variance_now, momentum)
        return y if scale is not None else view.mark_recomputable(y, _normalized, x, center, inverse)


def _normalized(x: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """(x - mean) * inverse per channel, with the batch norm's own arithmetic."""
    return torch.native_batch_norm(x, None, None, mean, inverse.pow(-2), False, 0.0, 0.0)[0]


class BatchedReLU(BatchedModule):
    """A ReLU; that of the state is shared."""

    def forward(self, x: Tensor) -> Tensor:
        return self.context.view.relu(x)


class BatchedPReLU(BatchedModule):
    """m PReLUs of C slopes each: (N, K * m * C, H, W) -> the same."""

    weight: Tensor
    repeats = True

    def forward(self, x: Tensor) -> Tensor:
        view = self.context.view
        return view.recomputable(F.prelu, x, view.repeated(self.weight))


class BatchedLateralInhibition(BatchedModule, Projected, Reporting):
    """m lateral inhibitions of C channels: a state (N, K * C, H, W), or (N, K * m * C, H, W) -> the latter."""

    undecayed = LateralInhibition.undecayed
    intensity: Tensor
    neighbours: Tensor
    project = LateralInhibition.project

    def __init__(self, members: Sequence[LateralInhibition], context: PassContext) -> None:
        super().__init__(members, context)
        self.channels, self.rate = len(members[0].intensity), members[0].rate
        self.register_buffer("neighbours", members[0].neighbours, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        view = self.context.view
        x = view.relu(x)
        received = view.cached("received", x, partial(filter_channels, kernel=self.neighbours, rate=self.rate))
        intensity = view.own(self.intensity).to(x.dtype).view(-1, self.channels)  # [m, C]
        return view.relu(view.recomputable(partial(_inhibited, view.sources), x, received, intensity))

    @torch.no_grad()
    def reports(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Mean and largest intensity of each of the m."""
        rows = self.intensity.view(-1, self.channels)
        found = [{"mean": row.mean().item(), "max": row.max().item()} for row in rows]
        return {str(edge): (LateralInhibition.__name__, report) for edge, report in enumerate(found)}


def _inhibited(sources: int, x: Tensor, received: Tensor, intensity: Tensor) -> Tensor:
    """Two tensors (N, K * C, H, W), [m, C] -> (N, K * m * C, H, W)."""
    rows, received = (to_rows(tensor, sources, intensity.shape[1]) for tensor in (x, received))
    return from_rows(torch.addcmul(rows, intensity, received, value=-1))


class BatchedSharedFilter(BatchedModule):
    """m filters of SS conv."""

    undecayed = SharedFilter.undecayed
    weight: Tensor
    identity: Tensor

    def __init__(self, members: Sequence[SharedFilter], context: PassContext) -> None:
        super().__init__(members, context)
        self.register_buffer("identity", members[0].identity, persistent=False)

    def kernels(self) -> Tensor:
        """[m, 2r - 1, 2r - 1]"""
        return self.context.view.own(self.weight).view(-1, *self.identity.shape) + self.identity


class BatchedAggregatedFilter(nn.Module):
    """m aggregated filters, each with its own coefficients."""

    fixed: Tensor

    def __init__(self, members: Sequence[AggregatedFilter], context: PassContext) -> None:
        super().__init__()
        self.learned = BatchedSharedFilter([member.learned for member in members], context)
        self.own = BatchedCoefficients([member.coefficients for member in members], context)
        self.register_buffer("fixed", members[0].fixed, persistent=False)

    def kernels(self) -> Tensor:
        """[m, 2r - 1, 2r - 1]"""
        coefficients = self.own()  # [m, 4]
        learned = coefficients[:, -1, None, None] * self.learned.kernels()
        return torch.einsum("mf,fhw->mhw", coefficients[:, :-1], self.fixed) + learned


class BatchedCoefficients(BatchedModule, Reporting):
    """The four logits of m aggregated filters."""

    undecayed = AggregationCoefficients.undecayed
    logits: Tensor

    def forward(self) -> Tensor:
        """[m, 4]: each row positive, with sum 1."""
        return self.context.view.own(self.logits).view(-1, len(AggregationCoefficients.names)).softmax(1)

    @torch.no_grad()
    def reports(self) -> dict[str, tuple[str, dict[str, float]]]:
        """The coefficients of each of the m by name."""
        names = AggregationCoefficients.names
        rows = self.logits.view(-1, len(names)).softmax(1).tolist()
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return {str(edge): (AggregationCoefficients.__name__, report) for edge, report in enumerate(found)}


class BatchedSmoothedConvolution(BatchedConvolution):
    """m convolutions whose input is smoothed, by one filter or by m filters."""

    def __init__(self, members: Sequence[SmoothedConv2d], context: PassContext) -> None:
        super().__init__(members, context)
        filters = [member.smoothing for member in members]
        kind = {SharedFilter: BatchedSharedFilter, AggregatedFilter: BatchedAggregatedFilter}.get(type(filters[0]))
        self.smoothing = filters[0] if kind is None else kind(filters, context)
        if members[0].interaction is not None:
            raise ValueError("G interact cannot be computed for many edges at once")

    def forward(self, x: Tensor) -> Tensor:
        view = self.context.view
        if isinstance(self.smoothing, BatchedSharedFilter | BatchedAggregatedFilter):
            kernels = self.smoothing.kernels().to(x.dtype)
            kernels = kernels[:, None].expand(-1, self.channels, -1, -1).repeat(view.sources, 1, 1, 1)
            x = view.per_edge(x, self.channels)
            x = depthwise(x, kernels.flatten(0, 1)[:, None], 1, view)
        elif self.smoothing is not None:
            x = view.recomputable(self.smoothing, x)  # the same for all edges
        return super().forward(x)


class BatchedJoinChannels(BatchedModule):
    """Concatenates tensors (N, K * m * C_i, H, W) edge by edge."""

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        return from_rows(torch.cat([_edge_rows(x, self.context.view) for x in tensors], dim=-1))


class BatchedAddChannels(BatchedModule):
    """Adds m pairs of tensors, each pair over the channels that both have."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = (_edge_rows(tensor, self.context.view) for tensor in (x, y))
        return from_rows(x + F.pad(y, (0, x.shape[-1] - y.shape[-1])))


def _edge_rows(x: Tensor, view: StateView) -> Tensor:
    return to_rows(x, view.sources, x.shape[1] // (view.sources * view.edges))


class BatchedResidual(BatchedModule):
    """Adds the state (N, K * C, H, W) to m tensors made from it, (N, K * m * C, H, W)."""

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        sources = self.context.view.sources
        channels = x.shape[1] // sources
        return from_rows(to_rows(y, sources, channels) + to_rows(x, sources, channels))


BATCHED: dict[type[nn.Module], Callable[[list[Any], PassContext], nn.Module]] = {
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
"""The leaf that computes m modules of a type as one, by type."""


class _Through(nn.Module):
    """In place of the batch norm that ends an operation: the caller applies it, with alpha as its scale."""

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return x


class BatchedOperation(nn.Module):
    """The modules of one operation, m computed as one: (N, K * c, H, W) -> (N, K * m * c, H, W).

    Args:
        members: The modules of all edges, ordered by the state that they leave; each preserves the shape (N, c, H, W).
        last: Name of the batch norm that ends them.
        context: Shared by all batched operations of a node.
    """

    def __init__(self, members: Sequence[nn.Module], last: str, context: PassContext) -> None:
        super().__init__()
        self.context = context
        self.body = copy.deepcopy(members[0])
        for path, kind in _leaves(self.body):
            self.body.set_submodule(path, kind([member.get_submodule(path) for member in members], context))
        self.last = self.body.get_submodule(last)
        self.body.set_submodule(last, _Through())
        self.last_name = last

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """Maps a state (N, K * c, H, W) that is being read, and alpha for each channel [K * m * c]."""
        return self.last(self.body(x), scale=scale)

    def tensors(self) -> Iterator[tuple[str, str, StackedTensors]]:
        """(name here, name in each member, layout of the stack) of all parameters and buffers."""
        edges = self.context.edges
        for name, tensor in self.state_dict(keep_vars=True).items():
            path, _, leaf = name.rpartition(".")
            inner = f"{self.last_name}.{leaf}" if path == "last" else name.removeprefix("body.")
            leaf_module, rows = self.get_submodule(path), len(tensor) // sum(edges)
            shape, sources = (rows, *tensor.shape[1:]), getattr(leaf_module, "sources", 1)
            if leaf == "num_batches_tracked":
                shape, sources = (), 1
            elif sources > 1:  # running statistics
                shape = sources, rows // sources
            yield name, inner, StackedTensors(edges, torch.Size(shape), by_source=sources > 1)


def _leaves(module: nn.Module) -> list[tuple[str, Callable[[list[Any], PassContext], nn.Module]]]:
    found: list[tuple[str, Callable[[list[Any], PassContext], nn.Module]]] = []
    for path, child in module.named_modules():
        if found and path.startswith(f"{found[-1][0]}."):  # within a batched module
            continue
        if type(child) in BATCHED:
            found.append((path, BATCHED[type(child)]))
        elif [*child.parameters(recurse=False), *child.buffers(recurse=False)]:
            raise ValueError(f"{type(child).__name__} cannot be computed for many edges at once")
    return found
