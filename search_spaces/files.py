"""Atomic writes, which never lose the last good file, and strict readers of YAML and JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import yaml

from search_spaces.validation import as_path, raised_as

__all__ = ["GENOTYPE", "YamlError", "check_numbers", "parse_json", "parse_yaml", "read_yaml", "write_atomically"]

GENOTYPE = "genotype.json"
"""The genotype in a run folder: the one that was found, or the one that is trained."""

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        file = temporary.open("xb")  # readable by others as the umask allows; mkstemp would make it private
    except OSError as error:  # name the file that was asked for, not the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    return path
