"""The effective receptive field: the influence of each input pixel on the central output.

Source: Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural Networks, 2016. They
propagate a gradient of 1 from the central output back to the input and average over inputs. The plain sum of a
classifier's logits is not informative, as softmax does not depend on it. Here the logits of each input get random signs
and squared gradients are averaged: all classes count, whatever their sign.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from retrain.networks.base import SegmentationNetwork

__all__ = ["draw_field", "effective_field", "effective_part", "effective_side", "reach"]

SEED = 0
THRESHOLD = 0.0455
"""Share of the largest gradient above which a pixel is in the effective field: 1 - 0.9545, Luo et al.'s two sigma."""

WINDOW = 9

FAINTEST = 1e-4
"""Share of the largest gradient at which the colour scale begins."""


def effective_field(
    network: SegmentationNetwork, size: int = 257, samples: int = 16, image: Tensor | None = None
) -> np.ndarray:
    """Root mean square of the gradient of the central logits by each pixel: float64 [size, size], the largest is 1.

    Args:
        network: In eval mode.
        size: Side of the input in pixels; with 16 n + 1 the middle output of a network of stride 16 is in the middle.
        samples: Inputs to average over.
        image: (C, H, W): inputs are random crops of it, enlarged first where it is smaller than an input.
            None: inputs are noise, uniform in [-1, 1].

    Raises:
        ValueError: No gradient arrives at the input.
    """
    generator = torch.Generator().manual_seed(SEED)
    device = next(network.parameters()).device
    squares = torch.zeros(size, size, dtype=torch.float64)
    for _ in range(samples):
        x = _sample((network.channels, size, size), image, generator).to(device).requires_grad_()
        logits = network.logits(x)  # (1, classes, h, w)
        middle = logits[0, :, logits.shape[-2] // 2, logits.shape[-1] // 2]
        signs = torch.randint(0, 2, middle.shape, generator=generator).to(middle) * 2 - 1
        (gradient,) = torch.autograd.grad((middle * signs).sum(), x)
        squares += gradient[0].double().square().sum(0).cpu()
    field = squares.sqrt().numpy()
    if not field.max() > 0:
        raise ValueError("no gradient arrives at the input: are the network's weights all zero?")
    return field / field.max()


def _sample(shape: tuple[int, int, int], image: Tensor | None, generator: torch.Generator) -> Tensor:
    """An input (1, C, size, size)."""
    if image is None:
        return torch.rand(1, *shape, generator=generator) * 2 - 1
    size = shape[-1]
    height, width = image.shape[-2:]
    if min(height, width) < size:
        factor = size / min(height, width)
        enlarged = (max(size, round(height * factor)), max(size, round(width * factor)))
        image = torch.nn.functional.interpolate(image[None], enlarged, mode="bilinear", align_corners=False)[0]
        height, width = image.shape[-2:]
    top = int(torch.randint(0, height - size + 1, (), generator=generator))
    left = int(torch.randint(0, width - size + 1, (), generator=generator))
    return image[None, :, top : top + size, left : left + size].clone()


def effective_part(field: np.ndarray) -> np.ndarray:
    """Mask where the field, averaged over 9 x 9 pixels, exceeds the threshold: bool [size, size].

    Without the average, the grid that strides leave in a field would split the effective part.
    """
    squares = torch.from_numpy(field).square()[None, None]
    mean = torch.nn.functional.avg_pool2d(squares, WINDOW, 1, WINDOW // 2, count_include_pad=False)[0, 0].sqrt()
    return (mean > THRESHOLD * mean.max()).numpy()


def effective_side(field: np.ndarray) -> float:
    """Side, in pixels, of a square with the area of the effective part."""
    return float(np.sqrt(effective_part(field).sum()))


def reach(field: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (bottom and right exclusive) of the pixels with any gradient."""
    rows, columns = (np.flatnonzero(field.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def draw_field(field: np.ndarray, name: str, inputs: str) -> Figure:
    """Draws the field on a logarithmic scale, the outline of the effective part, and the extent of all dependencies.

    Args:
        field: [size, size], the largest 1, as `effective_field` gives it.
        name: Name of the network.
        inputs: Description of the inputs, for the caption.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    size, (top, bottom, left, right) = len(field), reach(field)
    figure = Figure(figsize=(6.4, 6.5), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(np.maximum(field, FAINTEST), norm=LogNorm(FAINTEST, 1), cmap="viridis", interpolation="nearest")
    square = f"above {100 * THRESHOLD:.3g} % of the largest in the mean of 9 x 9 pixels: everywhere"
    if not (effective := effective_part(field)).all():
        axes.contour(effective, levels=[0.5], colors="white", linewidths=2.0)
        side = effective_side(field)
        square = f"white line: above {100 * THRESHOLD:.3g} % in the mean, as large as a square of side {side:.0f}"
    extent = f"the output depends on all of the {size} x {size} pixels"
    if (bottom - top, right - left) != (size, size):
        extent = f"dashed: all pixels that the output depends on, {bottom - top} x {right - left}"
        axes.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="#D55E00",
                      linewidth=2.5, linestyle="--")
        )  # fmt: skip
    axes.tick_params(labelsize=11)
    axes.set_xlabel("column, pixels", fontsize=11)
    axes.set_ylabel("row, pixels", fontsize=11)
    axes.set_title(f"root mean square over {inputs}", fontsize=11)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=11)
    bar.set_label("gradient, largest = 1", fontsize=11)
    figure.suptitle(f"effective receptive field of {name}", fontsize=13, parse_math=False)
    figure.supxlabel(f"{square}\n{extent}", fontsize=11)
    return figure
