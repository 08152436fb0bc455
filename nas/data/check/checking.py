"""Checking a data set before a run: read every file, list all problems, count the classes.

`open_splits` opens the splits, `check` reads them. A bad file does not end the check. Memory does not grow with the
number of images, except for the lists of files and problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.config import ImageConfig, NormalisationConfig
from nas.data.base import DATASETS, DataError, DatasetEntry, SegmentationDataset, check_image, open_dataset
from nas.data.check.statistics import SampleCounts, SplitCounts, count_sample, equal_images
from nas.data.label_counts import check_ids, in_order, label_doubts, label_faults
from nas.data.readers.listing import not_read
from nas.data.readers.pairs import PairedDataset, SizesDiffer, collecting, read_header, read_image
from search_spaces.validation import as_path

__all__ = ["USUAL_SPLITS", "Opened", "Problem", "Report", "check", "open_splits"]

USUAL_SPLITS = ("train", "val", "test")
"""Tried if a data set does not name its splits."""

ANY_VALUES = NormalisationConfig(range=(0, 1))
"""In place of a normalisation that is not given yet: the check prints the numbers for it."""

MOST_VALUES = 256
"""Most unknown values kept per label file, the most frequent first; enough for any 8-bit file."""

Kind = Literal["split", "partner", "image", "label", "size", "values", "sample", "labels"]
"""Kind of problem: a split that cannot be opened; a file without a partner; an unreadable image or label; an image and
a label of different sizes; unknown values in a label; any other problem of a sample; labels that teach nothing."""


@dataclass(frozen=True)
class Problem:
    """Something that would stop a run."""

    split: str
    kind: Kind
    file: str
    message: str
    """One line that names the file."""

    values: Mapping[int, int] = field(default_factory=dict)
    """Of kind `values`: pixels of each unknown value."""


@dataclass(frozen=True)
class Opened:
    """The splits of a data set that could be opened."""

    name: str
    root: Path | None
    splits: list[SegmentationDataset]
    problems: list[Problem]
    """Problems with the names of files and folders."""

    warnings: list[str]

    @property
    def samples(self) -> int:
        """Number of samples in all splits."""
        return sum(len(split) for split in self.splits)


@dataclass(frozen=True)
class Report:
    """Result of a check."""

    name: str
    root: Path | None
    classes: tuple[str, ...]
    splits: dict[str, SplitCounts]
    problems: list[Problem]
    warnings: list[str]
    """Possible mistakes that would not stop a run."""

    @property
    def main(self) -> str:
        """The split whose statistics training needs: train, or else the first one."""
        return "train" if "train" in self.splits else next(iter(self.splits))


def open_splits(
    name: str, root: str | Path | None = None, splits: Sequence[str] | None = None, images: ImageConfig | None = None
) -> Opened:
    """Open splits of a data set, even with files that have no partner.

    Args:
        name: A name in the registry.
        root: Folder of the data set; None if it needs none.
        splits: Names of the splits; None for all that exist, of which train and val must.
        images: Channels, normalisation and orientation of the images; without a normalisation, any values are read.

    Raises:
        ValueError: Unknown name.
        DataError: No split can be opened; the message is that of the first one.
    """
    entry = DATASETS.get(name)
    path = None if root is None else as_path(root)
    images = images or ImageConfig()
    if not images.scaled:
        images = replace(images, normalisation=ANY_VALUES)
    sure = splits is not None or entry.splits is not None
    names = _splits_there(entry, path) if splits is None else splits
    opened = Opened(name, path, [], [], [])
    failures = []
    for split in dict.fromkeys(names) or USUAL_SPLITS[:1]:  # if none exists, opening one reports the expected layout
        try:
            with collecting() as lone:
                opened.splits.append(open_dataset(name, path, split, images))
        except DataError as error:
            failures.append(error)
            if sure:
                opened.problems.append(Problem(split, "split", str(path or ""), str(error)))
            else:
                opened.warnings.append(f"{split} was not checked: {error}")
        opened.problems.extend(Problem(split, "partner", str(file.path), file.missing + file.expected) for file in lone)
    if not opened.splits:
        raise failures[0]
    needed = ("train", "val") if splits is None and entry.splits else ()
    for split in [split for split in needed if split not in names]:
        message = f"{name}: there is no split {split}, which a run needs, unless --loader.{split}-split names another"
        opened.problems.append(Problem(split, "split", str(path or ""), message))
    return opened


def _splits_there(entry: DatasetEntry, root: Path | None) -> Sequence[str]:
    if entry.splits is None:
        return USUAL_SPLITS
    if not entry.needs_root:
        return entry.splits()
    return () if root is None else entry.splits(root)


def check(opened: Opened, workers: int = 4, step: Callable[[str], None] = lambda text: None) -> Report:
    """Read all samples, list their problems, and count the readable ones.

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

        palettes = []
        for index, (found, orientation, palette) in enumerate(
            in_order(partial(_examine, dataset), range(len(dataset)), workers)
        ):
            palettes += [palette] * bool(palette)
            if orientation != 1:
                count.orientations[orientation] += 1
            if isinstance(found, SampleCounts):
                count.add(index, found)
            else:
                problems += found
            step(dataset.split)
        warnings += [f"{palettes[0]}{f' (so in {len(palettes)} labels)' * (len(palettes) > 1)}" for _ in palettes[:1]]
    report = Report(opened.name, opened.root, opened.splits[0].classes, counts, problems, warnings)
    labels = {split: count.labels for split, count in counts.items() if count.counted}
    needed = {split: labels[split] for split in (report.main, "val") if split in labels}
    faults = label_faults(needed, report.classes, report.main)
    problems += [Problem(split, "labels", str(opened.root or ""), message) for split, message in faults]
    unread = dict.fromkeys(path for dataset in opened.splits for path in dataset.unread)
    warnings += [not_read(list(unread), opened.root)] * bool(unread)
    warnings += [
        *label_doubts(labels, report.classes, report.main, "val"),
        *_about_images(report, opened.splits[0].images),
        *_in_two_splits(opened.splits, [count.digests for count in counts.values()]),
    ]
    return report


