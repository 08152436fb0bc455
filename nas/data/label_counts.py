"""The labels of a split, counted before the first step, and what the counts tell of likely mistakes.

Counts are of pixels, int64 [256], by the value in the labels that a data set gives: class ids, and 255 for ignored.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.base import IGNORE, DataError, Resized, SegmentationDataset, Wrapper
from nas.data.caching import Cached, DiskCached, default_folder, digest
from nas.data.readers.pairs import PairedDataset
from nas.training.progress import StepProgress
from search_spaces.files import write_atomically

__all__ = ["check_ids", "count_labels", "count_values", "in_order", "label_doubts", "label_faults"]

Counts = NDArray[np.int64]
Argument = TypeVar("Argument")
Result = TypeVar("Result")

WORKERS = 4
"""Threads that read label files."""

DISGUISED = 0.02
"""Share of ignored pixels above which they may be a class that never occurs."""


def count_labels(dataset: SegmentationDataset, quiet: bool = True) -> Counts:
    """Count the pixels of each value in all labels, [256]; cached, where a sample's identity tells of changes.

    Args:
        dataset: Each label is read once, without its image if the data set reads image and label files.
        quiet: Show no progress.

    Raises:
        DataError: A label cannot be read, or has values that are neither class ids nor 255.
    """
    base, known = dataset, _is_known(dataset)
    while isinstance(base, Wrapper):
        base = base.dataset
        known = known and _is_known(base)
    path: Path | None = None
    if known:
        with contextlib.suppress(DataError):
            path = default_folder() / f"{dataset.name}-{dataset.split}-{digest(dataset).hex()[:32]}.labels.json"
    if path is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
            kept: Counts = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.int64)
            if kept.shape == (256,):
                return kept
    total, workers = np.zeros(256, dtype=np.int64), WORKERS if isinstance(base, PairedDataset) else 1
    with StepProgress(len(dataset), quiet=quiet) as progress:
        for counts in in_order(partial(_count, dataset), range(len(dataset)), workers):
            total += counts
            progress.step(f"counting the labels of {dataset.split}")
    if path is not None:
        with contextlib.suppress(OSError):  # without a cache, the next run counts again
            write_atomically(path, json.dumps(total.tolist()))
    return total


def _is_known(dataset: SegmentationDataset) -> bool:
    """Whether the identity tells of all that `read` does: a class with a `read` of its own has an `identity`, too."""
    kinds = type(dataset).__mro__
    read, identity = (next(n for n, kind in enumerate(kinds) if name in vars(kind)) for name in ("read", "identity"))
    return identity <= read or isinstance(dataset, Cached | DiskCached)


def _count(dataset: SegmentationDataset, index: int) -> Counts:
    counts = count_values(_read_label(dataset, index))
    check_ids(dataset, index, counts)
    return counts


def _read_label(dataset: SegmentationDataset, index: int) -> NDArray[np.uint8]:
    """The label that `read` returns; without decoding the image, unless a class has a `read` of its own."""
    read = type(dataset).read
    if isinstance(dataset, PairedDataset) and read is PairedDataset.read:
        return dataset.read_ids(index)
    if isinstance(dataset, Wrapper) and read is Wrapper.read:
        return _read_label(dataset.dataset, dataset.index_inside(index))
    if isinstance(dataset, Resized) and read is Resized.read and dataset.labels:
        label = Image.fromarray(_read_label(dataset.dataset, index))
        width, height = (max(1, round(side * dataset.resolution)) for side in label.size)
        return np.asarray(label.resize((width, height), Image.Resampling.NEAREST))
    return dataset.read(index)[1]


def count_values(label: NDArray[np.uint8]) -> Counts:
    """Pixels of each value of a label, [256]."""
    # Pillow's histograms count bytes; NumPy's convert them to 64-bit integers first.
    return np.array(Image.fromarray(np.asarray(label, dtype=np.uint8)).histogram(), dtype=np.int64)


def check_ids(dataset: SegmentationDataset, index: int, counts: Counts) -> None:
    """Refuse values that are neither class ids nor 255.

    Raises:
        DataError: There are some; the message names the sample.
    """
    classes = len(dataset.classes)
    unknown = np.flatnonzero(counts[classes:IGNORE]) + classes
    if len(unknown):
        raise DataError(
            f"{dataset.where(index)}: the label has {', '.join(map(str, unknown[:5]))}: expected class ids from 0 to "
            f"{classes - 1}, and {IGNORE} where there is none"
        )


def label_faults(pixels: Mapping[str, Counts], classes: Sequence[str], train: str) -> Iterator[tuple[str, str]]:
    """Splits whose labels nothing can be learnt from, or measured on, and a message about each.

    Args:
        pixels: Counts of the splits for training and validation, by name.
        classes: Names of the classes.
        train: Name of the split for training.
    """
    for split, counts in pixels.items():
        if not counts[: len(classes)].any():
            yield (
                split,
                f"{split} has no labelled pixel: every label is {IGNORE} (ignored), as where labels are not public; "
                "choose another split, or tell what the values of its label files stand for (--loader.ids)",
            )
        elif len(classes) == 2 and split == train and set(np.flatnonzero(counts)) == {0, IGNORE}:
            yield (
                split,
                f"the labels of {split} hold only 0 and {IGNORE}, which is ignored: one class, {classes[0]}; if "
                f"{IGNORE} is {classes[1]}, give --loader.ids '{{0: 0, {IGNORE}: 1}}'",
            )


def label_doubts(pixels: Mapping[str, Counts], classes: Sequence[str], train: str, val: str) -> Iterator[str]:
    """Likely mistakes, a line each; arguments as for `label_faults`, and the name of the split for validation."""
    pixels = {split: counts for split, counts in pixels.items() if counts[: len(classes)].any()}
    absent = {
        split: [name for name, count in zip(classes, counts.tolist(), strict=False) if not count]
        for split, counts in pixels.items()
    }
    for split, so in ((train, "so they cannot be learnt there"), (val, "so its mIoU is the mean over the others")):
        if missing := absent.get(split):
            shown = f"{', '.join(missing[:10])}{', ...' * (len(missing) > 10)}"
            yield f"{len(missing)} of {len(classes)} classes never occur in {split}, {so}: {shown}"
    for split, counts in pixels.items():
        share, missing = float(counts[IGNORE] / counts.sum()), absent[split]
        one = split == train and len(missing) == 1 and share > DISGUISED
        if share > 0.5 or one:
            yield (
                f"{share:.1%} of the pixels of {split} are ignored: is the ignored value ({IGNORE} in most data sets) "
                f"a class in these labels{', ' + missing[0] if one else ''}? --loader.ids tells what values stand for"
            )


def in_order(function: Callable[[Argument], Result], arguments: Iterable[Argument], workers: int) -> Iterator[Result]:
    """`map` in threads, a few entries ahead; closing it early cancels the rest."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
