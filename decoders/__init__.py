"""From probabilities to a genotype: pure functions on NumPy arrays. Nothing here imports torch."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from decoders.cell import greedy_cell
    from decoders.decoding import decode, redecode
    from decoders.path import Path, path_probability, viterbi

_EXPORTS = {
    "Path": "decoders.path",
    "decode": "decoders.decoding",
    "greedy_cell": "decoders.cell",
    "path_probability": "decoders.path",
    "redecode": "decoders.decoding",
    "viterbi": "decoders.path",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = ["Path", "decode", "greedy_cell", "path_probability", "redecode", "viterbi"]
