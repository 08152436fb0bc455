"""nas-rank: what searches found, and random genotypes, trained alike and put in order."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial

from cli import common, networks
from cli.retrain import RECIPES
from nas.config import parse_seeds
from retrain.config import RankingConfig, RetrainConfig
from retrain.networks.published import DEEPLAB_SETTINGS, NETWORKS

DESCRIPTION = """\
Trains what several searches found, and random genotypes of the same space, with the same settings and several seeds
each, and puts them in order: mean, standard deviation, searched against random. The same command goes on with what was
stopped. The settings of the trainings are those of nas-retrain; without --data it trains on the built-in data set
`shapes`, each network in a minute or two on two CPU cores."""


def make_parser() -> common.Parser:
    """The parser of nas-rank."""
    parser = common.parser("nas-rank", DESCRIPTION, "RUN...")
    parser.notes = networks.listed()
    parser.add_argument(
        "run",
        metavar="RUN",
        type=str,
        nargs="+",
        help="Run folders of nas-search, folders of such (as --seeds makes them), genotype.json files, or names of "
        "published networks (listed below).",
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; options win over it.")
    names = ", ".join(common.recipe_names(RECIPES))
    parser.add_argument("--recipe", type=str | None, default=None, help=f"Shipped settings to start from: {names}.")
    parser.add_argument("--quiet", action="store_true", help="Say nothing on the screen.")
    parser.add_argument(
        "--seeds",
        type=str,
        default="0,1",
        help="Every genotype is trained once with each of these seeds; a standard deviation needs two.",
    )
    parser.add_class_arguments(RankingConfig, None, skip={"seeds"})
    parser.add_class_arguments(RetrainConfig, None)
    for action in parser._actions:
        if action.dest in ("genotype", "seed"):  # in a file of settings they may stand, but are not read
            action.help = argparse.SUPPRESS
        elif action.dest == "out":
            action.help = "Folder of all trainings and of the ranking; runs/rank-DATA if not given."
    networks.explain_option(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Parses, trains, prints the table."""
    parser = make_parser()
    arguments = _operands_first(parser, networks.with_kind(arguments))
    for name, instead in (
        ("seed", "--seeds has the seeds of the trainings"),
        ("genotype", "what is trained is named without an option"),
        ("resume", "the same command goes on"),
    ):
        if common.value_of(f"--{name}", arguments) is not None:
            raise common.UsageError(f"{instead}: leave --{name} out")
    values = common.parse(parser, common.settings_arguments(parser, arguments, RECIPES, _small_recipe(arguments)))
    ranking = RankingConfig(values.pop("random"), parse_seeds(values.pop("seeds")), values.pop("split"))
    runs = values.pop("run")
    for name in runs:
        networks.check_kind(name, arguments)
    config = common.settings(RetrainConfig, values)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a ranking runs without torchrun, one training after the other: start the command once")

    from retrain.ranking.result import MARKDOWN, table
    from retrain.ranking.training import rank

    out = common.value_of("--out", arguments)  # that of a file of settings is a run's own
    result = rank(runs, config, ranking, out, values.quiet, partial(print, flush=True))
    if not values.quiet:
        print(f"\n{table(result)}\n\nall of it in {result.folder / MARKDOWN}")
    if result.failures:
        count = len(result.failures)
        raise ValueError(f"{count} of the trainings failed, as the ranking says: the same command tries again")


def _operands_first(parser: common.Parser, arguments: Sequence[str]) -> list[str]:
    """The operands before the options: the parser takes no further ones behind an option."""
    flags = {option for action in parser._actions if action.nargs == 0 for option in action.option_strings}
    operands, options, words = [], [], iter(arguments)
    for word in words:
        if not word.startswith("-"):
            operands.append(word)
            continue
        options.append(word)
        if "=" not in word and word not in (*flags, "--print_config"):
            options += [value for value in [next(words, None)] if value is not None]
    return [*operands, *options]


def _small_recipe(arguments: Sequence[str]) -> str:
    """The recipe without data: `small` narrows DeepLab-style networks, and what has no such widths refuses it."""
    others = [word for word in arguments if word in NETWORKS and not NETWORKS[word].settings >= DEEPLAB_SETTINGS]
    deeplab_style = common.value_of("--network.kind", arguments) in (None, "deeplab")
    return "small" if deeplab_style and not others else "small-published"


def entry() -> None:
    """The console script."""
    common.run("nas-rank", main)


if __name__ == "__main__":
    entry()
