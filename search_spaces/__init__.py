"""What may be built: candidate operations, search spaces, genotypes. Nothing here imports torch until it is needed."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from search_spaces.drawing import draw_cell, draw_trellis, save_figure
    from search_spaces.extensions import load_extensions
    from search_spaces.factorized import ESP, FPL, FactorizedConv2d
    from search_spaces.genotype import Block, Genotype, GenotypeError, load_genotype, state_names
    from search_spaces.graph import Counts, cell_graph, count, count_paths, trellis_graph
    from search_spaces.lateral_inhibition import LateralInhibition, LIConv2d
    from search_spaces.module_protocols import project, undecayed
    from search_spaces.modules import BatchNorm
    from search_spaces.operations import NONE, OPERATIONS, Cost, Operation, register_operation
    from search_spaces.published import PUBLISHED_GENOTYPES, auto_deeplab
    from search_spaces.registry import Registry
    from search_spaces.settings import OperationSettings
    from search_spaces.smoothing import AggregationCoefficients, SmoothedConv2d
    from search_spaces.space import Head, SearchSpace, SpaceError, Stem, available, load
    from search_spaces.text import cell_table, path_trellis

_EXPORTS = {
    "AggregationCoefficients": "search_spaces.smoothing",
    "BatchNorm": "search_spaces.modules",
    "ESP": "search_spaces.factorized",
    "FPL": "search_spaces.factorized",
    "FactorizedConv2d": "search_spaces.factorized",
    "LIConv2d": "search_spaces.lateral_inhibition",
    "LateralInhibition": "search_spaces.lateral_inhibition",
    "OperationSettings": "search_spaces.settings",
    "SmoothedConv2d": "search_spaces.smoothing",
    "project": "search_spaces.module_protocols",
    "undecayed": "search_spaces.module_protocols",
    "Block": "search_spaces.genotype",
    "Genotype": "search_spaces.genotype",
    "GenotypeError": "search_spaces.genotype",
    "load_genotype": "search_spaces.genotype",
    "state_names": "search_spaces.genotype",
    "Counts": "search_spaces.graph",
    "cell_graph": "search_spaces.graph",
    "count": "search_spaces.graph",
    "count_paths": "search_spaces.graph",
    "trellis_graph": "search_spaces.graph",
    "NONE": "search_spaces.operations",
    "OPERATIONS": "search_spaces.operations",
    "Cost": "search_spaces.operations",
    "Operation": "search_spaces.operations",
    "register_operation": "search_spaces.operations",
    "load_extensions": "search_spaces.extensions",
    "Registry": "search_spaces.registry",
    "Head": "search_spaces.space",
    "SearchSpace": "search_spaces.space",
    "SpaceError": "search_spaces.space",
    "Stem": "search_spaces.space",
    "available": "search_spaces.space",
    "load": "search_spaces.space",
    "draw_cell": "search_spaces.drawing",
    "draw_trellis": "search_spaces.drawing",
    "save_figure": "search_spaces.drawing",
    "cell_table": "search_spaces.text",
    "path_trellis": "search_spaces.text",
    "PUBLISHED_GENOTYPES": "search_spaces.published",
    "auto_deeplab": "search_spaces.published",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
