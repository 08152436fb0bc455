"""nas-decode: decode a genotype file again, print and draw it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jsonargparse import Namespace

from cli import common, networks
from nas.config import DataChanged
from retrain.config import CandidateConfig
from retrain.networks.building import KINDS
from retrain.networks.settings import DEFAULT_FILTER_MULTIPLIER, NetworkConfig
from search_spaces.files import check_replaceable

if TYPE_CHECKING:
    from nas.choosing import Measured
    from retrain.budget import Decoded
    from search_spaces.genotype import Block, Genotype

LATENCY = "microseconds"

DESCRIPTION = """\
Decodes the alpha and beta of a genotype.json file (greedy cell, Viterbi path; with the edge weights of a search that
had them), prints the cell as a table and the path as a small trellis with its probability, draws both with --draw, and
writes the result with --output; FILE itself is not changed. A file without alpha and beta (hand-written, or a published
one) is only printed and drawn.

With --top, --pareto or a limit, lists other candidates, too: their paths, their probabilities and the costs of their
networks, as nas-describe counts them. One of them (--candidate) is shown in full, drawn, and written."""


class Mode(NamedTuple):
    """A way to decode that is not the paper's."""

    asked_by: str
    """The options that select it."""
    alone: str
    """The reason why it excludes the modes below it."""
    remedy: str
    """The options that one of its own options needs."""
    options: tuple[str, ...] = ()
    """Options that act only in some modes, this one among them."""


MODES = {
    "as_is": Mode("--as-is", "--as-is decodes nothing", ""),
    "supernet": Mode(
        "--by supernet",
        "--by supernet lists networks",
        "--by supernet: leave it out, or give that, too",
        ("evolve", "images", "data_root", "data_changed", "device", "input", "classes", "network"),
    ),
    "perturbation": Mode(
        "--by perturbation",
        "--by perturbation gives one genotype",
        "--by perturbation: leave it out, or give that, too",
        ("images", "data_root", "data_changed", "device"),
    ),
    "candidates": Mode(
        "--top, --pareto and the limits",
        "",
        "candidates: give --top, --pareto or a limit, or leave it out",
        ("device", "input", "classes", "network"),
    ),
}


def make_parser() -> common.Parser:
    parser = common.parser("nas-decode", DESCRIPTION, "FILE")
    parser.add_argument("file", metavar="FILE", type=str, help="A genotype.json file, or a run folder that has one.")
    parser.add_argument(
        "-o", "--output", type=str | None, help="Write the decoded genotype here; FILE itself may be named."
    )
    parser.add_flag("--as_is", "Show the cell and the path in the file, without decoding.")
    parser.add_optional(
        "--draw",
        "Draw the cell into this .svg, .png or .pdf file, and the trellis into the same folder: trellis.svg for "
        "cell.svg, otherwise NAME-trellis.svg.",
    )
    parser.add_argument(
        "--by",
        type=Literal["alpha", "perturbation", "supernet"],
        default="alpha",
        help="Choose operations and inputs by alpha; or by the loss of the supernet's validation mIoU without each of "
        "them (DARTS-PT), which takes a validation for every operation of every edge; or choose among whole networks "
        "by their mIoU with the supernet's weights (--top of them, 50 if not given, or --evolve). FILE must then be in "
        "the run folder of its search, or that folder, with checkpoint and data.",
    )
    parser.add_optional(
        "--evolve",
        "Networks that an evolution (NSGA-II) measures for --by supernet: high mIoU at a low cost (--pareto, "
        "multiply_adds if not given); lists the Pareto front.",
        int,
    )
    parser.add_optional(
        "--images", "Validation images for --by perturbation or supernet; those of the run if not given.", int
    )
    parser.add_optional("--data_root", "Folder of the data set, if it has moved.")
    changed_help = "Reaction if the validation split has other samples than in the search: refuse if not given."
    parser.add_optional("--data_changed", changed_help, DataChanged)
    parser.add_flag("--json", "Print JSON instead of tables.")
    parser.add_overwrite()
    parser.add_settings(CandidateConfig)
    parser.add_optional("--input", "Image size for the candidates' costs, HEIGHTxWIDTH in pixels; default 512x1024.")
    parser.add_optional("--classes", "Number of classes; if not given, that of the search in the file, or 19.", int)
    parser.add_optional(
        "--device",
        "auto, cpu, cuda, cuda:N: measure the candidates' latency there (cpu, where latency is limited); or "
        "compute --by perturbation or supernet there (auto).",
    )
    parser.add_class_arguments(NetworkConfig, "network")
    networks.shorten_kind(parser)
    return parser


