"""The architecture parameters: alpha, shared by all cells, and beta, one distribution for each node of the trellis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.genotype import Genotype, state_names
from search_spaces.space import SearchSpace

__all__ = ["Architecture", "transition_mask"]

INITIAL_SPREAD = 1e-3
"""Standard deviation of the initial logits: nearly uniform, but not the same for two operations (as in DARTS)."""


def transition_mask(space: SearchSpace) -> Tensor:
    """Boolean [layers, levels, 3]: whether the trellis has the edge.

    Entry [l, s, d] is the edge from the node at level s of layer l (layer 0 is the stem) to level s + d - 1 of
    the next.
    """
    mask = torch.zeros(space.layers, space.levels, 3, dtype=torch.bool)
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            for target in space.transitions(layer, level):
                mask[layer, level, target - level + 1] = True
    return mask


class Architecture(nn.Module):
    """Logits of alpha [edges, operations] and of beta [layers, levels, 3], and the probabilities they stand for.

    Alpha is normalised over the operations of an edge (Auto-DeepLab, Eq. 3-4); beta over the outgoing transitions of a
    node (Eq. 7-8): entry [l, s] is the distribution of the step from level s of layer l to the finer, the same and the
    coarser level of layer l + 1, where layer 0 is the stem. Transitions that the trellis has not are exactly zero.

    Args:
        space: The search space.
        weighs_edges: Have logits of the edges, too; drawn last, so that those of alpha and beta stay the same.
    """

    mask: Tensor

    def __init__(self, space: SearchSpace, weighs_edges: bool = False) -> None:
        super().__init__()
        self.alpha = nn.Parameter(INITIAL_SPREAD * torch.randn(len(space.edges), len(space.operations)))
        self.beta = nn.Parameter(INITIAL_SPREAD * torch.randn(space.layers, space.levels, 3))
        self.edges = nn.Parameter(INITIAL_SPREAD * torch.randn(len(space.edges))) if weighs_edges else None
        self.edges_into = [2 + block for block in range(space.blocks)]  # each block, in the order of alpha
        self.register_buffer("mask", transition_mask(space), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the probabilities (alpha [edges, operations], beta [layers, levels, 3])."""
        alpha = self.alpha.softmax(dim=-1)
        # The lowest finite number instead of -inf: a row without any edge then gives no NaN, and the mask zeroes it.
        lowest = torch.finfo(self.beta.dtype).min
        beta = self.beta.masked_fill(~self.mask, lowest).softmax(dim=-1) * self.mask
        return alpha, beta

    @torch.no_grad()
    def decided(self, genotype: Genotype) -> tuple[Tensor, Tensor, Tensor | None]:
        """Alpha, beta and weights of the edges that say the cell and the path of a genotype and nothing else.

        Returns:
            Alpha [edges, operations], 1 for the operations of the cell, 0 for all others and on the edges that it does
            without; beta [layers, levels, 3], 1 for the steps of the path, 0 for all others; the weights of the edges
            among those that the cell keeps, [edges], or None.
        """
        space, states = genotype.space, state_names(genotype.space.blocks)
        alpha, beta = torch.zeros_like(self.alpha), torch.zeros_like(self.beta)
        for block, chosen in enumerate(genotype.cell):
            for name, operation in zip(chosen.inputs, chosen.operations, strict=True):
                alpha[space.edges.index((states.index(name), block)), space.operations.index(operation)] += 1
        level = 0
        for layer, target in enumerate(genotype.levels):
            beta[layer, level, target - level + 1] = 1
            level = target
        return alpha, beta, self.edge_weights(among=alpha.sum(1) > 0)

    def edge_weights(self, among: Tensor | None = None) -> Tensor | None:
        """The share of each edge in the block that it ends in: [edges], sum 1 over the edges into a block.

        Source: PC-DARTS (Xu et al., 2020), section 3.3, "edge normalization", whose beta is not the beta of here.
        `among`, boolean [edges]: the edges that there are, at least one into each block; the others have no share. None
        if edges are not weighed.
        """
        if self.edges is None:
            return None
        logits = self.edges if among is None else self.edges.masked_fill(~among, -torch.inf)
        return torch.cat([into.softmax(0) for into in logits.split(self.edges_into)])
