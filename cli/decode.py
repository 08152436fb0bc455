"""nas-decode: decode a genotype file anew, print and draw it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cli import candidates, common

if TYPE_CHECKING:
    from retrain.budget import Decoded
    from retrain.config import CandidateConfig
    from search_spaces.genotype import Genotype

DESCRIPTION = """\
Decodes the alpha and beta of a genotype.json file (greedy cell, Viterbi path; where the search weighed the edges, these
weights count, too), prints the cell as a table and the path as a small trellis with its probability, draws both with
--draw, and writes the result with --output; FILE itself is left alone. A file without alpha and beta (hand-written, or
a published one) is only printed and drawn.

With --top, --pareto or a limit, other candidates are listed, too: their paths, probabilities and what the networks
cost, as nas-describe counts it. One of them (--candidate) is shown in full, drawn, and written."""


def make_parser() -> common.Parser:
    """The parser of nas-decode."""
    from cli import networks
    from retrain.config import CandidateConfig
    from retrain.networks.settings import NetworkConfig

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
    parser.add_argument(
        "--by",
        type=Literal["alpha", "perturbation"],
        default="alpha",
        help="Choose operations and inputs by alpha; or by what the supernet's validation loses without each of them "
        "(DARTS-PT), which takes a validation for every operation of every edge: FILE is then a search's own, in its "
        "run folder, with checkpoint and data at hand.",
    )
    parser.add_argument(
        "--images", type=int | None, default=None, help="Validation images for --by perturbation; else the run's."
    )
    parser.add_argument("--data_root", type=str | None, default=None, help="Folder of the data set, if it has moved.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")
    parser.add_class_arguments(CandidateConfig, None)
    parser.add_argument(
        "--input",
        type=str | None,
        default=None,
        help="Image size of the candidates' costs, HEIGHTxWIDTH in pixels; 512x1024 if not given.",
    )
    parser.add_argument(
        "--classes",
        type=int | None,
        default=None,
        help="Number of classes of the candidates; if not given, that of the search's data set where the file has it, "
        "else 19.",
    )
    parser.add_argument(
        "--device",
        type=str | None,
        default=None,
        help="auto, cpu, cuda, cuda:N: measure the candidates' latency there (cpu, where latency is limited); or "
        "compute --by perturbation there (auto).",
    )
    parser.add_class_arguments(NetworkConfig, "network")
    networks.explain_option(parser)
    return parser


def main(arguments: list[str]) -> None:
    """Parses, decodes, prints, writes."""
    from cli import networks
    from cli.describe import parse_size
    from retrain.config import CandidateConfig

    values = common.parse(make_parser(), networks.with_kind(arguments))
    config = CandidateConfig(**{f.name: getattr(values, f.name) for f in dataclasses.fields(CandidateConfig)})
    for option in ("output", "draw"):
        name = getattr(values, option)
        if name is not None and (not Path(name).name or Path(name).is_dir()):
            raise ValueError(f"--{option} is {name!r}, a folder: name a file in it")
    _check(values, config)
    from decoders import path_probability, redecode
    from search_spaces.genotype import load_genotype
    from search_spaces.text import cell_table, path_trellis

    stored = genotype = load_genotype(values.file)
    relaxed = genotype.alpha is not None and genotype.beta is not None
    listed: list[Decoded] = []
    costs: dict[str, Any] = {}
    if config.asked:
        size, classes = parse_size(values.input or "512x1024"), values.classes or networks.known_classes(genotype)
        costs = candidates.costs_of(size, classes, values.network)
        listed = _candidates(genotype, config, values, size, classes)
        genotype = listed[(config.candidate or 1) - 1].genotype
    elif values.by == "perturbation":
        from nas.diagnostics.perturbation import decode_by_perturbation

        folder, device = Path(values.file).parent, values.device or "auto"
        genotype = decode_by_perturbation(folder, values.images, device, values.data_root, quiet=values.json)
    elif relaxed and not values.as_is:
        genotype = redecode(genotype)
    decoded_otherwise = bool(listed) or values.by == "perturbation"
    edited = not decoded_otherwise and (genotype.cell, genotype.path) != (stored.cell, stored.path)
    probability = path_probability(genotype.beta, genotype.levels) if genotype.beta is not None else None
    pictures = _draw(genotype, Path(values.draw)) if values.draw is not None else []
    written = genotype.save(values.output) if values.output is not None else None
    why = "a candidate" if "decoding" in stored.provenance else "edited by hand?"
    note = (
        f"{values.file} holds another cell or path than its alpha and beta decode to ({why}) and is left "
        "as it is: --as-is shows its own, --output FILE writes the decoded one"
    )
    if values.json:
        cell = candidates.plain_cell(genotype.cell)
        facts: dict[str, Any] = {"cell": cell, "path": list(genotype.path), "path_probability": probability}
        if listed:
            facts |= {"costs_of": costs, "candidates": [candidates.facts(one) for one in listed]}
        print(json.dumps(facts))
        if edited and written is None:
            print(note, file=sys.stderr)
        return
    if listed:
        print(f"{candidates.costs_line(costs)}:\n")
        print(candidates.table(listed))
        print(f"\ncandidate {config.candidate or 1}:")
    print(cell_table(genotype))
    print()
    print(path_trellis(genotype))
    print()
    if values.by == "perturbation":
        print("operations and inputs are those without which the supernet loses most; the path is beta's")
    elif relaxed and genotype.edge_weights is not None and not values.as_is:
        print("inputs of a block are ranked by alpha times edge_weights (a search with partial channels)")
    if probability is None:
        print("no alpha and beta in the file: nothing was decoded, this is the architecture as it stands there")
    else:
        print(f"path probability {probability:.4g}")
    if edited and written is None:
        print(note)
    for path in [*pictures, *([written] if written is not None else [])]:
        print(f"wrote {path}")


def _check(values: Any, config: CandidateConfig) -> None:
    """Refuses options that would have no effect."""
    from retrain.networks.settings import NetworkConfig

    perturbs = values.by == "perturbation"
    if values.as_is and config.asked:
        raise ValueError("--as-is decodes nothing: leave it out, or --top, --pareto and the limits")
    if perturbs and values.as_is:
        raise ValueError("--as-is decodes nothing: leave it out, or --by perturbation")
    if perturbs and config.asked:
        raise ValueError("--by perturbation gives one genotype: leave it out, or --top, --pareto and the limits")
    if values.images is not None and values.images < 1:
        raise ValueError(f"--images is {values.images}: give a whole number from 1")
    for option in () if perturbs else ("images", "data_root"):
        if getattr(values, option) is not None:
            raise ValueError(f"--{option} is for --by perturbation: leave it out, or give that, too")
    if not config.asked:
        for option in ("input", "classes", *(() if perturbs else ("device",))):
            if getattr(values, option) is not None:
                raise ValueError(f"--{option} is for candidates: give --top, --pareto or a limit, or leave it out")
        if values.network != NetworkConfig():
            raise ValueError("--network is for candidates: give --top, --pareto or a limit, or leave it out")
    if values.classes is not None and values.classes < 2:
        raise ValueError(f"--classes is {values.classes}: give at least 2")


def _candidates(
    genotype: Genotype, config: CandidateConfig, values: Any, size: tuple[int, int], classes: int
) -> list[Decoded]:
    from nas.evaluation.cost import timed_on
    from nas.training.devices import choose_device, set_float32
    from retrain.budget import decode_candidates

    measured = values.device is not None or config.needs_latency
    device = choose_device(values.device or "cpu") if measured else None
    if device is not None:
        set_float32(device, "float32")
        if not values.json:
            print(f"timing the parts of the networks on {timed_on(device)}", flush=True)
    listed = decode_candidates(genotype, config, values.network, classes, size, device)
    if config.candidate is not None and config.candidate > len(listed):
        raise ValueError(f"--candidate is {config.candidate}, but there are {len(listed)}: give one of these")
    return listed


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
