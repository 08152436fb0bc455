"""Extensions: operations, data sets, metrics and the like from Python files and installed plugins.

The environment variable NAS_EXTENSIONS names files (`./ghost.py`) or modules (`mine.ghost`), separated as in PATH; the
commands load them at the start. A plugin is a module that an installed distribution names as an entry point of the
group `nas_segmentation.plugins`; it is loaded when a registry is asked for an unknown name. Files that people exchange
(genotypes, settings, run folders, checkpoints) name operations and data sets, never code: the user who runs a command
decides which code it executes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from search_spaces.validation import as_path

__all__ = ["HINT", "VARIABLE", "Extension", "ExtensionError", "load_extensions", "load_plugins", "loaded_extensions"]

VARIABLE = "NAS_EXTENSIONS"
GROUP = "nas_segmentation.plugins"
"""The entry points of plugins."""

HINT = f"one of your own: {VARIABLE}=FILE.py"
"""For the message about a name that no registry has."""


class ExtensionError(ValueError):
    """An extension or plugin that cannot be loaded: one line with the file, the line and what is wrong."""


@dataclass(frozen=True)
class Extension:
    """A file or a plugin that was loaded."""

    name: str
    """Path of the file, or module of the plugin."""
    version: str
    """For logs: the SHA-256 of a file's content, or the name and version of a plugin's distribution."""

    def __str__(self) -> str:
        return f"{self.name} ({self.version})"


_LOADED: dict[Path, Extension] = {}
_PLUGINS: list[Extension] | None = None


def loaded_extensions() -> tuple[Extension, ...]:
    """The files, then the plugins, that this process has loaded, in order."""
    return (*_LOADED.values(), *(_PLUGINS or ()))


def load_plugins() -> None:
    """Imports the modules that installed distributions name as plugins, once per process.

    Raises:
        ExtensionError: Importing one raises an error; the message names its distribution.
    """
    global _PLUGINS
    if _PLUGINS is not None:
        return
    from importlib.metadata import entry_points

    _PLUGINS = []  # first, as a plugin may ask for names, too
    for entry in entry_points(group=GROUP):
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else (entry.name, "")
        try:
            entry.load()
        except (Exception, SystemExit) as error:  # it is not our code: anything may be raised
            _PLUGINS = None
            reason = _reason(entry.value, entry.module, error)
            raise ExtensionError(
                f"plugin of {name} {version}: {reason}; install another version of {name}, or uninstall it"
            ) from error
        _PLUGINS.append(Extension(entry.value, f"{name} {version}"))


def load_extensions(names: str | None = None) -> tuple[Extension, ...]:
    """Imports the named files and modules, each once, and returns all that are loaded.

    A file is imported as a module, and its folder is appended to `sys.path`, so that spawned processes, such as a
    loader's workers, can import it, too.

    Args:
        names: Files ending in .py and names of modules, separated by `os.pathsep`; None: those in the environment.

    Raises:
        ExtensionError: One is missing, its name is that of another module, or importing it raises an error.
    """
    given = os.environ.get(VARIABLE, "") if names is None else names
    for name in filter(None, map(str.strip, given.split(os.pathsep))):
        is_file = name.endswith(".py") or os.sep in name
        module = _import(name, _module_of(as_path(name)) if is_file else name)
        origin = getattr(module, "__file__", None)
        if origin is None:
            raise ExtensionError(f"{VARIABLE}: {name} is no file of Python: name the file that is to be loaded")
        file = Path(origin).resolve()
        if file not in _LOADED:
            _LOADED[file] = Extension(str(file), f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}")
    return tuple(_LOADED.values())


def _module_of(path: Path) -> str:
    """The name by which a file can be imported, here and in spawned processes."""
    file, folder, name = path.resolve(), str(path.absolute().parent), path.stem
    if not file.is_file():
        raise ExtensionError(
            f"{VARIABLE}: there is no file {path}: name Python files or modules, separated by {os.pathsep!r}"
        )
    if not name.isidentifier() or path.suffix != ".py":
        raise ExtensionError(f"{VARIABLE}: {path} cannot be imported by that name: take one such as my_operation.py")
    if folder not in sys.path:
        sys.path.append(folder)
    invalidate_caches()  # the file may be younger than what is known of its folder
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None) if loaded else getattr(find_spec(name), "origin", None)
    if origin is None or not Path(origin).exists() or Path(origin).resolve() != file:
        raise ExtensionError(
            f"{VARIABLE}: {path} has the name of another module ({origin}): give the file another name"
        )
    return name


def _import(given: str, module: str) -> ModuleType:
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:  # it is the user's code: anything may be raised
        named = error.name if isinstance(error, ModuleNotFoundError) else None
        if named is not None and f"{module}.".startswith(f"{named}."):
            raise ExtensionError(
                f"{VARIABLE}: there is no module {given}; a file is named with its ending, such as ./{given}.py"
            ) from error
        raise ExtensionError(f"{VARIABLE}: {_reason(given, module, error)}") from error


def _reason(given: str, module: str, error: BaseException) -> str:
    """`FILE, line N: TypeError: TEXT`, with the last line of the extension's own that led to the error."""
    tells_all = isinstance(error, ValueError | ModuleNotFoundError)
    text = (error.msg if isinstance(error, SyntaxError) else str(error)) or "no message"
    text = text if tells_all else f"{type(error).__name__}: {text}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {text}"
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == module:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{given}, line {line}: {text}" if line else f"{given}: {text}"
