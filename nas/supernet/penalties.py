"""Penalties in the architecture's loss: expected cost, and entropy of alpha.

The expected cost is the mean cost of the architectures that alpha and beta stand for, and has a gradient. As in
ProxylessNAS (Cai et al., ICLR 2019), an operation's cost is weighed by its probability: here, that the path passes the
node, times that the edge is one of the two that a block keeps, times that of the operation on the edge. Only candidate
operations count, not stem, head and preprocessing. The entropy is that of `nas.supernet.alpha_sampling`.

Shapes: alpha [E, O], beta [layers, levels, 3] as in `nas.supernet.architecture`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from nas.config import CostName, SearchConfig
from nas.supernet.architecture import Architecture, passing
from nas.supernet.network import Supernet
from search_spaces.genotype import Genotype
from search_spaces.operations import OPERATIONS
from search_spaces.space import SearchSpace

__all__ = ["ExpectedCost", "architecture_cost", "architecture_penalty"]

KEPT = 2
"""Edges into a block that decoding keeps."""


class ExpectedCost:
    """The cost of a relaxed architecture, and a penalty above a target.

    Args:
        space: The search space.
        architecture: Its alpha and beta.
        name: Kind of cost, for one image of this size.
        size: Height and width in pixels.
    """

    def __init__(self, space: SearchSpace, architecture: Architecture, name: CostName, size: tuple[int, int]) -> None:
        self.space, self.architecture = space, architecture
        height, width = (-(-side // space.stem.stride) for side in size)
        rows = []
        for level in range(space.levels):
            costs = [OPERATIONS[o].cost(space.operation_channels(level), height, width, 1) for o in space.operations]
            rows.append([float(getattr(cost, name)) for cost in costs])
            height, width = -(-height // 2), -(-width // 2)
        like = architecture.alpha
        self._table = torch.tensor(rows, dtype=torch.float64).to(like.device)  # [levels, O]
        shares = [KEPT / (2 + block) for _, block in space.edges]
        self._kept = torch.tensor(shares, dtype=torch.float64).to(like.device)  # [E]
        mask = architecture.mask.double()
        ways = mask / mask.sum(-1, keepdim=True).clamp(min=1)
        self.start = float(
            self._of((architecture.shared / architecture.shared.sum()).expand_as(like), ways, self._kept)
        )
        """The cost of the relaxed architecture with uniform alpha and beta."""

    def __call__(self) -> Tensor:
        """The cost of the current relaxed architecture: a scalar."""
        sample = self.architecture()
        kept = self._kept if sample.edge_weights is None else (KEPT * sample.edge_weights).clamp(max=1)
        return self._of(sample.alpha, sample.beta, kept)

    def decoded(self, genotype: Genotype) -> float:
        """The cost of a genotype."""
        sample = self.architecture.decided(genotype)
        return float(self._of(sample.alpha, sample.beta, torch.ones_like(self._kept)))

    def shares(self, genotype: Genotype) -> dict[str, float]:
        """Costs relative to `start`: `expected_cost` of the relaxed architecture, `decoded_cost` of a genotype."""
        costs = {"expected_cost": float(self().detach()), "decoded_cost": self.decoded(genotype)}
        return {name: cost / self.start for name, cost in costs.items()}

    def penalty(self, weight: float, target: float) -> Tensor:
        """weight * (cost / start - target) if that is positive, else 0: a scalar."""
        return weight * (self() / self.start - target).relu()

    def _of(self, alpha: Tensor, beta: Tensor, kept: Tensor) -> Tensor:
        """The sum over nodes of P(the path passes it) times the cost of a cell there; kept [E], P(edge is kept)."""
        cells = self._table @ (kept[:, None] * alpha.double()).sum(0)  # [levels]
        return torch.stack([(passes * cells).sum() for passes in passing(beta.double())]).sum()


def architecture_cost(config: SearchConfig, supernet: Supernet) -> ExpectedCost:
    """The expected cost that the settings ask for, at the size of a training crop."""
    size = config.loader.augment.crop
    return ExpectedCost(supernet.space, supernet.architecture, config.architecture.cost, size)


def architecture_penalty(config: SearchConfig, supernet: Supernet) -> Callable[[Tensor], Tensor] | None:
    """A function from a step's logits to the sum of its penalties, a scalar; None: there are no penalties."""
    settings, sampling = config.architecture, supernet.alpha_sampling
    terms: list[Callable[[], Tensor]] = []
    if sampling is not None and max(settings.entropy, settings.beta_decay, settings.zero_one) > 0:
        terms.append(lambda: sampling.penalty(supernet.architecture.logits()))
    if settings.cost_weight > 0:
        cost = architecture_cost(config, supernet)
        terms.append(partial(cost.penalty, settings.cost_weight, settings.cost_target))
    return (lambda logits: torch.stack([term().double() for term in terms]).sum()) if terms else None
