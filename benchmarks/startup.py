"""The time from a command's start to the end of its help."""

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
from benchmarks.documents import command, processor, table

__all__ = ["LIMIT", "make_table", "measure"]

LIMIT = 0.3
"""Seconds; what is slower feels like waiting."""
ROOT = Path(__file__).parents[1]


def measure(config: StartupBench) -> dict[str, Any]:
    """Runs every command with --help, each time in a new process.

    Returns:
        `rows`: command, median and slowest seconds of the wall clock, `limit`. And `command`, `machine`.

    Raises:
        ValueError: A command cannot be run.
    """
    rows = []
    for name in config.commands:
        times = [_help(name) for _ in range(1 + config.repeats)][1:]  # the first one reads the files from the disk
        rows.append({"command": name, "median": statistics.median(times), "slowest": max(times), "limit": LIMIT})
    return {
        "command": command("startup", config),
        "machine": processor(),
        "python": sys.version.partition(" ")[0],
        "repeats": config.repeats,
        "rows": rows,
    }


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
    """The table in Markdown, with what it needs to be made again."""
    cells = [
        [f"`{row['command']} --help`", *(f"{row[name]:.2f}" for name in ("median", "slowest", "limit"))]
        for row in data["rows"]
    ]
    heads = ["command", "median, s", "slowest, s", "to be under, s"]
    note = f"On {data['machine']}, Python {data['python']}, medians of {data['repeats']}. Made by"
    return "\n".join([note, "", f"    {data['command']}", "", *table(heads, cells)])
