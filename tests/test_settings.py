"""Settings of operations and networks: what is refused, what a space carries, what a network does not read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest

from retrain.networks import NETWORKS
from retrain.networks.building import KINDS
from retrain.networks.settings import Kind, NetworkConfig, names
from retrain.networks.walk import Walk
from search_spaces.genotype import load_genotype
from search_spaces.graph import random_genotype
from search_spaces.settings import OperationSettings
from search_spaces.space import SearchSpace, SpaceError, load

REFUSED = [
    ("li_zone", 2),
    ("li_zone", 33),
    ("li_rate", 0),
    ("li_sigma", 0),
    ("li_sigma", float("nan")),
    ("li_init", (0.2, 0.1)),
    ("li_init", (0.0, 1.5)),
    ("li_init", (0.0,)),
    ("smoothing_window", "round"),
    ("smoothing_sigma", -1.0),
    ("fpl_rates", ()),
    ("fpl_rates", (2, 0)),
    ("fpl_fusion", "hierarchical"),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_refused_values_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}(\[\d\])? is .*: give"):
        OperationSettings(**{field: value})
    with pytest.raises(ValueError, match=rf"^network\.{field}(\[\d\])? is .*: give"):
        NetworkConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("li_blocks", ()),
        ("li_blocks", (0,)),
        ("li_blocks", (18,)),
        ("kind", "unet"),
        ("aspp", "smooth"),
        ("smoothing", "median"),
    ],
)
def test_network_settings_refuse(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^network\.{field}(\[\d\])? is .*: give"):
        NetworkConfig(**{field: value})


def test_changed_settings_only() -> None:
    assert OperationSettings().changed() == {}
    assert OperationSettings(li_zone=5, fpl_rates=[1, 2]).changed() == {"li_zone": 5, "fpl_rates": [1, 2]}  # type: ignore[arg-type]


def test_a_networks_settings_go_over_the_spaces() -> None:
    base = OperationSettings(li_zone=5, li_sigma=2.0)
    assert NetworkConfig().operation_settings(base) == base
    assert NetworkConfig().operation_settings() == OperationSettings()
    merged = NetworkConfig(li_sigma=0.5, fpl_fusion="none").operation_settings(base)
    assert merged == OperationSettings(li_zone=5, li_sigma=0.5, fpl_fusion="none")


def space_with(settings: OperationSettings) -> SearchSpace:
    return dataclasses.replace(load("autodeeplab-tiny"), settings=settings)


def test_a_space_carries_its_settings_into_files(tmp_path: Path) -> None:
    assert "settings" not in space_with(OperationSettings()).to_dict()  # files without them stay as they were
    space = space_with(OperationSettings(li_rate=3, li_init=(0.0, 0.05)))
    assert space.to_dict()["settings"] == {"li_rate": 3, "li_init": [0.0, 0.05]}
    file = tmp_path / "space.yaml"
    file.write_text(space.to_yaml())
    assert load(file) == space
    genotype = random_genotype(space, seed=0)
    assert load_genotype(genotype.save(tmp_path / "genotype.json")).space == space


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"li_zone": 4}, r"settings\.li_zone is 4: give"),
        ({"zone": 3}, r"unknown setting settings\.zone: give one of li_zone"),
        ([3], r"settings is \[3\]: give `name: value`"),
        ({"fpl_rates": 3}, r"settings\.fpl_rates is 3: give a list"),
    ],
)
def test_wrong_settings_of_a_space_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SearchSpace.from_dict({**load("autodeeplab-tiny").to_dict(), "settings": settings})


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_names_only_settings_that_there_are(name: str) -> None:
    fields = {f.name for f in dataclasses.fields(NetworkConfig)}
    assert {"batch_norm_momentum", "frozen_batch_norm"} <= NETWORKS[name].settings <= fields
    assert NETWORKS[name].classes > 1 and NETWORKS[name].paper


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_network_has_its_settings_and_its_walk(name: str) -> None:
    assert tuple(KINDS) == get_args(Kind)
    assert issubclass(NetworkConfig, KINDS[name].settings)
    assert issubclass(KINDS[name].load().walk, Walk)


def test_every_setting_is_of_a_network() -> None:
    read = [NETWORKS[name].settings for name in NETWORKS] + [names(KINDS[name].settings) for name in KINDS]
    assert frozenset({"kind"}).union(*read) == names(NetworkConfig)


def test_a_setting_without_effect_is_refused() -> None:
    config = NetworkConfig(li_blocks=(16,))
    with pytest.raises(ValueError, match=r"network\.li_blocks has no effect on mnv2-aspp: .*network\.aspp_channels"):
        config.refuse_others("mnv2-aspp", NETWORKS["mnv2-aspp"].settings)
    config.refuse_others("li-mnv2-aspp", NETWORKS["li-mnv2-aspp"].settings)
