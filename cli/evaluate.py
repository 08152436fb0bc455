"""nas-evaluate: measure a trained network."""

from __future__ import annotations

import dataclasses
import json

from cli import common
from cli.inference import add_inference_options, inference

DESCRIPTION = """\
Measures the network of a nas-retrain run on a split of its data set: IoU of each class, mIoU and pixel accuracy from
one confusion matrix over all images. Prints a table and writes evaluation-SPLIT-CHECKPOINT.json into the run folder,
with all that names the result. With --scales or --flip the class probabilities of several views of each image are
averaged, with --window the logits of overlapping windows; the file's name says so."""


def make_parser() -> common.Parser:
    """The parser of nas-evaluate."""
    parser = common.parser("nas-evaluate", DESCRIPTION, "RUN")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder that nas-retrain wrote.")
    parser.add_optional("--split", "Split to measure; the one validated on, if not given.")
    parser.add_optional("--data_root", "In place of the run's own folder of the data.")
    add_inference_options(parser)
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    return parser


def main(arguments: list[str]) -> None:
    """Parses, evaluates, prints."""
    values = common.parse(make_parser(), arguments)
    how = inference(values)
    from retrain.evaluation import evaluate

    result = evaluate(
        values.run,
        values.split,
        values.checkpoint,
        values.data_root,
        values.device,
        write=False,
        how=how,
        progress=True,
    )
    print(json.dumps(dataclasses.asdict(result)) if values.json else result.table())
    result.save(values.run)  # last: the numbers are on the screen if the folder cannot be written


entry = common.command("nas-evaluate", main)

if __name__ == "__main__":
    entry()
