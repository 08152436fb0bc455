"""Words for numbers. No torch."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """A number and what it counts: "1 epoch", "40 epochs"."""
    return f"{number} {noun}{'s' * (number != 1)}"
