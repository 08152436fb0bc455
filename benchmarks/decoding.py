"""Decoding time: greedy cell, Viterbi path, and the checks of the genotype that they make."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.config import DecodingBench
from benchmarks.documents import made, number, origin, processor, table
from decoders import decode, greedy_cell, viterbi
from search_spaces.space import SearchSpace, load

__all__ = ["CASES", "Case", "make_table", "measure", "probabilities"]


class Case(NamedTuple):
    """A size of space, and the time that decoding may take."""

    layers: int
    levels: int
    limit: float
    """Seconds."""


CASES = (Case(12, 4, 0.005), Case(200, 8, 0.1))
"""The paper's space, and one far larger. Both have the cells of `autodeeplab`: 5 blocks, 8 operations."""


def probabilities(space: SearchSpace, alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns alpha [edges, operations] and beta [layers, levels, 3] for a space.

    Args:
        space: The space.
        alike: Whether all are equal, as before the first step, so that every choice is a tie; else they are random.
    """
    generator = np.random.default_rng(0)

    def row(size: int) -> np.ndarray:
        return np.full(size, 1 / size) if alike else generator.dirichlet(np.ones(size))

    alpha = np.stack([row(len(space.operations)) for _ in space.edges])
    beta = np.zeros((space.layers, space.levels, 3))
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            steps = [target - level + 1 for target in space.transitions(layer, level)]
            beta[layer, level, steps] = row(len(steps))
    return alpha, beta


def measure(config: DecodingBench) -> dict[str, Any]:
    """Measures every case.

    Returns:
        `rows`: layers, levels, blocks, operations, the kind of `probabilities`, median seconds of `decode` and of its
        parts `cell` and `path`, the `slowest` decoding, and the `limit`. And `command`, `machine`, `numpy`, `repeats`.
    """
    rows = []
    for case in CASES:
        space = dataclasses.replace(load("autodeeplab"), layers=case.layers, levels=case.levels)
        for alike in (True, False):
            alpha, beta = probabilities(space, alike)
            times = _times(partial(decode, space, alpha, beta), config.repeats)
            sizes = {name: getattr(space, name) for name in ("layers", "levels", "blocks")}
            parts: dict[str, Callable[[], object]] = {
                "cell": partial(greedy_cell, alpha, space.operations),
                "path": partial(viterbi, beta),
            }
            rows.append(
                {
                    **sizes,
                    "operations": len(space.operations),
                    "probabilities": "all alike" if alike else "random",
                    "decode": statistics.median(times),
                    "slowest": max(times),
                    **{name: statistics.median(_times(part, config.repeats)) for name, part in parts.items()},
                    "limit": case.limit,
                }
            )
    return {**origin("decoding", config, processor()), "numpy": np.__version__, "rows": rows}


def _times(work: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times[1:]


def make_table(data: Mapping[str, Any]) -> str:
    """Formats the measurements as a table in Markdown."""
    heads = ["layers", "levels", "blocks", "operations", "alpha and beta", "decode, ms", "slowest, ms"]
    heads += ["its cell, ms", "its path, ms", "to be under, ms"]
    cells = [
        [str(row[name]) for name in ("layers", "levels", "blocks", "operations", "probabilities")]
        + [number(1e3 * row[name], ".3g") for name in ("decode", "slowest", "cell", "path", "limit")]
        for row in data["rows"]
    ]
    note = f"On {data['machine']}, NumPy {data['numpy']}, medians of {data['repeats']}."
    return "\n".join([*made(note, data), "", *table(heads, cells, 0)])
