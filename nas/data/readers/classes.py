"""Class files, `classes.txt` and `classes.json`, and default colours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.base import IGNORE, MAX_CLASSES, DataError
from nas.data.readers.reading import read_text
from search_spaces.files import parse_json
from search_spaces.validation import fits, short

__all__ = ["default_colors", "read_class_file"]

_LINE = re.compile(r"(?P<name>.*?\S)(?:\s+(?P<r>\d+)\s+(?P<g>\d+)\s+(?P<b>\d+))?")

Entry = tuple[str, tuple[int, int, int] | None]


def default_colors(count: int) -> NDArray[np.uint8]:
    """The colour map of PASCAL VOC: distinct colours for up to 256 classes.

    The bits of an id go to red, green and blue in turn, the lowest bit of the id to the highest bit of the colour.

    Returns:
        uint8 [count, 3], RGB.
    """
    ids = np.arange(count)
    colors = np.zeros((count, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def read_class_file(path: Path) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Read class names and colours.

    `classes.txt`: one class per line, `name` or `name R G B`; empty lines and lines that start with `#` are skipped.
    `classes.json`: a list, or an object with a list under `classes`, of names or of objects with `name` and optional
    `color` ([R, G, B]) and `id`. Ids must be 0, 1, 2, ... in any order; an entry with id 255 describes the ignored
    pixels and is skipped. Classes without a colour get a default one.

    Returns:
        Names and colours, uint8 [classes, 3], in the order of the ids.

    Raises:
        DataError: The file is not as described, names a class twice, or has fewer than 2 or more than 255 classes.
    """
    text = read_text("class file", path)
    entries = _from_json(path, text) if path.suffix == ".json" else _from_text(path, text)
    names = tuple(name for name, _ in entries)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"class file {path} lists {len(names)} classes; expected 2 to {MAX_CLASSES}: "
            f"labels are 8-bit and {IGNORE} means ignore"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"class file {path} lists {', '.join(twice)} more than once; names must differ")
    colors = default_colors(len(names))
    for index, (_, color) in enumerate(entries):
        if color is not None:
            colors[index] = color
    return names, colors


def _from_text(path: Path, text: str) -> list[Entry]:
    entries: list[Entry] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        assert match is not None  # any line with a visible character matches
        rgb = None if match["r"] is None else [int(match[channel]) for channel in "rgb"]
        entries.append((match["name"], _color(f"class file {path}, line {number}", rgb)))
    return entries


def _from_json(path: Path, text: str) -> list[Entry]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataError(f"class file {path} is not valid JSON: {error}") from error
    if isinstance(content, dict):
        content = content.get("classes")
    if not isinstance(content, list):
        raise DataError(f"class file {path} holds no list; expected a list of names, or an object with 'classes'")
    found: dict[int, Entry] = {}
    for position, item in enumerate(content):
        place = f"class file {path}, entry {position}"
        if isinstance(item, str):
            item = {"name": item}
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"].strip():
            raise DataError(f"{place} is {short(item)}; expected a name, or an object with 'name'")
        number = item.get("id", position)
        if number == IGNORE:
            continue
        if not fits(number, int) or number < 0 or number in found:
            raise DataError(f"{place} has the id {short(number)}; expected 0, 1, 2, ..., each once")
        found[number] = item["name"], _color(place, item.get("color"))
    missing = sorted(set(range(len(found))) - set(found))
    if missing:
        raise DataError(f"class file {path} has no id {missing[0]}; expected 0..{len(found) - 1}, each once")
    return [found[number] for number in sorted(found)]


def _color(place: str, value: Any) -> tuple[int, int, int] | None:
    if value is None:
        return None
    if not fits(value, tuple[int, int, int]) or not all(0 <= channel <= 255 for channel in value):
        raise DataError(f"{place} has the color {short(value)}; expected red, green and blue, each 0..255")
    return value[0], value[1], value[2]
