"""nas-data: makes data sets of what annotation tools write, and checks data sets."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from cli import common
from nas.config import ImageConfig
from nas.data.convert.config import ConvertConfig
from search_spaces.files import check_replaceable
from search_spaces.validation import counted

DESCRIPTION = """\
Converts and checks data sets. Each verb has its own options: see nas-data VERB --help."""

CHECK = """\
Reads every image and label of a data set and prints problems, sizes, the share of each class, class weights, mean and
standard deviation. Exit code 0: no problems; 2: there are problems (with --strict: or warnings)."""

CONVERT = """\
Makes a data set for --data folder of what annotation tools write: COCO JSON, labelme JSON, CVAT XML (for images 1.1),
Supervisely JSON, or masks in colours, ids, or 0 and 255. OUT must not exist, or be empty."""

VERBS = {
    "check": "Checks that a data set is ready for training: problems, sizes, classes, weights, a contact sheet.",
    "convert": "Makes a data set of what annotation tools write (COCO, labelme, CVAT, Supervisely, masks).",
}

SAMPLES = 12
"""Default number of samples on a contact sheet."""

MOST_SAMPLES = 300
"""Number of samples that image viewers can still show as one picture."""


def make_parser() -> common.Parser:
    return common.verbs_parser("nas-data", DESCRIPTION, VERBS)


def make_check_parser() -> common.Parser:
    parser = common.parser("nas-data check", CHECK, "NAME [ROOT]")
    parser.add_argument("name", metavar="NAME", type=str, help="The data set, as --data of nas-search names it.")
    parser.add_optional("root", "Its folder, as --data-root; none for the built-in one.", metavar="ROOT", nargs="?")
    parser.add_argument("--splits", nargs="+", type=str, default=[], help="Which splits; all, if not given.")
    parser.add_argument("--workers", type=int, default=4, help="Files read at a time, at least 1.")
    parser.add_optional(
        "--contact_sheet", "A picture to write: samples with their classes in colour.", metavar="FILE.png"
    )
    parser.add_optional(
        "--samples", f"Samples on the contact sheet, evenly spread over the splits; {SAMPLES} if not given.", int
    )
    parser.add_flag("--strict", "End with exit code 2 where there are warnings, too.")
    parser.add_flag("--json", "Print the report as JSON, with all problems.")
    parser.add_overwrite()
    parser.add_class_arguments(ImageConfig, "loader")
    return parser


def make_convert_parser() -> common.Parser:
    parser = common.parser("nas-data convert", CONVERT, "SOURCE OUT")
    parser.add_argument("source", metavar="SOURCE", type=str, help="Folder of the annotations, or their only file.")
    parser.add_argument("out", metavar="OUT", type=str, help="Folder to make.")
    parser.add_settings(ConvertConfig, skip=("source", "out"))
    return parser


def main(arguments: list[str]) -> None:
    verb, rest = common.take_verb(make_parser, arguments, VERBS)
    {"check": check, "convert": convert}[verb](rest)


def check(arguments: list[str]) -> None:
    """nas-data check.

    Raises:
        DataError: Something is wrong with the data; the report has been printed.
    """
    values = common.parse(make_check_parser(), arguments)
    if values.workers < 1:
        raise common.UsageError(f"--workers is {values.workers}: give at least 1")
    _check_picture(values.contact_sheet, values.samples)
    if values.contact_sheet is not None and not values.overwrite:
        check_replaceable([Path(values.contact_sheet)])
    from nas.data.base import DATASETS, DataError
    from nas.data.check.checking import check as check_splits
    from nas.data.check.checking import open_splits
    from nas.data.check.report import as_data, as_text, summary
    from nas.training.progress import StepProgress

    if DATASETS[values.name].needs_root and values.root is None:
        raise common.UsageError(
            f"ROOT is missing: name the folder of the data set, as in nas-data check {values.name} DIR"
        )
    opened = open_splits(values.name, values.root, values.splits or None, values.loader)
    with StepProgress(opened.samples) as progress:
        report = check_splits(opened, values.workers, progress.step)
    common.say(json.dumps(as_data(report)) if values.json else as_text(report))
    if values.contact_sheet is not None:
        from nas.data.check.contact_sheet import write_contact_sheet

        write_contact_sheet(opened.splits, values.samples or SAMPLES, values.contact_sheet)
    if report.problems:
        raise DataError(summary(report))
    if values.strict and report.warnings:
        raise DataError(f"{counted(len(report.warnings), 'warning')}; the first: {report.warnings[0]}")


def convert(arguments: list[str]) -> None:
    """nas-data convert.

    Raises:
        DataError: SOURCE cannot be converted, or OUT has something in it; OUT is as it was.
    """
    config = common.settings(ConvertConfig, common.parse(make_convert_parser(), arguments))
    from nas.data.convert import converting

    common.say(converting.as_text(converting.convert(config, quiet=False)))
    common.say(f"\nnext: nas-data check folder {shlex.quote(config.out)} --contact-sheet sheet.png")


def _check_picture(path: str | None, samples: int | None) -> None:
    """Checks the options of the contact sheet before minutes of work."""
    if path is None and samples is not None:
        raise common.UsageError("--samples is for the contact sheet: give --contact-sheet FILE.png, too")
    if samples is not None and not 1 <= samples <= MOST_SAMPLES:
        raise common.UsageError(f"--samples is {samples}: give 1 to {MOST_SAMPLES}")
    if path is not None and Path(path).suffix.lower() != ".png":
        raise common.UsageError(f"--contact-sheet is {path!r}: give the name of a PNG file, such as sheet.png")
    common.check_file_name("contact-sheet", path)


entry = common.command("nas-data", main)

if __name__ == "__main__":
    entry()
