"""Networks: parameters, multiply-adds, and how many images a second they label and learn from.

Inference is a forward pass in eval mode; a training step is forward, cross entropy, backward and SGD. With a network to
relate them to, each is measured in turn with that one, so that a machine that slows down slows both, and the ratio of
the two medians is given: absolute times are one machine's.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.config import NetworksBench, numbers
from benchmarks.documents import command, hardware, number, table
from benchmarks.timing import in_turn, seconds
from nas.config import CosineSgdConfig
from nas.cost import describe
from nas.devices import autocast, choose_device, set_float32
from nas.optimizers import make_optimizer
from nas.stepping import Stepper
from retrain.networks import NETWORKS, build

__all__ = ["COST_SIZE", "make_table", "measure"]

COST_SIZE = (512, 1024)
CLASSES = 19
"""Of a genotype's network; a published one has those of its paper's count of parameters."""
ALL = "all"

Size = tuple[int, int]


def measure(config: NetworksBench) -> dict[str, Any]:
    """Measures every network at every size in every mode.

    Returns:
        `rows`: name, description, paper, printed, parameters, classes, multiply_adds at `COST_SIZE`, and `speeds`, by
        mode and size: images a second, or the speed relative to the other network; None for what did not fit into a
        GPU's memory. And `command`, `machine`, `precision`, `modes`, `sizes`, `relative_to`.

    Raises:
        ValueError: There is no such network, genotype file or device.
    """
    device = choose_device(config.device)
    set_float32(device, config.precision)  # refused here, before there are processes
    torch.set_num_threads(config.threads)
    names = [one for name in config.networks for one in (NETWORKS if name == ALL else (name,))]
    names = list(dict.fromkeys(names))
    with torch.device("meta"):
        if config.relative_to is not None:
            build(config.relative_to, _classes(config.relative_to))
        costs = {name: describe(build(name, _classes(name)), COST_SIZE) for name in names}
    rows = []
    for name in names:
        print(name, file=sys.stderr)
        rows.append({**_facts(name, costs[name]), "speeds": _speeds(config, name, device)})
    return {
        "command": command("networks", config),
        "machine": hardware(config.device, config.threads),
        "precision": config.precision,
        "repeats": config.repeats,
        "batches": {"inference": config.inference_batch, "training": config.training_batch},
        "modes": list(config.modes),
        "sizes": list(config.sizes),
        "relative_to": config.relative_to,
        "rows": rows,
    }


def _classes(name: str) -> int:
    return NETWORKS[name].classes if name in NETWORKS else CLASSES


def _facts(name: str, cost: Mapping[str, Any]) -> dict[str, Any]:
    record = NETWORKS[name] if name in NETWORKS else None  # noqa: SIM401 (a registry's `get` raises)
    return {
        "name": name,
        "description": record.description if record else "a genotype's DeepLab-style network",
        "paper": record.paper if record else "Genotypes",
        "printed": record.printed if record else None,
        "parameters": cost["parameters"],
        "classes": _classes(name),
        "multiply_adds": cost["multiply_adds"],
    }


def _speeds(config: NetworksBench, name: str, device: torch.device) -> dict[str, dict[str, float | None]]:
    speeds: dict[str, dict[str, float | None]] = {}
    measured = [name] if config.relative_to is None else [name, config.relative_to]
    for mode in config.modes:
        batch_size = config.inference_batch if mode == "inference" else config.training_batch
        speeds[mode] = {}
        for text, size in zip(config.sizes, numbers("sizes", config.sizes, 2, ""), strict=True):
            try:
                times = _times(config, mode, measured, (batch_size, *size), device)
            except torch.OutOfMemoryError:
                speeds[mode][text] = None
                continue
            print(f"  {mode} at {text}: " + ", ".join(f"{1e3 * time:.1f} ms" for time in times), file=sys.stderr)
            speeds[mode][text] = batch_size / times[0] if len(times) == 1 else times[1] / times[0]
    return speeds


def _times(
    config: NetworksBench, mode: str, names: Sequence[str], shape: Sequence[int], device: torch.device
) -> list[float]:
    """Median seconds of each network's pass over a batch of `shape`, (N, H, W)."""
    batch_size, height, width = shape
    images = torch.randn(batch_size, 3, height, width, device=device)
    works = []
    for name in names:
        network = build(name, _classes(name)).to(device)
        if mode == "inference":
            works.append(_inference(network, images, config))
        else:
            works.append(_training(network, images, _classes(name), config))
    return [statistics.median(times) for times in in_turn([partial(seconds, w, device) for w in works], config.repeats)]


def _inference(network: nn.Module, images: Tensor, config: NetworksBench) -> Callable[[], object]:
    network.eval()

    def work() -> None:
        with torch.inference_mode(), autocast(images.device, config.precision):
            network(images)

    return work


def _training(network: nn.Module, images: Tensor, classes: int, config: NetworksBench) -> Callable[[], object]:
    optimizer = make_optimizer(network, network.parameters(), CosineSgdConfig())
    stepper = Stepper("training", network, optimizer, images.device, config.precision)
    labels = torch.randint(classes, (images.shape[0], *images.shape[2:]), device=images.device)
    return lambda: stepper.step(images, labels, "here")


def make_table(data: Mapping[str, Any]) -> str:
    """A table for each paper in Markdown, with what they need to be made again."""
    relative = data["relative_to"]
    heads = ["name", "network", "printed", "parameters", "classes"]
    heads.append(f"G multiply-adds at {'x'.join(map(str, COST_SIZE))}")
    for mode in data["modes"]:
        unit = f"{mode}, images/s" if relative is None else "speed" if mode == "inference" else "training speed"
        heads += [f"{unit} at {size}" for size in data["sizes"]]
    lines = [f"{_note(data)} Made by", "", f"    {data['command']}"]
    for paper in dict.fromkeys(row["paper"] for row in data["rows"]):
        cells = [
            [
                f"`{row['name']}`",
                row["description"],
                row["printed"] or "",
                f"{row['parameters']:,}",
                str(row["classes"]),
                f"{row['multiply_adds'] / 1e9:.3f}",
                *(number(row["speeds"][mode][size], ".3g") for mode in data["modes"] for size in data["sizes"]),
            ]
            for row in data["rows"]
            if row["paper"] == paper
        ]
        lines += ["", paper, "", *table(heads, cells, 3)]
    return "\n".join(lines)


def _note(data: Mapping[str, Any]) -> str:
    if not data["sizes"]:
        return "Parameters are the trainable ones."
    passes = {"inference": "forward passes", "training": "training steps"}
    counts = " and ".join(
        f"{passes[mode]} of {data['batches'][mode]} image{'s' * (data['batches'][mode] > 1)}" for mode in data["modes"]
    )
    how = f"medians of {data['repeats']} {counts} in {data['precision']}"
    if data["relative_to"] is None:
        return f"Images a second ({how}, on {data['machine']}); -- did not fit into memory."
    how += f", measured in turn, on {data['machine']}"
    return f"Speed is relative to `{data['relative_to']}`, 1 being as fast ({how})."
