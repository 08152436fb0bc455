"""What the commands say of networks: the published ones in a list, and `--network NAME` for what a genotype becomes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, get_args, get_type_hints

from cli import common
from retrain.networks.published import NETWORKS, PublishedNetwork
from retrain.networks.settings import NetworkConfig
from search_spaces.genotype import Genotype, load_genotype

__all__ = ["KINDS", "check_kind", "explain_option", "facts", "known_classes", "listed", "with_kind"]

KINDS: tuple[str, ...] = get_args(get_type_hints(NetworkConfig)["kind"])
"""What a genotype may become."""
WIDTH = 79
CITYSCAPES = 19
"""Classes."""


def listed(counts: bool = False) -> str:
    """The published networks, grouped by paper: name and description a line.

    Args:
        counts: Whether to give the number of parameters that the paper prints, too, and not to fold long lines.
    """
    width = max(map(len, NETWORKS))
    lines = [
        "published networks, with the number of parameters that the paper prints:" if counts else "published networks:"
    ]
    for paper, records in groupby((NETWORKS[name] for name in NETWORKS), lambda record: record.paper):
        lines += textwrap.wrap(paper, WIDTH, initial_indent="  ", subsequent_indent="  ")
        for record in records:
            start = f"    {record.name:<{width}}  "
            if counts:
                lines.append(f"{start}{record.printed or '--':>10}  {record.description}")
            else:
                lines += textwrap.wrap(
                    record.description, WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
                )
    return "\n".join(lines)


def facts() -> list[dict[str, Any]]:
    """The published networks in plain containers."""

    def plain(record: PublishedNetwork) -> dict[str, Any]:
        names = ("name", "description", "paper", "classes", "printed")
        return {**{name: getattr(record, name) for name in names}, "settings": sorted(record.settings)}

    return [plain(NETWORKS[name]) for name in NETWORKS]


def known_classes(source: str | Genotype) -> int:
    """The number of classes that a genotype's search had, where it or its file says so; else that of Cityscapes."""
    if isinstance(source, str):
        if not Path(source).is_file():
            return CITYSCAPES
        source = load_genotype(source)
    known = source.provenance.get("classes")
    return known if type(known) is int and 2 <= known <= 255 else CITYSCAPES


def explain_option(parser: common.Parser) -> None:
    """Gives --network its help: the parser takes it for a file of settings, which `with_kind` does not let through."""
    for action in parser._actions:
        if "--network" in action.option_strings:
            action.metavar = f"{{{','.join(KINDS)}}}"
            action.help = "What a genotype becomes: short for --network.kind."


def with_kind(arguments: Sequence[str]) -> list[str]:
    """A command line with --network NAME written out as --network.kind=NAME.

    Raises:
        UsageError: The value is none of `KINDS`; the message says where other things are named.
    """
    out, rest = [], iter(common.with_underscores(arguments))
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != "--network":
            out.append(argument)
            continue
        value = value if equals else next(rest, "")
        if value not in KINDS:
            raise common.UsageError(
                f"--network is {value!r}: give {' or '.join(KINDS)}, which is what a genotype becomes; a published "
                "network is named in place of the genotype, single settings as --network.NAME, a file of settings "
                "by --config"
            )
        out.append(f"--network.kind={value}")
    return out


def check_kind(source: str, arguments: Sequence[str]) -> None:
    """Refuses --network for a published network: it is what it is.

    Raises:
        UsageError: `source` is a published network, and the command line says what a genotype becomes.
    """
    kind = common.value_of("--network.kind", arguments)
    if kind is not None and source in NETWORKS:
        raise common.UsageError(
            f"--network {kind} says what a genotype becomes, but {source} is a published network: leave it out"
        )
