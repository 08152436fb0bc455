"""The walk along a path: its steps by hand, and that the networks are what it says."""

from __future__ import annotations

import pytest

from retrain.networks import build
from retrain.networks.base import FeatureInfo
from retrain.networks.building import KINDS
from retrain.networks.deeplab import DeepLabWalk
from retrain.networks.searched_fplnet import FPLNetWalk
from retrain.networks.settings import NetworkConfig
from test_networks import CONVOLUTIONS, GENOTYPES, OTHERS, SMALL, genotype

IMAGE = FeatureInfo(3, 1)
CELL = (CONVOLUTIONS, OTHERS)


def test_the_steps_of_a_deeplab_by_hand() -> None:
    source = genotype((4, 8, 4), CELL, 2)
    walk = DeepLabWalk(source.space, 3, NetworkConfig(**SMALL))  # F = 2, two blocks, stem 4, 4, 8
    steps = [step for step, _ in walk.cells(source)]
    assert [(step.before, step.last, step.stride) for step in steps] == [
        ((4, 2), (8, 4), 1),
        ((8, 4), (4, 4), 2),
        ((4, 4), (8, 8), 1),
    ]
    assert [step.place for step in steps] == [0, 3, 0]
    assert [step.state.low for step in steps] == [None, (4, 4), (4, 4)]
    assert [part.arguments for part in walk.end(steps[-1].state)] == [(IMAGE,), ((4, 4), (4, 4), 1)]


def test_the_steps_of_an_fplnet_by_hand() -> None:
    source = genotype((4, 8, 8), CELL, 2)
    walk = FPLNetWalk(source.space, 3, NetworkConfig(filter_multiplier=2))
    steps = [step for step, _ in walk.cells(source)]
    # The initial module has 35 channels; a stage of one cell is closed by that and the image, 4 + 3.
    assert [(step.before, step.last, step.stride) for step in steps] == [
        ((35, 2), (35, 2), 2),
        ((35, 2), (7, 4), 2),
        ((7, 4), (8, 8), 1),
    ]
    assert [[part.arguments for part in step.parts] for step in steps] == [[(IMAGE,)], [((4, 4), (4, 4), (3, 4))], []]
    # A stage of two cells, by their sum, the last and the image: 8 + 8 + 3.
    unit, decoder = walk.end(steps[-1].state)
    assert unit.arguments == ((8, 8), (8, 8), (3, 8)) and decoder.arguments == ((19, 8), [1, 2, 4], 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GENOTYPES)
def test_the_walk_begins_at_the_first_state_and_ends_at_the_networks_last_feature(kind: str, name: str) -> None:
    source = GENOTYPES[name]
    config = NetworkConfig(kind=kind, filter_multiplier=2)  # type: ignore[arg-type]
    walk = KINDS[kind].load().walk(source.space, 3, config)
    steps = [step for step, _ in walk.cells(source)]
    assert walk.start.level == 0 and [step.state.level for step in steps] == list(source.levels)
    (last, *_), *_ = [part.arguments for part in walk.end(steps[-1].state)[1:]]
    info = build(source, 3, config).feature_info
    assert isinstance(info, list) and isinstance(last, FeatureInfo) and info[-1] == last
