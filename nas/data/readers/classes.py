"""Class files, `classes.txt` and `classes.json`, and default colours."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.base import IGNORE, MAX_CLASSES, DataError
from nas.data.readers.reading import read_text
from search_spaces.files import parse_json
from search_spaces.validation import fits, short

__all__ = ["class_colors", "default_colors", "read_class_file"]

LONGEST = 200
"""Most characters in a line of a class file."""

_HEX = r"#[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?"
_BY = r"\s*[,;|\t]\s*"
_COLORED = [rf"(.*?\S)((?:{_BY}|\s+){_HEX}|(?:{_BY}\d+){{{count}}}|(?:\s+\d+){{{count}}})" for count in (3, 4)]
"""A line with a name and a colour, of three or four numbers or hexadecimal."""
_LEADING_ID = re.compile(r"(-?\d+)(?:\s*[,;:|\t]\s*|[.)]?\s+)(\S.*)")
_CVAT = re.compile(r"([^:]*[^:\s])\s*:\s*(\d+\s*,\s*\d+\s*,\s*\d+)?\s*:[^:]*:[^:]*")
_COLOR_FIRST = re.compile(rf"(?:{_HEX}|\d+[\s,;]+\d+[\s,;]+\d+)(?=[\s,;:|])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HEADINGS = {
    **dict.fromkeys(("name", "names", "class", "classes", "class_name", "label", "labels", "category"), "name"),
    **dict.fromkeys(("id", "index", "class_id", "value"), "id"),
    **dict.fromkeys(("color", "colour", "hex", "rgb"), "color"),
    **{word: word[0] for word in ("r", "g", "b", "a", "red", "green", "blue", "alpha")},
}
"""Words over the columns of a table, and what they stand for."""

Color = tuple[int, int, int] | None
Entry = tuple[str, int | None, str, Color]
"""Place in the file, id if it is given, name, colour."""


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
    Colours may also be `#rrggbb` or have an alpha, columns may be separated by commas, semicolons or tabs, below a
    heading or not, and ids may come first. CVAT's `name:R,G,B:parts:actions` is read; labelme's first line,
    `__ignore__`, describes the ignored pixels. A line that may mean something else is an error.
    `classes.json`: a list, or an object with a list under `classes`, of names or of objects with `name` and optional
    `color` ([R, G, B]) and `id`. Ids must be 0, 1, 2, ... in any order; an entry with id 255 describes the ignored
    pixels and is skipped. Classes without a colour get a default one.

    Returns:
        Names and colours, uint8 [classes, 3], in the order of the ids.

    Raises:
        DataError: The file is not as described, names a class twice, or has fewer than 2 or more than 255 classes.
    """
    entries = _ordered(path, _entries(path))
    names = tuple(name for _, _, name, _ in entries)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"class file {path} lists {len(names)} classes; expected 2 to {MAX_CLASSES}: "
            f"labels are 8-bit and {IGNORE} means ignore"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"class file {path} lists {', '.join(twice)} more than once; names must differ")
    colors = default_colors(len(names))
    for index, (*_, color) in enumerate(entries):
        if color is not None:
            colors[index] = color
    return names, colors


def class_colors(path: Path) -> dict[tuple[int, int, int], int]:
    """The id, or `IGNORE`, of each colour in a class file; empty if it gives none.

    Raises:
        DataError: As `read_class_file`; or a class has no colour, which others have, or that of another one.
    """
    names, _ = read_class_file(path)
    ids: dict[tuple[int, int, int], int] = {}
    entries = _entries(path)
    for place, given, name, color in entries if any(color for *_, color in entries) else []:
        number = IGNORE if given in (-1, IGNORE) else names.index(name)
        if color is None and number == IGNORE:
            continue
        if color is None or ids.setdefault(color, number) != number:
            raise DataError(f"{place}: {name} has {'no colour' if color is None else 'the colour of another class'}")
    return ids


def _entries(path: Path) -> list[Entry]:
    text = read_text("class file", path)
    return _from_json(path, text) if path.suffix == ".json" else _from_text(path, text)


