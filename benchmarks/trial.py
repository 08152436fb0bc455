"""A supernet on trial: measures both steps of a search on random images, in a process of its own."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal

import torch

from benchmarks.config import Variant
from benchmarks.measuring import Dispatched, PeakMemory, copy_speed, in_turn, kernels_launched, largest, seconds
from nas.config import Precision, SearchConfig, SupernetConfig
from nas.darts import make_steppers
from nas.runs.free_memory import is_out_of_memory
from nas.supernet.network import Supernet
from nas.training.devices import choose_device, set_float32
from search_spaces.space import SearchSpace

__all__ = ["CLASSES", "COUNTED_CROP", "STEPS", "Remote", "Trial", "cost_in_turn"]

STEPS = ("weight", "architecture")
CLASSES = 19
COUNTED_CROP = 33
LARGEST_BATCH = 4096
"""No larger one is tried."""
OUT_OF_MEMORY = "out of memory: give a smaller crop, batch or space, or fewer variants"

Step = Literal["weight", "architecture"]


class Trial:
    """A supernet, SGD for its weights, Adam for alpha and beta, and a batch of random images of crop x crop pixels."""

    def __init__(
        self,
        space: SearchSpace,
        variant: Variant,
        crop: int,
        batch_size: int,
        device: str,
        threads: int,
        precision: Precision,
        graphs: bool = False,
    ) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.device = choose_device(device)
        set_float32(self.device, precision)
        self.supernet = Supernet(space, CLASSES, variant.engine, variant.recompute).to(self.device)
        supernet = SupernetConfig(variant.engine, variant.recompute, graphs and variant.engine == "fast")
        steppers = make_steppers(SearchConfig(precision=precision, supernet=supernet), self.supernet, self.device)
        self.steppers = dict(zip(STEPS, steppers, strict=True))
        self.crop = crop
        self.draw(batch_size)
        self.peak = PeakMemory(self.device)

    def draw(self, batch_size: int) -> None:
        self.images = torch.randn(batch_size, 3, self.crop, self.crop)
        self.labels = torch.randint(CLASSES, (batch_size, self.crop, self.crop))

    def _take(self, step: Step) -> None:
        self.steppers[step].step(self.images, self.labels, "here")

    def step(self, step: Step) -> float:
        """Takes a step and returns its seconds."""
        return seconds(partial(self._take, step), self.device)

    def memory(self) -> float | None:
        """Returns the peak MiB of the steps so far, without the supernet; None where the system does not tell."""
        return self.peak.mib()

    def dispatched(self) -> int:
        """Counts the tensor operations of a forward pass and the backward pass of its sum, in float32 at crop 33."""
        images = torch.randn(2, 3, COUNTED_CROP, COUNTED_CROP, device=self.device)
        self.supernet.train()
        with Dispatched() as counted:
            self.supernet(images).sum().backward()
        return counted.operations

    def kernels(self, step: Step) -> int:
        """Counts the kernels that a step launches on a GPU."""
        return kernels_launched(partial(self._take, step))

    def traffic(self, step: Step) -> int:
        """Counts the bytes that a step's tensor operations read and write; see `Dispatched`."""
        with Dispatched() as counted:
            self._take(step)
        return counted.bytes

    def copy_speed(self) -> float:
        """Returns the bytes a second that the device reads and writes in a copy."""
        return copy_speed(self.device)

    def largest_batch(self) -> int:
        """Finds the largest batch for which both steps fit into memory, 0 if none does; only for a GPU."""

        def fits(batch_size: int) -> bool:
            self.draw(batch_size)
            enough = True
            try:
                for step in STEPS:
                    self._take(step)  # type: ignore[arg-type]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                enough = False
            self.supernet.zero_grad()
            torch.cuda.empty_cache()  # after the handler: until then the traceback keeps the tensors alive
            return enough

        return largest(fits, 2, LARGEST_BATCH)


class Remote:
    """An object in a new process, made there by `make(*arguments)`; both must be picklable."""

    def __init__(self, make: Callable[..., object], *arguments: Any) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        self._process.start()
        other.close()  # otherwise the end of the process would go unnoticed here
        self._made = False

    def ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the object and returns its result.

        Raises:
            MemoryError: The process ran out of memory, or was killed, usually for that reason.
            ValueError, ArithmeticError: The object raised it. The process has ended.
        """
        if not self._made:
            self._receive()
            self._made = True
        with contextlib.suppress(BrokenPipeError):  # the answer tells why
            self._pipe.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            if code is not None and code < 0:
                raise MemoryError(OUT_OF_MEMORY) from None
            raise RuntimeError(f"the process ended with exit code {code}: see its traceback above") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _serve(pipe: Connection, make: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Answers (method, arguments) in the new process until the pipe is closed; a failure is the last answer."""
    try:
        subject = make(*arguments)
        pipe.send(None)
        while True:
            method, values = pipe.recv()
            pipe.send(getattr(subject, method)(*values))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return
    except (ValueError, ArithmeticError) as error:
        pipe.send(type(error)(str(error)))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        pipe.send(MemoryError(OUT_OF_MEMORY))


def cost_in_turn(
    trials: Sequence[tuple[Any, ...]], repeats: int, more: Sequence[tuple[Any, ...]] = ()
) -> list[dict[str, Any] | None]:
    """Measures the steps of several trials, each in its own process, in turn.

    Args:
        trials: Arguments of each `Trial`.
        repeats: Timed steps of each kind.
        more: Further measurements of each at the end: (name, method, arguments of the method ...).

    Returns:
        For each, the median seconds of a `weight` and an `architecture` step, `memory` in MiB, and `more` by name.
        None for one that ran out of memory.
    """
    with contextlib.ExitStack() as stack:
        remotes: list[Remote | None] = [stack.enter_context(Remote(Trial, *arguments)) for arguments in trials]

        def ask(number: int, method: str, *arguments: Any) -> Any:
            remote = remotes[number]
            if remote is None:
                return 0.0
            try:
                return remote.ask(method, *arguments)
            except MemoryError:
                remotes[number] = None
                return 0.0

        kinds = [(number, step) for number in range(len(trials)) for step in STEPS]
        times = in_turn([partial(ask, number, "step", step) for number, step in kinds], repeats)
        found: list[dict[str, Any] | None] = []
        for number in range(len(trials)):
            cost = {step: statistics.median(times[kinds.index((number, step))]) for step in STEPS}
            cost["memory"] = ask(number, "memory")
            for name, method, *arguments in more:
                cost[name] = ask(number, method, *arguments)
            found.append(None if remotes[number] is None else cost)
        return found
