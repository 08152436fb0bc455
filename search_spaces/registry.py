"""A registry: an explicit, ordered mapping from names to frozen records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Registry"]

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Names to entries, in the order of registration.

    A name is registered once; asking for an unknown one tells which names there are.

    Args:
        kind: What the entries are, in the singular, for messages ("candidate operation").
        hint: How there come to be more, for the message about an unknown name.
    """

    def __init__(self, kind: str, hint: str = "") -> None:
        self.kind = kind
        self.hint = hint
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, entry: Entry) -> Entry:
        """Adds `entry` under `name` and returns it.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already: choose another name")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> Entry:
        """Returns the entry called `name`.

        Raises:
            ValueError: There is none; the message lists the names there are.
        """
        if name not in self._entries:
            more = f"; {self.hint}" if self.hint else ""
            raise ValueError(f"unknown {self.kind} {name!r}: choose one of {', '.join(sorted(self._entries))}{more}")
        return self._entries[name]

    __getitem__ = get

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
