"""The report of a check as text, as plain data for JSON, and as one line."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from nas.data.check.checking import Problem, Report
from nas.data.check.statistics import SplitCounts
from nas.training.class_weights import CONSTANT, inverse_log_weights, median_frequency_weights
from search_spaces.text import aligned

__all__ = ["SHOWN", "as_data", "as_text", "summary"]

SHOWN = 20
"""Limit of problems, and of warnings, in the text; the data has all."""

_KINDS = {
    "split": ("split that cannot be opened", "splits that cannot be opened"),
    "partner": ("file without a partner", "files without a partner"),
    "image": ("image that cannot be read", "images that cannot be read"),
    "label": ("label that cannot be read", "labels that cannot be read"),
    "size": ("label of another size than its image", "labels of another size than their images"),
    "values": ("label with unknown values", "labels with unknown values"),
    "labels": ("split that nothing can be learnt from", "splits that nothing can be learnt from"),
    "sample": ("sample that cannot be read", "samples that cannot be read"),
}


def summary(report: Report) -> str:
    """The problems in one line; empty if there are none."""
    if not report.problems:
        return ""
    kinds = Counter[str](problem.kind for problem in report.problems)
    parts = [f"{kinds[kind]:,} {words[kinds[kind] > 1]}" for kind, words in _KINDS.items() if kinds[kind]]
    where = f" at {report.root}" if report.root else ""
    return f"{report.name}{where} has {', '.join(parts)}; the first: {report.problems[0].message}"


def as_data(report: Report) -> dict[str, Any]:
    """The report in plain containers: all problems, and the counts and statistics of each split.

    Undefined values, such as the mean of no pixels, are None.
    """
    return {
        "data": report.name,
        "root": None if report.root is None else str(report.root),
        "classes": list(report.classes),
        "splits": [_split_data(split, counts, report.classes) for split, counts in report.splits.items()],
        "unknown_values": [
            {"value": value, "pixels": pixels, "labels": labels} for value, pixels, labels in _unknown(report.problems)
        ],
        "problems": [_problem_data(problem) for problem in report.problems],
        "warnings": report.warnings,
    }


def _problem_data(problem: Problem) -> dict[str, Any]:
    data: dict[str, Any] = {name: getattr(problem, name) for name in ("split", "kind", "file", "message")}
    if problem.values:
        data["values"] = [{"value": value, "pixels": pixels} for value, pixels in problem.values.items()]
    return data


def _split_data(split: str, counts: SplitCounts, classes: tuple[str, ...]) -> dict[str, Any]:
    median, inverse_log = _weights(counts, len(classes))
    shares = counts.shares(len(classes))
    return {
        "split": split,
        "samples": counts.samples,
        "readable": counts.counted,
        "sizes": [
            {"height": height, "width": width, "samples": number}
            for (height, width), number in counts.sizes.most_common()
        ],
        "classes": [
            {
                "id": number,
                "name": name,
                "pixels": int(counts.labels[number]),
                "share": float(shares[number]),
                "images": int(counts.images[number]),
                "median_frequency_weight": median[number],
                "inverse_log_weight": inverse_log[number],
            }
            for number, name in enumerate(classes)
        ],
        "pixels": counts.pixels,
        "ignored": counts.ignored,
        "orientations": {str(number): count for number, count in sorted(counts.orientations.items())},
        "unit": counts.unit,
        "mean": _defined(counts.moments()[0]),
        "std": _defined(counts.moments()[1]),
    }


def _weights(counts: SplitCounts, classes: int) -> tuple[list[float | None], list[float | None]]:
    """Median frequency and 1 / ln(c + p) of each class."""
    median = median_frequency_weights(counts.labels[:classes], counts.pixels_of_images[:classes])
    inverse_log = inverse_log_weights(counts.shares(classes)) if counts.counted else np.full(classes, np.nan)
    return _defined(median), _defined(inverse_log)


def _defined(numbers: np.ndarray) -> list[float | None]:
    return [None if np.isnan(number) else number for number in numbers.tolist()]


def _unknown(problems: list[Problem]) -> list[tuple[int, int, int]]:
    """(value, pixels, label files) of each unknown value, the most frequent first."""
    pixels: Counter[int] = Counter()
    labels: Counter[int] = Counter()
    for problem in problems:
        pixels.update(problem.values)
        labels.update(problem.values.keys())
    return [(value, count, labels[value]) for value, count in pixels.most_common()]


def as_text(report: Report) -> str:
    """The report as text; class weights are given for the training split."""
    where = f" at {report.root}" if report.root else ""
    lines = [f"{report.name}{where}: {len(report.classes)} classes"]
    for split, counts in report.splits.items():
        lines += ["", *_split_lines(split, counts, report.classes, weights=split == report.main)]
    unknown = _unknown(report.problems)
    if unknown:
        lines += ["", "values in labels that stand for no class:"]
        lines += [f"  {value}: {pixels:,} pixels in {labels:,} labels" for value, pixels, labels in unknown[:SHOWN]]
        lines += _rest(len(unknown), "values")
    problems = [f"{problem.split}: {problem.message}" for problem in report.problems]
    for what, texts in (("problems", problems), ("warnings", report.warnings)):
        if texts:
            lines += ["", f"{what}: {len(texts):,}", *(f"  {text}" for text in texts[:SHOWN]), *_rest(len(texts), what)]
    if not report.problems:
        lines += ["", "no problems"]
    return "\n".join(lines)


def _rest(number: int, what: str) -> list[str]:
    return [f"  and {number - SHOWN:,} more {what}: --json lists all"] if number > SHOWN else []


def _split_lines(split: str, counts: SplitCounts, classes: tuple[str, ...], weights: bool) -> list[str]:
    unread = counts.samples - counts.counted
    lines = [
        f"{split}: {counts.samples:,} sample{'s' * (counts.samples != 1)}"
        + (f", {unread:,} of them not counted below" if unread else "")
    ]
    if not counts.counted:
        return lines
    lines.append(f"  {_sizes(counts)}")
    rows = [["id", "class", "pixels", "share", "images"]]
    median, inverse_log = _weights(counts, len(classes))
    if weights:
        rows[0] += ["median frequency", f"1/ln({CONSTANT}+share)"]
    for number, (name, share) in enumerate(zip(classes, counts.shares(len(classes)).tolist(), strict=True)):
        row = [str(number), name, f"{counts.labels[number]:,}", f"{share:.2%}", f"{counts.images[number]:,}"]
        rows.append(row + [_number(column[number]) for column in (median, inverse_log)] * weights)
    rows.append(["255", "(ignored)", f"{counts.ignored:,}", f"{counts.ignored / counts.pixels:.2%}", ""])
    lines += [f"  {line}" for line in aligned(rows, left=(1,))]
    moments = counts.moments()
    mean, deviation = ("  ".join(map(_number, _defined(row))) for row in moments)
    channels = "red, green, blue" if moments.shape[1] == 3 else f"channels 1 to {moments.shape[1]}"
    lines.append("  shares: of the labelled pixels; (ignored): of all pixels")
    scale = "0 to 1" if counts.unit == 255 else "values of the files"
    lines.append(f"  {channels}, {scale}: mean {mean}; standard deviation {deviation}")
    return lines


def _number(value: float | None) -> str:
    return "--" if value is None else f"{value:.4f}"


def _sizes(counts: SplitCounts) -> str:
    """Sizes in words: the only one, or the smallest, the largest and the most frequent ones."""
    found = counts.sizes.most_common()
    named = [f"{height}x{width}" for (height, width), _ in found]
    if len(found) == 1:
        return f"size (height x width): {named[0]}"
    by_area = sorted(counts.sizes, key=lambda size: size[0] * size[1])
    smallest, largest = (f"{height}x{width}" for height, width in (by_area[0], by_area[-1]))
    most = ", ".join(f"{name} ({number:,})" for name, (_, number) in zip(named[:5], found, strict=False))
    return (
        f"{len(found):,} sizes (height x width): smallest {smallest}, largest {largest}; "
        f"most frequent {most}{', ...' * (len(found) > 5)}"
    )
