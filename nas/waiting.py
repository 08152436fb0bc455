"""How much of the time of training steps goes by waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

__all__ = ["Waiting", "waiting_advice"]

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
