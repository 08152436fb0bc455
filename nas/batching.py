"""The modules of many edges as one module: each convolution, batch norm and activation is called once for all of them.

The edges of a cell carry the same candidate operations with weights of their own, and those that leave a state read
the same tensor. `Batch` takes the modules of one operation on all edges, and computes those of one state together; the
sources of the tensor (the K cells that flow into a node share all weights, but no statistics) likewise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.batched_parts import PARTS, BatchedBatchNorm
from nas.layout import Joined, Layout

__all__ = ["Batch"]


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
