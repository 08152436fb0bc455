"""A node of the supernet: up to three relaxed cells, computed by the plain loop.

This is Auto-DeepLab's section 4.1 as it is written, and the reference for the fast engine. Partial channels and edge
weights follow PC-DARTS (Xu et al., ICLR 2020, sections 3.2 and 3.3) and its authors' code.

Shapes: N images; C = B * F * 2**level channels of a node, c = F * 2**level channels of a state; H x W pixels of the
node's level; E edges, O operations, K incoming tensors; P = `partial_channels`, the K of PC-DARTS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from search_spaces.genotype import Block, state_names
from search_spaces.modules import BatchNorm, ReluConvBatchNorm, resize
from search_spaces.operations import DEFAULTS, NONE, OPERATIONS
from search_spaces.settings import OperationSettings
from search_spaces.space import SearchSpace

__all__ = ["MixedOperation", "Node", "Preprocess", "Source", "join_shuffled"]


@dataclass(frozen=True)
class Source:
    """Width and stride of a tensor that a node reads."""

    channels: int
    stride: int
    """In pixels of the image."""


class Preprocess(nn.Module):
    """Brings a tensor to a node's width and size: (N, channels, *, *) -> (N, c, H, W).

    A strided convolution from a finer level, bilinear upsampling and a 1x1 convolution from a coarser one (paper,
    section 5.1). The kernel 2r - 1 of a convolution of stride r reads every pixel, and is 1x1 at the node's own stride.
    """

    def __init__(self, source: Source, channels: int, stride: int) -> None:
        super().__init__()
        ratio = max(1, stride // source.stride)
        batch_norm = partial(BatchNorm, affine=False)
        self.body = ReluConvBatchNorm(source.channels, channels, 2 * ratio - 1, ratio, batch_norm)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = x.shape[-2:]
        if height < size[0] or width < size[1]:
            x = resize(x, size)
        return self.body(x)


class MixedOperation(nn.Module):
    """The relaxed operation on an edge (paper, Eq. 2): the alpha-weighted sum of the candidate operations.

    `none` has its share of the probabilities, but adds nothing and is not computed.

    Args:
        operations: Names of the candidate operations.
        channels: c.
        sources: K.
        settings: Settings of the operations.
        partial_channels: P, a divisor of c. The operations work on the first c / P channels only, the others bypass
            them unweighted (PC-DARTS, section 3.2). 1: all channels are mixed.
    """

    def __init__(
        self,
        operations: Sequence[str],
        channels: int,
        sources: int,
        settings: OperationSettings = DEFAULTS,
        partial_channels: int = 1,
    ) -> None:
        super().__init__()
        self.mixed_channels = channels // partial_channels
        self.bypassed_channels = channels - self.mixed_channels
        self.columns = [column for column, name in enumerate(operations) if name != NONE]
        batch_norm = partial(BatchNorm, sources=sources, affine=False)
        self.candidates = nn.ModuleDict()
        for name in (operations[column] for column in self.columns):
            self.candidates[name] = OPERATIONS[name].build(self.mixed_channels, 1, batch_norm, settings)

    def forward(self, x: Tensor, alpha: Tensor, source: int) -> Tensor:
        """(N, c, H, W), alpha [O] -> (N, c, H, W)."""
        if not self.bypassed_channels:
            return self._mix(x, alpha, source)
        taken, bypassed = x.split([self.mixed_channels, self.bypassed_channels], dim=1)
        return join_shuffled(self._mix(taken, alpha, source), bypassed)

    def only(self, x: Tensor, operation: str, source: int) -> Tensor:
        """One operation at full weight: (N, c, H, W) -> (N, c, H, W)."""
        taken, bypassed = x.split([self.mixed_channels, self.bypassed_channels], dim=1)
        y = self.candidates[operation](taken, source)
        return join_shuffled(y, bypassed) if self.bypassed_channels else y

    def _mix(self, x: Tensor, alpha: Tensor, source: int) -> Tensor:
        """(N, c / P, H, W), alpha [O] -> (N, c / P, H, W)."""
        candidates = zip(self.columns, self.candidates.values(), strict=True)
        return torch.stack([alpha[column] * candidate(x, source) for column, candidate in candidates]).sum(0)


def join_shuffled(mixed: Tensor, bypassed: Tensor) -> Tensor:
    """Joins the mixed with the bypassed channels and shuffles them: (N, c / P, *), (N, c - c / P, *) -> (N, c, *).

    The joined channels are P groups of c / P; output channel P * j + g is channel j of group g (the channel shuffle of
    the authors' code), so that the next operations, which take the first c / P, get channels of each group.
    """
    groups = torch.cat([mixed, bypassed], dim=1).unflatten(1, (-1, mixed.shape[1]))  # (N, P, c / P, *)
    return groups.transpose(1, 2).flatten(1, 2)


class Node(nn.Module):
    """The node at one layer and level: the beta-weighted sum of a cell for each incoming tensor (paper, Eq. 6).

    The cells share the weights of their operations. Each incoming tensor has its own preprocessing and its own
    batch-norm statistics.

    Args:
        space: The search space.
        level: The node's level.
        incoming: The K tensors H^{l-1} that may flow in.
        before: The tensor H^{l-2}, common to the K cells.
        partial_channels: P, a divisor of c, as in `MixedOperation`.
        elsewhere: Other H^{l-2} that a single path may have, by level (see `single`).
    """

    def __init__(
        self,
        space: SearchSpace,
        level: int,
        incoming: Sequence[Source],
        before: Source,
        partial_channels: int = 1,
        elsewhere: Mapping[int, Source] | None = None,
    ) -> None:
        super().__init__()
        channels, stride = space.operation_channels(level), space.strides[level]
        self.edges, self.blocks = space.edges, space.blocks
        self.before = Preprocess(before, channels, stride)
        self.incoming = nn.ModuleList(Preprocess(source, channels, stride) for source in incoming)
        self.mixed: Sequence[MixedOperation] = nn.ModuleList(  # type: ignore[assignment]
            MixedOperation(space.operations, channels, len(incoming), space.settings, partial_channels)
            for _ in space.edges
        )
        other = (elsewhere or {}).items()
        self.elsewhere = nn.ModuleDict({str(at): Preprocess(source, channels, stride) for at, source in other})

    def forward(
        self,
        incoming: Sequence[Tensor],
        before: Tensor,
        alpha: Tensor,
        beta: Tensor,
        size: tuple[int, int],
        edge_weights: Tensor | None = None,
    ) -> Tensor:
        """K tensors H^{l-1}, the tensor H^{l-2}, alpha [E, O], beta [K], (H, W), edge weights [E] -> (N, C, H, W)."""
        cells = self.cells(incoming, before, alpha, size, edge_weights)
        return torch.stack([weight * cell for weight, cell in zip(beta, cells, strict=True)]).sum(0)

    def cells(
        self,
        incoming: Sequence[Tensor],
        before: Tensor,
        alpha: Tensor,
        size: tuple[int, int],
        edge_weights: Tensor | None = None,
    ) -> list[Tensor]:
        """The output of each of the K cells (paper, Eq. 5): K times (N, C, H, W)."""
        first = self.before(before, size)  # (N, c, H, W)
        return [
            self._cell([first, preprocess(x, size)], alpha, edge_weights, source)
            for source, (preprocess, x) in enumerate(zip(self.incoming, incoming, strict=True))
        ]

    def single(
        self,
        cell: Sequence[Block],
        source: int,
        last: Tensor,
        before: Tensor,
        at: int,
        size: tuple[int, int],
        edge_weights: Tensor | None = None,
    ) -> Tensor:
        """A genotype's cell on one incoming tensor, without what the genotype leaves out: (N, C, H, W).

        Args:
            cell: The genotype's cell.
            source: Number of the incoming tensor.
            last: That tensor, H^{l-1}.
            before: H^{l-2}.
            at: Level of H^{l-2}, which chooses its preprocessing.
            size: (H, W).
            edge_weights: [E]; None: all edges alike.
        """
        names, own = state_names(self.blocks), str(at) not in self.elsewhere
        first = self.before if own else self.elsewhere[str(at)]
        states = [first(before, size), self.incoming[source](last, size)]  # block 1 reads both
        for number, block in enumerate(cell):
            terms = []
            for name, operation in zip(block.inputs, block.operations, strict=True):
                edge = self.edges.index((names.index(name), number))
                term = self.mixed[edge].only(states[names.index(name)], operation, source)
                terms.append(term if edge_weights is None else edge_weights[edge] * term)
            states.append(torch.stack(terms).sum(0))
        return torch.cat(states[2:], dim=1)

    def _cell(self, states: list[Tensor], alpha: Tensor, edge_weights: Tensor | None, source: int) -> Tensor:
        terms: list[list[Tensor]] = [[] for _ in range(self.blocks)]
        for edge, (state, block) in enumerate(self.edges):
            term = self.mixed[edge](states[state], alpha[edge], source)
            terms[block].append(term if edge_weights is None else edge_weights[edge] * term)
            if state == block + 1:  # the block's last edge: its output is a state for the blocks after it (Eq. 1)
                states.append(torch.stack(terms[block]).sum(0))
        return torch.cat(states[2:], dim=1)  # (N, B * c, H, W)
