"""The data sets of a run, opened by its settings."""

from __future__ import annotations

import multiprocessing
import warnings
from contextlib import suppress
from typing import Any

import numpy as np

from nas.config import LoaderConfig, RunConfig
from nas.data.base import DataError, Resized, SegmentationDataset, Subset, open_dataset
from nas.data.caching import Cached, DiskCached, default_folder
from nas.data.identity import data_identity
from nas.data.readers.pairs import PairedDataset
from nas.training.distributed import ALONE, Processes

__all__ = ["identity_of", "open_split", "steps_per_epoch", "training_split", "validation_split"]


def training_split(config: RunConfig, processes: Processes = ALONE) -> SegmentationDataset:
    """The training set, cached as configured."""
    return _cached(open_split(config, config.loader.train_split, config.loader.train_limit), config.loader, processes)


def validation_split(config: RunConfig, processes: Processes = ALONE) -> SegmentationDataset:
    """The validation set, cached as configured."""
    return _cached(open_split(config, config.loader.val_split, config.loader.val_limit), config.loader, processes)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Number of full batches in an epoch of `samples` training images.

    Raises:
        DataError: There is none.
    """
    if samples < batch_size:
        raise DataError(
            f"{samples} training images to draw from are fewer than the {batch_size} of one update (batch size times "
            "--accumulate, times the processes): give a smaller --loader.batch-size or --accumulate, or more images "
            "(--loader.train-limit)"
        )
    return samples // batch_size


def open_split(
    config: RunConfig, split: str, limit: int | None = None, resize_labels: bool = True, large: bool = False
) -> SegmentationDataset:
    """Open one split, or `limit` samples spread evenly over it, at the run's resolution.

    Without `resize_labels`, labels keep their own resolution; with `large`, images may have any number of pixels.

    Raises:
        DataError: The data cannot be used; the message names the file or folder and the remedy.
        ValueError: An unknown data set.
    """
    dataset = open_dataset(config.data, config.data_root, split, config.loader)
    if isinstance(dataset, PairedDataset):
        dataset.large = large
        with suppress(DataError):  # a file that cannot be read is told when it is needed
            if conflict := dataset.palette_conflict(0):
                warnings.warn(conflict, stacklevel=2)
    if limit is not None and limit < len(dataset):
        dataset = Subset(dataset, np.linspace(0, len(dataset) - 1, limit).round().astype(int))
    if config.loader.resolution != 1:
        dataset = Resized(dataset, config.loader.resolution, resize_labels)
    return dataset


def identity_of(config: RunConfig) -> dict[str, Any]:
    """The identity of the data that the settings name (see `nas.data.identity`); raises as `open_split`."""
    splits = (config.loader.train_split, config.loader.val_split)
    return data_identity(config.data_root, *(open_split(config, split) for split in splits))


def _cached(dataset: SegmentationDataset, loader: LoaderConfig, processes: Processes) -> SegmentationDataset:
    if loader.cache == "disk":
        with processes.in_turn():  # the first builds the file, the others find it
            return DiskCached(dataset, default_folder())
    if loader.cache == "memory":
        kept = Cached(dataset)
        # Forked workers share this memory; others hold a copy each, as every process does.
        copies = 1 if multiprocessing.get_start_method() == "fork" else 1 + loader.workers
        kept.fill(copies * processes.local_count)
        return kept
    return dataset
