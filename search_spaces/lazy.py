"""Exports that are imported when they are first asked for: `import nas` must not cost the import of torch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["lazy_exports"]


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes `__getattr__`, `__dir__` (PEP 562) and `__all__` for a package.

    The exports are what the package's `__init__` imports from modules under `if TYPE_CHECKING:`. They are read from its
    source, so that each name stands there once, where type checkers and editors find it, too.

    Args:
        package: The package's `__name__`.

    Returns:
        The two functions and the sorted names, to be assigned to those names in the package's `__init__`.

    Raises:
        ImportError: The package has no source.
    """
    spec = sys.modules[package].__spec__
    source = spec.loader.get_source(package) if spec and hasattr(spec.loader, "get_source") else None  # type: ignore[union-attr]
    if source is None:
        raise ImportError(f"{package} has no source to read its exports from: install it with its .py files")
    exports = {
        alias.name: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(exports[name]), name)

    def names() -> list[str]:
        return sorted(exports)

    return get, names, names()
