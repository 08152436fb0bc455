"""No value of a wrong type gets past the settings: every leaf of every command's, with values that go wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from benchmarks.config import DecodingBench, NetworksBench, OperationsBench, ScalingBench, StartupBench, SupernetBench
from cli import rank, retrain, search, sweep
from cli.common import run
from nas.config import SearchConfig
from nas.data.base import DataError
from nas.data.readers.classes import read_class_file
from nas.evaluation.inference import Inference, Viewing
from retrain.config import CandidateConfig, RankingConfig, RetrainConfig
from retrain.pictures.config import PictureConfig
from retrain.sweeps.settings import Parameter, StudyConfig, parse_sweep
from search_spaces.files import YamlError, parse_json, parse_yaml
from search_spaces.genotype import GenotypeError, load_genotype
from search_spaces.graph import random_genotype
from search_spaces.settings import OperationSettings
from search_spaces.space import SearchSpace, load
from search_spaces.validation import (
    Interval,
    choice,
    did_you_mean,
    expected,
    fits,
    from_plain,
    hints,
    raised_as,
    short,
    whole,
)

VALUES: dict[str, Any] = {
    "null": None,
    "list": [["entry"]],
    "mapping": {"key": 1},
    "text": "some text",
    "long text": 5000 * "x",
    "true": True,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "1e400": float("1e400"),
    "huge": 2**63,
    "5000 digits": 10**5000,
}
CONFIGS: dict[type, dict[str, Any]] = {
    SearchConfig: {},
    RetrainConfig: {"genotype": "auto-deeplab"},
    RankingConfig: {},
    CandidateConfig: {"top": 3},
    StudyConfig: {},
    PictureConfig: {},
    Inference: {},
    Viewing: {},
    OperationSettings: {},
    SearchSpace: {"name": "x", "operations": ["skip"]},
    Parameter: {"name": "optimizer.lr", "range": [0.1, 1.0]},
    DecodingBench: {},
    NetworksBench: {},
    OperationsBench: {},
    ScalingBench: {},
    StartupBench: {},
    SupernetBench: {},
}
"""The settings of all commands, and what they need."""


def leaves(config: type, where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of each setting."""
    for name, hint in hints(config).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{where}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{where}{name}", hint


