"""File names in run folders and studies, and the command of a run. No torch: the command line imports it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from search_spaces.files import GENOTYPE, YamlError, read_yaml
from search_spaces.validation import as_path

__all__ = ["COMMANDS", "GENOTYPE", "BusyError", "RunError", "command_of", "is_run_of", "read_config", "runs_within"]

CONFIG, CHECKPOINT, BEST = "config.yaml", "checkpoint.pt", "best.pt"
METRICS, GENOTYPES, SPACE, LOG = "metrics.jsonl", "genotypes.jsonl", "space.yaml", "log.txt"
PICTURES = tuple(f"{name}.{ending}" for name in ("cell", "trellis", "history") for ending in ("svg", "png"))
FILES = (CHECKPOINT, BEST, METRICS, GENOTYPE, GENOTYPES, SPACE, LOG, *PICTURES)
"""What a run writes besides its settings and TensorBoard's files."""
SWEEP_FILE, BEST_SETTINGS = "sweep.yaml", "best.yaml"
"""Files of a study: the sweep with all settings resolved, and the settings of the best trial."""

COMMANDS = ("nas-search", "nas-retrain")
"""Commands that make runs. The first line of config.yaml names one as `command`, which is no setting."""
MOST = 1000
"""Most folders that are examined."""


class RunError(ValueError):
    """A run folder that cannot be used; the message gives the remedy."""


class BusyError(RunError):
    """A folder in which another process is at work."""


def command_of(folder: Path) -> str:
    """The command that made a run, such as nas-search.

    Raises:
        RunError: config.yaml is missing or broken, or does not name the command.
    """
    return str(_read(folder)["command"])


def is_run_of(folder: Path, command: str) -> bool:
    """Whether a folder is a run of a command; False for one that is no run.

    Raises:
        RunError: config.yaml is broken, or does not name the command.
    """
    return (folder / CONFIG).is_file() and command_of(folder) == command


def read_config(folder: Path) -> dict[str, Any]:
    """Read the settings in a run's config.yaml.

    Raises:
        RunError: config.yaml is missing or broken, or does not name the command.
    """
    return {name: value for name, value in _read(folder).items() if name != "command"}


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.exists():
        raise RunError(f"{folder} is not a run folder: it has no {CONFIG}{runs_within(folder)}")
    try:
        data = read_yaml(path)
    except YamlError as error:
        raise RunError(str(error)) from error
    if not isinstance(data, dict):
        raise RunError(f"{path} holds {type(data).__name__}: expected settings")
    if data.get("command") not in COMMANDS:
        lines = " or ".join(f"`command: {command}`" for command in COMMANDS)
        raise RunError(f"{path} does not name the command that made the run: add the line {lines}")
    return data


def runs_within(folder: str | Path) -> str:
    """End of the message that a folder holds no run: the run inside to name instead; empty if there is none.

    In a study it is the best trial, by the first line of best.yaml, otherwise the most recent run.
    """
    folder = as_path(folder)
    if not folder.exists():
        return "; there is no such folder"
    if (folder.parent / CONFIG).is_file():
        return f"; name the folder that it is in, {folder.parent}"
    best_settings = folder / BEST_SETTINGS
    try:
        runs = [path.parent for path, _ in zip(folder.glob(f"*/{CONFIG}"), range(MOST), strict=False)]
        if not runs:
            return ""
        best = re.search(r"^#.*: trial (\d+),", best_settings.read_text()) if best_settings.is_file() else None
        if best is not None and folder / f"trial-{best[1]}" in runs:
            return f"; it is a study: name one of its trials, of which {folder / f'trial-{best[1]}'} is the best"
        last = max(runs, key=lambda run: (run / CONFIG).stat().st_mtime)
    except (OSError, UnicodeDecodeError):
        return ""
    is_study = (folder / SWEEP_FILE).is_file()
    what = "it is a study: name one of its trials" if is_study else "it holds runs: name one of them"
    return f"; {what}, such as {last}"
