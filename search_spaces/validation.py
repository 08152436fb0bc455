"""The validator of plain values from YAML, JSON, command lines and checkpoints. No torch.

Config dataclasses derive from `Settings`, which checks every field's type; `limit` checks ranges.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import re
import reprlib
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin

__all__ = [
    "Interval",
    "Settings",
    "as_path",
    "choice",
    "counted",
    "did_you_mean",
    "differences",
    "expected",
    "expanded",
    "fits",
    "from_plain",
    "hints",
    "printable",
    "raised_as",
    "require",
    "short",
    "to_plain",
    "whole",
    "without_password",
]

Config = TypeVar("Config")

MAX_ENTRIES = 256
"""Longest list that is accepted."""
MAX_QUOTED = 200
"""Longest quotation of a value in a message, in characters."""

# Other than tab and newline, what steers a terminal or reorders a line; and parts of names that are not UTF-8.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNKNOWN = re.compile(r"^~[^/]*|^.*?\$(\w+|\{\w+\})[^/]*", re.DOTALL)
"""What is left in a path that `expanded` could not expand, up to the end of that part."""

_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", type(None): "null"}
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = MAX_QUOTED
_REPR.maxlist = _REPR.maxtuple = 16  # entries


def require(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


@contextmanager
def raised_as(kind: type[ValueError], where: str = "") -> Iterator[None]:
    """Turns a ValueError raised inside the block into one of `kind`, with `where` in front of its message."""
    try:
        yield
    except ValueError as error:
        if where or not isinstance(error, kind):
            raise kind(f"{where}{error}") from None
        raise


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 epoch", "40 epochs"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def short(value: object) -> str:
    """A value as YAML writes it, for messages: one line of at most 200 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to print such a number
        text = "a number of thousands of digits"
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."


def printable(text: str) -> str:
    """Text for screens and logs: control characters in it, which a name may hold, are escaped."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def without_password(address: str) -> str:
    """The address of a storage, with `$NAME` expanded and without what is secret in it, for files and messages."""
    head, at, tail = os.path.expandvars(address).rpartition("@")
    if at:
        user = re.match(r"[\w+.-]+:/+[^:/@]*", head)
        head = user[0] if user else "..."
    return re.sub(r"([?&][^=&]*pass[^=&]*=)[^&]*", r"\1...", f"{head}{at}{tail}")


def expanded(path: str) -> str:
    """Expands `~`, `~user`, `$NAME` and `${NAME}` in a path; what has that very name is taken as it is.

    Raises:
        ValueError: The path is empty, or there is no such user or variable.
    """
    require(bool(path) and "\0" not in path, f"a path is {short(path)}: name a file or a folder")
    if os.path.lexists(path) and not path.startswith("~"):
        return path
    found = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 (the other raises for an unknown user)
    left = _UNKNOWN.match(found)
    if left is not None and not os.path.lexists(left[0]):
        user = f"there is no user {left[0]}: write ./{left[0]} for a file of that name"
        known = f"${left[1]} is not set: set it" if left[1] else user
        raise ValueError(f"the path {short(path)} cannot be: {known}, or write it out")
    return found


def as_path(path: str | Path) -> Path:
    """A path as users write it, expanded: the door through which every path of an option, file or caller enters.

    Raises:
        ValueError: As `expanded`.
    """
    found = Path(expanded(os.fspath(path)))
    return found.absolute() if str(found).startswith("~") else found  # ./~x, which is not to be expanded later


class Interval(NamedTuple):
    """Limits of a number; None means no limit."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether `value` is within the limits."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        up = " to" if self.least is not None else " up to"
        words = {" from": self.least, " above": self.above, up: self.most, " to below": self.below}
        return "".join(f"{word} {limit:.10g}" for word, limit in words.items() if limit is not None)


def whole(name: str, value: object, low: int | None = None, high: int | None = None, note: str = "") -> None:
    """Checks that a value is a whole number (not a bool) from `low` to `high`.

    Raises:
        ValueError: It is not; the message names the setting, the value and the limits, and ends with `note`.
    """
    limits = Interval(low, high)
    good = fits(value, int) and limits.holds(value)
    require(good, f"{name} is {short(value)}: give a whole number{limits}{note}")


def choice(name: str, value: object, choices: Collection[str], note: str = "") -> None:
    """Checks that a value is one of the `choices`.

    Raises:
        ValueError: It is not; the message lists the choices and ends with `note`.
    """
    good = isinstance(value, str) and value in choices
    require(good, f"{name} is {short(value)}: give one of {', '.join(choices)}{note}")


def fits(value: object, hint: Any) -> bool:
    """Whether a plain value has a field's type; numbers are finite, integers below 2**63, lists at most 256 long."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > MAX_ENTRIES:
            return False
        entries = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(entries) and all(map(fits, value, entries))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if parts:
        return any(fits(value, part) for part in parts)
    if isinstance(value, bool):
        return hint is bool
    if isinstance(value, int):
        return hint in (int, float) and abs(value) < 2**63
    return isinstance(value, hint) and not (isinstance(value, float) and not math.isfinite(value))


def expected(hint: Any) -> str:
    """The values that `fits` accepts, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"a list of up to {MAX_ENTRIES}{'' if parts[0] is Any else f', each {expected(parts[0])}'}"
        return f"a list of {len(parts)}, each {expected(parts[0])}"
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if (isinstance(origin, type) and issubclass(origin, Mapping)) or dataclasses.is_dataclass(hint):
        return "`name: value`, one a line"
    return _WORDS.get(hint) or ", or ".join(expected(part) for part in parts)


