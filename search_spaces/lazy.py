"""Exports that are imported when they are first asked for: `import nas` must not cost the import of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_exports"]


def lazy_exports(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes `__getattr__` and `__dir__` (PEP 562) for a package.

    Args:
        package: The package's `__name__`.
        exports: Public name -> module that defines it.

    Returns:
        The two functions, to be assigned to those names in the package's `__init__`.
    """

    def get(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(exports[name]), name)

    def names() -> list[str]:
        return sorted(exports)

    return get, names
