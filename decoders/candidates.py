"""The best networks, under limits on what they cost, and the Pareto front of probability against cost. All exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from decoders.costs import CostTable
from decoders.exact import logarithm, rounded
from decoders.joint import Found, Relaxed, Search, Vary
from search_spaces.genotype import Block

__all__ = ["Candidate", "Relaxed", "Vary", "best_candidates", "pareto_front"]


@dataclass(frozen=True)
class Candidate:
    """A decoded network."""

    cell: tuple[Block, ...]
    levels: tuple[int, ...]
    """The level of each layer."""
    path_probability: float
    """Product of the path's transition probabilities; 0.0 where that is below the smallest float."""
    path_log_probability: float
    """Its natural logarithm, finite however long the path."""
    cell_probability: float
    """Product over the blocks of the probability of the block's choice."""
    cell_log_probability: float
    """Its natural logarithm; minus infinity for a greedy cell whose score is 0."""
    costs: Mapping[str, int] = field(default_factory=dict)
    """Costs by the table's names; empty without a table."""

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the probability of path and cell together."""
        return self.path_log_probability + self.cell_log_probability


class LimitError(ValueError):
    """No network is within the limits: the message gives the costs of the cheapest."""


def best_candidates(
    relaxed: Relaxed,
    count: int,
    table: CostTable | None = None,
    limits: Mapping[str, int] | None = None,
    vary: Vary = "both",
) -> list[Candidate]:
    """The most probable networks within the limits, the best first.

    Ties are ordered by path, the finest first (as in `viterbi`), then by cell, as the greedy decoder orders choices.
    Without limits the first candidate is the paper's decoding.

    Args:
        relaxed: Probabilities; a network of probability 0 is no candidate.
        count: Number of candidates, at least 1; fewer are returned if there are no more.
        table: Costs of networks.
        limits: Inclusive limits by the names of the table.
        vary: What may differ from the paper's decoding.

    Raises:
        ValueError: `count` is below 1, a limit is not in the table, the probabilities are wrong or leave nothing, no
            network is within the limits (`LimitError`, with the cheapest), or it would take too long (`check_effort`).
    """
    if count < 1:
        raise ValueError(f"{count} candidates are asked for: give at least 1")
    limits = dict(limits or {})
    search = Search(relaxed, table, tuple(limits), vary)
    found = search.best(count, tuple(limits.values()))
    if not found:
        cheapest = {name: min(p.costs[name] for p in pareto_front(relaxed, table, name, vary)) for name in limits}  # type: ignore[arg-type]
        wanted, least = (
            " and ".join(f"{cost:,} {name.replace('_', '-')}" for name, cost in costs.items())
            for costs in (limits, cheapest)
        )
        each = ", but not in one network" if len(limits) > 1 else ""
        raise LimitError(f"no network is within {wanted}: the cheapest has {least}{each}; raise the limit")
    return [_candidate(search, one) for one in found]


def pareto_front(relaxed: Relaxed, table: CostTable, cost: str, vary: Vary = "both") -> list[Candidate]:
    """The networks that no other beats in both probability and cost, the most probable first.

    Of several with equal probability and cost, the first in the order of `best_candidates` is on the front.

    Args:
        relaxed: Probabilities.
        table: Costs of networks.
        cost: One of the table's names.
        vary: What may differ from the paper's decoding.

    Raises:
        ValueError: As for `best_candidates`.
    """
    search = Search(relaxed, table, (cost,), vary)
    return [_candidate(search, one) for one in search.front()]


def _candidate(search: Search, found: Found) -> Candidate:
    cell = tuple(choices[index].block for choices, index in zip(search.choices, found.cell, strict=True))
    path = math.prod(
        table[before][level - before + 1]
        for table, before, level in zip(search.factors, (0, *found.levels), found.levels, strict=False)
    )
    score, total = 0, 1
    if search.scored:
        score = math.prod(block.choices[index].value for block, index in zip(search.blocks, found.cell, strict=True))
        total = math.prod(block.total for block in search.blocks)
    costs = search.table.cost(cell, found.levels) if search.table else ()
    return Candidate(
        cell=cell,
        levels=found.levels,
        path_probability=rounded(path, search.exponent),
        path_log_probability=logarithm(path, search.exponent),
        cell_probability=score / total,
        cell_log_probability=math.log(score) - math.log(total) if score else -math.inf,
        costs=dict(zip(search.table.names, costs, strict=True)) if search.table else {},
    )
