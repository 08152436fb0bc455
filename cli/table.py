"""nas-table: tables of trained networks."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Literal

from cli import common, networks
from cli.rank import WITHOUT, with_trainings
from cli.retrain import RECIPES
from nas.config import parse_seeds
from retrain.config import RetrainConfig, TableConfig

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
    "pack": "Makes one file of the results, and a card.",
    "show": "Describes a table: distribution, best, noise, what matters; draws it.",
    "rank": "Says where a genotype stands in a table, without training it.",
}

Cost = Literal["multiply_adds", "parameters", "latency"]
TABLE = "A table: a shipped one by name, or a .jsonl.gz file."
SPLIT = "Split whose mIoU counts; the table's second one, such as test, if not given."


def make_parser() -> common.Parser:
    return common.verbs_parser("nas-table", DESCRIPTION, VERBS)


def main(arguments: list[str]) -> None:
    verb, rest = common.take_verb(make_parser, arguments, VERBS)
    {"make": _make, "latency": _latency, "pack": _pack, "show": _show, "rank": _rank}[verb](rest)


def _make(arguments: list[str]) -> None:
    seeds_help = "All networks are trained with the first of these seeds, then those of --again with each other one."
    out_help = "Folder of all trainings; runs/table-SPACE-DATA if not given."
    parser = with_trainings(common.parser("nas-table make", MAKE), TableConfig, seeds_help, out_help)
    given = common.given(parser, arguments)
    common.refuse(given, {**WITHOUT, "genotype": "all networks of the space are trained"})
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
    say = (lambda line: None) if values.quiet else partial(common.say, flush=True)
    making = Making(table, config, space, folder, values.storage, values.study, say)
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
    from retrain.table.making import measure_latency, open_making

    values = common.parse(_folder_parser("latency"), arguments)
    common.say(f"wrote {measure_latency(open_making(values.folder, values.storage, values.study))}")


def _pack(arguments: list[str]) -> None:
    parser = _folder_parser("pack")
    parser.add_optional("--name", "Name of the table; that of the folder if not given.")
    parser.add_optional("--out", "Folder of the files NAME.jsonl.gz and NAME.md; FOLDER if not given.")
    values = common.parse(parser, arguments)

    from retrain.table.making import open_making, pack

    making = open_making(values.folder, values.storage, values.study)
    name = values.name or making.folder.resolve().name
    for path in pack(making, name, Path(values.out or making.folder)):
        common.say(f"wrote {path}")
    if missing := len(making.trainings) - len(making.jobs.results()):
        common.say(f"{missing} of {len(making.trainings)} trainings are missing: nas-table make resumes them")


def _folder_parser(verb: str) -> common.Parser:
    parser = common.parser(f"nas-table {verb}", VERBS[verb], "FOLDER")
    parser.add_argument("folder", metavar="FOLDER", type=str, help="Folder of nas-table make.")
    common.add_storage(parser)
    return parser


def _show(arguments: list[str]) -> None:
    parser = common.parser("nas-table show", VERBS["show"], "[TABLE]")
    parser.add_argument("table", metavar="TABLE", nargs="?", type=str, default="shapes", help=TABLE)
    parser.add_optional("--split", SPLIT)
    parser.add_flag("--json", "Print JSON.")
    parser.add_optional("--draw", "Draw mIoU against a cost, with the Pareto front, into this .svg, .png or .pdf file.")
    parser.add_optional("--cost", "The cost in the picture; multiply_adds if not given.", Cost)
    values = common.parse(parser, arguments)
    common.check_file_name("draw", values.draw)
    if values.cost is not None and values.draw is None:
        raise common.UsageError("--cost is for the picture: give --draw FILE, too")

    from retrain.table.analysis import draw_table, summary, summary_text
    from retrain.table.reading import load_table

    table = load_table(values.table)
    facts = summary(table, values.split)
    common.say(json.dumps(facts) if values.json else summary_text(facts))
    if values.draw is not None:
        from search_spaces.drawing import save_figure

        save_figure(draw_table(table, values.cost or "multiply_adds", values.split), values.draw)


def _rank(arguments: list[str]) -> None:
    parser = common.parser("nas-table rank", VERBS["rank"], "GENOTYPE...")
    parser.add_argument("genotype", metavar="GENOTYPE", nargs="+", type=str, help="genotype.json files.")
    parser.add_argument("--table", type=str, default="shapes", help=TABLE)
    parser.add_optional("--split", SPLIT)
    parser.add_flag("--json", "Print JSON, one object a line.")
    values = common.parse(parser, arguments)

    from retrain.table.reading import load_table
    from search_spaces.genotype import load_genotype
    from search_spaces.validation import raised_as

    table = load_table(values.table)
    for name in values.genotype:
        with raised_as(ValueError, f"{name}: "):
            place = table.rank(load_genotype(name), values.split)
        facts = {"genotype": name, **place._asdict(), "network": place.network.number}
        text = (
            f"{name}: rank {place.rank} of {place.networks}, better than {place.percentile:.1f} %; mIoU "
            f"{100 * place.miou:.2f} % on {values.split or table.splits[1]}, {100 * place.regret:.2f} points below the "
            "best"
        )
        common.say(json.dumps(facts) if values.json else text)


entry = common.command("nas-table", main)

if __name__ == "__main__":
    entry()
