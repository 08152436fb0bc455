"""Recomputation in the backward pass, which saves memory and costs time.

`Recipes` is for tensors that are cheap to make from others that are kept anyway: the operations of
`nas.supernet.engine.convolutions` keep a recipe in their place. `recomputed` is for a whole module, of which only the
inputs are kept (Chen et al., "Training deep nets with sublinear memory cost", 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from search_spaces.modules import repeated_pass

__all__ = ["Kept", "Recipes", "autocast_of", "recomputed"]


def recomputed(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], uses: Iterable[Tensor] = ()
) -> Tensor:
    """`function(*tensors)`, computed again in the backward pass: only the tensors are kept.

    The second call leaves the running statistics of batch norms alone.

    Args:
        function: Returns the same when it is called again.
        tensors: Its arguments; the first must be a tensor.
        uses: Everything else that may need a gradient, such as a module's parameters.
    """
    if not torch.is_grad_enabled():
        return function(*tensors)
    return _Recomputed.apply(function, len(tensors), *tensors, *uses)


class _Recomputed(torch.autograd.Function):
    """In place of PyTorch's `checkpoint`: its reentrant form does not support gradients of only some parameters; the
    other one takes time for every tensor that is kept, and loads a compiler of 74 MiB when it is first used."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], number: int, *tensors: Any) -> Tensor:
        ctx.function, ctx.number, ctx.autocast = function, number, autocast_of(tensors[0].device)
        ctx.save_for_backward(*tensors)
        return function(*tensors[:number])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        tensors = list(ctx.saved_tensors)
        for place, tensor in enumerate(tensors[: ctx.number]):
            tensors[place] = None if tensor is None else tensor.detach().requires_grad_(wanted[place])
        with torch.enable_grad(), torch.autocast(*ctx.autocast), repeated_pass():
            y = ctx.function(*tensors[: ctx.number])
        inputs = [tensor for tensor, one in zip(tensors, wanted, strict=True) if one]
        found = iter(torch.autograd.grad(y, inputs, gradient, allow_unused=True))
        return None, None, *(next(found) if one else None for one in wanted)


def autocast_of(device: torch.device) -> tuple[str, torch.dtype, bool]:
    """The current autocast: device type, dtype, whether it is on."""
    kind = "cpu" if device.type == "meta" else device.type  # the meta device has none
    return kind, torch.get_autocast_dtype(kind), kind == device.type and torch.is_autocast_enabled(kind)


class _Recipe:
    """A call that makes a tensor again; the result is released after its last use."""

    def __init__(self, device: torch.device, function: Callable[..., Tensor], arguments: Sequence[Any]) -> None:
        self.device, self.function, self.arguments = device, function, arguments
        self.autocast = autocast_of(device)
        self.users = 0
        self.made: Tensor | None = None

    def make(self) -> Tensor:
        """Called once by each user."""
        if self.made is None:
            arguments = [a.get() if isinstance(a, Kept) else a for a in self.arguments]
            same = autocast_of(self.device) == self.autocast  # the usual case; entering autocast is slower than this
            with torch.no_grad(), nullcontext() if same else torch.autocast(*self.autocast):
                self.made = self.function(*arguments)
        made = self.made
        self.users -= 1
        if self.users == 0:
            self.made = None
        return made


class Kept:
    """Kept in place of a tensor that a recipe makes, or of a view of it."""

    def __init__(self, recipe: _Recipe, tensor: Tensor) -> None:
        self.recipe, self.view = recipe, (tensor.shape, tensor.stride(), tensor.storage_offset())
        recipe.users += 1

    def get(self) -> Tensor:
        """The tensor; to be called once."""
        made = self.recipe.make()
        return made if (made.shape, made.stride(), made.storage_offset()) == self.view else made.as_strided(*self.view)


class Recipes:
    """The tensors on a device that are made again rather than kept.

    Tensors are identified by their memory, which covers views; all are held as long as this object, so that no new
    tensor gets the memory of an old one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: dict[int, tuple[_Recipe, Tensor]] = {}

    def add(self, made: Tensor, function: Callable[..., Tensor], *arguments: Any) -> None:
        """Registers `function(*arguments)` as the recipe of `made`."""
        self._known[_memory(made)] = _Recipe(self._device, function, [self.keep(a) for a in arguments]), made

    def keep(self, value: Any) -> Any:
        """The value to keep: the argument itself, or a `Kept` if it has a recipe."""
        found = self._known.get(_memory(value)) if isinstance(value, Tensor) else None
        return value if found is None else Kept(found[0], value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # unlike an address, unique on the meta device, too
