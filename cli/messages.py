"""Messages about wrong options in one sentence with the remedy: the parser's own are for programmers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from search_spaces.validation import did_you_mean, short

__all__ = ["explain", "with_hyphens"]

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "tuple": "a list such as [1, 2]",
    "NoneType": "null",
    "dict": "a mapping such as '{gamma: 2}'",
}

_LISTS = {"float, float": "[0, 0.1]", "str, ...": "[conv5_3]"}


def explain(text: str, arguments: Sequence[str], options: Sequence[str]) -> str:
    """Rewrites a message of the parser; leaves one that is not known here as it is."""
    if match := re.match(r"unrecognized arguments: (\S+)", text):
        word = match[1].partition("=")[0]
        if not word.startswith("-"):
            return f"{word!r} is one argument too many"
        return f"there is no option {word}{did_you_mean(word.lstrip('-'), options, '--')}"
    if match := re.match(r"argument (?:\S*/)?(-\S+): expected one argument", text):
        return f"{match[1]} needs a value"
    if match := re.match(r"argument (?:\S*/)?(-\S+): ignored explicit argument", text):
        return f"{match[1]} takes no value"
    if match := re.match(r"argument \S+: (--.*)", text):  # a message of our own
        return match[1]
    if match := re.match(r"the following arguments are required: (\S+)", text):
        return f"{match[1].strip(',').upper()} is missing"
    if match := re.match(r"Group '(\S+)' does not accept option '(\S+)'", text):
        return f"there is no setting {match[1]}.{match[2]}{did_you_mean(f'{match[1]}.{match[2]}', options)}"
    if not (match := re.match(r'Parser key "([^"]+)"(?: element \d+)?: (.*)', text)):
        return text
    name, problem = match.groups()
    if any(argument.partition("=")[0] == f"--{name}" for argument in arguments):
        name = f"--{name}"
    if match := re.match(r"Unable to load config '(.*?)'", problem):
        return f"{name} is {match[1]!r}: expected a YAML file of these settings"
    value = re.search(r"(?:Got|Given) value: ?(.*)", problem)
    expected = _expected(problem.partition(" Errors: ")[0])
    if not (value and expected):
        return f"{name}: {problem}"
    plain = {"None": "null", "True": "true", "False": "false"}.get(value[1]) or short(value[1])
    return f"{name} is {plain}: expected {expected}"


def _expected(problem: str) -> str:
    if match := re.search(r"Literal\[(.*?)\]", problem):
        return f"one of {match[1]}".replace("'", "") + f", or {_TYPES['dict']}" * ("dict[" in problem)
    if match := re.search(r"a tuple with (\d+) elements", problem):
        return f"a list of {match[1]}"
    if match := re.search(r"Subtypes: \[tuple\[(.*?)\]", problem):
        return f"a list such as {_LISTS.get(match[1], '[1, 2]')}"
    return ", or ".join(_TYPES.get(name, name) for name in re.findall(r"<class '(\w+)'>", problem))


def with_hyphens(text: str) -> str:
    """Spells the options in a text with hyphens, such as --data-root; settings keep their underscores."""
    return re.sub(r"(?<![\w/.-])--[A-Za-z][\w.]*", lambda option: option[0].replace("_", "-"), text)
