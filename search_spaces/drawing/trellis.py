"""Picture of a genotype's path on the trellis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.drawing.canvas import LINE, Point, canvas, draw_text, draw_title, save_figure, space_name
from search_spaces.genotype import Genotype

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_trellis", "draw_trellis_graph", "path_probability_text"]

HIGHLIGHT, OTHERS, LIKELY = "#D55E00", "#4D4D4D", "#262626"
OPACITY, OTHERS_OPACITY, OTHERS_TOGETHER = 0.45, 0.18, 0.55
"""Of the path; of another one at most, and about that of all others where they run together."""
BAND, OTHERS_BAND = 10, 16
"""Width in points; the others' is larger, so that they show beneath the path, too."""

# Of the legend, in inches.
ROW, SAMPLE, GAP, LETTER = 0.3, 0.42, 0.12, 0.078

Sample = tuple[float, float, float, str, float]
"""Of the legend: begin and end (0 to 1), width in points, colour, opacity."""


def draw_trellis(
    genotype: Genotype, path: str | Path | None = None, others: Sequence[Sequence[int]] = (), title: str | None = None
) -> Figure:
    """Draws the trellis with the genotype's path: layers from left to right, the finest level at the top.

    With beta, likelier transitions are wider and darker; without, all are thin.

    Args:
        genotype: Genotype whose path is drawn.
        path: If given, `save_figure` writes the picture there.
        others: More paths, such as the k best, drawn in grey beneath the genotype's own; each as the strides of the
            layers, like `Genotype.path`. The grey is darker where several run together.
        title: Replaces the space's name and the path's probability.

    Raises:
        ValueError: One of the others is not a path of the space.
    """
    space = genotype.space
    other_levels = [replace(genotype, path=tuple(other)).levels for other in others]  # which checks the path
    step = 0.8 if space.layers <= 14 else 0.5 if space.layers <= 60 else 30 / space.layers
    row, radius = 0.75, min(0.15, step / 4)
    legend = _legend(genotype, other_levels)
    header, footer, labels = 0.9, 0.65 + ROW * len(legend), 1.1
    width = max(labels + step * space.layers + 0.5, 6.0)
    figure, axes = canvas(width, header + footer + row * max(space.levels - 1, 0.5))
    shift = (width - labels - step * space.layers - 0.5) / 2

    def at(layer: int, level: int) -> Point:
        return labels + shift + step * layer, footer + row * (max(space.levels - 1, 0.25) - level)

    draw_trellis_graph(axes, genotype, at, min(1.0, step / 0.5), radius, other_levels)
    draw_text(axes, (at(0, 0)[0], at(0, 0)[1] + 0.3), "stem")
    for level, stride in enumerate(space.strides):
        label = f"stride {stride}" if level == 0 else str(stride)
        draw_text(axes, (at(0, level)[0] - 0.3, at(0, level)[1]), label, align="right")
    every = max(1, math.ceil(0.4 / step))
    for layer in range(1, space.layers + 1):
        if layer == 1 or layer % every == 0:
            draw_text(axes, (at(layer, 0)[0], footer - 0.3), str(layer))
    draw_text(axes, (at(0, 0)[0], footer - 0.3), "layer")

    probability = "" if genotype.beta is None else f", probability {path_probability_text(genotype)}"
    _draw_legend(axes, legend, width)
    draw_title(axes, title or f"{space_name(genotype)}: path{probability}", width)
    if path is not None:
        save_figure(figure, path)
    return figure


