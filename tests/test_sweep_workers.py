"""Several workers on one study: no trial is lost or run twice, whatever the storage, and whoever is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from retrain.sweeps.ledger import END, FAILED, LOST, RETRY_OF, SURPLUS, Ledger
from retrain.sweeps.settings import Parameter
from retrain.sweeps.storage import open_storage
from retrain.sweeps.study import TrialRun
from retrain.sweeps.workers import Jobs
from sweep_workers import make_study, objective, start, start_on_jobs

ROOT = Path(__file__).parent.parent
PATIENCE = 1.5


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[Any]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the server did not start")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """A private cluster on loopback, by the binaries of Debian's package; its URL."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *map(Path, os.get_exec_path())]
    binaries = next((folder for folder in folders if (folder / "initdb").exists()), None)
    if binaries is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    if find_spec("psycopg") is None:
        pytest.skip("no driver of PostgreSQL here: pip install 'psycopg[binary]'")
    home, port = Path(tempfile.mkdtemp(prefix="nas-postgresql-")), free_port()
    user: dict[str, Any] = {"cwd": home, "stdout": subprocess.DEVNULL}
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(home, "nobody")
        user["user"] = "nobody"
    data = home / "data"
    initialize = [binaries / "initdb", "-D", data, "-U", "nas", "-A", "trust", "--no-sync", "--no-instructions"]
    subprocess.run(initialize, check=True, **user)
    serve = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", home, "-F"]
    server = subprocess.Popen(serve, stderr=subprocess.DEVNULL, **user)
    try:
        wait_for(port, server)
        yield f"postgresql://nas@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for connections that are open
        server.wait(30)
        shutil.rmtree(home)


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("postgresql") if request.param == "postgresql" else request.param


def check_whole(trials: list[FrozenTrial], folder: Path, places: int) -> None:
    """As many results as there are places, each trial begun once, and each lost one tried again once."""
    results = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(results) == places
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    surplus = [trial for trial in trials if trial.user_attrs.get(END) == SURPLUS]
    assert len((folder / "begun.txt").read_text().split()) == len(trials) - len(surplus)
    kept = [trial for trial in trials if trial not in surplus]
    lost = [trial for trial in kept if trial.user_attrs.get(END) == LOST]
    again = [trial for trial in kept if RETRY_OF in trial.user_attrs]
    assert Counter(t.user_attrs[RETRY_OF] for t in again) == Counter(t.number for t in lost)
    by_number = {trial.number: trial for trial in trials}
    assert all(trial.params == by_number[trial.user_attrs[RETRY_OF]].params for trial in again)
    drawn = [tuple(trial.params.values()) for trial in kept if RETRY_OF not in trial.user_attrs]
    assert len(set(drawn)) == len(drawn) == places


def test_three_workers_of_which_one_is_killed(storage: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {"trials": 30, "patience": PATIENCE, "sampler": "random"}
    workers = [start(tmp_path, storage, dies_in, **config) for dies_in in (1, None, None)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [-9, 0, 0]
    trials = make_study(tmp_path, storage, **config).trials
    assert any(trial.user_attrs.get(END) == LOST for trial in trials)
    check_whole(trials, tmp_path, 30)


def test_the_same_command_goes_on_with_a_study_whose_only_worker_was_killed(tmp_path: Path) -> None:
    config: dict[str, Any] = {"trials": 4, "patience": 0.6}
    for dies_in in (2, None):
        worker = start(tmp_path, None, dies_in, **config)
        worker.join(120)
    assert worker.exitcode == 0
    trials = make_study(tmp_path, **config).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    check_whole(trials, tmp_path, 4)
    make_study(tmp_path, trials=4).work(objective)  # there is nothing left to do
    assert len(make_study(tmp_path, trials=6).trials) == 5
    make_study(tmp_path, trials=6).work(objective)
    assert len(make_study(tmp_path, trials=6).trials) == 7


def test_a_grid_is_shared_by_several_workers_each_point_once(tmp_path: Path) -> None:
    parameters = (Parameter("layers", range=(2, 6)), Parameter("optimizer.momentum", choices=(0.0, 0.5)))
    config: dict[str, Any] = {"sampler": "grid", "parameters": parameters, "patience": PATIENCE}
    workers = [start(tmp_path, None, dies_in, **config) for dies_in in (1, None, None)]
    for worker in workers:
        worker.join(120)
    trials = make_study(tmp_path, **config).trials
    check_whole(trials, tmp_path, 10)
    points = {(trial.params["layers"], trial.params["optimizer.momentum"]) for trial in trials}
    assert points == {(layers, momentum) for layers in range(2, 7) for momentum in (0.0, 0.5)}


def test_workers_on_other_machines_reach_the_storage_by_a_proxy(tmp_path: Path) -> None:
    port = free_port()
    options = ["--storage", str(tmp_path / "journal.log"), "--port", str(port)]
    command = [sys.executable, "-m", "cli.sweep", "proxy", *options]
    proxy = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert proxy.stdout is not None
        assert "serving" in proxy.stdout.readline()
        wait_for(port, proxy)
        config = {"trials": 8, "patience": PATIENCE}
        workers = [start(tmp_path, f"grpc://127.0.0.1:{port}", dies_in, **config) for dies_in in (1, None)]
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [-9, 0]
    finally:
        proxy.terminate()
        proxy.wait(30)
    check_whole(make_study(tmp_path, **config).trials, tmp_path, 8)


def test_a_worker_that_was_taken_for_dead_gives_its_trial_up(tmp_path: Path) -> None:
    study, other = (make_study(tmp_path, trials=2, retries=1) for _ in range(2))
    begun = []

    def taken_away(trial: TrialRun) -> list[float]:
        begun.append(trial.folder.name)
        if len(begun) == 1:
            [running] = [t for t in other.trials if t.state == TrialState.RUNNING]
            other._watch.fail(running, **{END: LOST})
        return objective(trial)

    study.work(taken_away)
    trials = study.trials
    assert [t.user_attrs.get(END) for t in trials] == [LOST, None, None]
    assert trials[0].params == trials[1].params
    assert begun == ["trial-0", "trial-1", "trial-2"]


def test_a_trial_that_kills_its_workers_is_given_up_after_its_retries(tmp_path: Path) -> None:
    config: dict[str, Any] = {"trials": 1, "patience": 0.3, "retries": 1}
    for dies_in in (1, 1, None):
        start_and_wait(tmp_path, dies_in, **config)
    trials = make_study(tmp_path, **config).trials
    assert [t.user_attrs.get(RETRY_OF) for t in trials] == [None, 0, None]
    assert [t.state.name for t in trials] == ["FAIL", "FAIL", "COMPLETE"]


def start_and_wait(folder: Path, dies_in: int | None, **config: Any) -> None:
    worker = start(folder, None, dies_in, **config)
    worker.join(120)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mysql://x", "begins with sqlite:///, postgresql:// or grpc://"),
        ("study.txt", "give journal, sqlite, a URL, or a journal file"),
        ("grpc://127.0.0.1:9", "no proxy answers at 127.0.0.1:9: start one there with nas-sweep proxy"),
    ],
)
def test_a_storage_that_is_none_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrain.sweeps.storage.SECONDS", 0.2)
    with pytest.raises(ValueError, match=message):
        open_storage(name, tmp_path)


