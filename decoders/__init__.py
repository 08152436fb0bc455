"""From probabilities to a genotype: pure functions on NumPy arrays. Nothing here imports torch."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from decoders.candidates import Candidate, Relaxed, best_candidates, pareto_front
    from decoders.cell import greedy_cell
    from decoders.costs import CostTable
    from decoders.decoding import decode, redecode
    from decoders.path import Path, best_paths, path_probability, viterbi

__getattr__, __dir__, __all__ = lazy_exports(__name__)
