"""Alpha as the fast engine uses it: as scales of batch norms, and as weights of convolutions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from search_spaces.space import SearchSpace

__all__ = ["AlphaCache", "leaving"]


class AlphaCache:
    """Alpha in the forms that nodes use, each made once for all nodes that share it.

    Args:
        space: The search space.
        alpha: [E, O].
        edge_weights: [E]; None: all edges alike.
    """

    def __init__(self, space: SearchSpace, alpha: Tensor, edge_weights: Tensor | None = None) -> None:
        self._edges, self._edge_weights = space.edges, edge_weights
        self._alpha = alpha if edge_weights is None else edge_weights[:, None] * alpha
        self._made: dict[tuple[Any, ...], Tensor] = {}

    def rows(self, state: int) -> Tensor:
        """Alpha of the m edges that leave a state, times their weights: [m, O]."""
        return self._once(("rows", state), lambda: self._leaving(self._alpha, state))

    def bypassing(self, state: int) -> Tensor:
        """Weights of the m edges that leave a state: [m, 1]."""
        assert self._edge_weights is not None  # for the type checker
        weights = self._edge_weights[:, None]
        return self._once(("bypassing", state), lambda: self._leaving(weights, state))

    def scales(self, columns: tuple[int, ...], channels: int, sources: tuple[int, ...]) -> list[list[Tensor]]:
        """Alpha of some operations as scales of batch norms: for each state and operation [K * m * c]."""
        if not columns:
            return [[] for _ in sources]
        index, sizes = _scale_index(self._edges, self._alpha.shape[1], columns, channels, sources, self._alpha.device)
        joined = self._once(("scales", channels, sources), lambda: self._alpha.flatten().index_select(0, index))
        scales = joined.split(sizes)
        return [list(scales[first : first + len(columns)]) for first in range(0, len(scales), len(columns))]

    def kernel(self, state: int, columns: tuple[int, ...], channels: int) -> Tensor:
        """Alpha of T operations as the weight of a 1x1 convolution of all their outputs: [m * c, T * c, 1, 1]."""

        def make() -> Tensor:
            alpha = self.rows(state).index_select(1, _index(columns, self._alpha.device))  # [m, T]
            identity = torch.eye(channels, dtype=alpha.dtype, device=alpha.device)
            blocks = alpha[:, None, :, None] * identity[:, None, :]  # [m, c, T, c]
            return blocks.reshape(len(alpha) * channels, len(columns) * channels, 1, 1)

        return self._once(("kernel", state, channels), make)

    def _leaving(self, rows: Tensor, state: int) -> Tensor:
        return rows.index_select(0, _index(tuple(leaving(self._edges, state)), rows.device))

    def _once(self, key: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def leaving(edges: Sequence[tuple[int, int]], state: int) -> list[int]:
    """The edges (state, block) that leave a state, by number."""
    return [edge for edge, (source, _) in enumerate(edges) if source == state]


@functools.cache
@torch.inference_mode(False)  # tensors made in inference mode could not be used in training
def _index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept on the device: indexing by a list would copy it there in every step, and wait for the copy."""
    return torch.tensor(numbers, device=device)


@functools.cache
@torch.inference_mode(False)
def _scale_index(
    edges: tuple[tuple[int, int], ...],
    operations: int,
    columns: tuple[int, ...],
    channels: int,
    sources: tuple[int, ...],
    device: torch.device,
) -> tuple[Tensor, list[int]]:
    """Indices in alpha [E * O] of the scales of all states and operations, and the length of each scale."""
    parts = []
    for state, copies in enumerate(sources):
        for column in columns:
            places = torch.tensor(leaving(edges, state)) * operations + column  # [m]
            parts.append(places[None, :, None].expand(copies, -1, channels).flatten())  # [K * m * c]
    return torch.cat(parts).to(device), [len(part) for part in parts]
