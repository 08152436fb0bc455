"""nas-search: search an architecture."""

from __future__ import annotations

from pathlib import Path

from cli import common
from nas.config import SearchConfig

RECIPES = Path(__file__).parent.parent / "nas" / "recipes"
DESCRIPTION = """\
Searches an architecture for semantic segmentation: relaxes a search space into one supernet, trains
its weights and its architecture in turn (first-order DARTS), and decodes a genotype after each epoch. Without --data it
searches a reduced space on the built-in data set `shapes`, in about two minutes on two CPU cores; with --data the
defaults are the protocol of Auto-DeepLab."""


def make_parser() -> common.Parser:
    """The parser of nas-search."""
    parser = common.parser("nas-search", DESCRIPTION)
    common.add_run_options(parser, RECIPES)
    parser.add_class_arguments(SearchConfig, None)
    return parser


def main(arguments: list[str]) -> None:
    """Parses, searches, prints."""
    parser = make_parser()
    values = common.parse(
        parser, _with_space_of_its_own(common.settings_arguments(parser, arguments, RECIPES, "small"))
    )
    config = common.settings(SearchConfig, values)

    from nas.darts import search

    result = search(config, values.resume, values.quiet)
    if common.is_first() and not values.quiet:
        from search_spaces.text import cell_table, path_trellis

        print(cell_table(result.genotype))
        print(path_trellis(result.genotype))
        print(f"genotype: {result.folder / 'genotype.json'}   (pictures beside it: cell.svg, trellis.svg)")


def _with_space_of_its_own(arguments: list[str]) -> list[str]:
    """Where a space is named by its file, the file's numbers hold, and not those that a recipe puts in their place."""
    from search_spaces.space import available

    space, file = common.value_of("--space", arguments), common.value_of("--config", arguments)
    if space is None or space in available() or file is None or Path(file).parent != RECIPES:
        return arguments
    numbers = ("layers", "levels", "blocks", "filter_multiplier")
    missing = [name for name in numbers if common.value_of(f"--{name}", arguments) is None]
    return [*arguments, *(f"--{name}=null" for name in missing)]


def entry() -> None:
    """The console script."""
    common.run("nas-search", main)


if __name__ == "__main__":
    entry()
