"""nas-predict: masks and overlays for images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from cli import common

DESCRIPTION = """\
Predicts a class for every pixel of an image, or of all images in a folder, with the network of a nas-retrain run.
For each image it writes NAME.png (class ids, as a palette picture) and NAME_overlay.png (classes over the image)."""


def make_parser() -> common.Parser:
    """The parser of nas-predict."""
    parser = common.parser("nas-predict", DESCRIPTION, "RUN SOURCE")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder that nas-retrain wrote.")
    parser.add_argument("source", metavar="SOURCE", type=str, help="An image, or a folder of images.")
    parser.add_argument("--out", type=str, default="predictions", help="Folder for the pictures.")
    parser.add_argument(
        "--checkpoint",
        type=Literal["best", "last"],
        default="best",
        help="The highest validation mIoU, or the last epoch.",
    )
    parser.add_argument(
        "--device", type=str, default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
    )
    return parser


def main(arguments: list[str]) -> None:
    """Parses, predicts, prints."""
    values = common.parse(make_parser(), arguments)
    if Path(values.out).is_file():
        raise ValueError(f"--out is {values.out!r}, a file: name a folder")
    from retrain.prediction import predict

    def show(number: int, total: int) -> None:
        if sys.stdout.isatty():
            print(f"\r{number} of {total} images", end="" if number < total else "\n", flush=True)

    written = predict(values.run, values.source, values.out, values.checkpoint, values.device, show)
    print(f"wrote {len(written)} masks and overlays into {values.out}")


def entry() -> None:
    """The console script."""
    common.run("nas-predict", main)


if __name__ == "__main__":
    entry()
