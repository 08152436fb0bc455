"""The table of costs against the networks themselves, and what nas-decode makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cli import decode as command
from decoders import Relaxed, best_candidates, decode, pareto_front
from nas.evaluation.cost import measure
from retrain.budget import LATENCY, cost_table, decode_candidates
from retrain.config import COUNTS, TIMES, CandidateConfig, parse_quantity
from retrain.networks import build
from retrain.networks.settings import NetworkConfig
from retrain.networks.walk import Part
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.graph import random_genotype
from search_spaces.space import SearchSpace, Stem, load
from strategies import all_paths

SPECIAL = ("skip", "li_atrous_3x3", "aggregated_smoothed_atrous_3x3", "fpl")
CASES = {
    "deeplab": (load("autodeeplab-tiny"), NetworkConfig(), (65, 129)),
    "deeplab, odd sizes, four levels": (
        replace(load("autodeeplab-tiny"), levels=4, layers=6),
        NetworkConfig(),
        (37, 51),
    ),
    "deeplab, stem of stride 1": (replace(load("autodeeplab-tiny"), stem=Stem((1,))), NetworkConfig(), (9, 10)),
    "deeplab, stem of stride 8": (
        replace(load("autodeeplab-tiny"), stem=Stem((2, 2, 2)), levels=2),
        NetworkConfig(stem_channels=(4, 8), filter_multiplier=2),
        (33, 33),
    ),
    "deeplab, equal channels": (
        replace(load("autodeeplab-tiny"), blocks=1),
        NetworkConfig(stem_channels=(20, 40), filter_multiplier=20),
        (32, 32),
    ),
    "deeplab, lateral inhibition and smoothing": (
        replace(load("autodeeplab-extended"), layers=5, operations=SPECIAL),
        NetworkConfig(aspp="li", smoothing="aggregated", smoothing_sigma=2.0, li_zone=5, filter_multiplier=4),
        (65, 65),
    ),
    "deeplab, frozen": (load("autodeeplab-tiny"), NetworkConfig(frozen_batch_norm=True), (33, 33)),
    "fplnet": (load("autodeeplab-tiny"), NetworkConfig(kind="fplnet"), (65, 129)),
    "fplnet, odd sizes": (
        replace(load("autodeeplab-extended"), layers=5, operations=SPECIAL),
        NetworkConfig(kind="fplnet", filter_multiplier=3),
        (37, 51),
    ),
    "fplnet, stem of stride 1": (
        replace(load("autodeeplab-tiny"), stem=Stem((1,))),
        NetworkConfig(kind="fplnet"),
        (9, 10),
    ),
    "one level": (replace(load("autodeeplab-tiny"), levels=1), NetworkConfig(), (17, 16)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_costs_are_those_of_the_built_network_to_the_digit(case: str) -> None:
    space, network, size = CASES[case]
    table = cost_table(space, 5, network, size)
    assert table.names == ("multiply_adds", "parameters")
    paths = sorted(all_paths(space.layers, space.levels))
    for seed, levels in enumerate((paths[0], paths[-1], None, None, None)):  # the extremes, too
        genotype = random_genotype(space, seed)
        if levels is not None:
            genotype = replace(genotype, path=tuple(space.strides[level] for level in levels))
        with torch.device("meta"):
            cost = measure(build(genotype, 5, network), size)
        assert table.cost(genotype.cell, genotype.levels) == (cost.multiply_adds, cost.parameters)


def test_the_published_network() -> None:
    space = load("autodeeplab")
    genotype = random_genotype(space, 0)
    with torch.device("meta"):
        cost = measure(build(genotype, 19), (512, 1024))
    table = cost_table(space, 19, NetworkConfig(), (512, 1024))
    assert table.cost(genotype.cell, genotype.levels) == (cost.multiply_adds, cost.parameters)


def test_latency_is_the_sum_of_what_the_parts_take() -> None:
    """Every operation takes 1 microsecond, everything else nothing: there are 2 * blocks of them in each layer."""
    space = load("autodeeplab-tiny")

    def latency(part: Part) -> int:
        return int(isinstance(part.key, tuple) and part.key[0] == "operation" and part.key[1] != "skip")

    table = cost_table(space, 5, NetworkConfig(), (33, 33), latency)
    genotype = random_genotype(space, 1)
    own = sum(operation != "skip" for block in genotype.cell for operation in block.operations)
    assert table.cost(genotype.cell, genotype.levels)[table.names.index(LATENCY)] == space.layers * own


def test_parts_are_timed_on_a_device() -> None:
    space = SearchSpace("s", 1, 2, 1, 1, ("skip",))
    network = NetworkConfig(filter_multiplier=1, stem_channels=(1, 1), aspp_channels=1, decoder_channels=1)
    table = cost_table(space, 2, network, (9, 9), torch.device("cpu"))
    genotype = random_genotype(space, 0)
    assert table.cost(genotype.cell, genotype.levels)[2] > 0


def relaxed_genotype() -> Genotype:
    space = load("autodeeplab-tiny")
    generator = np.random.default_rng(0)
    alpha = generator.dirichlet(np.ones(len(space.operations)), len(space.edges))
    beta = np.zeros((space.layers, space.levels, 3))
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            steps = [target - level + 1 for target in space.transitions(layer, level)]
            beta[layer, level, steps] = generator.dirichlet(np.ones(len(steps)))
    return decode(space, alpha, beta, {"seed": 3})


NARROW = NetworkConfig(filter_multiplier=2, stem_channels=(4, 4), aspp_channels=4, decoder_channels=4)


def test_candidates_of_a_genotype_within_an_injected_latency() -> None:
    genotype = relaxed_genotype()
    assert genotype.alpha is not None and genotype.beta is not None

    def latency(part: Part) -> int:
        return 7 if isinstance(part.key, tuple) and part.key[:2] == ("operation", "atrous_3x3") else 1

    config = CandidateConfig(top=4, max_latency="0.06ms")
    found = decode_candidates(genotype, config, NARROW, 5, (33, 33), latency)
    table = cost_table(genotype.space, 5, NARROW, (33, 33), latency)
    relaxed = Relaxed(genotype.alpha, genotype.beta, genotype.space.operations)
    assert [one.candidate for one in found] == best_candidates(relaxed, 4, table, {LATENCY: 60})
    assert all(one.candidate.costs[LATENCY] <= 60 for one in found)
    how = found[1].genotype.provenance["decoding"]
    assert (how["candidate"], how["top"], how["max_latency"], how["input"]) == (2, 4, "0.06ms", [33, 33])
    assert how["network"]["filter_multiplier"] == 2 and found[1].genotype.provenance["seed"] == 3
    front = decode_candidates(genotype, CandidateConfig(pareto="latency"), NARROW, 5, (33, 33), latency)
    assert [one.candidate for one in front] == pareto_front(relaxed, table, LATENCY)


@pytest.mark.parametrize(
    ("text", "value"),
    [("20G", 20 * 10**9), ("2.5M", 2_500_000), ("3e9", 3 * 10**9), ("12 k", 12_000), ("17", 17), ("1.0000001K", 1000)],
)
def test_quantities(text: str, value: int) -> None:
    assert parse_quantity("limit", text, COUNTS, "20G") == value


@pytest.mark.parametrize(("text", "value"), [("40ms", 40_000), ("1.5s", 1_500_000), ("800us", 800)])
def test_times(text: str, value: int) -> None:
    assert parse_quantity("limit", text, TIMES, "40ms") == value


@pytest.mark.parametrize("text", ["", "G", "-3G", "20GB", "1e400", "nan", "20 m s", "0"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"limit is .*: give a number above 0 with a unit of k, K, M, G, T, such as 20G"
    ):
        parse_quantity("limit", text, COUNTS, "20G")


WIDTHS = ["--network.filter_multiplier=2", "--network.stem_channels=[4,4]", "--network.aspp_channels=4"]
SMALL = [*WIDTHS, "--input=33x33", "--classes=5"]


def test_the_command_lists_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(relaxed_genotype().save(tmp_path / "genotype.json"))
    written = str(tmp_path / "third.json")
    command.main([file, "--top", "4", *SMALL, "--candidate", "3", "-o", written, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["candidates"]) == 4
    third, genotype = facts["candidates"][2], load_genotype(written)
    assert list(genotype.path) == third["path"] == facts["path"]
    with torch.device("meta"):
        network = build(genotype, 5, NetworkConfig(filter_multiplier=2, stem_channels=(4, 4), aspp_channels=4))
    cost = measure(network, (33, 33))
    assert (third["multiply_adds"], third["parameters"]) == (cost.multiply_adds, cost.parameters)
    assert genotype.provenance["decoding"]["parameters"] == third["parameters"]

    limit = facts["candidates"][0]["multiply_adds"] - 1
    command.main([file, f"--max-multiply-adds={limit}", *SMALL])
    text = capsys.readouterr().out
    assert text.startswith(
        "costs of the DeepLab-style network (aspp_channels 4, filter_multiplier 2, stem_channels [4, "
    )
    assert "for 5 classes at input 33x33:\n" in text
    assert text.count("\n1  ") == 1 and "candidate 1:" in text and "multiply-adds" in text
    known = replace(load_genotype(file), provenance={"classes": 7}).save(tmp_path / "known.json")
    command.main([str(known), "--top=1", *WIDTHS, "--input=33x33", "--json"])
    assert json.loads(capsys.readouterr().out)["costs_of"]["classes"] == 7
    command.main([file, "--pareto", "parameters", *SMALL, "--json"])
    costs = [one["parameters"] for one in json.loads(capsys.readouterr().out)["candidates"]]
    assert costs == sorted(costs, reverse=True)

    command.main([written])  # decoded anew: it is no candidate then
    assert "(a candidate)" in capsys.readouterr().out
    command.main([written, "-o", written])
    assert load_genotype(written).to_json() == load_genotype(file).to_json()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--max-multiply-adds=1k", *SMALL],
            r"no network is within 1,000 multiply-adds: the cheapest has [\d,]+ multiply-adds; raise the limit, or "
            "give a smaller --input than 33x33, or a narrower network: --network.filter-multiplier below 2",
        ),
        (
            ["--max-multiply-adds=1k", "--max-parameters=1k", *SMALL],
            "the cheapest has .* and .* parameters, but not in one",
        ),
        (["--max-parameters=1", *SMALL], "raise the limit, or give a narrower network"),
        (
            ["--top=2", "--as_is"],
            r"--as-is and candidates \(.*\) exclude each other: leave one out",
        ),
        (["--top=2", "--pareto=parameters"], "pareto shows the whole front: leave top"),
        (["--candidate=2"], "candidate is 2, but no candidates are listed: give top"),
        (["--top=2", "--candidate=3", *SMALL], "--candidate is 3, but there are 2"),
        (["--input=33x33"], r"--input is for --by supernet or candidates \(--top"),
        (["--classes=3"], r"--classes is for --by supernet or candidates \(--top"),
        (["--device=cpu"], r"--device is for --by supernet or --by perturbation or candidates \(--top"),
        (["--network=fplnet"], r"--network is for --by supernet or candidates \(--top"),
        (["--top=1", "--classes=1"], "--classes is 1: give a whole number from 2"),
        (["--top=1", "--input=33"], "--input is '33': give HEIGHTxWIDTH"),
        (["--top=1", "--device=tpu"], "device is 'tpu': give auto, cpu"),
        (["--top=1", "--network.li_zone=5", *SMALL], "network.li_zone has no effect"),
        (["--top=1", "--network.li_blocks=[13]"], "network.li_blocks has no effect on a genotype's DeepLab-style"),
    ],
)
def test_the_command_refuses(options: list[str], message: str, tmp_path: Path) -> None:
    file = str(relaxed_genotype().save(tmp_path / "genotype.json"))
    with pytest.raises(ValueError, match=message):
        command.main([file, *options])
