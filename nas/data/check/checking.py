"""Looking a data set through before a run does: every file is read, all that is wrong is listed, classes are counted.

`open_splits` opens what is there, `check` reads it. A file that is wrong does not end the check. The memory
that is needed does not grow with the number of images, but for the list of files itself and of what is wrong.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.data.base import DATASETS, IGNORE, DataError, DatasetEntry, SegmentationDataset, open_dataset
from nas.data.check.statistics import SampleCounts, SplitCounts, count_sample, equal_images
from nas.data.readers.pairs import PairedDataset, SizesDiffer, collecting, read_image

__all__ = ["USUAL_SPLITS", "Opened", "Problem", "Report", "check", "open_splits"]

USUAL_SPLITS = ("train", "val", "test")
"""Tried where a data set does not say which splits it has."""

MOST_VALUES = 256
"""Unknown values kept of one label file, the most frequent ones: all of them if it has 8 bits."""

Kind = Literal["split", "partner", "image", "label", "size", "values", "sample"]
"""What is wrong: a split that cannot be opened; a file without a partner; an image or a label that cannot be read;
sizes of the two that differ; values that stand for nothing; a sample, for another reason."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Problem:
    """Something that a run would stop at."""

    split: str
    kind: Kind
    file: str
    message: str
    """One line that names the file."""

    values: Mapping[int, int] = field(default_factory=dict)
    """Of kind `values`: those that stand for nothing, and their pixels."""


@dataclass(frozen=True)
class Opened:
    """The splits of a data set that could be opened."""

    name: str
    root: Path | None
    splits: list[SegmentationDataset]
    problems: list[Problem]
    """What was wrong with files' names and folders."""

    warnings: list[str]

    @property
    def samples(self) -> int:
        """Of all splits."""
        return sum(len(split) for split in self.splits)


@dataclass(frozen=True)
class Report:
    """What was found."""

    name: str
    root: Path | None
    classes: tuple[str, ...]
    splits: dict[str, SplitCounts]
    problems: list[Problem]
    warnings: list[str]
    """What a run would not stop at, but may be a mistake."""

    @property
    def main(self) -> str:
        """The split whose statistics a training needs: train, or the first one."""
        return "train" if "train" in self.splits else next(iter(self.splits))


def open_splits(name: str, root: str | Path | None = None, splits: Sequence[str] | None = None) -> Opened:
    """Open splits of a data set, those too that have files without a partner.

    Args:
        name: A name in the registry.
        root: Folder of the data set; None where none is needed.
        splits: Which ones; None: all that there are.

    Raises:
        ValueError: Unknown name.
        DataError: None of the splits can be opened; the message is that for the first one.
    """
    entry = DATASETS.get(name)
    path = None if root is None else Path(root)
    sure = splits is not None or entry.splits is not None
    names = _splits_there(entry, path) if splits is None else splits
    opened = Opened(name, path, [], [], [])
    failures = []
    for split in dict.fromkeys(names) or USUAL_SPLITS[:1]:  # none there: opening one says what is expected
        try:
            with collecting() as lone:
                opened.splits.append(open_dataset(name, path, split))
        except DataError as error:
            failures.append(error)
            if sure:
                opened.problems.append(Problem(split, "split", str(path or ""), str(error)))
            else:
                opened.warnings.append(f"{split} was not checked: {error}")
        opened.problems.extend(Problem(split, "partner", str(file.path), file.missing + file.expected) for file in lone)
    if not opened.splits:
        raise failures[0]
    return opened


def _splits_there(entry: DatasetEntry, root: Path | None) -> Sequence[str]:
    if entry.splits is None:
        return USUAL_SPLITS
    if not entry.needs_root:
        return entry.splits()
    return () if root is None else entry.splits(root)


