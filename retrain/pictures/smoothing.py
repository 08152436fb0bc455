"""How the coefficients of aggregated smoothing filters changed over a training, from its record.

Source: Ziegler et al., 2019 (Efficient Smoothing), Figure 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from search_spaces.drawing import PALETTE

__all__ = ["draw_smoothing", "smoothing_coefficients"]

NAMES = {"identity": "no filter", "average": "average", "gaussian": "Gaussian", "ss_conv": "SS conv"}
"""Coefficients of `AggregationCoefficients`, and what the paper calls them."""

STYLES = ("-", "--", "-.", ":")
MOST_PANELS, COLUMNS = 12, 3
Curve = list[tuple[int, float]]


def smoothing_coefficients(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """The coefficients in the lines of a run's metrics.jsonl: module -> filter -> [(epoch from 1, coefficient)].

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
    """Draws the four coefficients over the epochs, a panel a module, of at most twelve modules."""
    modules: Sequence[str] = list(coefficients)[:MOST_PANELS]
    columns = min(COLUMNS, len(modules))
    rows = -(-len(modules) // columns)
    size = (max(4.2 * columns, 7.0), 3.1 * rows + 1.0)
    figure = Figure(figsize=size, dpi=150, facecolor="white")
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
    figure.subplots_adjust(left=1.0 / size[0], right=1 - 0.2 / size[0], bottom=0.95 / size[1], top=1 - 0.8 / size[1],
                           wspace=0.12, hspace=0.45)  # fmt: skip
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(NAMES), fontsize=11, frameon=False,
                  bbox_to_anchor=(0.5, 0.05 / size[1]), handlelength=3)  # fmt: skip
    return figure
