"""What docs/formats.md says of files is what the commands write."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from nas.config import ArchitectureConfig, HealthConfig
from nas.darts import search
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_lines, read_metrics
from retrain.training import train
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.settings import OperationSettings
from search_spaces.space import Head, SearchSpace, Stem
from tiny import searching, training, without_pictures

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "formats.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, to the next one of the same depth or less."""
    depth = title.index(" ")
    text = PAGE.split(f"\n{title}\n")[1]
    return re.split(rf"\n#{{1,{depth}}} ", text)[0].strip()


def rows(title: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    lines = next(part for part in section(title).split("\n\n") if part.startswith("|")).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    """What stands in code in a cell of a table."""
    return re.findall(r"`([\w.]+)`", cell)


def keys(title: str, column: int | None = None) -> set[str]:
    """The names in the first column of a table, of the rows that have something in another column."""
    return {name for row in rows(title) if column is None or row[column] for name in names(row[0])}


def test_every_link_is_to_something() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        name, _, anchor = link.partition("#")
        text = (DOCS / name).read_text(encoding="utf-8") if name else PAGE
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, link


def test_the_fields_of_a_genotype(tmp_path: Path) -> None:
    known = keys("## genotype.json")
    example = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(example), encoding="utf-8")
    genotype = load_genotype(file)
    assert set(json.loads(genotype.to_json())) == known - {"edge_weights"}
    weighed = dataclasses.replace(genotype, edge_weights=np.array([0.5, 0.5]))
    assert set(json.loads(weighed.to_json())) == known
    required = {name for row in rows("## genotype.json") if row[1] == "required" for name in names(row[0])}
    for name in known:
        rest = {key: value for key, value in json.loads(weighed.to_json()).items() if key != name}
        if name in required:
            with pytest.raises(ValueError, match=f"no field '{name}'"):
                Genotype.from_dict(rest)
        elif name != "alpha":  # which edge_weights need
            Genotype.from_dict(rest)


def test_the_fields_of_a_space_and_their_defaults() -> None:
    parts = {"stem": Stem, "head": Head}
    fields = {}
    for field in dataclasses.fields(SearchSpace):
        inner = dataclasses.fields(parts[field.name]) if field.name in parts else ()
        fields |= {f"{field.name}.{part.name}": part.default for part in inner} or {field.name: field.default}
    table = rows("## A search space")
    assert [names(row[0])[0] for row in table] == list(fields)
    for name, default, _ in table:
        expected = fields[names(name)[0]]
        if default not in ("required", "the defaults"):
            assert json.loads(default) == (list(expected) if isinstance(expected, tuple) else expected), name
    settings = [field.name for field in dataclasses.fields(OperationSettings)]
    assert names(table[-1][2])[: len(settings)] == settings


def test_what_a_search_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    apart = {"architecture": ArchitectureConfig(start_epoch=1), "health": HealthConfig(gap_batches=0)}
    search(searching(tmp_path, epochs=2, **apart), quiet=True)
    folder = tmp_path / "run"
    before, after = read_metrics(folder)
    table = {names(row[0])[0]: row for row in rows("### metrics.jsonl")}
    documented = {name for name, row in table.items() if row[1]} - {"modules"}
    assert set(before) == set(after) == documented
    for name in ("loss", "val", "lr", "path"):
        assert set(after[name]) == set(names(table[name][1])), name
        optional = {"architecture"} if name in ("loss", "lr") else set()
        assert set(before[name]) == set(names(table[name][1])) - optional
    assert set(read_lines(folder, "genotypes.jsonl")[0]) == set(names(section("### genotypes.jsonl"))) - {
        "edge_weights"
    }
    state = load_checkpoint(folder / "checkpoint.pt", "search")
    assert set(state) == {name for row in rows("### Checkpoints") if row[1] != "retrain" for name in names(row[0])}
    files = {path.name for path in folder.iterdir()} - {"cell.svg", "trellis.svg"}
    assert files >= {"config.yaml", "checkpoint.pt", "best.pt", "genotype.json", "space.yaml", "log.txt"}
    assert {re.sub(r"out\..*", "out", name) for name in files} <= {
        name.rstrip(".") for row in rows("## A run folder") for name in names(row[0])
    } | {"events.out"}


def test_what_a_retraining_writes(tmp_path: Path) -> None:
    train(training(tmp_path, epochs=1), quiet=True)
    (line,) = read_metrics(tmp_path / "run")
    table = {names(row[0])[0]: row for row in rows("### metrics.jsonl")}
    assert set(line) == {name for name, row in table.items() if row[2]} - {"modules"}
    assert set(line["loss"]) == set(line["lr"]) == {"training"} == set(names(table["loss"][2]))
    state = load_checkpoint(tmp_path / "run" / "best.pt", "retrain")
    assert set(state) == {name for row in rows("### Checkpoints") if row[1] != "search" for name in names(row[0])}
