"""Batches whose content is a pure function of (seed, epoch, index).

Order and augmentation depend on no state: not on the number of workers, prefetching, global generators, or earlier
reads. An interrupted run resumes exactly by requesting the rest of its plan; nothing needs saving.

Shapes: a training batch is (images float32 [N, C, h, w], labels int64 [N, h, w]).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from nas.config import AugmentConfig, ImageConfig
from nas.data.augment import augment as augment_sample
from nas.data.base import DataError, SegmentationDataset, check_image
from nas.data.prefetch import Loader
from search_spaces.validation import counted

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

# Last word of a generator's seed. The seed of a sample's stream ends in an implied 0; these must differ from it.
_ORDER, _SPLIT, _GLOBAL = 1, 2, 3

Indices = NDArray[np.int64]
Key = tuple[int, int]
"""Epoch and index in the data set; with the run's seed they determine an augmented sample."""
TrainingBatch = tuple[torch.Tensor, torch.Tensor]
WholeBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def image_to_tensor(image: np.ndarray, images: ImageConfig | None = None, where: str = "the image") -> torch.Tensor:
    """Convert an image [H, W, C] to float32 [C, H, W], the input of a network: (x - mean) / std.

    Without a normalisation, 8 bits become [-1, 1] as in DeepLab's code: x / 127.5 - 1.

    Raises:
        DataError: The image is not as `images` says.
    """
    images = images or ImageConfig()
    scaled = np.empty((images.channels, *image.shape[:2]), dtype=np.float32)
    _scale(image, scaled, images, where)
    return torch.from_numpy(scaled)


def _scale(image: np.ndarray, out: np.ndarray, images: ImageConfig, where: str) -> None:
    if image.dtype != np.uint8 or image.shape[2:] != (len(out),):
        check_image(where, image, images)
    mean, std = (np.array(values)[:, None, None] for values in images.moments)
    out[...] = image.transpose(2, 0, 1)
    out /= std.astype(np.float32)
    out -= (mean / std).astype(np.float32)


def label_to_tensor(label: np.ndarray) -> torch.Tensor:
    """Convert uint8 [H, W] to int64 [H, W]."""
    return torch.from_numpy(label.astype(np.int64, order="C"))


def _training_batch(
    dataset: SegmentationDataset, augment: AugmentConfig, seed: int, keys: Sequence[Key]
) -> TrainingBatch:
    images = np.empty((len(keys), dataset.images.channels, *augment.crop), dtype=np.float32)
    labels = np.empty((len(keys), *augment.crop), dtype=np.int64)
    for position, (epoch, index) in enumerate(keys):
        _seed_globals_of_worker([seed, epoch, index])
        image, label = dataset.read(index)
        rng = np.random.default_rng([seed, epoch, index])
        image, labels[position] = augment_sample(image, label, augment, rng, dataset.mirror, dataset.images)
        _scale(image, images[position], dataset.images, dataset.where(index))
    return torch.from_numpy(images), torch.from_numpy(labels)


def _whole_sample(dataset: SegmentationDataset, index: int) -> WholeBatch:
    _seed_globals_of_worker([0, 0, index])
    image, label = dataset.read(index)
    tensor = image_to_tensor(image, dataset.images, dataset.where(index))
    return tensor[None], label_to_tensor(label)[None], torch.tensor([index])


def _seed_globals_of_worker(words: list[int]) -> None:
    """Seed a worker's global generators, for users' data sets that draw from them; nothing here does."""
    if get_worker_info() is None:
        return
    seed = int(np.random.SeedSequence([*words, _GLOBAL]).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def epoch_batches(
    indices: Sequence[int] | NDArray[np.integer[Any]], batch_size: int, seed: int, epoch: int
) -> list[list[Key]]:
    """The plan of one epoch: each index once, in an order drawn from (seed, epoch).

    An incomplete last batch is dropped: batch norm on one or two samples does more harm than skipping them once.

    Args:
        indices: Indices of the samples.
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
    """Augmented batches of a plan; one loader can serve all epochs of a run, so that workers start once.

    Args:
        dataset: The data set to read.
        plan: (epoch, index) of each sample of each batch, from `epoch_batches`.
        augment: Settings of the augmentation.
        seed: 0 or above; with epoch and index it determines a sample's augmentation.
        workers: Processes that read; 0 reads in this one. The batches do not depend on it.
        prefetch: Batches made ahead, per worker or in a thread; see `nas.data.prefetch.Loader`.
        pin_memory: Put batches into pinned memory, for copies to a GPU.

    Returns:
        A loader of (images float32 [N, C, h, w], labels int64 [N, h, w]).

    Raises:
        ValueError: A number is out of range.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or above")
    return Loader(partial(_training_batch, dataset, augment, seed), plan, workers, prefetch, pin_memory)


def evaluation_loader(
    dataset: SegmentationDataset,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
    indices: Sequence[int] | None = None,
) -> Loader[WholeBatch]:
    """Whole images in order, one at a time (sizes may differ); any number of passes.

    Args:
        dataset: The data set to read.
        workers: Processes that read; 0 reads in this one.
        prefetch: Images made ahead, per worker or in a thread; see `nas.data.prefetch.Loader`.
        pin_memory: Put images into pinned memory, for copies to a GPU.
        indices: Indices of the samples; None for all.

    Returns:
        A loader of (image float32 [1, C, H, W], label int64 [1, H, W], index int64 [1]).
    """
    plan = range(len(dataset)) if indices is None else indices
    return Loader(partial(_whole_sample, dataset), plan, workers, prefetch, pin_memory)


def split_indices(count: int, seed: int, parts: int = 2, blocks: int | None = None) -> tuple[Indices, ...]:
    """Deal 0..count-1 into disjoint parts that cover it; a pure function of the arguments.

    Without `blocks`, samples are dealt at random, and part sizes differ by at most one. With `blocks` (video), the
    range is cut into that many contiguous blocks, equal to within one sample. Of each run of `parts` neighbouring
    blocks, every part gets a random one. So all parts see the whole video, neighbouring frames are separated only where
    two blocks meet, and part sizes differ by at most one block.

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
    """Deal a data set into parts: at random, or by blocks of frames if it is video.

    Video is cut into `VIDEO_BLOCKS` blocks per part, or into single frames if there are too few.

    Raises:
        ValueError: There are fewer samples than parts.
    """
    blocks = min(len(dataset), parts * VIDEO_BLOCKS) if dataset.video else None
    return split_indices(len(dataset), seed, parts, blocks)
