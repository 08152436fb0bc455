"""The discretisation gap: the loss of the supernet when the decoded architecture is forced on it.

Decoding keeps two operations of a block and one path, and cuts away the rest. The gap tells, before anything is
retrained, how much the supernet relies on the rest: the same weights are validated with the whole supernet, and with
the decoded cell and path alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.config import Precision, SearchConfig
from nas.data.base import SegmentationDataset
from nas.data.loading import epoch_batches, training_loader
from nas.data.prefetch import Loader
from nas.evaluation.evaluate import evaluate_network
from nas.evaluation.metrics import ConfusionMatrix
from nas.supernet.network import FixedArchitecture, Supernet
from nas.training.devices import autocast
from nas.training.distributed import ALONE, Processes
from search_spaces.genotype import Genotype
from search_spaces.synchronized import Synchronizable

__all__ = ["estimate_statistics", "forced_matrix", "part_batches", "statistics_kept"]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Restores all buffers, including running statistics, bit for bit afterwards."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, values in before:
            buffer.copy_(values)


@torch.no_grad()
def estimate_statistics(
    network: nn.Module, batches: Iterable[Tensor], device: torch.device, precision: Precision
) -> None:
    """Replaces the running statistics of all batch norms by the mean over batches.

    Args:
        network: (N, 3, H, W) -> logits; its mode is restored afterwards.
        batches: Images (N, 3, H, W), with as many batches in every process.
        device: Device of the network.
        precision: Precision of the forward pass.
    """
    norms: list[Any] = [module for module in network.modules() if isinstance(module, Synchronizable)]
    momenta, training = [norm.momentum for norm in norms], network.training
    network.train()
    try:
        for number, images in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number  # the mean of all so far; the first replaces what was there
            with autocast(device, precision):
                network(images.to(device, non_blocking=True))
    finally:
        network.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def part_batches(
    config: SearchConfig,
    train_set: SegmentationDataset,
    part: np.ndarray,
    epoch: int,
    size: int,
    count: int,
    processes: Processes = ALONE,
) -> Loader[tuple[Tensor, Tensor]]:
    """The first batches of a part of the training data in an epoch, read without affecting those of the run.

    Args:
        config: The settings.
        train_set: The training images.
        part: Indices of the images that the weights learn on, or of those that alpha and beta learn on.
        epoch: Number of the epoch, from 0.
        size: Images of a batch, in each process.
        count: Number of batches.
        processes: The processes of the run; each gets its part of every batch.
    """
    plan = epoch_batches(part, size * processes.count, config.seed, epoch)
    own = [processes.part(batch) for batch in plan[:count]]
    return training_loader(train_set, own, config.loader.augment, config.seed, prefetch=0)


def forced_matrix(
    supernet: Supernet,
    genotype: Genotype,
    batches: Iterable[tuple[Tensor, Tensor]],
    validation: Iterable[tuple[Tensor, Tensor, Tensor]],
    classes: int,
    device: torch.device,
    precision: Precision = "float32",
    processes: Processes = ALONE,
    each: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> ConfusionMatrix:
    """Evaluates the supernet with a genotype forced on it; the supernet is restored bit for bit.

    The supernet's running statistics are those of sums over all operations and all tensors that flow into a node, and
    would break the forced network. So they are estimated again, on a few training batches.

    Args:
        supernet: The supernet.
        genotype: A genotype of the same space.
        batches: Images (N, 3, h, w) and labels for the statistics, as many in every process.
        validation: The validation split, as `evaluate_network` takes it.
        classes: Number of classes.
        device: Device of the supernet.
        precision: Precision of the forward pass.
        processes: The processes that measure a part each, with the statistics of rank 0.
        each: As for `evaluate_network`.
    """
    network = FixedArchitecture(supernet, supernet.architecture.decided(genotype))
    with statistics_kept(supernet):
        estimate_statistics(network, (images for images, _ in batches), device, precision)
        processes.share_buffers(supernet)
        return evaluate_network(network, validation, classes, device, precision, each, processes=processes)
