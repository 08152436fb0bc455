"""Where a study is kept, and signs of life from those who work on it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from nas.runs.folder import refuse_links
from search_spaces.files import open_own
from search_spaces.validation import as_path, require, without_password

__all__ = ["BEAT", "BEATS", "Beat", "LostTrialError", "Watch", "is_out_of_reach", "open_storage", "study_name"]

BEAT = "nas:beat"
"""System attribute of a running trial: a number that its worker raises as long as it lives."""
BEATS = 6
"""Signs of life within the patience of the others."""
SCHEMES = ("sqlite:", "postgresql:", "postgresql+", "grpc:")
SECONDS = 10.0
"""Patience with a proxy that does not answer."""
BLOCK = 2**16
"""Bytes of a journal's end that are read at a time."""
STARTS = 5
"""Attempts at opening: where workers start at once, each wants to make the tables of a database."""


class LostTrialError(RuntimeError):
    """Others took this worker for dead and its trial is marked failed: it must be given up."""


class _Journal(JournalFileBackend):
    """Optuna's journal, a line for each change, which survives full disks and power cuts.

    A half line at the end is cut, under the lock, before the next one is appended. Where a line does not fit onto the
    disk, the file is put back as it was.
    """

    def __init__(self, path: Path) -> None:
        open_own(path).close()
        # A lock that is a file works on NFS, too, and one that a killed worker left is broken after half a minute. (The
        # default, a symbolic link, is broken only where the file's path is the same on all machines.)
        self._path, self._mutex = path, JournalFileOpenLock(str(path))
        super().__init__(str(path), self._mutex)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                number += 1
                yield log
        except FileNotFoundError:
            raise ValueError(f"{self._path} is gone: was the study's folder moved or removed?") from None
        except ValueError as error:
            remedy = "take a whole copy, or remove that line, whose change is then lost"
            raise ValueError(f"{self._path}, line {number + 1}: it is broken ({error}): {remedy}") from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs).encode()
        self._mutex.acquire()
        try:
            with open_own(self._path, "r+b", buffering=0) as file:
                end = _whole(file)
                if file.seek(0, os.SEEK_END) > end:
                    file.truncate(end)
                try:
                    file.seek(end)
                    while lines:  # a part of them, where the disk becomes full
                        lines = lines[file.write(lines) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        finally:
            self._mutex.release()


def _whole(file: IO[bytes]) -> int:
    """Bytes of a journal without a last line that is cut short."""
    size = file.seek(0, os.SEEK_END)
    tail, start = b"", size
    while start > 0 and b"\n" not in tail[:-1]:
        start = max(0, start - BLOCK)
        file.seek(start)
        tail = file.read(size - start)
    last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
    try:
        whole = last.endswith(b"\n") and isinstance(json.loads(last), dict)
    except ValueError:
        whole = False
    return size if whole else size - len(last)


def open_storage(name: str | None, folder: Path) -> BaseStorage:
    """Opens the storage of a study.

    Args:
        name: None or "journal", a journal file in the folder; "sqlite", a database there; a URL of one
            (sqlite:///FILE, postgresql://USER@HOST/NAME); grpc://HOST:PORT, a proxy; or the path of a journal file.
            `$NAME` is expanded in all of them.
        folder: The study's.

    Raises:
        ValueError: It is none of these, or cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of parts of Optuna that are years old
    name = None if name is None else os.path.expandvars(name)
    if name == "sqlite":
        refuse_links([folder / "study.db"])
        name = f"sqlite:///{folder / 'study.db'}"
    if name is None or name == "journal" or "://" not in name:
        shown = without_password(str(name))
        path = folder / "journal.log" if name in (None, "journal") else as_path(str(name))
        require(path.suffix == ".log", f"--storage is {shown!r}: give journal, sqlite, a URL, or a journal file (.log)")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return JournalStorage(_Journal(path))
        except (LookupError, TypeError) as error:  # its lines are JSON, but not Optuna's
            raise ValueError(f"{path} cannot be read as a study's storage ({error!r}): take a whole copy") from error
    shown = without_password(name)
    require(name.startswith(SCHEMES), f"--storage is {shown!r}: a URL begins with sqlite:///, postgresql:// or grpc://")
    if name.startswith("grpc:"):
        return _proxy(name)
    return _database(name)


def study_name(name: str | None, storage: str | None, folder: Path) -> str:
    """The name of the study of a folder's jobs: the one that is given; else, in a shared storage, the folder's.

    In a storage of the folder's own it is always the same, so that the folder may be renamed.
    """
    return name or ("jobs" if storage in (None, "journal", "sqlite") else folder.resolve().name)


def _database(url: str) -> BaseStorage:
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)  # SQLAlchemy's default differs between versions
    options: dict[str, object] = {"pool_pre_ping": True}  # a connection that the server closed is reopened
    if url.startswith("sqlite:"):
        options = {"connect_args": {"timeout": 60}}
        path = as_path(url.partition(":///")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{path}"
    for attempt in range(STARTS):
        try:
            return optuna.storages.get_storage(RDBStorage(url, engine_kwargs=options))
        except ImportError as error:
            raise ValueError(f"PostgreSQL needs the package {error.name}: pip install 'psycopg[binary]'") from error
        except Exception as error:  # of SQLAlchemy, of the driver, of Optuna
            if attempt == STARTS - 1:
                reason = str(error).strip().partition("\n")[0].replace(url, without_password(url))
                raise ValueError(
                    f"the storage cannot be opened: {reason}. Look whether it runs, and at the URL"
                ) from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("not reached")


def _proxy(url: str) -> BaseStorage:
    from urllib.parse import urlsplit

    from optuna.storages import GrpcStorageProxy

    parts = urlsplit(url)
    port = parts.port or 13000
    storage = GrpcStorageProxy(host=parts.hostname or "localhost", port=port)
    try:
        storage.wait_server_ready(timeout=SECONDS)
    except Exception as error:  # grpc's own
        raise ValueError(
            f"no proxy answers at {parts.hostname}:{port}: start one there with nas-sweep proxy --storage URL"
        ) from error
    return storage


def is_out_of_reach(error: BaseException) -> bool:
    """Whether this error means that a database or a proxy does not answer."""
    return isinstance(error, StorageInternalError) or type(error).__module__.startswith("grpc")


class Beat:
    """A context in which a thread gives signs of life for a trial.

    Args:
        storage: The study's.
        trial_id: The storage's number of the trial.
        patience: Seconds after which the others take the worker for dead.
    """

    def __init__(self, storage: BaseStorage, trial_id: int, patience: float) -> None:
        self._storage, self._trial_id, self._interval = storage, trial_id, patience / BEATS
        self._stop, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="nas-sweep-beat", daemon=True)

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(self._interval):
            count += 1
            try:
                self._storage.set_trial_system_attr(self._trial_id, BEAT, count)
            except UpdateFinishedTrialError:
                self._lost = True
                return
            except Exception:  # a storage that is away for a moment, in its own words: the next beat may reach it
                continue

    def check(self) -> None:
        """Raises LostTrialError if the trial was taken away."""
        if self._lost:
            raise LostTrialError("this worker was taken for dead, and another one tries its trial again")

    def __enter__(self) -> Beat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


class Watch:
    """Notices trials whose worker gives no sign of life. It compares no clocks of different machines.

    Args:
        storage: The study's.
        patience: Seconds, by this machine's clock, for which a sign of life may stay the same.
    """

    def __init__(self, storage: BaseStorage, patience: float) -> None:
        self._storage, self._patience = storage, patience
        self._seen: dict[int, tuple[object, float]] = {}

    def lost(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Those of the trials whose worker is dead."""
        now, seen = time.monotonic(), {}
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                beat = trial.system_attrs.get(BEAT)
                before = self._seen.get(trial.number)
                seen[trial.number] = before if before is not None and before[0] == beat else (beat, now)
        self._seen = seen
        return [t for t in trials if t.number in seen and now - seen[t.number][1] > self._patience]

    def fail(self, trial: FrozenTrial, **attributes: str) -> None:
        """Marks a trial failed, unless it has ended meanwhile."""
        trial_id = trial._trial_id
        with contextlib.suppress(UpdateFinishedTrialError):
            for name, value in attributes.items():
                self._storage.set_trial_user_attr(trial_id, name, value)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
