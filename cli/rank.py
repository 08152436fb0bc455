"""nas-rank: what searches found, and random genotypes, trained alike and put in order."""

from __future__ import annotations

import os
from argparse import SUPPRESS
from functools import partial

from cli import common, networks
from cli.retrain import RECIPES
from nas.config import parse_seeds
from retrain.config import RankingConfig, RetrainConfig

DESCRIPTION = """\
Trains what several searches found, and random genotypes of the same space, with the same settings and several seeds
each, and puts them in order: mean, standard deviation, searched against random. The same command goes on with what was
stopped. The settings of the trainings are those of nas-retrain; without --data it trains on the built-in data set
`shapes`, each network in a minute or two on two CPU cores."""

WITHOUT = {
    "seed": "--seeds has the seeds of the trainings",
    "genotype": "what is trained is named without an option",
    "resume": "the same command goes on",
}
"""Options of nas-retrain that have no use here."""


def make_parser() -> common.Parser:
    """The parser of nas-rank."""
    parser = common.parser("nas-rank", DESCRIPTION, "RUN...")
    parser.notes = networks.listed()
    parser.add_argument(
        "run",
        metavar="RUN",
        type=str,
        nargs="*",
        default=SUPPRESS,
        help="Run folders of nas-search, folders of such (as --seeds makes them), genotype.json files, or names of "
        "published networks (listed below).",
    )
    common.add_run_options(parser, RECIPES, resumes=False)
    parser.add_argument(
        "--seeds",
        type=str,
        default="0,1",
        help="Every genotype is trained once with each of these seeds; a standard deviation needs two.",
    )
    parser.add_class_arguments(RankingConfig, None, skip={"seeds"})
    parser.add_settings(RetrainConfig)
    for action in parser._actions:
        if action.dest in ("genotype", "seed"):  # in a file of settings they may stand, but are not read
            action.help = SUPPRESS
        elif action.dest == "out":
            action.help = "Folder of all trainings and of the ranking; runs/rank-DATA if not given."
    networks.shorten_kind(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Parses, trains, prints the table."""
    parser = make_parser()
    given = common.given(parser, arguments)
    common.refuse(given, WITHOUT)
    runs = given.get("run")
    if not runs:
        raise common.UsageError("RUN is missing (see nas-rank --help)")
    base, files = common.layers(parser, given, RECIPES, networks.small_recipe(runs, given))
    values = common.complete(parser, base, *files, given)
    values.seeds = parse_seeds(values.seeds)
    ranking = common.settings(RankingConfig, values)
    for name in runs:
        networks.check_kind(name, given)
    config = common.settings(RetrainConfig, values)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a ranking runs without torchrun, one training after the other: start the command once")

    from retrain.ranking.result import MARKDOWN, table
    from retrain.ranking.training import rank

    out = given.get("out")  # that of a file of settings is a run's own
    result = rank(runs, config, ranking, out, values.quiet, partial(print, flush=True))
    if not values.quiet:
        print(f"\n{table(result)}\n\nall of it in {result.folder / MARKDOWN}")
    if result.failures:
        count = len(result.failures)
        raise ValueError(f"{count} of the trainings failed, as the ranking says: the same command tries again")


entry = common.command("nas-rank", main)

if __name__ == "__main__":
    entry()
