"""The genotype file: what is written is read back, and what is wrong is told in one line."""

import copy
import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoders import decode
from search_spaces.files import write_atomically
from search_spaces.genotype import Block, Genotype, GenotypeError, load_genotype, state_names
from search_spaces.published import auto_deeplab
from strategies import alphas, betas, spaces
from tiny import command

SAMPLE = Path(__file__).parent / "data" / "genotype_v1.json"
VALID: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def same(a: Genotype, b: Genotype) -> bool:
    arrays = [(a.alpha, b.alpha), (a.beta, b.beta)]
    return (a.space, a.cell, a.path, a.provenance) == (b.space, b.cell, b.path, b.provenance) and all(
        (x is None and y is None) or (x is not None and y is not None and np.array_equal(x, y)) for x, y in arrays
    )


@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    space = data.draw(spaces())
    genotype = decode(space, data.draw(alphas(space)), data.draw(betas(space)), {"seed": 1, "name": "\u00e9 \n"})
    for parts in ({}, {"alpha": None}, {"beta": None}, {"alpha": None, "beta": None}):
        kept = dataclasses.replace(genotype, **parts)  # type: ignore[arg-type]
        assert same(Genotype.from_dict(json.loads(kept.to_json())), kept)


def test_file_round_trip(tmp_path: Path) -> None:
    file = auto_deeplab().save(tmp_path / "new" / "genotype.json")
    assert same(load_genotype(file), auto_deeplab())
    assert load_genotype(str(file)).to_json() == file.read_text(encoding="utf-8")


def test_layout_is_for_reading() -> None:
    text = auto_deeplab().to_json()
    assert '"path": [4, 4, 4, 8, 16, 8, 16, 16, 32, 32, 16, 8]' in text
    assert '    {"inputs": ["l-2", "l-1"], "operations": ["atrous_5x5", "separable_3x3"]},\n' in text


@pytest.mark.parametrize("file", sorted(SAMPLE.parent.glob("genotype_v*.json")), ids=lambda file: file.name)
def test_every_version_is_read(file: Path) -> None:
    genotype = load_genotype(file)
    assert genotype.space.name == "autodeeplab-tiny"
    assert genotype.path == (4, 4, 4, 8)
    assert genotype.cell == (
        Block(("l-2", "l-1"), ("separable_3x3", "skip")),
        Block(("l-2", "l-1"), ("max_pooling_3x3", "max_pooling_3x3")),
    )
    assert genotype.alpha is not None and genotype.beta is not None
    assert genotype.provenance["epoch"] == 3


