"""Several processes: what two compute together is what one computes, for steps, batch norms, runs; and their faults."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import launched
from nas.config import SearchConfig
from nas.darts import search
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.runs.names import read_config
from nas.training.distributed import ALONE
from retrain.training import train
from runs import check_same_run, equal
from search_spaces.validation import from_plain, to_plain

TESTS = Path(__file__).parent


def torchrun(*arguments: str, count: int = 2, restarts: int = 0, **more: Any) -> subprocess.Popen[str]:
    """Processes started by torchrun, in the folder of the packages."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", f"--max_restarts={restarts}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    return subprocess.Popen(
        [sys.executable, *command, *arguments],
        cwd=TESTS.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


def launch(check: str, folder: Path) -> list[Any]:
    """What each of two processes found in a check of tests/launched.py."""
    process = torchrun(str(TESTS / "launched.py"), check, str(folder))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def close(first: Any, second: Any) -> bool:
    """Whether nested containers hold the same numbers to rounding in float64."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(close, first, second))
    first, second = torch.as_tensor(first).double(), torch.as_tensor(second).double()
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-9, atol=1e-11)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return launch("everything", tmp_path_factory.mktemp("everything"))


def test_exchanges(found: list[Any]) -> None:
    for rank, each in enumerate(found):
        each = each["exchanges"]
        assert each["any"] == [(True, False), (False,)]
        assert each["agreed"] == "by 0" and each["error"] == "said by 0"
        assert "the processes differ in numbers" in each["differ"]
        assert "graphs is on, but there are several processes" in each["graphs"]
        assert each["turns"] == [[0, 2, 4], [1, 3]][rank]


def test_an_evaluation_in_shares_counts_what_one_process_counts(found: list[Any]) -> None:
    alone = launched.exchanges(ALONE)["counts"]
    assert [each["exchanges"]["counts"] for each in found] == [alone, alone] and sum(map(sum, alone)) > 0


def test_the_forced_supernet_measured_in_shares_is_that_of_one_process(found: list[Any]) -> None:
    alone = launched.gap(ALONE)
    assert [each["gap"] for each in found] == [alone, alone] and alone > 0


@pytest.mark.parametrize("kind", ["affine", "plain"])
def test_a_synchronized_batch_norm_is_one_over_the_whole_batch(found: list[Any], kind: str) -> None:
    alone = launched.batch_norms(ALONE, kind)
    name = f"batch norm {kind}"
    assert close(torch.cat([each[name].pop("y") for each in found]), alone.pop("y"))
    assert all(close(each[name], alone) for each in found)


@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("norms", ["frozen", "synchronized"])
def test_steps_are_those_of_one_process_with_the_whole_batch(found: list[Any], engine: str, norms: str) -> None:
    alone = launched.steps(ALONE, engine, norms)
    for each in found:
        assert close(each[f"{engine} {norms}"], alone)
    assert equal(found[0][f"{engine} {norms}"], found[1][f"{engine} {norms}"])  # bit for bit


def test_steps_with_recomputation_and_synchronized_batch_norms(found: list[Any]) -> None:
    alone = launched.steps(ALONE, "fast", "synchronized", recompute="node")
    assert all(close(each["recomputed"], alone) for each in found)


def test_steps_with_a_drawn_alpha_and_a_penalty_are_those_of_one_process(found: list[Any]) -> None:
    alone = launched.steps(ALONE, "fast", "synchronized", options=launched.OPTIONS)
    assert all(close(each["options"], alone) for each in found)


def test_accumulated_steps_are_those_of_one_process(found: list[Any]) -> None:
    """Two processes with two images each take images 0 and 2 first, then 1 and 3, and update once."""
    alone = launched.steps(ALONE, "fast", "frozen", accumulate=2, order=(0, 2, 1, 3))
    assert all(close(each["accumulated"], alone) for each in found)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("searches")
    return folder / "run", launch("searches", folder)


@pytest.mark.slow
def test_all_processes_of_a_search_have_one_architecture(searched: tuple[Path, list[Any]]) -> None:
    folder, (first, second) = searched
    assert len(first["architecture"]) == 2 and equal(first, second)
    assert not equal(first["architecture"][0], first["architecture"][1])  # it learns
    names = {path.name.partition(".tfevents")[0] for path in folder.iterdir()}
    assert {"checkpoint.pt", "genotype.json", "metrics.jsonl", "log.txt", "events.out"} <= names
    assert (folder / "log.txt").read_text().count("epoch 1/2") == 1  # one process writes
    assert load_checkpoint(folder / "checkpoint.pt", "search")["processes"] == 2


@pytest.mark.slow
def test_a_retraining_is_that_of_one_process_with_the_whole_batch(
    searched: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """Losses and mIoU of two epochs, to the rounding of float32."""
    train(launched.retraining(tmp_path / "alone", batch_size=4), quiet=True)
    both = [read_metrics(folder) for folder in (searched[0].parent / "trained", tmp_path / "alone")]
    losses = [[line["loss"]["training"] for line in lines] for lines in both]
    mious = [[line["val"]["miou"] for line in lines] for lines in both]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert mious[0] == pytest.approx(mious[1], abs=2e-3)


def command(folder: Path) -> list[str]:
    """A search of the settings of `launched.settings`, saved after every step."""
    file = folder.parent / "settings.yaml"
    plain = to_plain(launched.settings(folder, checkpoint_minutes=0.0))
    file.write_text(yaml.safe_dump({name: value for name, value in plain.items() if value is not None}))
    return ["-m", "cli.search", "--config", str(file)]


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes of a run, in the order of their ranks."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, found) if b"cli.search" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for_a_step(folder: Path, number: int, process: subprocess.Popen[str]) -> None:
    """Until a checkpoint of that step of the first epoch, or a later one, is there."""
    for _ in range(600):
        if (folder / "checkpoint.pt").exists():
            state = load_checkpoint(folder / "checkpoint.pt", "search")["state"]
            if (state["epoch"], state["step"]) >= (0, number):
                return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("no checkpoint in a minute")


@pytest.mark.slow
def test_a_lost_process_ends_the_job_and_a_restart_goes_on(searched: tuple[Path, list[Any]], tmp_path: Path) -> None:
    """kill -9 of one process: the other says so; torchrun starts both anew, which resume; the result is the same."""
    process = torchrun(*command(tmp_path / "run"), restarts=1)
    wait_for_a_step(tmp_path / "run", 2, process)
    os.kill(children(process)[1], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    check_same_run(searched[0], tmp_path / "run", "search")


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on_with_two_processes_or_with_one(
    searched: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = torchrun(*command(folder))
    wait_for_a_step(folder, 2, process)
    process.terminate()
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and said.count("stopped and saved; continue with") == 1, said
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    resumed = torchrun("-m", "cli.search", f"--resume={folder}", "--quiet")
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    check_same_run(searched[0], folder, "search")
    alone = search(from_plain(SearchConfig, read_config(copy)), resume=copy, quiet=True)
    assert len(read_metrics(copy)) == 2 and alone.folder == copy