def _refusal(name: str, value: object, hint: Any) -> str:
    """The message about a value that does not fit, or about the first such entry of a list."""
    parts = next((get_args(part) for part in (hint, *get_args(hint)) if get_origin(part) is tuple), ())
    if isinstance(value, list | tuple) and parts and len(value) <= MAX_ENTRIES:
        for number, (entry, part) in enumerate(zip(value, parts[:1] * len(value), strict=True)):
            if not fits(entry, part):
                return _refusal(f"{name}[{number}]", entry, part)
    words = expected(hint)
    if isinstance(value, int) and abs(value) >= 2**63:
        words = words.replace("a whole number", "a whole number below 2**63")
    return f"{name} is {short(value)}: give {words}"


def _hints(config: Any) -> dict[str, Any]:
    types = typing.get_type_hints(config)
    return {f.name: types[f.name] for f in dataclasses.fields(config)}


hints: Callable[[Any], dict[str, Any]] = functools.cache(_hints)
"""The type of each field of a dataclass, by name."""


@dataclass(frozen=True)
class Settings:
    """Base class of the config dataclasses: checks the type of every field and turns lists into tuples.

    Dataclasses do not check types: a wrong one would surface in the middle of a run, or never.
    """

    prefix: ClassVar[str] = ""
    """Prefix of the fields' names in messages, such as "loader."."""
    error: ClassVar[type[ValueError]] = ValueError
    """Exception to raise."""
    path_fields: ClassVar[tuple[str, ...]] = ()
    """Names of fields that hold a path, which is `expanded`."""

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            value = getattr(self, name)
            if not fits(value, hint):
                raise self.error(_refusal(f"{self.prefix}{name}", value, hint))
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
            if value and name in self.path_fields:
                with raised_as(self.error, f"{self.prefix}{name}: "):
                    object.__setattr__(self, name, expanded(value))

    def limit(self, *names: str, note: str = "", **limits: float) -> None:
        """Checks that the numbers in these fields, alone or in lists, are within an `Interval`; skips None."""
        for name in names:
            hint, value = hints(type(self))[name], getattr(self, name)
            word = "a number" if "float" in str(hint) else "a whole number"
            null = ", or null" if type(None) in get_args(hint) else ""
            for part, entry in enumerate(value if isinstance(value, tuple) else (value,)):
                where = f"{self.prefix}{name}{f'[{part}]' if isinstance(value, tuple) else ''}"
                if entry is not None and not Interval(**limits).holds(entry):
                    raise self.error(f"{where} is {short(entry)}: give {word}{Interval(**limits)}{note}{null}")

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults, in plain containers; every field must have a default."""
        own, defaults = to_plain(self), to_plain(type(self)())
        return {name: value for name, value in own.items() if value != defaults[name]}

    def entries(
        self, name: str, least: int = 1, most: int = MAX_ENTRIES, note: str = "", distinct: bool = False
    ) -> None:
        """Checks the number of entries of the list in this field, and that they are distinct; skips None."""
        given = getattr(self, name)
        count = least if given is None else len(given)
        if not least <= count <= most:
            what = f"has {count} entries" if count else "is empty"
            wanted = f"{least} to {most}" if most < MAX_ENTRIES else f"{least} or more"
            raise self.error(f"{self.prefix}{name} {what}: give {wanted}{note}")
        if distinct and len(set(given)) < count:
            raise self.error(f"{self.prefix}{name} is {short(list(given))}: give each one once")


def to_plain(config: Any) -> Any:
    """Turns a config dataclass into plain containers for YAML, JSON or checkpoints (paths to text, tuples to lists)."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_plain(config: type[Config], data: object, where: str = "") -> Config:
    """Builds a config dataclass from the plain containers that `to_plain` gives.

    Raises:
        ValueError: A setting is unknown, missing, or has a wrong value.
    """
    name = where.rstrip(".") or "the content"
    if not isinstance(data, Mapping):
        raise ValueError(f"{name} is {short(data)}: give `name: value`, one a line")
    types = hints(config)
    for key in data:
        require(key in types, f"unknown setting {short(f'{where}{key}')[1:-1]}: give one of {', '.join(types)}")
    for key, hint in types.items():
        require(key in data or not _required(config, key), f"{where}{key} is missing: give {expected(hint)}")
    values = {
        key: from_plain(types[key], value, f"{where}{key}.") if dataclasses.is_dataclass(types[key]) else value
        for key, value in data.items()
    }
    with raised_as(ValueError, "" if getattr(config, "prefix", "") else where):
        return config(**values)


def _required(config: Any, name: str) -> bool:
    field = config.__dataclass_fields__[name]
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Dotted names of the settings in which two plain configs differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = list(dict.fromkeys((*first, *second)))
        return [d for name in names for d in differences(first.get(name), second.get(name), f"{where}{name}.")]
    return [] if first == second else [where.rstrip(".")]


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Asks whether a similar name was meant: one with a similar spelling, or the same last part (lr, optimizer.lr).

    Returns:
        The question, or an empty text if no name is similar.
    """
    names = list(names)
    by_end: dict[str, list[str]] = {}
    for known in names:
        by_end.setdefault(known.rpartition(".")[2], []).append(known)
    end = name.rpartition(".")[2]
    found = difflib.get_close_matches(name, names, 1, 0.8) or by_end.get(end)
    if not found:
        found = [known for near in difflib.get_close_matches(end, by_end, 1, 0.7) for known in by_end[near]]
    return f"; did you mean {' or '.join(prefix + known for known in found)}?" if found else ""
