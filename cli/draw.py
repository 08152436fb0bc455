"""nas-draw: pictures of a run."""

from __future__ import annotations

from cli import common
from retrain.pictures.config import PictureConfig

DESCRIPTION = """\
Draws pictures of a run of nas-search or nas-retrain into the folder `pictures` of the run, as SVG and PNG: all that the
run can have, or those of --what. nas-report includes them."""

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
    parser = common.parser("nas-draw", DESCRIPTION, "RUN")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder.")
    parser.add_optional("--what", "Names of pictures, with commas; see below.")
    parser.add_optional("--out", "File of the one picture named by --what: .svg, .png or .pdf, or (history) .gif.")
    parser.add_flag("--tensorboard", "Show the pictures in TensorBoard, too.")
    parser.add_overwrite()
    parser.add_settings(PictureConfig)
    parser.notes = NAMES
    return parser


def main(arguments: list[str]) -> None:
    values = common.parse(make_parser(), arguments)
    common.check_file_name("out", values.out)
    config = common.settings(PictureConfig, values)
    names = tuple(name.strip() for name in values.what.split(",")) if values.what is not None else ()
    from retrain.pictures.drawing import draw_pictures

    written, impossible = draw_pictures(values.run, names, config, values.out, values.tensorboard, values.overwrite)
    for path in written:
        common.say(f"wrote {path}")
    for name, reason in impossible.items():
        common.say(f"no {name}: {reason}")


entry = common.command("nas-draw", main)

if __name__ == "__main__":
    entry()
