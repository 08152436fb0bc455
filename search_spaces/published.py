"""Genotypes that papers published: found by others, so without alpha and beta."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.genotype import Block, Genotype
from search_spaces.registry import Registry
from search_spaces.space import load

__all__ = ["PUBLISHED_GENOTYPES", "auto_deeplab"]

PUBLISHED_GENOTYPES: Registry[Callable[[], Genotype]] = Registry("published genotype")
"""Name -> function that builds the genotype."""


def auto_deeplab() -> Genotype:
    """The network of Auto-DeepLab (Liu et al., 2019), figure 3, in the space `autodeeplab`.

    The cell and the path are those of the authors' network code, which the figure shows. That code numbers a cell's
    states 0 = H^{l-1}, 1 = H^{l-2}, 2 = block 1, ...; its hidden-state indices are 1,0 1,0 3,1 4,2 3,5. Inputs are
    listed here in ascending order of state, which changes nothing: a block is a sum.
    """
    return Genotype(
        space=load("autodeeplab"),
        cell=(
            Block(("l-2", "l-1"), ("atrous_5x5", "separable_3x3")),
            Block(("l-2", "l-1"), ("separable_3x3", "atrous_3x3")),
            Block(("l-2", "block2"), ("separable_3x3", "separable_3x3")),
            Block(("block1", "block3"), ("separable_5x5", "separable_5x5")),
            Block(("block2", "block4"), ("separable_5x5", "atrous_5x5")),
        ),
        path=(4, 4, 4, 8, 16, 8, 16, 16, 32, 32, 16, 8),
        provenance={
            "name": "auto-deeplab",
            "paper": "Auto-DeepLab: Hierarchical Neural Architecture Search for Semantic Image Segmentation "
            "(Liu et al., CVPR 2019)",
            "where": "figure 3, and the authors' network code",
            "dataset": "cityscapes",
        },
    )


PUBLISHED_GENOTYPES.register("auto-deeplab", auto_deeplab)
