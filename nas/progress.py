"""Progress: a bar with the time left on a terminal, nothing in between the epochs' lines elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["StepProgress"]


class StepProgress:
    """Counts the steps of a whole run; a context manager.

    Args:
        total: Steps of the run.
        done: Steps done before, when a run goes on.
        quiet: Show nothing at all.
    """

    def __init__(self, total: int, done: int = 0, quiet: bool = False) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=sys.stdout),
            disable=quiet or not sys.stdout.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, completed=done)

    def step(self, text: str) -> None:
        """One step more; `text` says where the run stands."""
        self._bar.update(self._task, advance=1, description=text)

    def __enter__(self) -> StepProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
