"""Which run is meant, where a folder is named that holds several. No torch."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["runs_within"]

CONFIG, STUDY, BEST = "config.yaml", "sweep.yaml", "best.yaml"
MOST = 1000
"""Folders that are looked at."""


def runs_within(folder: str | Path) -> str:
    """The end of a message that a folder is no run's: which of those in it to name; empty if it has none.

    Of a study that is the best trial, by the first line of its best.yaml; else the run that was begun last.
    """
    folder = Path(folder)
    if not folder.exists():
        return "; there is no such folder"
    if (folder.parent / CONFIG).is_file():
        return f"; name the folder that it is in, {folder.parent}"
    try:
        runs = [path.parent for path, _ in zip(folder.glob(f"*/{CONFIG}"), range(MOST), strict=False)]
        if not runs:
            return ""
        best = re.search(r"^#.*: trial (\d+),", (folder / BEST).read_text()) if (folder / BEST).is_file() else None
        if best is not None and folder / f"trial-{best[1]}" in runs:
            return f"; it is a study: name one of its trials, of which {folder / f'trial-{best[1]}'} is the best"
        last = max(runs, key=lambda run: (run / CONFIG).stat().st_mtime)
    except (OSError, UnicodeDecodeError):
        return ""
    what = "it is a study: name one of its trials" if (folder / STUDY).is_file() else "it holds runs: name one of them"
    return f"; {what}, such as {last}"
