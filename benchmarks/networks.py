"""The table of docs/networks.md, made from the registry: parameters, multiply-adds, and relative speed.

    python benchmarks/networks.py                                # prints the table
    python benchmarks/networks.py --into docs/networks.md        # and puts it between the markers of that file

Speed is that of a forward pass of one image in eval mode, float32. Each network is measured in turn with the base line,
so that a machine that slows down slows both; the ratio is that of the two medians. Absolute times are printed on the
screen only: they are this machine's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from documents import hardware, line, put
from torch import nn

from nas.cost import describe
from nas.devices import choose_device
from retrain.networks import NETWORKS, PublishedNetwork, build

BASE_LINE = "espnet"
COST_SIZE = (512, 1024)
Size = tuple[int, int]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="*", default=["512x1024", "360x480"], help="Input sizes, HEIGHTxWIDTH; none: no speed."
    )
    parser.add_argument("--repeats", type=int, default=5, help="Timed passes of each network; the median counts.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N.")
    parser.add_argument("--threads", type=int, default=1, help="Threads on the CPU.")
    parser.add_argument("--only", nargs="+", choices=tuple(NETWORKS), help="Only these networks.")
    parser.add_argument("--into", type=Path, help="Markdown file with the two markers.")
    values = parser.parse_args(arguments)
    if values.repeats < 1 or values.threads < 1:
        parser.error("--repeats and --threads are at least 1")
    values.sizes = [tuple(map(int, size.split("x"))) for size in values.sizes]
    return values


@torch.inference_mode()
def forward_time(network: nn.Module, images: torch.Tensor) -> float:
    """Seconds of one forward pass, with the device idle before and after."""
    cuda = images.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    network(images)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def relative_speed(network: nn.Module, base_line: nn.Module, size: Size, device: torch.device, repeats: int) -> float:
    """Median time of the base line over that of the network, both measured in turn."""
    images = torch.randn(1, 3, *size, device=device)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + repeats):
        for entry, subject in zip(times, (base_line, network), strict=True):
            entry.append(forward_time(subject, images))
    base, own = (statistics.median(entry[1:]) for entry in times)  # the first pass of each allocates and chooses
    print(f"  {size[0]}x{size[1]}: {1e3 * own:.1f} ms, {BASE_LINE} {1e3 * base:.1f} ms", file=sys.stderr)
    return base / own


def make_row(record: PublishedNetwork, speeds: list[float]) -> list[str]:
    """One network's line of the table."""
    with torch.device("meta"):
        costs = describe(build(record.name, record.classes), COST_SIZE)
    return [
        f"`{record.name}`",
        record.description,
        record.printed or "",
        f"{costs['parameters']:,}",
        str(record.classes),
        f"{costs['multiply_adds'] / 1e9:.3f}",
        *(f"{speed:.3g}" for speed in speeds),
    ]


def make_table(values: argparse.Namespace) -> str:
    """The whole table, with what it needs to be made again."""
    device = choose_device(values.device)
    torch.set_num_threads(values.threads)
    base_line = build(BASE_LINE, NETWORKS[BASE_LINE].classes).eval().to(device)
    heads = ["name", "network", "printed", "parameters", "classes", f"G multiply-adds at {_text(COST_SIZE)}"]
    heads += [f"speed at {_text(size)}" for size in values.sizes]
    lines: list[str] = []
    paper = ""
    for name in values.only or NETWORKS:
        record = NETWORKS[name]
        print(name, file=sys.stderr)
        network = build(name, record.classes).eval().to(device)
        speeds = [relative_speed(network, base_line, size, device, values.repeats) for size in values.sizes]
        if record.paper != paper:
            paper = record.paper
            lines += ["", paper, "", line(heads), line(["---"] * 3 + ["---:"] * (len(heads) - 3))]
        lines.append(line(make_row(record, speeds)))
    if not values.sizes:
        return "\n".join(["Made by `python benchmarks/networks.py --sizes`.", *lines])
    sizes = " ".join(_text(size) for size in values.sizes)
    command = f"python benchmarks/networks.py --sizes {sizes} --repeats {values.repeats} --device {values.device}"
    note = (
        f"Speed is relative to `{BASE_LINE}`, 1 being as fast (medians of {values.repeats} forward passes of one image "
        f"in float32, measured in turn, on {hardware(device, values.threads)}, PyTorch {torch.__version__}). Made by"
        f"\n\n    {command} --threads {values.threads}"
    )
    return "\n".join([note, *lines])


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


if __name__ == "__main__":
    settings = parse_arguments()
    result = make_table(settings)
    print(result)
    if settings.into is not None:
        put(result, settings.into)
