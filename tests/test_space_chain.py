"""Every shipped space can be searched, decoded, and retrained as either kind of network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import nas
import retrain
from nas.config import AugmentConfig
from search_spaces.genotype import load_genotype
from search_spaces.space import available, load

LOADER = replace(
    nas.recipe("small").loader, train_limit=8, val_limit=2, batch_size=2, augment=AugmentConfig(crop=(33, 33))
)


@pytest.mark.parametrize("space", available())
def test_search_decode_retrain(space: str, tmp_path: Path) -> None:
    found = nas.search(
        replace(
            nas.recipe("small"),
            space=space,
            layers=2,
            levels=2,
            blocks=1,
            filter_multiplier=4,
            epochs=1,
            architecture=nas.ArchitectureConfig(start_epoch=0),
            loader=LOADER,
            out=str(tmp_path / "found"),
        ),
        quiet=True,
    )
    genotype = load_genotype(found.folder / "genotype.json")
    assert genotype.space.operations == load(space).operations
    small = retrain.recipe("small")
    narrow = replace(small.network, filter_multiplier=2)
    for network in (narrow, retrain.NetworkConfig(kind="fplnet", filter_multiplier=2, batch_norm_momentum=0.1)):
        config = replace(
            small,
            genotype=str(found.folder / "genotype.json"),
            network=network,
            epochs=1,
            loader=LOADER,
            out=str(tmp_path / network.kind),
        )
        trained = retrain.train(config, quiet=True)
        assert 0 <= trained.last_miou <= 1
        assert retrain.load_trained(trained.folder).config.network.kind == network.kind
