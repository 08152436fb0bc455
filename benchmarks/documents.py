"""What the benchmarks write into documents: lines of a table, the machine in words, a table between two markers."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from search_spaces.files import write_atomically

__all__ = ["BEGIN", "END", "hardware", "line", "put"]

BEGIN, END = "<!-- begin of the generated table -->", "<!-- end of the generated table -->"


def line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def hardware(device: torch.device, threads: int) -> str:
    """The machine in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [text for text in info.read_text().splitlines() if text.startswith("model name")] if info.exists() else []
    name = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def put(table: str, file: Path) -> None:
    """Puts a generated table between the markers of a file.

    Raises:
        SystemExit: The file lacks a marker.
    """
    text = file.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{file} has no lines {BEGIN} and {END}: add them where the table shall stand")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    write_atomically(file, f"{before}{BEGIN}\n{table}\n\n{END}{after}")
