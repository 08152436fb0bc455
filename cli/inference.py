"""The options that nas-evaluate and nas-predict share: which network, what it sees of an image, how it is computed."""

from __future__ import annotations

from typing import Literal

from jsonargparse import Namespace

from cli import common
from nas.config import Precision
from nas.evaluation.inference import WINDOW_BATCH, Inference

__all__ = ["SCALE_SETS", "add_inference_options", "inference", "parse_scales"]

SCALE_SETS: dict[str, tuple[float, ...]] = {
    "li3": (0.5, 1.0, 1.75),
    "li5": (0.5, 0.75, 1.0, 1.25, 1.75),
    "li6": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
}
"""Of Table 6 of Wang et al., 2020 (LI-Convs)."""


def add_inference_options(parser: common.Parser) -> None:
    """The options of both commands."""
    parser.add_argument(
        "--checkpoint",
        type=Literal["best", "last"],
        default="best",
        help="The highest validation mIoU, or the last epoch.",
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
    parser.add_optional(
        "--window", "HEIGHTxWIDTH in pixels: see larger images in overlapping windows of that size, at each scale."
    )
    parser.add_optional(
        "--stride", "HEIGHTxWIDTH: steps from a window to the next; two thirds of the window, if not given."
    )
    parser.add_argument(
        "--window_batch", type=int, default=WINDOW_BATCH, help="Windows in one pass through the network."
    )
    parser.add_optional(
        "--precision",
        "In place of the run's own: float32, tf32 (NVIDIA GPUs), bfloat16 or float16; fp32, bf16, fp16 for short.",
        Precision,
    )
    parser.add_argument(
        "--no_fold",
        action="store_true",
        help="Leave batch norms as they are; else they become part of the convolutions in front of them, which is the "
        "same to rounding, and faster.",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="Compile the network (torch.compile): minutes at first, and anew for images of another size.",
    )


def inference(values: Namespace) -> Inference:
    """What the options say.

    Raises:
        ValueError: A value cannot be used.
    """
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
    """The scales that a set's name or a list stands for; whether they can be used is checked by `Viewing`.

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
