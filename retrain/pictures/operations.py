"""Pictures of two operations: lateral inhibition and aggregated smoothing.

Shapes: C channels of h x w pixels at the layer.

Sources: Wang et al., 2020 (LI-Convs), Figure 5, for features before and after a lateral inhibition; Ziegler et al.,
2019 (Efficient Smoothing), Figure 5, for the coefficients of smoothing filters during a training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from nas.runs.pictures import as_picture
from search_spaces.drawing import PALETTE
from search_spaces.lateral_inhibition import LateralInhibition

__all__ = [
    "Inhibited",
    "draw_inhibition",
    "draw_smoothing",
    "inhibition_layers",
    "see_inhibition",
    "smoothing_coefficients",
    "strongest",
]

MAP_WIDTH, CAPTION, HEADER = 2.25, 0.4, 0.8  # inches
LONGEST_NAME = 60
MAPS_IN_ROW = 6
NOTE = "each map from 0 (dark) to its own largest value (bright); W: intensity of the inhibition"


@dataclass(frozen=True)
class Inhibited:
    """Features before and after a lateral inhibition."""

    layer: str
    """Name of the layer in the network."""
    before: np.ndarray
    """[C, h, w], after the layer's first ReLU."""
    after: np.ndarray
    """[C, h, w], the layer's output."""
    intensity: np.ndarray
    """[C], the learned intensities W, 0 to 1."""


