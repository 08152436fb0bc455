"""The architecture parameters, and the `ArchitectureSample` that a forward pass makes of them.

Shapes: E edges, O operations; alpha [E, O], shared by all cells; beta [layers, levels, 3], one distribution for each
node of the trellis; edge weights [E].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces.genotype import Genotype, state_names, transition_mask
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace

__all__ = ["Architecture", "ArchitectureSample", "passing"]

INITIAL_SPREAD = 1e-3
"""Standard deviation of the initial logits: nearly uniform, but not the same for two operations (as in DARTS)."""


@dataclass(frozen=True)
class ArchitectureSample:
    """The architecture in one forward pass of the supernet."""

    alpha: Tensor
    """[E, O]: weight of each operation."""
    beta: Tensor
    """[layers, levels, 3]: weight of each transition."""
    edge_weights: Tensor | None = None
    """[E]: weight of each edge (PC-DARTS); None: all edges alike."""
    genotype: Genotype | None = None
    """The one network that is computed; None: all nodes and operations are."""

    def without(self, kept: Tensor) -> ArchitectureSample:
        """The sample without the operations for which `kept`, boolean [E, O], is False.

        The others keep their weights. An edge without any operation adds nothing, with or without edge weights.
        """
        weights = None if self.edge_weights is None else self.edge_weights * kept.any(1)
        return dataclasses.replace(self, alpha=self.alpha * kept, edge_weights=weights)


def passing(beta: Tensor) -> list[Tensor]:
    """Probabilities that a path passes the nodes of each layer: beta [layers, levels, 3] -> layers times [levels]."""
    passes, layers = torch.zeros_like(beta[0, :, 0]), []
    passes[0] = 1  # the stem
    nothing = torch.zeros_like(passes[:1])
    for steps in beta:
        finer, same, coarser = (passes[:, None] * steps).unbind(1)  # [levels] each
        passes = torch.cat([finer[1:], nothing]) + same + torch.cat([nothing, coarser[:-1]])
        layers.append(passes)
    return layers


class Architecture(nn.Module):
    """Logits of alpha, of beta and, if asked for, of the edges' weights.

    Alpha is normalised over the operations of an edge (Auto-DeepLab, Eq. 3-4); beta over the outgoing transitions of a
    node (Eq. 7-8): entry [l, s] is the distribution of the step from level s of layer l to the finer, the same and the
    coarser level of layer l + 1, where layer 0 is the stem. Transitions that the trellis does not have are exactly 0.
    Edge weights are normalised over the edges into a block (PC-DARTS: Xu et al., ICLR 2020, section 3.3, "edge
    normalization", where they are called beta).

    Args:
        space: The search space.
        weighs_edges: Adds logits of the edges; drawn last, so that those of alpha and beta stay the same.
        none_share: Whether `none` has a share of alpha. False: 0, and the softmax is over the other operations.
    """

    mask: Tensor
    shared: Tensor

    def __init__(self, space: SearchSpace, weighs_edges: bool = False, none_share: bool = True) -> None:
        super().__init__()
        self.space = space
        self.alpha = nn.Parameter(INITIAL_SPREAD * torch.randn(len(space.edges), len(space.operations)))
        self.beta = nn.Parameter(INITIAL_SPREAD * torch.randn(space.layers, space.levels, 3))
        self.edges = nn.Parameter(INITIAL_SPREAD * torch.randn(len(space.edges))) if weighs_edges else None
        self.register_buffer("mask", torch.from_numpy(transition_mask(space)), persistent=False)
        shared = torch.tensor([none_share or name != NONE for name in space.operations])
        self.register_buffer("shared", shared, persistent=False)

    def forward(self) -> ArchitectureSample:
        """The probabilities that the logits stand for."""
        alpha = self.logits().softmax(dim=-1)
        # The lowest finite number, not -inf: then a row without any edge gives no NaN, and the mask zeroes it.
        lowest = torch.finfo(self.beta.dtype).min
        beta = self.beta.masked_fill(~self.mask, lowest).softmax(dim=-1) * self.mask
        return ArchitectureSample(alpha, beta, self._edge_weights())

    def logits(self) -> Tensor:
        """The logits of alpha [E, O]; those of operations without a share are so low that their softmax is 0."""
        return self.alpha.masked_fill(~self.shared, torch.finfo(self.alpha.dtype).min)

    @torch.no_grad()
    def decided(self, genotype: Genotype) -> ArchitectureSample:
        """The sample that is exactly a genotype's cell and path.

        Alpha is 1 for the operations of the cell and 0 for all others; beta is 1 for the steps of the path and 0 for
        all others; edge weights are normalised over the edges that the cell keeps.

        Raises:
            ValueError: The genotype is of another space.
        """
        space, states = self.space, state_names(self.space.blocks)
        if genotype.space != space:
            raise ValueError(f"the genotype is of {genotype.space.name}, the supernet of {space.name}: give its own")
        alpha, beta = torch.zeros_like(self.alpha), torch.zeros_like(self.beta)
        for block, chosen in enumerate(genotype.cell):
            for name, operation in zip(chosen.inputs, chosen.operations, strict=True):
                alpha[space.edges.index((states.index(name), block)), space.operations.index(operation)] += 1
        level = 0
        for layer, target in enumerate(genotype.levels):
            beta[layer, level, target - level + 1] = 1
            level = target
        return ArchitectureSample(alpha, beta, self._edge_weights(among=alpha.sum(1) > 0), genotype)

    def _edge_weights(self, among: Tensor | None = None) -> Tensor | None:
        """[E], sum 1 over the edges into a block, or over those where `among`, boolean [E], is True."""
        if self.edges is None:
            return None
        logits = self.edges if among is None else self.edges.masked_fill(~among, -torch.inf)
        into_each_block = logits.split([2 + block for block in range(self.space.blocks)])
        return torch.cat([into.softmax(0) for into in into_each_block])
