"""Stacked tensors: the fast engine stores the tensors of all edges of a cell as one.

A batched module stacks a parameter or buffer of each edge along the first dimension, ordered by the state that the
edges leave, so that each state has a contiguous part. State dicts and optimiser states have one tensor per edge, as in
the plain loop: `StackedTensors` converts between the two.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["StackedTensors"]


@dataclass(frozen=True)
class StackedTensors:
    """The layout of tensors of one shape, one for each edge, in a stacked tensor."""

    edges: tuple[int, ...]
    """The number of edges that leave each state."""
    shape: torch.Size
    """Shape of each of the tensors."""
    by_source: bool = False
    """Whether a state's part is ordered by source, the first dimension, before it is ordered by edge."""

    def separate(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of the edges, as views."""
        if not self.by_source:
            return list(tensor.view(sum(self.edges), *self.shape).unbind())
        rows = len(tensor) // sum(self.edges)
        parts = zip(self.edges, tensor.split([m * rows for m in self.edges]), strict=True)
        return [own for m, part in parts for own in part.view(self.shape[0], m, -1).unbind(1)]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """The stacked tensor."""
        if not self.by_source:
            return torch.cat(list(tensors)) if self.shape else torch.stack(list(tensors))
        remaining = iter(tensors)
        states = [list(itertools.islice(remaining, m)) for m in self.edges]
        return torch.cat([torch.stack(members, dim=1).flatten() for members in states])
