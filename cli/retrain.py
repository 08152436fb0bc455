"""nas-retrain: train a genotype or a published network."""

from __future__ import annotations

from pathlib import Path

from cli import common, networks
from retrain.config import RetrainConfig
from retrain.networks.published import NETWORKS, main_names
from search_spaces.validation import did_you_mean

RECIPES = Path(__file__).parent.parent / "retrain" / "recipes"
DESCRIPTION = """\
Trains a genotype.json file, or a published network by name, from scratch or from weights (--init-from,
--network.backbone-weights). Without --data it trains a genotype on the data of its search; if that is the built-in data
set `shapes`, or for a published network, it trains a narrow network in a minute or two on two CPU cores: a demo that
learns little. With other data the defaults are the protocol of Auto-DeepLab on Cityscapes, and --recipe has those of
the other papers."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-retrain", DESCRIPTION, "[GENOTYPE]")
    parser.notes = networks.listed()
    choices = (
        "A genotype.json file, a run folder that has one, or the name of a published network (listed below). Not given "
        "with --resume."
    )
    parser.add_optional("source", choices, metavar="GENOTYPE", nargs="?")
    parser.add_settings(RetrainConfig, skip={"genotype"})
    common.add_run_options(parser, RECIPES)
    parser.add_argument("--genotype", type=str, default="", help="The same as the first argument, for config files.")
    parser.settings |= {"genotype"}
    networks.shorten_kind(parser)
    return parser


def main(arguments: list[str]) -> None:
    parser = make_parser()
    given = common.given(parser, arguments)
    if "source" in given:
        if given.get("resume") is not None:
            raise ValueError("--resume trains the run's own genotype: leave the genotype out")
        common.refuse(given, {"genotype": "the genotype is named twice"})
        given["genotype"] = given.pop("source")
    small = networks.small_recipe([given.get("genotype")], given)
    base, files = common.layers(parser, given, RECIPES, small, networks.searched)
    values = common.complete(parser, base, *files, given)
    config = common.settings(RetrainConfig, values)
    if not config.genotype:
        raise ValueError(f"name a genotype.json file, or one of {', '.join(main_names())}")
    networks.check_kind(config.genotype, given)
    if values.resume is None and config.genotype not in NETWORKS:
        _check_genotype(config.genotype)

    from retrain.training import train

    result = train(config, values.resume, values.quiet)
    if common.is_first() and not values.quiet:
        from nas.evaluation.metrics import mean_note

        common.say(
            f"val mIoU {100 * result.last_miou:.2f} %{mean_note(result.mean_over)} at the end, "
            f"{100 * result.best_miou:.2f} % at best; measure any split with: nas-evaluate {result.folder}"
        )


def _check_genotype(file: str) -> None:
    """Checks the genotype file before the data set is read, which may take minutes."""
    from search_spaces.genotype import load_genotype

    if not Path(file).exists():
        if Path(file).suffix or Path(file).parent != Path():
            raise ValueError(f"there is no genotype file {file!r}: name the genotype.json that nas-search wrote")
        raise ValueError(
            f"there is no published network {file!r}{did_you_mean(file, NETWORKS) or ':'} choose one of "
            f"{', '.join(main_names())}, or name a genotype.json file"
        )
    load_genotype(file)


entry = common.command("nas-retrain", main)

if __name__ == "__main__":
    entry()
