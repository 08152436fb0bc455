"""nas-table: tables of trained networks."""

from __future__ import annotations

import os
from argparse import SUPPRESS
from functools import partial
from pathlib import Path

from cli import common, networks
from cli.rank import WITHOUT
from cli.retrain import RECIPES
from nas.config import parse_seeds
from retrain.config import RetrainConfig
from retrain.table.config import TableConfig

DESCRIPTION = """\
Tables of small search spaces, every network of which was trained: what a search found is judged by them without any
training. Each verb has its own options: see nas-table VERB --help."""

MAKE = """\
Trains every network of a small search space, or a random share, with the same settings, and records its mIoU after each
epoch. The same command resumes what was stopped; started several times, on one or more machines, its workers share the
trainings. The settings of the trainings are those of nas-retrain."""

VERBS = {
    "make": "Trains the networks of a space, for a table.",
    "latency": "Measures their latency, in one pass on a quiet machine.",
}


def make_parser() -> common.Parser:
    return common.verbs_parser("nas-table", DESCRIPTION, VERBS)


def make_making_parser() -> common.Parser:
    parser = common.parser("nas-table make", MAKE)
    common.add_run_options(parser, RECIPES, resumes=False)
    parser.add_argument("--seeds", type=str, default="0,1", help="All networks are trained with the first of these "
                        "seeds, then those of --again with each other one.")  # fmt: skip
    parser.add_class_arguments(TableConfig, None, skip={"seeds"})
    common.add_storage(parser)
    parser.add_flag("--keep_weights", "Keep the checkpoints of networks that are trained.")
    parser.add_settings(RetrainConfig)
    for action in parser._actions:
        if action.dest in ("genotype", "seed"):  # allowed in a file of settings, but not read
            action.help = SUPPRESS
        elif action.dest == "out":
            action.help = "Folder of all trainings; runs/table-SPACE-DATA if not given."
    networks.shorten_kind(parser)
    return parser


def main(arguments: list[str]) -> None:
    verb, rest = common.take_verb(make_parser, arguments, VERBS)
    {"make": _make, "latency": _latency}[verb](rest)


def _make(arguments: list[str]) -> None:
    parser = make_making_parser()
    given = common.given(parser, arguments)
    common.refuse(given, {**WITHOUT, "genotype": "all networks of the space are trained",
                          "resume": "the same command resumes the table"})  # fmt: skip
    base, files = common.layers(parser, given, RECIPES, networks.small_recipe([], given))
    values = common.complete(parser, base, *files, given)
    values.seeds = parse_seeds(values.seeds)
    table, config = common.settings(TableConfig, values), common.settings(RetrainConfig, values)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a table is made without torchrun: start the command once for each worker instead")

    from retrain.table.making import Making
    from search_spaces.space import load

    space = load(table.space)
    folder = Path(given.get("out") or f"runs/table-{space.name}-{config.data}")
    say = (lambda line: None) if values.quiet else partial(print, flush=True)
    making = Making(table, config, space, folder, values.storage, values.study, values.keep_weights, say)
    try:
        making.work()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command resumes the table") from None
    if failed := making.jobs.reasons():
        job, reason = next(iter(failed.items()))
        raise ValueError(
            f"{len(failed)} of the trainings failed, such as {folder / job}: {reason.rstrip('.')}. The same command "
            "tries again"
        )


def _latency(arguments: list[str]) -> None:
    parser = common.parser("nas-table latency", "Measures the latency of a table's networks.", "FOLDER")
    parser.add_argument("folder", metavar="FOLDER", type=str, help="Folder of nas-table make.")
    common.add_storage(parser)
    values = common.parse(parser, arguments)

    from retrain.table.making import measure_latency, open_making

    print(f"wrote {measure_latency(open_making(values.folder, values.storage, values.study))}")


entry = common.command("nas-table", main)

if __name__ == "__main__":
    entry()
