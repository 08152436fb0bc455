"""What may be built: candidate operations, search spaces, genotypes. Nothing here imports torch until it is needed."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from search_spaces.drawing import draw_cell, draw_trellis, save_figure
    from search_spaces.extensions import load_extensions
    from search_spaces.factorized import ESP, FPL, FactorizedConv2d
    from search_spaces.genotype import Block, Genotype, GenotypeError, load_genotype, state_names
    from search_spaces.graph import Counts, all_genotypes, cell_graph, count, count_paths, trellis_graph
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
    from search_spaces.validation import Settings

__getattr__, __dir__, __all__ = lazy_exports(__name__)
