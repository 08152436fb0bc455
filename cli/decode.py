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
from search_spaces.validation import require, whole

if TYPE_CHECKING:
    from search_spaces.genotype import Genotype

DESCRIPTION = """\
Decodes the alpha and beta of a genotype.json file (greedy cell, Viterbi path; with the edge weights of a search that
had them), prints the cell as a table and the path as a small trellis with its probability, draws both with --draw, and
writes the result with --output; FILE itself is not changed. A file without alpha and beta (hand-written, or a published
one) is only printed and drawn.

With --top, --pareto or a limit, lists other candidates, too: their paths, their probabilities and the costs of their
networks, as nas-describe counts them. One of them (--candidate) is shown in full, drawn, and written."""


MODES = {
    "as_is": "--as-is",
    "supernet": "--by supernet",
    "perturbation": "--by perturbation",
    "candidates": "candidates (--top, --pareto or a limit)",
}
"""Ways to decode that are not the paper's, and what asks for them."""
LISTING, MEASURING = ("supernet", "candidates"), ("supernet", "perturbation")
ACTS_IN = {
    "evolve": ("supernet",),
    **dict.fromkeys(("images", "data_root", "data_changed"), MEASURING),
    **dict.fromkeys(("input", "classes", "network"), LISTING),
    "device": (*MEASURING, "candidates"),
}
"""Options that act only in these modes."""
COLUMNS = {
    "path_probability": ("p(path)", 1, ".3g"),
    "cell_probability": ("p(cell)", 1, ".3g"),
    "log_probability": ("ln p", 1, ".3f"),
    "forced_miou": ("mIoU %", 100, ".2f"),
    "multiply_adds": ("multiply-adds", 1, ","),
    "parameters": ("parameters", 1, ","),
    "latency_ms": ("latency, ms", 1, ".3f"),
}
"""Head, factor and format of the numbers in a list of networks."""


class Listed(NamedTuple):
    """A network of a list."""

    genotype: Genotype
    numbers: dict[str, Any]
    """Those of `COLUMNS` that are known, and others for --json."""


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
    from search_spaces.text import aligned

    stored = genotype = load_genotype(values.file)
    values.file = str(genotype_file(values.file))
    listed: list[Listed] = []
    costs: dict[str, Any] = {}
    if mode in LISTING:
        costs, listed = list_networks(stored, config, values, mode)
        number = config.candidate or 1
        require(number <= len(listed), f"--candidate is {number}, but there are {len(listed)}: give one of these")
        genotype = listed[number - 1].genotype
    elif mode == "perturbation":
        from nas.diagnostics.perturbation import decode_by_perturbation

        where: Any = values.device or "auto", values.data_root, values.json, values.data_changed or "refuse"
        genotype = decode_by_perturbation(Path(values.file).parent, values.images, *where)
    elif mode is None and genotype.alpha is not None and genotype.beta is not None:
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
        facts = {**architecture(genotype), "path_probability": probability}
        if listed:
            networks_of = [{**architecture(one.genotype), **one.numbers} for one in listed]
            facts |= {"costs_of": costs, "candidates": networks_of}
        common.say(json.dumps(facts))
        common.say(note, end="\n" * bool(note), file=sys.stderr)
        return
    if listed:
        found = rows(listed)
        table = "\n".join(aligned(found, left=(1, len(found[0]) - 1)))
        common.say(f"{costs_line(costs)}:\n\n{table}\n\ncandidate {config.candidate or 1}:")
    common.say(_text(genotype, mode, probability))
    for line in [*([note] if note else []), *(f"wrote {path}" for path in written)]:
        common.say(line)


def choose_mode(values: Namespace, config: CandidateConfig, given: Namespace) -> str | None:
    """Returns the selected mode; None is the paper's decoding.

    Raises:
        ValueError: Two modes are selected, or an option would have no effect.
    """
    asked = {values.by, *(["as_is"] if values.as_is else []), *(["candidates"] if config.asked else [])}
    if values.by == "supernet":  # lists networks, within the limits
        asked.discard("candidates")
    modes = [name for name in MODES if name in asked]
    require(len(modes) < 2, f"{' and '.join(map(MODES.__getitem__, modes[:2]))} exclude each other: leave one out")
    mode = modes[0] if modes else None
    for option, where in ACTS_IN.items():
        ways = " or ".join(MODES[name] for name in where)
        require(option not in given or mode in where, f"--{option} is for {ways}: leave it out, or give that, too")
    for name in ("images", "evolve"):
        if values[name] is not None:
            whole(f"--{name}", values[name], 1)
    if mode == "supernet":
        front = "--evolve lists the Pareto front"
        require(not (values.evolve and config.top), f"{front}: leave --top out, or give it without --evolve")
        require(config.vary is None, "--vary does nothing with --by supernet: leave it out")
        alone = "--pareto does nothing with --by supernet without --evolve: leave it out"
        require(config.pareto is None or values.evolve, alone)
    if values.classes is not None:
        whole("--classes", values.classes, 2)
    return mode


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


