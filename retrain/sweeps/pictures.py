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
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from retrain.sweeps.settings import Parameter
from retrain.sweeps.space import Space, corners
from search_spaces.files import write_atomically

__all__ = ["draw_all", "draw_figures", "draw_front"]

BLUE, ORANGE, GREY, DARK = "#0072B2", "#D55E00", "#999999", "#555555"  # of Okabe and Ito's palette
LABELS = {
    "miou": "val mIoU, %",
    "multiply_adds": "multiply-adds, millions",
    "parameters": "parameters, millions",
    "latency": "latency, ms",
}
SCALES = {"miou": 100.0, "multiply_adds": 1e-6, "parameters": 1e-6, "latency": 1000.0}
DPI = 120
LINE = 20
"""Letters that fit below a panel."""
TICKS, LABEL = 11, 12
"""Points, of numbers and of names: legible at half the size, too."""
MOST_NUMBERS = 3
"""Trials that are named next to a point."""
SCATTER: dict[str, Any] = {"s": 34, "edgecolors": "#333333", "linewidths": 0.5}
"""With an outline, so that the light end of a scale of colours stands out from the paper."""


def draw_all(folder: Path, figures: Mapping[str, Figure]) -> dict[str, Path]:
    """Writes figures as PNG files into a folder; returns name -> file."""
    paths = {name: folder / f"{name}.png" for name in figures}
    return {name: write_atomically(paths[name], partial(_save, figure)) for name, figure in figures.items()}


def draw_figures(
    space: Space,
    objectives: Sequence[str],
    trials: Sequence[FrozenTrial],
    importances: Mapping[str, float],
    front: Sequence[FrozenTrial],
) -> dict[str, Figure]:
    """Draws history and slices; parallel coordinates if mIoU differ; importances and the Pareto front if there are any.

    Args:
        space: The parameters.
        objectives: Their names, as the trials' values are ordered.
        trials: All trials.
        importances: Share of each parameter; may be empty.
        front: The Pareto front; empty for one objective.
    """
    place = list(objectives).index("miou")
    figures = {
        "history": _history(objectives, trials),
        "slices": _slices(space, trials, place),
    }
    if len({trial.values[place] for trial in _done(trials)}) != 1 or len(_done(trials)) == 1:
        figures["parallel"] = _parallel(space, trials, place)
    if importances:
        figures["importances"] = _importances(importances)
    if front:
        figures["pareto"] = draw_front(objectives, trials, front)
    return figures


def _save(figure: Figure, file: IO[bytes]) -> None:
    figure.savefig(file, format="png", dpi=DPI)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=TICKS)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(LABEL)


def _done(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _reached(trial: FrozenTrial) -> float | None:
    """The last mIoU of a pruned trial."""
    return next(reversed(list(trial.intermediate_values.values())), None)


def _history(objectives: Sequence[str], trials: Sequence[FrozenTrial]) -> Figure:
    figure = _figure(7.5, 3.1 * len(objectives))
    panels = figure.subplots(len(objectives), 1, squeeze=False)[:, 0]
    for place, (name, axes) in enumerate(zip(objectives, panels, strict=True)):
        done = sorted(_done(trials), key=lambda trial: trial.number)
        values = [trial.values[place] * SCALES[name] for trial in done]
        axes.scatter([trial.number for trial in done], values, s=30, color=BLUE, label="complete", zorder=3)
        pruned = [(t.number, _reached(t)) for t in trials if t.state == TrialState.PRUNED]
        shown = [(number, value * SCALES[name]) for number, value in pruned if value is not None]
        if name == "miou" and shown:
            axes.scatter(*zip(*shown, strict=True), s=36, marker="x", color=DARK, label="pruned, at its last epoch")
        if done:
            best: list[float] = []
            pick = max if name == "miou" else min
            for value in values:
                best.append(pick(value, best[-1]) if best else value)
            axes.step([t.number for t in done], best, where="post", color=ORANGE, label="best so far")
        axes.set(xlabel="trial", ylabel=LABELS[name])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=TICKS, framealpha=0.8, edgecolor="none")
        _tidy(axes)
    return figure


def _importances(shares: Mapping[str, float]) -> Figure:
    ordered = sorted(shares.items(), key=lambda item: item[1])
    figure = _figure(7.5, 0.9 + 0.42 * len(ordered))
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=TICKS)
    axes.set(xlabel="share (PED-ANOVA; all together 1)")
    axes.margins(x=0.1)
    _tidy(axes)
    axes.grid(False, axis="y")
    return figure


