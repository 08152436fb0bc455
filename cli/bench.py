"""nas-bench: time and memory of supernets, networks, operations and decoding."""

from __future__ import annotations

import dataclasses
import json
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from benchmarks.config import DecodingBench, NetworksBench, OperationsBench, ScalingBench, StartupBench, SupernetBench
from cli import common
from search_spaces.files import check_replaceable

DESCRIPTION = """\
Measures time and memory of the toolkit on this machine and prints tables in Markdown. Each verb has its own options:
see nas-bench VERB --help."""

VERBS = {
    "supernet": (SupernetBench, "Time and memory of both steps of a search, by each way to compute the supernet."),
    "scaling": (ScalingBench, "The same by layers, blocks, filters, crop, batch and operations, one at a time."),
    "networks": (NetworksBench, "Parameters, multiply-adds, images a second and latency of networks and ONNX files."),
    "operations": (OperationsBench, "Time and memory of the candidate operations and of smoothed convolutions."),
    "decoding": (DecodingBench, "Time of decoding alpha and beta."),
    "startup": (StartupBench, "Time of a command's --help."),
}
"""Each is the module of `benchmarks` of that name, with `measure(config) -> data` and `make_table(data) -> text`."""

ALIASES = {"network": "networks"}
"""Other names of verbs."""


def make_parser() -> common.Parser:
    return common.verbs_parser("nas-bench", DESCRIPTION, {verb: text for verb, (_, text) in VERBS.items()})


def make_verb_parser(verb: str) -> common.Parser:
    """Makes the parser of a verb: an option for each field of its settings, and those of the table."""
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
    parser.add_flag("--json", "Print the data as JSON instead of the tables.")
    parser.add_optional("--into", "Write the tables into this Markdown file, between its markers.")
    if verb == "scaling":
        parser.add_optional("--plot", "Draw the curves into this file: .svg, .png, .pdf.")
    return parser


def read(verb: str, arguments: list[str]) -> tuple[Any, dict[str, Any]]:
    """Parses the settings of a verb, and the options of its table: json, into, plot."""
    values = vars(common.parse(make_verb_parser(verb), arguments))
    outputs = {name: values.pop(name, None) for name in ("json", "into", "plot")}
    return VERBS[verb][0](**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}), outputs


def main(arguments: list[str]) -> None:
    words = [ALIASES.get(word, word) for word in arguments[:1]] + arguments[1:]
    verb, rest = common.take_verb(make_parser, words, VERBS)
    config, outputs = read(verb, rest)

    from benchmarks import documents

    module = import_module(f"benchmarks.{verb}")
    if outputs["into"] is not None:  # refused before hours of work
        documents.split(Path(outputs["into"]))
    if outputs["plot"] is not None:
        module.check_picture(outputs["plot"])
        check_replaceable([Path(outputs["plot"])], "give another name")
    data = module.measure(config)
    table = module.make_table(data)
    common.say(json.dumps(data) if outputs["json"] else table)
    if outputs["into"] is not None:
        documents.put(table, Path(outputs["into"]))
    if outputs["plot"] is not None:
        module.draw(data, outputs["plot"])


def _helps(config: type) -> dict[str, str]:
    """Returns the text under each field of a dataclass and of its bases."""
    from docstring_parser import parse_from_object

    classes = [base for base in reversed(config.__mro__) if dataclasses.is_dataclass(base)]
    return {p.arg_name: p.description or "" for base in classes for p in parse_from_object(base).params}


entry = common.command("nas-bench", main)

if __name__ == "__main__":
    entry()