def test_levels_and_names() -> None:
    assert auto_deeplab().levels == (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
    assert state_names(2) == ("l-2", "l-1", "block1", "block2")


def test_a_failed_write_leaves_the_good_file(tmp_path: Path) -> None:
    file = auto_deeplab().save(tmp_path / "genotype.json")
    good = file.read_bytes()

    def full_disk(stream: Any) -> None:
        stream.write(b"{")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, full_disk)
    with pytest.raises(TypeError):
        dataclasses.replace(auto_deeplab(), provenance={"a": object()}).save(file)
    assert file.read_bytes() == good
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_readers_see_whole_files_while_it_is_written(tmp_path: Path) -> None:
    file, stop = tmp_path / "genotype.json", threading.Event()
    auto_deeplab().save(file)

    def write() -> None:
        while not stop.is_set():
            auto_deeplab().save(file)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(50):
            load_genotype(file)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("format",), "onnx", r"format is 'onnx': expected 'nas-genotype'"),
    (("version",), 2, r"version is 2: expected 1"),
    (("version",), 1.0, r"version is 1.0: expected 1"),
    (("version",), True, r"version is true: expected 1"),
    (("space",), [], r"space: the content is \[\]: give `name: value`"),
    (("space", "layers"), 0, r"space: layers is 0: give a whole number from 1"),
    (("space", "layers"), 5, r"path has 4 entries: expected 5"),
    (("space", "operations"), [["skip"]], r"space: operations\[0\] is \['skip'\]: give a text"),
    (("space", "operations"), None, r"space: operations is null: give a list"),
    (("space", "depth"), 5, r"space: unknown setting depth: give one of name, layers"),
    (("cell",), {}, r"cell is \{\}: expected a list"),
    (("cell",), [], r"cell has 0 blocks: expected 2"),
    (("cell", 0), 3, r"cell\[0\] is 3: expected an object"),
    (("cell", 0), {"inputs": []}, r"cell\[0\] has no field 'operations': expected inputs, operations"),
    (("cell", 0, "kind"), 1, r"cell\[0\] has an unknown field 'kind': expected inputs, operations"),
    (("cell", 0, "inputs"), ["l-2"], r"cell\[0\].inputs is \['l-2'\]: expected two names"),
    (("cell", 0, "inputs", 1), "block1", r"cell\[0\].inputs\[1\] is 'block1': expected one of l-2, l-1"),
    (("cell", 1, "operations", 0), "none", r"cell\[1\].operations\[0\] is 'none': expected one of skip"),
    (("cell", 1, "operations"), "skip", r"cell\[1\].operations is 'skip': expected a list"),
    (("path",), "4", r"path is '4': expected a list"),
    (("path",), [4, 4], r"path has 2 entries: expected 4"),
    (("path", 0), 16, r"path\[0\] is 16: expected one of 4, 8"),
    (("path", 0), 4.0, r"path\[0\] is 4.0: expected one of 4, 8"),
    (("path", 0), [4], r"path\[0\] is \[4\]: expected one of 4, 8"),
    (("alpha",), 1, r"alpha is 1: expected a list"),
    (("alpha",), [[1]], r"alpha has shape \[1, 1\]: expected \[edges, operations\] = \[5, 5\]"),
    (("alpha", 0), [1], r"alpha is not a table of numbers: expected rows of equal length"),
    (("alpha", 0, 0), "0.5", r"alpha has an entry that is not a number: expected numbers"),
    (("alpha", 0, 0), None, r"alpha has an entry that is not a number: expected numbers"),
    (("alpha", 0, 0), 10**400, r"alpha has an entry that is not a number: expected numbers"),
    (("alpha", 0, 0), -0.5, r"alpha has an entry that is not a probability: expected numbers from 0 to 1"),
    (("alpha", 0, 0), float("nan"), r"alpha has an entry that is not a probability: expected"),
    (("alpha", 0, 0), 1e308, r"alpha has an entry that is not a probability: expected"),
    (("alpha", 1), [0, 0, 0, 0, 0.5], r"alpha\[1\] sums to 0.5: expected 1"),
    (("beta",), [[1]], r"beta has shape \[1, 1\]: expected \[layers, levels, 3\] = \[4, 3, 3\]"),
    (("beta", 0, 0), [0.5, 0.5, 0], r"beta\[0\]\[0\]\[0\] is not 0: expected 0"),
    (("beta", 0, 1), [0, 1, 0], r"beta\[0\]\[1\]\[1\] is not 0: expected 0"),
    (("beta", 1, 0), [0, 0, 0], r"beta\[1\]\[0\] sums to 0: expected 1"),
    (("edge_weights",), 1, r"edge_weights is 1: expected a list"),
    (("edge_weights",), [0.5, 0.5], r"edge_weights has shape \[2\]: expected \[edges\] = \[5\]"),
    (("edge_weights",), [0.5, "0.5", 0, 0, 1], r"edge_weights has an entry that is not a number: expected numbers"),
    (("edge_weights",), [1.5, -0.5, 0, 0, 1], r"edge_weights has an entry that is not a probability: expected numbers"),
    (("edge_weights",), [0.5, 0.5, 0.5, 0.5, 0.5], r"edge_weights of the edges into block2 sum to 1.5: expected 1"),
    (("provenance",), 3, r"provenance is 3: expected an object"),
    (("extra",), 3, r"unknown field 'extra': expected alpha, beta"),
]


