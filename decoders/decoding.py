"""From alpha and beta to a genotype, by the paper's decoding: greedy cell, Viterbi path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from decoders.cell import greedy_cell
from decoders.path import viterbi
from search_spaces.genotype import Genotype, GenotypeError
from search_spaces.space import SearchSpace

__all__ = ["decode", "redecode"]


def decode(
    space: SearchSpace,
    alpha: np.ndarray,
    beta: np.ndarray,
    provenance: Mapping[str, Any] | None = None,
    edge_weights: np.ndarray | None = None,
) -> Genotype:
    """Decodes probabilities into a genotype, which keeps copies of them.

    Args:
        space: The space that was searched.
        alpha: Probabilities [edges, operations].
        beta: Probabilities [layers, levels, 3], as in `Genotype.beta`.
        provenance: Where they come from.
        edge_weights: Weights of the edges into each block, [edges], as in `Genotype.edge_weights`, or None.

    Raises:
        GenotypeError: A shape does not fit the space, or a row (or the weights into a block) does not sum to 1.
        ValueError: An entry is negative or not finite, or no path has a positive probability.
    """
    # Copies: the caller's arrays may be views of parameters that training goes on to change.
    alpha, beta = np.array(alpha, dtype=np.float64), np.array(beta, dtype=np.float64)
    weights = None if edge_weights is None else np.array(edge_weights, dtype=np.float64)
    for name, array, axes, shape in (
        ("alpha", alpha, "[edges, operations]", (len(space.edges), len(space.operations))),
        ("beta", beta, "[layers, levels, 3]", (space.layers, space.levels, 3)),
        ("edge_weights", weights, "[edges]", (len(space.edges),)),
    ):
        if array is not None and array.shape != shape:
            raise GenotypeError(f"{name} has shape {list(array.shape)}: expected {axes} = {list(shape)}")
    return Genotype(
        space=space,
        cell=greedy_cell(alpha, space.operations, weights),
        path=tuple(space.strides[level] for level in viterbi(beta).levels),
        alpha=alpha,
        beta=beta,
        edge_weights=weights,
        provenance=dict(provenance or {}),
    )


def redecode(genotype: Genotype) -> Genotype:
    """Decodes a genotype's own alpha, beta and weights of edges (if it has any) anew; its cell and path are not read.

    Raises:
        GenotypeError: It has no alpha or no beta.
    """
    missing = [name for name in ("alpha", "beta") if getattr(genotype, name) is None]
    if genotype.alpha is None or genotype.beta is None:
        raise GenotypeError(
            f"the genotype has no {' and no '.join(missing)}: it is hand-written or published, so that there is "
            "nothing to decode. Use its cell and path as they are, or name a genotype.json that a search wrote"
        )
    # How a candidate was decoded (`retrain.budget`) is not how this one is.
    provenance = {name: value for name, value in genotype.provenance.items() if name != "decoding"}
    return decode(genotype.space, genotype.alpha, genotype.beta, provenance, genotype.edge_weights)