def _from_text(path: Path, text: str) -> list[Entry]:
    numbered = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n?|\n", text), start=1)]
    lines = [(number, line) for number, line in numbered if line and not re.match(rf"#(?!{_HEX[1:]}\b)", line)]

    def check(number: int, good: object, why: str) -> None:
        if not good:
            how = "write a class a line, `name` or `name R G B`; classes.json takes any name"
            raise DataError(f"class file {path}, line {number} is {short(dict(numbered)[number])}: {why}; {how}")

    if len(lines) > 2 * MAX_CLASSES:
        raise DataError(
            f"class file {path} has {len(lines)} lines; expected one for each of up to {MAX_CLASSES} classes"
        )
    for number, line in lines:
        check(number, len(line) <= LONGEST, f"it has more than {LONGEST} characters")
    kinds, lines = _heading(lines, check)
    cvat = any(_CVAT.fullmatch(line) for _, line in lines)
    leading = [_LEADING_ID.fullmatch(line) for _, line in lines]
    at_place = any(leading) and all(not match or int(match[1]) - at in (0, 1) for at, match in enumerate(leading))
    ids = "id" in kinds if kinds else not cvat and (all(leading) or at_place)
    four = {number: line for number, line in lines if re.fullmatch(_COLORED[1], line) and "#" not in line}
    if not kinds and four and all(number in four or not re.fullmatch(_COLORED[0], line) for number, line in lines):
        clear = all(re.search(r"\b255$", line) for line in four.values())
        check(next(iter(four)), clear, "with four numbers at its end, give a first line such as `name r g b a`")
        kinds = ["a"]
    bare = [line if not re.fullmatch(_COLORED[0], line) else "" for _, line in lines]
    ends = [re.fullmatch(r"(\S.*?)\s+(\d+)", line) for line in bare]
    counts = {int(match[2]) - at for at, match in enumerate(ends) if match} in ({0}, {1})
    names = {match[1] for match in ends if match}
    check(lines[0][0] if lines else 0, not counts or len(names) < len(lines), "ids come before the names")
    entries: list[Entry] = []
    for (number, line), match in zip(lines, leading, strict=True):
        check(number, match or not ids, "it has no id, which the others have")
        given, rest = (int(match[1]), match[2]) if ids and match else (None, line)
        parts = _CVAT.fullmatch(rest) if cvat else re.fullmatch(_COLORED["a" in kinds], rest)
        check(number, parts or not cvat, "other lines are `name:R,G,B:parts:actions`, as of CVAT")
        name, color = (parts[1], parts[2] or "") if parts and kinds != ["id", "name"] else (rest, "")
        name = name.rstrip(",;:| \t")
        name = name[1:-1].replace('""', '"') if re.fullmatch('".+"', name) else name
        check(number, name and not _COLOR_FIRST.match(name), "the name comes before the colour")
        if name == "__ignore__":
            first = given in (-1, IGNORE) if ids else not entries
            check(number, first, "labelme writes it into the first line; in another, give it the id 255")
            given = IGNORE
        found = re.search(_HEX, color)
        value = found[0] if found else [int(channel) for channel in re.findall(r"\d+", color)] or None
        place = f"class file {path}, line {number}"
        entries.append((place, given, name, _color(place, value)))
    table = entries and all(re.search(r"[,;:|\t]", name) for _, _, name, _ in entries)
    check(lines[0][0] if lines else 0, not table, "if this is a table, give a first line such as `id,name,r,g,b`")
    return entries


def _heading(
    lines: list[tuple[int, str]], check: Callable[[int, object, str], None]
) -> tuple[list[str], list[tuple[int, str]]]:
    """The kinds of the columns and the lines below the heading; no kinds if the first line is none."""
    number, line = lines[0] if lines else (0, "")
    check(number, line[:1] not in ("[", "{"), "if this is JSON, name the file classes.json")
    by = next((by for by in ",;|\t" if by in line), None)
    kinds = [_HEADINGS.get(word.strip(' "').lower(), "?") for word in line.split(by)]
    table = by and set(kinds) != {"?"} and not re.search(rf"{_BY}(\d+|{_HEX})\b", line)
    if not table and not ("name" in kinds and "?" not in kinds):
        return [], lines
    check(number, len(kinds) > 1, "that looks like a heading: remove it")
    good = re.fullmatch("(id )?name( r g b( a)?| color)?", " ".join(kinds))
    check(number, good, "columns are `id,name,r,g,b,a` or `id,name,color`, without those that are not there")
    return kinds, lines[1:]


def _from_json(path: Path, text: str) -> list[Entry]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataError(f"class file {path} is not valid JSON: {error}") from error
    if isinstance(content, dict):
        content = content.get("classes")
    if not isinstance(content, list):
        raise DataError(f"class file {path} holds no list; expected a list of names, or an object with 'classes'")
    entries: list[Entry] = []
    for position, item in enumerate(content):
        place = f"class file {path}, entry {position}"
        if isinstance(item, str):
            item = {"name": item}
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"].strip():
            raise DataError(f"{place} is {short(item)}; expected a name, or an object with 'name'")
        entries.append((place, item.get("id", position), item["name"], _color(place, item.get("color"))))
    return entries


def _ordered(path: Path, entries: list[Entry]) -> list[Entry]:
    """The classes in the order of their ids, without ignored pixels (-1 and 255)."""
    found: dict[int, Entry] = {}
    for entry in entries:
        place, number, name, _ = entry
        if number in (-1, IGNORE):
            continue
        number = len(found) if number is None else number
        if not fits(number, int) or number < 0 or number in found:
            raise DataError(f"{place} has the id {short(number)}; expected 0, 1, 2, ..., each once")
        if _CONTROL.search(name):
            raise DataError(f"{place} is {short(name)}, with a control character: remove it")
        found[number] = entry
    missing = sorted(set(range(len(found))) - set(found))
    if missing:
        last, count = found[max(found)][0].rpartition(", ")[2], len(found)
        hint = ": count from 0, and give --loader.ids one-based for labels that count from 1" * (max(found) == count)
        raise DataError(
            f"class file {path}, {last} has the id {max(found)}, but the file has no id {missing[0]}; "
            f"expected 0..{count - 1}, each once{hint}"
        )
    return [found[number] for number in sorted(found)]


def _color(place: str, value: Any) -> Color:
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(_HEX, value):
        value = list(bytes.fromhex(value[1:]))
    good = isinstance(value, list | tuple) and len(value) in (3, 4) and fits(list(value), tuple[int, ...])
    if not good or not all(0 <= channel <= 255 for channel in value):
        raise DataError(f"{place} has the color {short(value)}; expected red, green and blue, each 0..255")
    return value[0], value[1], value[2]
