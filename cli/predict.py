"""nas-predict: masks and overlays for images."""

from __future__ import annotations

from pathlib import Path

from cli import common
from cli.inference import add_inference_options, inference

DESCRIPTION = """\
Predicts a class for every pixel of an image, or of all images in a folder, with the network of a nas-retrain run.
For each image it writes NAME.png (class ids, as a palette picture) and NAME_overlay.png (classes over the image)."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-predict", DESCRIPTION, "RUN SOURCE")
    parser.add_argument("run", metavar="RUN", type=str, help="The run folder that nas-retrain wrote.")
    parser.add_argument("source", metavar="SOURCE", type=str, help="An image, or a folder of images.")
    parser.add_argument("--out", type=str, default="predictions", help="Folder for the pictures.")
    parser.add_flag("--recursive", "Predict images in subfolders, too, and keep the subfolders.")
    parser.add_flag("--no_overlay", "Write no NAME_overlay.png.")
    parser.add_flag(
        "--probabilities", "Write NAME.npz with `probabilities`, float16 [classes, H, W], and `classes`, the names."
    )
    parser.add_flag("--skip_existing", "Skip images whose files exist already, to resume after an interruption.")
    add_inference_options(parser)
    return parser


def main(arguments: list[str]) -> None:
    values = common.parse(make_parser(), arguments)
    if Path(values.out).is_file():
        raise ValueError(f"--out is {values.out!r}, a file: name a folder")
    how = inference(values)
    from retrain.prediction import Outputs, predict
    from search_spaces.validation import counted

    outputs = Outputs(not values.no_overlay, values.probabilities)
    done = predict(
        values.run,
        values.source,
        values.out,
        values.checkpoint,
        values.device,
        how,
        outputs,
        values.recursive,
        values.skip_existing,
        progress=True,
    )
    *first, last = [
        counted(len(done.written), "mask"),
        *["overlays" if len(done.written) != 1 else "its overlay"] * outputs.overlay,
        *["probabilities"] * outputs.probabilities,
    ]
    what = f"{', '.join(first)} and {last}" if first else last
    there = f"; {done.there} {'was' if done.there == 1 else 'were'} there" if done.there else ""
    print(f"wrote {what} into {values.out}{there}{f'; {done.unread}' if done.unread else ''}")


entry = common.command("nas-predict", main)

if __name__ == "__main__":
    entry()
