"""What the benchmarks write into documents: tables, the machine in words, command lines; and where they put it."""

from __future__ import annotations

import dataclasses
import platform
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from search_spaces.files import write_atomically

__all__ = ["BEGIN", "END", "command", "hardware", "number", "processor", "put", "split", "table"]

BEGIN, END = "<!-- begin of the generated table -->", "<!-- end of the generated table -->"
ABSENT = "--"


def number(value: float | None, form: str = ".2f") -> str:
    """A number in a cell; None, which is what was not measured or did not fit into memory, as `--`."""
    return ABSENT if value is None else format(value, form)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """The lines of a Markdown table: the first `texts` columns to the left, the others, numbers, to the right."""
    rule = ["---"] * texts + ["---:"] * (len(heads) - texts)
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def command(verb: str, config: Any) -> str:
    """The command line that measures the same again: every setting written out, as defaults may change."""
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
    """The machine in words, and the version of PyTorch: what every table says of where it was measured."""
    import torch

    from nas.training.devices import choose_device

    chosen = choose_device(device)
    if chosen.type == "cuda":
        return f"{torch.cuda.get_device_name(chosen)}, PyTorch {torch.__version__}"
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}, PyTorch {torch.__version__}"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [text for text in info.read_text().splitlines() if text.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def split(file: Path) -> tuple[str, str]:
    """What stands before and behind the place of the generated table.

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
        raise ValueError(f"{file} has no lines {BEGIN} and {END}: add them where the table shall stand")
    return before, after


def put(text: str, file: Path) -> None:
    """Puts a generated table between the markers of a file.

    Raises:
        ValueError: As for `split`.
    """
    before, after = split(file)
    write_atomically(file, f"{before}{BEGIN}\n{text}\n\n{END}{after}")
