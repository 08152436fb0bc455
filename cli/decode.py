"""nas-decode: decode a genotype file anew, print and draw it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli import common

DESCRIPTION = """\
Decodes the alpha and beta of a genotype.json file (greedy cell, Viterbi path), prints the cell as a table and
the path as a small trellis with its probability, writes the decoded file back (or to --output), and draws both with
--draw. A file without alpha and beta (hand-written, or a published one) is only printed and drawn."""


def make_parser() -> common.Parser:
    """The parser of nas-decode."""
    parser = common.parser("nas-decode", DESCRIPTION, "FILE")
    parser.add_argument("file", metavar="FILE", type=str, help="A genotype.json file.")
    parser.add_argument("-o", "--output", type=str | None, default=None, help="Write the decoded file here instead.")
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

    genotype = load_genotype(values.file)
    relaxed = genotype.alpha is not None and genotype.beta is not None
    if relaxed:
        genotype = redecode(genotype)
    probability = path_probability(genotype.beta, genotype.levels) if genotype.beta is not None else None
    pictures = _draw(genotype, Path(values.draw)) if values.draw is not None else []
    written = genotype.save(values.output or values.file) if relaxed or values.output else None
    if values.json:
        cell = [{"inputs": list(block.inputs), "operations": list(block.operations)} for block in genotype.cell]
        print(json.dumps({"cell": cell, "path": list(genotype.path), "path_probability": probability}))
        return
    print(cell_table(genotype))
    print()
    print(path_trellis(genotype))
    print()
    if probability is None:
        print("no alpha and beta in the file: nothing was decoded, this is the architecture as it stands there")
    else:
        print(f"path probability {probability:.4g}")
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
