"""A registry: an explicit, ordered mapping from names to frozen records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from search_spaces.extensions import load_extensions, load_plugins

__all__ = ["Registry"]

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Names to entries, in the order of registration.

    A name is registered once. A look-up of an unknown name first loads extensions and installed plugins, which may
    register it, in every process; the error lists the known names.

    Args:
        kind: Kind of the entries, in the singular, for messages ("candidate operation").
        hint: How to add entries, for the message about an unknown name.
        load_shipped: Imports the modules that register the shipped entries; called before the first look-up.
    """

    def __init__(self, kind: str, hint: str = "", load_shipped: Callable[[], object] = lambda: None) -> None:
        self.kind = kind
        self.hint = hint
        self._load_shipped: Callable[[], object] | None = load_shipped
        self._registered: dict[str, Entry] = {}

    @property
    def _entries(self) -> dict[str, Entry]:
        if self._load_shipped is not None:
            load, self._load_shipped = self._load_shipped, None  # first, as the modules look here
            load()
        return self._registered

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
            ValueError: The name is unknown (the message lists the known ones), or a plugin cannot be loaded.
        """
        if name not in self:
            more = f"; {self.hint}" if self.hint else ""
            raise ValueError(f"unknown {self.kind} {name!r}: choose one of {', '.join(sorted(self._entries))}{more}")
        return self._entries[name]

    __getitem__ = get

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._entries)

    def values(self) -> tuple[Entry, ...]:
        """All entries, in that order."""
        return tuple(self._entries.values())

    @contextmanager
    def temporarily(self) -> Iterator[None]:
        """Removes entries registered inside the `with` block when it ends, for tests."""
        before = dict(self._entries)
        try:
            yield
        finally:
            self._registered = before

    def __contains__(self, name: object) -> bool:
        # Commands accept a path in place of a name: paths do not load plugins.
        if name not in self._entries and isinstance(name, str) and re.fullmatch(r"\w[\w+-]*", name):
            load_extensions()
            load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