def _position(parameter: Parameter, value: Any) -> float:
    """Where a value lies along an axis: choices at 0, 1, ..."""
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
                axes.tick_params(axis="x", labelrotation=20)
        else:
            assert parameter.range is not None
            low, high = parameter.range
            axes.set_xscale("log" if parameter.log else "linear")
            margin = (high / low) ** 0.04 if parameter.log else 0.04 * (high - low)
            axes.set_xlim(*((low / margin, high * margin) if parameter.log else (low - margin, high + margin)))
        heights = [100 * t.values[place] for t in points]
        axes.scatter(across, heights, c=[t.number for t in points], cmap=shade.cmap, norm=shade.norm, **SCATTER)
        axes.set_xlabel(_broken(parameter.name))
        _tidy(axes)
    for axes in panels[len(space.parameters) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(LABELS["miou"])
    _colorbar(figure, shade, list(panels), "trial").ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _colorbar(figure: Figure, shade: ScalarMappable, panels: Any, label: str) -> Colorbar:
    bar = figure.colorbar(shade, ax=panels, pad=0.02)
    bar.set_label(label, size=LABEL)
    bar.ax.tick_params(labelsize=TICKS)
    return bar


def _broken(name: str) -> str:
    """A setting's name in lines: its group, and itself."""
    return name.replace(".", ".\n", 1)


def _parallel(space: Space, trials: Sequence[FrozenTrial], place: int) -> Figure:
    figure = _figure(max(6.0, 1.75 * (len(space.parameters) + 1)), 4.6)
    axes = figure.subplots()
    done = sorted(_done(trials), key=lambda trial: trial.values[place])  # the best on top
    values = [100 * trial.values[place] for trial in done]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    # The best are dark: the light end of the scale is hard to see on white.
    shade = ScalarMappable(Normalize(low, max(high, low + 1e-6)), matplotlib.colormaps["viridis_r"])
    for trial, value in zip(done, values, strict=True):
        heights = [
            _height(parameter, trial.params[parameter.name]) if parameter.name in trial.params else float("nan")
            for parameter in space.parameters
        ]
        heights.append((value - low) / max(high - low, 1e-6))
        axes.plot(range(len(heights)), heights, color=shade.to_rgba(value), linewidth=1.8, alpha=0.85, marker="o",
                  markersize=4)  # fmt: skip
    ends = [(number, _height(p, label), _short(label)) for number, p in enumerate(space.parameters)
            for label in corners(p)]  # fmt: skip
    ends += [(len(space.parameters), height, f"{value:.4g}") for value, height in ((low, 0.0), (high, 1.0))]
    for number, height, label in ends:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
        axes.annotate(label, (number, height), xytext=(5, 4), textcoords="offset points", fontsize=TICKS, bbox=box,
                      zorder=5, parse_math=False)  # fmt: skip
    names = [_broken(p.name) + ("\n(log)" if p.log else "") for p in space.parameters]
    axes.set_xticks(range(len(names) + 1), [*names, LABELS["miou"].replace(" ", "\n", 1)], fontsize=TICKS)
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.1)
    axes.set_xlim(-0.1, len(names) + 0.45)
    for number in range(len(names) + 1):
        axes.axvline(number, color="#999999", linewidth=1, zorder=0)
    axes.spines[:].set_visible(False)
    _colorbar(figure, shade, axes, LABELS["miou"])
    return figure


def _short(label: Any) -> str:
    return f"{label:g}" if isinstance(label, float) else str(label)


def _height(parameter: Parameter, value: Any) -> float:
    """Where a value lies on its axis of parallel coordinates, 0 to 1."""
    if parameter.choices is not None:
        return _position(parameter, value) / max(len(parameter.choices) - 1, 1)
    assert parameter.range is not None
    low, high = parameter.range
    if parameter.log:
        return log(value / low) / log(high / low)
    return (value - low) / (high - low)


def draw_front(objectives: Sequence[str], trials: Sequence[FrozenTrial], front: Sequence[FrozenTrial]) -> Figure:
    """Draws mIoU against each other objective; those on the front of all objectives together are marked."""
    place = list(objectives).index("miou")
    others = [number for number, name in enumerate(objectives) if name != "miou"]
    figure = _figure(max(6.0, 5.2 * len(others)), 4.4)
    on_front = {trial.number for trial in front}
    for axes, other in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        scale, name = SCALES[objectives[other]], objectives[other]
        rest = [t for t in _done(trials) if t.number not in on_front]
        across, up = [t.values[other] * scale for t in rest], [100 * t.values[place] for t in rest]
        axes.scatter(across, up, s=30, color=GREY, label="the others")
        best = sorted(front, key=lambda trial: trial.values[other])
        across, up = [t.values[other] * scale for t in best], [100 * t.values[place] for t in best]
        if len(objectives) == 2:
            axes.step(across, up, where="post", color=ORANGE, linewidth=1.5)
        axes.scatter(across, up, s=42, marker="D", color=ORANGE, label="Pareto front, with numbers", zorder=3)
        alike: dict[tuple[float, float], list[str]] = {}  # trials of equal values share a label
        for trial, x, y in zip(best, across, up, strict=True):
            alike.setdefault((x, y), []).append(str(trial.number))
        for point, numbers in alike.items():
            text = ", ".join(numbers[:MOST_NUMBERS]) + (", ..." if len(numbers) > MOST_NUMBERS else "")
            axes.annotate(text, point, xytext=(6, 5), textcoords="offset points", fontsize=TICKS)
        axes.set(xlabel=f"{LABELS[name]} (less is better)", ylabel=LABELS["miou"])
        axes.margins(0.1)
        axes.legend(fontsize=TICKS, framealpha=0.8, edgecolor="none")
        _tidy(axes)
    return figure