def main(arguments: list[str]) -> None:
    parser = make_parser()
    given = common.given(parser, arguments)
    values = common.complete(parser, given)
    config = common.settings(CandidateConfig, values)
    common.check_file_name("output", values.output)
    common.check_file_name("draw", values.draw)
    mode = choose_mode(values, config, given)
    if not values.overwrite:
        own = [] if values.output in (None, values.file) else [Path(values.output)]
        check_replaceable([*own, *_pictures(values.draw)])
    from decoders import path_probability, redecode
    from search_spaces.genotype import genotype_file, load_genotype

    stored = genotype = load_genotype(values.file)
    values.file = str(genotype_file(values.file))
    relaxed = genotype.alpha is not None and genotype.beta is not None
    listed: list[Decoded] = []
    measured: list[Measured] = []
    costs: dict[str, Any] = {}
    if mode == "candidates":
        costs, listed = _candidates(stored, config, values)
        genotype = listed[(config.candidate or 1) - 1].genotype
    elif mode == "supernet":
        costs, measured = _measured(stored, config, values)
        genotype = measured[(config.candidate or 1) - 1].genotype
    elif mode == "perturbation":
        from nas.diagnostics.perturbation import decode_by_perturbation

        folder, device = genotype_file(values.file).parent, values.device or "auto"
        changed: DataChanged = values.data_changed or "refuse"
        genotype = decode_by_perturbation(folder, values.images, device, values.data_root, values.json, changed)
    elif mode is None and relaxed:
        genotype = redecode(genotype)
    probability = path_probability(genotype.beta, genotype.levels) if genotype.beta is not None else None
    written = [*_draw(genotype, values.draw), *([genotype.save(values.output)] if values.output is not None else [])]
    note = ""
    if mode is None and values.output is None and (genotype.cell, genotype.path) != (stored.cell, stored.path):
        why = "a candidate" if "decoding" in stored.provenance else "edited by hand?"
        note = (
            f"{values.file} holds another cell or path than its alpha and beta decode to ({why}) and is not changed: "
            "--as-is shows its own, --output FILE writes the decoded one"
        )
    if values.json:
        cell = plain_cell(genotype.cell)
        facts: dict[str, Any] = {"cell": cell, "path": list(genotype.path), "path_probability": probability}
        if listed:
            facts |= {"costs_of": costs, "candidates": [candidate_facts(one) for one in listed]}
        if measured:
            facts |= {"costs_of": costs, "candidates": [measured_facts(one) for one in measured]}
        common.say(json.dumps(facts))
        common.say(note, end="\n" * bool(note), file=sys.stderr)
        return
    if listed:
        common.say(f"{costs_line(costs)}:\n\n{candidate_table(listed)}\n\ncandidate {config.candidate or 1}:")
    if measured:
        common.say(f"{costs_line(costs)}:\n\n{measured_table(measured)}\n\ncandidate {config.candidate or 1}:")
    common.say(_text(genotype, mode, probability))
    for line in [*([note] if note else []), *(f"wrote {path}" for path in written)]:
        common.say(line)


def choose_mode(values: Namespace, config: CandidateConfig, given: Namespace) -> str | None:
    """Returns the selected mode; None is the paper's decoding.

    Raises:
        ValueError: Two modes are selected, or an option would have no effect.
    """
    asked = {"as_is": values.as_is, **{name: values.by == name for name in ("perturbation", "supernet")}}
    asked["candidates"] = config.asked and not asked["supernet"]
    modes = [name for name in MODES if asked[name]]
    if len(modes) > 1:
        raise ValueError(f"{MODES[modes[0]].alone}: leave it out, or {MODES[modes[1]].asked_by}")
    acting = MODES[modes[0]].options if modes else ()
    for mode in reversed(MODES.values()):
        for option in mode.options:
            if option in given and option not in acting:
                raise ValueError(f"--{option} is for {mode.remedy}")
    for name in ("images", "evolve"):
        if values[name] is not None and values[name] < 1:
            raise ValueError(f"--{name} is {values[name]}: give a whole number from 1")
    if values.by == "supernet":
        front = "--evolve lists the Pareto front"
        if values.evolve and config.top:
            raise ValueError(f"{front}: leave --top out, or give it without --evolve")
        if config.vary or (config.pareto and not values.evolve):
            name = "vary" if config.vary else "pareto"
            raise ValueError(
                f"--{name} does nothing with --by supernet{'' if config.vary else ' without --evolve'}: leave it out"
            )
    if values.classes is not None and values.classes < 2:
        raise ValueError(f"--classes is {values.classes}: give at least 2")
    return modes[0] if modes else None


