"""The numbers by which a run is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retrain.report.runs import RunRecord
from retrain.report.series import finite

__all__ = ["duration", "headline_numbers"]


def headline_numbers(run: RunRecord) -> dict[str, str]:
    """Name -> value, in the order in which they are shown; what is not known is left out."""
    settings, lines = run.settings, run.lines
    numbers = {"kind": "search" if run.searches else "retraining"}
    named = settings.get("space" if run.searches else "genotype", "")
    numbers["space or network"] = named if run.genotype is None else run.genotype.space.name
    numbers["data"] = settings.get("data", "")
    numbers["epochs"] = f"{len(lines)} of {settings.get('epochs', '?')}" if lines else "none yet"
    miou = _values(lines, "val", "miou")
    if miou:
        best = max(range(len(miou)), key=lambda number: miou[number][1])
        numbers["validation mIoU, best"] = f"{100 * miou[best][1]:.2f} % (epoch {miou[best][0]})"
        numbers["validation mIoU, last"] = f"{100 * miou[-1][1]:.2f} %"
    accuracy = _values(lines, "val", "pixel_accuracy")
    if accuracy:
        numbers["pixel accuracy, last"] = f"{100 * accuracy[-1][1]:.2f} %"
    for evaluated in run.evaluations:
        numbers[f"mIoU measured, {evaluated.name}"] = f"{100 * evaluated.miou:.2f} %"
    if run.genotype is not None:
        numbers["path"] = "-".join(map(str, run.genotype.path))
    probability = _values(lines, "path", "probability")
    if probability:
        numbers["path probability"] = f"{probability[-1][1]:.3g}"
    seconds = _values(lines, "seconds")
    if seconds:
        numbers["time"] = duration(math.fsum(value for _, value in seconds))
    return numbers


def _values(lines: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[int, float]]:
    """(epoch from 1, number) of the lines that have it."""
    found = []
    for line in lines:
        value: Any = line
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        number = finite(value)
        if number is not None:
            found.append((line["epoch"] + 1, number))
    return found


def duration(seconds: float) -> str:
    """Such as "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
