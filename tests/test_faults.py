"""Faults, tried for real: what is said, what is left, and that the run goes on to the very same end."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data.base import DataError
from nas.data.prefetch import Loader
from nas.runs.checkpoint import load_checkpoint
from nas.runs.names import read_config
from retrain.config import RetrainConfig
from retrain.training import train
from runs import check_same_run, on_step
from search_spaces.validation import from_plain
from tiny import LOADER, command, refused, training, without_pictures

KILLS = Path(__file__).parent / "faults" / "kill.py"
DISKS, NOT_ALLOWED = Path(__file__).parent / "faults" / "disks.py", 77
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="mounts, and signals of workers, are tried on Linux")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


# Data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set `folder` of eight images for training and two for validation."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"images/{split}/{number}.png")
            Image.fromarray(pixels[..., 0] % 3).save(root / f"labels/{split}/{number}.png")
    (root / "classes.txt").write_text("a\nb\nc\n")
    return root


def on_disk(tmp_path: Path, data: Path, name: str, **reading: Any) -> RetrainConfig:
    """A training on that data, which reads each batch when it is needed."""
    loader = dataclasses.replace(LOADER, **({"prefetch": 0} | reading))
    return training(tmp_path, data="folder", data_root=str(data), loader=loader, out=str(tmp_path / name))


def resumed(folder: Path) -> Path:
    return train(from_plain(RetrainConfig, read_config(folder)), resume=folder, quiet=True).folder


def vanish(data: Path) -> None:
    data.rename(data.with_name("gone"))


def cut(data: Path) -> None:
    for path in (data / "images/train").iterdir():
        path.with_suffix(".whole").write_bytes(path.read_bytes())
        path.write_bytes(path.read_bytes()[:200])


def bring_back(data: Path) -> None:
    if data.with_name("gone").exists():
        data.with_name("gone").rename(data)
    for path in (data / "images/train").glob("*.whole"):
        path.rename(path.with_suffix(".png"))


@pytest.mark.parametrize("reading", [{}, {"workers": 1, "prefetch": 1}, {"prefetch": 2}], ids=str)
@pytest.mark.parametrize(("fault", "says"), [(vanish, "cannot be read: .*No such file"), (cut, "cannot be read: ")])
def test_data_that_break_in_the_middle_of_a_run_are_named_and_mended_it_goes_on(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Path], None],
    says: str,
    reading: dict[str, int],
) -> None:
    whole = train(on_disk(tmp_path, data, "whole"), quiet=True).folder
    before = set(multiprocessing.active_children())
    with monkeypatch.context() as patch:
        on_step(patch, 5, lambda: fault(data))  # in the second epoch
        with pytest.raises(DataError, match=rf"(image|label) .*data/(images|labels)/train/\d\.png {says}") as raised:
            train(on_disk(tmp_path, data, "run", **reading), quiet=True)
    assert str(raised.value).endswith(f"Fix that, then resume with --resume {tmp_path / 'run'}")
    assert "\n" not in str(raised.value) and set(multiprocessing.active_children()) <= before
    if fault is vanish:
        assert "does not exist" in refused("nas-retrain", "--resume", tmp_path / "run", "--quiet")
    bring_back(data)
    check_same_run(whole, resumed(tmp_path / "run"), "retrain")


# Workers


def _pid(number: int) -> tuple[torch.Tensor]:
    if number:
        time.sleep(0.01)
    return (torch.tensor(os.getpid()),)


@LINUX
@pytest.mark.parametrize("waits", [True, False])
def test_a_dead_worker_is_said_in_one_line(waits: bool) -> None:
    began, before = time.monotonic(), set(multiprocessing.active_children())
    with (
        pytest.raises(DataError, match=r"a loader's worker, has died: .*: give --loader\.workers 0") as raised,
        Loader(_pid, range(1000), workers=2, prefetch=1) as loader,
    ):
        batches = iter(loader)
        os.kill(int(next(batches)[0]), signal.SIGKILL)
        if waits:
            list(batches)
        else:
            time.sleep(5)  # torch says it by a signal, wherever the main process is
    assert "\n" not in str(raised.value) and time.monotonic() - began < 5
    assert set(multiprocessing.active_children()) <= before


@LINUX
def test_a_run_whose_worker_dies_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(training(tmp_path, out=str(tmp_path / "whole")), quiet=True).folder
    config = training(tmp_path, loader=dataclasses.replace(LOADER, workers=2))
    before = set(multiprocessing.active_children())

    def kill_workers() -> None:
        for child in set(multiprocessing.active_children()) - before:
            os.kill(child.pid or 0, signal.SIGKILL)

    with monkeypatch.context() as patch:
        on_step(patch, 5, kill_workers)
        with pytest.raises(DataError, match=r"--loader\.workers 0.* resume with --resume") as raised:
            train(config, quiet=True)
    assert "\n" not in str(raised.value)
    folder = tmp_path / "run"
    assert command("nas-retrain", "--resume", folder, "--loader.workers=0", "--quiet").code == 0
    check_same_run(whole, folder, "retrain")


# Disks


@LINUX
@pytest.mark.slow
def test_full_and_read_only_disks() -> None:
    """The script mounts small file systems, in a process of its own that sees them alone."""
    done = subprocess.run([sys.executable, DISKS], capture_output=True, text=True, timeout=200, check=False)
    if done.returncode == NOT_ALLOWED:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


# Kills


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    "options", ["--only rank,seeds,sweep,predict,export,report", "--slow-writes --only search,retrain"]
)
def test_a_command_that_is_killed_comes_to_the_same_end(options: str) -> None:
    words = [sys.executable, KILLS, "--kills", "2", *options.split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Checkpoints


def test_a_run_goes_on_from_its_best_checkpoint_where_the_last_is_cut_short(tmp_path: Path) -> None:
    whole = train(training(tmp_path, out=str(tmp_path / "whole")), quiet=True).folder
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    line = refused("nas-retrain", "--resume", folder, "--quiet")
    assert f"{path} is damaged" in line and f"copy {folder / 'best.pt'} over it to resume" in line
    shutil.copy(folder / "best.pt", path)
    assert load_checkpoint(path, "retrain")["state"]["epoch"] in (1, 2)
    assert command("nas-retrain", "--resume", folder, "--quiet").code == 0
    check_same_run(whole, folder, "retrain")
    (folder / "best.pt").unlink()
    path.write_bytes(b"")
    assert "copy" not in refused("nas-retrain", "--resume", folder, "--quiet")
