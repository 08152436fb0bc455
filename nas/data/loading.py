"""Batches whose content is a pure function of (seed, epoch, index).

Neither order nor augmentation depends on any state: not on the number of workers, not on what is read ahead, not on the
global generators, not on what was read before. A run that was cut off goes on exactly where it was by asking for the
rest of its plan; nothing needs saving.

Shapes: a training batch is (images float32 [N, 3, h, w] in [-1, 1], labels int64 [N, h, w]).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from nas.config import AugmentConfig
from nas.data.augment import augment as augment_sample
from nas.data.base import DataError, SegmentationDataset
from nas.data.prefetch import Loader
from search_spaces.messages import counted

__all__ = [
    "VIDEO_BLOCKS",
    "epoch_batches",
    "evaluation_loader",
    "image_to_tensor",
    "label_to_tensor",
    "split_dataset",
    "split_indices",
    "training_loader",
]

VIDEO_BLOCKS = 8
"""Blocks per part into which `split_dataset` cuts video: few, so that frames keep their neighbours."""

# Last word of a generator's seed: the streams of a sample end in (an implied) 0, these must differ from all
# of them.
_ORDER, _SPLIT, _GLOBAL = 1, 2, 3

Indices = NDArray[np.int64]
Key = tuple[int, int]
"""Epoch and index in the data set: with the run's seed they determine an augmented sample."""
TrainingBatch = tuple[torch.Tensor, torch.Tensor]
WholeBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def image_to_tensor(image: np.ndarray) -> torch.Tensor:
    """Turn uint8 [H, W, 3] into float32 [3, H, W] in [-1, 1], as DeepLab's code does: x / 127.5 - 1."""
    scaled = np.empty((3, *image.shape[:2]), dtype=np.float32)
    _scale(image, scaled)
    return torch.from_numpy(scaled)


def _scale(image: np.ndarray, out: np.ndarray) -> None:
    """Write uint8 [H, W, 3] to float32 [3, H, W]."""
    out[...] = image.transpose(2, 0, 1)
    out /= np.float32(127.5)
    out -= np.float32(1)


def label_to_tensor(label: np.ndarray) -> torch.Tensor:
    """Turn uint8 [H, W] into int64 [H, W]."""
    return torch.from_numpy(label.astype(np.int64, order="C"))


class _TrainingSamples:
    """Make augmented batches."""

    def __init__(self, dataset: SegmentationDataset, augment: AugmentConfig, seed: int) -> None:
        self.dataset = dataset
        self.augment = augment
        self.seed = seed

    def __call__(self, keys: Sequence[Key]) -> TrainingBatch:
        images = np.empty((len(keys), 3, *self.augment.crop), dtype=np.float32)
        labels = np.empty((len(keys), *self.augment.crop), dtype=np.int64)
        for position, (epoch, index) in enumerate(keys):
            if get_worker_info() is not None:
                _seed_globals([self.seed, epoch, index])
            image, label = self.dataset.read(index)
            rng = np.random.default_rng([self.seed, epoch, index])
            image, labels[position] = augment_sample(image, label, self.augment, rng, self.dataset.mirror)
            _scale(image, images[position])
        return torch.from_numpy(images), torch.from_numpy(labels)


