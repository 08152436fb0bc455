"""The processes of a run: one, or several that torchrun started, each with a part of every batch.

    torchrun --nproc-per-node 2 -m cli.search ...

All build the same network from the same seed and take the same steps, because the gradients that they step by are the
mean over all processes (`torch.nn.parallel.DistributedDataParallel`). The first process (rank 0) alone writes.
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
"""How long a process waits for the others: the first one may be building a cache. A process that has ended is noticed
at once."""

_runs = itertools.count()

Item = TypeVar("Item")
Forward = Callable[[Tensor], Tensor]


class Processes:
    """The processes of a run, seen from one of them.

    What is exchanged (`mean`, `add_up`, `any`, `agreed`, `in_turn`, `check_same`, `share_buffers`) all must ask for,
    in the same order. One process alone exchanges nothing.

    Args:
        rank: Number of this one, 0 to count - 1.
        count: How many there are, on all machines.
        local_rank: Number of this one on its machine.
        local_count: How many there are on this machine.
    """

    def __init__(self, rank: int = 0, count: int = 1, local_rank: int = 0, local_count: int = 1) -> None:
        self.rank, self.count, self.local_rank, self.local_count = rank, count, local_rank, local_count

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes files and prints."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def device(self, name: str) -> torch.device:
        """The device of this process (see `nas.training.devices.choose_device`): of several on GPUs, each has one of
        its own.

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
        """Whether batch norms take the statistics of all processes, as the setting says."""
        return self.several and (where == "always" or (where == "gpu" and device.type == "cuda"))

    def described(self) -> list[str]:
        """What a run says of them, in lines."""
        return [f"{self.count} processes, each with its part of every batch"] if self.several else []

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of a batch: as many neighbours as every other one gets."""
        size = len(items) // self.count
        return items[self.rank * size : (self.rank + 1) * size]

    def turns(self, count: int) -> range:
        """This process's share of 0..count-1, taken in turns."""
        return range(self.rank, count, self.count)

    def parallel(self, network: nn.Module, forward: Forward, device: torch.device) -> Forward:
        """`forward` of the network, after whose backward pass the gradients are the mean over all processes.

        They are those of the parameters that ask for one now.
        """
        if not self.several:
            return forward
        devices = [device.index] if device.type == "cuda" else None
        # Running statistics are not broadcast in every step: those of the first process are the run's.
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
        """Of each flag, whether it is set in any process."""
        if not self.several:
            return flags
        found = self.add_up(torch.tensor(flags, dtype=torch.int32))  # on the CPU: no GPU is waited for
        return tuple(bool(flag) for flag in found)

    def agreed(self, make: Callable[[], Item]) -> Item:
        """What `make` gives in the first process, in all.

        Raises:
            Exception: What it raised there, in all.
        """
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
        """The first process goes through it alone, and then the others."""
        if self.several and not self.first:
            dist.barrier()
        try:
            yield
        finally:  # after a failure, too: the others are to meet it themselves, and not to wait
            if self.several and self.first:
                dist.barrier()

    def check_same(self, name: str, values: Tensor) -> None:
        """Checks that all processes have the same numbers, bit for bit.

        Raises:
            RunError: They have not.
        """
        if self.several:
            expected = values.detach().clone()
            dist.broadcast(expected, 0)
            (differ,) = self.any(not torch.equal(expected, values.detach()))
            if differ:
                raise RunError(
                    f"the processes differ in {name}, which their steps should have kept equal: are their machines or "
                    "versions of PyTorch alike? Go on from the last checkpoint with --resume"
                )

    @torch.no_grad()
    def share_buffers(self, network: nn.Module) -> None:
        """The first process's running statistics for all."""
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
    """This process and those that torchrun started with it, connected while it lasts; alone where there are none.

    Args:
        device: Name of the device that the run will be on.

    Raises:
        RunError: Another process was lost.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    # Of a 1x1 kernel, strides say nothing about where its numbers are; the new name came with PyTorch 2.13.
    for known in ("Grad strides do not match bucket view strides", "`broadcast_buffers` is deprecated"):
        warnings.filterwarnings("ignore", known)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    processes = Processes(*(int(os.environ[name]) for name in names))
    store, _, _ = next(dist.rendezvous("env://", timeout=PATIENCE))
    # Processes that torchrun starts once more find the addresses of those before in its store, and a second run of
    # the same processes those of the first.
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
            "another process of this run was lost: its own message says why. What was saved is untouched: start the "
            "job again with --resume and the run folder (torchrun --max-restarts N with --out does it by itself)"
        ) from error
    finally:
        dist.destroy_process_group()


def _lost(error: RuntimeError) -> bool:
    """Whether this is what those see that wait for a process which has ended."""
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "Gloo", "NCCL"))