def nested(plain: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The settings with one changed."""
    first, dot, rest = name.partition(".")
    return {**plain, first: nested(plain.get(first, {}), rest, value) if dot else value}


def takes(hint: Any, value: Any) -> bool:
    """Whether a setting of this type takes a value of VALUES; one that is a number or a choice takes none of them."""
    words = set(re.findall(r"\w+", str(hint)))
    if "Any" in words:
        return True
    if value is None:
        return type(None) in get_args(hint)
    return hint is bool if value is True else isinstance(value, str) and hint in (str, str | None)


def check_refusal(build: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError) as caught:
        build()
    message = str(caught.value)
    assert re.match(rf"{re.escape(name)}(\[\d+\])* is .+: give ", message), message
    assert "\n" not in message and len(message) <= 400


ALL_LEAVES = [(config, name, hint) for config in CONFIGS for name, hint in leaves(config)]


@pytest.mark.parametrize(("config", "name", "hint"), ALL_LEAVES, ids=[f"{c.__name__}-{n}" for c, n, _ in ALL_LEAVES])
def test_a_value_of_a_wrong_type_is_refused_by_name(config: type, name: str, hint: Any) -> None:
    for value in VALUES.values():
        if not takes(hint, value):
            check_refusal(lambda value=value: from_plain(config, nested(CONFIGS[config], name, value)), name)


def test_all_settings_are_walked() -> None:
    assert len(ALL_LEAVES) > 200
    assert {"loader.augment.crop", "network.li_init", "stem.strides"} <= {name for _, name, _ in ALL_LEAVES}


@pytest.mark.parametrize("name", ["command", "description", "recipe", "parameters", "settings", "first", "trials"])
def test_a_sweep_refuses_wrong_values(name: str) -> None:
    sweep = {"command": "search", "parameters": {"epochs": {"range": [21, 30]}}}
    parse_sweep(sweep)
    for value in (3, True, math.nan, 10**5000, [["entry"]]):
        if not (name == "trials" and value == 3):
            check_refusal(lambda value=value: parse_sweep({**sweep, name: value}), name)


@pytest.mark.parametrize("text", ["010", "-010", "0_17", "1:30", "1:30.5", 400 * "9"])
@pytest.mark.parametrize("where", ["epochs", "optimizer.lr", "loader.augment.crop[1]"])
def test_a_number_that_yaml_reads_as_another_is_refused_by_line_and_name(text: str, where: str) -> None:
    parts = where.partition("[")[0].split(".")
    value = f"[33, {text}]" if where.endswith("]") else text
    yaml_text = (
        "# one line\n" + "".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(parts))[:-1] + f" {value}"
    )
    with pytest.raises(YamlError, match=rf"^line {1 + len(parts)}: {re.escape(where)} is .*: .*write") as caught:
        parse_yaml(yaml_text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_numbers_are_read_as_they_seem() -> None:
    text = "[0, 10, 1_000, 1e-3, 1.5e3, 0.5, 00, -7, +1e3, 0x1F, '010', cuda:1, 1e400]"
    assert parse_yaml(text) == [0, 10, 1000, 1e-3, 1500.0, 0.5, 0, -7, 1000.0, 31, "010", "cuda:1", math.inf]
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nseed: 1\nepochs: 4", "line 3: epochs stands twice, first in line 1: leave one of them out"),
        ("loader:\n  workers: 1\nseed: 1\nloader:\n  prefetch: 2", "line 4: loader stands twice, first in line 1"),
        ("loader: {workers: 1, workers: 2}", "line 1: loader.workers stands twice"),
        ("a: [{b: 1}, {c: 1, c: 2}]", "line 1: a[1].c stands twice"),
        ('{"a": 1,\n "a": 1}', "line 2: a stands twice"),
        ("1: a\n1: b", "line 2: 1 stands twice"),
    ],
)
def test_a_key_that_stands_twice_in_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(YamlError, match=re.escape(message)):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n"b": {"a": 1},\n"a": 2}', 'line 3: "a" stands twice'),
        ('{"c": [{"a": 1}, {"a": "}{",\n "x": "\\"a\\":", "a": 2}]}', 'line 2: "a" stands twice'),
        ('{"b": 1, "\\u0062": 2}', "stands twice"),
        (20_000 * "[", "nested too deeply"),
    ],
)
def test_a_key_that_stands_twice_in_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_json(text)
    assert parse_json(b'{"a": [{"b": 1}, {"b": 1}], "b": {"a": null}}') == {"a": [{"b": 1}, {"b": 1}], "b": {"a": None}}


def test_files_of_users_refuse_keys_that_stand_twice(tmp_path: Path) -> None:
    file = random_genotype(load("autodeeplab-tiny"), 0).save(tmp_path / "genotype.json")
    text = file.read_text().replace('"path"', '"path": [4],\n  "path"')
    file.write_text(text)
    line = text[: text.rindex('"path"')].count("\n") + 1
    with pytest.raises(GenotypeError, match=rf'genotype\.json: .*line {line}: "path" stands twice'):
        load_genotype(file)
    classes = tmp_path / "classes.json"
    classes.write_text('{"classes": ["road"],\n "classes": ["road", "car"]}')
    with pytest.raises(DataError, match='line 2: "classes" stands twice'):
        read_class_file(classes)
    classes.write_text('[{"name": "road", "id": NaN}, "car"]')
    with pytest.raises(DataError, match="has the id nan"):
        read_class_file(classes)


# At the shell


def at_the_shell(
    main: Callable[[list[str]], None], arguments: list[str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run("nas-x", main, arguments)
    output = capsys.readouterr().err
    assert stop.value.code == 2, output
    assert output.count("\n") == 1 and name in output.replace("-", "_") and len(output) <= 400, output


OPTIONS = [
    *(("epochs", value) for value in ("null", "010", "1:30", "some", "true", "[3]", ".inf", "", 5000 * "9")),
    *(("optimizer.lr", value) for value in ("null", "010", ".nan", "1e400", "-1e400", 400 * "9")),
    *(("loader.augment.scale", value) for value in ("[.nan,1]", "[1,1e400]", "[010,20]", "null")),
    *(("loader.train-limit", value) for value in ("010", 5000 * "9", "many")),
    *(("loader.augment.flip", value) for value in ("null", "3")),
]


@pytest.mark.parametrize(("name", "value"), OPTIONS, ids=[f"{name}-{value[:9]}" for name, value in OPTIONS])
def test_options(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    at_the_shell(search.main, ["--quiet", f"--{name}={value}"], capsys, name.replace("-", "_"))


@pytest.mark.parametrize("value", ["null", "010", ".inf"])
def test_options_of_retraining(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["auto-deeplab-s", "--quiet", f"--network.decoder-channels={value}"]
    at_the_shell(retrain.main, arguments, capsys, "network.decoder_channels")


YAML_VALUES = ["null", "some", "true", ".nan", ".inf", "-.inf", "010", "1:30", "[1]", "{a: 1}", 5000 * "9", "1e400"]


FILES = [
    *((name, value) for name in ("epochs", "optimizer.lr") for value in YAML_VALUES),
    *((name, "null") for name in ("seed", "accumulate", "checkpoint_minutes", "loader.batch_size", "loader.workers")),
]


@pytest.mark.parametrize(("name", "value"), FILES, ids=[f"{name}-{value[:9]}" for name, value in FILES])
def test_files_of_settings(name: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    group, _, last = name.rpartition(".")
    file.write_text(f"{group}:\n  {last}: {value}\n" if group else f"{last}: {value}\n")
    at_the_shell(search.main, ["--quiet", "--config", str(file)], capsys, name)


def test_a_key_twice_in_files_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 30\nloader:\n  workers: 0\nloader:\n  prefetch: 2\n")
    for main, arguments in (
        (search.main, ["--config", str(file)]),
        (retrain.main, ["auto-deeplab-s", "--config", str(file)]),
        (rank.main, ["auto-deeplab-s", "--config", str(file)]),
        (search.main, ["--space", str(file)]),
        (sweep.main, [str(file)]),
    ):
        at_the_shell(main, [*arguments, "--quiet"], capsys, "line 4: loader stands twice, first in line 2")


# The checks themselves


def test_checks_by_hand() -> None:
    whole("n", 3, 1, 3)
    choice("c", "a", ("a", "b"))
    for check, message in (
        (lambda: whole("n", 4, 1, 3, ", or less"), "n is 4: give a whole number from 1 to 3, or less"),
        (lambda: whole("n", True), "n is true: give a whole number"),
        (lambda: whole("n", 2.0, 1), "n is 2.0: give a whole number from 1"),
        (lambda: choice("c", ["a"], ("a", "b")), "c is ['a']: give one of a, b"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            check()
    assert Interval(least=0, most=1).holds(1) and not Interval(above=0).holds(0)
    assert str(Interval(above=0)) == " above 0"
    assert str(Interval(least=0, below=1)) == " from 0 to below 1"
    assert str(Interval(above=0, most=4)) == " above 0 up to 4"


def test_types_in_words_and_values_in_short() -> None:
    assert expected(tuple[int, float] | None) == "a list of 2, each a whole number, or null"
    assert (
        fits([1, 2], tuple[int, ...]) and not fits([1, True], tuple[int, ...]) and not fits(257 * [1], tuple[int, ...])
    )
    assert short(None) == "null" and short([1, "a"]) == "[1, 'a']"
    assert len(short("x" * 10**6)) <= 200 and len(short([["y" * 300] * 20] * 300)) <= 200
    assert short(10**5000) == "a number of thousands of digits"


class Refusal(ValueError):
    pass


def test_refusals_are_raised_as_a_class_and_a_place() -> None:
    with pytest.raises(Refusal, match=r"^file: n is 0: give a whole number from 1$"), raised_as(Refusal, "file: "):
        whole("n", 0, 1)


def test_names_that_were_meant() -> None:
    names = ["optimizer.lr", "architecture.lr", "epochs"]
    assert did_you_mean("epoch", names) == "; did you mean epochs?"
    assert did_you_mean("lr", names, "--") == "; did you mean --optimizer.lr or --architecture.lr?"
    assert did_you_mean("something", names) == ""


def test_settings_are_checked_however_they_are_built() -> None:
    for build in (
        lambda: SearchConfig(epochs=None),  # type: ignore[arg-type]
        lambda: dataclasses.replace(SearchConfig(), epochs=None),  # type: ignore[arg-type]
        lambda: from_plain(SearchConfig, yaml.safe_load("epochs: ~")),
        lambda: from_plain(SearchConfig, json.loads('{"epochs": null}')),
    ):
        check_refusal(build, "epochs")