def inhibition_layers(network: nn.Module) -> dict[str, LateralInhibition]:
    """The lateral inhibitions of a network by name, in its order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LateralInhibition)}


@torch.no_grad()
def see_inhibition(network: nn.Module, image: Tensor, layer: str | None = None) -> Inhibited:
    """Runs the network on an image and keeps input and output of a lateral inhibition.

    Args:
        network: In eval mode, on the device of the image.
        image: (1, C, H, W).
        layer: Name of the layer; None: the first one.

    Raises:
        ValueError: The network has no lateral inhibition, or none of that name.
    """
    layers = inhibition_layers(network)
    if not layers:
        raise ValueError("the network has no lateral inhibition: train one that has, such as mnv2-li-aspp")
    name = layer or next(iter(layers))
    if name not in layers:
        raise ValueError(f"there is no lateral inhibition {name!r}: choose one of {', '.join(layers)}")
    seen: list[tuple[Tensor, Tensor]] = []
    handle = layers[name].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    try:
        network(image)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"the image does not pass {name}: choose another one of {', '.join(layers)}")
    before, after = seen[0]
    intensity = layers[name].intensity.float().cpu().numpy()
    return Inhibited(name, before[0].relu().float().cpu().numpy(), after[0].float().cpu().numpy(), intensity)


def strongest(inhibited: Inhibited, number: int) -> list[int]:
    """The channels that the layer reduces most, by the mean over the image, in descending order."""
    taken = (inhibited.before - inhibited.after).mean(axis=(1, 2))  # [C]
    return [int(channel) for channel in np.argsort(-taken, kind="stable")[:number]]


def draw_inhibition(image: np.ndarray, inhibited: Inhibited, channels: int = 6) -> Figure:
    """Draws the image, and a few of its channels before (above) and after (below) the lateral inhibition.

    Every map has a scale of its own, from 0 (dark) to its largest value (bright), so that patterns can be compared. The
    text below a map gives that value, and by how much the mean fell.

    Args:
        image: [H, W, C].
        inhibited: Features and intensities of the layer.
        channels: Largest number of channels; those from which most is taken.
    """
    chosen = strongest(inhibited, channels)
    columns = min(len(chosen), MAPS_IN_ROW)
    rows = -(-len(chosen) // columns)
    height = MAP_WIDTH * image.shape[0] / image.shape[1]
    size = (max((columns + 1) * MAP_WIDTH, 7.0), HEADER + 2 * rows * (height + CAPTION))
    figure = Figure(figsize=size, dpi=150, facecolor="white", layout="compressed")
    panels = figure.subplots(2 * rows, columns + 1, squeeze=False)
    for axes in panels.flatten():
        axes.set_visible(False)

    def show(axes: Axes, picture: np.ndarray, title: str, below: str = "", left: str = "") -> None:
        axes.set(visible=True, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        # The aspect is that of the image; nearest: an interpolated map would show patterns that are not there.
        axes.imshow(picture, cmap="viridis", vmin=0, vmax=max(float(picture.max()), 1e-12), interpolation="nearest",
                    aspect=height / MAP_WIDTH * picture.shape[1] / picture.shape[0])  # fmt: skip
        axes.set_title(title, fontsize=11, pad=3)
        axes.set_xlabel(below, fontsize=11)
        axes.set_ylabel(left, fontsize=11)

    name = inhibited.layer if len(inhibited.layer) <= LONGEST_NAME else f"...{inhibited.layer[-LONGEST_NAME:]}"
    title = f"features before and after the lateral inhibition {name}\n{NOTE}"
    figure.suptitle(title, fontsize=11, parse_math=False)
    show(panels[0, 0], as_picture(image), "image")
    for number, channel in enumerate(chosen):
        row, column = divmod(number, columns)
        before, after = inhibited.before[channel], inhibited.after[channel]
        title = f"channel {channel}, W = {inhibited.intensity[channel]:.2f}"
        less = 1 - after.mean() / before.mean() if before.mean() > 0 else 0.0
        left = ("before", "after") if column == 0 else ("", "")
        show(panels[2 * row, column + 1], before, title, f"max {before.max():.2g}", left[0])
        below = f"max {after.max():.2g}, mean \N{MINUS SIGN}{100 * less:.0f} %"
        show(panels[2 * row + 1, column + 1], after, "", below, left[1])
    return figure


NAMES = {"identity": "no filter", "average": "average", "gaussian": "Gaussian", "ss_conv": "SS conv"}
"""Coefficients of `AggregationCoefficients`, and their names in the paper."""

STYLES = ("-", "--", "-.", ":")
MOST_PANELS, COLUMNS = 12, 3
Curve = list[tuple[int, float]]


def smoothing_coefficients(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Collects coefficients from a run's metrics.jsonl: module -> filter -> [(epoch from 1, coefficient)].

    Raises:
        ValueError: There are none.
    """
    found: dict[str, dict[str, Curve]] = {}
    for line in lines:
        numbers = line.get("modules")
        for key, value in numbers.items() if isinstance(numbers, Mapping) else ():
            match = re.fullmatch(rf"(.*)/(mean )?({'|'.join(NAMES)})", key)
            if match and isinstance(value, int | float) and 0 <= value <= 1:
                module = f"mean of all {match[1]}" if match[2] else match[1]
                curves = found.setdefault(module, {name: [] for name in NAMES})
                curves[match[3]].append((line["epoch"] + 1, float(value)))
    if not found:
        raise ValueError(
            "the record has no coefficients of aggregated smoothing: train with --network.smoothing aggregated "
            "(networks with more than 32 recorded numbers have them in TensorBoard only)"
        )
    return found


def draw_smoothing(coefficients: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draws the four coefficients over the epochs: one panel per module, at most twelve."""
    modules: Sequence[str] = list(coefficients)[:MOST_PANELS]
    columns = min(COLUMNS, len(modules))
    rows = -(-len(modules) // columns)
    figure = Figure(
        figsize=(max(4.2 * columns, 7.0), 3.1 * rows + 1.0), dpi=150, facecolor="white", layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, module in zip(panels, modules, strict=False):
        for number, (name, label) in enumerate(NAMES.items()):
            epochs, values = zip(*coefficients[module][name], strict=True)
            axes.plot(epochs, values, STYLES[number], color=PALETTE[number], linewidth=2.2, label=label,
                      marker="o" if len(epochs) == 1 else None)  # fmt: skip
        axes.set_title(module if len(module) < 40 else f"...{module[-36:]}", fontsize=11, parse_math=False)
        axes.tick_params(labelsize=11)
        axes.grid(color="#DDDDDD", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch", fontsize=11)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(modules) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("coefficient", fontsize=11)
    left_out = len(coefficients) - len(modules)
    note = f" ({left_out} more modules are not drawn)" if left_out else ""
    figure.suptitle(f"coefficients of aggregated smoothing{note}", fontsize=13)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(NAMES), fontsize=11, frameon=False, handlelength=3
    )
    return figure
