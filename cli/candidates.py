"""How nas-decode prints candidates: as a table, and in plain containers for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrain.networks.building import KINDS
from retrain.networks.settings import DEFAULT_FILTER_MULTIPLIER, NetworkConfig

if TYPE_CHECKING:
    from retrain.budget import Decoded
    from search_spaces.genotype import Block

__all__ = ["costs_line", "costs_of", "facts", "plain_cell", "table"]

LATENCY = "microseconds"


def plain_cell(cell: Sequence[Block]) -> list[dict[str, Any]]:
    """A cell as in a genotype file."""
    return [{"inputs": list(block.inputs), "operations": list(block.operations)} for block in cell]


def facts(one: Decoded) -> dict[str, Any]:
    """A candidate in plain containers; latency in milliseconds, and where it was measured."""
    candidate, costs = one.candidate, dict(one.candidate.costs)
    latency: dict[str, Any] = {}
    if LATENCY in costs:
        latency = {
            "latency_ms": costs.pop(LATENCY) / 1000,
            "timed_on": one.genotype.provenance["decoding"].get("timed_on"),
        }
    return {
        "path": list(one.genotype.path),
        "cell": plain_cell(candidate.cell),
        "path_probability": candidate.path_probability,
        "cell_probability": candidate.cell_probability,
        "log_probability": candidate.log_probability,
        **costs,
        **latency,
    }


def costs_of(size: tuple[int, int], classes: int, network: NetworkConfig) -> dict[str, Any]:
    """What the costs are of, in plain containers: image, classes, the network's kind and F, and what was given."""
    settings = {"filter_multiplier": DEFAULT_FILTER_MULTIPLIER, **network.changed(), "kind": network.kind}
    return {"input": list(size), "classes": classes, "network": settings}


def costs_line(costs: dict[str, Any]) -> str:
    """`costs_of` in a line."""
    network = dict(costs["network"])
    style = KINDS[network.pop("kind")].style
    height, width = costs["input"]
    settings = ", ".join(f"{name} {value}" for name, value in sorted(network.items()))
    return f"costs of the {style} network ({settings}) for {costs['classes']} classes at input {height}x{width}"


def table(listed: Sequence[Decoded]) -> str:
    """The candidates, one a line; of a cell the blocks that differ from the first candidate's."""
    costs = listed[0].candidate.costs
    first = listed[0].candidate.cell
    cells = any(one.candidate.cell != first for one in listed)
    heads = ["", "path", "p(path)", "p(cell)", "ln p", "multiply-adds", "parameters"]
    heads += ["latency, ms"] * (LATENCY in costs) + ["cell"] * cells
    rows = [heads]
    for number, one in enumerate(listed, start=1):
        candidate = one.candidate
        row = [str(number), "-".join(map(str, one.genotype.path))]
        row += [f"{candidate.path_probability:.3g}", f"{candidate.cell_probability:.3g}"]
        row += [f"{candidate.log_probability:.3f}"]
        row += [f"{candidate.costs[name]:,}" for name in ("multiply_adds", "parameters")]
        if LATENCY in costs:
            row.append(f"{candidate.costs[LATENCY] / 1000:.3f}")
        row += [_difference(first, candidate.cell)] * cells
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    left = {1, len(heads) - 1} if cells else {1}
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _difference(first: Sequence[Block], cell: Sequence[Block]) -> str:
    changes = [
        f"block{number}: "
        + " + ".join(f"{name} {operation}" for name, operation in zip(own.inputs, own.operations, strict=True))
        for number, (block, own) in enumerate(zip(first, cell, strict=True), start=1)
        if block != own
    ]
    return "; ".join(changes) or "as candidate 1"
