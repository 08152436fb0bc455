"""When the next checkpoint within an epoch is due."""

from __future__ import annotations

import time

__all__ = ["CheckpointClock"]


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
