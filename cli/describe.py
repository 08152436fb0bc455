"""nas-describe: sizes of a search space, costs of a network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cli import common, networks
from nas.config import require
from nas.runs.names import is_run_of
from retrain.config import RetrainConfig
from retrain.networks.settings import NetworkConfig
from search_spaces.genotype import genotype_file

DESCRIPTION = """\
Describes a search space (--space): numbers of paths, cells and supernet parameters. Or a network (a genotype.json
file or a published name): parameters, convolution multiply-adds at --input, channels, stride and size of each cell's
output. Or lists the published networks (--networks)."""


def make_parser() -> common.Parser:
    parser = common.parser("nas-describe", DESCRIPTION, "[NETWORK]")
    parser.add_optional(
        "source",
        "A genotype.json file, a published network's name, or a run folder.",
        metavar="NETWORK",
        nargs="?",
    )
    parser.add_optional("--space", "A shipped search space or a YAML file.")
    parser.add_flag("--networks", "List the published networks, with the numbers their papers print.")
    parser.add_flag("--yaml", "With --space: print the space as YAML, to start your own.")
    parser.add_optional("--classes", "Number of classes; if not given, that of the search in the file, or 19.", int)
    parser.add_optional("--input", "Input size, HEIGHTxWIDTH in pixels; 512x1024 if not given.")
    parser.add_flag("--json", "Print JSON.")
    parser.add_class_arguments(NetworkConfig, "network")
    networks.shorten_kind(parser)
    return parser


def describe_space(name: str, classes: int) -> dict[str, Any]:
    """Counts paths, cells and supernet parameters of a space."""
    import torch

    from nas.supernet.network import Supernet
    from search_spaces.graph import count
    from search_spaces.space import load

    space = load(name)
    with torch.device("meta"):  # a supernet of any size takes no memory
        supernet = Supernet(space, classes)
    return {
        "name": space.name,
        "layers": space.layers,
        "strides": list(space.strides),
        "blocks": space.blocks,
        "filter_multiplier": space.filter_multiplier,
        **dataclasses.asdict(count(space)),
        "operation_names": list(space.operations),
        "supernet_parameters": sum(p.numel() for p in supernet.weights()),
        "architecture_parameters": sum(p.numel() for p in supernet.architecture.parameters()),
        "classes": classes,
    }


def describe_network(name: str, classes: int, size: tuple[int, int], settings: Any) -> dict[str, Any]:
    """Counts parameters and multiply-adds of a network, and lists its features."""
    import torch

    from nas.evaluation.cost import describe
    from retrain.networks import build

    facts: dict[str, Any] = {}
    if _is_trained(name):
        from nas.runs.checkpoint import CheckpointError
        from retrain.load import load_trained

        try:
            trained = load_trained(name, "last")
        except CheckpointError as error:
            inside = genotype_file(name)
            raise ValueError(f"{error}; or name the genotype in it, {inside}" if inside.is_file() else error) from None
        network, classes = trained.network, len(trained.classes)
    elif settings.backbone_weights is not None:
        from retrain.pretrained import load_backbone_weights

        network = build(name, classes, settings)
        facts["backbone_weights"] = load_backbone_weights(network, settings.backbone_weights)
    else:
        with torch.device("meta"):
            network = build(name, classes, settings)
    return {"name": name, "classes": classes, "input": list(size), **facts, **describe(network, size)}


def main(arguments: list[str]) -> None:
    parser = make_parser()
    given = common.given(parser, arguments)
    values = common.complete(parser, given)
    if values.networks:
        require(
            set(given.keys()) <= {"networks", "json"},
            "--networks lists all published networks: give nothing else except --json",
        )
        common.say(json.dumps(networks.facts()) if values.json else networks.listed(counts=True))
        return
    require(
        (values.space is None) != (values.source is None),
        "name either a network (a genotype.json file or a published name) or --space NAME",
    )
    require(not values.yaml or values.space is not None, "--yaml prints a space: give --space NAME")
    require(not (values.yaml and values.json), "--yaml and --json exclude each other: give one of them")
    require(
        values.space is None or not ("input" in given or "network" in given),
        "--input and --network.* are for a network, not for a space: leave them out",
    )
    networks.check_kind(values.source or "", given)
    is_run = values.source is not None and _is_trained(values.source)
    require(
        not is_run or not ("classes" in given or "network" in given),
        "a run has its own --classes and --network.*: leave them out",
    )
    classes = values.classes
    if classes is None:
        classes = networks.known_classes(values.source or "")
    require(classes >= 2, f"--classes is {classes}: give at least 2")
    if values.yaml:
        from search_spaces.space import load

        common.say(load(values.space).to_yaml(), end="")
        return
    if values.space is not None:
        facts = describe_space(values.space, classes)
    else:
        size = common.parse_size("--input", values.input or "512x1024")
        facts = describe_network(values.source, classes, size, values.network)
    common.say(json.dumps(facts) if values.json else _text(facts))


def _is_trained(source: str) -> bool:
    """Whether a network is one that nas-retrain trained; that of another folder is the genotype in it."""
    folder, has_genotype = Path(source), genotype_file(source).is_file()
    return folder.is_dir() and (is_run_of(folder, RetrainConfig.command) or not has_genotype)


def _text(facts: dict[str, Any]) -> str:
    labels = {
        "paths": "paths (first layer at either of the two finest strides)",
        "paths_first_fixed": "paths (first layer at the finest stride: counted as in the paper)",
        "cells": "cells (counted as in the paper)",
        "cells_decodable": "cells (possible results of decoding)",
        "parameters": "parameters (trainable)",
        "multiply_adds": "multiply-adds (convolutions)",
    }
    lines = []
    for name, value in facts.items():
        label = labels.get(name, name.replace("_", " "))
        if name == "features":
            form = "  {name}: {channels} channels at stride {stride}, {size[0]}x{size[1]}"
            lines += [form.format(**feature) for feature in value]
        elif name == "parts":
            form = "  {name}: {parameters:,} parameters, {multiply_adds:,} multiply-adds"
            lines += [form.format(**part) for part in value]
        elif name == "input":
            lines.append(f"input: {value[0]}x{value[1]}")
        elif isinstance(value, list):
            lines.append(f"{label}: {', '.join(map(str, value))}")
        else:
            lines.append(f"{label}: {value:,}" if isinstance(value, int) else f"{label}: {value}")
    return "\n".join(lines)


entry = common.command("nas-describe", main)

if __name__ == "__main__":
    entry()
