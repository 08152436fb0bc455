"""Studies of nas-sweep in a report: trials, the best one's settings, pictures, the Pareto front, commands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from nas.runs.names import BEST_SETTINGS, SWEEP_FILE
from retrain.report.gallery import Album
from retrain.report.markup import Markup, details, element, figure, join, table
from retrain.report.page import word
from retrain.report.runs import flat
from retrain.sweeps.pictures import draw_figures
from retrain.sweeps.report import (
    best_trial,
    counted,
    described,
    front,
    importance_note,
    importances,
    shown_trials,
    trial_rows,
)
from retrain.sweeps.space import read
from retrain.sweeps.study import amount, open_study, spoken, written
from search_spaces.validation import without_password

if TYPE_CHECKING:
    from retrain.sweeps.study import Study

__all__ = ["StudyRecord", "commands", "read_study", "study_numbers", "study_section"]

MOST_TRIALS = 200
"""Rows of the table of trials."""

PICTURES: Mapping[str, str] = {
    "history": "Trials in the order in which they were made",
    "importances": "Importance of the settings, as the share of each in what tells the better trials from the others",
    "slices": "mIoU of each trial by each setting",
    "parallel": "Settings of each trial as a line that ends at its mIoU; the best are dark",
    "pareto": "mIoU against cost, and the Pareto front",
}


@dataclass(frozen=True)
class StudyRecord:
    """A study, read."""

    path: Path
    """Its folder."""
    name: str
    """Its name in the report."""
    study: Study
    """Opened; nothing is tried."""
    trials: Sequence[FrozenTrial]
    """Those there are at the moment, the best first."""
    best: FrozenTrial | None
    """None: no trial is complete, or all have the same values."""
    storage: str | None
    """Where it is kept, if not in its folder."""


def read_study(folder: Path, name: str, storage: str | None = None, study_name: str | None = None) -> StudyRecord:
    """Reads a study.

    Raises:
        ValueError: Its folder or its storage cannot be used; one line.
    """
    study = open_study(folder, storage, study_name)
    return StudyRecord(folder, name, study, shown_trials(study), best_trial(study), storage)


def study_numbers(record: StudyRecord) -> dict[str, str]:
    """Name -> value, for the overview."""
    study = record.study
    numbers = {
        "kind": f"study of nas-{study.space.command}",
        "data": str(study.space.base["data"]),
        "trials": counted(record.trials),
        "objectives": ", ".join(map(spoken, study.config.objectives)),
    }
    if record.best is not None:
        numbers["best trial"] = str(record.best.number)
        for objective, value in zip(study.config.objectives, record.best.values, strict=True):
            numbers[f"best trial's {spoken(objective)}"] = amount(objective, value)
    return numbers


def study_section(record: StudyRecord, album: Album) -> Markup:
    """All there is to see of a study."""
    study = record.study
    parts: list[object] = [
        element("p", f"nas-sweep, folder {record.path}", class_="soft"),
        element("p", described(study)),
    ]
    if record.best is not None:
        parts += _best(study, record.best)
    if any(trial.state == TrialState.COMPLETE for trial in record.trials):
        parts += _pictures(record, album)
    else:
        parts.append(element("p", "No trial is complete yet."))
    left_out = len(record.trials) - MOST_TRIALS
    more = f" {left_out} more are left out." if left_out > 0 else ""
    parts += [
        element("h3", "Trials"),
        _table(study, record.trials[:MOST_TRIALS], f"The best first; of a pruned trial, the last mIoU.{more}"),
        *_failures(record.trials),
        element("h3", "Commands"),
        element("pre", "\n".join(f"# {what}\n{line}" for line, what in commands(record))),
        details("All settings that are not varied", table(("setting", "value"), _constant(study))),
    ]
    return join(parts)


def _best(study: Study, best: FrozenTrial) -> list[object]:
    drawn = study.space.draw(lambda parameter: best.params[parameter.name])
    names = [parameter.name for parameter in study.space.parameters]
    rows = [(name, _text(read(drawn, name)), _text(read(study.space.base, name))) for name in names]
    values = ", ".join(written(name, value) for name, value in zip(study.config.objectives, best.values, strict=True))
    return [
        element("h3", "The best trial"),
        element("p", f"Trial {best.number}: {values}."),
        table(("setting", "best", "if not varied"), rows),
    ]


def _pictures(record: StudyRecord, album: Album) -> list[object]:
    study = record.study
    several = len(study.config.objectives) > 1
    shares, best_ones = importances(study), front(study) if several else []
    parts: list[object] = []
    if several:
        caption = "Trials that no other one is as good as in all objectives and better in one."
        parts += [element("h3", "Pareto front"), _table(study, best_ones, caption)]
    try:
        figures = draw_figures(study.space, study.config.objectives, record.trials, shares, best_ones)
        shown = {name: _image(album.figure(figures[name]), name, record.name) for name in PICTURES if name in figures}
    except (ValueError, KeyError) as error:  # the storage has values that the sweep does not: a stranger's
        return [*parts, element("p", f"No pictures: {error}", class_="note")]
    if "pareto" in shown:
        parts.append(element("div", shown["pareto"], class_="grid one"))
    rows_of_pictures = (
        ("Trials and settings", ("history", "importances"), "grid"),
        ("mIoU by setting", ("slices", "parallel"), "grid one"),
    )
    for heading, names, kind in rows_of_pictures:
        parts.append(element("h3", heading))
        parts.append(element("div", *(shown[name] for name in names if name in shown), class_=kind))
    if shares:
        listed = [(name, f"{share:.3f}") for name, share in shares.items()]
        parts.append(element("p", f"Importances: {importance_note(study)}", class_="note"))
        parts.append(details("Importances in numbers", table(("setting", "share"), listed, numbers=True)))
    return parts


def _table(study: Study, trials: Sequence[FrozenTrial], caption: str) -> Markup:
    heads, rows = trial_rows(study, trials)
    broken = [join(head.replace(".", ".\n", 1).split("\n"), "<br>") for head in heads]
    return table(broken, rows, caption, numbers=True)


def _constant(study: Study) -> list[tuple[str, str]]:
    varied = {"out", *(parameter.name for parameter in study.space.parameters)}
    return [(name, value) for name, value in flat(study.space.base).items() if name not in varied]


def _image(address: str, name: str, study: str) -> Markup:
    return figure(PICTURES[name], element("img", src=Markup(address), alt=f"{PICTURES[name]}, of study {study}"))


def _failures(trials: Sequence[FrozenTrial]) -> list[Markup]:
    reasons = [(str(trial.number), trial.user_attrs["reason"]) for trial in trials if "reason" in trial.user_attrs]
    if not reasons:
        return []
    return [details(f"Why {len(reasons)} did not end well", table(("trial", "reason"), reasons[:MOST_TRIALS]))]


def commands(record: StudyRecord) -> list[tuple[str, str]]:
    """Commands that use the result or resume the study: (command, what it does)."""
    folder, study = record.path, record.study
    name = folder.resolve().name
    kept = f" --storage {word(without_password(record.storage))} --study {word(study.name)}" if record.storage else ""
    sweep = word(folder / SWEEP_FILE)
    lines = []
    if record.best is not None:
        own = folder / str(record.best.user_attrs.get("folder", f"trial-{record.best.number}"))
        best, out = word(folder / BEST_SETTINGS), word(folder.with_name(f"{name}-best"))
        lines.append((f"nas-{study.space.command} --config {best} --out {out}", "repeat the best settings"))
        lines.append((f"nas-report {word(own)}", "a report of the best trial"))
    done = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in record.trials)
    if study.config.sampler != "grid":
        places = max(2 * done, study.places)
        lines.append((f"nas-sweep {sweep} --out {word(folder)}{kept} --trials {places}", "resume, with more trials"))
    again = word(folder.with_name(f"{name}-again"))
    lines.append((f"nas-sweep {sweep} --out {again}", "repeat"))
    return lines


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
