"""What the batched modules of a node know of the pass that they are in.

A batched operation runs the code of a candidate operation with other leaves (`nas.supernet.engine.batched_modules`),
and that code hands a leaf a tensor and nothing else. All else comes from three objects:

    PassContext  one for each node, held by all its batched modules, as long as the node lives. It has what never
                 changes, and `view`, its only mutable attribute: the state that is being read.
    NodePass     one for each forward pass: the stacked parameters, split by state. `FastNode.forward` makes it.
    StateView    one for each state that a pass reads: its edges and sources, and what was computed of it.

`NodePass.reading` alone sets `PassContext.view`, and puts back what was there before; leaves look at it in their
`forward`. The backward pass may compute a part again: it enters `reading` with the `NodePass` of the forward pass.

What was computed is found by the tensor that it was computed of. A tensor is equal to none but itself as the key of a
dictionary, which keeps it alive, so that no other one is taken for it.

Shapes: as in `nas.supernet.engine.memory_format`, which has the ways in which tensors lie in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
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
"""A node whose tensors have fewer bytes keeps them: to make them again would cost more in calls than it saves."""


class PassContext:
    """What all batched modules of a node hold.

    Args:
        edges: For each state, the number of edges that leave it.
        channels: c.
        keep: Whether autograd keeps all that it needs, even what is cheap to make again.
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
        """The parts of a stacked tensor for the edges that leave each of the states."""
        rows = len(stacked) // sum(self.edges)
        return stacked.split([m * rows for m in self.edges])


class NodePass:
    """A forward pass of a node; what it needs of the parameters is made for all states at once.

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
        """For each state, the part of a stacked tensor for the edges that leave it: [m * rows, ...]."""
        if stacked not in self._own:
            self._own[stacked] = self.context.split(stacked)
        return self._own[stacked]

    def repeated(self, stacked: Tensor) -> Sequence[Tensor]:
        """For each state, its part once for each source: [K * m * rows, ...]."""
        if max(self.sources) == 1:
            return self.own(stacked)
        if stacked not in self._repeated:
            edges = self.context.edges
            rows = len(stacked) // sum(edges)
            sizes = [k * m * rows for k, m in zip(self.sources, edges, strict=True)]
            index = _repetition(edges, self.sources, rows, stacked.device)
            self._repeated[stacked] = stacked.index_select(0, index).split(sizes)
        return self._repeated[stacked]

    def made_of(self, parameters: Iterable[Tensor], state: int) -> list[Tensor]:
        """What was made of parameters for a state."""
        return [made[p][state] for p in parameters for made in (self._own, self._repeated) if p in made]

    @contextmanager
    def reading(self, state: int, x: Tensor) -> Iterator[None]:
        """While it lasts, batched modules work on the state x (N, K * c, H, W), and compute once what is shared."""
        context = self.context
        before, context._view = context._view, StateView(self, state, x)
        try:
            yield
        finally:
            context._view = before

    def repeatable(self, function: Callable[..., Tensor], state: int) -> Callable[..., Tensor]:
        """`function` of a state and more, as a call that can be repeated when this forward pass is over."""

        def repeat(x: Tensor, *arguments: Any) -> Tensor:
            with self.reading(state, x):
                return function(x, *arguments)

        return repeat


class StateView:
    """A state x (N, K * c, H, W) that is being read.

    Attributes:
        state: Its number.
        edges: m.
        sources: K.
        recipes: Of what is cheap to make again; None: all is kept.
    """

    def __init__(self, node_pass: NodePass, state: int, x: Tensor) -> None:
        self._pass, self.state = node_pass, state
        self.edges, self.sources = node_pass.context.edges[state], x.shape[1] // node_pass.context.channels
        self.recipes = None if node_pass.keeps or not torch.is_grad_enabled() else Recipes(x.device)
        self._computed: dict[Tensor, dict[str, Tensor]] = {x: {}}

    def own(self, stacked: Tensor) -> Tensor:
        """The part of a stacked tensor for the state's edges: [m * rows, ...]."""
        return self._pass.own(stacked)[self.state]

    def repeated(self, stacked: Tensor) -> Tensor:
        """That part once for each source: [K * m * rows, ...]."""
        return self._pass.repeated(stacked)[self.state]

    def cached(self, name: str, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(x)`; if x is the state, or was given by this, all who ask for this `name` of it get one tensor."""
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
        """Repeats a state of C channels for each edge, to (N, K * m * C, H, W); another tensor stays as it is."""
        if x.shape[1] != self.sources * channels or self.edges == 1:
            return x
        return self.cached("per edge", x, partial(self.recomputable, repeat_per_edge, self.sources, self.edges))

    def recomputable(self, compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """`compute(*arguments)`, which is cheap: the backward pass makes it again instead of finding it kept."""
        return self.mark_recomputable(compute(*arguments), compute, *arguments)

    def mark_recomputable(self, made: Tensor, compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """`made`, which the backward pass makes again as `compute(*arguments)`."""
        if self.recipes is not None and made.requires_grad:
            self.recipes.add(made, compute, *arguments)
        return made


@functools.cache
@torch.inference_mode(False)  # or what is made there could not be used in training
def _repetition(edges: tuple[int, ...], sources: tuple[int, ...], rows: int, device: torch.device) -> Tensor:
    """Rows of a stacked tensor, those of each state once for each of its sources."""
    numbers = torch.arange(sum(edges) * rows).split([m * rows for m in edges])
    return torch.cat([part.repeat(k) for part, k in zip(numbers, sources, strict=True)]).to(device)
