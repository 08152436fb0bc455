"""nas-rank: searched and random genotypes, trained alike and ranked."""

from __future__ import annotations

import os
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cli import common, networks
from cli.retrain import RECIPES
from nas.config import parse_seeds
from retrain.config import RankingConfig, RetrainConfig

DESCRIPTION = """\
Trains the genotypes of several searches, and random genotypes of the same space, with the same settings and several
seeds each, and ranks them: mean, standard deviation, searched compared with random. The same command resumes what was
stopped; started several times, on one or more machines, its workers share the trainings. The settings of the trainings
are those of nas-retrain; without --data they are on the data of the searches; if that is the built-in data set
`shapes`, each network takes a minute or two on a CPU core."""

WITHOUT = {
    "seed": "--seeds has the seeds of the trainings",
    "genotype": "networks are named without an option",
    "resume": "the same command resumes the ranking",
}
"""Options of nas-retrain that are refused here."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-rank", DESCRIPTION, "RUN...")
    parser.notes = networks.listed()
    parser.add_argument(
        "run",
        metavar="RUN",
        type=str,
        nargs="*",
        default=SUPPRESS,
        help="Run folders of nas-search, folders of these (as of --seeds), genotype.json files, or names of published "
        "networks (listed below).",
    )
    common.add_run_options(parser, RECIPES, resumes=False)
    seeds_help = "Every genotype is trained once with each of these seeds; a standard deviation needs two."
    parser.add_argument("--seeds", type=str, default="0,1", help=seeds_help)
    parser.add_class_arguments(RankingConfig, None, skip={"seeds"})
    common.add_storage(parser)
    parser.add_settings(RetrainConfig)
    for action in parser._actions:
        if action.dest in ("genotype", "seed"):  # allowed in a file of settings, but not read
            action.help = SUPPRESS
        elif action.dest == "out":
            action.help = "Folder of all trainings and of the ranking; runs/rank-DATA if not given."
    networks.shorten_kind(parser)
    return parser


def main(arguments: list[str]) -> None:
    parser = make_parser()
    given = common.given(parser, arguments)
    common.refuse(given, WITHOUT)
    runs = given.get("run")
    if not runs:
        raise common.UsageError("RUN is missing (see nas-rank --help)")
    small = networks.small_recipe(runs, given)
    base, files = common.layers(parser, given, RECIPES, small, lambda _: _searched(runs))
    values = common.complete(parser, base, *files, given)
    values.seeds = parse_seeds(values.seeds)
    ranking = common.settings(RankingConfig, values)
    for name in runs:
        networks.check_kind(name, given)
    config = common.settings(RetrainConfig, values)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a ranking runs without torchrun: start the command once for each worker instead")

    from retrain.ranking.result import MARKDOWN, table
    from retrain.ranking.training import rank

    out = given.get("out")  # in a file of settings, it is the folder of a run
    say = partial(common.say, flush=True)
    result = rank(runs, config, ranking, out, values.quiet, say, values.storage, values.study)
    if not values.quiet:
        common.say(f"\n{table(result)}\n\nfull ranking: {result.folder / MARKDOWN}")
    if result.failures:
        count = len(result.failures)
        raise ValueError(f"{count} of the trainings failed, see the ranking: the same command tries again")


def _searched(runs: Sequence[str]) -> Mapping[str, Any]:
    """The settings of the data on which the genotypes to rank were searched."""
    from retrain.ranking.candidates import find_candidates
    from search_spaces.genotype import load_genotype

    try:
        candidates = find_candidates(runs)
    except ValueError:  # told by the ranking, after wrong settings
        return {}
    origins = [origin for found in candidates if found.genotype is not None for origin in found.origins]
    return networks.data_of(load_genotype(origin.source) for origin in origins)


entry = common.command("nas-rank", main)

if __name__ == "__main__":
    entry()
