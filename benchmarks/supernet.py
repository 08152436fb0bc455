"""Time and memory of the two steps of a search, by both engines. Prints Markdown.

    python benchmarks/supernet.py
    python benchmarks/supernet.py --spaces autodeeplab-dw --crops 65 --repeats 7 --into benchmarks/supernet.md
    python benchmarks/supernet.py --device cuda --crops 321

Each engine has a process of its own; the two take their steps in turn, so that a machine that slows down slows both. A
weight step is the forward pass, the loss, the backward pass to all weights and SGD; an architecture step, the same to
alpha and beta with Adam. Memory is the process's peak (on a GPU, the allocator's) above what it has before the first
step, with the supernet built.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import statistics
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from documents import hardware, line, put

from nas.config import CosineSgdConfig
from nas.devices import choose_device
from nas.optimizers import make_optimizer
from nas.stepping import Stepper
from nas.supernet import Supernet
from search_spaces.space import load

ENGINES = ("plain", "fast")
STEPS = ("weight", "architecture")
CLASSES = 19
MIB = 2**20


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["autodeeplab", "autodeeplab-dw"], help="Search spaces.")
    parser.add_argument("--crops", nargs="+", type=int, default=[65, 129, 321], help="Sides of the square images.")
    parser.add_argument("--layers", type=int, help="In place of the space's number of layers.")
    parser.add_argument("--blocks", type=int, help="In place of the space's number of blocks.")
    parser.add_argument("--filter-multiplier", type=int, default=8, help="F.")
    parser.add_argument("--batch-size", type=int, default=2, help="Images in a step.")
    parser.add_argument("--repeats", type=int, default=3, help="Timed steps of each kind; the median counts.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N.")
    parser.add_argument("--threads", type=int, default=1, help="Threads on the CPU.")
    parser.add_argument("--into", type=Path, help="Markdown file with the two markers.")
    values = parser.parse_args(arguments)
    if min(values.repeats, values.threads, *values.crops) < 1 or values.batch_size < 2:
        parser.error("--repeats, --threads and --crops are at least 1, --batch-size at least 2")
    return values


def measure(pipe: Connection, engine: str, space: str, crop: int, values: argparse.Namespace) -> None:
    """The process of an engine: answers each name of a step with its seconds, and the end with MiB of memory."""
    torch.set_num_threads(values.threads)
    device = choose_device(values.device)
    changes = {name: getattr(values, name) for name in ("layers", "blocks", "filter_multiplier")}
    searched = dataclasses.replace(load(space), **{name: value for name, value in changes.items() if value})
    torch.manual_seed(0)
    supernet = Supernet(searched, CLASSES, engine).to(device)  # type: ignore[arg-type]
    images = torch.randn(values.batch_size, 3, crop, crop)
    labels = torch.randint(CLASSES, (values.batch_size, crop, crop))
    sgd = make_optimizer(supernet, supernet.weights(), CosineSgdConfig())
    adam = torch.optim.Adam(supernet.architecture.parameters(), 3e-3)
    steppers = {
        name: Stepper(name, supernet, optimizer, device, "float32")
        for name, optimizer in zip(STEPS, (sgd, adam), strict=True)
    }
    idle = _peak(device)
    pipe.send(None)
    while (step := pipe.recv()) is not None:
        began = time.perf_counter()
        steppers[step].step(images, labels, "here")  # its check of the loss waits for the device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        pipe.send(time.perf_counter() - began)
    pipe.send(_peak(device) - idle)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def compare(space: str, crop: int, values: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median seconds of each step and MiB, by engine."""
    context, pipes = get_context("spawn"), {}
    for engine in ENGINES:
        pipes[engine], other = context.Pipe()
        context.Process(target=measure, args=(other, engine, space, crop, values), daemon=True).start()
    for pipe in pipes.values():
        pipe.recv()
    times: dict[tuple[str, str], list[float]] = {(engine, step): [] for engine in ENGINES for step in STEPS}
    for _ in range(1 + values.repeats):
        for engine, step in times:
            pipes[engine].send(step)
            times[engine, step].append(pipes[engine].recv())
    found: dict[str, dict[str, float]] = {}
    for engine, pipe in pipes.items():
        pipe.send(None)
        found[engine] = {step: statistics.median(times[engine, step][1:]) for step in STEPS}  # the first one allocates
        found[engine]["memory"] = pipe.recv()
    print(f"{space} {crop}: {found}", file=sys.stderr)
    return found


def make_table(values: argparse.Namespace) -> str:
    """The table, with what it needs to be made again."""
    heads = ["space", "crop", f"{STEPS[0]} step, s: plain", "fast", "ratio"]
    heads += [f"{STEPS[1]} step, s: plain", "fast", "ratio", "memory, MiB: plain", "fast", "ratio"]
    lines = [line(heads), line(["---"] + ["---:"] * (len(heads) - 1))]
    speeds, memories = [], []
    for space in values.spaces:
        for crop in values.crops:
            found = compare(space, crop, values)
            plain, fast = (found[engine] for engine in ENGINES)
            cells: list[Any] = [f"`{space}`", str(crop)]
            for step in STEPS:
                cells += [f"{plain[step]:.2f}", f"{fast[step]:.2f}", f"{plain[step] / fast[step]:.2f}"]
                speeds.append(plain[step] / fast[step])
            cells += [f"{plain['memory']:,.0f}", f"{fast['memory']:,.0f}"]
            if min(plain["memory"], fast["memory"]) > 0:  # steps smaller than what the process had to spare show none
                memories.append(fast["memory"] / plain["memory"])
            cells.append(f"{memories[-1]:.2f}" if memories else "")
            lines.append(line(cells))
    device = choose_device(values.device)
    command = (
        f"python benchmarks/supernet.py --spaces {' '.join(values.spaces)} --crops {' '.join(map(str, values.crops))}"
    )
    command += f" --filter-multiplier {values.filter_multiplier} --batch-size {values.batch_size}"
    command += f" --repeats {values.repeats} --device {values.device} --threads {values.threads}"
    command += "".join(f" --{name} {getattr(values, name)}" for name in ("layers", "blocks") if getattr(values, name))
    note = (
        f"The fast engine takes its steps {statistics.geometric_mean(speeds):.2f} times as fast as the plain loop, in "
        f"{statistics.geometric_mean(memories or [1]):.2f} of its memory (geometric means of the ratios below). "
        f"On {hardware(device, values.threads)}, PyTorch {torch.__version__}, float32, medians of {values.repeats}. "
        f"Made by\n\n    {command}\n"
    )
    return "\n".join([note, *lines])


if __name__ == "__main__":
    settings = parse_arguments()
    result = make_table(settings)
    print(result)
    if settings.into is not None:
        put(result, settings.into)
