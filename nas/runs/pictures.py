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

__all__ = ["PATHS", "SampleKeeper", "colorize", "draw_paths", "figure_to_array", "heat_map", "prediction_strip"]

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


def prediction_strip(images: Tensor, labels: Tensor, predictions: Tensor, colors: np.ndarray) -> np.ndarray:
    """First image, label and prediction of a batch side by side: uint8 [H, 3 * W, 3].

    Args:
        images: (N, 3, H, W) in [-1, 1].
        labels: (N, H, W).
        predictions: (N, H, W).
        colors: uint8 [classes, 3].
    """
    image = ((images[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)  # [H, W, 3]
    panels = [image, colorize(labels[0].numpy(), colors), colorize(predictions[0].numpy(), colors)]
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
