"""Writing files so that the last good one is never missing: not after a kill, not on a full disk. Reading YAML."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import yaml

__all__ = ["GENOTYPE", "YamlError", "read_yaml", "write_atomically"]

GENOTYPE = "genotype.json"
"""In a run folder: what was found, or what is trained."""

MAX_YAML_BYTES = 2**18


class YamlError(ValueError):
    """A file that cannot be read as YAML: the message names it and says why, in one line."""


class _Loader(yaml.SafeLoader):
    """Plain values only, each written out: a few lines of aliases of aliases would unfold to more than any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"an alias, *{event.anchor}: write out what it stands for", event.start_mark
            )
        return super().compose_node(parent, index)


def read_yaml(path: str | Path) -> Any:
    """Reads a YAML file of plain values: no tags that make objects, no aliases, at most 256 KiB.

    Raises:
        YamlError: It cannot be read, or is something else.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise YamlError(f"{path} cannot be read: it is a folder, or no regular file")
        if path.stat().st_size > MAX_YAML_BYTES:
            raise YamlError(f"{path} is larger than {MAX_YAML_BYTES >> 10} KiB, which no settings and no space are")
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise YamlError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise YamlError(f"{path} is not readable as YAML: {where}{_one_line(error.problem)}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(f"{path} is not readable as YAML: {_one_line(error)}") from error
    except ValueError as error:  # bad UTF-8, an impossible date, a number of thousands of digits
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"{path} is not readable as YAML: {_one_line(error)}") from error


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:200]


def write_atomically(path: str | Path, content: str | bytes | Callable[[IO[bytes]], object]) -> Path:
    """Writes `content` to a temporary file in the same folder, flushes it to disk and moves it into place.

    Args:
        path: The file; its folder is made if it is missing.
        content: Text (as UTF-8), bytes, or a function that writes to the binary file it is given.

    Returns:
        The path.

    Raises:
        OSError: The folder cannot be written, or the disk is full; the file that was there before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:  # name the file that was asked for, not the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files private; ours are to be read by others
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    return path


_UMASK_LOCK = threading.Lock()


def _umask() -> int:
    with _UMASK_LOCK:  # the mask is read by setting it: two threads at it would leave the process without one
        mask = os.umask(0)
        os.umask(mask)
    return mask