def check(opened: Opened, workers: int = 4, step: Callable[[str], None] = lambda text: None) -> Report:
    """Read all samples, lists what is wrong with them, and counts those that can be read.

    Args:
        opened: Splits of a data set.
        workers: Threads that read, at least 1.
        step: Called with the split's name after each sample.

    Raises:
        ValueError: `workers` is out of range.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: give at least 1")
    problems, warnings = list(opened.problems), list(opened.warnings)
    counts: dict[str, SplitCounts] = {}
    for dataset in opened.splits:
        counts[dataset.split] = count = SplitCounts(len(dataset))

        def examine(index: int, dataset: SegmentationDataset = dataset) -> SampleCounts | list[Problem]:
            return _examine(dataset, index)

        for index, found in enumerate(_in_order(examine, range(len(dataset)), workers)):
            if isinstance(found, SampleCounts):
                count.add(index, found)
            else:
                problems += found
            step(dataset.split)
    report = Report(opened.name, opened.root, opened.splits[0].classes, counts, problems, warnings)
    warnings += [*_doubts(report), *_in_two_splits(opened.splits, [count.digests for count in counts.values()])]
    return report


def _in_order(function: Callable[[Argument], Result], arguments: Iterable[Argument], workers: int) -> Iterator[Result]:
    """`map` in threads, few entries ahead; left early, it starts no more of them."""
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


def _examine(dataset: SegmentationDataset, index: int) -> SampleCounts | list[Problem]:
    """The counts of a sample, or all that is wrong with it."""
    try:
        return _counted(dataset, index)
    except DataError as error:
        problems = _causes(dataset, index) if isinstance(dataset, PairedDataset) else []
        if isinstance(error, SizesDiffer) and isinstance(dataset, PairedDataset):
            problems.append(Problem(dataset.split, "size", str(dataset.pairs[index].label), str(error)))
        return problems or [Problem(dataset.split, "sample", dataset.where(index), str(error))]


def _counted(dataset: SegmentationDataset, index: int) -> SampleCounts:
    """The counts of a sample, if it is what `SegmentationDataset.read` promises: a reader of one's own may be wrong.

    Raises:
        DataError: It is not.
    """
    image, label = dataset.read(index)
    if image.dtype != np.uint8 or label.dtype != np.uint8 or label.ndim != 2 or image.shape != (*label.shape, 3):
        raise DataError(
            f"{dataset.where(index)}: the image is {image.dtype} {list(image.shape)}, the label {label.dtype} "
            f"{list(label.shape)}: expected uint8 [H, W, 3] and uint8 [H, W]"
        )
    counts, classes = count_sample(image, label), len(dataset.classes)
    unknown = np.flatnonzero(counts.labels[classes:IGNORE]) + classes
    if len(unknown):
        raise DataError(
            f"{dataset.where(index)}: the label has {', '.join(map(str, unknown[:5]))}: expected class ids from 0 to "
            f"{classes - 1}, and {IGNORE} where there is none"
        )
    return counts


def _causes(dataset: PairedDataset, index: int) -> list[Problem]:
    """What is wrong with each file of a pair: reading stops at the first thing, a report is to have all."""
    split, pair, problems = dataset.split, dataset.pairs[index], []
    try:
        read_image(pair.image)
    except DataError as error:
        problems.append(Problem(split, "image", str(pair.image), str(error)))
    try:
        values = dict(Counter(dataset.unknown_values(index)).most_common(MOST_VALUES))
    except DataError as error:
        problems.append(Problem(split, "label", str(pair.label), str(error)))
        return problems
    if values:
        shown = ", ".join(f"{value} ({count:,} pixels)" for value, count in list(values.items())[:5])
        message = (
            f"label {pair.label} holds values that stand for no class: {shown}{', ...' * (len(values) > 5)}; "
            f"expected {dataset.expected_values()}"
        )
        problems.append(Problem(split, "values", str(pair.label), message, values))
    return problems


def _doubts(report: Report) -> Iterator[str]:
    """What looks like a mistake in the counts."""
    main = report.splits[report.main]
    absent = [name for name, pixels in zip(report.classes, main.labels.tolist(), strict=False) if not pixels]
    if main.counted and absent:
        yield (
            f"{len(absent)} of {len(report.classes)} classes never occur in {report.main}, so that nothing can be "
            f"learnt of them there: {', '.join(absent[:10])}{', ...' * (len(absent) > 10)}"
        )
    for split, counts in report.splits.items():
        if 2 * counts.ignored > counts.pixels:
            yield (
                f"{counts.ignored / counts.pixels:.1%} of the pixels of {split} are ignored: do these labels mean a "
                "class by the value that stands for it (255, in most data sets)?"
            )


def _in_two_splits(splits: Sequence[SegmentationDataset], digests: Sequence[NDArray[np.uint64]]) -> Iterator[str]:
    for places in equal_images(digests):
        one, other = (splits[split].where(sample) for split, sample in places)
        if one != other:  # a split that another one holds, such as train of trainval
            yield f"{one} and {other} are the same image, in two splits"
