"""How settings refuse a value. No torch."""

from __future__ import annotations

__all__ = ["require"]


def require(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless `condition`: the one way in which settings refuse a value."""
    if not condition:
        raise ValueError(message)
