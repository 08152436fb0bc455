"""What to type to repeat a run and to go on from it."""

from __future__ import annotations

import shlex
from pathlib import Path

from retrain.report.runs import RunRecord

__all__ = ["commands", "word"]


def commands(run: RunRecord) -> list[tuple[str, str]]:
    """What to type to repeat a run and to go on from it: (command, what it does)."""
    folder = run.path
    again = folder.with_name(f"{folder.resolve().name}-again")
    lines = [
        (f"{run.command} --config {word(folder / 'config.yaml')} --out {word(again)}", "repeat"),
        (f"{run.command} --resume {word(folder)}", "go on"),
    ]
    if run.searches:
        lines.append((f"nas-retrain {word(folder / 'genotype.json')}", "train what was found"))
    else:
        lines.append((f"nas-evaluate {word(folder)}", "measure"))
        lines.append((f"nas-predict {word(folder)} IMAGES", "masks and overlays"))
    lines.append((f"nas-draw {word(folder)}{'' if run.searches else ' --image FILE'}", "pictures"))
    return lines


def word(path: str | Path) -> str:
    """A path as a word of a command line; on one line, whatever its name holds."""
    return shlex.quote(" ".join(str(path).split("\n")))
