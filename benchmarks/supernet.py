"""Time and memory of the two steps of a search, by each way to compute the supernet.

Each way has its own process, next to one of the first way; they take their steps in turn, so that a machine that slows
down slows both. A weight step is the forward pass, the loss, the backward pass to all weights and SGD; an architecture
step, the same to alpha and beta with Adam. Memory is the process's peak (on a GPU, the allocator's) above its memory
before the first step, when the supernet is built.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.config import VARIANTS, SupernetBench
from benchmarks.documents import hardware, made, number, origin, table
from benchmarks.measuring import protocol_hours
from benchmarks.trial import COUNTED_CROP, STEPS, Remote, Trial, cost_in_turn
from nas.training.devices import choose_device, set_float32
from search_spaces.space import SearchSpace, load
from search_spaces.validation import require

__all__ = ["geometric_means", "make_table", "measure"]

RATIOS = (*STEPS, "memory")
ON_GPU = (
    *((f"kernels_{step}", "kernels", step) for step in STEPS),
    ("traffic", "traffic", STEPS[0]),
    ("copy_speed", "copy_speed"),
)
"""Further measurements of each trial on a GPU: name, method of `Trial`, arguments."""


def measure(config: SupernetBench) -> dict[str, Any]:
    """Measures every variant in every space at every crop.

    Returns:
        `rows`: space, crop, variant, seconds of a `weight` and an `architecture` step, `memory` in MiB, `hours` of the
        paper's protocol, `ratios` to the first variant, measured in turn with it (how many times as fast each step is,
        and the share of its memory), and on a GPU kernels of each step, `bandwidth`, the weight step's share of the
        speed of a copy, and `largest_batch`; None for what did not fit into memory. `dispatched`: tensor operations by
        space and variant. `means`: see `geometric_means`. And `command`, `machine`, `precision`.

    Raises:
        ValueError: An unknown space or device, or --largest-batch or --graphs on the CPU.
    """
    device = choose_device(config.device)
    set_float32(device, config.precision)  # an unusable precision is refused before any work
    require(
        device.type == "cuda" or not config.largest_batch,
        "largest_batch is for a GPU: filling the CPU's memory would harm other processes. Leave it out, or give "
        "--device cuda",
    )
    require(
        device.type == "cuda" or not config.graphs,
        "graphs are for NVIDIA GPUs: leave the option out, or give --device cuda on a machine that has one",
    )
    spaces = {name: dataclasses.replace(load(name), **config.changes()) for name in config.spaces}  # type: ignore[arg-type]
    rows: list[dict[str, Any]] = []
    dispatched: list[dict[str, Any]] = []
    for name, space in spaces.items():
        for crop in config.crops:
            found = _compare(config, space, crop, device.type == "cuda")
            for variant, (cost, base) in found.items():
                if crop == config.crops[0]:
                    count = None if cost is None else cost["dispatched"]
                    dispatched.append({"space": name, "variant": variant, "operations": count})
                rows.append({"space": name, "crop": crop, "variant": variant, **_row(config, cost, base)})
                print(_progress(rows[-1]), file=sys.stderr)
    return {
        **origin("supernet", config, hardware(config.device, config.threads)),
        "precision": config.precision,
        "rows": rows,
        "dispatched": dispatched,
        "means": geometric_means(rows),
    }


def _progress(row: Mapping[str, Any]) -> str:
    text = f"{row['space']}, crop {row['crop']}, {row['variant']}: "
    if row["weight"] is None:
        return text + "did not fit into memory"
    text += f"weight step {row['weight']:.3g} s, architecture step {row['architecture']:.3g} s"
    return text if row["memory"] is None else f"{text}, {row['memory']:,.0f} MiB"


def _compare(
    config: SupernetBench, space: SearchSpace, crop: int, on_gpu: bool
) -> dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Returns, by variant, its cost and that of the first variant, measured in turn with it."""
    by_name = {variant.name: variant for variant in VARIANTS}
    machine = (config.device, config.threads, config.precision, config.graphs)
    trials = {name: (space, by_name[name], crop, config.batch_size, *machine) for name in config.variants}
    more = [*(ON_GPU if on_gpu else ()), *([("dispatched", "dispatched")] if crop == config.crops[0] else ())]
    first, *others = config.variants
    size = config.together - 1
    found: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {}
    for start in range(0, max(len(others), 1), size):
        group = [first, *others[start : start + size]]
        costs = cost_in_turn([trials[name] for name in group], config.repeats, more)
        for name, cost in zip(group, costs, strict=True):
            found.setdefault(name, (cost, costs[0]))
    if config.largest_batch:
        for name, (cost, _) in found.items():
            if cost is not None:
                with Remote(Trial, *trials[name]) as alone:
                    cost["largest_batch"] = alone.ask("largest_batch")
    return found


