"""What a report knows of a run: all that its folder holds, read once, with a note of what could not be read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.config import SearchConfig
from nas.evaluation.metrics import all_metrics, mean_note
from nas.runs.folder import read_metrics
from nas.runs.history import Snapshot, read_history
from nas.runs.names import GENOTYPE, GENOTYPES, METRICS, command_of, read_config
from retrain.report.series import finite
from search_spaces.genotype import Genotype, load_genotype

__all__ = [
    "Evaluated",
    "RunRecord",
    "different_settings",
    "duration",
    "flat",
    "headline_numbers",
    "read_run",
    "read_runs",
    "unique_names",
]


MAX_FILE_BYTES = 8 * 2**20
"""Of an evaluation; one of 150 classes has a fiftieth of that."""


@dataclass(frozen=True)
class Evaluated:
    """A file that nas-evaluate wrote."""

    name: str
    """Split and checkpoint, such as "val-best"."""
    metrics: Mapping[str, float | None]
    """Of all metrics, by name; miou is not None."""
    iou: Mapping[str, float | None]
    """Of each class; None where it does not occur."""

    @property
    def mean_over(self) -> list[int]:
        """Number of classes whose mean the mIoU is, and of all."""
        return [sum(value is not None for value in self.iou.values()), len(self.iou)]


@dataclass(frozen=True)
class RunRecord:
    """A run folder, read."""

    path: Path
    """The folder."""
    name: str
    """Its name in the report; no other run there has it."""
    command: str
    """The command that made it."""
    settings: Mapping[str, str]
    """All settings as text, by dotted name."""
    lines: Sequence[Mapping[str, Any]]
    """Those of metrics.jsonl."""
    genotype: Genotype | None = None
    """What was found, or what is trained."""
    history: Sequence[Snapshot] = ()
    """What each epoch of a search decoded."""
    evaluations: Sequence[Evaluated] = ()
    """By name."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, and why."""

    @property
    def searches(self) -> bool:
        """Whether it is a search; else a retraining."""
        return self.command == SearchConfig.command


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Names of folders; those that are the same are told apart by a number."""
    names: list[str] = []
    for folder in folders:
        name, number = folder.resolve().name, 1
        while name in names:
            number += 1
            name = f"{folder.resolve().name} ({number})"
        names.append(name)
    return names


def read_runs(folders: Sequence[str | Path]) -> list[RunRecord]:
    """Reads runs; those whose folders have the same name are told apart by a number.

    Raises:
        ValueError: One is not a run folder; one line.
    """
    paths = [Path(folder) for folder in folders]
    return [read_run(path, name) for path, name in zip(paths, unique_names(paths), strict=True)]


def read_run(folder: str | Path, name: str | None = None) -> RunRecord:
    """Reads a run folder.

    Args:
        folder: Of a search or a retraining, at any point of its life.
        name: In place of the folder's.

    Raises:
        ValueError: It is not a run folder, or its settings cannot be read; one line.
    """
    folder = Path(folder)
    notes: list[str] = []
    lines: list[dict[str, Any]] = []
    genotype, history = None, []
    try:
        lines = read_metrics(folder)
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"{METRICS} cannot be read: {error}")
    try:
        if (folder / GENOTYPE).exists():
            genotype = load_genotype(folder / GENOTYPE)
        if (folder / GENOTYPES).exists():
            history = read_history(folder)
    except (OSError, ValueError) as error:
        notes.append(str(error))
    evaluations = []
    for path in sorted(folder.glob("evaluation-*.json")):
        try:
            evaluations.append(_evaluated(path))
        except (OSError, ValueError, RecursionError) as error:
            notes.append(f"{path.name} cannot be read: {error}")
    return RunRecord(
        folder,
        name or folder.resolve().name,
        command_of(folder),
        flat(read_config(folder)),
        lines,
        genotype,
        history,
        evaluations,
        notes,
    )


def _evaluated(path: Path) -> Evaluated:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError("it is too large to be an evaluation")
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or finite(data.get("miou")) is None or not isinstance(data.get("iou"), dict):
        raise ValueError("it has no miou and iou, as nas-evaluate writes them")
    further = data.get("metrics")
    values = data | (further if isinstance(further, dict) else {})
    return Evaluated(
        path.stem.removeprefix("evaluation-"),
        {metric.name: finite(values.get(metric.name)) for metric in all_metrics()},
        {str(name): finite(value) for name, value in data["iou"].items()},
    )


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text."""
    found: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            found |= flat(entry, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = entry if isinstance(entry, str) else json.dumps(entry, default=str)
    return found


def different_settings(runs: Sequence[RunRecord]) -> list[str]:
    """Names of the settings that are not the same in all runs that have them, in the order in which they are met.

    The folder, which is always another one, is not among them.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name != "out")
    return [name for name in names if len({run.settings[name] for run in runs if name in run.settings}) > 1]


def headline_numbers(run: RunRecord) -> dict[str, str]:
    """Name -> value, in the order in which they are shown; what is not known is left out."""
    settings, lines = run.settings, run.lines
    numbers = {"kind": "search" if run.searches else "retraining"}
    named = settings.get("space" if run.searches else "genotype", "")
    numbers["space or network"] = named if run.genotype is None else run.genotype.space.name
    numbers["data"] = settings.get("data", "")
    numbers["epochs"] = f"{len(lines)} of {settings.get('epochs', '?')}" if lines else "none yet"
    for metric in all_metrics():
        values = _values(lines, "val", metric.name)
        if values and metric.headline:
            epoch, best = (max if metric.higher_is_better else min)(values, key=lambda value: value[1])
            numbers[f"validation {metric.label}, best"] = f"{metric.text(best)} (epoch {epoch})"
        if values:
            label = f"validation {metric.label}" if metric.headline else metric.label
            own = [line["val"].get("mean_over") for line in lines if isinstance(line.get("val"), Mapping)]
            numbers[f"{label}, last"] = metric.text(values[-1][1]) + mean_note(own[-1]) * (metric.name == "miou")
    for evaluated in run.evaluations:
        for metric in all_metrics():
            if metric.headline and evaluated.metrics[metric.name] is not None:
                note = mean_note(evaluated.mean_over) * (metric.name == "miou")
                name = f"{metric.label} measured, {evaluated.name}"
                numbers[name] = metric.text(evaluated.metrics[metric.name]) + note
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
