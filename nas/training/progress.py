"""Progress on a terminal, as a bar with the time left, and the share of time spent waiting for data."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["StepProgress", "Waiting", "waiting_advice"]

Item = TypeVar("Item")
WORTH_SAYING = 0.03
"""Share of waiting above which an epoch's line mentions it."""


class StepProgress:
    """A progress bar over the steps of a whole run, shown on a terminal only; a context manager.

    Args:
        total: Steps of the run.
        done: Steps that a resumed run has done before.
        quiet: Show nothing.
    """

    def __init__(self, total: int, done: int = 0, quiet: bool = False) -> None:
        columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
        hidden, console = quiet or not sys.stdout.isatty(), Console(file=sys.stdout)
        self._bar = Progress(
            TextColumn("{task.description}"), *columns, console=console, disable=hidden, transient=True
        )
        self._task = self._bar.add_task("", total=total, completed=done)

    def step(self, text: str) -> None:
        """Advances by one step; `text` describes the position."""
        self._bar.update(self._task, advance=1, description=text)

    def __enter__(self) -> StepProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bar.disable:  # rich before 14.3 prints an empty line after a disabled bar
            with suppress(OSError):  # the terminal was closed
                self._bar.stop()


class Waiting:
    """Measures the time spent waiting for batches; starts when it is made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._waited = 0.0

    def next(self, batches: Iterator[Item]) -> Item:
        """The next batch; the time until it arrives counts as waiting."""
        began = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - began
        return batch

    def share(self) -> float:
        """The share of the time so far that was waiting, 0 to 1."""
        return self._waited / max(time.perf_counter() - self._began, self._waited, 1e-9)


def waiting_advice(share: float) -> str:
    """An addition to an epoch's line if more than 3 % of the steps' time was waiting for data, else empty."""
    if share <= WORTH_SAYING:
        return ""
    return f"; {100 * share:.0f} % of the steps' time was spent waiting for data: see --loader.workers, --loader.cache"
