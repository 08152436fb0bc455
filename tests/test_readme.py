"""What the README shows must run, and what it names must be there."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import search_spaces

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_chain_in_python_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = BLOCKS[0]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    out = capsys.readouterr().out
    assert "29 paths" in out
    assert "pixel accuracy" in out
    assert (tmp_path / "runs" / "searched" / "genotype.json").is_file()
    assert (tmp_path / "runs" / "trellis.svg").is_file()


def test_the_operations_work_as_printed() -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    x = torch.randn(2, 64, 9, 7)
    assert names["inhibition"](x).shape == names["smoothed"](x).shape == x.shape
    assert torch.equal(names["inhibition"](x), x.relu())
    assert names["LIConv2d"](64, 8)(x).shape == (2, 8, 9, 7)
    search_spaces.project(names["inhibition"])


def test_every_command_named_is_a_console_script() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = re.findall(r"^(nas-\w+)", setup["options.entry_points"]["console_scripts"], re.MULTILINE)
    named = set(re.findall(r"\bnas-[a-z]+\b", README)) - {"nas-segmentation"}
    assert named <= set(scripts)
    assert set(scripts) - {"nas-demo"} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_linked_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
