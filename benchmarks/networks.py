"""Networks: parameters, multiply-adds, and images a second in inference and training.

Inference is a forward pass in eval mode; a training step is forward, cross entropy, backward and SGD. With a reference
network, each is measured in turn with that one, so that a machine that slows down slows both, and the ratio of the two
medians is reported. Without one, passes are timed by `nas.evaluation.cost.call_seconds`, and the latency of a single
image is reported, too, also that of ONNX files in onnxruntime.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.config import NetworksBench, numbers
from benchmarks.documents import hardware, made, number, origin, table
from benchmarks.measuring import in_turn, seconds
from nas.config import CosineSgdConfig
from nas.evaluation.cost import call_seconds, channels_of, describe
from nas.runs.free_memory import is_out_of_memory
from nas.training.devices import autocast, choose_device, set_float32
from nas.training.optimizers import make_optimizer
from nas.training.step import Execution, Stepper
from retrain.export import open_session, run_session
from retrain.load import load_trained
from retrain.networks import NETWORKS, build
from retrain.networks.published import main_names
from search_spaces.validation import as_path

__all__ = ["COST_SIZE", "make_table", "measure"]

COST_SIZE = (512, 1024)
CLASSES = 19
"""Classes of a genotype's network; a published one has those of its paper's parameter count, a run's its own."""
ALL = "all"
OTHERS = {False: ("a genotype's DeepLab-style network", "Genotypes"), True: ("a run's network", "Runs")}
"""Description and group of an unpublished network, by whether it is a run's."""

Speeds = dict[str, dict[str, float | None]]
"""By mode and size."""
Latency = dict[str, dict[str, float]]
"""By size: median and p95, in milliseconds."""


def measure(config: NetworksBench) -> dict[str, Any]:
    """Measures every network at every size in every mode.

    Returns:
        `rows`: name, description, paper, printed, parameters, classes, multiply_adds at `COST_SIZE`, and `speeds`, by
        mode and size: images a second, or the speed relative to the reference; None for what did not fit into a GPU's
        memory. `latency`: name, runtime, and milliseconds of one image by size, {median, p95}; of each network and each
        ONNX file. And `command`, `machine`, `precision`, `modes`, `sizes`, `relative_to`.

    Raises:
        ValueError: There is no such network, genotype file, run, ONNX file or device.
    """
    device = choose_device(config.device)
    set_float32(device, config.precision)  # an unusable precision is refused before any work
    torch.set_num_threads(config.threads)
    names = [one for name in config.networks for one in (main_names() if name == ALL else (name,))]
    names = list(dict.fromkeys(names))
    sessions = {file: open_session(file, config.threads) for file in config.onnx}
    if config.relative_to is not None:
        _light(config.relative_to)
    costs = {name: describe(_light(name), COST_SIZE) for name in names}
    rows, latency = [], []
    for name in names:
        print(name, file=sys.stderr)
        speeds, times = _speeds(config, name, device)
        rows.append({**_facts(name, costs[name]), "speeds": speeds})
        if times:
            latency.append({"name": name, "runtime": f"PyTorch {torch.__version__}", "milliseconds": times})
    for name, session in sessions.items():
        print(name, file=sys.stderr)
        latency.append({"name": name, "runtime": _onnxruntime(), "milliseconds": _session_times(config, session)})
    return {
        **origin("networks", config, hardware(config.device, config.threads)),
        "precision": config.precision,
        "batches": {"inference": config.inference_batch, "training": config.training_batch},
        "modes": list(config.modes),
        "sizes": list(config.sizes),
        "relative_to": config.relative_to,
        "rows": rows,
        "latency": latency,
    }


def _is_run(name: str) -> bool:
    return name not in NETWORKS and as_path(name).is_dir()


def _network(name: str) -> nn.Module:
    """Returns a published or a genotype's network with fresh weights, or a run's with its own."""
    return load_trained(name).network if _is_run(name) else build(name, _classes(name))


def _light(name: str) -> nn.Module:
    """Returns the same without memory, unless it is a run's: enough to count, and to find out whether it exists."""
    with torch.device("cpu" if _is_run(name) else "meta"):
        return _network(name)


def _classes(name: str) -> int:
    if name in NETWORKS:
        return NETWORKS[name].classes
    return len(load_trained(name).classes) if _is_run(name) else CLASSES


def _facts(name: str, cost: Mapping[str, Any]) -> dict[str, Any]:
    record = NETWORKS[name] if name in NETWORKS else None  # noqa: SIM401 (a registry's `get` raises)
    return {
        "name": name,
        "description": record.description if record else OTHERS[_is_run(name)][0],
        "paper": record.paper if record else OTHERS[_is_run(name)][1],
        "printed": record.printed if record else None,
        "parameters": cost["parameters"],
        "classes": _classes(name),
        "multiply_adds": cost["multiply_adds"],
    }