def _text(genotype: Genotype, mode: str | None, probability: float | None) -> str:
    """Formats cell, path, and the way in which they were chosen."""
    from search_spaces.text import cell_table, path_trellis

    how, lines = [], [cell_table(genotype), "", path_trellis(genotype), ""]
    if mode == "supernet":
        miou, images = (genotype.provenance[name] for name in ("forced_miou", "images"))
        return "\n".join([*lines, f"mIoU {100 * miou:.2f} % with the supernet's weights, on {images} images"])
    if mode == "perturbation":
        how = ["operations and inputs are those without which the supernet loses most; the path is that of beta"]
    elif mode != "as_is" and probability is not None and genotype.edge_weights is not None:
        how = ["inputs of a block are ranked by alpha times edge_weights (a search with partial channels)"]
    if probability is None:
        how += ["no alpha and beta in the file: nothing was decoded, this is the architecture in the file"]
    else:
        how += [f"path probability {probability:.4g}"]
    return "\n".join([*lines, *how])


def _candidates(genotype: Genotype, config: CandidateConfig, values: Namespace) -> tuple[dict[str, Any], list[Decoded]]:
    """Decodes the candidates; returns the image, classes and network of their costs, too."""
    from nas.evaluation.cost import timed_on
    from nas.training.devices import choose_device, set_float32
    from retrain.budget import decode_candidates

    size = common.parse_size("--input", values.input or "512x1024")
    classes = values.classes or networks.known_classes(genotype)
    measured = values.device is not None or config.needs_latency
    device = choose_device(values.device or "cpu") if measured else None
    if device is not None:
        set_float32(device, "float32")
        if not values.json:
            common.say(f"timing the parts of the networks on {timed_on(device)}", flush=True)
    listed = decode_candidates(genotype, config, values.network, classes, size, device)
    _check_candidate(config, len(listed))
    return costs_of(size, classes, values.network), listed


def _measured(genotype: Genotype, config: CandidateConfig, values: Namespace) -> tuple[dict[str, Any], list[Measured]]:
    """Measures networks with the supernet's weights; returns the image, classes and network of their costs, too."""
    from nas.choosing import decode_by_supernet
    from nas.training.devices import choose_device
    from retrain.budget import cost_table

    size, folder = common.parse_size("--input", values.input or "512x1024"), Path(values.file).parent
    classes, device = values.classes or networks.known_classes(genotype), values.device or "auto"
    timed = choose_device(device) if config.needs_latency else None
    table = cost_table(genotype.space, classes, values.network, size, timed)
    cost = LATENCY if config.pareto == "latency" else config.pareto or "multiply_adds"
    how = config.top or 50, values.evolve or 0, table, config.limits(), cost
    changed: DataChanged = values.data_changed or "refuse"
    where = values.images, device, values.data_root, values.json, changed
    found = decode_by_supernet(folder, *how, *where)
    _check_candidate(config, len(found))
    return costs_of(size, classes, values.network), found


def _check_candidate(config: CandidateConfig, number: int) -> None:
    if config.candidate is not None and config.candidate > number:
        raise ValueError(f"--candidate is {config.candidate}, but there are {number}: give one of these")


def _draw(genotype: Genotype, file: str | None) -> list[Path]:
    if file is None:
        return []
    from search_spaces.drawing import draw_cell, draw_trellis, save_figure

    cell, trellis = _pictures(file)
    return [save_figure(draw_cell(genotype), cell), save_figure(draw_trellis(genotype), trellis)]


def _pictures(file: str | None) -> list[Path]:
    """Files of the cell and of the trellis for --draw."""
    if file is None:
        return []
    cell = Path(file)
    stem = "trellis" if cell.stem == "cell" else f"{cell.stem}-trellis"
    return [cell, cell.with_name(stem + cell.suffix)]


