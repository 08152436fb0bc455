"""A node of the supernet with few, large calls: equal to `nas.node.Node`, the plain loop, to rounding.

What is computed once where the plain loop repeats it:

- The edges that leave a state carry the same operations: those of one kind are one batch (see `nas.batching`).
- The K cells share all weights: their tensors go through together, and only batch norms tell them apart.
- The K cells share H^{l-2}: while batch norms take the statistics of the batch, what is computed from it is the same.
- An operation without weights is the same on all edges that leave a state.
- Alpha is the scale of the batch norm that ends an operation: to weigh costs nothing.

Shapes: as in `nas.layout`; C = B * c channels of a node, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.batching import Batch
from nas.layout import Joined, Layout, deep, of_rows, reread, wide
from nas.node import Node, Source
from search_spaces.operations import NONE, OPERATIONS
from search_spaces.space import SearchSpace

__all__ = ["FastNode", "Mixing"]


class Mixing:
    """Alpha in the forms in which nodes use it; many nodes use the same, and it is made once.

    Args:
        space: The search space.
        alpha: [E, O].
    """

    def __init__(self, space: SearchSpace, alpha: Tensor) -> None:
        self._space, self._alpha = space, alpha
        self._made: dict[tuple[int, ...], Any] = {}

    def rows(self, state: int) -> Tensor:
        """Alpha of the m edges that leave a state: [m, O]."""
        edges = [edge for edge, (source, _) in enumerate(self._space.edges) if source == state]
        return self._once((state,), lambda: self._alpha[edges])

    def scales(self, state: int, columns: Sequence[int], channels: int, sources: int) -> Sequence[Tensor]:
        """Alpha of each of some operations as the scale of a batch norm: [K * m * c] each."""

        def make() -> Sequence[Tensor]:
            alpha = self.rows(state)[:, columns].t()[:, None, :, None].expand(-1, sources, -1, channels)
            # Of one edge `reshape` gives a view whose elements share memory; a batch norm's backward reads past it.
            return alpha.reshape(len(columns), -1).contiguous().unbind()

        return self._once((state, channels, sources), make)

    def kernel(self, state: int, columns: Sequence[int], channels: int) -> Tensor:
        """Alpha of T operations as the weight of a 1x1 convolution of all their outputs: [m * c, T * c, 1, 1]."""

        def make() -> Tensor:
            alpha = self.rows(state)[:, columns]  # [m, T]
            identity = torch.eye(channels, dtype=alpha.dtype, device=alpha.device)
            blocks = alpha[:, None, :, None] * identity[:, None, :]  # [m, c, T, c]
            return blocks.reshape(len(alpha) * channels, len(columns) * channels, 1, 1)

        return self._once((state, channels), make)

    def _once(self, key: tuple[int, ...], make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class _StateOperations(nn.Module):
    """All candidate operations on the m edges that leave one state: (N, K * c, H, W) -> (N, K * m * c, H, W).

    Args:
        node: The plain node, whose modules are taken over.
        space: The search space.
        state: Number of the state.
        channels: c.
        sources: K.
    """

    def __init__(self, node: Node, space: SearchSpace, state: int, channels: int, sources: int) -> None:
        super().__init__()
        self.channels, self.sources = channels, sources
        self.state = state
        self.edges = [edge for edge, (source, _) in enumerate(space.edges) if source == state]
        self.layout = Layout(len(self.edges), channels)
        self.batches, self.free, self.loops = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        columns: dict[str, int] = {}
        for name in (operation for operation in space.operations if operation != NONE):
            record = OPERATIONS[name]
            columns[name] = space.operations.index(name)
            members = [node.mixed[edge].get_submodule(f"candidates.{name}") for edge in self.edges]
            if record.ends_in is not None:
                self.batches[name] = Batch(members, record.ends_in, self.layout)
            elif not record.has_weights:
                self.free[name] = members[0]
            else:
                self.loops[name] = nn.ModuleList(members)
        self.batch_columns, self.free_columns = ([columns[name] for name in kind] for kind in (self.batches, self.free))
        self.loop_columns = [columns[name] for name in self.loops]

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor:
        """A state (N, K * c, H, W) -> what its edges add to the blocks, (N, K * m * c, H, W)."""
        sources = x.shape[1] // self.channels
        terms = []
        with self.layout.reading(x):
            if self.free:
                outputs = torch.cat([wide(operation(x), sources) for operation in self.free.values()], dim=1)
                kernel = mixing.kernel(self.state, self.free_columns, self.channels)
                terms.append(deep(F.conv2d(outputs, kernel), sources))
            if self.batches:
                scales = mixing.scales(self.state, self.batch_columns, self.channels, sources)
                terms += [batch(x, scale) for batch, scale in zip(self.batches.values(), scales, strict=True)]
            for column, members in zip(self.loop_columns, self.loops.values(), strict=True):
                terms.append(self._loop(list(members.children()), x, mixing.rows(self.state)[:, column]))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def parts(self) -> Iterator[tuple[str, list[str], Joined]]:
        """As `FastNode.joined`, of the edges that leave this state."""
        for operation, batch in self.batches.items():
            assert isinstance(batch, Batch)  # for the type checker
            for name, inner, how in batch.tensors():
                names = [f"mixed.{edge}.candidates.{operation}.{inner}" for edge in self.edges]
                yield f"batches.{operation}.{name}", names, how
        for operation, members in self.loops.items():
            for number, (edge, member) in enumerate(zip(self.edges, members.children(), strict=True)):
                for name, tensor in [*member.named_parameters(), *member.named_buffers()]:
                    names = [f"mixed.{edge}.candidates.{operation}.{name}"]
                    yield f"loops.{operation}.{number}.{name}", names, Joined(0, tensor.shape)

    def _loop(self, members: Sequence[nn.Module], x: Tensor, alpha: Tensor) -> Tensor:
        """An operation that has no batched form: each edge and source on its own."""
        sources = x.shape[1] // self.channels
        outputs = []
        for source, tensor in enumerate(x.split(self.channels, dim=1)):
            copies = range(self.sources) if sources == 1 else [source]  # statistics of all who share the tensor
            for member, weight in zip(members, alpha.unbind(), strict=True):
                y = [member(tensor, copy) for copy in copies][-1]
                outputs.append(weight * y)
        return torch.cat(outputs, dim=1)


class FastNode(nn.Module):
    """The node at one layer and level, with the arguments of `nas.node.Node`, its results and its state dict."""

    def __init__(self, space: SearchSpace, level: int, incoming: Sequence[Source], before: Source) -> None:
        super().__init__()
        plain = Node(space, level, incoming, before)
        self.channels, self.sources, self.blocks = space.operation_channels(level), len(incoming), space.blocks
        self.before, self.incoming = plain.before, plain.incoming
        self.states = nn.ModuleList(
            _StateOperations(plain, space, state, self.channels, self.sources) for state in range(1 + space.blocks)
        )
        self.register_state_dict_post_hook(_separate)
        self.register_load_state_dict_pre_hook(_join)

    def forward(
        self, incoming: Sequence[Tensor], before: Tensor, alpha: Mixing, beta: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """K tensors H^{l-1}, the tensor H^{l-2}, alpha [E, O], beta [K], (H, W) -> (N, C, H, W)."""
        first = self.before(before, size)  # (N, c, H, W)
        if not self.training:  # running statistics may differ from source to source, and then so do the tensors
            first = first.repeat(1, self.sources, 1, 1)
        second = torch.cat([preprocess(x, size) for preprocess, x in zip(self.incoming, incoming, strict=True)], dim=1)
        pending = self._added(0, first, alpha) + self._added(1, second, alpha)  # [N, H, W, K, B * c]
        blocks = []
        for state in range(2, len(self.states)):
            block, pending = pending.split([self.channels, pending.shape[-1] - self.channels], dim=-1)
            blocks.append(block)
            pending = pending + self._added(state, of_rows(block), alpha)
        cells = torch.cat([*blocks, pending], dim=-1)  # [N, H, W, K, C]
        return (cells * beta[:, None]).sum(3).permute(0, 3, 1, 2)

    def _added(self, state: int, x: Tensor, alpha: Mixing) -> Tensor:
        """What a state (N, K * c, H, W) adds to the m blocks that read it: [N, H, W, K, m * c]."""
        n, channels, height, width = x.shape
        y = self.states[state](x, alpha)
        sources = channels // self.channels
        return reread(y, n, height, width, sources, y.shape[1] // sources)

    def joined(self) -> Iterator[tuple[str, list[str], Joined]]:
        """(name here, names in the plain node, how they are joined) of every tensor that is another's or several's."""
        for number, operations in enumerate(self.states):
            assert isinstance(operations, _StateOperations)  # for the type checker
            for name, names, how in operations.parts():
                yield f"states.{number}.{name}", names, how


def _separate(node: FastNode, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Gives a state dict the names and shapes of the plain node's."""
    for name, names, how in node.joined():
        if prefix + name in state:  # buffers may be left out of it
            parts = how.separate(state.pop(prefix + name), len(names))
            state |= {prefix + plain: part for plain, part in zip(names, parts, strict=True)}


def _join(node: FastNode, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Takes in a state dict of the plain node; what it lacks is reported as missing by PyTorch."""
    for name, names, how in node.joined():
        if all(prefix + plain in state for plain in names):
            state[prefix + name] = how.join([state.pop(prefix + plain) for plain in names])
