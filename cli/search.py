"""nas-search: search an architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from cli import common
from nas.config import SearchConfig, parse_seeds
from search_spaces.space import available

if TYPE_CHECKING:
    from nas.seeds import SeedResult

OF_A_SPACE = ("layers", "levels", "blocks", "filter_multiplier")
"""Settings that override a space's own numbers."""
WITHOUT = {
    "seed": "--seeds has the seeds of all searches",
    "resume": "the same command resumes the searches of --seeds",
}
"""Options that --seeds excludes."""
RECIPES = Path(__file__).parent.parent / "nas" / "recipes"
DESCRIPTION = """\
Searches an architecture for semantic segmentation: relaxes a search space into one supernet, trains
its weights and its architecture in turn (first-order DARTS), and decodes a genotype after each epoch. Without --data it
searches a reduced space on the built-in data set `shapes`, in about two minutes on two CPU cores; with --data the
defaults are the protocol of Auto-DeepLab."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-search", DESCRIPTION)
    parser.add_settings(SearchConfig)
    common.add_run_options(parser, RECIPES)
    parser.add_optional(
        "--seeds",
        "Search once with each of these seeds, such as 0,1,2, one after the other, in run folders seed-0, seed-1, "
        "... of --out (runs/search-SPACE-DATA-seeds if not given). The same command resumes what was stopped.",
    )
    return parser


def main(arguments: list[str]) -> None:
    parser = make_parser()
    given = common.given(parser, arguments)
    if given.get("seeds") is not None:
        common.refuse(given, WITHOUT)
    base, files = common.layers(parser, given, RECIPES, "small")
    if "resume" not in given and given.get("space") not in (None, *available()):  # the numbers of a file count
        base = Namespace({name: value for name, value in vars(base).items() if name not in OF_A_SPACE})
    values = common.complete(parser, base, *files, given)
    config = common.settings(SearchConfig, values)
    if values.seeds is not None:
        return _search_seeds(config, parse_seeds(values.seeds), values.quiet)

    from nas.darts import search

    result = search(config, values.resume, values.quiet)
    if common.is_first() and not values.quiet:
        from search_spaces.text import cell_table, path_trellis

        print(cell_table(result.genotype))
        print(path_trellis(result.genotype))
        print(f"genotype: {result.folder / 'genotype.json'}   (pictures next to it: cell.svg, trellis.svg)")


def _search_seeds(config: SearchConfig, seeds: Sequence[int], quiet: bool) -> None:
    """Searches with each seed, and prints the results."""
    from nas.seeds import search_seeds
    from search_spaces.space import load

    folder = Path(config.out or f"runs/search-{load(config.space).name}-{config.data}-seeds")
    results = search_seeds(config, seeds, folder, quiet)
    if common.is_first() and not quiet:
        print(_table(results))
        print(f"next: nas-rank {folder}, which trains the genotypes found")
    failed = [result for result in results if result.failure is not None]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(results)} searches failed, the first with seed {failed[0].seed}: "
            f"{failed[0].failure}; the same command tries again"
        )


def _table(results: Sequence[SeedResult]) -> str:
    """Formats the results, one line for each seed."""
    from nas.evaluation.metrics import mean_note

    width = max(len("path"), *(len("-".join(map(str, r.genotype.path))) for r in results if r.genotype), 0)
    digits = max(len("seed"), *(len(str(result.seed)) for result in results))
    lines = [f"{'seed':>{digits}}   val mIoU %   {'path':<{width}}   genotype"]
    for result in results:
        miou, path, file = "failed", "", ""
        if result.genotype is not None:
            miou = "-" if result.val_miou is None else f"{100 * result.val_miou:.2f}"
            path, file = "-".join(map(str, result.genotype.path)), str(result.folder / "genotype.json")
            file += mean_note(result.genotype.provenance.get("supernet_val_mean_over"))
        lines.append(f"{result.seed:>{digits}}   {miou:>10}   {path:<{width}}   {file}".rstrip())
    return "\n".join(lines)


entry = common.command("nas-search", main)

if __name__ == "__main__":
    entry()
