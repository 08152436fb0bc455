"""What the scripts here share: small runs by `python -m cli.search` and `cli.retrain`, whose steps can be counted."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import tiny  # noqa: E402
from nas.config import to_plain  # noqa: E402
from nas.runs.checkpoint import load_checkpoint  # noqa: E402

KINDS = ("search", "retrain")
STEPS = 8
"""Steps of the weights in an epoch."""

COUNTED = """
import os, runpy, sys
from nas.training.step import Stepper

step, file = Stepper.step, os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

def counted(self, images, labels, where):
    value = step(self, images, labels, where)
    if self.name != "architecture":
        os.write(file, b".")
    return value

Stepper.step = counted
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs a module as `python -m` does, and writes a byte into a file for every step of the weights."""


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
