"""What the commands say of networks: the published ones in a list, and `--network NAME` for what a genotype becomes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from cli import common
from retrain.networks.building import KINDS
from retrain.networks.published import NETWORKS, PublishedNetwork, main_names
from search_spaces.genotype import Genotype, load_genotype

__all__ = ["check_kind", "explain_option", "facts", "known_classes", "listed", "with_kind"]

WIDTH = 79
CITYSCAPES = 19
"""Classes."""


def listed(counts: bool = False) -> str:
    """The published networks, grouped by paper: name and description a line.

    Args:
        counts: Whether to give the number of parameters that the paper prints, too, a line to each ablation, and not to
            fold long lines.
    """
    width = max(map(len, NETWORKS if counts else main_names()))
    lines = [
        "published networks, with the number of parameters that the paper prints:" if counts else "published networks:"
    ]
    for paper, records in groupby((NETWORKS[name] for name in NETWORKS), lambda record: record.paper):
        lines += _folded(paper, "  ")
        ablations = []
        for record in records:
            start = f"    {record.name:<{width}}  "
            if counts:
                lines.append(f"{start}{record.printed or '--':>10}  {record.description}")
            elif record.ablation:
                ablations.append(record.name)
            else:
                lines += _folded(record.description, start)
        if ablations:
            lines += _folded(", ".join(ablations), "    ablations: ")
    return "\n".join(lines)


def _folded(text: str, start: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)


def facts() -> list[dict[str, Any]]:
    """The published networks in plain containers."""

    def plain(record: PublishedNetwork) -> dict[str, Any]:
        names = ("name", "description", "paper", "classes", "printed", "ablation")
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
