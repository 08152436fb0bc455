"""Hypothesis strategies that the tests share: small search spaces, and probabilities on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from search_spaces.operations import NONE, OPERATIONS
from search_spaces.space import Head, SearchSpace, Stem

__all__ = ["alphas", "all_paths", "betas", "spaces", "transition_mask"]

# No time limit an example: on a busy machine it would fail tests that are right.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


_NAMES = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\"), min_size=1, max_size=8)


@st.composite
def spaces(draw: st.DrawFn, max_layers: int = 5, max_levels: int = 4, max_blocks: int = 3) -> SearchSpace:
    """Small spaces; a single layer, level, block and operation are among them, `none` may be absent."""
    operations = draw(st.lists(st.sampled_from(OPERATIONS.names()), min_size=1, max_size=4, unique=True))
    if operations == [NONE]:
        operations.append("skip")
    strides = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    channels = st.lists(st.integers(1, 16), min_size=len(strides), max_size=len(strides))
    return SearchSpace(
        name=draw(_NAMES),
        layers=draw(st.integers(1, max_layers)),
        levels=draw(st.integers(1, max_levels)),
        blocks=draw(st.integers(1, max_blocks)),
        filter_multiplier=draw(st.integers(1, 8)),
        operations=tuple(operations),
        stem=Stem(tuple(strides), draw(st.none() | channels.map(tuple))),
        head=Head(tuple(draw(st.lists(st.integers(1, 96), max_size=2))), draw(st.booleans())),
    )


def _weights(number: int) -> st.SearchStrategy[list[int]]:
    """Few different values, so that ties and zeros are frequent; not all zero."""
    return st.lists(st.integers(0, 3), min_size=number, max_size=number).filter(any)


@st.composite
def alphas(draw: st.DrawFn, space: SearchSpace) -> np.ndarray:
    """Probabilities [edges, operations]."""
    rows = [draw(_weights(len(space.operations))) for _ in space.edges]
    table = np.array(rows, dtype=np.float64)
    return table / table.sum(axis=1, keepdims=True)


def transition_mask(space: SearchSpace) -> np.ndarray:
    """Which entries of beta [layers, levels, 3] are edges of the trellis, worked out by walking from the stem."""
    mask = np.zeros((space.layers, space.levels, 3), dtype=bool)
    reached = {0}
    for layer in range(space.layers):
        steps = {(level, step) for level in reached for step in (-1, 0, 1) if 0 <= level + step < space.levels}
        for level, step in steps:
            mask[layer, level, step + 1] = True
        reached = {level + step for level, step in steps}
    return mask


@st.composite
def betas(draw: st.DrawFn, space: SearchSpace) -> np.ndarray:
    """Probabilities [layers, levels, 3], zero where the trellis has no edge."""
    mask = transition_mask(space)
    beta = np.zeros(mask.shape)
    for layer, level in np.argwhere(mask.any(axis=2)):
        weights = np.array(draw(_weights(int(mask[layer, level].sum()))), dtype=np.float64)
        beta[layer, level, mask[layer, level]] = weights / weights.sum()
    return beta


def all_paths(layers: int, levels: int, start: int = 0) -> Iterator[tuple[int, ...]]:
    """Every path from level `start`, in lexicographic order."""
    if layers == 0:
        yield ()
        return
    for level in range(max(start - 1, 0), min(start + 2, levels)):
        for rest in all_paths(layers - 1, levels, level):
            yield (level, *rest)