def list_networks(
    genotype: Genotype, config: CandidateConfig, values: Namespace, mode: str
) -> tuple[dict[str, Any], list[Listed]]:
    """Lists the networks of a mode; returns the image, classes and network (kind, F, changes) of their costs, too."""
    from nas.choosing import decode_by_supernet
    from nas.evaluation.cost import timed_on
    from nas.training.devices import choose_device, set_float32
    from retrain.budget import LATENCY, cost_table, decode_candidates

    size = common.parse_size("--input", values.input or "512x1024")
    classes = values.classes or networks.known_classes(genotype)
    device = values.device or ("auto" if mode == "supernet" else "cpu")
    timed = None
    if config.needs_latency or (mode == "candidates" and values.device is not None):
        timed = choose_device(device)
        set_float32(timed, "float32")
        if not values.json:
            common.say(f"timing the parts of the networks on {timed_on(timed)}", flush=True)
    listed = []
    if mode == "candidates":
        for decoded in decode_candidates(genotype, config, values.network, classes, size, timed):
            chances = {name: getattr(decoded.candidate, name) for name in COLUMNS if name.endswith("probability")}
            listed.append(Listed(decoded.genotype, chances | dict(decoded.candidate.costs)))
    else:
        table = cost_table(genotype.space, classes, values.network, size, timed)
        cost = LATENCY if config.pareto == "latency" else config.pareto or "multiply_adds"
        how = config.top or 50, values.evolve or 0, table, config.limits(), cost
        where: Any = values.images, device, values.data_root, values.json, values.data_changed or "refuse"
        for measured in decode_by_supernet(Path(values.file).parent, *how, *where):
            listed.append(Listed(measured.genotype, {"forced_miou": measured.miou, **measured.costs}))
    for one in listed:
        if timed is not None:
            one.numbers.update(latency_ms=one.numbers.pop(LATENCY) / 1000, timed_on=timed_on(timed))
    network = {"filter_multiplier": DEFAULT_FILTER_MULTIPLIER, **values.network.changed(), "kind": values.network.kind}
    return {"input": list(size), "classes": classes, "network": network}, listed


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


def architecture(genotype: Genotype) -> dict[str, Any]:
    """Returns path and cell in plain containers."""
    return {"path": list(genotype.path), "cell": genotype.plain_cell}


def costs_line(costs: dict[str, Any]) -> str:
    """Formats the image, classes and network of the costs as a line."""
    network = dict(costs["network"])
    style = KINDS[network.pop("kind")].style
    height, width = costs["input"]
    settings = ", ".join(f"{name} {value}" for name, value in sorted(network.items()))
    return f"costs of the {style} network ({settings}) for {costs['classes']} classes at input {height}x{width}"


def rows(listed: Sequence[Listed]) -> list[list[str]]:
    """Heads, then a row for each network; the last column has the blocks that differ from those of the first one."""
    columns = [(name, *COLUMNS[name]) for name in COLUMNS if name in listed[0].numbers]
    found = [["", "path", *(head for _, head, _, _ in columns), "cell"]]
    for number, (genotype, numbers) in enumerate(listed, start=1):
        changes = [
            f"block{place}: "
            + " + ".join(f"{name} {operation}" for name, operation in zip(own.inputs, own.operations, strict=True))
            for place, (block, own) in enumerate(zip(listed[0].genotype.cell, genotype.cell, strict=True), start=1)
            if block != own
        ]
        texts = [f"{factor * numbers[name]:{form}}" for name, _, factor, form in columns]
        path, cell = "-".join(map(str, genotype.path)), "; ".join(changes) or "as candidate 1"
        found.append([str(number), path, *texts, cell])
    return found


entry = common.command("nas-decode", main)

if __name__ == "__main__":
    entry()
