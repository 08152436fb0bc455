"""From probabilities to a genotype: pure functions on NumPy arrays. Nothing here imports torch."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from decoders.candidates import Candidate, Relaxed, best_candidates, pareto_front
    from decoders.cell import greedy_cell
    from decoders.costs import CostTable
    from decoders.decoding import decode, redecode
    from decoders.path import Path, best_paths, path_probability, viterbi

_EXPORTS = {
    "Candidate": "decoders.candidates",
    "CostTable": "decoders.costs",
    "Path": "decoders.path",
    "Relaxed": "decoders.candidates",
    "best_candidates": "decoders.candidates",
    "best_paths": "decoders.path",
    "decode": "decoders.decoding",
    "greedy_cell": "decoders.cell",
    "pareto_front": "decoders.candidates",
    "path_probability": "decoders.path",
    "redecode": "decoders.decoding",
    "viterbi": "decoders.path",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
