"""Statistics of the samples of a split: pixels per class, sizes, mean and standard deviation, equal images.

Counts are integers, so they do not depend on the order of the samples. Their memory does not grow with the number of
samples, except for 8 bytes per sample in `SplitCounts.digests`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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

    sums: NDArray[np.float64]
    """Sums of each channel's values and of their squares, [2, C]; of 8-bit values exact."""

    kind: str
    """Type of the values."""

    digest: int
    """64-bit digest of the pixels, above 0."""


def count_sample(image: NDArray[Any], label: NDArray[np.uint8]) -> SampleCounts:
    """Count an image [H, W, C] and its label [H, W]."""
    if image.dtype == np.uint8:
        # Pillow's histograms count bytes; NumPy's convert them to 64-bit integers first.
        bands = [image] if image.shape[2] == 3 else np.moveaxis(image, 2, 0)
        histograms = [Image.fromarray(np.ascontiguousarray(band)).histogram() for band in bands]
        sums = np.array([_VALUES, _VALUES**2]) @ np.array(histograms, dtype=np.float64).reshape(-1, 256).T
    else:
        values = image.astype(np.float64)
        sums = np.stack([values.sum(axis=(0, 1)), np.square(values).sum(axis=(0, 1))])
    labels = count_values(label)
    height, width = label.shape
    digest = hashlib.blake2b(f"{height}x{width} ".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    return SampleCounts((height, width), labels, sums, str(image.dtype), int.from_bytes(digest.digest(), "little") or 1)


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

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 1)))
    """Sums of each channel's values and of their squares, [2, C]."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Samples of each type of values."""

    orientations: Counter[int] = field(default_factory=Counter)
    """Samples of each EXIF orientation other than 1, readable or not."""

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
        self.sums = self.sums + sample.sums
        self.kinds[sample.kind] += 1
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

    @property
    def unit(self) -> int:
        """What statistics are divided by: 255 for 8-bit images, 1 for others."""
        return 255 if set(self.kinds) <= {"uint8"} else 1

    def moments(self) -> NDArray[np.float64]:
        """Mean and standard deviation of each channel over all pixels, in `unit`, [2, C]; NaN without a pixel."""
        if not self.counted:
            return np.full((2, 3), np.nan)
        mean, square = self.sums / self.pixels
        return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 0))]) / self.unit


_VALUES = np.arange(256, dtype=np.float64)


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
