"""What the scripts here share: small runs by `python -m cli.search` and `cli.retrain`, whose steps can be counted, and
other commands, each with what its end must be equal to."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import tiny  # noqa: E402
from nas.runs.checkpoint import load_checkpoint  # noqa: E402
from runs import check_same_run  # noqa: E402
from search_spaces.validation import to_plain  # noqa: E402

KINDS = ("search", "retrain")
STEPS = 8
"""Steps of the weights in an epoch."""

COUNTED = """
import io, os, runpy, sys, time
import nas.runs.checkpoint
from nas.training.step import Stepper

step, file = Stepper.step, os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

def counted(self, images, labels, where):
    value = step(self, images, labels, where)
    if self.name != "architecture":
        os.write(file, b".")
    return value

write = nas.runs.checkpoint.write_atomically

def slowly(path, content):
    def pieces(file):
        content(buffer := io.BytesIO())
        data = buffer.getvalue()
        for first in range(0, len(data), len(data) // 20 + 1):
            file.write(data[first : first + len(data) // 20 + 1])
            file.flush()
            time.sleep(0.02)
    return write(path, pieces)

if os.environ.get("NAS_TRIES_SLOW_WRITES"):
    nas.runs.checkpoint.write_atomically = slowly
Stepper.step = counted
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs a module as `python -m` does, and writes a byte into a file for every step of the weights. Where the environment
asks for it, a checkpoint is written in pieces, during 0.4 seconds."""


@dataclass(frozen=True)
class Run:
    """A run of one of the commands, by a settings file, in a folder of its own."""

    kind: str
    """search or retrain."""
    settings: Path
    """The file for --config."""
    folder: Path
    """The run folder."""
    options: tuple[str, ...] = ()
    """Further options of every command line."""

    @property
    def checkpoint(self) -> Path:
        """The last state."""
        return self.folder / "checkpoint.pt"

    @property
    def counter(self) -> Path:
        """A byte for each step that the process took that was started last."""
        return self.folder.with_suffix(".steps")

    def start(self) -> subprocess.Popen[str]:
        """Starts the command anew, or with --resume where there is something to go on from."""
        where = ["--config", str(self.settings), "--out", str(self.folder)]
        if self.checkpoint.exists():
            where = ["--resume", str(self.folder)]
        self.counter.write_bytes(b"")
        words = [sys.executable, "-c", COUNTED, str(self.counter), f"cli.{self.kind}", *where, "--quiet", *self.options]
        environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def is_writing(self) -> bool:
        """Whether a half-written checkpoint is there."""
        return any(path.stat().st_size for path in self.folder.glob(".checkpoint.pt.*.tmp"))

    def steps(self) -> int:
        """Steps that the process took that was started last."""
        return self.counter.stat().st_size

    def position(self) -> int:
        """Steps of the weights that the checkpoint holds; it must be a valid one. 0 where there is none yet."""
        if not self.checkpoint.exists():
            return 0
        state = load_checkpoint(self.checkpoint, self.kind)["state"]
        return state["epoch"] * STEPS + state["step"]

    def wait_for(self, process: subprocess.Popen[str], steps: int) -> None:
        """Waits until the process has taken so many steps, or has ended."""
        while process.poll() is None and self.steps() < steps:
            time.sleep(0.002)


def small_run(kind: str, folder: Path, name: str, epochs: int, options: tuple[str, ...] = ()) -> Run:
    """A run of `epochs` epochs of 8 steps."""
    images = STEPS * 2 * (2 if kind == "search" else 1)  # a search learns from half of them
    loader = dataclasses.replace(tiny.LOADER, train_limit=images)
    make = tiny.searching if kind == "search" else tiny.training
    settings = to_plain(make(folder, loader=loader, epochs=epochs, device="cpu", out=None))
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Run(kind, file, folder / f"{kind}-{name}", options)


def finish(run: Run) -> float:
    """Lets the command run to its end; returns the seconds it took.

    Raises:
        RuntimeError: It failed.
    """
    began = time.monotonic()
    process = run.start()
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{run.kind} ended with {process.returncode}: {said}")
    return time.monotonic() - began


def option(name: str, default: str) -> str:
    """The value behind `name` on the command line."""
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


Compare = Callable[[Path, Path], None]
"""Checks that what was written to a folder is what an undisturbed command wrote to another; AssertionError if not."""


@dataclass(frozen=True)
class Command:
    """A command that is given again, word for word, after it was killed."""

    words: tuple[str, ...]
    """The module, and its arguments but the last two."""
    option: str
    """The option that names the file or folder to write."""
    compare: Compare
    file: str = ""
    """The file in the folder, where the option names one."""

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """Starts the command, to write into a folder."""
        words = [sys.executable, "-m", *self.words, self.option, str(folder / self.file)]
        environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def same_runs(whole: Path, other: Path) -> None:
    """The same runs, bit for bit."""
    runs = sorted(path.parent.relative_to(whole) for path in whole.rglob("config.yaml"))
    assert runs and runs == sorted(path.parent.relative_to(other) for path in other.rglob("config.yaml"))
    for run in runs:
        searched = "nas-search" in (whole / run / "config.yaml").read_text().splitlines()[0]
        check_same_run(whole / run, other / run, "search" if searched else "retrain")


def same_ranking(whole: Path, other: Path) -> None:
    """The same runs, and the same table of them."""
    same_runs(whole, other)
    assert (whole / "ranking.md").read_text().replace(str(whole), "") == (
        (other / "ranking.md").read_text().replace(str(other), "")
    )


def same_files(whole: Path, other: Path) -> None:
    """The same files, bit for bit."""
    names = sorted(path.name for path in whole.iterdir())
    assert names and names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (whole / name).read_bytes() == (other / name).read_bytes(), name


def same_report(whole: Path, other: Path) -> None:
    """The same page but for the time at which it was made, and for the names of parts of pictures, drawn by lot."""
    pages = [(folder / "report.html").read_text() for folder in (whole, other)]
    first, second = (re.sub(r"Made 2.*?,|<svg.*?</svg>|base64,[^\"]*", "", page, flags=re.DOTALL) for page in pages)
    assert first.endswith("</html>\n") and first == second


def whole_study(_: Path, other: Path) -> None:
    """All trials are there, each with its own run to the end. (A trial that is tried again has another number.)"""
    from optuna.trial import TrialState

    from nas.runs.folder import read_metrics
    from retrain.sweeps.study import open_study

    done = [trial for trial in open_study(other).trials if trial.state == TrialState.COMPLETE]
    equal = len({trial.values[0] for trial in done}) == 1  # then none is best
    assert len(done) == 2 and (other / "report.md").is_file() and (equal or (other / "best.yaml").is_file())
    for trial in done:
        lines = read_metrics(other / trial.user_attrs["folder"])
        assert [line["epoch"] for line in lines] == [0] and lines[-1]["val"]["miou"] == trial.values[0]


def whole_commands(folder: Path) -> Mapping[str, Command]:
    """The commands, with a trained network, images, a genotype and a sweep of their own."""
    trained = small_run("retrain", folder, "trained", 1)
    searched = small_run("search", folder, "searched", 1)
    for run in (trained, searched):
        if not run.checkpoint.exists():
            finish(run)
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for seed in range(12):
        pixels = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{seed}.png")
    sweep = {
        "command": "search",
        "sampler": "random",
        "trials": 2,
        "patience": 2.0,
        "parameters": {"optimizer.momentum": {"range": [0.0, 0.9]}},
    }
    (folder / "sweep.yaml").write_text(json.dumps(sweep), encoding="utf-8")
    genotype, training = str(searched.folder / "genotype.json"), str(trained.settings)
    ranked = ("--config", training, "--random", "1", "--seeds", "0,1")
    made = {
        "rank": Command(("cli.rank", genotype, *ranked), "--out", same_ranking),
        "seeds": Command(("cli.search", "--config", str(searched.settings), "--seeds", "0,1"), "--out", same_runs),
        "sweep": Command(
            ("cli.sweep", str(folder / "sweep.yaml"), "--config", str(searched.settings)), "--out", whole_study
        ),
        "predict": Command(("cli.predict", str(trained.folder), str(images)), "--out", same_files),
        "export": Command(("cli.export", str(trained.folder)), "--onnx", same_files, "model.onnx"),
        "report": Command(("cli.report", str(trained.folder)), "--out", same_report, "report.html"),
    }
    return made if find_spec("onnxruntime") else {name: made[name] for name in made if name != "export"}
