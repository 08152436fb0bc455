"""From alpha and beta to a genotype, by the paper's decoding: greedy cell, Viterbi path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from decoders.cell import greedy_cell
from decoders.path import viterbi
from search_spaces.genotype import Genotype, GenotypeError, check_shapes
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
        provenance: Their origin.
        edge_weights: Weights of the edges into each block, [edges], as in `Genotype.edge_weights`, or None.

    Raises:
        GenotypeError: A shape does not fit the space, or a row (or the weights into a block) does not sum to 1.
        ValueError: An entry is negative or not finite, or no path has a positive probability.
    """
    # Copies: the caller's arrays may be views of parameters that training will change.
    alpha, beta = np.array(alpha, dtype=np.float64), np.array(beta, dtype=np.float64)
    weights = None if edge_weights is None else np.array(edge_weights, dtype=np.float64)
    check_shapes(space, alpha, beta, weights)
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
    """Decodes a genotype again from its own alpha, beta and edge weights, if any; ignores its cell and path.

    Raises:
        GenotypeError: It has no alpha or no beta.
    """
    missing = [name for name in ("alpha", "beta") if getattr(genotype, name) is None]
    if genotype.alpha is None or genotype.beta is None:
        raise GenotypeError(
            f"the genotype has no {' and no '.join(missing)}: it is hand-written or published, so there is "
            "nothing to decode. Use its cell and path as they are, or name a genotype.json that a search wrote"
        )
    # "decoding" describes a candidate under budgets (`retrain.budget`), which this one is not.
    provenance = {name: value for name, value in genotype.provenance.items() if name != "decoding"}
    return decode(genotype.space, genotype.alpha, genotype.beta, provenance, genotype.edge_weights)