def _seed_globals(words: list[int]) -> None:
    """Seed the global generators of a worker, for data sets of others that draw from them; nothing here does."""
    seed = int(np.random.SeedSequence([*words, _GLOBAL]).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class _WholeSamples:
    """Make batches of one sample as it is, with its index."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __call__(self, index: int) -> WholeBatch:
        if get_worker_info() is not None:
            _seed_globals([0, 0, index])
        image, label = self.dataset.read(index)
        return image_to_tensor(image)[None], label_to_tensor(label)[None], torch.tensor([index])


def epoch_batches(
    indices: Sequence[int] | NDArray[np.integer[Any]], batch_size: int, seed: int, epoch: int
) -> list[list[Key]]:
    """The plan of one epoch: every index once, in an order drawn from (seed, epoch).

    The last incomplete batch is dropped: batch norm on one or two samples would be worse than missing them once.

    Args:
        indices: Which samples (a part of a split, or all).
        batch_size: Samples per batch, at least 1.
        seed: 0 or above.
        epoch: 0 or above.

    Returns:
        (epoch, index) of each sample of each batch.

    Raises:
        DataError: There are fewer samples than one batch.
        ValueError: A number is out of range.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    for name, value in (("seed", seed), ("epoch", epoch)):
        if value < 0:
            raise ValueError(f"{name} is {value}; expected 0 or above")
    batches = len(indices) // batch_size
    if batches == 0:
        raise DataError(
            f"{len(indices)} samples are fewer than one batch of {batch_size}; use a smaller batch size or more samples"
        )
    order = np.random.default_rng([seed, epoch, 0, _ORDER]).permutation(np.asarray(indices, dtype=np.int64))
    plan = order[: batches * batch_size].reshape(batches, batch_size).tolist()
    return [[(epoch, index) for index in batch] for batch in plan]


def training_loader(
    dataset: SegmentationDataset,
    plan: Iterable[Sequence[Key]],
    augment: AugmentConfig,
    seed: int,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> Loader[TrainingBatch]:
    """Augmented batches, as planned; one loader may go through all epochs of a run, so that workers start once.

    Args:
        dataset: What to read.
        plan: (epoch, index) of each sample of each batch, as `epoch_batches` gives them.
        augment: How samples are varied.
        seed: 0 or above; with epoch and index it determines a sample's variation.
        workers: Processes that read; 0 reads in this one. The batches are the same for any number.
        prefetch: Batches made ahead, by each worker or a thread; see `nas.data.prefetch.Loader`.
        pin_memory: Put batches into pinned memory, for copies to a GPU.

    Returns:
        A loader of (images float32 [N, 3, h, w], labels int64 [N, h, w]).

    Raises:
        ValueError: A number is out of range.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or above")
    return Loader(_TrainingSamples(dataset, augment, seed), plan, workers, prefetch, pin_memory)


def evaluation_loader(
    dataset: SegmentationDataset,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
    indices: Sequence[int] | None = None,
) -> Loader[WholeBatch]:
    """Whole images, one at a time (sizes may differ), in order; any number of times.

    Args:
        dataset: What to read.
        workers: Processes that read; 0 reads in this one.
        prefetch: Images made ahead, by each worker or a thread; see `nas.data.prefetch.Loader`.
        pin_memory: Put them into pinned memory, for copies to a GPU.
        indices: Which ones; None: all.

    Returns:
        A loader of (image float32 [1, 3, H, W], label int64 [1, H, W], index int64 [1]).
    """
    plan = range(len(dataset)) if indices is None else indices
    return Loader(_WholeSamples(dataset), plan, workers, prefetch, pin_memory)


def split_indices(count: int, seed: int, parts: int = 2, blocks: int | None = None) -> tuple[Indices, ...]:
    """Deal 0..count-1 into disjoint parts that together are complete; a pure function of the arguments.

    Without `blocks`, samples are dealt at random and the sizes of the parts differ by one at most. With it
    (video), the range is cut into that many contiguous blocks of equal length (to one sample), and blocks are
    dealt in rounds: of each run of `parts` neighbouring blocks, every part gets one, which one is random.
    So all parts see all of the video, neighbouring frames end up in different parts only where two blocks
    meet, and the sizes of the parts differ by one block at most.

    Args:
        count: Number of samples.
        seed: 0 or above.
        parts: Number of parts, at least 1.
        blocks: Number of contiguous blocks, from `parts` to `count`; None to deal single samples.

    Returns:
        One increasing int64 array per part.

    Raises:
        ValueError: There are fewer samples than parts, or the number of blocks is out of range.
    """
    if parts < 1 or count < parts:
        raise ValueError(
            f"{counted(count, 'sample')} cannot be dealt into {parts} parts; expected at least one for each"
        )
    rng = np.random.default_rng([seed, parts, 0, _SPLIT])
    if blocks is None:
        return tuple(np.sort(part) for part in np.array_split(rng.permutation(count), parts))
    if not parts <= blocks <= count:
        raise ValueError(f"blocks is {blocks}; expected {parts} (the parts) to {count} (the samples)")
    cut = np.array_split(np.arange(count), blocks)
    dealt: list[list[Indices]] = [[] for _ in range(parts)]
    for first in range(0, blocks, parts):
        for part, block in zip(rng.permutation(parts), cut[first : first + parts], strict=False):
            dealt[part].append(block)
    return tuple(np.concatenate(some) for some in dealt)


def split_dataset(dataset: SegmentationDataset, seed: int, parts: int = 2) -> tuple[Indices, ...]:
    """Deal a data set into parts: at random, or by blocks of frames where it is video.

    Video is cut into `VIDEO_BLOCKS` blocks per part, or into single frames if there are not enough.

    Raises:
        ValueError: There are fewer samples than parts.
    """
    blocks = min(len(dataset), parts * VIDEO_BLOCKS) if dataset.video else None
    return split_indices(len(dataset), seed, parts, blocks)
