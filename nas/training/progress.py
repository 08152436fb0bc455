"""Progress: a bar with the time left on a terminal, nothing in between the epochs' lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = [
    "StepProgress",
    "Waiting",
    "waiting_advice",
]


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
        if not self._bar.disable:  # rich before 14.3 ends a disabled bar, too, with an empty line
            self._bar.stop()


Item = TypeVar("Item")

WORTH_SAYING = 0.03
"""Share above which an epoch's line says so."""


class Waiting:
    """Measures from when it is made; takes batches in place of `next`."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._waited = 0.0

    def next(self, batches: Iterator[Item]) -> Item:
        """The next batch; the time until it is there counts as waiting."""
        began = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - began
        return batch

    def share(self) -> float:
        """The share of the time until now that was waiting, 0 to 1."""
        return self._waited / max(time.perf_counter() - self._began, self._waited, 1e-9)


def waiting_advice(share: float) -> str:
    """What to add to an epoch's line: nothing, unless more than 3 % of the steps' time was waiting for data."""
    if share <= WORTH_SAYING:
        return ""
    return f"; {100 * share:.0f} % of the steps' time went by waiting for data: see --loader.workers, --loader.cache"
