"""Pictures of a study: history, importances, slices, parallel coordinates, Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from typing import IO, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from retrain.sweeps.settings import Parameter
from retrain.sweeps.space import Space, corners
from search_spaces.files import write_atomically

__all__ = ["draw_all"]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # of Okabe and Ito's palette
LABELS = {
    "miou": "val mIoU, %",
    "multiply_adds": "multiply-adds, millions",
    "parameters": "parameters, millions",
    "latency": "latency, ms",
}
SCALES = {"miou": 100.0, "multiply_adds": 1e-6, "parameters": 1e-6, "latency": 1000.0}
DPI = 120
LINE = 24
"""Letters that fit below a panel."""


def draw_all(
    folder: Path,
    space: Space,
    objectives: Sequence[str],
    trials: Sequence[FrozenTrial],
    importances: Mapping[str, float],
    front: Sequence[FrozenTrial],
) -> dict[str, Path]:
    """Draws what there is to see, as PNG files in a folder.

    Args:
        folder: Where to.
        space: The parameters.
        objectives: Their names, as the trials' values are ordered.
        trials: All trials.
        importances: Share of each parameter; may be empty.
        front: The Pareto front; empty for one objective.

    Returns:
        Name of each picture -> its file.
    """
    place = list(objectives).index("miou")
    figures = {
        "history": _history(objectives, trials),
        "slices": _slices(space, trials, place),
        "parallel": _parallel(space, trials, place),
    }
    if importances:
        figures["importances"] = _importances(importances)
    if front:
        figures["pareto"] = _pareto(objectives, trials, front)
    paths = {}
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        paths[name] = write_atomically(path, partial(_save, figure))
    return paths


def _save(figure: Figure, file: IO[bytes]) -> None:
    figure.savefig(file, format="png", dpi=DPI)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _done(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _reached(trial: FrozenTrial) -> float | None:
    """The last mIoU of a pruned trial."""
    return next(reversed(list(trial.intermediate_values.values())), None)


def _history(objectives: Sequence[str], trials: Sequence[FrozenTrial]) -> Figure:
    figure = _figure(8, 3.2 * len(objectives))
    panels = figure.subplots(len(objectives), 1, squeeze=False)[:, 0]
    for place, (name, axes) in enumerate(zip(objectives, panels, strict=True)):
        done = sorted(_done(trials), key=lambda trial: trial.number)
        values = [trial.values[place] * SCALES[name] for trial in done]
        axes.scatter([trial.number for trial in done], values, s=22, color=BLUE, label="complete", zorder=3)
        pruned = [(t.number, _reached(t)) for t in trials if t.state == TrialState.PRUNED]
        shown = [(number, value * SCALES[name]) for number, value in pruned if value is not None]
        if name == "miou" and shown:
            axes.scatter(*zip(*shown, strict=True), s=22, marker="x", color=GREY, label="pruned, at its last epoch")
        if done:
            best: list[float] = []
            pick = max if name == "miou" else min
            for value in values:
                best.append(pick(value, best[-1]) if best else value)
            axes.step([t.number for t in done], best, where="post", color=ORANGE, label="best so far")
        axes.set(xlabel="trial", ylabel=LABELS[name])
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize="small")
        _tidy(axes)
    return figure


def _importances(shares: Mapping[str, float]) -> Figure:
    ordered = sorted(shares.items(), key=lambda item: item[1])
    figure = _figure(8, 0.6 + 0.4 * len(ordered))
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlabel="share in what tells the better trials from the others (PED-ANOVA)")
    axes.margins(x=0.1)
    _tidy(axes)
    axes.grid(False, axis="y")
    return figure


def _position(parameter: Parameter, value: Any) -> float:
    """Where a value lies along an axis: choices side by side."""
    if parameter.choices is None:
        return float(value)
    return float([str(label) for label in corners(parameter)].index(str(value)))


def _slices(space: Space, trials: Sequence[FrozenTrial], place: int) -> Figure:
    columns = min(3, len(space.parameters))
    rows = -(-len(space.parameters) // columns)
    figure = _figure(max(4.0, 3.4 * columns), 3.0 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    last = max((trial.number for trial in trials), default=1)
    shade = ScalarMappable(Normalize(0, max(last, 1)), matplotlib.colormaps["viridis_r"])
    for parameter, axes in zip(space.parameters, panels, strict=False):
        points = [t for t in _done(trials) if parameter.name in t.params]
        across = [_position(parameter, t.params[parameter.name]) for t in points]
        if parameter.choices is not None:
            # Side by side within a choice, so that trials of equal value are seen.
            across = [x + 0.3 * (t.number / max(last, 1) - 0.5) for x, t in zip(across, points, strict=True)]
            axes.set_xlim(-0.5, len(parameter.choices) - 0.5)
            labels = [str(label) for label in corners(parameter)]
            axes.set_xticks(range(len(labels)), labels)
            if sum(map(len, labels)) > LINE:
                axes.tick_params(axis="x", labelrotation=20, labelsize="small")
        else:
            assert parameter.range is not None
            low, high = parameter.range
            axes.set_xscale("log" if parameter.log else "linear")
            margin = (high / low) ** 0.04 if parameter.log else 0.04 * (high - low)
            axes.set_xlim(*((low / margin, high * margin) if parameter.log else (low - margin, high + margin)))
        heights = [100 * t.values[place] for t in points]
        axes.scatter(across, heights, c=[t.number for t in points], cmap=shade.cmap, norm=shade.norm, s=22)
        axes.set_xlabel(parameter.name)
        _tidy(axes)
    for axes in panels[len(space.parameters) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(LABELS["miou"])
    figure.colorbar(shade, ax=list(panels), label="trial", shrink=0.8)
    return figure


def _parallel(space: Space, trials: Sequence[FrozenTrial], place: int) -> Figure:
    figure = _figure(max(6.0, 2.0 * (len(space.parameters) + 1)), 4.2)
    axes = figure.subplots()
    done = sorted(_done(trials), key=lambda trial: trial.values[place])  # the best on top
    values = [100 * trial.values[place] for trial in done]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    shade = ScalarMappable(Normalize(low, max(high, low + 1e-6)), matplotlib.colormaps["viridis"])
    for trial, value in zip(done, values, strict=True):
        heights = [
            _height(parameter, trial.params[parameter.name]) if parameter.name in trial.params else float("nan")
            for parameter in space.parameters
        ]
        heights.append((value - low) / max(high - low, 1e-6))
        axes.plot(range(len(heights)), heights, color=shade.to_rgba(value), linewidth=1.4, alpha=0.8, marker=".")
    for number, parameter in enumerate(space.parameters):
        labels = corners(parameter)
        for label in labels:
            axes.annotate(
                label if isinstance(label, str) else f"{label:g}" if isinstance(label, float) else str(label),
                (number, _height(parameter, label)),
                xytext=(4, 2),
                textcoords="offset points",
                fontsize="small",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
    for value, height in ((low, 0.0), (high, 1.0)):
        axes.annotate(
            f"{value:.4g}", (len(space.parameters), height), xytext=(4, 2), textcoords="offset points", fontsize="small"
        )
    names = [parameter.name + (" (log)" if parameter.log else "") for parameter in space.parameters]
    broken = [name.replace(".", ".\n", 1) for name in names]
    axes.set_xticks(range(len(names) + 1), [*broken, LABELS["miou"]])
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.1)
    axes.set_xlim(-0.1, len(names) + 0.4)
    for number in range(len(names) + 1):
        axes.axvline(number, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(shade, ax=axes, label=LABELS["miou"], pad=0.01)
    return figure


def _height(parameter: Parameter, value: Any) -> float:
    """Where a value lies on its axis of parallel coordinates, 0 to 1."""
    if parameter.choices is not None:
        return _position(parameter, value) / max(len(parameter.choices) - 1, 1)
    assert parameter.range is not None
    low, high = parameter.range
    if parameter.log:
        return log(value / low) / log(high / low)
    return (value - low) / (high - low)


def _pareto(objectives: Sequence[str], trials: Sequence[FrozenTrial], front: Sequence[FrozenTrial]) -> Figure:
    """mIoU against each other objective; those on the front of all objectives together are marked."""
    place = list(objectives).index("miou")
    others = [number for number, name in enumerate(objectives) if name != "miou"]
    figure = _figure(5.2 * len(others), 4.2)
    on_front = {trial.number for trial in front}
    for axes, other in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        scale, name = SCALES[objectives[other]], objectives[other]
        rest = [t for t in _done(trials) if t.number not in on_front]
        axes.scatter([t.values[other] * scale for t in rest], [100 * t.values[place] for t in rest], s=22, color=GREY)
        best = sorted(front, key=lambda trial: trial.values[other])
        points = [t.values[other] * scale for t in best], [100 * t.values[place] for t in best]
        if len(objectives) == 2:
            axes.step(*points, where="post", color=ORANGE, linewidth=1)
        axes.scatter(*points, s=34, marker="D", color=ORANGE, label="Pareto front", zorder=3)
        for trial, across, up in zip(best, *points, strict=True):
            axes.annotate(str(trial.number), (across, up), xytext=(5, 4), textcoords="offset points", fontsize="small")
        axes.set(xlabel=LABELS[name], ylabel=LABELS["miou"])
        axes.legend(frameon=False, fontsize="small", loc="lower right")
        _tidy(axes)
    return figure
