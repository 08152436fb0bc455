"""Files without a partner: an error for a run, one finding of many for a check of the data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LoneFile", "collecting", "left_out"]


@dataclass(frozen=True)
class LoneFile:
    """An image without a label, or a label without an image."""

    path: Path

    missing: str
    """Which partner is not there, in words that name the file."""

    expected: str
    """Where it was expected, to be put behind."""


_found: ContextVar[list[LoneFile] | None] = ContextVar("_found", default=None)


@contextmanager
def collecting() -> Iterator[list[LoneFile]]:
    """Within, files without a partner are left out of the data sets that are opened, and listed here.

    Elsewhere they are errors: a run is to stop, as they may be what is left of a copy that was cut off.
    """
    found: list[LoneFile] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def left_out(files: Iterable[LoneFile]) -> bool:
    """Lists files without a partner and says so, where they are collected; else they are errors."""
    found = _found.get()
    if found is not None:
        found.extend(files)
    return found is not None
