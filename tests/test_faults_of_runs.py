"""Checkpoints within an epoch, interrupts at any place, and the lock of a run folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nas.darts
import nas.training.interruption
import nas.training.session
from launched import settings
from nas.config import RunConfig
from nas.darts import search
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import LOCK, claimed, run_to_resume
from nas.runs.names import RunError
from nas.training.interruption import InterruptedRun, Interruption
from nas.training.session import moved
from retrain.config import RetrainConfig
from retrain.training import train
from runs import Killed, check_same_run, interrupt, kill, on_step

TESTS = Path(__file__).parent
STEPS = 12
"""Steps of an epoch of `settings`, those of weights and of the architecture counted alike."""


def retraining(folder: Path, **changes: Any) -> RetrainConfig:
    config = settings(folder)
    return RetrainConfig(
        genotype="fplnet-encoder", epochs=2, loader=config.loader, out=str(folder), device="cpu", **changes
    )


RUNS: dict[str, Any] = {"search": (search, settings), "retrain": (train, retraining)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs."""
    folder = tmp_path_factory.mktemp("whole")
    for kind, (run, config) in RUNS.items():
        run(config(folder / kind), quiet=True)
    return {kind: folder / kind for kind in RUNS}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("number", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, STEPS, STEPS + 1))])
def test_a_kill_costs_at_most_one_interval(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int
) -> None:
    """With a checkpoint after every step, no step before the one that was killed is taken again."""
    run, config = RUNS[kind]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        on_step(patch, number, kill)
        run(config(tmp_path / "run", checkpoint_minutes=0.0), quiet=True)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt", kind)["state"]
    taken = (number - 1) // 2 if kind == "search" else number - 1
    steps = 6 if kind == "search" else 13
    assert (state["epoch"] * steps + state["step"]) == taken
    run(config(tmp_path / "run", checkpoint_minutes=0.0), resume=tmp_path / "run", quiet=True)
    check_same_run(whole[kind], tmp_path / "run", kind)


def test_a_checkpoint_is_due_when_the_minutes_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(nas.training.interruption.time, "monotonic", lambda: now[0])
    clock = nas.training.interruption.CheckpointClock(0.5)
    assert not clock.due()
    now[0] += 30
    assert clock.due()
    clock.reset()
    assert not clock.due() and nas.training.interruption.CheckpointClock(0).due()


@pytest.mark.parametrize("kind", RUNS)
def test_an_interrupt_during_validation_saves_at_once(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run, config = RUNS[kind]
    evaluate = nas.training.session.evaluate_network

    def interrupted(*arguments: Any, **more: Any) -> Any:
        interrupt(signal.SIGTERM)
        return evaluate(*arguments, **more)

    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match="stopped and saved"):
        patch.setattr(nas.training.session, "evaluate_network", interrupted)
        run(config(tmp_path / "run"), quiet=True)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt", kind)["state"]
    assert state["epoch"] == 0 and state["step"] > 0  # all of its steps are taken, and not one of them again
    run(config(tmp_path / "run"), resume=tmp_path / "run", quiet=True)
    check_same_run(whole[kind], tmp_path / "run", kind)


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_killed_before_its_first_checkpoint_begins_again(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run, config = RUNS[kind]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(nas.training.session, "save_checkpoint", lambda *_: kill())
        run(config(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    half = tmp_path / "run" / ".checkpoint.pt.abc.tmp"
    half.write_bytes(b"half")
    run(config(tmp_path / "run"), resume=tmp_path / "run", quiet=True)
    check_same_run(whole[kind], tmp_path / "run", kind)
    assert not half.exists()


def test_signals_of_torchrun_come_twice_and_are_one() -> None:
    with Interruption(by_torchrun=True) as interruption:
        interrupt(signal.SIGINT)
        interrupt(signal.SIGTERM)
        assert interruption.requested
    with Interruption() as interruption, pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT)
        interrupt(signal.SIGINT)


HOLD = "import sys, time; from pathlib import Path; from nas.runs.folder import claimed\n"
HOLD += "with claimed(Path(sys.argv[1])): print('claimed', flush=True); time.sleep(60)"


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, cwd=TESTS.parent, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "claimed\n"
    with pytest.raises(RunError, match=f"another process is at work in {folder}"):
        search(settings(folder), quiet=True)
    assert [path.name for path in folder.iterdir()] == [LOCK]
    other.kill()
    other.wait()
    search(settings(folder, epochs=1), quiet=True)
    assert not (folder / LOCK).exists()


def test_a_folder_in_which_no_run_was_begun_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no split"):
        config = settings(tmp_path / "new")
        search(type(config)(**{**vars(config), "loader": type(config.loader)(train_split="none")}), quiet=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with claimed(tmp_path / "mine"):
        pass
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_job_that_torchrun_restarts_needs_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(out=str(tmp_path))
    assert run_to_resume(config, None) is None and run_to_resume(config, "runs/x") == Path("runs/x")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert run_to_resume(config, None) is None  # nothing was begun
    (tmp_path / "config.yaml").touch()
    assert run_to_resume(config, None) == tmp_path
    with pytest.raises(RunError, match="name the run's folder with --out"):
        run_to_resume(RunConfig(), None)


def test_with_another_number_of_processes_the_position_is_the_same_share() -> None:
    state = nas.darts.SearchState(epoch=3, step=9, weight_loss=18.0, architecture_loss=9.0, best_miou=0.5)
    assert moved(state, 2, 2) is state
    half = moved(state, 1, 2)
    assert (half.epoch, half.step, half.weight_loss, half.architecture_loss) == (3, 4, 8.0, 4.0)
    assert moved(state, 4, 2).step == 18 and half.best_miou == 0.5
