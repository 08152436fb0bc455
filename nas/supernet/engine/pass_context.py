"""The context in which the batched modules of a node compute.

A batched operation runs the code of a candidate operation with other leaves (`nas.supernet.engine.batched_modules`).
That code passes a leaf only a tensor; everything else comes from three objects:

    PassContext  one per node, held by all its batched modules. Constant, except for `view`: the state being read.
    NodePass     one per forward pass, made by `FastNode.forward`: the stacked parameters, split by state.
    StateView    one per state that a pass reads: its edges and sources, and the results computed from it.

Only `NodePass.reading` sets `PassContext.view`, and restores it afterwards; leaves look at it in their `forward`.

Results are stored under the tensor that they were computed from. As the key of a dictionary, a tensor equals only
itself; the dictionary keeps it alive, so that no other tensor is taken for it.

Shapes: as in `nas.supernet.engine.memory_format`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nas.supernet.engine.convolutions import relu
from nas.supernet.engine.memory_format import repeat_per_edge
from nas.supernet.recomputation import Recipes

__all__ = ["NodePass", "PassContext", "StateView"]

SMALL = 2**16
"""A node whose tensors have fewer bytes keeps them: recomputing them would cost more in calls than it saves."""


class PassContext:
    """Shared by all batched modules of a node.

    Args:
        edges: For each state, the number of edges that leave it.
        channels: c.
        keep: Whether autograd keeps everything that it needs, even what is cheap to recompute.
    """

    def __init__(self, edges: Sequence[int], channels: int, keep: bool = False) -> None:
        self.edges, self.channels, self.keep = tuple(edges), channels, keep
        self._view: StateView | None = None

    @property
    def view(self) -> StateView:
        """The state that is being read."""
        assert self._view is not None, "a batched module computes only while a state is read"
        return self._view

    def split(self, stacked: Tensor) -> Sequence[Tensor]:
        """The parts of a stacked tensor that belong to the states."""
        rows = len(stacked) // sum(self.edges)
        return stacked.split([m * rows for m in self.edges])


class NodePass:
    """A forward pass of a node; parameters are prepared for all states at once.

    Args:
        context: The node's.
        sources: K of each state.
        size: Bytes of a state's tensor, of one source.
    """

    def __init__(self, context: PassContext, sources: Sequence[int], size: int) -> None:
        self.context, self.sources = context, tuple(sources)
        largest = size * max(k * m for k, m in zip(self.sources, context.edges, strict=True))
        self.keeps = context.keep or largest < SMALL
        self._own: dict[Tensor, Sequence[Tensor]] = {}
        self._repeated: dict[Tensor, Sequence[Tensor]] = {}

    def own(self, stacked: Tensor) -> Sequence[Tensor]:
        """For each state, its part of a stacked tensor: [m * rows, ...]."""
        if stacked not in self._own:
            self._own[stacked] = self.context.split(stacked)
        return self._own[stacked]

    def repeated(self, stacked: Tensor) -> Sequence[Tensor]:
        """For each state, its part repeated for each source: [K * m * rows, ...]."""
        if max(self.sources) == 1:
            return self.own(stacked)
        if stacked not in self._repeated:
            edges = self.context.edges
            rows = len(stacked) // sum(edges)
            sizes = [k * m * rows for k, m in zip(self.sources, edges, strict=True)]
            index = _repetition(edges, self.sources, rows, stacked.device)
            self._repeated[stacked] = stacked.index_select(0, index).split(sizes)
        return self._repeated[stacked]

    @contextmanager
    def reading(self, state: int, x: Tensor) -> Iterator[None]:
        """Within it, batched modules work on the state x (N, K * c, H, W), and compute once what they share."""
        context = self.context
        before, context._view = context._view, StateView(self, state, x)
        try:
            yield
        finally:
            context._view = before


class StateView:
    """A state x (N, K * c, H, W) that is being read.

    Attributes:
        state: Its number.
        edges: m.
        sources: K.
        recipes: For tensors that are cheap to recompute; None: all are kept.
    """

    def __init__(self, node_pass: NodePass, state: int, x: Tensor) -> None:
        self._pass, self.state = node_pass, state
        self.edges, self.sources = node_pass.context.edges[state], x.shape[1] // node_pass.context.channels
        self.recipes = None if node_pass.keeps or not torch.is_grad_enabled() else Recipes(x.device)
        self._computed: dict[Tensor, dict[str, Tensor]] = {x: {}}

    def own(self, stacked: Tensor) -> Tensor:
        """The state's part of a stacked tensor: [m * rows, ...]."""
        return self._pass.own(stacked)[self.state]

    def repeated(self, stacked: Tensor) -> Tensor:
        """That part repeated for each source: [K * m * rows, ...]."""
        return self._pass.repeated(stacked)[self.state]

    def cached(self, name: str, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(x)`, made once for each `name` if x is the state or a result of this method."""
        computed = self._computed.get(x)
        if computed is None:
            return compute(x)
        if name not in computed:
            computed[name] = result = compute(x)
            self._computed.setdefault(result, {})
        return computed[name]

    def relu(self, x: Tensor) -> Tensor:
        """The ReLU; that of the state is shared."""
        return self.cached("relu", x, partial(relu, recipes=self.recipes))

    def per_edge(self, x: Tensor, channels: int) -> Tensor:
        """Repeats a state of C channels for each edge, to (N, K * m * C, H, W); returns other tensors unchanged."""
        if x.shape[1] != self.sources * channels or self.edges == 1:
            return x
        return self.cached("per edge", x, partial(self.recomputable, repeat_per_edge, self.sources, self.edges))

    def recomputable(self, compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """`compute(*arguments)`, recomputed in the backward pass instead of kept."""
        return self.mark_recomputable(compute(*arguments), compute, *arguments)

    def mark_recomputable(self, made: Tensor, compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Returns `made`, which the backward pass will recompute as `compute(*arguments)`."""
        if self.recipes is not None and made.requires_grad:
            self.recipes.add(made, compute, *arguments)
        return made


@functools.cache
@torch.inference_mode(False)  # tensors made in inference mode could not be used in training
def _repetition(edges: tuple[int, ...], sources: tuple[int, ...], rows: int, device: torch.device) -> Tensor:
    """Rows of a stacked tensor, those of each state repeated for each of its sources."""
    numbers = torch.arange(sum(edges) * rows).split([m * rows for m in edges])
    return torch.cat([part.repeat(k) for part, k in zip(numbers, sources, strict=True)]).to(device)
