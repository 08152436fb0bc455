"""What a table says: distribution, noise, and which properties of a network matter. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean, quantiles
from typing import Any

from retrain.ranking.comparison import kendall, pooled, spread
from retrain.table.reading import Network, Table
from search_spaces.genotype import Genotype

__all__ = ["front", "properties", "share_of_variance", "summary", "summary_text"]

TOP = 5
"""Networks that are listed."""


def properties(genotype: Genotype) -> dict[str, str]:
    """What groups networks: parts of the path and of the cell, in words."""
    path = genotype.path
    whole = {
        "path": "-".join(map(str, path)),
        "cell": "; ".join(
            " + ".join(f"{name} {operation}" for name, operation in zip(block.inputs, block.operations, strict=True))
            for block in genotype.cell
        ),
    }
    parts = {
        "stride at the path's end": str(path[-1]),
        "stride of the first cell": str(path[0]),
        "coarsest stride": str(max(path)),
        f"cells at stride {genotype.space.strides[0]}": str(path.count(genotype.space.strides[0])),
        "changes of stride": str(sum(a != b for a, b in pairwise(path))),
    }
    for number, block in enumerate(genotype.cell, 1):
        for name, operation in zip(block.inputs, block.operations, strict=True):
            parts[f"operation on {name} in block{number}"] = operation
    return whole | parts


def share_of_variance(groups: Sequence[Sequence[float]]) -> float | None:
    """Share of the variance that lies between groups, without that which chance would give; None if all are equal.

    Epsilon squared (Kelley, 1935): 1 - (squares within / (N - groups)) / (squares in all / (N - 1)), at least 0.
    """
    values = [value for group in groups for value in group]
    total = sum((value - mean(values)) ** 2 for value in values)
    if total == 0 or len(values) == len(groups):
        return None
    within = sum((value - mean(group)) ** 2 for group in groups for value in group)
    return max(0.0, 1 - within / (len(values) - len(groups)) * (len(values) - 1) / total)


def front(table: Table, cost: str, split: str | None = None) -> list[Network]:
    """The Pareto front, the cheapest first: networks that none which costs no more is as good as."""
    known = [network for network in table.networks if network.cost(cost) is not None]
    found: list[Network] = []
    for network in sorted(known, key=lambda network: (network.cost(cost), -table.miou(network, split))):
        if not found or table.miou(network, split) > table.miou(found[-1], split):
            found.append(network)
    return found


def summary(table: Table, split: str | None = None) -> dict[str, Any]:
    """The table in numbers, in plain containers; mIoU from 0 to 1.

    `noise` has the standard deviation over seeds (pooled), that between networks with the first seed, and Kendall's tau
    of the orders by the first two seeds and by the two splits. `properties` has the share of the variance that each
    explains alone, with the first seed, and the mean of each of its groups.
    """
    networks = table.ordered(split)
    values = [table.miou(network, split) for network in networks]
    first = [table.miou(network, split, next(iter(network.runs))) for network in networks]
    several = [n for n in networks if len(n.runs) > 1]
    groups: dict[str, dict[str, list[float]]] = {}
    for network, miou in zip(networks, first, strict=True):
        for name, value in properties(network.genotype).items():
            groups.setdefault(name, {}).setdefault(value, []).append(miou)
    groups = {name: by_value for name, by_value in groups.items() if len(by_value) > 1}
    shares = {name: share_of_variance(list(by_value.values())) for name, by_value in groups.items()}
    by_seeds = [(table.miou(n, split, a), table.miou(n, split, b)) for n in several for a, b, *_ in [list(n.runs)]]
    by_splits = [(table.miou(n, table.splits[0]), table.miou(n, table.splits[1])) for n in networks]
    return {
        "name": table.card["name"],
        "space": table.space.name,
        "split": split or table.splits[1],
        "networks": len(networks),
        "trainings": sum(len(network.runs) for network in networks),
        "mean": mean(values),
        "quartiles": [values[-1], *(quantiles(values, n=4) if len(values) > 1 else values * 3), values[0]],
        "best": [{"number": n.number, "miou": v, **properties(n.genotype), "parameters": n.parameters,
                  "multiply_adds": n.multiply_adds} for n, v in zip(networks[:TOP], values, strict=False)],
        "noise": {
            "seeds": pooled([[table.miou(n, split, seed) for seed in n.runs] for n in several]),
            "networks": spread(first),
            "tau_of_seeds": kendall(by_seeds),
            "tau_of_splits": kendall(by_splits),
        },
        "properties": {
            name: {"share": shares[name], "means": {v: mean(g) for v, g in sorted(by_value.items(), key=_by_number)}}
            for name, by_value in sorted(groups.items(), key=lambda item: -(shares[item[0]] or 0.0))
        },
    }  # fmt: skip


def _by_number(item: tuple[str, object]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdigit() else 0, item[0])


def summary_text(facts: dict[str, Any]) -> str:
    """`summary` for a terminal."""
    low, *quartiles, high = map(_percent, facts["quartiles"])
    noise = facts["noise"]
    lines = [
        f"table {facts['name']}: {facts['trainings']} trainings of {facts['networks']} networks of the space "
        f"{facts['space']}; mIoU % on {facts['split']} after the last epoch",
        "",
        f"lowest {low}, quartiles {', '.join(quartiles)}, highest {high}; mean {_percent(facts['mean'])}",
        f"s.d. over seeds {_percent(noise['seeds'])}, between networks {_percent(noise['networks'])} (one seed)",
        f"Kendall's tau of the orders by two seeds {_tau(noise['tau_of_seeds'])}, by the two splits "
        f"{_tau(noise['tau_of_splits'])}",
        "",
        f"{'best':>4}   mIoU %   multiply-adds   parameters   path         cell",
    ]
    for place, one in enumerate(facts["best"], 1):
        costs = f"{one['multiply_adds'] / 1e6:11.2f} M   {one['parameters']:>10,}"
        lines.append(f"{place:>4}   {100 * one['miou']:6.2f}   {costs}   {one['path']:<12} {one['cell']}")
    lines += ["", "share of the variance that a property explains alone (mean mIoU % of its groups)"]
    for name, found in facts["properties"].items():
        means = ", ".join(f"{value}: {_percent(miou)}" for value, miou in found["means"].items())
        few = f" ({means})" if len(found["means"]) <= 6 else ""
        lines.append(f"  {'-' if found['share'] is None else format(found['share'], '.2f'):>4}  {name}{few}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _tau(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
