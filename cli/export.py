"""nas-export: a trained network as an ONNX file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from cli import common
from cli.inference import add_checkpoint_option

DESCRIPTION = """\
Writes the network of a nas-retrain run as an ONNX file, for any number of images of any size, and FILE.json, its model
card: classes, preprocessing, metrics, genotype. Before that, the graph runs in onnxruntime at three sizes and is
compared with PyTorch: one that differs is not written. It takes seconds to minutes, and needs the packages of
pip install 'nas-segmentation[onnx]'."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-export", DESCRIPTION, "RUN --onnx FILE")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder that nas-retrain wrote.")
    parser.add_optional("--onnx", "The file to write, such as model.onnx.")
    add_checkpoint_option(parser)
    outputs = "Output of the graph: a logit for each class and pixel (float32), or the class of each pixel (uint8)."
    parser.add_argument("--output", type=Literal["logits", "labels"], default="logits", help=outputs)
    parser.add_argument("--opset", type=int, default=18, help="Version of ONNX's operators, 18 to 25.")
    parser.add_overwrite()
    return parser


def main(arguments: list[str]) -> None:
    values = common.parse(make_parser(), arguments)
    if not values.onnx:
        raise common.UsageError("--onnx is missing: name the file to write, such as model.onnx")
    if Path(values.onnx).suffix.lower() != ".onnx" and not Path(values.onnx).is_dir():
        raise common.UsageError(
            f"--onnx is {values.onnx!r}: name a file that ends in .onnx, so that it replaces no other one"
        )
    from retrain.export import export_onnx

    if sys.stdout.isatty():
        common.say(f"exporting {values.run}: seconds to minutes")
    done = export_onnx(values.run, values.onnx, values.checkpoint, values.output, values.opset, values.overwrite)
    common.say("onnxruntime compared with PyTorch, on random images:")
    for found in done.parity:
        common.say(f"  {found}")
    common.say(f"wrote {done.file} ({done.file.stat().st_size / 2**20:.1f} MiB, opset {values.opset}) and {done.card}")


entry = common.command("nas-export", main)

if __name__ == "__main__":
    entry()
