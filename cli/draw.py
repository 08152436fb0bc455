"""nas-draw: pictures of a run."""

from __future__ import annotations

from pathlib import Path

from cli import common
from retrain.pictures.config import Checkpoint, PictureConfig

DESCRIPTION = """\
Draws pictures of a run of nas-search or nas-retrain into the folder `pictures` of the run, as SVG and PNG: all that the
run can have, or those of --what. There, nas-report finds them."""

NAMES = """\
pictures:
  trellis    the path on the trellis, and the next ones in grey, [--paths]
  cell       the cell as a graph
  history    path and cell over a search; with --out FILE.gif, or without --out, as an animation
  smoothing  coefficients of aggregated smoothing over a training
  features   features of --image before and after a lateral inhibition, [--layer, --channels]
  heat       probability of classes over --image, [--classes]
  field      effective receptive field, [--size, --samples, --image]"""


def make_parser() -> common.Parser:
    """The parser of nas-draw."""
    parser = common.parser("nas-draw", DESCRIPTION, "RUN")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder.")
    parser.add_argument("--what", type=str | None, default=None, help="Names of pictures, with commas; see below.")
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="File of the one picture named by --what: .svg, .png or .pdf, or (history) .gif.",
    )
    parser.add_argument("--tensorboard", action="store_true", help="Show the pictures in TensorBoard, too.")
    parser.add_argument("--image", type=str | None, default=None, help="The image that the network shall see.")
    parser.add_argument(
        "--paths", type=int | None, default=None, help="How many of the most probable paths; 5, if not given."
    )
    parser.add_argument(
        "--layer", type=str | None, default=None, help="Name of the lateral inhibition; the first one, if not given."
    )
    parser.add_argument("--channels", type=int | None, default=None, help="How many channels; 6, if not given.")
    parser.add_argument(
        "--classes",
        type=str | None,
        default=None,
        help="Names of classes, with commas; the six that the network sees most of, if not given.",
    )
    parser.add_argument("--size", type=int | None, default=None, help="Side of the input in pixels; 257, if not given.")
    parser.add_argument("--samples", type=int | None, default=None, help="Inputs to average over; 16, if not given.")
    parser.add_argument(
        "--checkpoint",
        type=Checkpoint | None,
        default=None,
        help="best (highest validation mIoU) or last; best, if not given.",
    )
    parser.add_argument(
        "--device", type=str | None, default=None, help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
    )
    parser.notes = NAMES
    return parser


def main(arguments: list[str]) -> None:
    """Parses, draws, prints."""
    values = common.parse(make_parser(), arguments)
    options = vars(values)
    run, what, out, tensorboard = (options.pop(name) for name in ("run", "what", "out", "tensorboard"))
    config = PictureConfig(**options)
    if out is not None and (not Path(out).name or Path(out).is_dir()):
        raise ValueError(f"--out is {out!r}, a folder: name a file in it")
    names = tuple(name.strip() for name in what.split(",")) if what is not None else ()
    from retrain.pictures.drawing import draw_pictures

    written, impossible = draw_pictures(run, names, config, out, tensorboard)
    for path in written:
        print(f"wrote {path}")
    for name, reason in impossible.items():
        print(f"no {name}: {reason}")


def entry() -> None:
    """The console script."""
    common.run("nas-draw", main)


if __name__ == "__main__":
    entry()
