"""What a table says: distribution, noise, what matters, accuracy against cost. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, quantiles
from typing import TYPE_CHECKING, Any

from retrain.ranking.comparison import kendall, pooled, spread
from retrain.table.reading import Table
from search_spaces.genotype import Genotype
from search_spaces.text import aligned
from search_spaces.validation import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_table", "properties", "share_of_variance", "summary", "summary_text"]

TOP = 5
"""Networks that are listed."""


def properties(genotype: Genotype) -> dict[str, str]:
    """What groups networks: path and cell as a whole, and parts of them, in words."""
    path, finest = genotype.path, genotype.space.strides[0]
    edges = [
        (f"{name} in block{number}", name, operation)
        for number, block in enumerate(genotype.cell, 1)
        for name, operation in zip(block.inputs, block.operations, strict=True)
    ]
    return {
        "path": "-".join(map(str, path)),
        "cell": ", ".join(f"{name} {operation}" for _, name, operation in edges),
        "stride at the path's end": str(path[-1]),
        f"cells at stride {finest}": str(path.count(finest)),
        **{f"operation on {edge}": operation for edge, _, operation in edges},
    }


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


def summary(table: Table, split: str | None = None) -> dict[str, Any]:
    """The table in numbers, in plain containers; mIoU from 0 to 1.

    `noise` has the standard deviation over seeds (pooled), that between networks with the first seed, and Kendall's tau
    of the orders by the first two seeds and by the two splits. `properties` has the share of the variance that each
    explains alone, with the first seed, and the mean of each of its groups.
    """
    networks = table.ordered(split)
    values = [table.miou(network, split) for network in networks]
    by_seed = [[table.miou(network, split, seed) for seed in network.runs] for network in networks]
    groups: dict[str, dict[str, list[float]]] = {}
    for network, (first, *_) in zip(networks, by_seed, strict=True):
        for name, value in properties(network.genotype).items():
            groups.setdefault(name, {}).setdefault(value, []).append(first)
    shares = {name: share_of_variance(list(own.values())) for name, own in groups.items() if len(own) > 1}
    best = []
    for network, miou in zip(networks[:TOP], values, strict=False):
        costs = {"parameters": network.parameters, "multiply_adds": network.multiply_adds}
        best.append({"number": network.number, "miou": miou, **properties(network.genotype), **costs})
    matters = {}
    for name in sorted(shares, key=lambda name: -(shares[name] or 0.0)):
        ordered = sorted(groups[name], key=lambda value: (len(value), value))  # 8 before 16
        matters[name] = {"share": shares[name], "means": {value: mean(groups[name][value]) for value in ordered}}
    return {
        "name": table.card["name"],
        "space": table.space.name,
        "split": split or table.splits[1],
        "networks": len(networks),
        "trainings": sum(map(len, by_seed)),
        "mean": mean(values),
        "quartiles": [values[-1], *(quantiles(values, n=4) if len(values) > 1 else values * 3), values[0]],
        "best": best,
        "noise": {
            "seeds": pooled(by_seed),
            "networks": spread([first for first, *_ in by_seed]),
            "tau_of_seeds": kendall([(seeds[0], seeds[1]) for seeds in by_seed if len(seeds) > 1]),
            "tau_of_splits": kendall([(table.miou(n, table.splits[0]), table.miou(n)) for n in networks]),
        },
        "properties": matters,
    }


def summary_text(facts: dict[str, Any]) -> str:
    """`summary` for a terminal."""
    noise, best = facts["noise"], [["best", "mIoU %", "multiply-adds", "parameters", "path", "cell"]]
    for place, one in enumerate(facts["best"], 1):
        costs = f"{one['multiply_adds'] / 1e6:.2f} M", f"{one['parameters']:,}"
        best.append([str(place), _text(one["miou"]), *costs, one["path"], one["cell"]])
    shares = []
    for name, found in facts["properties"].items():
        means = ", ".join(f"{value}: {_text(miou)}" for value, miou in found["means"].items())
        few = f" ({means})" if len(found["means"]) <= 6 else ""
        shares.append(f"  {_text(found['share'], 1):>4}  {name}{few}")
    low, *quartiles, high = map(_text, facts["quartiles"])
    return "\n".join(
        [
            f"table {facts['name']}: {facts['trainings']} trainings of {facts['networks']} networks of the space "
            f"{facts['space']}; mIoU % on {facts['split']} after the last epoch",
            f"\nlowest {low}, quartiles {', '.join(quartiles)}, highest {high}; mean {_text(facts['mean'])}",
            f"s.d. over seeds {_text(noise['seeds'])}, between networks {_text(noise['networks'])} (one seed)",
            f"Kendall's tau of the orders by two seeds {_text(noise['tau_of_seeds'], 1)}, by the two splits "
            f"{_text(noise['tau_of_splits'], 1)}\n",
            *aligned(best, left=(4, 5)),
            "\nshare of the variance that a property explains alone (mean mIoU % of its groups)",
            *shares,
        ]
    )


def _text(value: float | None, scale: int = 100) -> str:
    return "-" if value is None else f"{scale * value:.2f}"


def draw_table(table: Table, cost: str = "multiply_adds", split: str | None = None) -> Figure:
    """Draws mIoU after the last epoch against a cost, and the Pareto front with the numbers of its networks.

    Raises:
        ValueError: The table does not have this cost.
    """
    import optuna

    from retrain.sweeps.pictures import draw_front

    known = [network for network in table.networks if getattr(network, cost) is not None]
    require(bool(known), f"the table {table.card['name']} has no {cost}: choose another --cost")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([optuna.create_trial(values=[table.miou(n, split), getattr(n, cost)]) for n in known])
    trials = study.trials
    front = [trials[trial.number] for trial in study.best_trials]
    for trial, network in zip(trials, known, strict=True):
        trial.number = network.number
    figure = draw_front(["miou", cost], trials, front)
    figure.axes[0].set_ylabel(f"mIoU on {split or table.splits[1]}, %")
    figure.axes[0].set_title(f"{table.card['name']}: {len(known)} networks of {table.space.name}", parse_math=False)
    return figure
