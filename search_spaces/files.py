"""Atomic writes, which never lose the last good file, and strict readers of YAML and JSON.

What is written to a place of the user's choice bears `MARK`, so that it can be told from files of others, which are
not written over. Nothing is written through a link.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import yaml

from search_spaces.validation import as_path, raised_as

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows: there, temporary files of killed commands stay)
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "GENOTYPE",
    "MARK",
    "YamlError",
    "check_numbers",
    "check_replaceable",
    "open_own",
    "parse_json",
    "parse_yaml",
    "read_yaml",
    "temporary_beside",
    "write_atomically",
]

GENOTYPE = "genotype.json"
"""The genotype in a run folder: the one that was found, or the one that is trained."""

MARK = "written by nas-segmentation"
"""Stands near the beginning or the end of files that a command writes."""
MARKS = (MARK.encode(), b'"format": "nas-', b", nas-segmentation ", b"probabilities.npy")
"""Also those of genotypes and model cards, of the reports of earlier releases, and of nas-predict's .npz files."""
MARKED = 2**16
"""Bytes at either end of a file in which a mark is looked for."""
LEFT = ".nas.tmp"
"""Ending of temporary files and folders."""
_CLEANED: set[Path] = set()
"""Folders in which this process has removed what killed ones left."""

MAX_YAML_BYTES = 2**18
MAX_DIGITS = 309
"""A number with this many digits may not fit into a float."""


class YamlError(ValueError):
    """A file that cannot be read as YAML: the message names it and says why, in one line."""


class _Loader(yaml.SafeLoader):
    """Loads plain values without aliases: a few lines of nested aliases would unfold to more than any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"an alias, *{event.anchor}: write out what it stands for", event.start_mark
            )
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(  # 1e-3, which YAML 1.1 takes for a text
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def check_numbers(text: str) -> None:
    """Refuses numbers that YAML 1.1 reads differently from how they look: 010 is 8, and 1:30 is 90.

    Raises:
        ValueError: The text has such a number, or one with too many digits; the message says what to write.
    """
    if match := re.search(r"(?<![\w.+-])[-+]?0+_*([1-9][0-9_]*)(?![\w.])", text):
        digits = match[1][:40].replace("_", "")
        octal = "" if set(digits) & set("89") or digits == "1" else f"{int(digits, 8)} or "
        raise ValueError(f"a number that begins with 0 is octal in YAML: write {octal}{digits}")
    if re.search(r"(?<![\w.])[0-9_]+(:[0-9]+)+", text):
        raise ValueError("numbers with a colon are in base 60 in YAML: write it without, or quote it as text")
    if match := re.search(rf"[0-9]{{{MAX_DIGITS},}}", text):
        raise ValueError(f"a number has {len(match[0])} digits: write a smaller one")


def parse_yaml(text: str) -> Any:
    """Parses YAML text that holds plain values only: no tags that make objects, no aliases, no repeated keys.

    Raises:
        YamlError: The text is anything else.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, "")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise YamlError(f"{where}{_one_line(error.problem)}") from error
    except YamlError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: an impossible date
        raise YamlError(_one_line(error)) from error


def _check(node: yaml.Node, name: str) -> None:
    """Refuses repeated keys, and numbers that YAML reads differently from how they look."""
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            line, part = key.start_mark.line + 1, f"{name}.{key.value}".lstrip(".")
            first = lines.get((key.tag, str(key.value)))
            if first is not None:
                raise YamlError(f"line {line}: {part:.100} stands twice, first in line {first}: leave one of them out")
            lines[key.tag, str(key.value)] = line
            _check(value, part)
    elif isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            _check(entry, f"{name}[{number}]")
    elif node.tag.endswith((":int", ":float")):
        try:
            check_numbers(node.value)
        except ValueError as error:
            raise YamlError(f"line {line}: {name:.100} is {node.value:.40}: {error}") from None


def read_yaml(path: str | Path) -> Any:
    """Reads a YAML file of at most 256 KiB as `parse_yaml` does.

    Raises:
        YamlError: The file cannot be read, is too large, or holds anything else.
    """
    path = as_path(path)
    try:
        if path.exists() and not path.is_file():
            raise YamlError(f"{path} cannot be read: it is a folder, or not a regular file")
        if path.stat().st_size > MAX_YAML_BYTES:
            raise YamlError(f"{path} is larger than {MAX_YAML_BYTES >> 10} KiB: no settings or space needs that much")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise YamlError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise YamlError(f"{path} is not readable as YAML: {_one_line(error)}") from error
    with raised_as(YamlError, f"{path} is not readable as YAML: "):
        return parse_yaml(text)


