"""Statistics of the samples of a split: pixels per class, sizes, mean and standard deviation, equal images.

Counts are integers, so they do not depend on the order of the samples. Their memory does not grow with the number of
samples, except for 8 bytes per sample in `SplitCounts.digests`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.base import IGNORE
from nas.data.label_counts import count_values

__all__ = ["SampleCounts", "SplitCounts", "count_sample", "equal_images"]

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class SampleCounts:
    """Counts of one sample."""

    size: tuple[int, int]
    """Height and width."""

    labels: Counts
    """Pixels of each value 0..255 of the label, [256]."""

    channels: Counts
    """Pixels of each value of red, green and blue, [3, 256]."""

    digest: int
    """64-bit digest of the pixels, above 0."""


def count_sample(image: NDArray[np.uint8], label: NDArray[np.uint8]) -> SampleCounts:
    """Count an image [H, W, 3] and its label [H, W]."""
    channels = np.array(Image.fromarray(image).histogram(), dtype=np.int64).reshape(3, 256)
    labels = count_values(label)
    height, width = label.shape
    digest = hashlib.blake2b(f"{height}x{width} ".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    return SampleCounts((height, width), labels, channels, int.from_bytes(digest.digest(), "little") or 1)


@dataclass
class SplitCounts:
    """Counts of a split."""

    samples: int
    """All samples of the split; the other counts leave out unreadable ones."""

    counted: int = 0
    """Samples that could be read."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Samples of each height and width."""

    labels: Counts = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    """Pixels of each value, [256]."""

    images: Counts = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    """Samples in which each value occurs, [256]."""

    pixels_of_images: Counts = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    """Pixels, ignored ones too, of the samples in which each value occurs, [256]."""

    channels: Counts = field(default_factory=lambda: np.zeros((3, 256), dtype=np.int64))
    """Pixels of each value of red, green and blue, [3, 256]."""

    digests: NDArray[np.uint64] = field(init=False)
    """Digest of each sample, [samples]; 0 for unreadable ones."""

    def __post_init__(self) -> None:
        self.digests = np.zeros(self.samples, dtype=np.uint64)

    def add(self, index: int, sample: SampleCounts) -> None:
        """Add the counts of the sample with that index."""
        height, width = sample.size
        there = sample.labels > 0
        self.counted += 1
        self.sizes[sample.size] += 1
        self.labels += sample.labels
        self.images += there
        self.pixels_of_images += there * (height * width)
        self.channels += sample.channels
        self.digests[index] = sample.digest

    @property
    def pixels(self) -> int:
        """All pixels, including ignored ones."""
        return int(self.labels.sum())

    @property
    def ignored(self) -> int:
        """Ignored pixels."""
        return int(self.labels[IGNORE])

    def shares(self, classes: int) -> NDArray[np.float64]:
        """Share of each class among the labelled pixels, [classes]; zeros if there is none."""
        pixels = self.labels[:classes]
        return pixels / max(1, int(pixels.sum()))

    def mean(self) -> NDArray[np.float64]:
        """Mean of red, green and blue over all pixels, 0..1, [3]; NaN without a pixel."""
        with np.errstate(invalid="ignore"):
            return (self.channels / self.channels.sum(axis=1, keepdims=True)) @ _VALUES

    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of red, green and blue over all pixels, 0..1, [3]; NaN without a pixel."""
        squares = (_VALUES - self.mean()[:, None]) ** 2  # [3, 256]
        with np.errstate(invalid="ignore"):
            return np.sqrt((self.channels * squares).sum(axis=1) / self.channels.sum(axis=1))


_VALUES = np.arange(256) / 255


def equal_images(digests: Sequence[NDArray[np.uint64]]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Find images that are in more than one split.

    Args:
        digests: Digests of each split, [samples].

    Returns:
        Positions (split, sample) of the first of the equal images and of a copy in another split, for each copy.
    """
    lengths = [len(part) for part in digests]
    values = np.concatenate([np.zeros(0, dtype=np.uint64), *digests])
    splits = np.repeat(np.arange(len(digests)), lengths)  # [samples of all splits], like the arrays below
    samples = np.concatenate([np.zeros(0, dtype=np.int64), *map(np.arange, lengths)])
    _, first_of, inverse = np.unique(values, return_index=True, return_inverse=True)
    first = first_of[inverse]  # the first one with the same digest
    copies = np.flatnonzero((splits != splits[first]) & (values > 0))
    return [
        ((int(splits[one]), int(samples[one])), (int(splits[copy]), int(samples[copy])))
        for one, copy in zip(first[copies], copies, strict=True)
    ]
