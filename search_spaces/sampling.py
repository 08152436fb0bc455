"""Random genotypes of a space: what a search has to beat."""

from __future__ import annotations

import networkx as nx
import numpy as np

from search_spaces.genotype import Block, Genotype, state_names
from search_spaces.graph import trellis_graph
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace

__all__ = ["random_genotype"]


def random_genotype(space: SearchSpace, seed: int) -> Genotype:
    """Draws a genotype of `space`: uniformly among the cells that decoding can give, and among all paths.

    Args:
        space: The search space.
        seed: The same seed gives the same genotype.
    """
    rng = np.random.default_rng(seed)
    names = state_names(space.blocks)
    operations = [name for name in space.operations if name != NONE]
    cell = []
    for block in range(space.blocks):
        first, second = sorted(rng.choice(2 + block, size=2, replace=False).tolist())
        chosen = rng.integers(len(operations), size=2).tolist()
        cell.append(Block((names[first], names[second]), (operations[chosen[0]], operations[chosen[1]])))
    return Genotype(
        space, tuple(cell), _random_path(space, rng), provenance={"method": "drawn at random", "seed": seed}
    )


def _random_path(space: SearchSpace, rng: np.random.Generator) -> tuple[int, ...]:
    """A path, all being equally likely: each step is drawn by the number of paths that go on from there."""
    graph = trellis_graph(space)
    onward: dict[tuple[int, int], float] = {}
    for node in reversed(list(nx.topological_sort(graph))):
        # Divided by 3 a layer, as 3**1000 is no float; only the ratios within a layer count.
        onward[node] = sum(onward[s] for s in graph.successors(node)) / 3 if node[0] < space.layers else 1.0
    node, path = (0, 0), []
    while node[0] < space.layers:
        successors = sorted(graph.successors(node))
        weights = np.array([onward[s] for s in successors])
        node = successors[int(rng.choice(len(successors), p=weights / weights.sum()))]
        path.append(space.strides[node[1]])
    return tuple(path)
