"""nas-decode: decode a genotype file anew, print and draw it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cli import common

DESCRIPTION = """\
Decodes the alpha and beta of a genotype.json file (greedy cell, Viterbi path; where the search weighed the edges, these
weights count, too), prints the cell as a table and the path as a small trellis with its probability, draws both with
--draw, and writes the result with --output; FILE itself is left alone. A file without alpha and beta (hand-written, or
a published one) is only printed and drawn."""


def make_parser() -> common.Parser:
    """The parser of nas-decode."""
    parser = common.parser("nas-decode", DESCRIPTION, "FILE")
    parser.add_argument("file", metavar="FILE", type=str, help="A genotype.json file.")
    parser.add_argument(
        "-o",
        "--output",
        type=str | None,
        default=None,
        help="Write the decoded genotype here; FILE itself may be named.",
    )
    parser.add_argument(
        "--as_is", action="store_true", help="Show the cell and the path that stand in the file, without decoding."
    )
    parser.add_argument(
        "--draw",
        type=str | None,
        default=None,
        help="Draw the cell into this .svg, .png or .pdf file, and the trellis beside it: into trellis.svg beside "
        "cell.svg, else into NAME-trellis.svg.",
    )
    parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")
    return parser


def main(arguments: list[str]) -> None:
    """Parses, decodes, prints, writes."""
    values = common.parse(make_parser(), arguments)
    for option in ("output", "draw"):
        name = getattr(values, option)
        if name is not None and (not Path(name).name or Path(name).is_dir()):
            raise ValueError(f"--{option} is {name!r}, a folder: name a file in it")
    from decoders import path_probability, redecode
    from search_spaces.genotype import load_genotype
    from search_spaces.text import cell_table, path_trellis

    stored = genotype = load_genotype(values.file)
    relaxed = genotype.alpha is not None and genotype.beta is not None
    if relaxed and not values.as_is:
        genotype = redecode(genotype)
    edited = (genotype.cell, genotype.path) != (stored.cell, stored.path)
    probability = path_probability(genotype.beta, genotype.levels) if genotype.beta is not None else None
    pictures = _draw(genotype, Path(values.draw)) if values.draw is not None else []
    written = genotype.save(values.output) if values.output is not None else None
    note = (
        f"{values.file} holds another cell or path than its alpha and beta decode to (edited by hand?) and is left "
        "as it is: --as_is shows its own, --output FILE writes the decoded one"
    )
    if values.json:
        cell = [{"inputs": list(block.inputs), "operations": list(block.operations)} for block in genotype.cell]
        print(json.dumps({"cell": cell, "path": list(genotype.path), "path_probability": probability}))
        if edited and written is None:
            print(note, file=sys.stderr)
        return
    print(cell_table(genotype))
    print()
    print(path_trellis(genotype))
    print()
    if relaxed and genotype.edge_weights is not None and not values.as_is:
        print("inputs of a block are ranked by alpha times edge_weights (a search with partial channels)")
    if probability is None:
        print("no alpha and beta in the file: nothing was decoded, this is the architecture as it stands there")
    else:
        print(f"path probability {probability:.4g}")
    if edited and written is None:
        print(note)
    for path in [*pictures, *([written] if written is not None else [])]:
        print(f"wrote {path}")


def _draw(genotype: Any, cell: Path) -> list[Path]:
    from search_spaces.drawing import draw_cell, draw_trellis, save_figure

    stem = "trellis" if cell.stem == "cell" else f"{cell.stem}-trellis"
    pictures = ((draw_cell, cell), (draw_trellis, cell.with_name(stem + cell.suffix)))
    return [save_figure(draw(genotype), path) for draw, path in pictures]


def entry() -> None:
    """The console script."""
    common.run("nas-decode", main)


if __name__ == "__main__":
    entry()
