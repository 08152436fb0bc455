"""The report: numbers, curves, pictures, tables, settings and commands of runs, in one HTML file."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nas.evaluation.metrics import METRICS, all_metrics
from nas.runs.names import CONFIG, SWEEP_FILE, runs_within
from retrain.report.curves import MOST_RUNS, draw_curves, run_style
from retrain.report.gallery import Album, gallery
from retrain.report.markup import Markup, details, element, figure, items, join, table
from retrain.report.runs import RunRecord, different_settings, headline_numbers, read_runs, unique_names
from retrain.report.series import read_series
from search_spaces.files import MARK, check_replaceable, write_atomically
from search_spaces.genotype import package_version
from search_spaces.validation import as_path, require

if TYPE_CHECKING:
    from retrain.report.studies import StudyRecord

__all__ = [
    "commands",
    "make_report",
    "word",
    "write_report",
]


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page loads nothing and runs nothing, whatever stands in it."""

MOST_CLASSES = 400
"""Rows of the table of classes."""

Section = tuple[str, str, Markup]
"""Anchor, heading, content."""


def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    image: str | Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the report of runs and studies into one file.

    Args:
        folders: Run folders of searches and retrainings, and folders of studies.
        out: The file; None: report.html in the only folder, or, of several, where the command is given.
        image: The networks of retrainings are shown at work on this image.
        storage: Of the one study, as nas-sweep had it; None: in its folder.
        study: Its name in the storage; None: the only one there, or the folder's.
        overwrite: Replace the file, too, if it is not a report.

    Raises:
        ValueError: One is neither a run folder nor a study's, there are too many, a study's storage or the image cannot
            be read, or something is given that none of them has a use for; one line.
        OSError: The file cannot be written.
    """
    require(bool(folders), "there is no run: name run folders, or folders of studies")
    require(len(folders) <= MOST_RUNS, f"{len(folders)} runs are too many for one report: give up to {MOST_RUNS}")
    paths = [as_path(folder) for folder in folders]
    places = [path.resolve() for path in paths]
    for number, path in enumerate(paths):
        require(places[number] not in places[:number], f"{path} is given twice: give each run once")
        is_one = (path / CONFIG).exists() or _is_study(path)
        needs = f"it has no {CONFIG} (and no {SWEEP_FILE}, as a study has)"
        require(is_one, f"{path} is not a run folder: {needs}{'' if is_one else runs_within(path)}")
    target = as_path(out) if out is not None else (paths[0] if len(paths) == 1 else Path()) / "report.html"
    require(not target.is_dir(), f"{target} is a folder: name a file for the report")
    if not overwrite:
        check_replaceable([target], "give another --out, or --overwrite")
    runs = read_runs([path for path in paths if not _is_study(path)])
    studies = _read_studies([path for path in paths if _is_study(path)], storage, study)
    trained = any(not run.searches for run in runs)
    require(image is None or trained, f"no run of nas-retrain is there to see {image}: leave --image out")
    return write_atomically(target, make_report(runs, image, studies))


def _is_study(folder: Path) -> bool:
    return (folder / SWEEP_FILE).is_file() and not (folder / CONFIG).exists()


def _read_studies(folders: Sequence[Path], storage: str | None, name: str | None) -> list[StudyRecord]:
    given = " and ".join(
        f"--{option}" for option, value in (("storage", storage), ("study", name)) if value is not None
    )
    message = f"{given} is of one study, but there are {len(folders)} among the folders: leave it out"
    require(not given or len(folders) == 1, message)
    if not folders:
        return []
    from retrain.report.studies import read_study  # Optuna's import takes a while

    return [read_study(path, own, storage, name) for path, own in zip(folders, unique_names(folders), strict=True)]


def make_report(runs: Sequence[RunRecord], image: str | Path | None = None, studies: Sequence[StudyRecord] = ()) -> str:
    """The report as HTML, of runs and studies that were read (`read_runs`, `read_study`)."""
    album = Album()
    sections: list[Section] = [("overview", "Overview", _overview(runs, studies))]
    if runs:
        sections += [*_curves(runs), *gallery(runs, album, image), *_classes(runs)]
        sections += [(f"run{number}", f"Run {run.name}", _run(run)) for number, run in enumerate(runs)]
    if studies:
        from retrain.report.studies import study_section

        sections += [
            (f"study{number}", f"Study {study.name}", study_section(study, album))
            for number, study in enumerate(studies)
        ]
    names = [*(run.name for run in runs), *(study.name for study in studies)]
    title = f"Report: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
    links = items(element("a", heading, href=f"#{anchor}") for anchor, heading, _ in sections)
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}, nas-segmentation {package_version()}"
    body = join(
        [
            element("header", element("h1", title), element("p", f"Made {made}", class_="soft")),
            element("nav", links, aria_label="Sections"),
            element(
                "main",
                *(
                    element("section", element("h2", heading, id=anchor), content)
                    for anchor, heading, content in sections
                ),
            ),
        ]
    )
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup(f'<meta name="generator" content="{MARK}">'),
            # A browser asks for an icon of its own accord, unless the page has one.
            Markup('<link rel="icon" href="data:,">'),
            element("title", title),
            element("style", Markup(style)),
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _overview(runs: Sequence[RunRecord], studies: Sequence[StudyRecord]) -> Markup:
    head = ("", *(run.name for run in runs))
    parts = [_side_by_side(head, [headline_numbers(run) for run in runs])] if runs else []
    if studies:
        from retrain.report.studies import study_numbers

        parts.append(_side_by_side(("", *(study.name for study in studies)), list(map(study_numbers, studies))))
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    if notes:
        parts.append(element("div", element("p", "Not all could be read."), items(notes), class_="note"))
    differing = different_settings(runs)
    if differing:
        rows = [(name, *(run.settings.get(name, "--") for run in runs)) for name in differing]
        parts += [element("h3", "Settings that differ"), table(head, rows)]
    elif len(runs) > 1:
        parts.append(element("p", "All settings are the same."))
    return join(parts)


def _side_by_side(head: Sequence[str], columns: Sequence[Mapping[str, str]]) -> Markup:
    """A table with a column for each, and a row for each name that any of them has."""
    names = dict.fromkeys(name for column in columns for name in column)
    return table(head, [(name, *(column.get(name, "") for column in columns)) for name in names])


def _curves(runs: Sequence[RunRecord]) -> Iterator[Section]:
    pictures = draw_curves([read_series(run.lines) for run in runs])
    if not pictures:
        yield "curves", "Curves", element("p", "No epoch is recorded yet.")
        return
    legend: list[object] = []
    for number, run in enumerate(runs):
        style = run_style(number)
        swatch = element("span", class_="swatch", style=f"background: {style.color}", aria_hidden="true")
        marks = {"": "", "o": " (circles)", "s": " (squares)", "^": " (triangles)"}[style.marker]
        legend.append(join([swatch, f"{run.name}{marks}"], ""))
    shown = (figure(title, Markup(svg)) for title, svg in pictures)
    yield (
        "curves",
        "Curves",
        join(
            [
                element("ul", *(element("li", entry) for entry in legend), class_="legend") if len(runs) > 1 else "",
                element("div", *shown, class_="grid curves"),
            ]
        ),
    )


def _classes(runs: Sequence[RunRecord]) -> Iterator[Section]:
    """IoU of each class, a column an evaluation."""
    columns = [(run, evaluated) for run in runs for evaluated in run.evaluations]
    if not columns:
        return
    head = [
        "class",
        *(f"{run.name}: {evaluated.name}" if len(runs) > 1 else evaluated.name for run, evaluated in columns),
    ]
    names = list(dict.fromkeys(name for _, evaluated in columns for name in evaluated.iou))[:MOST_CLASSES]
    iou = METRICS["miou"]
    rows = [(name, *(iou.text(evaluated.iou.get(name), "") for _, evaluated in columns)) for name in names]
    for metric in all_metrics():
        label = "mean" if metric.name == "miou" else metric.label
        rows.append((label, *(metric.text(evaluated.metrics[metric.name], "") for _, evaluated in columns)))
    rows.insert(len(names) + 1, ("classes in the mean", *("{} of {}".format(*e.mean_over) for _, e in columns)))
    yield "classes", "IoU of each class", table(head, rows, "In percent, as nas-evaluate measured it.", numbers=True)


def _run(run: RunRecord) -> Markup:
    parts: list[object] = [element("p", f"{run.command}, folder {run.path}", class_="soft")]
    if run.genotype is not None:
        rows = [
            (f"block{number}", block.inputs[0], block.operations[0], block.inputs[1], block.operations[1])
            for number, block in enumerate(run.genotype.cell, start=1)
        ]
        path = "-".join(map(str, run.genotype.path))
        parts += [
            element("h3", "Cell and path"),
            table(("block", "input", "operation", "input", "operation"), rows),
            element("p", f"Path, as the stride of each layer: {path}"),
        ]
        if run.genotype.provenance:
            told = (
                f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
                for name, value in run.genotype.provenance.items()
                if name not in ("data_settings", "data_identity")
            )
            parts.append(element("p", f"The genotype's origin: {', '.join(told)}", class_="soft"))
    parts += [
        element("h3", "Commands"),
        element("pre", "\n".join(f"# {what}\n{line}" for line, what in commands(run))),
        details("All settings", table(("setting", "value"), run.settings.items())),
    ]
    versions = f"This report was made by nas-segmentation {package_version()}, Python {platform.python_version()}."
    parts.append(element("p", versions, class_="soft"))
    return join(parts)


def commands(run: RunRecord) -> list[tuple[str, str]]:
    """Commands that repeat or resume a run: (command, what it does)."""
    folder = run.path
    again = folder.with_name(f"{folder.resolve().name}-again")
    lines = [
        (f"{run.command} --config {word(folder / CONFIG)} --out {word(again)}", "repeat"),
        (f"{run.command} --resume {word(folder)}", "resume"),
    ]
    if run.searches:
        knows = run.genotype is not None and "data_settings" in run.genotype.provenance
        names = (
            ()
            if knows
            else ("data", "data_root", *(f"loader.{name}" for name in ("resolution", "train_split", "val_split")))
        )
        given = ((name.replace("_", "-"), run.settings.get(name, "null")) for name in names)
        data = "".join(f" --{name} {word(text)}" for name, text in given if text != "null")
        lines.append((f"nas-retrain {word(folder)}{data}", "train what was found, on the data of the search"))
    else:
        lines.append((f"nas-evaluate {word(folder)}", "measure"))
        lines.append((f"nas-predict {word(folder)} IMAGES", "masks and overlays"))
    lines.append((f"nas-draw {word(folder)}{'' if run.searches else ' --image FILE'}", "pictures"))
    return lines


def word(path: str | Path) -> str:
    """A path as a word of a command line; on one line, whatever its name holds."""
    return shlex.quote(" ".join(str(path).split("\n")))
