"""Markdown tables of the benchmarks, the machine and the command line that made them, and their place in a document."""

from __future__ import annotations

import dataclasses
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_spaces.files import write_atomically

__all__ = ["BEGIN", "END", "command", "hardware", "made", "number", "origin", "processor", "put", "split", "table"]

BEGIN, END = "<!-- begin of the generated table -->", "<!-- end of the generated table -->"
ABSENT = "--"


def number(value: float | None, form: str = ".2f") -> str:
    """Formats a number for a cell; None (not measured, or out of memory) becomes `--`."""
    return ABSENT if value is None else format(value, form)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """Returns the lines of a Markdown table: `texts` columns aligned to the left, then numbers aligned to the right."""
    rule = ["---"] * texts + ["---:"] * (len(heads) - texts)
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def origin(verb: str, config: Any, machine: str) -> dict[str, Any]:
    """Returns what every table reports about its making: the command line, the machine, the repeats."""
    return {"command": command(verb, config), "machine": machine, "repeats": config.repeats}


def made(note: str, data: Mapping[str, Any]) -> list[str]:
    """Returns the lines above a table: a note, and the command that makes the table again."""
    return [f"{note} Made by", "", f"    {data['command']}"]


def command(verb: str, config: Any) -> str:
    """Returns the command line that repeats a measurement, with every setting, as defaults may change."""
    words = ["nas-bench", verb]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value in (None, False) or value == field.default == ():
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if value is not True:
            words += map(str, value if isinstance(value, tuple) else (value,))
    return shlex.join(words)


def hardware(device: str, threads: int) -> str:
    """Returns the device's name and the version of PyTorch."""
    import torch

    from nas.training.devices import choose_device

    chosen = choose_device(device)
    if chosen.type == "cuda":
        return f"{torch.cuda.get_device_name(chosen)}, PyTorch {torch.__version__}"
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}, PyTorch {torch.__version__}"


def processor() -> str:
    """Returns the processor's name."""
    info = Path("/proc/cpuinfo")
    names = [text for text in info.read_text().splitlines() if text.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def split(file: Path) -> tuple[str, str]:
    """Returns the text before and the text after the generated table.

    Raises:
        ValueError: The file cannot be read, or lacks a marker.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as text: name a Markdown file that is there") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file} has no lines {BEGIN} and {END}: add them where the table belongs")
    return before, after


def put(text: str, file: Path) -> None:
    """Writes a generated table between the markers of a file.

    Raises:
        ValueError: As for `split`.
    """
    before, after = split(file)
    write_atomically(file, f"{before}{BEGIN}\n{text}\n\n{END}{after}")