def plain_cell(cell: Sequence[Block]) -> list[dict[str, Any]]:
    """Returns a cell as in a genotype file."""
    return [{"inputs": list(block.inputs), "operations": list(block.operations)} for block in cell]


def candidate_facts(one: Decoded) -> dict[str, Any]:
    """Returns a candidate in plain containers, with the latency in milliseconds and its device."""
    candidate, costs = one.candidate, dict(one.candidate.costs)
    latency: dict[str, Any] = {}
    if LATENCY in costs:
        latency = {
            "latency_ms": costs.pop(LATENCY) / 1000,
            "timed_on": one.genotype.provenance["decoding"].get("timed_on"),
        }
    return {
        "path": list(one.genotype.path),
        "cell": plain_cell(candidate.cell),
        "path_probability": candidate.path_probability,
        "cell_probability": candidate.cell_probability,
        "log_probability": candidate.log_probability,
        **costs,
        **latency,
    }


def costs_of(size: tuple[int, int], classes: int, network: NetworkConfig) -> dict[str, Any]:
    """Returns the image, classes and network of the costs in plain containers: kind, F and changed settings."""
    settings = {"filter_multiplier": DEFAULT_FILTER_MULTIPLIER, **network.changed(), "kind": network.kind}
    return {"input": list(size), "classes": classes, "network": settings}


def costs_line(costs: dict[str, Any]) -> str:
    """Formats `costs_of` as a line."""
    network = dict(costs["network"])
    style = KINDS[network.pop("kind")].style
    height, width = costs["input"]
    settings = ", ".join(f"{name} {value}" for name, value in sorted(network.items()))
    return f"costs of the {style} network ({settings}) for {costs['classes']} classes at input {height}x{width}"


def candidate_table(listed: Sequence[Decoded]) -> str:
    """Formats the candidates, one a line, with the blocks that differ from those of the first candidate."""
    costs = listed[0].candidate.costs
    first = listed[0].candidate.cell
    cells = any(one.candidate.cell != first for one in listed)
    heads = ["", "path", "p(path)", "p(cell)", "ln p", "multiply-adds", "parameters"]
    heads += ["latency, ms"] * (LATENCY in costs) + ["cell"] * cells
    rows = [heads]
    for number, one in enumerate(listed, start=1):
        candidate = one.candidate
        row = [str(number), "-".join(map(str, one.genotype.path))]
        row += [f"{candidate.path_probability:.3g}", f"{candidate.cell_probability:.3g}"]
        row += [f"{candidate.log_probability:.3f}"]
        row += [f"{candidate.costs[name]:,}" for name in ("multiply_adds", "parameters")]
        if LATENCY in costs:
            row.append(f"{candidate.costs[LATENCY] / 1000:.3f}")
        row += [_difference(first, candidate.cell)] * cells
        rows.append(row)
    return _aligned(rows, {1, len(heads) - 1} if cells else {1})


def measured_facts(one: Measured) -> dict[str, Any]:
    """Returns a measured network in plain containers."""
    genotype = one.genotype
    return {"path": list(genotype.path), "cell": plain_cell(genotype.cell), "forced_miou": one.miou, **one.costs}


def measured_table(measured: Sequence[Measured]) -> str:
    """Formats measured networks, one a line, with the blocks that differ from those of the first."""
    first, names = measured[0].genotype.cell, list(measured[0].costs)
    rows = [["", "path", "mIoU %", *(name.replace("_", "-") for name in names), "cell"]]
    for number, one in enumerate(measured, start=1):
        costs = [f"{one.costs[name]:,}" for name in names]
        path = "-".join(map(str, one.genotype.path))
        rows.append([str(number), path, f"{100 * one.miou:.2f}", *costs, _difference(first, one.genotype.cell)])
    return _aligned(rows, {1, len(rows[0]) - 1})


def _aligned(rows: Sequence[Sequence[str]], left: set[int]) -> str:
    """Aligns the columns of a table, these on the left, the others on the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _difference(first: Sequence[Block], cell: Sequence[Block]) -> str:
    changes = [
        f"block{number}: "
        + " + ".join(f"{name} {operation}" for name, operation in zip(own.inputs, own.operations, strict=True))
        for number, (block, own) in enumerate(zip(first, cell, strict=True), start=1)
        if block != own
    ]
    return "; ".join(changes) or "as candidate 1"


entry = common.command("nas-decode", main)

if __name__ == "__main__":
    entry()
