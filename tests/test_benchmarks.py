"""The benchmarks run, and the documents that they made are in line with the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from nas.cost import measure
from retrain.networks import NETWORKS, build

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import documents  # noqa: E402
import networks as benchmark  # noqa: E402
import supernet as engines  # noqa: E402

ROW = re.compile(r"^\| `(?P<name>[\w-]+)` \|(?P<cells>.*)\|$", re.MULTILINE)


def rows(text: str) -> dict[str, list[str]]:
    return {row["name"]: [cell.strip() for cell in row["cells"].split("|")] for row in ROW.finditer(text)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_documented_numbers_are_the_codes(name: str) -> None:
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    documented = rows(text.partition(documents.BEGIN)[2].partition(documents.END)[0])
    assert set(documented) == set(NETWORKS)
    record = NETWORKS[name]
    with torch.device("meta"):
        cost = measure(build(name, record.classes), benchmark.COST_SIZE)
    description, printed, parameters, classes, multiply_adds, *_ = documented[name]
    assert (description, printed, int(classes)) == (record.description, record.printed or "", record.classes)
    assert parameters == f"{cost.parameters:,}"
    assert multiply_adds == f"{cost.multiply_adds / 1e9:.3f}"


def test_the_table_goes_between_the_markers(tmp_path: Path) -> None:
    values = benchmark.parse_arguments(["--only", "espnet-c", "--sizes", "16x24", "--repeats", "1"])
    table = benchmark.make_table(values)
    cells = rows(table)["espnet-c"]
    assert cells[2:4] == ["349,449", "20"] and float(cells[-1]) > 0
    file = tmp_path / "networks.md"
    file.write_text(f"before\n{documents.BEGIN}\nold\n{documents.END}\nafter\n")
    documents.put(table, file)
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "espnet-c" in text and "old" not in text
    file.write_text("no markers")
    with pytest.raises(SystemExit, match="has no lines"):
        documents.put(table, file)


def test_the_engines_are_compared(tmp_path: Path) -> None:
    words = ["--spaces", "autodeeplab-tiny", "--crops", "17", "--layers", "2", "--blocks", "1", "--repeats", "1"]
    table = engines.make_table(engines.parse_arguments(words))
    assert "python benchmarks/supernet.py --spaces autodeeplab-tiny --crops 17" in table and "--layers 2" in table
    cells = rows(table)["autodeeplab-tiny"]
    assert cells[0] == "17" and len(cells) == 10 and all(float(cell.replace(",", "")) >= 0 for cell in cells[:9])
    with pytest.raises(SystemExit):
        engines.parse_arguments(["--batch-size", "1"])
