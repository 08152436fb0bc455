"""Curves as SVG that stands in the page itself: its ink is the page's, in the light and in the dark."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nas.evaluation.metrics import all_metrics
from retrain.report.series import Curve, thinned
from search_spaces.drawing import PALETTE

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType

__all__ = ["MOST_RUNS", "RunStyle", "draw_curves", "run_style"]

INK = "#010203"
"""Stands for the page's ink until the SVG is written."""

STYLES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":")
LONGEST_LABEL = 34
MARKERS = ("", "o", "s", "^")
COLORS = (*PALETTE[:-1], INK)
MOST_RUNS = len(COLORS) * len(MARKERS)


@dataclass(frozen=True)
class Group:
    """How a group of numbers is shown."""

    title: str
    logarithmic: bool = False


GROUPS: Mapping[str, Group] = {
    "loss": Group("loss"),
    "val": Group("validation"),
    "entropy": Group("entropy"),
    "health": Group("health: entropy, probabilities, agreement with the epoch before"),
    "health counts": Group("health: edges, operations, epochs, counted"),
    "health forced": Group("health: mIoU with the decoded architecture forced, and what is lost"),
    "health cost": Group("health: cost, that of the uniform start = 1"),
    "path": Group("probability of the path", logarithmic=True),
    "lr": Group("learning rate", logarithmic=True),
    "modules": Group("numbers of modules, their mean"),
    "seconds": Group("seconds of an epoch"),
    "waiting": Group("share of time spent waiting for data"),
}
"""In this order; a group that is not here comes after them, under its own name."""


@dataclass(frozen=True)
class RunStyle:
    """How a run's curves look in all pictures."""

    color: str
    """A colour of CSS."""
    marker: str
    """Of matplotlib; none for the first runs."""


def run_style(number: int) -> RunStyle:
    """The style of run `number`, below MOST_RUNS."""
    color = COLORS[number % len(COLORS)]
    return RunStyle("currentColor" if color == INK else color, MARKERS[number // len(COLORS)])


def draw_curves(series: Sequence[Mapping[str, Mapping[str, Curve]]]) -> list[tuple[str, str]]:
    """Draws each group of numbers, the curves of all runs in one picture.

    Args:
        series: Of each run, as `read_series` gives it.

    Returns:
        (title, SVG element) of each picture.
    """
    groups = dict.fromkeys(group for run in series for group in run)
    order = [*(group for group in GROUPS if group in groups), *(group for group in groups if group not in GROUPS)]
    return [
        (title := GROUPS.get(group, Group(group[:60])).title, _draw(number, group, title, series))
        for number, group in enumerate(order)
    ]


def _draw(number: int, group: str, title: str, series: Sequence[Mapping[str, Mapping[str, Curve]]]) -> str:
    names = list(dict.fromkeys(name for run in series for name in run.get(group, {})))
    known = {"forced_miou": "forced mIoU", **{metric.name: metric.label for metric in all_metrics()}}
    labels = [known.get(name, name[:LONGEST_LABEL].replace("_", " ")) for name in names]
    columns = max(1, min(len(names), 42 // (max(map(len, labels)) + 6)))
    rows = math.ceil(len(names) / columns) if len(names) > 1 else 0
    height = 3.3 + 0.25 * rows
    figure = Figure(figsize=(5.4, height))
    axes = figure.add_axes((0.16, 0.55 / height, 0.81, 2.65 / height))
    for run, numbers in enumerate(series):
        style = run_style(run)
        for place, name in enumerate(names):
            curve = thinned(numbers.get(group, {}).get(name, []))
            if curve:
                color = INK if style.color == "currentColor" else style.color
                marker = style.marker or ("o" if len(curve) == 1 else "")
                axes.plot(*zip(*curve, strict=True), STYLES[place % len(STYLES)], color=color, marker=marker,
                          markersize=5, markevery=max(1, len(curve) // 8), linewidth=2 if place < 4 else 1)  # fmt: skip
    values = [value for run in series for curve in run.get(group, {}).values() for _, value in curve]
    if GROUPS.get(group, Group("")).logarithmic and min(values) > 0:
        axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.set_xlabel("epoch", fontsize=12, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=12, colors=INK, which="both")
    axes.grid(color=INK, alpha=0.15, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(INK)
    if len(names) > 1:
        handles = [
            Line2D([], [], linestyle=STYLES[place % len(STYLES)], color=INK, linewidth=2 if place < 4 else 1)
            for place in range(len(names))
        ]
        legend = axes.legend(handles, labels, ncols=columns, fontsize=12, frameon=False, labelcolor=INK,
                             handlelength=2.6, loc="lower left", bbox_to_anchor=(-0.05, 1.0), borderpad=0)  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)
    return _element(figure, f"curves-{number}", f"{title} by epoch")


def _element(figure: Figure, salt: str, label: str) -> str:
    """The figure as an <svg> element: text is text, identifiers are the page's only ones of that name."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[\w.]+_\d+">', "<g>", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1).strip()
