"""How the fast engine stores tensors of the edges of a cell: one tensor for all of them.

A batched module stacks a parameter or buffer of each edge along the first dimension, ordered by the state that the
edges leave, so that what belongs to one state is a contiguous part. State dicts and the state of optimisers are given
for each edge, as the plain loop has them: `StackedTensors` converts between the two.
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
    """The form in which tensors of one shape, one of each edge, are one tensor."""

    edges: tuple[int, ...]
    """The number of edges that leave each state."""
    shape: torch.Size
    """Of each of the tensors."""
    by_source: bool = False
    """Whether a state's part is ordered by the first dimension, which is of sources, and then only by edge."""

    def separate(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of the edges, as views."""
        found: list[Tensor] = []
        rows = len(tensor) // sum(self.edges)
        for m, part in zip(self.edges, tensor.split([m * rows for m in self.edges]), strict=True):
            if self.by_source:
                found += part.view(self.shape[0], m, -1).unbind(1)
            else:
                found += part.view(m, *self.shape).unbind()
        return found

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """The one tensor."""
        if not self.by_source:
            return torch.cat(list(tensors)) if self.shape else torch.stack(list(tensors))
        ends = list(itertools.accumulate(self.edges))
        states = [tensors[end - m : end] for m, end in zip(self.edges, ends, strict=True)]
        return torch.cat([torch.stack(list(members), dim=1).flatten() for members in states])
