"""The processes of a run: one, or several that torchrun started, each with a part of every batch.

    torchrun --nproc-per-node 2 -m cli.search ...

All build the same network from the same seed and take the same steps, because their gradients are the mean over all
processes (`torch.nn.parallel.DistributedDataParallel`). Only rank 0 writes files and prints.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas.config import SyncBatchNorm
from nas.runs.names import RunError
from nas.training.devices import choose_device

__all__ = ["ALONE", "Processes", "process_group"]

PATIENCE = timedelta(hours=1)
"""Longest wait for other processes: rank 0 may be building a cache. Ended processes are noticed at once."""

_runs = itertools.count()

Item = TypeVar("Item")
Forward = Callable[[Tensor], Tensor]


class Processes:
    """The processes of a run, seen from one of them.

    All must call the methods that exchange data (`mean`, `add_up`, `any`, `agreed`, `in_turn`, `check_same`,
    `share_buffers`) in the same order. A single process exchanges nothing.

    Args:
        rank: Number of this process, 0 to count - 1.
        count: Number of processes on all machines.
        local_rank: Number of this process on its machine.
        local_count: Number of processes on this machine.
    """

    def __init__(self, rank: int = 0, count: int = 1, local_rank: int = 0, local_count: int = 1) -> None:
        self.rank, self.count, self.local_rank, self.local_count = rank, count, local_rank, local_count

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes files and prints."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return self.count > 1

    def device(self, name: str) -> torch.device:
        """The device of this process (see `nas.training.devices.choose_device`); several get a GPU each.

        Raises:
            ValueError: There is no such device here, or not one for each process.
        """
        if not self.several or choose_device("cuda" if name.startswith("cuda") else name).type == "cpu":
            return choose_device(name)
        if name not in ("auto", "cuda"):
            raise ValueError(
                f"device is {name!r}, but there are {self.count} processes: give --device cuda, of which each takes one"
            )
        there = torch.cuda.device_count()
        if self.local_count > there:
            raise ValueError(
                f"{self.local_count} processes on a machine with {there} GPUs: give torchrun --nproc-per-node {there}"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def synchronizes(self, where: SyncBatchNorm, device: torch.device) -> bool:
        """Whether the setting makes batch norms use the statistics of all processes."""
        return self.several and (where == "always" or (where == "gpu" and device.type == "cuda"))

    def described(self) -> list[str]:
        """Lines for the log."""
        return [f"{self.count} processes, each with its part of every batch"] if self.several else []

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of a batch: as many consecutive items as every other process gets."""
        size = len(items) // self.count
        return items[self.rank * size : (self.rank + 1) * size]

    def turns(self, count: int) -> range:
        """This process's share of 0..count-1, taken in turns."""
        return range(self.rank, count, self.count)

    def parallel(self, network: nn.Module, forward: Forward, device: torch.device) -> Forward:
        """`forward` of the network, with gradients that are the mean over all processes.

        This covers the parameters that require gradients at the time of this call.
        """
        if not self.several:
            return forward
        devices = [device.index] if device.type == "cuda" else None
        # Running statistics are not broadcast in every step: rank 0's are the run's.
        return DistributedDataParallel(
            _Forward(network, forward), devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.add_up(x) / self.count if self.several else x

    def add_up(self, x: Tensor) -> Tensor:
        """The sum over all processes."""
        if not self.several:
            return x
        x = x.clone()
        dist.all_reduce(x)
        return x

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process."""
        if not self.several:
            return flags
        found = self.add_up(torch.tensor(flags, dtype=torch.int32))  # on the CPU, so as not to wait for a GPU
        return tuple(bool(flag) for flag in found)

    def agreed(self, make: Callable[[], Item]) -> Item:
        """Calls `make` in rank 0 only, and returns its result, or raises its exception, in all processes."""
        if not self.several:
            return make()
        result: list[Any] = [None, None]
        if self.first:
            try:
                result[0] = make()
            except Exception as error:
                result[1] = error
        dist.broadcast_object_list(result)
        if result[1] is not None:
            raise result[1]
        return result[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """A context that rank 0 runs through first, and then the others."""
        if self.several and not self.first:
            dist.barrier()
        try:
            yield
        finally:  # after a failure, too, so that the others do not wait but fail themselves
            if self.several and self.first:
                dist.barrier()

    def check_same(self, name: str, values: Tensor) -> None:
        """Checks that all processes have the same numbers, bit for bit.

        Raises:
            RunError: They differ.
        """
        if self.several:
            expected = values.detach().clone()
            dist.broadcast(expected, 0)
            (differ,) = self.any(not torch.equal(expected, values.detach()))
            if differ:
                raise RunError(
                    f"the processes differ in {name}, which their steps should have kept equal: use the same hardware "
                    "and version of PyTorch for all, and continue from the last checkpoint with --resume"
                )

    @torch.no_grad()
    def share_buffers(self, network: nn.Module) -> None:
        """Copies rank 0's running statistics to all processes."""
        if self.several:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


ALONE = Processes()
"""A single process."""


class _Forward(nn.Module):
    """A network with another method as its forward pass."""

    def __init__(self, network: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.network, self.call = network, forward

    def forward(self, images: Tensor) -> Tensor:
        return self.call(images)


@contextmanager
def process_group(device: str) -> Iterator[Processes]:
    """A context that connects the processes that torchrun started; `ALONE` without torchrun.

    Args:
        device: Name of the run's device.

    Raises:
        RunError: Another process was lost.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    # The strides of a 1x1 kernel have no effect on its layout; the new argument name needs PyTorch 2.13.
    for known in ("Grad strides do not match bucket view strides", "`broadcast_buffers` is deprecated"):
        warnings.filterwarnings("ignore", known)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    processes = Processes(*(int(os.environ[name]) for name in names))
    store, _, _ = next(dist.rendezvous("env://", timeout=PATIENCE))
    # torchrun's store still has the addresses of earlier processes after a restart, and of a first run in a second one.
    start = f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}, run {next(_runs)}"
    store = dist.PrefixStore(start, store)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=processes.rank, world_size=processes.count, timeout=PATIENCE)
    try:
        yield processes
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise RunError(
            "another process of this run was lost; its own message says why. The saved files are intact: start the job "
            "again with --resume and the run folder (torchrun --max-restarts N with --out does so automatically)"
        ) from error
    finally:
        dist.destroy_process_group()


def _lost(error: RuntimeError) -> bool:
    """Whether this is the error of waiting for a process that has ended."""
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "Gloo", "NCCL"))
