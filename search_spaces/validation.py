"""Whether a plain value, as YAML or a checkpoint has it, is of the type of a setting. No torch.

Dataclasses do not look at types, and a value of another one would be found in the middle of a run, or never.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

__all__ = [
    "expected",
    "fits",
    "require",
]


MAX_ENTRIES = 256
"""Of a list."""


def fits(value: object, hint: Any) -> bool:
    """Whether a plain value is of the type of a field; which text of a choice is left to the dataclass."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return type(value) in {type(choice) for choice in parts}
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or len(value) > MAX_ENTRIES:
            return False
        hints = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(hints) and all(map(fits, value, hints))
    if get_origin(hint) is dict:
        return isinstance(value, dict) and len(value) <= MAX_ENTRIES and all(isinstance(key, str) for key in value)
    if parts:
        return any(fits(value, part) for part in parts)
    if isinstance(value, bool):
        return hint is bool
    if isinstance(value, int):
        return hint in (int, float) and abs(value) < 2**63
    return isinstance(value, hint)


def expected(hint: Any) -> str:
    """The types that `fits` takes, in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if get_origin(hint) is tuple:
        *several, last = get_args(hint)
        return f"a list of up to {MAX_ENTRIES}" if last is Ellipsis else f"a list of {len(several) + 1}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is dict:
        return "a mapping of names to values"
    return words.get(hint) or " or ".join(expected(part) for part in get_args(hint))


def require(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless `condition`: the one way in which settings refuse a value."""
    if not condition:
        raise ValueError(message)