def _speeds(config: NetworksBench, name: str, device: torch.device) -> tuple[Speeds, Latency]:
    speeds: Speeds = {}
    latency: Latency = {}
    measured = [name] if config.relative_to is None else [name, config.relative_to]
    for mode in config.modes:
        batch_size = config.inference_batch if mode == "inference" else config.training_batch
        speeds[mode] = {}
        for text, size in zip(config.sizes, numbers("sizes", config.sizes, 2, ""), strict=True):
            try:
                times = _times(config, mode, measured, (batch_size, *size), device)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                speeds[mode][text] = None
                continue
            medians = [statistics.median(one) for one in times]
            print(f"  {mode} at {text}: " + ", ".join(f"{1e3 * time:.1f} ms" for time in medians), file=sys.stderr)
            speeds[mode][text] = batch_size / medians[0] if len(medians) == 1 else medians[1] / medians[0]
            if mode == "inference" and config.relative_to is None:
                alone = times if batch_size == 1 else _times(config, mode, measured, (1, *size), device)
                latency[text] = _percentiles(alone[0])
    return speeds, latency


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds, interpolated between the two nearest times."""
    median, p95 = np.quantile(seconds, (0.5, 0.95))
    return {"median": 1e3 * float(median), "p95": 1e3 * float(p95)}


def _session_times(config: NetworksBench, session: Any) -> Latency:
    latency = {}
    for text, size in zip(config.sizes, numbers("sizes", config.sizes, 2, ""), strict=True):
        images = torch.randn(1, session.get_inputs()[0].shape[1], *size).numpy()
        latency[text] = _percentiles(call_seconds(run_session, session, images, repeats=config.repeats))
    return latency


def _onnxruntime() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def _times(
    config: NetworksBench, mode: str, names: Sequence[str], shape: Sequence[int], device: torch.device
) -> list[list[float]]:
    """Times each network's passes over a batch of `shape`, (N, H, W), in seconds: [networks, repeats]."""
    batch_size, height, width = shape
    works = []
    for name in names:
        network = _network(name).to(device)
        images = torch.randn(batch_size, channels_of(network), height, width, device=device)
        if mode == "inference" and len(names) == 1:
            return [call_seconds(network, images, precision=config.precision, repeats=config.repeats)]
        if mode == "inference":
            works.append(_inference(network, images, config))
        else:
            works.append(_training(network, images, _classes(name), config))
    return in_turn([partial(seconds, work, device) for work in works], config.repeats)


def _inference(network: nn.Module, images: Tensor, config: NetworksBench) -> Callable[[], object]:
    network.eval()

    def work() -> None:
        with torch.inference_mode(), autocast(images.device, config.precision):
            network(images)

    return work


def _training(network: nn.Module, images: Tensor, classes: int, config: NetworksBench) -> Callable[[], object]:
    optimizer = make_optimizer(network, network.parameters(), CosineSgdConfig())
    stepper = Stepper("training", network, optimizer, Execution(images.device, config.precision))
    labels = torch.randint(classes, (images.shape[0], *images.shape[2:]), device=images.device)
    return lambda: stepper.step(images, labels, "here")


def make_table(data: Mapping[str, Any]) -> str:
    """Formats the measurements as tables in Markdown, one for each paper."""
    relative = data["relative_to"]
    heads = ["name", "network", "printed", "parameters", "classes"]
    heads.append(f"G multiply-adds at {'x'.join(map(str, COST_SIZE))}")
    for mode in data["modes"]:
        unit = f"{mode}, images/s" if relative is None else "speed" if mode == "inference" else "training speed"
        heads += [f"{unit} at {size}" for size in data["sizes"]]
    lines = made(_note(data), data)
    for paper in dict.fromkeys(row["paper"] for row in data["rows"]):
        cells = []
        for row in (row for row in data["rows"] if row["paper"] == paper):
            cells.append([f"`{row['name']}`", row["description"], row["printed"] or "", f"{row['parameters']:,}"])
            cells[-1] += [str(row["classes"]), f"{row['multiply_adds'] / 1e9:.3f}"]
            cells[-1] += [number(row["speeds"][mode][size], ".3g") for mode in data["modes"] for size in data["sizes"]]
        lines += ["", paper, "", *table(heads, cells, 3)]
    return "\n".join(lines + _latency_table(data))


def _latency_table(data: Mapping[str, Any]) -> list[str]:
    if not data["latency"]:
        return []
    heads, values = ["name", "in"], (("images/s", ".3g"), ("ms, median", ".3g"), ("ms, 95th percentile", ".3g"))
    heads += [f"{label} at {size}" for size in data["sizes"] for label, _ in values]
    cells = []
    for row in data["latency"]:
        cells.append([f"`{row['name']}`", row["runtime"]])
        for size in data["sizes"]:
            times = row["milliseconds"].get(size)
            found = (1e3 / times["median"], times["median"], times["p95"]) if times else (None,) * len(values)
            cells[-1] += [number(value, form) for value, (_, form) in zip(found, values, strict=True)]
    return ["", f"Latency of one image, over {data['repeats']} forward passes:", "", *table(heads, cells, 2)]


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
