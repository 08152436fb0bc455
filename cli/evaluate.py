"""nas-evaluate: measure a trained network."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

from cli import common

DESCRIPTION = """\
Measures the network of a nas-retrain run on a split of its data set: IoU of each class, mIoU and pixel accuracy from
one confusion matrix over all images. Prints a table and writes evaluation-SPLIT-CHECKPOINT.json into the run folder.
With --scales or --flip the class probabilities of several views of each image are averaged; the file's name says so."""

SCALE_SETS: dict[str, tuple[float, ...]] = {
    "li3": (0.5, 1.0, 1.75),
    "li5": (0.5, 0.75, 1.0, 1.25, 1.75),
    "li6": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
}
"""Of Table 6 of Wang et al., 2020 (LI-Convs)."""


def make_parser() -> common.Parser:
    """The parser of nas-evaluate."""
    parser = common.parser("nas-evaluate", DESCRIPTION, "RUN")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder that nas-retrain wrote.")
    parser.add_argument(
        "--split", type=str | None, default=None, help="Split to measure; the one validated on, if not given."
    )
    parser.add_argument(
        "--checkpoint",
        type=Literal["best", "last"],
        default="best",
        help="The highest validation mIoU, or the last epoch.",
    )
    parser.add_argument(
        "--data_root", type=str | None, default=None, help="In place of the run's own folder of the data."
    )
    parser.add_argument(
        "--device", type=str, default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
    )
    named = ", ".join(f"{name} ({','.join(f'{scale:g}' for scale in scales)})" for name, scales in SCALE_SETS.items())
    parser.add_argument(
        "--scales",
        type=str,
        default="1",
        help=f"Factors at which each image is seen, with commas, such as 0.5,1,1.75; or a set of the LI-Convs paper: "
        f"{named}.",
    )
    parser.add_argument("--flip", action="store_true", help="See each image mirrored left and right, too.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    return parser


def parse_scales(text: str) -> tuple[float, ...]:
    """The scales that a set's name or a list stands for; whether they can be used is checked by the evaluation.

    Raises:
        ValueError: It is neither.
    """
    if text in SCALE_SETS:
        return SCALE_SETS[text]
    try:
        return tuple(float(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        raise ValueError(
            f"--scales is {text!r}: give factors with commas, such as 0.5,1,1.75, or one of {', '.join(SCALE_SETS)}"
        ) from None


def main(arguments: list[str]) -> None:
    """Parses, evaluates, prints."""
    values = common.parse(make_parser(), arguments)
    scales = parse_scales(values.scales)
    from retrain.evaluation import evaluate

    result = evaluate(
        values.run,
        values.split,
        values.checkpoint,
        values.data_root,
        values.device,
        write=False,
        scales=scales,
        flip=values.flip,
    )
    print(json.dumps(dataclasses.asdict(result)) if values.json else result.table())
    result.save(values.run)  # last: the numbers are on the screen if the folder cannot be written


def entry() -> None:
    """The console script."""
    common.run("nas-evaluate", main)


if __name__ == "__main__":
    entry()
