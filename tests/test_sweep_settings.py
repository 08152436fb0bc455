"""Sweep files, and which settings their parameters give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.config import SearchConfig
from nas.config import recipe as search_recipe
from retrain.config import RetrainConfig, recipe
from retrain.networks import NETWORKS
from retrain.sweeps.settings import Parameter, StudyConfig, load_sweep, parse_sweep, shipped
from retrain.sweeps.space import Space, corners, from_label, hint_of, setting_names
from search_spaces.files import parse_yaml
from search_spaces.validation import from_plain, to_plain

LI = from_plain(RetrainConfig, {"genotype": "li-mnv2-li-aspp", "network": {"li_init": [0.0, 0.0]}})


def space(parameters: dict[str, Any], base: Any = None, first: Any = ()) -> Space:
    sweep = parse_sweep({"command": "search", "parameters": parameters})
    return Space(sweep.parameters, base or SearchConfig(), first)


def test_a_parameter_sets_its_setting_and_no_other() -> None:
    made = space({"optimizer.lr": {"range": [1e-3, 1e-1], "log": True}, "layers": {"range": [4, 6]}})
    drawn = {"optimizer.lr": 0.01, "layers": 5}
    config = made.config(made.draw(lambda parameter: drawn[parameter.name]))
    expected = to_plain(SearchConfig())
    expected["optimizer"]["lr"], expected["layers"] = 0.01, 5
    assert to_plain(config) == expected
    assert [(p.type, p.range) for p in made.parameters] == [("float", (1e-3, 1e-1)), ("int", (4, 6))]
    assert made.base == to_plain(SearchConfig()), "a draw leaves the base alone"


def test_a_part_of_a_list_has_a_name() -> None:
    made = Space([Parameter("network.li_init.1", range=(0, 0.15))], LI)
    config = made.config(made.draw(lambda parameter: 0.1))
    assert isinstance(config, RetrainConfig)
    assert config.network.li_init == (0.0, 0.1)


def test_choices_that_are_lists_are_stored_as_text_and_come_back() -> None:
    parameter = Parameter("network.li_blocks", choices=([16], [13, 16], None))
    assert corners(parameter) == ["[16]", "[13, 16]", None]
    made = Space([parameter], LI)
    configs = [made.config(made.draw(lambda _, label=label: label)) for label in corners(parameter)]
    assert [c.network.li_blocks for c in configs if isinstance(c, RetrainConfig)] == [(16,), (13, 16), None]
    assert [from_label(parameter, label) for label in corners(parameter)] == [[16], [13, 16], None]


def test_a_condition_may_be_of_a_parameter_or_of_a_setting_that_stays() -> None:
    parameters = [
        Parameter("optimizer.name", choices=("sgd", "adam")),
        Parameter("optimizer.eps", range=(1e-8, 1e-2), log=True, when={"optimizer.name": "adam"}),
        Parameter("network.li_blocks", choices=([16],), when={"genotype": ["li-mnv2-aspp", "li-mnv2-li-aspp"]}),
        Parameter("network.dropout", range=(0.0, 0.5), when={"genotype": "fplnet"}),
    ]
    made = Space(parameters, LI)
    assert [
        sorted(point) for point in (made._used(["sgd", 1e-4, "[16]", 0.1]), made._used(["adam", 1e-4, "[16]", 0.1]))
    ] == [
        ["network.li_blocks", "optimizer.name"],
        ["network.li_blocks", "optimizer.eps", "optimizer.name"],
    ]


def test_a_grid_has_each_different_combination_once() -> None:
    made = space(
        {
            "optimizer.momentum": {"choices": [0.0, 0.9]},
            "optimizer.lr": {"range": [0.1, 0.3], "step": 0.1},
            "layers": {"range": [4, 6], "step": 2, "when": {"optimizer.momentum": 0.9}},
        }
    )
    points = made.points()
    assert len(points) == 3 + 3 * 2
    assert [point["optimizer.lr"] for point in points[:3]] == pytest.approx([0.1, 0.2, 0.3])
    assert "layers" not in points[0] and points[-1] == {"optimizer.momentum": 0.9, "optimizer.lr": 0.3, "layers": 6}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"optimizer.lrr": {"range": [1, 2]}}, "no setting optimizer.lrr; did you mean optimizer.lr?"),
        ({"lr": {"range": [1, 2]}}, "did you mean optimizer.lr or architecture.lr?"),
        ({"optimizer": {"range": [1, 2]}}, "there is no setting optimizer"),
        ({"optimizer.lr": {"choices": ["a"]}}, "choice 'a' is not a finite number"),
        ({"optimizer.lr": {"range": [0, 1]}}, "optimizer.lr is 0.0: give a number above 0"),
        ({"optimizer.lr": {"range": [0, 1], "log": True}}, "log needs numbers above 0"),
        ({"optimizer.lr": {"range": [1, 0.1]}}, "give the lowest value first"),
        ({"optimizer.lr": {"range": [0.1, 1], "step": 2}}, "step is 2: give a number above 0 up to 0.9"),
        ({"optimizer.lr": {"range": [0.1, 1], "step": 0.1, "log": True}}, "log and step exclude each other"),
        ({"optimizer.lr": {"range": [0.1]}}, "range is [0.1]: give a list of 2"),
        ({"optimizer.lr": {"range": ["x", 1]}}, "parameter optimizer.lr: range[0] is 'x': give a finite number"),
        ({"optimizer.lr": {}}, "give either range or choices"),
        ({"optimizer.lr": {"low": 1}}, "unknown setting low: give one of name, type, range"),
        ({"optimizer.lr": 3}, "parameter optimizer.lr: the content is 3: give `name: value`"),
        ({"layers": {"range": [4, 6], "type": "float"}}, "the setting is a whole number"),
        ({"layers": {"range": [4.5, 6]}}, "type int needs whole numbers"),
        ({"layers": {"range": [4, 6], "type": "whole"}}, "type is 'whole': give one of float, int, choice"),
        ({"layers": {"choices": [4, 4]}}, "a choice is there twice"),
        ({"layers": {"choices": []}}, "choices is empty"),
        ({"space": {"range": [1, 2]}}, "a text, which has no range: give choices"),
        ({"out": {"choices": ["a"]}}, "each trial's own"),
        ({"loader.augment.crop.2": {"range": [33, 65]}}, "which has 2"),
        ({"layers.0": {"range": [1, 2]}}, "layers is no list"),
        (
            {"architecture.start_epoch": {"range": [0, 50]}},
            "start_epoch 50: architecture.start_epoch is 50 (counted from 0), and there",
        ),
        ({"layers": {"range": [4, 6], "when": {"epoch": 3}}}, "there is no setting epoch; did you mean epochs?"),
        ({"layers": {"range": [4, 6], "when": {"levels": 3}}, "levels": {"choices": [3, 4]}}, "put it above"),
        ({}, "parameters is empty"),
    ],
)
def test_a_wrong_parameter_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        space(parameters)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_setting_that_the_network_does_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"network\.li_zone has no effect on mnv2-aspp"):
        Space([Parameter("network.li_zone", choices=(3, 5))], RetrainConfig(genotype="mnv2-aspp"))


def test_a_part_of_a_list_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give network\.li_init in `settings` as a list"):
        Space([Parameter("network.li_init.1", range=(0, 0.1))], RetrainConfig(genotype="li-mnv2-aspp"))


def test_a_grid_of_any_values_is_refused() -> None:
    with pytest.raises(ValueError, match="a grid needs steps: give step"):
        space({"optimizer.lr": {"range": [0.1, 1]}}).points()


def test_a_combination_of_many_parameters_that_is_refused_is_found() -> None:
    many = {f"loader.augment.{name}": {"range": [33, 65]} for name in ("crop.0", "crop.1")}
    many |= {name: {"choices": [None, 4, 5, 6]} for name in ("layers", "blocks", "filter_multiplier", "levels")}
    many |= {"loader.prefetch": {"range": [0, 3]}, "loader.workers": {"range": [0, 3]}, "accumulate": {"range": [1, 2]}}
    with pytest.raises(ValueError, match=r"the settings refuse .*loader.prefetch 0, loader.workers 3"):
        space(many)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ({"layerz": 3}, "layerz is no parameter; did you mean layers?"),
        ({"layers": 9}, "give a number from 4 to 6"),
        ({"levels": 9}, r"give one of \[3, 4\]"),
    ],
)
def test_wrong_first_values_are_refused(first: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space({"layers": {"range": [4, 6]}, "levels": {"choices": [3, 4]}}, first=[first])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objectives": []}, "objectives is empty"),
        ({"objectives": ["mIoU"]}, "objectives.0. is 'mIoU': give one of miou, multiply_adds"),
        ({"objectives": ["latency"]}, "add miou"),
        ({"objectives": ["miou", "miou"]}, "objectives is .*: give each one once"),
        ({"objectives": ["miou", "latency"], "pruner": "median"}, "several objectives cannot prune"),
        ({"objectives": ["miou", "latency"], "sampler": "cmaes"}, "has one objective"),
        ({"sampler": "TPE"}, "sampler is 'TPE': give one of tpe"),
        ({"pruner": "asha"}, "pruner is 'asha': give one of median, hyperband, none"),
        ({"trials": 0}, "trials is 0"),
        ({"failures": 0}, "failures is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_a_wrong_study_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(StudyConfig, fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("command: search", "parameters is missing"),
        ("parameters: {layers: {range: [4, 6]}}", "command is missing"),
        ("command: train\nparameters: {layers: {range: [4, 6]}}", "command is 'train': give one of search, retrain"),
        ("command: search\nparameters: {layers: {range: [4, 6]}}\ntrails: 3", "unknown setting 'trails'"),
        ("- 1", "give `name: value`"),
        ("command: [", "not readable as YAML"),
        ("command: search\nparameters: 3", "parameters is 3"),
        ("command: search\nparameters: {layers: {range: [4, 6]}}\nfirst: 3", "first is 3"),
    ],
)
def test_a_broken_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        load_sweep(tmp_path / "mine.yaml")
    assert "mine.yaml" in str(refusal.value)


def test_a_missing_sweep_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no sweep 'lii': choose one of li, search"):
        load_sweep("lii")


# The shipped sweeps


def test_the_sweep_li_is_for_the_published_network_and_for_a_genotype(tmp_path: Path) -> None:
    from search_spaces.graph import random_genotype
    from search_spaces.space import load

    sweep = load_sweep("li")
    names = {parameter.name for parameter in sweep.parameters}
    assert names == {f"network.li_{name}" for name in ("zone", "rate", "sigma", "init", "blocks")}
    settings = to_plain(recipe("small-published")) | {"genotype": "li-mnv2-li-aspp"}
    published = Space.of(sweep, from_plain(RetrainConfig, settings))
    assert set(published._used([corners(p)[0] for p in published.parameters])) == names
    random_genotype(load("autodeeplab-li"), 0).save(tmp_path / "genotype.json")
    searched = Space.of(sweep, from_plain(RetrainConfig, settings | {"genotype": str(tmp_path / "genotype.json")}))
    assert set(searched._used([corners(p)[0] for p in searched.parameters])) == names - {"network.li_blocks"}


@pytest.mark.parametrize("name", ["small", "camvid", "autodeeplab"])
def test_the_sweep_search_fits_each_recipe(name: str) -> None:
    made = Space.of(load_sweep("search"), search_recipe(name))
    assert len(made.parameters) == 6


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_sweep_has_a_description_and_says_how_to_run_it(name: str) -> None:
    sweep, text = load_sweep(name), shipped()[name].read_text()
    assert 10 < len(sweep.description) < 80
    assert f"#     nas-sweep {name} " in text
    assert yaml.safe_load(text)["sampler"] == sweep.study.sampler


def test_the_example_of_the_documentation_fits_its_recipe() -> None:
    text = (Path(__file__).parent.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
    sweep = parse_sweep(parse_yaml(text.partition("```yaml\n")[2].partition("```")[0]))
    assert sweep.recipe is not None
    base = from_plain(RetrainConfig, {**to_plain(recipe(sweep.recipe)), **sweep.settings})
    assert len(Space.of(sweep, base).parameters) == 5


def test_every_setting_has_a_name_that_is_found() -> None:
    for config in (SearchConfig, RetrainConfig):
        names = setting_names(config)
        assert {"epochs", "loader.augment.crop", "optimizer.lr"} <= set(names)
        assert all(hint_of(config, name) is not None for name in names)
    assert len(NETWORKS) > 0
