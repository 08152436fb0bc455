"""Whether the levels of a space are of use in a search."""

from __future__ import annotations

from nas.config import SearchConfig
from nas.wording import counted
from search_spaces.space import SearchSpace

__all__ = ["check_levels"]


def check_levels(space: SearchSpace, config: SearchConfig) -> None:
    """Refuses levels at which nothing would be left of a training crop, and those that no path reaches.

    Raises:
        ValueError: There are such; the message has the most that are of use.
    """
    side, reached = min(config.loader.augment.crop), len(space.node_levels(space.layers))
    fit = sum(stride <= side for stride in space.strides)
    if space.strides[reached - 1] > side:
        raise ValueError(
            f"levels is {space.levels}: the coarsest has stride {space.strides[-1]}, more than the side of a crop, "
            f"{side} pixels; give --levels {max(1, fit)}, or a larger --loader.augment.crop"
        )
    if config.levels is not None and config.levels > reached:
        raise ValueError(
            f"levels is {config.levels}, but in {counted(space.layers, 'layer')} a path reaches no more than "
            f"{reached}; give --levels {reached}, or more --layers"
        )
