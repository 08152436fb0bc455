"""The memory that a training step needs, estimated before the first one.

The step runs once on PyTorch's device "meta", where tensors have shapes and storages, but no data. All live storages
are tracked, whoever holds them: modules, the graph of the backward pass, hooks, autograd functions. Not tracked are
work spaces of kernels, and memory that the allocator cannot reuse.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.config import Precision, RunConfig, SearchConfig, full_precision
from nas.evaluation.cost import META, channels_of, meta_twin
from nas.runs.free_memory import ADVICE, available_memory
from nas.training.distributed import ALONE, Processes
from nas.training.optimizers import OPTIMIZERS
from nas.training.step import Execution, Stepper
from search_spaces.genotype import CELL_INPUTS, Block, Genotype
from search_spaces.operations import NONE

if TYPE_CHECKING:
    from nas.supernet.network import Supernet

__all__ = ["LiveBytes", "Repeated", "check_memory", "free_memory", "search_memory", "step_memory"]

CPU, GIB = torch.device("cpu"), 2**30
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PER_TENSOR, PER_MODULE = 1024, 3000
"""Bytes that a tensor takes in addition to its data (with its node in the graph of the backward pass), and a module in
addition to its tensors; measured on supernets of 6,600 and 36,000 modules (Linux, Python 3.11, PyTorch 2.13)."""
LOADED = 130 * 2**20
"""Bytes that the first steps add on a CPU apart from tensors: code, and kernels that oneDNN compiles for the shapes of
the convolutions; measured on supernets of 4 and 12 layers."""
VIEWS_WITHOUT_A_SIGN = {"aten::_unsafe_view"}
"""Operations whose schema does not say that their result is a view."""


class LiveBytes(TorchDispatchMode):
    """A context that tracks the bytes of all live storages of tensors on the device "meta".

    The result of a function for tensors of the same shapes is computed once: PyTorch's shape functions are slow.

    Attributes:
        now: Live bytes, with the overhead of each tensor.
        peak: Largest `now` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._fresh: dict[Any, bool] = {}
        self._known: dict[Any, Any] = {}

    def add(self, *tensors: Tensor) -> None:
        """Counts the storages of tensors, each once and as long as it is alive."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes() + PER_TENSOR
            if key not in self._alive:
                self._alive[key] = weakref.ref(storage, partial(self._remove, key, size))
                self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int, size: int, _: object) -> None:
        del self._alive[key]
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function not in self._fresh:
            self._fresh[function] = _gives_new_tensors(function)
        if not self._fresh[function]:
            result = function(*args, **kwargs)
        else:
            key = function, _described(args), _described(tuple(kwargs.items()))
            if key not in self._known:
                self._known[key] = _described(function(*args, **kwargs))
            result = _made(self._known[key])
        self.add(*(x for x in (result if isinstance(result, tuple | list) else (result,)) if isinstance(x, Tensor)))
        return result


def _gives_new_tensors(function: Any) -> bool:
    schema = function._schema
    aliases = any(value.alias_info is not None for value in (*schema.arguments, *schema.returns))
    return not aliases and schema.name not in VIEWS_WITHOUT_A_SIGN


def _described(value: Any) -> Any:
    """A hashable description of arguments or results, from which `_made` makes equal ones."""
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.stride(), value.dtype
    if isinstance(value, float):  # 1.0 equals 1 as a key, but changes the dtype of the result
        return float, value
    return tuple([_described(entry) for entry in value]) if isinstance(value, tuple | list) else value


def _made(described: Any) -> Any:
    if not isinstance(described, tuple):
        return described
    if described and described[0] is Tensor:
        return torch.empty_strided(described[1], described[2], dtype=described[3], device=META)
    return tuple([_made(entry) for entry in described])


@dataclass(frozen=True)
class Repeated:
    """A part of a network that stands for several equal ones in sequence."""

    modules: Sequence[str]
    """Names of its modules, in the order in which they run."""
    more: int
    """Number of repetitions beyond the one that is computed."""


def step_memory(
    network: nn.Module,
    trained: Sequence[tuple[Sequence[nn.Parameter], int]],
    images: tuple[int, int, int],
    precision: Precision = "float32",
    accumulate: int = 1,
    forward: str = "__call__",
    repeated: Repeated | None = None,
) -> int:
    """Bytes that training needs at its peak: weights, optimiser states, gradients, and the tensors of a step.

    Gradients are added to the peak, although they replace other tensors: their sizes differ, so that allocators do not
    fill the holes.

    Args:
        network: As for a Stepper; it is not changed.
        trained: For each optimiser, its parameters and how many numbers it keeps for each of their numbers.
        images: Number, height and width of the images of a batch.
        precision: Precision of the forward pass.
        accumulate: Batches for one update.
        forward: Name of the method that computes the logits for the loss.
        repeated: A part of the network that counts more often than it is computed.
    """
    precision = full_precision(precision)
    network, twins = meta_twin(network)
    kept = {twins[p]: numbers for parameters, numbers in trained for p in parameters}
    cast = HALF[precision].itemsize if precision in HALF else 0
    at_rest = _at_rest(network, kept, cast)
    if repeated is not None:
        at_rest += repeated.more * sum(_at_rest(network.get_submodule(name), kept, cast) for name in repeated.modules)
    if precision in HALF:
        network.to(HALF[precision])  # autocast would need tensors of a real device
    peaks = []
    # Not while bytes are tracked: for its first optimizer, PyTorch imports its compiler, which computes with tensors.
    optimizers = [torch.optim.SGD([twins[p] for p in parameters]) for parameters, _ in trained]
    with LiveBytes() as live:
        live.add(*network.parameters(), *network.buffers())
        begun = live.now
        shape = accumulate * images[0], channels_of(network), *images[1:]
        x = torch.empty(shape, dtype=HALF.get(precision), device=META)
        labels = torch.empty(accumulate * images[0], *images[1:], dtype=torch.int64, device=META)
        for optimizer in optimizers:
            logits = getattr(network, forward)
            stepper = Stepper("meta", network, optimizer, Execution(CPU, accumulate=accumulate), forward=logits)
            network.train()
            live.peak = live.now
            with _grown(network, repeated, live) as grown:
                stepper.gradients(x, labels)
            for parameter in stepper.parameters:
                parameter.grad = None
            peaks.append(live.peak - begun + sum(grown))
    return max(peaks) + at_rest


def _at_rest(module: nn.Module, kept: Mapping[Tensor, int], cast: int) -> int:
    """Bytes of weights (with autocast copies, gradients, the `kept` numbers of each), buffers and modules."""
    weights = sum(p.nbytes * (2 + kept[p] if p in kept else 1) + p.numel() * cast for p in module.parameters())
    modules = PER_MODULE * sum(1 for _ in module.modules())
    return weights + sum(buffer.nbytes for buffer in module.buffers()) + modules


@contextmanager
def _grown(network: nn.Module, repeated: Repeated | None, live: LiveBytes) -> Iterator[list[int]]:
    """Yields a list that finally holds the bytes that the forward pass through the further repetitions keeps."""
    grown: list[int] = []
    if repeated is None:
        yield grown
        return
    seen: list[int] = []

    def note(*_: Any) -> None:
        seen.append(live.now)

    modules = [network.get_submodule(repeated.modules[number]) for number in (0, -1)]
    hooks = modules[0].register_forward_pre_hook(note), modules[1].register_forward_hook(note)
    yield grown
    grown.append(repeated.more * (seen[1] - seen[0]))  # later entries are from a recomputation
    for hook in hooks:
        hook.remove()


def search_memory(supernet: Supernet, config: SearchConfig) -> int:
    """Bytes that a search needs at its peak.

    Layers that have all levels, after two others that do, all need the same: only the first of them is computed.
    """
    space = supernet.space
    images = (config.loader.batch_size, *config.loader.augment.crop)
    weights = (supernet.weights(), OPTIMIZERS[config.optimizer.name].states(config.optimizer.momentum))
    if config.method == "sampled":  # of the networks, those at the finest level have the largest tensors
        needed, single = [], supernet.finest()
        others = sum(p.nbytes for p in weights[0]) - sum(p.nbytes for p in single.weights())
        modules = sum(1 for _ in supernet.modules()) - sum(1 for _ in single.modules())
        trained = [(single.weights(), weights[1])]
        for name in set(space.operations) - {NONE}:
            cell = (Block(CELL_INPUTS, (name, name)),) * space.blocks
            single.forced = Genotype(space, cell, space.strides[:1] * space.layers)
            needed.append(step_memory(single, trained, images, config.precision, config.accumulate))
        return max(needed) + others * (2 + weights[1]) + modules * PER_MODULE
    full, repeated = space.levels + 1, None
    if space.layers > full:
        supernet = supernet.first_layers(full)
        repeated = Repeated([f"nodes.{name}" for name in supernet.node_names(full)], space.layers - full)
    of_alpha = OPTIMIZERS[config.architecture.optimizer].states(config.architecture.betas[0])
    trained = [(supernet.weights(), weights[1]), (list(supernet.architecture.parameters()), of_alpha)]
    return step_memory(supernet, trained, images, config.precision, config.accumulate, repeated=repeated)


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still allocate on a device; None if the system does not tell."""
    if device.type != "cuda":
        return available_memory()
    # PyTorch keeps memory freed by an earlier run in this process for the next one; the system counts it as used.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def check_memory(
    config: RunConfig, device: torch.device, needed: Callable[[], int], processes: Processes = ALONE
) -> list[str]:
    """Checks that a run fits into the free memory, as `config.memory_check` says.

    Args:
        config: The settings.
        device: Device of the run.
        needed: Computes the bytes that the run needs.
        processes: The processes of the run; on a CPU they share the machine's memory.

    Returns:
        Lines for the log.

    Raises:
        ValueError: The run does not fit; the message has the remedy.
    """
    if config.memory_check == "off":
        return []
    try:
        bytes_needed = needed()
        if device.type == "cpu":
            bytes_needed = (bytes_needed + LOADED) * processes.local_count
    except RuntimeError as error:  # a user's network that reads values, which the meta device does not have
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [f"memory is not estimated: {reason}"]
    height, width = config.loader.augment.crop
    line = f"needs about {_gib(bytes_needed)} at batch {config.loader.batch_size}, crop {height}x{width}"
    free = free_memory(device)
    if free is None:
        return [line]
    line = f"{line}; {_gib(free)} free"
    if bytes_needed <= free:
        return [line]
    if config.memory_check == "warn":
        return [f"{line}: it may not fit; {ADVICE}"]
    raise ValueError(f"{line}: {ADVICE}; or --memory-check warn, to try it nevertheless")


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"
