"""A space as networkx graphs, its counts, and random genotypes, which a search has to beat.

networkx describes and checks the space; it is never in a forward pass.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import networkx as nx
import numpy as np

from search_spaces.genotype import Block, Genotype, state_names
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace

__all__ = ["Counts", "all_genotypes", "cell_graph", "count", "count_paths", "random_genotype", "trellis_graph"]

MOST_GENOTYPES = 10_000
"""Most genotypes that are listed."""


def trellis_graph(space: SearchSpace) -> nx.DiGraph:
    """The trellis: nodes (layer, level), with `stride` and `channels`; (0, 0) is the stem's output."""
    graph = nx.DiGraph(name=space.name)
    graph.add_node((0, 0), stride=space.strides[0], channels=space.stem_channels[-1])
    for layer in range(1, space.layers + 1):
        for level in space.node_levels(layer):
            graph.add_node((layer, level), stride=space.strides[level], channels=space.node_channels(level))
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            graph.add_edges_from(((layer, level), (layer + 1, target)) for target in space.transitions(layer, level))
    return graph


def cell_graph(space: SearchSpace) -> nx.DiGraph:
    """The relaxed cell: states 0..B+1 (0 is H^{l-2}, 1 is H^{l-1}), an edge for each mixed operation."""
    graph = nx.DiGraph(name=space.name)
    graph.add_nodes_from(range(space.blocks + 2))
    graph.add_edges_from((state, block + 2) for state, block in space.edges)
    return graph


def count_paths(space: SearchSpace, first_fixed: bool = False) -> int:
    """Number of paths through the trellis, exactly.

    Args:
        first_fixed: Count the paths whose first node is at the finest level only. The paper's 2.9e4 is 28,657, counted
            like this; its text, which lets the first node be at stride 4 or 8, gives 75,025.
    """
    return _continuations(space)[(1, 0) if first_fixed else (0, 0)]


@functools.cache
def _continuations(space: SearchSpace, end: int | None = None) -> dict[tuple[int, int], int]:
    """The exact number of paths from each node of the trellis to the last layer, or to one level of it."""
    graph, onward = trellis_graph(space), dict[tuple[int, int], int]()
    for node in reversed(list(nx.topological_sort(graph))):
        last = node[0] == space.layers
        onward[node] = int(end in (None, node[1])) if last else sum(onward[s] for s in graph.successors(node))
    return onward


@dataclass(frozen=True)
class Counts:
    """Sizes of a search space; the fields are exact integers."""

    paths: int
    """Paths whose first node is at either of the two finest levels, as the paper's text has it."""
    paths_first_fixed: int
    """Paths whose first node is at the finest level: the paper's printed 2.9e4."""
    cells: int
    """Cells as the paper counts them: any two inputs, even equal ones, and any operations, `none` included."""
    cells_decodable: int
    """Cells that decoding can produce: two distinct inputs, operations other than `none`."""
    nodes: int
    """Nodes of the trellis, the stem not counted."""
    transitions: int
    """Edges of the trellis, those from the stem included."""
    edges: int
    """Mixed operations in a cell."""
    operations: int
    """Candidate operations of a mixed operation."""


def count(space: SearchSpace) -> Counts:
    """Counts paths, cells, nodes and edges of `space`."""
    trellis, cell = trellis_graph(space), cell_graph(space)
    inputs = [cell.in_degree(state) for state in range(2, space.blocks + 2)]
    connecting = len(set(space.operations) - {NONE})
    return Counts(
        paths=count_paths(space),
        paths_first_fixed=count_paths(space, first_fixed=True),
        cells=math.prod((n * len(space.operations)) ** 2 for n in inputs),
        cells_decodable=math.prod(math.comb(n, 2) * connecting**2 for n in inputs),
        nodes=trellis.number_of_nodes() - 1,
        transitions=trellis.number_of_edges(),
        edges=cell.number_of_edges(),
        operations=len(space.operations),
    )


def all_genotypes(space: SearchSpace) -> list[Genotype]:
    """Lists all genotypes that decoding can produce: every path with every cell, the paths in the outer loop.

    The order is fixed by the space: paths by their levels, cells by the pairs of inputs and the order of
    `space.operations`, the last block changing fastest.

    Raises:
        ValueError: There are more than 10,000.
    """
    counts = count(space)
    if (number := counts.paths * counts.cells_decodable) > MOST_GENOTYPES:
        raise ValueError(
            f"the space {space.name} has {number:,} genotypes, {counts.paths:,} paths times "
            f"{counts.cells_decodable:,} cells: give one of at most {MOST_GENOTYPES:,}, with fewer layers, levels, "
            "blocks or operations"
        )
    names, operations = state_names(space.blocks), [name for name in space.operations if name != NONE]
    choices = [
        [
            Block((i, j), (o, p))
            for i, j in combinations(names[: 2 + block], 2)
            for o, p in product(operations, repeat=2)
        ]
        for block in range(space.blocks)
    ]
    cells = list(product(*choices))
    return [
        Genotype(space, cell, tuple(space.strides[level] for level in levels))
        for levels in _walks(space, (0,))
        for cell in cells
    ]


def _walks(space: SearchSpace, walk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The levels of all paths that continue a walk, which begins with the stem's level."""
    if len(walk) > space.layers:
        yield walk[1:]
        return
    for target in space.transitions(len(walk) - 1, walk[-1]):
        yield from _walks(space, (*walk, target))


def random_genotype(space: SearchSpace, seed: int | np.random.Generator, end: int | None = None) -> Genotype:
    """Draws a genotype uniformly from all decodable cells and all paths; the same seed gives the same genotype.

    Args:
        space: The search space.
        seed: A seed, or a generator, which is advanced.
        end: Level of the last layer; None: any.
    """
    rng = np.random.default_rng(seed)
    names = state_names(space.blocks)
    operations = [name for name in space.operations if name != NONE]
    cell = []
    for block in range(space.blocks):
        first, second = sorted(rng.choice(2 + block, size=2, replace=False).tolist())
        chosen = rng.integers(len(operations), size=2).tolist()
        cell.append(Block((names[first], names[second]), (operations[chosen[0]], operations[chosen[1]])))
    onward, level, path = _continuations(space, end), 0, []
    for layer in range(space.layers):  # each step in proportion to the paths that continue from there
        targets = space.transitions(layer, level)
        weights = [onward[layer + 1, target] / onward[layer, level] for target in targets]
        level = targets[int(rng.choice(len(targets), p=weights))]
        path.append(space.strides[level])
    known = {"seed": seed} if isinstance(seed, int) else {}
    return Genotype(space, tuple(cell), tuple(path), provenance={"method": "drawn at random", **known})
