"""nas-retrain: train a genotype or a published network."""

from __future__ import annotations

from pathlib import Path

from cli import common
from retrain.config import RetrainConfig
from retrain.networks.published import NETWORKS

RECIPES = Path(__file__).parent.parent / "retrain" / "recipes"
DESCRIPTION = """\
Trains a genotype.json file, or a published network by name, from scratch. Without --data it trains a small
network on the built-in data set `shapes`, in under a minute on two CPU cores; with --data the defaults are the protocol
of Auto-DeepLab on Cityscapes."""


def make_parser() -> common.Parser:
    """The parser of nas-retrain."""
    parser = common.parser("nas-retrain", DESCRIPTION, "[GENOTYPE]")
    choices = f"A genotype.json file, or one of {', '.join(NETWORKS)}. Not given with --resume."
    parser.add_argument("source", metavar="GENOTYPE", nargs="?", type=str | None, default=None, help=choices)
    common.add_run_options(parser, RECIPES)
    parser.add_class_arguments(RetrainConfig, None, skip={"genotype"})
    parser.add_argument("--genotype", type=str, default="", help="The same as the first argument, for config files.")
    return parser


def main(arguments: list[str]) -> None:
    """Parses, trains, prints."""
    parser = make_parser()
    arguments = common.settings_arguments(parser, arguments, RECIPES, "small")
    values = common.parse(parser, arguments)
    if values.source is not None:
        if values.resume is not None:
            raise ValueError("--resume trains what the run was begun with: leave the genotype out")
        if common.value_of("--genotype", arguments) is not None:
            raise ValueError("the genotype is named twice: leave --genotype out")
    config = common.settings(RetrainConfig, values)
    if not config.genotype:
        raise ValueError(f"name a genotype.json file, or one of {', '.join(NETWORKS)}")
    if values.resume is None and config.genotype not in NETWORKS:
        _check_genotype(config.genotype)

    from retrain.training import train

    result = train(config, values.resume, values.quiet)
    if not values.quiet:
        print(
            f"val mIoU {100 * result.last_miou:.2f} % at the end, {100 * result.best_miou:.2f} % at best; measure any "
            f"split with: nas-evaluate {result.folder}"
        )


def _check_genotype(file: str) -> None:
    """Refuses a file that is no genotype before the data set is read, which may take minutes."""
    from search_spaces.genotype import load_genotype

    if not Path(file).is_file():
        raise ValueError(
            f"no published network and no genotype file {file!r}: choose one of {', '.join(NETWORKS)}, "
            "or name a genotype.json file"
        )
    load_genotype(file)


def entry() -> None:
    """The console script."""
    common.run("nas-retrain", main)


if __name__ == "__main__":
    entry()
