"""Networks on the command line: the list of published ones, and `--network NAME`, the kind of a genotype's network."""

from __future__ import annotations

import textwrap
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from jsonargparse import Namespace

from cli import common
from nas.config import DATA_SETTINGS
from retrain.networks.building import KINDS
from retrain.networks.published import DEEPLAB_SETTINGS, NETWORKS, main_names
from search_spaces.genotype import Genotype, genotype_file, load_genotype

__all__ = ["check_kind", "data_of", "facts", "known_classes", "listed", "searched", "shorten_kind", "small_recipe"]

WIDTH = 79
CITYSCAPES = 19
"""Number of classes."""


def listed(counts: bool = False) -> str:
    """Lists the published networks by paper, with a line for each name and description.

    With `counts`, the list has the number of parameters that the paper prints and a line for each ablation, and long
    lines are not folded.
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
    """Returns the published networks in plain containers."""
    names = ("name", "description", "paper", "classes", "printed", "ablation")
    records = [NETWORKS[name] for name in NETWORKS]
    return [{**{name: getattr(r, name) for name in names}, "settings": sorted(r.settings)} for r in records]


def known_classes(source: str | Genotype) -> int:
    """Returns the number of classes of a genotype's search, where the genotype or its file has it; else Cityscapes'."""
    if isinstance(source, str):
        if not genotype_file(source).is_file():
            return CITYSCAPES
        source = load_genotype(source)
    known = source.provenance.get("classes")
    return known if type(known) is int and 2 <= known <= 255 else CITYSCAPES


def searched(layers: Sequence[Namespace]) -> dict[str, Any]:
    """Returns `data_of` of the genotype that layers of settings name."""
    source = [one["genotype"] for one in layers if one.get("genotype")][-1:]
    return data_of(load_genotype(s) for s in source if s not in NETWORKS and genotype_file(s).is_file())


def data_of(genotypes: Iterable[Genotype]) -> dict[str, Any]:
    """Returns the settings of the data on which genotypes were searched; none if the genotypes do not tell.

    Raises:
        UsageError: They were searched on different data.
    """
    found: list[dict[str, Any]] = []
    for genotype in genotypes:
        data = genotype.provenance.get("data_settings")
        if isinstance(data, Mapping) and isinstance(data.get("data"), str) and isinstance(data.get("loader"), Mapping):
            loader = {name: value for name, value in data["loader"].items() if name in DATA_SETTINGS}
            found.append({"data": data["data"], "data_root": data.get("data_root"), "loader": loader})
    if different := [one for one in found if one != found[0]]:
        both = " and ".join(f"{one['data']} at {one['data_root']}" for one in (found[0], different[0]))
        raise common.UsageError(f"the genotypes were searched on different data, {both}: choose by --data")
    return found[0] if found else {}


def shorten_kind(parser: common.Parser) -> None:
    """Makes --network NAME short for --network.kind NAME, where the parser expects a file of settings."""
    for action in parser._actions:
        if "--network" in action.option_strings:
            action.metavar = f"{{{','.join(KINDS)}}}"
            action.help = "Kind of a genotype's network, short for --network.kind."
            action.type = _kind
            action._jsonargparse_preexpanded_help = True  # type: ignore[attr-defined]  # without the type


def _kind(name: str) -> dict[str, str]:
    if name not in KINDS:
        raise ArgumentTypeError(
            f"--network is {name!r}: give {' or '.join(KINDS)}, which is what a genotype becomes; a published network "
            "is named in place of the genotype, single settings as --network.NAME, a file of settings by --config"
        )
    return {"kind": name}


def small_recipe(sources: Iterable[str | None], given: Namespace) -> str:
    """Returns the recipe for networks without data: `small` narrows DeepLab-style ones; others refuse its widths."""
    published = [NETWORKS[name].settings for name in sources if name is not None and name in NETWORKS]
    narrow = given.get("network.kind", "deeplab") == "deeplab" and all(s >= DEEPLAB_SETTINGS for s in published)
    return "small" if narrow else "small-published"


def check_kind(source: str, given: Namespace) -> None:
    """Raises a UsageError if --network is given for a published network, whose kind is fixed."""
    kind = given.get("network.kind")
    if kind is not None and source in NETWORKS:
        raise common.UsageError(
            f"--network {kind} is the kind of a genotype's network, but {source} is a published network: leave it out"
        )
