"""A genotype's path on the trellis."""

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

HIGHLIGHT, OTHERS = "#D55E00", "#555555"


def draw_trellis(
    genotype: Genotype,
    path: str | Path | None = None,
    others: Sequence[Sequence[int]] = (),
    title: str | None = None,
) -> Figure:
    """Draws the trellis with the genotype's path: layers from left to right, the finest level at the top.

    With beta a transition is the wider and darker the likelier it is; without, all are thin.

    Args:
        genotype: Whose path to draw.
        path: If given, `save_figure` writes the picture there.
        others: More paths, such as the k best, drawn in grey beneath the genotype's own; each as the strides of the
            layers, like `Genotype.path`. Where several run together the grey is darker.
        title: In place of the space's name and the path's probability.

    Raises:
        ValueError: One of the others is no path of the space.
    """
    space = genotype.space
    other_levels = [_levels(genotype, other) for other in others]
    step = 0.8 if space.layers <= 14 else 0.5 if space.layers <= 60 else 30 / space.layers
    row, radius = 0.75, min(0.15, step / 4)
    notes = _notes(genotype, len(others))
    header, footer, labels = 0.9, 0.65 + 0.3 * len(notes), 1.1
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
    for number, note in enumerate(reversed(notes)):
        draw_text(axes, (width / 2, 0.25 + 0.3 * number), note, size=10)
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
        axes: Where to draw.
        genotype: Its space, beta and path.
        at: (layer, level) -> point; the stem is (0, 0).
        scale: Of the lines' widths.
        radius: Of a node.
        others: More paths, as levels.
    """
    from matplotlib.collections import LineCollection

    space = genotype.space
    segments, widths, greys = [], [], []
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            for target in space.transitions(layer, level):
                probability = 0.2 if genotype.beta is None else float(genotype.beta[layer, level, target - level + 1])
                segments.append([at(layer, level), at(layer + 1, target)])
                widths.append(scale * (0.7 + 3.3 * min(probability, 1.0)))
                greys.append(str(round(0.82 - 0.67 * min(probability, 1.0), 3)))
    # Collections, not a line each: a search draws this every epoch. The paths are wide and translucent: what they
    # highlight, and how wide that is, stays visible.
    axes.add_collection(LineCollection(segments, linewidths=widths, colors=greys, zorder=1, capstyle="round"))
    for levels, color, opacity in (*((other, OTHERS, 0.3) for other in others), (genotype.levels, HIGHLIGHT, 0.45)):
        steps = [[at(layer, a), at(layer + 1, b)] for layer, (a, b) in enumerate(pairwise((0, *levels)))]
        axes.add_collection(
            LineCollection(steps, linewidths=10 * scale, colors=color, alpha=opacity, zorder=2, capstyle="round")
        )
    chosen = {(0, 0), *enumerate(genotype.levels, start=1)}
    nodes = [(0, 0), *((layer, level) for layer in range(1, space.layers + 1) for level in space.node_levels(layer))]
    _nodes(axes, [at(*node) for node in nodes if node not in chosen], "#FFFFFF", LINE, radius)
    _nodes(axes, [at(*node) for node in nodes if node in chosen], HIGHLIGHT, HIGHLIGHT, radius)


def _nodes(axes: Axes, points: Sequence[Point], face: str, edge: str, radius: float) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    circles = [Circle(point, radius) for point in points]
    axes.add_collection(PatchCollection(circles, facecolor=face, edgecolor=edge, linewidth=1.2, zorder=3))


def _levels(genotype: Genotype, strides: Sequence[int]) -> tuple[int, ...]:
    """A path's levels; the genotype's own checks say what is wrong with it."""
    return replace(genotype, path=tuple(strides)).levels


def _notes(genotype: Genotype, others: int) -> list[str]:
    """What the lines mean, a line of text each."""
    notes = [] if genotype.beta is None else ["the wider and darker a transition, the likelier"]
    if others:
        notes.insert(0, f"orange: the path; grey: {others} other path{'s' * (others > 1)}, darker where several run")
    return notes


def path_probability_text(genotype: Genotype) -> str:
    """The path's probability to three digits, however small."""
    assert genotype.beta is not None
    levels = (0, *genotype.levels)
    logarithm = 0.0
    for layer, (level, target) in enumerate(pairwise(levels)):
        probability = float(genotype.beta[layer, level, target - level + 1])
        if probability == 0:
            return "0"
        logarithm += math.log10(probability)
    if logarithm > -4:
        return f"{10**logarithm:.3g}"
    exponent = math.floor(logarithm)
    return f"{10 ** (logarithm - exponent):.2f}e{exponent}"
