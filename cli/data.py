"""nas-data: what is in a data set, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

from cli import common
from search_spaces.validation import did_you_mean

DESCRIPTION = """\
Looks at data sets. Each verb has options of its own: see nas-data VERB --help."""

CHECK = """\
Reads every image and label of a data set and prints what is wrong with them, sizes, how often each class occurs, class
weights, mean and standard deviation. Exit code 0: all is well; 2: there are problems."""

VERBS = {"check": "Is a data set ready to be trained on? Problems, sizes, classes, weights, a contact sheet."}

SAMPLES = 12
"""On a contact sheet, unless a number is asked for."""

MOST_SAMPLES = 300
"""What programs still show as one picture."""


def make_parser() -> common.Parser:
    """The parser of nas-data: only for its help, as the verb's own parser reads the command line."""
    parser = common.parser("nas-data", DESCRIPTION, "VERB")
    parser.add_argument("verb", metavar="VERB", choices=tuple(VERBS), help="What to do; see below.")
    parser.notes = "verbs:\n" + "\n".join(f"  {verb}  {text}" for verb, text in VERBS.items())
    return parser


def make_check_parser() -> common.Parser:
    """The parser of nas-data check."""
    parser = common.parser("nas-data check", CHECK, "NAME [ROOT]")
    parser.add_argument("name", metavar="NAME", type=str, help="The data set, as --data of nas-search names it.")
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        type=str | None,
        default=None,
        help="Its folder, as --data-root; none for the built-in one.",
    )
    parser.add_argument("--splits", nargs="+", type=str, default=[], help="Which splits; all, if not given.")
    parser.add_argument("--workers", type=int, default=4, help="Files read at a time, at least 1.")
    parser.add_argument(
        "--contact_sheet",
        type=str | None,
        default=None,
        metavar="FILE.png",
        help="A picture to write: samples with their classes in colour.",
    )
    parser.add_argument(
        "--samples",
        type=int | None,
        default=None,
        help=f"Samples on the contact sheet, evenly spread over the splits; {SAMPLES} if not given.",
    )
    parser.add_argument("--json", action="store_true", help="Print the report as JSON, with all problems.")
    return parser


def main(arguments: list[str]) -> None:
    """Parses, checks, prints."""
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if not verb or verb.startswith("-"):
        common.parse(make_parser(), arguments)  # prints the help, or raises
    if verb not in VERBS:
        near = did_you_mean(verb, VERBS) or ":"
        raise common.UsageError(f"no verb {verb!r}{near} choose one of {', '.join(VERBS)} (see nas-data --help)")
    check(rest)


def check(arguments: list[str]) -> None:
    """nas-data check.

    Raises:
        DataError: Something is wrong with the data; the report has been printed.
    """
    values = common.parse(make_check_parser(), arguments)
    if values.workers < 1:
        raise common.UsageError(f"--workers is {values.workers}: give at least 1")
    _check_picture(values.contact_sheet, values.samples)
    from nas.data.base import DATASETS, DataError
    from nas.data.check.checking import check as check_splits
    from nas.data.check.checking import open_splits
    from nas.data.check.report import as_data, as_text, summary
    from nas.training.progress import StepProgress

    if DATASETS[values.name].needs_root and values.root is None:
        raise common.UsageError(
            f"ROOT is missing: name the folder of the data set, as in nas-data check {values.name} DIR"
        )
    opened = open_splits(values.name, values.root, values.splits or None)
    with StepProgress(opened.samples) as progress:
        report = check_splits(opened, values.workers, progress.step)
    print(json.dumps(as_data(report)) if values.json else as_text(report))
    if values.contact_sheet is not None:
        from nas.data.check.contact_sheet import write_contact_sheet

        write_contact_sheet(opened.splits, values.samples or SAMPLES, values.contact_sheet)
    if report.problems:
        raise DataError(summary(report))


def _check_picture(path: str | None, samples: int | None) -> None:
    """Checks what is asked of the contact sheet, here and not after minutes."""
    if path is None and samples is not None:
        raise common.UsageError("--samples is for the contact sheet: give --contact-sheet FILE.png, too")
    if samples is not None and not 1 <= samples <= MOST_SAMPLES:
        raise common.UsageError(f"--samples is {samples}: give 1 to {MOST_SAMPLES}")
    if path is not None and Path(path).suffix.lower() != ".png":
        raise common.UsageError(f"--contact-sheet is {path!r}: give the name of a PNG file, such as sheet.png")
    if path is not None and Path(path).is_dir():
        raise common.UsageError(f"--contact-sheet is {path!r}, a folder: give the name of a file in it")


def entry() -> None:
    """The console script."""
    common.run("nas-data", main)


if __name__ == "__main__":
    entry()
