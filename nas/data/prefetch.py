"""Prefetching of batches, in worker processes or in a thread."""

from __future__ import annotations

import pickle
import signal
import threading
import traceback
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from nas.data.base import DataError

__all__ = ["Loader"]

Batch = TypeVar("Batch", bound=tuple[torch.Tensor, ...])

LESS = "give --loader.workers 0, or fewer workers, a smaller --loader.prefetch or batch"


class Loader(Generic[Batch]):
    """An iterable of the batches of a plan; each `iter` is one pass, as often as the plan can be iterated.

    Workers start with the first pass and live until `close`, through any number of passes, one at a time. A thread
    lives as long as its pass: until the end, an error, `close`, or the end of the iterator's life. An error in making a
    batch is raised in place of that batch. As a context manager, the loader closes itself. When a worker dies (the
    system kills the largest process if memory runs out), torch raises a RuntimeError anywhere in the main process; the
    context manager turns it into a DataError with the cause and the remedy.

    Args:
        make: Makes the batch of an entry of the plan; pure, and picklable if there are workers.
        plan: Entries in order.
        workers: Processes that make batches; 0 makes them in this one.
        prefetch: Batches that each worker makes ahead, at least 1; without workers, that a thread does, or 0 for none.
        pin_memory: Put batches into pinned memory, for copies to a GPU.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        make: Callable[[Any], Batch],
        plan: Iterable[Any],
        workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        for name, value, least in (("workers", workers, 0), ("prefetch", prefetch, min(workers, 1))):
            if value < least:
                raise ValueError(f"{name} is {value}; expected {least} or above")
        self._make, self._plan, self._prefetch, self._pin_memory = make, plan, prefetch, pin_memory
        self._processes: DataLoader[Any] | None = None
        if workers:
            self._processes = DataLoader(
                _Entries(make),
                batch_size=None,  # an entry is a whole batch
                sampler=plan,
                collate_fn=_as_it_is,
                num_workers=workers,
                prefetch_factor=prefetch,
                persistent_workers=True,
                pin_memory=pin_memory,
                worker_init_fn=_leave_signals_to_the_main_process,
                generator=torch.Generator(),  # otherwise starting an iterator advances the global generator
            )
        self._pass: Callable[[], Generator[Batch] | None] = lambda: None
        self._end_workers: weakref.finalize[[], Loader[Batch]] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._processes is None:
            batches = _deliver(self._make, self._plan, self._prefetch, self._pin_memory)
        else:
            made: Any = iter(self._processes)  # the same object, with the same workers, in every pass
            if self._end_workers is None:
                # Its own `__del__` may run after its queues are gone, and then cannot reach the workers.
                self._end_workers = weakref.finalize(self, made._shutdown_workers)
            batches = _received(made)
        self._pass = weakref.ref(batches)  # dropping the iterator ends it
        return batches

    def close(self) -> None:
        """End the workers and the thread."""
        batches = self._pass()
        if batches is not None:
            batches.close()
        if self._end_workers is not None:
            self._end_workers()

    def __enter__(self) -> Loader[Batch]:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if _is_death_of_a_worker(error):
            raise _explained(error) from error


def _deliver(make: Callable[[Any], Any], plan: Iterable[Any], prefetch: int, pin_memory: bool) -> Generator[Any]:
    """One pass without workers; a thread starts with the first batch and ends with the pass."""
    made: Iterator[Any] = map(make, plan)
    if pin_memory:
        made = (tuple(tensor.pin_memory() for tensor in batch) for batch in made)
    if not prefetch:
        yield from made
        return
    ahead = _Ahead(made, prefetch)
    try:
        yield from ahead
    finally:
        ahead.close()


# In worker processes


def _received(made: Iterator[Any]) -> Generator[Any]:
    """One pass with workers: their errors are raised here."""
    try:
        for batch in made:
            if isinstance(batch, _Failure):
                raise batch.error from RuntimeError(f"in a loader's worker:\n{batch.where}")
            yield batch
    except RuntimeError as error:
        if not _is_death_of_a_worker(error):
            raise
        raise _explained(error) from error


def _is_death_of_a_worker(error: BaseException | None) -> bool:
    """Whether torch reports the death of a worker, while it waits for one or in its handler of SIGCHLD."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _explained(error: BaseException | None) -> DataError:
    how = str(error).partition(". ")[0].removeprefix("DataLoader worker ")
    return DataError(
        f"a process that reads data, a loader's worker, has died: {how}. The system kills processes when memory runs "
        f"out: {LESS}"
    )


@dataclass(frozen=True)
class _Failure:
    """An error sent from a worker; torch would put the traceback into its message."""

    error: Exception
    where: str


class _Entries(Dataset[Any]):
    """Batches indexed by the entries of the plan."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, entry: Any) -> Any:
        try:
            return _shared(self.make(entry))
        except Exception as error:
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:  # it cannot be pickled
                raise error from None
            return _Failure(error, traceback.format_exc())


def _shared(batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Move a batch to shared memory; later, in a thread of torch's, a failure would be lost."""
    try:
        return tuple(tensor.share_memory_() for tensor in batch)
    except RuntimeError as error:
        raise DataError(
            f"a batch does not fit into shared memory (/dev/shm), through which a loader's worker hands it over: "
            f"{LESS}; or more shared memory (docker run --shm-size)"
        ) from error


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_main_process(_: int) -> None:
    # Ctrl-C and the SIGTERM of a batch system reach every process. The main one finishes its step, which may need
    # another batch, and saves; then it ends the workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


# In a thread


@dataclass
class _Exchange:
    """State shared by the thread and the consumer. Only queues that are safe in a garbage collection."""

    room: SimpleQueue[None] = field(default_factory=SimpleQueue)
    """One entry per batch that may be made."""
    made: SimpleQueue[tuple[Any, BaseException | None]] = field(default_factory=SimpleQueue)
    """Batches, or the error in place of one; StopIteration at the end."""
    stopped: bool = False


class _Ahead(Iterator[Any]):
    """Items of another iterator, taken in a thread up to `ahead` items in advance."""

    def __init__(self, items: Iterator[Any], ahead: int) -> None:
        self._exchange = _Exchange()
        for _ in range(ahead):
            self._exchange.room.put(None)
        self._thread = threading.Thread(target=_work, args=(items, self._exchange), name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        if self._exchange.stopped:
            raise StopIteration
        item, error = self._exchange.made.get()
        if error is not None:
            self.close()
            raise error
        self._exchange.room.put(None)
        return item

    def close(self) -> None:
        self._exchange.stopped = True
        self._exchange.room.put(None)  # wakes the thread
        if threading.current_thread() is not self._thread:  # the thread itself may garbage-collect this object
            self._thread.join()


def _work(items: Iterator[Any], exchange: _Exchange) -> None:
    try:
        while True:
            exchange.room.get()
            if exchange.stopped:
                return
            exchange.made.put((next(items), None))
    except BaseException as error:  # re-raised by `__next__`, StopIteration too
        exchange.made.put((None, error))