def parse_json(text: str | bytes) -> Any:
    """Parses JSON text (bytes are read as UTF-8) and refuses repeated keys.

    Raises:
        ValueError: The text is not valid; the message says where.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError(_repeated_key(text))
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _repeated_key(text: str) -> str:
    """A message that gives the line of the first repeated key in a JSON text."""
    keys: list[dict[str, int]] = []  # the position of each key, for every open object
    for token in re.finditer(r'("(?:[^"\\]|\\.)*")\s*(:?)|[{}]', text):
        line = text.count("\n", 0, token.start()) + 1
        if token[0] == "{":
            keys.append({})
        elif token[0] == "}":
            keys.pop()
        elif token[2] and keys[-1].setdefault(json.loads(token[1]), token.start()) != token.start():
            return f"line {line}: {token[1]:.100} stands twice in its object: leave one of them out"
    return "a key stands twice in its object: leave one of them out"


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:200]


def open_own(path: Path, mode: str = "a", buffering: int = -1) -> IO[Any]:
    """Opens a file to write or append to, in UTF-8, if it is a regular one and no link, which a stranger may have made.

    Raises:
        ValueError: It is a link, a pipe or a device.
        OSError: It cannot be opened.
    """
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for a reader
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
    try:
        file = open(path, mode, buffering, opener=lambda name, given: os.open(name, given | flags, 0o666), **text)  # noqa: SIM115
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    except OSError as error:
        if not path.is_symlink() and error.errno != errno.ENXIO:  # ENXIO: a pipe without a reader
            raise
    what = "a link" if path.is_symlink() else "no regular file"
    raise ValueError(f"{path} is {what}: only files of one's own are written to; remove it")


def check_replaceable(files: Iterable[Path], remedy: str = "give another name, or --overwrite") -> None:
    """Checks that files which are there already are ones that a command wrote.

    Raises:
        ValueError: One bears no mark; the message names it and ends with the remedy.
    """
    for path in files:
        if os.path.lexists(path) and not (path.is_file() and _is_marked(path)):
            raise ValueError(f"{path} is there already, and was not written by this toolkit: {remedy}")


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        ends = file.read(MARKED)
        file.seek(max(0, path.stat().st_size - MARKED))
        ends += file.read(MARKED)
    return any(mark in ends for mark in MARKS)


@contextlib.contextmanager
def temporary_beside(path: Path, folder: bool = False) -> Iterator[Path]:
    """Makes a temporary file or folder next to `path`, which exists and is locked in the block.

    One that no process has locked was left by a killed command: this removes those in the same folder.

    Raises:
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path.parent)
    while True:
        temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}{LEFT}")
        try:
            temporary.mkdir(0o700) if folder else temporary.touch(exist_ok=False)
        except OSError as error:  # name the file that was asked for, not the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from error
        try:
            lock = _lock(temporary)
        except (BlockingIOError, FileNotFoundError):  # another process has just taken it for left
            continue
        except OSError:  # a file system without locks: what is left there stays
            lock = None
        if temporary.exists():
            break
    try:
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(temporary) if folder else temporary.unlink()
        if lock is not None:
            os.close(lock)


def _lock(path: Path) -> int:
    """Locks a temporary file or folder until the descriptor is closed; OSError if another process holds it."""
    if fcntl is None:
        raise OSError("there are no such locks")
    descriptor = os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_left(folder: Path) -> None:
    """Removes temporary files and folders that no process holds, once a process and folder."""
    if fcntl is None or (place := folder.absolute()) in _CLEANED:
        return
    _CLEANED.add(place)
    for left in folder.glob(f".*.{'[0-9a-f]' * 8}{LEFT}"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(os.close, _lock(left))
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_atomically(path: str | Path, content: str | bytes | Callable[[IO[bytes]], object]) -> Path:
    """Writes `content` to a temporary file in the same folder, flushes it to disk and moves it into place.

    Args:
        path: The file; its folder is created if it is missing.
        content: Text (as UTF-8), bytes, or a function that writes to the binary file it is given.

    Returns:
        The path.

    Raises:
        OSError: The folder cannot be written, or the disk is full; the file that was there before is untouched.
    """
    path = Path(path)
    with temporary_beside(path) as temporary:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:  # a name that is not UTF-8 is escaped
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return path