@pytest.mark.skipif(find_spec("psycopg") is None, reason="no driver of PostgreSQL here")
def test_a_database_that_is_away_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrain.sweeps.storage.STARTS", 1)
    with pytest.raises(ValueError, match=r"the storage cannot be opened: .*refused.*Look whether it runs"):
        open_storage("postgresql://nas@127.0.0.1:9/postgres", tmp_path)


# The ledger, with all orders of what workers do


@dataclass
class Row:
    number: int
    state: TrialState = TrialState.RUNNING
    user_attrs: dict[str, Any] = field(default_factory=dict)


def worker_steps(
    rows: list[Row], places: int, retries: int, replaces: bool, draws: random.Random
) -> Iterator[int | None]:
    """A worker that yields between any two looks at, and changes of, what all share; the number that it runs."""
    while True:
        ledger = Ledger(rows, retries, replaces)
        yield None
        again = ledger.pending[0] if ledger.pending else None
        if again is None and ledger.occupied() >= places:
            if not ledger.running:
                return
            continue
        row = Row(len(rows), user_attrs={} if again is None else {RETRY_OF: again})
        rows.append(row)
        yield None
        rightful = Ledger(rows, retries, replaces).is_rightful(row.number, places)
        yield row.number if rightful else None
        if not rightful:
            row.user_attrs[END] = SURPLUS
            row.state = TrialState.FAIL
        elif (chance := draws.random()) < 0.15:
            row.user_attrs[END] = LOST
            row.state = TrialState.FAIL
        elif chance < 0.25:
            row.user_attrs[END] = FAILED
            row.state = TrialState.FAIL
        else:
            row.state = TrialState.COMPLETE
        yield None


@pytest.mark.parametrize("replaces", [True, False])
def test_in_every_order_of_steps_there_are_as_many_trials_as_places(replaces: bool) -> None:
    for seed in range(150):
        draws = random.Random(seed)
        rows: list[Row] = []
        begun: list[int] = []
        workers = [worker_steps(rows, 6, 2, replaces, draws) for _ in range(4)]
        while workers:
            worker = draws.choice(workers)
            try:
                number = next(worker)
            except StopIteration:
                workers.remove(worker)
                continue
            begun += [] if number is None else [number]
        assert len(set(begun)) == len(begun)
        retried = [rows[number].user_attrs[RETRY_OF] for number in begun if RETRY_OF in rows[number].user_attrs]
        assert len(set(retried)) == len(retried), "a lost trial is tried again by one worker only"
        roots = [number for number in begun if RETRY_OF not in rows[number].user_attrs]
        if replaces:
            assert Ledger(rows, 2).occupied() == sum(row.state == TrialState.COMPLETE for row in rows) == 6
        else:
            assert len(roots) == 6
            assert sorted(Ledger(rows, 2, False).rank(number) for number in roots) == list(range(6))


def test_optuna_knows_the_storage_as_its_dashboard_does(tmp_path: Path) -> None:
    make_study(tmp_path, trials=2).work(objective)
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    )
    assert len(study.trials) == 2
    assert set(study.best_params) == {"optimizer.lr", "optimizer.momentum"}


def test_workers_do_each_job_of_a_list_once_and_that_of_a_killed_one_again(tmp_path: Path) -> None:
    workers = [start_on_jobs(tmp_path, dies) for dies in (True, False, False)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [-9, 0, 0]
    assert sorted(map(int, (tmp_path / "done.txt").read_text().split())) == list(range(12))
    results = Jobs(open_storage(None, tmp_path), "jobs", {}, [], lambda *_: {}).results()
    assert results == {str(number): {"miou": 0.5, "by_epoch": [0.25, None, 0.5]} for number in range(12)}
