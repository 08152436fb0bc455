"""What the parts of a node's operations share: parameters of all edges, and what is computed of a state.

Shapes: as in `nas.supernet.engine.memory_format`, which has the ways in which tensors lie in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nas.supernet.engine.convolutions import relu
from nas.supernet.engine.memory_format import repeat
from nas.supernet.recomputation import Recipes

__all__ = ["Joined", "Layout"]

SMALL = 2**16
"""A node whose tensors have fewer bytes keeps them: to make them again would cost more in calls than it saves."""


class Layout:
    """What the parts of a node's operations must know of the tensors that they get, and what they share.

    A part holds the parameters of all edges of the node in one tensor, ordered by the state that the edges leave; what
    a forward pass needs of them is made for all states at once.

    Args:
        edges: For each state, the number of edges that leave it.
        channels: c.
        keep: Whether autograd keeps all that it needs, even what is cheap to make again.

    Attributes:
        state: The number of the state that is being read.
        sources: K, of the state that is being read.
        edges: m, of the state that is being read.
        recipes: Of what is cheap to make again, while a state is being read; None: all is kept.
    """

    def __init__(self, edges: Sequence[int], channels: int, keep: bool = False) -> None:
        self.all_edges, self.channels, self.keep = tuple(edges), channels, keep
        self.edges, self.sources = 0, 1
        self.state = 0
        self._pass = _Pass(())
        self._once: dict[tuple[str, int], Tensor] = {}
        self._known: dict[int, Tensor] = {}
        self.recipes: Recipes | None = None
        self._indices: dict[tuple[Any, ...], Tensor] = {}

    @contextmanager
    def running(self, sources: Sequence[int], like: Tensor) -> Iterator[None]:
        """A forward pass of the node, given the K of each state, and a state's tensor of one source."""
        size = like.numel() * like.element_size() * max(k * m for k, m in zip(sources, self.all_edges, strict=True))
        self._pass = _Pass(tuple(sources), size < SMALL)
        try:
            yield
        finally:
            self._pass = _Pass(())

    @contextmanager
    def reading(self, state: int, x: Tensor) -> Iterator[None]:
        """While it lasts, what is computed of the state x (N, K * c, H, W) alone is computed once."""
        self.state, self.edges, self.sources = state, self.all_edges[state], x.shape[1] // self.channels
        self._known = {id(x): x}
        keep = self.keep or self._pass.small or not torch.is_grad_enabled()
        self.recipes = None if keep else Recipes(x.device)
        try:
            yield
        finally:
            self._once, self._known, self.recipes = {}, {}, None

    def again_in(self, function: Callable[..., Tensor], state: int) -> Callable[..., Tensor]:
        """`function` of a state and more, as a call that can be repeated when this forward pass is over."""
        this = self._pass

        def repeatable(x: Tensor, *arguments: Any) -> Tensor:
            before, self._pass = self._pass, this
            try:
                with self.reading(state, x):
                    return function(x, *arguments)
            finally:
                self._pass = before

        return repeatable

    def once(self, name: str, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(x)`; if x is the state, or was given by this, all who ask for this `name` of it get one tensor."""
        if id(x) not in self._known:
            return compute(x)
        key = name, id(x)
        if key not in self._once:
            result = compute(x)
            self._once[key] = self._known[id(result)] = result
        return self._once[key]

    def relu(self, x: Tensor) -> Tensor:
        """The ReLU; that of the state is shared."""
        return self.once("relu", x, partial(relu, recipes=self.recipes))

    def per_edge(self, x: Tensor, channels: int) -> Tensor:
        """Repeats a state of C channels for each edge, to (N, K * m * C, H, W); another tensor stays as it is."""
        if x.shape[1] != self.sources * channels or self.edges == 1:
            return x
        return self.once("per edge", x, partial(self.again, repeat, self.sources, self.edges))

    def again(self, compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """`compute(*arguments)`, which is cheap: the backward pass makes it again instead of finding it kept."""
        return self.cheap(compute(*arguments), compute, *arguments)

    def cheap(self, made: Tensor, compute: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """`made`, which the backward pass makes again as `compute(*arguments)`."""
        if self.recipes is not None and made.requires_grad:
            self.recipes.add(made, compute, *arguments)
        return made

    def uses(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """What was made of parameters in this pass for the state that is being read."""
        numbers = {id(parameter) for parameter in parameters}
        return [parts[self.state] for (_, number), parts in self._pass.made.items() if number in numbers]

    def own(self, joined: Tensor) -> Tensor:
        """The part for the edges that leave the state, of a parameter or buffer of all edges."""
        return self._prepared("own", joined, partial(self.split, joined))

    def split(self, joined: Tensor) -> Sequence[Tensor]:
        """The parts for the edges that leave each of the states."""
        rows = len(joined) // sum(self.all_edges)
        return joined.split([m * rows for m in self.all_edges])

    def repeated(self, joined: Tensor) -> Tensor:
        """The same for each source: [m * rows, ...] as [K * m * rows, ...]."""
        sources = self._pass.sources
        if max(sources) == 1:
            return self.own(joined)
        rows = len(joined) // sum(self.all_edges)

        def index() -> Tensor:
            numbers = self.split(torch.arange(len(joined)))
            return torch.cat([part.repeat(k) for part, k in zip(numbers, sources, strict=True)])

        def make() -> Sequence[Tensor]:
            sizes = [k * m * rows for k, m in zip(sources, self.all_edges, strict=True)]
            return joined.index_select(0, self._index(("repeated", rows, sources), joined, index)).split(sizes)

        return self._prepared("repeated", joined, make)

    def _prepared(self, kind: str, joined: Tensor, make: Callable[[], Sequence[Tensor]]) -> Tensor:
        made = self._pass.made
        if (kind, id(joined)) not in made:
            made[kind, id(joined)] = make()
        return made[kind, id(joined)][self.state]

    @torch.inference_mode(False)  # or what is made there could not be used in training
    def _index(self, key: tuple[Any, ...], like: Tensor, make: Callable[[], Tensor]) -> Tensor:
        key = (*key, like.device)
        if key not in self._indices:
            self._indices[key] = make().to(like.device)
        return self._indices[key]


@dataclass
class _Pass:
    """A forward pass of a node."""

    sources: tuple[int, ...]
    """K of each state."""
    small: bool = False
    """Whether its tensors are so small that calls are what it costs."""
    made: dict[tuple[str, int], Sequence[Tensor]] = field(default_factory=dict)
    """What was made of a parameter, for each state: by kind and the parameter's `id`."""


@dataclass(frozen=True)
class Joined:
    """How tensors of one shape, one of each edge, are one: side by side, ordered by the state that the edges leave."""

    edges: tuple[int, ...]
    """The number of edges that leave each state."""
    shape: torch.Size
    """Of each of the tensors."""
    by_source: bool = False
    """Whether a state's part is ordered by the first dimension, which is of sources, and then only by edge."""

    def separate(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of the edges, as views."""
        found: list[Tensor] = []
        for m, part in zip(
            self.edges, tensor.split([m * len(tensor) // sum(self.edges) for m in self.edges]), strict=True
        ):
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
