"""The picture of a table: accuracy against a cost, with the Pareto front."""

from __future__ import annotations

from matplotlib.figure import Figure

from retrain.table.analysis import front
from retrain.table.reading import Table
from search_spaces.drawing.canvas import DOTS_PER_INCH, LINE, PALETTE
from search_spaces.validation import require

__all__ = ["COSTS", "draw_table"]

COSTS = {
    "multiply_adds": ("multiply-adds (millions)", 1e-6),
    "parameters": ("parameters (thousands)", 1e-3),
    "latency": ("latency (ms)", 1e3),
    "cpu_seconds": ("training (CPU seconds)", 1.0),
}
"""Label of each cost, and its factor."""


def draw_table(table: Table, cost: str = "multiply_adds", split: str | None = None) -> Figure:
    """Draws mIoU after the last epoch against a cost; colours are the stride at the path's end.

    Raises:
        ValueError: The table does not have this cost.
    """
    label, factor = COSTS[cost]
    ends: dict[int, list[tuple[float, float]]] = {}
    for network in table.networks:
        if (value := network.cost(cost)) is not None:
            ends.setdefault(network.genotype.path[-1], []).append((factor * value, 100 * table.miou(network, split)))
    require(bool(ends), f"the table {table.card['name']} has no {cost}: choose another --cost")
    figure = Figure(figsize=(7.5, 4.8), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for color, (stride, points) in zip(PALETTE * 2, sorted(ends.items()), strict=False):
        across, up = [x for x, _ in points], [y for _, y in points]
        axes.scatter(across, up, s=22, color=color, alpha=0.8, label=f"path ends at stride {stride}")
    best = front(table, cost, split)
    across, up = [factor * (n.cost(cost) or 0.0) for n in best], [100 * table.miou(n, split) for n in best]
    axes.step(across, up, where="post", color=LINE, linewidth=1.4, zorder=0, label="Pareto front")
    axes.set(xlabel=label, ylabel=f"mIoU on {split or table.splits[1]}, %")
    axes.set_title(f"{table.card['name']}: {len(table.networks)} networks of {table.space.name}", parse_math=False)
    axes.legend(fontsize=9, framealpha=0.8, edgecolor="none")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
