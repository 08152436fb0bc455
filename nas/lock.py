"""A run folder is one run's: a second process is refused while the first is at work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nas.run import CONFIG, RunError

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows: there, runs are not locked)
    fcntl = None  # type: ignore[assignment]

__all__ = ["claimed"]

LOCK = ".lock"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps it for this process; one in which no run was begun is removed at the end.

    The lock is the process's and goes with it, however it ends. (POSIX record locks, and not those of `flock` or of
    the package filelock: loader workers would inherit them, and hold them for seconds after their parent was killed.)

    Raises:
        RunError: Another process has it.
        OSError: The folder cannot be written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with _locked(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if made and not (folder / CONFIG).exists():
                with contextlib.suppress(OSError):  # something else was put there
                    folder.rmdir()


def _locked(path: Path) -> IO[str]:
    """The file, opened and locked."""
    while True:
        file = path.open("w")
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except (BlockingIOError, PermissionError):
            file.close()
            raise RunError(
                f"another process is at work in {path.parent}: wait until it has ended, or stop it; or choose another "
                "--out for a new run"
            ) from None
        file.close()  # the one that had it removed it meanwhile: it is no lock any more
