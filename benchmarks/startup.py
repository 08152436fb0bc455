"""Startup time: from the start of a command to the end of its help."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.config import StartupBench
from benchmarks.documents import made, origin, processor, table

__all__ = ["LIMIT", "make_table", "measure"]

LIMIT = 0.3
"""Seconds; anything slower feels like waiting."""
ROOT = Path(__file__).parents[1]


def measure(config: StartupBench) -> dict[str, Any]:
    """Times every command with --help, each run in a new process.

    Returns:
        `rows`: command, median and slowest seconds of the wall clock, `limit`. And `command`, `machine`.

    Raises:
        ValueError: A command cannot be run.
    """
    rows = []
    for name in config.commands:
        times = [_help(name) for _ in range(1 + config.repeats)][1:]  # the first run reads the files from disk
        rows.append({"command": name, "median": statistics.median(times), "slowest": max(times), "limit": LIMIT})
    return {**origin("startup", config, processor()), "python": sys.version.partition(" ")[0], "rows": rows}


def _help(name: str) -> float:
    """Seconds of `python -m cli.NAME --help`, which is what the console script runs."""
    words = [sys.executable, "-m", f"cli.{name.removeprefix('nas-')}", "--help"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.perf_counter()
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)
    taken = time.perf_counter() - began
    if done.returncode != 0:
        raise ValueError(f"commands has {name!r}, which does not run here: give a command's name, such as nas-search")
    return taken


def make_table(data: Mapping[str, Any]) -> str:
    """Formats the measurements as a table in Markdown."""
    cells = [
        [f"`{row['command']} --help`", *(f"{row[name]:.2f}" for name in ("median", "slowest", "limit"))]
        for row in data["rows"]
    ]
    heads = ["command", "median, s", "slowest, s", "to be under, s"]
    note = f"On {data['machine']}, Python {data['python']}, medians of {data['repeats']}."
    return "\n".join([*made(note, data), "", *table(heads, cells)])
