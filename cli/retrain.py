"""nas-retrain: train a genotype or a published network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli import common, networks
from retrain.config import RetrainConfig
from retrain.networks.published import DEEPLAB_SETTINGS, NETWORKS, main_names
from search_spaces.validation import did_you_mean

RECIPES = Path(__file__).parent.parent / "retrain" / "recipes"
DESCRIPTION = """\
Trains a genotype.json file, or a published network by name, from scratch or from weights (--init-from,
--network.backbone-weights). Without --data it trains on the built-in data set `shapes`, in a minute or two on two CPU
cores, a genotype or an Auto-DeepLab as a narrow network: to see it work, not to learn much. With --data the defaults
are the protocol of Auto-DeepLab on Cityscapes, and --recipe has those of the other papers."""


def make_parser() -> common.Parser:
    """The parser of nas-retrain."""
    parser = common.parser("nas-retrain", DESCRIPTION, "[GENOTYPE]")
    parser.notes = networks.listed()
    choices = "A genotype.json file, or the name of a published network (listed below). Not given with --resume."
    parser.add_argument("source", metavar="GENOTYPE", nargs="?", type=str | None, default=None, help=choices)
    common.add_run_options(parser, RECIPES)
    parser.add_class_arguments(RetrainConfig, None, skip={"genotype"})
    parser.add_argument("--genotype", type=str, default="", help="The same as the first argument, for config files.")
    networks.explain_option(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Parses, trains, prints."""
    parser = make_parser()
    arguments = networks.with_kind(arguments)
    arguments = common.settings_arguments(parser, arguments, RECIPES, small_recipe(parser, arguments))
    values = common.parse(parser, arguments)
    if values.source is not None:
        if values.resume is not None:
            raise ValueError("--resume trains what the run was begun with: leave the genotype out")
        if common.value_of("--genotype", arguments) is not None:
            raise ValueError("the genotype is named twice: leave --genotype out")
    config = common.settings(RetrainConfig, values)
    if not config.genotype:
        raise ValueError(f"name a genotype.json file, or one of {', '.join(main_names())}")
    networks.check_kind(config.genotype, arguments)
    if values.resume is None and config.genotype not in NETWORKS:
        _check_genotype(config.genotype)

    from retrain.training import train

    result = train(config, values.resume, values.quiet)
    if common.is_first() and not values.quiet:
        print(
            f"val mIoU {100 * result.last_miou:.2f} % at the end, {100 * result.best_miou:.2f} % at best; measure any "
            f"split with: nas-evaluate {result.folder}"
        )


def small_recipe(parser: common.Parser, arguments: Sequence[str]) -> str:
    """The recipe without data: `small` narrows what a DeepLab-style network of a genotype has, others have not."""
    source = common.value_of("--genotype", arguments) or common.operand(parser, arguments)
    deeplab_style = common.value_of("--network.kind", arguments) in (None, "deeplab")
    if source is not None and source in NETWORKS:
        deeplab_style = NETWORKS[source].settings >= DEEPLAB_SETTINGS
    return "small" if deeplab_style else "small-published"


def _check_genotype(file: str) -> None:
    """Refuses a file that is no genotype before the data set is read, which may take minutes."""
    from search_spaces.genotype import load_genotype

    if not Path(file).exists():
        if Path(file).suffix or Path(file).parent != Path():
            raise ValueError(f"there is no genotype file {file!r}: name the genotype.json that nas-search wrote")
        raise ValueError(
            f"there is no published network {file!r}{did_you_mean(file, NETWORKS) or ':'} choose one of "
            f"{', '.join(main_names())}, or name a genotype.json file"
        )
    load_genotype(file)


def entry() -> None:
    """The console script."""
    common.run("nas-retrain", main)


if __name__ == "__main__":
    entry()
