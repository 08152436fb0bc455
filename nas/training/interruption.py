"""Ctrl-C and SIGTERM as a wish that the loop fulfils: finish the step, save, stop. A second one stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

__all__ = [
    "CheckpointClock",
    "GivenUp",
    "InterruptedRun",
    "Interruption",
    "give_up",
]


Item = TypeVar("Item")

SAME = 5.0
"""Seconds in which torchrun's own signal follows the one that it was sent: to its processes, both are one wish."""


class InterruptedRun(KeyboardInterrupt):
    """The run stopped as it was asked to, after saving."""


class GivenUp(Exception):
    """Work was given up for an interrupt; what it had changed is to be put back before the run is saved."""


def give_up() -> None:
    """A `stop` for `Interruption.watched` that leaves saving to whoever catches it.

    Raises:
        GivenUp: Always.
    """
    raise GivenUp


class Interruption:
    """A context in which SIGINT and SIGTERM set `requested`; outside the main thread it changes nothing.

    Args:
        by_torchrun: Whether signals come from torchrun, and those from a terminal twice.
    """

    def __init__(self, by_torchrun: bool = False) -> None:
        self.requested = False
        self._grace = SAME if by_torchrun else 0.0
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def watched(self, items: Iterable[Item], stop: Callable[[], object]) -> Iterator[Item]:
        """The items, for work that can be given up between two of them: then `stop` is called, which raises."""
        for item in items:
            if self.requested:
                stop()
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if time.monotonic() - self._since < self._grace:
                return
            raise KeyboardInterrupt
        self.requested, self._since = True, time.monotonic()


class CheckpointClock:
    """Counts from when it is made.

    Args:
        minutes: From one checkpoint to the next; 0: after every step.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self.reset()

    def due(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self._saved >= self._seconds

    def reset(self) -> None:
        """A checkpoint was saved now."""
        self._saved = time.monotonic()
