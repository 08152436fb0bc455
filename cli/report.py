"""nas-report: one HTML file about runs."""

from __future__ import annotations

from pathlib import Path

from cli import common

DESCRIPTION = """\
Writes one HTML file about one run or several, side by side: curves, pictures, the cell and the path, IoU of each class,
settings (those that differ first), and the commands to repeat everything. For a study of nas-sweep: trials, the best
settings, importances, the Pareto front. The file needs no network and no other file; it includes the pictures of
nas-draw in a run's folder."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-report", DESCRIPTION, "RUN...")
    parser.add_argument(
        "run",
        metavar="RUN",
        type=str,
        nargs="+",
        help="Run folders of nas-search and nas-retrain, and folders of nas-sweep's studies.",
    )
    parser.add_optional("--out", "The file; if not given, report.html in the one folder, or in this one for several.")
    parser.add_optional(
        "--image", "Show each network of nas-retrain on this image: features, classes, receptive field."
    )
    parser.add_optional("--storage", "Storage of the one study, as given to nas-sweep.")
    parser.add_optional("--study", "Name of the one study, as given to nas-sweep.")
    parser.add_overwrite()
    return parser


def main(arguments: list[str]) -> None:
    values = common.parse(make_parser(), arguments)
    common.check_file_name("out", values.out)
    if values.out is not None and Path(values.out).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out is {values.out!r}: name a file that ends in .html, so that it replaces no other one")
    from retrain.report.page import write_report

    path = write_report(values.run, values.out, values.image, values.storage, values.study, values.overwrite)
    common.say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


entry = common.command("nas-report", main)

if __name__ == "__main__":
    entry()
