"""The tutorial runs as it stands: its files are cut out of it, its commands run one after the other."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cli import retrain, search

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
FILES = {
    block.splitlines()[0].removeprefix("# "): block
    for block in re.findall(r"^```(?:python|yaml)\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)
}
COMMANDS = re.findall(r"^    ((?:python|nas-[a-z]+) .*)$", re.sub(r"\\\n +", "", TUTORIAL), re.MULTILINE)
SHORT = {
    "practice.py": (("600", "24"), ("40", "4")),
    "search.yaml": (("epochs: 8", "epochs: 3"),),
    "retrain.yaml": (("epochs: 30", "epochs: 2"),),
}
"""What is made smaller for a test."""


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        for number, smaller in SHORT.get(name, ()):
            assert number in text
            text = text.replace(number, smaller)
        (folder / name).write_text(text, encoding="utf-8")


def test_the_settings_of_the_tutorial_are_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for main, arguments in ((search.main, []), (retrain.main, ["genotype.json"])):
        name = "search.yaml" if main is search.main else "retrain.yaml"
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--config", name, "--print_config"])
        assert not ended.value.code
        assert "data_root: mine" in capsys.readouterr().out


@pytest.mark.slow
def test_the_tutorial_ends_with_a_deployed_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_files(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command in COMMANDS:
        first, *rest = shlex.split(command)
        program = [] if first == "python" else ["-m", f"cli.{first.removeprefix('nas-')}"]
        line = [sys.executable, *program, *rest]
        ended = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    deployed = Image.open(tmp_path / "labels.png")
    masks = Image.open(tmp_path / "masks" / "0000.png")
    assert deployed.size == masks.size == (128, 96)
    assert deployed.convert("RGB").tobytes() == masks.convert("RGB").tobytes()
