"""Options of nas-evaluate and nas-predict: the checkpoint, the views of an image, precision, folding, compiling."""

from __future__ import annotations

from typing import Literal

from jsonargparse import Namespace

from cli import common
from nas.config import Precision
from nas.evaluation.inference import WINDOW_BATCH, Inference

__all__ = ["SCALE_SETS", "add_checkpoint_option", "add_inference_options", "inference", "parse_scales"]

SCALE_SETS: dict[str, tuple[float, ...]] = {
    "li3": (0.5, 1.0, 1.75),
    "li5": (0.5, 0.75, 1.0, 1.25, 1.75),
    "li6": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
}
"""Table 6 of Wang et al., 2020 (LI-Convs)."""


def add_checkpoint_option(parser: common.Parser) -> None:
    """Adds --checkpoint."""
    description = "The highest validation mIoU, or the last epoch."
    parser.add_argument("--checkpoint", type=Literal["best", "last"], default="best", help=description)


def add_inference_options(parser: common.Parser) -> None:
    """Adds the options that both commands share."""
    add_checkpoint_option(parser)
    parser.add_argument(
        "--device", type=str, default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
    )
    named = ", ".join(f"{name} ({','.join(f'{scale:g}' for scale in scales)})" for name, scales in SCALE_SETS.items())
    parser.add_argument(
        "--scales",
        type=str,
        default="1",
        help=f"Factors by which to resize each image, with commas, such as 0.5,1,1.75; or a set of the LI-Convs paper: "
        f"{named}.",
    )
    parser.add_flag("--flip", "Also use each image mirrored left and right.")
    parser.add_optional(
        "--window", "HEIGHTxWIDTH in pixels: split larger images into overlapping windows of that size, at each scale."
    )
    parser.add_optional("--stride", "HEIGHTxWIDTH: steps between windows; two thirds of the window if not given.")
    parser.add_argument(
        "--window_batch", type=int, default=WINDOW_BATCH, help="Windows in one pass through the network."
    )
    parser.add_optional(
        "--precision",
        "float32, tf32 (NVIDIA GPUs), bfloat16 or float16; fp32, bf16, fp16 for short; that of the run if not given.",
        Precision,
    )
    parser.add_flag(
        "--no_fold",
        "Keep batch norms; by default they are folded into the convolutions, which is faster and equal to rounding.",
    )
    parser.add_flag(
        "--compile", "Compile the network (torch.compile): takes minutes at first, and for each new image size."
    )


def inference(values: Namespace) -> Inference:
    """Makes the inference settings from the options; raises a ValueError for a value that cannot be used."""
    return Inference(
        parse_scales(values.scales),
        values.flip,
        None if values.window is None else common.parse_size("--window", values.window),
        None if values.stride is None else common.parse_size("--stride", values.stride),
        values.window_batch,
        values.precision,
        not values.no_fold,
        values.compile,
    )


def parse_scales(text: str) -> tuple[float, ...]:
    """Parses the name of a set or a list of factors, whose range `Viewing` checks; raises a ValueError otherwise."""
    if text in SCALE_SETS:
        return SCALE_SETS[text]
    try:
        return tuple(float(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        raise ValueError(
            f"--scales is {text!r}: give factors with commas, such as 0.5,1,1.75, or one of {', '.join(SCALE_SETS)}"
        ) from None
