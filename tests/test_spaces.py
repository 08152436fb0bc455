"""Search spaces as data: files, counts, what is refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.graph import cell_graph, count, count_paths, trellis_graph
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace, SpaceError, available, load
from strategies import all_paths, spaces, transition_mask

VALID = load("autodeeplab-tiny").to_dict()


def test_available() -> None:
    assert {"autodeeplab", "autodeeplab-dw", "autodeeplab-tiny"} <= set(available())


@pytest.mark.parametrize("name", available())
def test_shipped_spaces(name: str) -> None:
    space = load(name)
    assert space.name == name
    assert SearchSpace.from_dict(space.to_dict()) == space


@given(spaces())
def test_yaml_round_trip(space: SearchSpace) -> None:
    assert SearchSpace.from_dict(yaml.safe_load(space.to_yaml())) == space


def test_file_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(load("autodeeplab").to_yaml(), encoding="utf-8")
    assert load(file) == load(str(file)) == load("autodeeplab")


def test_published_counts() -> None:
    counts = count(load("autodeeplab"))
    assert counts.paths_first_fixed == 28_657
    assert counts.paths == 75_025
    assert counts.cells == 556_627_761_561_600
    assert counts.cells_decodable == 762_683_172_300
    assert (counts.edges, counts.operations, counts.nodes) == (20, 8, 2 + 3 + 10 * 4)


@given(spaces(max_layers=6))
def test_paths_by_enumeration(space: SearchSpace) -> None:
    paths = list(all_paths(space.layers, space.levels))
    assert count_paths(space) == len(paths) == len(set(paths))
    assert count_paths(space, first_fixed=True) == sum(path[0] == 0 for path in paths)
    assert count(space).transitions == transition_mask(space).sum()
    assert count(space).nodes == len({(layer, level) for path in paths for layer, level in enumerate(path)})


@given(spaces())
def test_graphs(space: SearchSpace) -> None:
    trellis, cell = trellis_graph(space), cell_graph(space)
    assert nx.is_directed_acyclic_graph(trellis) and nx.is_directed_acyclic_graph(cell)
    assert nx.descendants(trellis, (0, 0)) == set(trellis) - {(0, 0)}
    assert all(layer == space.layers for layer, level in trellis if trellis.out_degree((layer, level)) == 0)
    assert list(cell.in_degree(range(2, space.blocks + 2))) == [(b + 2, b + 2) for b in range(space.blocks)]
    assert len(space.edges) == cell.number_of_edges() == space.blocks * (space.blocks + 3) // 2
    for (layer, level), data in trellis.nodes(data=True):
        if layer:
            assert data == {"stride": space.strides[level], "channels": space.node_channels(level)}


def test_widths() -> None:
    space = load("autodeeplab")
    assert space.strides == (4, 8, 16, 32)
    assert [space.node_channels(level) for level in range(4)] == [40, 80, 160, 320]
    assert space.stem_channels == (20, 40)


@given(spaces())
def test_derived_values_are_positive(space: SearchSpace) -> None:
    assert len(space.stem_channels) == len(space.stem.strides)
    assert all(channels >= 1 for channels in space.stem_channels)
    assert space.strides[0] == space.stem.stride
    assert set(space.operations) - {NONE}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0: give a whole number from 1 to 1000"),
        ({"layers": True}, "layers is true: give a whole number"),
        ({"layers": 12.0}, r"layers is 12\.0: give a whole number"),
        ({"layers": 10**6}, "layers is 1000000: give a whole number from 1 to 1000"),
        ({"levels": 11}, "levels is 11: give a whole number from 1 to 10"),
        ({"blocks": "5"}, "blocks is '5': give a whole number"),
        ({"filter_multiplier": None}, "filter_multiplier is null: give a whole number"),
        ({"name": ""}, "name is '': give a text"),
        ({"name": 3}, "name is 3: give a text"),
        ({"operations": []}, "operations is empty: give 1 or more"),
        ({"operations": ["none"]}, "operations needs at least one other than 'none'"),
        ({"operations": ["skip", "skip"]}, r"operations is \['skip', 'skip'\]: give each one once"),
        ({"operations": ["conv"]}, "operations has 'conv'.*choose from none, skip"),
        ({"operations": [["skip"]]}, r"operations\[0\] is \['skip'\]: give a text"),
        ({"operations": "skip"}, "operations is 'skip': give a list"),
        ({"stem": None}, "stem is null: give `name: value`"),
        ({"stem": {"strides": [3]}}, r"stem\.strides\[0\] is 3: give a whole number from 1 to 2"),
        ({"stem": {"strides": []}}, r"stem\.strides is empty: give 1 to 16"),
        ({"stem": {"stride": 2}}, "unknown setting stem.stride: give one of strides, channels"),
        ({"stem": {"strides": [2], "channels": [1, 2]}}, r"stem\.channels has 2 entries, stem\.strides 1"),
        ({"stem": {"strides": [2], "channels": [0]}}, r"stem\.channels\[0\] is 0: give a whole number"),
        ({"head": {"reach": 96}}, "head.reach is 96: give a list"),
        ({"head": {"reach": [0]}}, r"head\.reach\[0\] is 0: give a whole number"),
        ({"head": {"image_pooling": 1}}, r"head\.image_pooling is 1: give true or false"),
        ({"depth": 3}, "unknown setting depth: give one of name, layers"),
        ({3: 3}, "unknown setting 3: give one of name, layers"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        SearchSpace.from_dict({**VALID, **change})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "message"), [("name", "name is missing"), ("operations", "operations is empty")])
def test_missing_fields(name: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SearchSpace.from_dict({key: value for key, value in VALID.items() if key != name})


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\x00",
        "name: 2001-99-99",  # a ValueError inside PyYAML, not a YAMLError
        "layers: " + "1" * 5000,
        "? [1]\n: 2",
        "[" * 1500,
        "- 1",
        "",
    ],
)
def test_broken_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load(file)
    assert str(caught.value).startswith(str(file))
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 500


def test_aliases_are_refused_before_they_unfold(tmp_path: Path) -> None:
    nest = "&a [1]"
    for inner, outer in pairwise("abcdefghij"):
        nest += f", &{outer} [{', '.join(10 * ['*' + inner])}]"  # in all 10**9 entries
    (tmp_path / "nest.yaml").write_text(f"name: x\noperations: [skip]\nlayers: [{nest}]\n", encoding="utf-8")
    with pytest.raises(SpaceError, match=r"line 3: an alias, \*a: write out what it stands for") as caught:
        load(tmp_path / "nest.yaml")
    assert len(str(caught.value)) < 500


def test_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(SpaceError, match="larger than 256 KiB"):
        load(tmp_path / "huge.yaml")


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(SpaceError, match=r"no search space 'nope': choose one of autodeeplab, .*or name a YAML file"):
        load("nope")


@given(st.data())
def test_levels_are_reached_one_step_a_layer(data: st.DataObject) -> None:
    space = data.draw(spaces())
    for layer in range(space.layers + 1):
        reached = {(0, *path)[layer] for path in all_paths(space.layers, space.levels)}
        assert set(space.node_levels(layer)) == reached
