"""nas-bench: what supernets, networks, operations and decoding cost."""

from __future__ import annotations

import dataclasses
import json
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from benchmarks.config import (
    DecodingBench,
    NetworksBench,
    OperationsBench,
    ScalingBench,
    StartupBench,
    SupernetBench,
)
from cli import common
from search_spaces.validation import did_you_mean

DESCRIPTION = """\
Measures what the toolkit costs on this machine and prints tables in Markdown. Each verb has options of its own: see
nas-bench VERB --help."""

VERBS = {
    "supernet": (SupernetBench, "Time and memory of both steps of a search, by each way to compute the supernet."),
    "scaling": (ScalingBench, "The same against layers, blocks, filters, crop, batch and operations, one at a time."),
    "networks": (
        NetworksBench,
        "Networks: parameters, multiply-adds, images a second, latency; ONNX files beside them.",
    ),
    "operations": (OperationsBench, "Time and memory of the candidate operations and of smoothed convolutions."),
    "decoding": (DecodingBench, "The time of decoding alpha and beta."),
    "startup": (StartupBench, "The time that a command's --help takes."),
}
"""Each is the module of `benchmarks` of that name, with `measure(config) -> data` and `make_table(data) -> text`."""

ALIASES = {"network": "networks"}
"""Other names of verbs."""


def make_parser() -> common.Parser:
    """The parser of nas-bench: only for its help, as the verb's own parser reads the command line."""
    parser = common.parser("nas-bench", DESCRIPTION, "VERB")
    parser.add_argument("verb", metavar="VERB", choices=tuple(VERBS), help="What to measure; see below.")
    width = max(map(len, VERBS))
    parser.notes = "verbs:\n" + "\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items())
    return parser


def make_verb_parser(verb: str) -> common.Parser:
    """The parser of a verb: an option for each field of its settings, and what becomes of the table."""
    config, description = VERBS[verb]
    parser = common.parser(f"nas-bench {verb}", description)
    helps, types = _helps(config), get_type_hints(config)
    for field in dataclasses.fields(config):
        option: dict[str, Any] = {"default": field.default, "help": helps[field.name]}
        if types[field.name] is bool:
            option |= {"action": "store_true"}
        elif get_origin(types[field.name]) is tuple:
            option |= {"type": get_args(types[field.name])[0], "nargs": "*", "default": list(option["default"])}
        else:
            option |= {"type": types[field.name]}
        parser.add_argument(f"--{field.name}", **option)
    parser.add_argument("--json", action="store_true", help="Print the data as JSON in place of the tables.")
    parser.add_argument("--into", type=str | None, default=None, help="A Markdown file: tables between its markers.")
    if verb == "scaling":
        parser.add_argument("--plot", type=str | None, default=None, help="A picture of the curves: .svg, .png, .pdf.")
    return parser


def read(verb: str, arguments: list[str]) -> tuple[Any, dict[str, Any]]:
    """The settings of a verb that a command line gives, and what becomes of the table: json, into, plot."""
    values = vars(common.parse(make_verb_parser(verb), arguments))
    outputs = {name: values.pop(name, None) for name in ("json", "into", "plot")}
    return VERBS[verb][0](**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}), outputs


def main(arguments: list[str]) -> None:
    """Parses, measures, prints."""
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    verb = ALIASES.get(verb, verb)
    if not verb or verb.startswith("-"):
        common.parse(make_parser(), arguments)  # prints the help, or raises
    if verb not in VERBS:
        near = did_you_mean(verb, VERBS) or ":"
        raise common.UsageError(f"no verb {verb!r}{near} choose one of {', '.join(VERBS)} (see nas-bench --help)")
    config, outputs = read(verb, rest)

    from benchmarks import documents

    module = import_module(f"benchmarks.{verb}")
    if outputs["into"] is not None:  # refused here and not after hours
        documents.split(Path(outputs["into"]))
    if outputs["plot"] is not None:
        module.check_picture(outputs["plot"])
    data = module.measure(config)
    table = module.make_table(data)
    print(json.dumps(data) if outputs["json"] else table)
    if outputs["into"] is not None:
        documents.put(table, Path(outputs["into"]))
    if outputs["plot"] is not None:
        module.draw(data, outputs["plot"])


def _helps(config: type) -> dict[str, str]:
    """The text under each field of a dataclass, those of its bases too."""
    from docstring_parser import parse_from_object

    classes = [base for base in reversed(config.__mro__) if dataclasses.is_dataclass(base)]
    return {p.arg_name: p.description or "" for base in classes for p in parse_from_object(base).params}


def entry() -> None:
    """The console script."""
    common.run("nas-bench", main)


if __name__ == "__main__":
    entry()
