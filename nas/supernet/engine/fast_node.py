"""A node of the supernet in few, large calls: equal to `nas.supernet.node.Node`, the plain loop, to rounding.

It computes once what the plain loop repeats:

- The edges that leave a state have the same operations; those of one kind are one batched operation (see
  `nas.supernet.engine.batched_modules`).
- The K cells share all weights: their tensors go through together, and only batch norms distinguish them.
- The K cells share H^{l-2}: as long as batch norms use the statistics of the batch, they compute the same from it.
- An operation without weights is the same on all edges that leave a state.
- Alpha is the scale of the batch norm that ends an operation, so that weighing costs nothing.

Shapes: as in `nas.supernet.engine.memory_format`; C = B * c channels of a node, E edges, O operations. With partial
channels, P > 1, the operations read c / P channels of a state, and the others bypass them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.supernet.engine.alpha_cache import AlphaCache, leaving
from nas.supernet.engine.batched_modules import BatchedModule, BatchedOperation
from nas.supernet.engine.convolutions import convolve, relu
from nas.supernet.engine.memory_format import from_columns, from_rows, join_columns, reinterpret, to_rows
from nas.supernet.engine.pass_context import NodePass, PassContext
from nas.supernet.engine.stacked_tensors import StackedTensors
from nas.supernet.node import Node, Preprocess, Source
from nas.supernet.recomputation import Recipes
from search_spaces.module_protocols import Stacking
from search_spaces.modules import resize
from search_spaces.operations import NONE, OPERATIONS
from search_spaces.space import SearchSpace

__all__ = ["FastNode"]


class FastNode(nn.Module, Stacking):
    """The node at one layer and level, with the arguments, results and state dict of `nas.supernet.node.Node`."""

    def __init__(
        self,
        space: SearchSpace,
        level: int,
        incoming: Sequence[Source],
        before: Source,
        partial_channels: int = 1,
        keep: bool = False,
    ) -> None:
        super().__init__()
        plain = Node(space, level, incoming, before, partial_channels)
        self.channels, self.sources = space.operation_channels(level), len(incoming)
        self.partial_channels, self.mixed_channels = partial_channels, self.channels // partial_channels
        self.before, self.incoming = plain.before, plain.incoming
        by_state = [leaving(space.edges, state) for state in range(1 + space.blocks)]
        self.edges = [edge for edges in by_state for edge in edges]
        self.context = PassContext(list(map(len, by_state)), self.mixed_channels, keep)
        self.batches, self.free, self.loops = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        columns: dict[nn.Module, list[int]] = {self.batches: [], self.free: [], self.loops: []}
        for column, name in enumerate(space.operations):
            if name == NONE:
                continue
            record = OPERATIONS[name]
            members = [plain.mixed[edge].get_submodule(f"candidates.{name}") for edge in self.edges]
            kind = self.batches if record.ends_in else self.loops if record.has_weights else self.free
            if record.ends_in:
                kind[name] = BatchedOperation(members, record.ends_in, self.context)
            else:
                kind[name] = nn.ModuleList(members) if record.has_weights else members[0]
            columns[kind].append(column)
        self.batch_columns, self.free_columns, self.loop_columns = map(tuple, columns.values())
        modules = [module for module in self.batches.modules() if isinstance(module, BatchedModule)]
        self.stacking = [module for module in modules if any(True for _ in module.parameters(recurse=False))]
        self.register_state_dict_post_hook(_separate)
        self.register_load_state_dict_pre_hook(_join)

    def forward(
        self, incoming: Sequence[Tensor], before: Tensor, alpha: AlphaCache, beta: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """K tensors H^{l-1}, the tensor H^{l-2}, alpha [E, O], beta [K], (H, W) -> (N, C, H, W)."""
        first = self._preprocessed(self.before, before, size)  # (N, c, H, W)
        if not self.training:  # running statistics may differ between sources, and so may the results
            first = first.repeat(1, self.sources, 1, 1)
        pairs = zip(self.incoming, incoming, strict=True)
        second = torch.cat([self._preprocessed(preprocess, x, size) for preprocess, x in pairs], dim=1)
        states = len(self.context.edges)
        sources = (first.shape[1] // self.channels, *[self.sources] * (states - 1))
        scales = alpha.scales(self.batch_columns, self.mixed_channels, sources)
        state_bytes = len(first) * self.mixed_channels * size[0] * size[1] * first.element_size()
        node_pass = NodePass(self.context, sources, state_bytes)
        for module in self.stacking:
            module.prepare(node_pass)
        pending = self._added(node_pass, 0, first, alpha, scales[0])  # [N, H, W, 1 or K, B * c]
        pending = pending + self._added(node_pass, 1, second, alpha, scales[1])  # [N, H, W, K, B * c]
        blocks = []
        for state in range(2, states):
            block, pending = pending.split([self.channels, pending.shape[-1] - self.channels], dim=-1)
            blocks.append(self._shuffled(block))
            pending = pending + self._added(node_pass, state, from_rows(blocks[-1]), alpha, scales[state])
        cells = torch.cat([*blocks, self._shuffled(pending)], dim=-1)  # [N, H, W, K, C]
        return (cells * beta[:, None]).sum(3).permute(0, 3, 1, 2)

    def _preprocessed(self, preprocess: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The result of `nas.supernet.node.Preprocess`, without keeping its ReLU and its enlarged input."""
        assert isinstance(preprocess, Preprocess)  # for the type checker
        recipes = None if self.context.keep or not torch.is_grad_enabled() else Recipes(x.device)
        if x.shape[-2] < size[0] or x.shape[-1] < size[1]:
            small, x = x, resize(x, size)
            if recipes is not None:
                recipes.add(x, resize, small, size)
        x, convolution = relu(x, recipes), preprocess.body.convolution
        stride, around = convolution.stride[0], convolution.kernel_size[0] // 2
        y = convolve(x, convolution.weight, None, (around, around), (1, 1), 1, recipes, (stride, stride))
        return preprocess.body.batch_norm(y)

    def _added(self, node_pass: NodePass, state: int, x: Tensor, alpha: AlphaCache, scales: Sequence[Tensor]) -> Tensor:
        """The contribution of a state (N, K * c, H, W) to the m blocks that read it: [N, H, W, K, m * c]."""
        n, channels, height, width = x.shape
        sources = channels // self.channels
        if self.partial_channels > 1:
            rows = to_rows(x, sources, self.channels)  # [N, H, W, K, 1, c]
            taken, bypassed = rows.split([self.mixed_channels, self.channels - self.mixed_channels], dim=-1)
            x = from_rows(taken)
        terms = []
        with node_pass.reading(state, x):
            if self.free:
                terms.append(self._free(x, alpha.kernel(state, self.free_columns, self.mixed_channels)))
            for batch, scale in zip(self.batches.values(), scales, strict=True):
                terms.append(batch(x, scale))
            for column, members in zip(self.loop_columns, self.loops.values(), strict=True):
                terms.append(self._loop(state, list(members.children()), x, alpha.rows(state)[:, column]))
        total = sum(terms[1:], start=terms[0])
        if self.partial_channels > 1:
            mixed = to_rows(total, sources, self.mixed_channels)  # [N, H, W, K, m, c / P]
            return torch.cat([mixed, alpha.bypassing(state).to(x.dtype) * bypassed], dim=-1).flatten(-2)
        return reinterpret(total, n, height, width, sources, total.shape[1] // sources)

    def _shuffled(self, block: Tensor) -> Tensor:
        """Shuffles the channels of a block [..., c], as `nas.supernet.node.join_shuffled` does on each edge."""
        if self.partial_channels == 1:
            return block
        return block.unflatten(-1, (self.partial_channels, -1)).transpose(-1, -2).flatten(-2)

    def _free(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The operations without weights: once for all edges, with alpha as a 1x1 convolution of their outputs."""
        view = self.context.view
        outputs = [operation(x) for operation in self.free.values()]
        x = view.recomputable(partial(join_columns, view.sources), *outputs)  # (N, T * c, H, W * K)
        return from_columns(convolve(x, kernel, None, (0, 0), (1, 1), 1, view.recipes), view.sources)

    def _loop(self, state: int, members: Sequence[nn.Module], x: Tensor, alpha: Tensor) -> Tensor:
        """An operation without a batched form: one call per edge and source."""
        sources, first = x.shape[1] // self.mixed_channels, sum(self.context.edges[:state])
        outputs = []
        for source, tensor in enumerate(x.split(self.mixed_channels, dim=1)):
            copies = range(self.sources) if sources == 1 else [source]  # all that share the tensor keep statistics
            for member, weight in zip(members[first : first + len(alpha)], alpha.unbind(), strict=True):
                outputs.append(weight * [member(tensor, copy) for copy in copies][-1])
        return torch.cat(outputs, dim=1)

    def stacked_tensors(self) -> Iterator[tuple[str, list[str], StackedTensors | None]]:
        for operation, batch in self.batches.items():
            assert isinstance(batch, BatchedOperation)  # for the type checker
            for name, inner, how in batch.tensors():
                names = [f"mixed.{edge}.candidates.{operation}.{inner}" for edge in self.edges]
                yield f"batches.{operation}.{name}", names, how
        for operation, members in self.loops.items():
            for number, (edge, member) in enumerate(zip(self.edges, members.children(), strict=True)):
                for name, _ in [*member.named_parameters(), *member.named_buffers()]:
                    yield f"loops.{operation}.{number}.{name}", [f"mixed.{edge}.candidates.{operation}.{name}"], None


def _separate(node: FastNode, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Converts a state dict to that of the plain node."""
    for name, names, how in node.stacked_tensors():
        if prefix + name in state:  # some buffers are not in it
            tensor = state.pop(prefix + name)
            parts = [tensor] if how is None else how.separate(tensor)
            state |= {prefix + plain: part for plain, part in zip(names, parts, strict=True)}


def _join(node: FastNode, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Converts a state dict of the plain node to this one's; PyTorch reports what is missing."""
    for name, names, how in node.stacked_tensors():
        if all(prefix + plain in state for plain in names):
            parts = [state.pop(prefix + plain) for plain in names]
            state[prefix + name] = parts[0] if how is None else how.join(parts)