def draw_trellis_graph(
    axes: Axes,
    genotype: Genotype,
    at: Callable[[int, int], Point],
    scale: float,
    radius: float,
    others: Sequence[Sequence[int]] = (),
) -> None:
    """Draws nodes and transitions, the path's on top.

    Args:
        axes: Axes to draw on.
        genotype: Genotype with the space, beta and path.
        at: (layer, level) -> point; the stem is (0, 0).
        scale: Factor of the lines' widths.
        radius: Radius of a node.
        others: More paths, as levels.
    """
    from matplotlib.collections import LineCollection, PatchCollection
    from matplotlib.patches import Circle

    space = genotype.space
    segments, widths, greys = [], [], []
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            for target in space.transitions(layer, level):
                probability = 0.2 if genotype.beta is None else float(genotype.beta[layer, level, target - level + 1])
                segments.append([at(layer, level), at(layer + 1, target)])
                widths.append(scale * (0.7 + 3.3 * min(probability, 1.0)))
                greys.append(str(round(0.82 - 0.67 * min(probability, 1.0), 3)))
    # Collections are faster than single lines: a search draws this every epoch. The paths are wide and translucent, so
    # that the transitions that they highlight, and their widths, stay visible.
    axes.add_collection(LineCollection(segments, linewidths=widths, colors=greys, zorder=1, capstyle="round"))
    styles = [(other, OTHERS, _others_opacity(len(others)), OTHERS_BAND, 0.5) for other in others]
    if others:  # white beneath the path hides the others there, so that they do not change its colour
        styles.append((genotype.levels, "#FFFFFF", 1.0, BAND, 0.7))
    for levels, color, opacity, band, order in (*styles, (genotype.levels, HIGHLIGHT, OPACITY, BAND, 2)):
        steps = [[at(layer, a), at(layer + 1, b)] for layer, (a, b) in enumerate(pairwise((0, *levels)))]
        axes.add_collection(
            LineCollection(steps, linewidths=band * scale, colors=color, alpha=opacity, zorder=order, capstyle="round")
        )
    chosen = {(0, 0), *enumerate(genotype.levels, start=1)}
    nodes = [(0, 0), *((layer, level) for layer in range(1, space.layers + 1) for level in space.node_levels(layer))]
    for on_path, face, edge in ((False, "#FFFFFF", LINE), (True, HIGHLIGHT, HIGHLIGHT)):
        circles = [Circle(at(*node), radius) for node in nodes if (node in chosen) == on_path]
        axes.add_collection(PatchCollection(circles, facecolor=face, edgecolor=edge, linewidth=1.2, zorder=3))


def _legend(genotype: Genotype, others: Sequence[Sequence[int]]) -> list[tuple[list[Sample], str]]:
    """Samples of lines, and the text that explains them."""
    path: Sample = (0, 1, BAND, HIGHLIGHT, OPACITY)
    legend: list[tuple[list[Sample], str]] = [([path, (0, 1, 2.3, LIKELY, 0.5)], "the path")]
    if others:
        text = "another path" if len(others) == 1 else f"{len(others)} other paths, darker where several run"
        if genotype.beta is not None:
            logarithms = [_log_probability(genotype, levels) for levels in others]
            ends = [_written(value) for value in sorted({max(logarithms), min(logarithms)}, reverse=True)]
            text += f"; probability {' to '.join(dict.fromkeys(ends))}"
        legend.append(([(0, 1, OTHERS_BAND, OTHERS, _others_opacity(len(others)))], text))
    if genotype.beta is not None:
        samples: list[Sample] = [(0, 0.5, 1.2, "#AAAAAA", 1), (0.5, 1, 4, LIKELY, 1)]
        legend.append((samples, "a transition: the wider and darker, the likelier"))
    return legend


def _others_opacity(number: int) -> float:
    """Opacity of each of `number` other paths."""
    return max(min(OTHERS_OPACITY, 1 - (1 - OTHERS_TOGETHER) ** (1 / number)), 0.04)


def _draw_legend(axes: Axes, legend: Sequence[tuple[Sequence[Sample], str]], width: float) -> None:
    """Draws the legend at the bottom of a canvas that is `width` inches wide."""
    from matplotlib.patches import Rectangle

    left = (width - SAMPLE - GAP - LETTER * max(len(text) for _, text in legend)) / 2
    for number, (samples, text) in enumerate(reversed(legend)):
        y = 0.25 + ROW * number
        for begin, end, points, color, opacity in samples:
            corner = (left + SAMPLE * begin, y - points / 144)
            axes.add_patch(
                Rectangle(corner, SAMPLE * (end - begin), points / 72, color=color, alpha=opacity, linewidth=0)
            )
        draw_text(axes, (left + SAMPLE + GAP, y), text, size=10, align="left")


def path_probability_text(genotype: Genotype) -> str:
    """The path's probability to three digits, however small."""
    return _written(_log_probability(genotype, genotype.levels))


def _log_probability(genotype: Genotype, levels: Sequence[int]) -> float:
    """Common logarithm of a path's probability."""
    assert genotype.beta is not None
    logarithm = 0.0
    for layer, (level, target) in enumerate(pairwise((0, *levels))):
        probability = float(genotype.beta[layer, level, target - level + 1])
        if probability == 0:
            return -math.inf
        logarithm += math.log10(probability)
    return logarithm


def _written(logarithm: float) -> str:
    """A probability to three digits, from its common logarithm."""
    if logarithm == -math.inf:
        return "0"
    if logarithm > -4:
        return f"{10**logarithm:.3g}"
    exponent = math.floor(logarithm)
    return f"{10 ** (logarithm - exponent):.2f}e{exponent}"
