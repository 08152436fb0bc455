"""Ctrl-C, SIGTERM and SIGHUP: the loop finishes its step, saves and stops. A second signal stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

__all__ = ["CheckpointClock", "GivenUp", "InterruptedRun", "Interruption", "give_up", "stopping_signals"]

Item = TypeVar("Item")
SAME = 5.0
"""Seconds within which torchrun passes on a signal that its processes got, too: both count as one."""


def stopping_signals() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM, and SIGHUP, which a closed terminal sends, unless it is ignored, as under nohup."""
    hang_up = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # not on Windows
    heeded = [number for number in hang_up if signal.getsignal(number) != signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *heeded]


class InterruptedRun(KeyboardInterrupt):
    """The run was asked to stop, and stopped after saving."""


class GivenUp(Exception):
    """Work was abandoned because of an interrupt; its changes must be undone before the run is saved."""


def give_up() -> None:
    """A `stop` for `Interruption.watched` that leaves saving to the caller.

    Raises:
        GivenUp: Always.
    """
    raise GivenUp


class Interruption:
    """A context in which the `stopping_signals` set `requested`; without effect outside the main thread.

    Args:
        by_torchrun: Whether torchrun passes signals on, so that those from a terminal arrive twice.
    """

    def __init__(self, by_torchrun: bool = False) -> None:
        self.requested = False
        self._grace = SAME if by_torchrun else 0.0
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in stopping_signals():
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def watched(self, items: Iterable[Item], stop: Callable[[], object]) -> Iterator[Item]:
        """Yields the items; once an interrupt was requested, calls `stop`, which raises, before the next one."""
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
    """Tells when a checkpoint is due; starts when it is made.

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
        """Restarts the clock: a checkpoint was saved."""
        self._saved = time.monotonic()
