"""The candidates that a genotype's alpha and beta give: decoded, with what their networks cost."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch

from decoders import Candidate, Relaxed, best_candidates, pareto_front, redecode
from decoders.candidates import LimitError
from retrain.candidate_config import CandidateConfig
from retrain.costs import LATENCY, Measure, cost_table
from retrain.network_config import NetworkConfig
from retrain.networks.building import build
from retrain.networks.deeplab import DEFAULT_FILTER_MULTIPLIER
from search_spaces.genotype import Genotype

__all__ = ["Decoded", "decode_candidates"]


class Decoded(NamedTuple):
    """A candidate, and the genotype of it."""

    candidate: Candidate
    genotype: Genotype
    """Its provenance has, as `decoding`, how it was found and what it costs."""


def decode_candidates(
    genotype: Genotype,
    config: CandidateConfig,
    network: NetworkConfig,
    classes: int,
    size: tuple[int, int],
    latency: torch.device | Measure | None = None,
) -> list[Decoded]:
    """Decodes alpha and beta into the candidates that are asked for.

    Args:
        genotype: With alpha and beta; its cell and path are not read.
        config: Which candidates.
        network: What they become.
        classes: Number of classes.
        size: H, W of the image in pixels.
        latency: As of `cost_table`.

    Raises:
        ValueError: There is no alpha or beta, a setting of the network has no effect, nothing is within the limits
            (the message has the cheapest), or it would take too long.
    """
    greedy = redecode(genotype)
    with torch.device("meta"):
        build(greedy, classes, network)  # refuses settings that nothing reads
    assert greedy.alpha is not None and greedy.beta is not None  # or it could not be decoded
    relaxed = Relaxed(greedy.alpha, greedy.beta, greedy.space.operations, greedy.edge_weights)
    table = cost_table(greedy.space, classes, network, size, latency)
    vary = config.vary or "both"
    if config.pareto is not None:
        cost = LATENCY if config.pareto == "latency" else config.pareto
        candidates = pareto_front(relaxed, table, cost, vary)
    else:
        try:
            candidates = best_candidates(relaxed, config.top or 1, table, config.limits(), vary)
        except LimitError as error:
            smaller = f"a smaller --input than {size[0]}x{size[1]}, or "
            multiplier = network.filter_multiplier or DEFAULT_FILTER_MULTIPLIER
            raise ValueError(
                f"{error}, or give {'' if set(config.limits()) == {'parameters'} else smaller}a narrower network: "
                f"--network.filter-multiplier below {multiplier}, or other widths of stem and head (--network.*)"
            ) from None
    asked = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    asked.pop("candidate", None)
    defaults = NetworkConfig()
    changed = {
        f.name: value
        for f in dataclasses.fields(network)
        if (value := getattr(network, f.name)) != getattr(defaults, f.name)
    }
    decoded = []
    for number, candidate in enumerate(candidates, start=1):
        how: dict[str, Any] = {
            **asked,
            "candidate": number,
            "input": list(size),
            "classes": classes,
            "network": changed,
            "log_probability": candidate.log_probability,
            **candidate.costs,
        }
        found = dataclasses.replace(
            greedy,
            cell=candidate.cell,
            path=tuple(greedy.space.strides[level] for level in candidate.levels),
            provenance={**greedy.provenance, "decoding": how},
        )
        decoded.append(Decoded(candidate, found))
    return decoded
