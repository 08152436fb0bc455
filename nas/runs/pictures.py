"""Pictures of a run for TensorBoard and the run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from decoders.path import best_paths
from nas.data.base import IGNORE
from search_spaces.drawing import draw_trellis
from search_spaces.genotype import Genotype

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = [
    "PATHS",
    "SampleKeeper",
    "as_picture",
    "colorize",
    "draw_paths",
    "figure_to_array",
    "heat_map",
    "prediction_strip",
]

PATHS = 5
"""Paths on a trellis, including the genotype's own."""


class SampleKeeper:
    """Callback that keeps the first few batches of an evaluation: (images, labels, predictions)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, images: Tensor, labels: Tensor, predictions: Tensor) -> None:
        if len(self.kept) < self.number:
            self.kept.append((images, labels, predictions))


def colorize(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colours, uint8 [H, W, 3], of labels [H, W]; ignored pixels are black.

    Args:
        labels: Class ids, 255 for ignored.
        colors: uint8 [classes, 3].
    """
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    table[IGNORE] = 0
    return table[labels.astype(np.uint8)]


def as_picture(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] as people can see it: uint8 [H, W, 3].

    Shows the first three channels or, of fewer, the first one as grey. Values other than 8-bit ones are stretched: each
    channel's darkest 1 % becomes black, its brightest 1 % white.
    """
    image = image if image.shape[2] >= 3 else image[..., :1]
    image = np.broadcast_to(image[..., :3], (*image.shape[:2], 3))
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    low, high = np.percentile(image[:: -(-len(image) // 1000)], (1, 99), axis=(0, 1))
    return ((image - low) / np.maximum(high - low, 1e-12) * 255).clip(0, 255).round().astype(np.uint8)


def prediction_strip(images: Tensor, labels: Tensor, predictions: Tensor, colors: np.ndarray) -> np.ndarray:
    """First image, label and prediction of a batch side by side: uint8 [H, 3 * W, 3].

    Args:
        images: (N, C, H, W), as a network gets them.
        labels: (N, H, W).
        predictions: (N, H, W).
        colors: uint8 [classes, 3].
    """
    image = images[0].permute(1, 2, 0).numpy()  # [H, W, C]
    if image.shape[2] in (1, 3) and abs(image).max() <= 1:  # 8 bits, without a normalisation
        image = ((image + 1) * 127.5).round().astype(np.uint8)
    panels = [as_picture(image), colorize(labels[0].numpy(), colors), colorize(predictions[0].numpy(), colors)]
    return np.concatenate(panels, axis=1)


def heat_map(matrix: np.ndarray, pixels: int = 16) -> np.ndarray:
    """A matrix of probabilities as a grey picture: uint8 [rows * pixels, columns * pixels]; white is 1."""
    grey = (np.clip(matrix, 0, 1) * 255).round().astype(np.uint8)
    return np.kron(grey, np.ones((pixels, pixels), dtype=np.uint8))


def figure_to_array(figure: Figure) -> np.ndarray:
    """Draw a matplotlib figure: uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def draw_paths(genotype: Genotype, paths: int = PATHS, title: str | None = None) -> Figure:
    """Draw the trellis with the genotype's path and, in grey, its other most probable paths.

    They are exact (`decoders.best_paths`). Without beta, only the genotype's path is drawn.

    Args:
        genotype: The genotype to draw.
        paths: Number of most probable paths. The genotype's own is always drawn; it may not be among them if it was
            decoded within a limit or edited by hand.
        title: As in `draw_trellis`.
    """
    if genotype.beta is None:
        return draw_trellis(genotype, title=title)
    strides = genotype.space.strides
    best = [tuple(strides[level] for level in path.levels) for path in best_paths(genotype.beta, paths)]
    return draw_trellis(genotype, others=[path for path in best if path != genotype.path], title=title)
