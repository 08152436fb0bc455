"""Time and memory of a search's steps against layers, blocks, filters and so on, one at a time around a small base.

Each point of an axis has its own process, and they take their steps in turn, so that a machine that slows down in
between bends no curve.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.config import AXES, VARIANTS, Axis, ScalingBench
from benchmarks.documents import hardware, made, number, origin, table
from benchmarks.trial import cost_in_turn
from nas.training.devices import choose_device, set_float32
from search_spaces.drawing import ENDINGS, save_figure
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace, load
from search_spaces.validation import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_picture", "draw", "fit", "make_table", "measure"]

QUANTITIES = {"weight": "weight step, s", "architecture": "architecture step, s", "memory": "memory, MiB"}
FORMS = {"weight": ".4g", "architecture": ".4g", "memory": ",.0f"}
COLORS = {"weight": "#0072B2", "architecture": "#D55E00", "memory": "#009E73"}
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
PANELS = (("seconds of a step", ("weight", "architecture")), ("MiB of memory", ("memory",)))


def measure(config: ScalingBench) -> dict[str, Any]:
    """Measures the steps at every value of every axis.

    Returns:
        `rows`: axis, value, `amount` of the axis's work, seconds of a `weight` and an `architecture` step, `memory` in
        MiB; None for what did not fit into memory. `fits`: axis, quantity, and the result of `fit`. And `command`,
        `machine`, `precision`, `base`, `operations` in the order in which they are added.

    Raises:
        ValueError: An unknown space or device, or a value that the space cannot take.
    """
    set_float32(choose_device(config.device), config.precision)  # refused here, before there are processes
    space = load(config.space)
    axes = [axis for axis in AXES if axis.name in config.vary]
    values = {axis: dict.fromkeys(config.at or axis.values) for axis in axes}
    points = {axis: [(value, *_point(config, space, axis, value)) for value in values[axis]] for axis in axes}
    variant = next(variant for variant in VARIANTS if variant.name == config.variant)
    machine = (config.device, config.threads, config.precision)
    rows: list[dict[str, Any]] = []
    for axis, settings in points.items():
        trials = [(changed, variant, crop, batch_size, *machine) for _, changed, crop, batch_size in settings]
        for (value, *_), cost in zip(settings, cost_in_turn(trials, config.repeats), strict=True):
            cost = cost or dict.fromkeys(QUANTITIES)
            rows.append({"axis": axis.name, "value": value, "amount": axis.amount(value), **cost})
            result = "did not fit" if cost["weight"] is None else f"weight step {cost['weight']:.3g} s"
            print(f"{axis.label} {value}: {result}", file=sys.stderr)
    return {
        **origin("scaling", config, hardware(config.device, config.threads)),
        "precision": config.precision,
        "base": {name: getattr(config, name) for name in ("space", *(axis.name for axis in AXES[:-1]), "variant")},
        "operations": list(space.operations),
        "rows": rows,
        "fits": [
            {"axis": axis.name, "quantity": quantity, **line}
            for axis in axes
            for quantity in QUANTITIES
            if axis.work is not None and (line := _fit_rows(rows, axis, quantity))
        ],
    }


def _point(config: ScalingBench, space: SearchSpace, axis: Axis, value: int) -> tuple[SearchSpace, int, int]:
    """Returns space, crop and batch size of the base with one value changed."""
    base = {one.name: getattr(config, one.name) for one in AXES[:-1]} | {"operations": len(space.operations)}
    base[axis.name] = value
    crop, batch_size, count = base.pop("crop"), base.pop("batch_size"), base.pop("operations")
    require(
        count <= len(space.operations),
        f"at has {count} operations, but {space.name} has {len(space.operations)}: give at most that",
    )
    require(
        any(name != NONE for name in space.operations[:count]),
        f"at has {count} operations, of which the first of {space.name} is none: give at least 2",
    )
    return dataclasses.replace(space, operations=space.operations[:count], **base), crop, batch_size


def _fit_rows(rows: Sequence[Mapping[str, Any]], axis: Axis, quantity: str) -> dict[str, float] | None:
    points = [(row["amount"], row[quantity]) for row in rows if row["axis"] == axis.name and row[quantity] is not None]
    return fit(*zip(*points, strict=True)) if len(points) > 2 else None  # two points always lie on a line


def fit(amounts: Sequence[float], costs: Sequence[float]) -> dict[str, float]:
    """Fits a straight line to costs by least squares.

    Returns:
        `start`, its cost at amount 0; `slope`, cost per amount; `deviation`, the largest distance of a cost from the
        line, as a share of the cost.
    """
    slope, start = np.polyfit(amounts, costs, 1)
    line = start + slope * np.asarray(amounts)
    worst = np.max(np.abs(np.asarray(costs) - line) / np.maximum(costs, 1e-12))
    return {"start": float(start), "slope": float(slope), "deviation": float(worst)}


def make_table(data: Mapping[str, Any]) -> str:
    """Formats the measurements as tables in Markdown."""
    base = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in data["base"].items())
    labels = {axis.name: axis for axis in AXES}
    rows = [
        [labels[row["axis"]].label, f"{row['value']:,}", *(number(row[name], form) for name, form in FORMS.items())]
        for row in data["rows"]
    ]
    note = (
        f"Around {base}; operations are added in the order {', '.join(data['operations'])}. On {data['machine']}, "
        f"{data['precision']}, medians of {data['repeats']}."
    )
    lines = [*made(note, data), "", *table(["varied", "value", *QUANTITIES.values()], rows)]
    if data["fits"]:
        fits = []
        for line in data["fits"]:
            fits.append([QUANTITIES[line["quantity"]], str(labels[line["axis"]].work)])
            fits[-1] += [f"{line['start']:.3g}", f"{line['slope']:.3g}", f"{100 * line['deviation']:.0f} %"]
        heads = ["cost", "work", "at no work", "for each more", "worst deviation"]
        lines += ["", "Straight lines, where the work is linear:", "", *table(heads, fits, 2)]
    return "\n".join(lines)


def check_picture(path: str | Path) -> None:
    """Checks the name of a picture before anything is measured for it.

    Raises:
        ValueError: Its ending is not that of a picture.
    """
    ending = Path(path).suffix.lower()
    require(ending in ENDINGS, f"plot is {str(path)!r}: give a name that ends in {', '.join(ENDINGS)}")


def draw(data: Mapping[str, Any], path: str | Path | None = None) -> Figure:
    """Draws a column of two panels for each axis: seconds above, memory below; fitted lines are dashed.

    Args:
        data: The result of `measure`.
        path: If given, the picture is written there.
    """
    from matplotlib.figure import Figure

    axes = [axis for axis in AXES if any(row["axis"] == axis.name for row in data["rows"])]
    figure = Figure(figsize=(2.6 * len(axes), 4.8), layout="constrained")
    panels = figure.subplots(len(PANELS), len(axes), squeeze=False, sharex="col")
    for column, axis in enumerate(axes):
        rows = [row for row in data["rows"] if row["axis"] == axis.name]
        for panel, (label, quantities) in zip(panels[:, column], PANELS, strict=True):
            for quantity in quantities:
                points = [(row["amount"], row[quantity]) for row in rows if row[quantity] is not None]
                if not points:
                    continue
                lines = [f for f in data["fits"] if (f["axis"], f["quantity"]) == (axis.name, quantity)]
                style = "o" if lines else "o-"
                panel.plot(*zip(*points, strict=True), style, color=COLORS[quantity], label=quantity, markersize=4)
                for line in lines:
                    ends = [0, max(amount for amount, _ in points)]
                    costs = [line["start"] + line["slope"] * end for end in ends]
                    panel.plot(ends, costs, "--", color=COLORS[quantity], linewidth=1)
            panel.set_ylim(bottom=0)
            panel.set_xlim(left=0)
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=7)
            if column == 0:
                panel.set_ylabel(label, fontsize=8)
                if len(quantities) > 1:
                    panel.legend(fontsize=7, frameon=False)
        panels[-1, column].set_xlabel(axis.work or axis.label, fontsize=8)
    if path is not None:
        save_figure(figure, path)
    return figure