def _row(config: SupernetBench, cost: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> dict[str, Any]:
    if cost is None:
        return {**dict.fromkeys((*RATIOS, "hours")), "ratios": dict.fromkeys(RATIOS)}
    row = {name: cost[name] for name in RATIOS}
    row["hours"] = protocol_hours(cost["weight"], cost["architecture"], config.batch_size)
    row["ratios"] = {name: base[name] / cost[name] if base else None for name in STEPS}
    known = base is not None and base["memory"] and cost["memory"]
    row["ratios"]["memory"] = cost["memory"] / base["memory"] if base and known else None
    if "traffic" in cost:
        row |= {f"kernels_{step}": cost[f"kernels_{step}"] for step in STEPS}
        row["bandwidth"] = cost["traffic"] / cost["weight"] / cost["copy_speed"]
    if "largest_batch" in cost:
        row["largest_batch"] = cost["largest_batch"]
    return row


def geometric_means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Averages the `ratios` of the rows of `measure` over the crops, as geometric means.

    Returns:
        By space and variant but the first: `weight`, `architecture` and `memory`; None where no crop has a ratio.
    """
    means = []
    for space, variant in dict.fromkeys((row["space"], row["variant"]) for row in rows):
        if variant == rows[0]["variant"]:
            continue
        mean: dict[str, Any] = {"space": space, "variant": variant}
        for name in RATIOS:
            own = [row["ratios"][name] for row in rows if (row["space"], row["variant"]) == (space, variant)]
            known = [ratio for ratio in own if ratio is not None]
            mean[name] = statistics.geometric_mean(known) if known else None
        means.append(mean)
    return means


def make_table(data: Mapping[str, Any]) -> str:
    """Formats the measurements as tables in Markdown."""
    labels = {variant.name: variant.label for variant in VARIANTS}
    first = labels[data["rows"][0]["variant"]]
    note = f"On {data['machine']}, {data['precision']}, medians of {data['repeats']}; -- did not fit into memory."
    lines = [*made(note, data), ""]
    if data["means"]:
        heads = ["space", "variant", "weight step, times as fast", "architecture step, times as fast", "memory, share"]
        cells = [
            [f"`{mean['space']}`", labels[mean["variant"]], *(number(mean[name]) for name in RATIOS)]
            for mean in data["means"]
        ]
        lines += [f"Compared with {first} (geometric means over the crops):", "", *table(heads, cells, 2), ""]
    optional = {
        "kernels_weight": ("kernels, weight step", ",d"),
        "kernels_architecture": ("kernels, architecture step", ",d"),
        "bandwidth": ("share of a copy's speed", ".2f"),
        "largest_batch": ("largest batch", "d"),
    }
    shown = {name: what for name, what in optional.items() if any(name in row for row in data["rows"])}
    heads = ["space", "crop", "variant", "weight step, s", "times as fast", "architecture step, s", "times as fast"]
    heads += ["memory, MiB", "share", "the paper's protocol, h", *(head for head, _ in shown.values())]
    forms = {**dict.fromkeys(STEPS, ".4g"), "memory": ",.0f"}
    cells = []
    for row in data["rows"]:
        cells.append([f"`{row['space']}`", str(row["crop"]), labels[row["variant"]]])
        cells[-1] += [t for name in RATIOS for t in (number(row[name], forms[name]), number(row["ratios"][name]))]
        cells[-1] += [number(row["hours"], ",.1f"), *(number(row.get(n), form) for n, (_, form) in shown.items())]
    lines += ["Steps:", "", *table(heads, cells, 3), ""]
    cells = [
        [f"`{row['space']}`", labels[row["variant"]], number(row["operations"], ",d")] for row in data["dispatched"]
    ]
    lines += [f"Tensor operations that a forward and a backward pass dispatch (crop {COUNTED_CROP}):", ""]
    return "\n".join([*lines, *table(["space", "variant", "operations"], cells, 2)])
