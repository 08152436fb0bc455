"""What the README shows must run, and what it names must be there."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_chain_in_python_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    out = capsys.readouterr().out
    assert "29 paths" in out
    assert "pixel accuracy" in out
    assert (tmp_path / "runs" / "searched" / "genotype.json").is_file()
    assert (tmp_path / "runs" / "trellis.svg").is_file()


def test_every_command_named_is_a_console_script() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = re.findall(r"^(nas-\w+)", setup["options.entry_points"]["console_scripts"], re.MULTILINE)
    named = set(re.findall(r"\bnas-[a-z]+\b", README)) - {"nas-segmentation"}
    assert named <= set(scripts)
    assert set(scripts) - {"nas-demo"} <= named


def test_every_file_linked_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
