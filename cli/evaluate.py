"""nas-evaluate: measure a trained network."""

from __future__ import annotations

import dataclasses
import json

from cli import common
from cli.inference import add_inference_options, inference
from nas.config import DataChanged

DESCRIPTION = """\
Measures the network of a nas-retrain run on a split of its data set: IoU of each class, mIoU and pixel accuracy from
one confusion matrix over all images. Prints a table and writes evaluation-SPLIT-CHECKPOINT.json, with all facts that
identify the result, into the run folder. --scales and --flip average the class probabilities of several views of each
image, --window the logits of overlapping windows; the file's name contains them."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-evaluate", DESCRIPTION, "RUN")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder that nas-retrain wrote.")
    parser.add_optional("--split", "Split to measure; the validation split of the run if not given.")
    parser.add_optional("--data_root", "Folder of the data set; that of the run if not given.")
    parser.add_argument(
        "--data_changed",
        type=DataChanged,
        default="refuse",
        help="Reaction if the training or validation split has other samples than in the training.",
    )
    add_inference_options(parser)
    parser.add_flag("--json", "Print JSON instead of a table.")
    return parser


def main(arguments: list[str]) -> None:
    values = common.parse(make_parser(), arguments)
    how = inference(values)
    from retrain.evaluation import evaluate

    which = (values.split, values.checkpoint, values.data_root)
    more = {"how": how, "progress": True, "data_changed": values.data_changed}
    result = evaluate(values.run, *which, values.device, write=False, **more)
    common.say(json.dumps(dataclasses.asdict(result)) if values.json else result.table())
    result.save(values.run)  # last: the numbers are on the screen if the folder cannot be written


entry = common.command("nas-evaluate", main)

if __name__ == "__main__":
    entry()