def replaced(keys: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(VALID)
    target: Any = data
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    return data


@pytest.mark.parametrize(("keys", "value", "message"), WRONG)
def test_errors_name_field_and_expectation(keys: tuple[str | int, ...], value: Any, message: str) -> None:
    with pytest.raises(GenotypeError, match=message) as caught:
        Genotype.from_dict(replaced(keys, value))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["format", "version", "space", "cell", "path"])
def test_missing_fields(name: str) -> None:
    data = {key: value for key, value in VALID.items() if key != name}
    with pytest.raises(GenotypeError, match=rf"the genotype has no field '{name}': expected format, version, space"):
        Genotype.from_dict(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"version": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[]", r"the genotype is \[\]: expected an object"),
        (b"null", "the genotype is null: expected an object"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(content)
    with pytest.raises(GenotypeError, match=message) as caught:
        load_genotype(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_missing_and_huge_files(tmp_path: Path) -> None:
    with pytest.raises(GenotypeError, match=r"no.json: cannot be read: No such file.*Name a genotype.json file"):
        load_genotype(tmp_path / "no.json")
    with pytest.raises(GenotypeError, match=r"is a folder without a genotype\.json: name a genotype\.json"):
        load_genotype(tmp_path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(GenotypeError, match="larger than 8 MiB"):
        load_genotype(tmp_path / "huge.json")


def places(value: Any, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The keys that lead to every part of a JSON value."""
    if isinstance(value, dict):
        return [place for key in value for place in [(*prefix, key), *places(value[key], (*prefix, key))]]
    if isinstance(value, list):
        return [place for i, entry in enumerate(value) for place in [(*prefix, i), *places(entry, (*prefix, i))]]
    return []


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """A valid file of which one to three fields were replaced, deleted or repeated; or that was cut; or bytes of it."""
    if draw(st.sampled_from(["fields", "fields", "bytes"])) == "bytes":
        content = bytearray(SAMPLE.read_bytes())
        if draw(st.booleans()):
            return bytes(content[: draw(st.integers(0, len(content) - 1))])
        for _ in range(draw(st.integers(1, 4))):
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        return bytes(content)
    mutated = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        keys = draw(st.sampled_from(places(mutated)))
        target: Any = mutated
        for key in keys[:-1]:
            target = target[key]
        kind = draw(st.sampled_from(["replace", "delete", "repeat"]))
        if kind == "delete":
            del target[keys[-1]]
        elif kind == "repeat" and isinstance(target, list):
            target.append(copy.deepcopy(target[int(keys[-1])]))
        else:
            value = draw(json_values | st.sampled_from([VALID["cell"], VALID["path"], "skip", 0, 1, 10**9]))
            target[keys[-1]] = copy.deepcopy(value)
        if not places(mutated):
            break
    return json.dumps(mutated).encode()


@settings(suppress_health_check=list(HealthCheck), max_examples=1000)
@given(mutated_files())
def test_a_mutated_file_is_valid_or_gives_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "genotype.json"
    file.write_bytes(content)
    try:
        genotype = load_genotype(file)
    except GenotypeError as error:
        text = str(error)
        assert text.startswith(f"{file}: ") and len(text.splitlines()) == 1 and len(text) < len(str(file)) + 600
    else:
        assert Genotype.from_dict(json.loads(genotype.to_json())).to_json() == genotype.to_json()


@settings(suppress_health_check=list(HealthCheck), max_examples=100)
@given(mutated_files())
def test_nas_decode_shows_a_mutated_file_or_refuses_it_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "genotype.json"
    file.write_bytes(content)
    outcome = command("nas-decode", file)
    assert outcome.code in (0, 2)
    assert (outcome.err.count("\n") == 1) if outcome.code else (outcome.out and not outcome.err)
