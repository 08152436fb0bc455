"""Ctrl-C and SIGTERM as a wish that the loop fulfils: finish the step, save, stop. A second one stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["InterruptedRun", "Interruption"]


class InterruptedRun(KeyboardInterrupt):
    """The run stopped as it was asked to, after saving."""


class Interruption:
    """A context in which SIGINT and SIGTERM set `requested`; outside the main thread it changes nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