def _examine(dataset: SegmentationDataset, index: int) -> tuple[SampleCounts | list[Problem], int, str]:
    """Counts of a sample or all its problems, its EXIF orientation, and what its palette contradicts."""
    found, orientation, palette = _counted_or_problems(dataset, index), 1, ""
    if isinstance(dataset, PairedDataset):
        with suppress(DataError):  # it is among the problems
            orientation = read_header(dataset.pairs[index].image)[1]
            if isinstance(found, SampleCounts):
                palette = dataset.palette_conflict(index)
    return found, orientation, palette


def _counted_or_problems(dataset: SegmentationDataset, index: int) -> SampleCounts | list[Problem]:
    try:
        return _counted(dataset, index)
    except DataError as error:
        problems = _causes(dataset, index) if isinstance(dataset, PairedDataset) else []
        if isinstance(error, SizesDiffer) and isinstance(dataset, PairedDataset):
            problems.append(Problem(dataset.split, "size", str(dataset.pairs[index].label), str(error)))
        return problems or [Problem(dataset.split, "sample", dataset.where(index), str(error))]


def _counted(dataset: SegmentationDataset, index: int) -> SampleCounts:
    """Counts of a sample; DataError if a user's reader breaks the contract of `SegmentationDataset.read`."""
    image, label = dataset.read(index)
    check_image(dataset.where(index), image, dataset.images)
    if label.dtype != np.uint8 or image.shape[:2] != label.shape:
        raise DataError(
            f"{dataset.where(index)}: the image is {image.dtype} {list(image.shape)}, the label {label.dtype} "
            f"{list(label.shape)}: expected an image [H, W, C] and a label uint8 [H, W]"
        )
    counts = count_sample(image, label)
    check_ids(dataset, index, counts.labels)
    return counts


def _causes(dataset: PairedDataset, index: int) -> list[Problem]:
    """Problems of each file of a pair; reading the sample stops at the first."""
    split, pair, problems = dataset.split, dataset.pairs[index], []
    try:
        read_image(pair.image, dataset.images)
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
            f"expected {dataset.expected_values(values)}"
        )
        problems.append(Problem(split, "values", str(pair.label), message, values))
    return problems


def _about_images(report: Report, images: ImageConfig) -> Iterator[str]:
    """What the files of images are that training must know, or that pictures of them hide."""
    for split, counts in report.splits.items():
        turned, kinds = sum(counts.orientations.values()), counts.kinds
        if turned:
            of = ", ".join(f"{number}: {count:,}" for number, count in sorted(counts.orientations.items()))
            yield (
                f"{turned:,} of {counts.samples:,} images of {split} have an EXIF orientation other than 1 ({of}): "
                + ("they are turned" if images.exif == "turn" else "they are left as stored")
                + ", and their labels must fit that; --loader.exif turn or ignore decides"
            )
        if len(kinds) > 1:
            of = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.most_common())
            yield f"the images of {split} hold values of several types ({of}), which one normalisation cannot fit"
    main = report.splits[report.main]
    if images.normalisation == ANY_VALUES and main.unit != 255:
        mean, std = ([float(f"{value:.6g}") for value in row] for row in main.moments())
        yield (
            f"the images hold {main.kinds.most_common(1)[0][0]} values, for which training needs a normalisation: "
            f"--loader.normalisation.mean '{mean}' --loader.normalisation.std '{std}', or --loader.normalisation.range"
        )


def _in_two_splits(splits: Sequence[SegmentationDataset], digests: Sequence[NDArray[np.uint64]]) -> Iterator[str]:
    for places in equal_images(digests):
        one, other = (splits[split].where(sample) for split, sample in places)
        if one != other:  # one split may contain another, as trainval does train
            yield f"{one} and {other} are the same image, in two splits"
