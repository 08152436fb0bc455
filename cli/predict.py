"""nas-predict: masks and overlays for images."""

from __future__ import annotations

from pathlib import Path

from cli import common
from cli.inference import add_inference_options, inference

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
        "--recursive", action="store_true", help="Take the images in the folder's folders, too, and keep the folders."
    )
    parser.add_argument("--no_overlay", action="store_true", help="Write no NAME_overlay.png.")
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="Write NAME.npz, too: `probabilities`, float16 [classes, H, W], and `classes`, their names.",
    )
    parser.add_argument(
        "--skip_existing",
        action="store_true",
        help="Leave out images whose files are there already: to go on after an interrupt.",
    )
    add_inference_options(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Parses, predicts, prints."""
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
    print(f"wrote {what} into {values.out}{there}")


entry = common.command("nas-predict", main)

if __name__ == "__main__":
    entry()
