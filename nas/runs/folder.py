"""The run folder: everything that a run leaves behind, and the only code that writes there.

config.yaml      the command and all settings, resolved: the run can be repeated from it alone
checkpoint.pt    the last state; best.pt is the best one
genotype.json    the genotype that was found or is trained
space.yaml       a copy of the search space, if it was read from a file
metrics.jsonl    the record: one JSON object per epoch
genotypes.jsonl  the genotype after each epoch of a search (see `nas.runs.history`)
events.out.*     TensorBoard
log.txt          the output on the screen
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from nas.config import CHANGEABLE, RunConfig
from nas.data.base import DataError
from nas.runs.free_memory import ADVICE, is_out_of_memory
from nas.runs.names import BEST, CHECKPOINT, CONFIG, GENOTYPE, GENOTYPES, LOG, METRICS, SPACE, RunError
from search_spaces.extensions import load_plugins, loaded_extensions
from search_spaces.files import write_atomically
from search_spaces.validation import counted, differences, from_plain, to_plain

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

    from nas.runs.pictures import SampleKeeper

__all__ = [
    "RunFolder",
    "check_resumable",
    "claimed",
    "has_begun",
    "new_folder",
    "read_lines",
    "read_metrics",
    "run_to_resume",
]


def new_folder(config: RunConfig, name: str) -> Path:
    """The folder for a new run: `config.out`, or the first free one of runs/NAME, runs/NAME-2, ...

    Raises:
        RunError: `config.out` holds a run already, or is not a folder.
    """
    if config.out is None:
        path, number = Path("runs") / name, 1
        while path.exists():
            number += 1
            path = Path("runs") / f"{name}-{number}"
        return path
    path = Path(config.out)
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file: choose another --out")
    if (path / CONFIG).exists():
        raise RunError(f"{path} holds a run already: resume it with --resume {path}, or choose another --out")
    for name in (CHECKPOINT, BEST, METRICS, GENOTYPE, SPACE, LOG):
        if (path / name).exists():  # not a run's: a settings file may have named the folder
            raise RunError(f"{path} has a {name} that no run there has written: choose another --out")
    return path


def run_to_resume(config: RunConfig, resume: str | Path | None) -> Path | None:
    """The folder of the run to resume: the named one, or `config.out` of a job that torchrun restarts.

    Raises:
        RunError: torchrun restarts a job without --out.
    """
    if resume is not None:
        return Path(resume)
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return None
    if config.out is None:
        raise RunError("torchrun restarted the job, which must resume its run: name the run's folder with --out")
    return Path(config.out) if (Path(config.out) / CONFIG).exists() else None


def has_begun(folder: Path) -> bool:
    """Whether there is anything to resume; False if the run was killed before its first checkpoint."""
    return (folder / CHECKPOINT).exists() or bool(read_metrics(folder))


def check_resumable(saved: Mapping[str, Any], config: RunConfig, samples: int) -> None:
    """Check that a checkpoint comes from a run with these settings and as many training samples.

    Args:
        saved: The checkpoint, with `config` (plain), `state` and `samples`.
        config: The settings of the resumed run.
        samples: Number of training samples now.

    Raises:
        RunError: It does not; the message names the difference.
    """
    before = to_plain(from_plain(type(config), saved["config"]))  # with settings that are newer than the run
    changed = set(differences(before, to_plain(config))) - CHANGEABLE
    if changed:
        raise RunError(
            f"--resume with another {', '.join(sorted(changed))} would be another run: leave it as it was, "
            "or start a new run without --resume"
        )
    done = saved["state"]["epoch"]
    if config.epochs < done:
        raise RunError(
            f"the run has {counted(done, 'epoch')} already, more than --epochs {config.epochs}: give more, or leave it "
            "out"
        )
    if saved["samples"] != samples:
        raise RunError(
            f"the run was begun on {saved['samples']} training images, but there are {samples} now: put the data set "
            "back as it was"
        )


class _Screen(logging.StreamHandler[Any]):
    """Write to whatever standard output is at the moment, so that lines go above a progress bar, not through it."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        # Nobody reads the screen any more, as in `nas-search | head`: the run continues, and log.txt is complete.
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class RunFolder:
    """An open run folder; a context manager.

    Args:
        path: The folder, created if it is missing.
        config: The run's settings, written to config.yaml.
        epoch: Epochs done before a resume. Later lines of metrics.jsonl and genotypes.jsonl (of an epoch that was not
            saved) are dropped, so that each epoch is recorded once.
        quiet: Print nothing on the screen.
        writes: Whether this process writes and logs; of several processes, only rank 0 does.
    """

    def __init__(
        self, path: str | Path, config: RunConfig, epoch: int = 0, quiet: bool = False, writes: bool = True
    ) -> None:
        self.path = Path(path)
        self._epoch = epoch
        self._board: SummaryWriter | None = None
        self._handlers: list[logging.Handler] = []
        self.log = logging.getLogger(f"nas.{self.path.resolve()}")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        if not writes:
            self.log.setLevel(logging.CRITICAL)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / LOG).is_symlink():  # the other files are replaced, this one is appended to
            raise RunError(f"{self.path / LOG} is a link: a run writes to a log of its own; remove the link")
        for name in (CONFIG, CHECKPOINT, BEST, METRICS, GENOTYPES, GENOTYPE, SPACE):
            for left in self.path.glob(f".{name}.*.tmp"):  # incomplete files of a killed process
                left.unlink(missing_ok=True)
        write_atomically(
            self.path / CONFIG, yaml.safe_dump({"command": config.command, **to_plain(config)}, sort_keys=False)
        )
        for name in (METRICS, GENOTYPES):
            kept = [line for line in read_lines(self.path, name) if line["epoch"] < epoch]
            if name == METRICS or (self.path / name).exists():
                write_atomically(self.path / name, "".join(json.dumps(line) + "\n" for line in kept))
        file = logging.FileHandler(self.path / LOG, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handlers.append(file)
        if not quiet:
            screen = _Screen()
            screen.setFormatter(logging.Formatter("%(message)s"))
            self._handlers.append(screen)
        for handler in self._handlers:
            self.log.addHandler(handler)
        load_plugins()  # validation needs all metrics, and the log names the plugins
        if loaded_extensions():
            self.log.info("extensions: %s", ", ".join(map(str, loaded_extensions())))

    @property
    def board(self) -> SummaryWriter:
        """The TensorBoard writer, opened at first use (its import takes seconds)."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path), purge_step=self._epoch or None)
        return self._board

    def record(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and its numbers to TensorBoard.

        Nested mappings become scalars named by their path: {"loss": {"weights": 1.0}} is "loss/weights".
        """
        self.append(METRICS, {"epoch": epoch, **values})
        for name, value in _scalars(values):
            self.board.add_scalar(name, value, epoch)

    def append(self, name: str, line: Mapping[str, Any]) -> None:
        """Append a line, which includes `epoch`, to metrics.jsonl or genotypes.jsonl."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def show_samples(self, epoch: int, samples: SampleKeeper, colors: np.ndarray) -> None:
        """Show images, labels and predictions side by side in TensorBoard; colors is uint8 [classes, 3]."""
        from nas.runs.pictures import prediction_strip

        for number, sample in enumerate(samples.kept):
            self.board.add_image(f"samples/{number}", prediction_strip(*sample, colors), epoch, dataformats="HWC")

    def close(self) -> None:
        """Flush TensorBoard and closes the log."""
        try:
            if self._board is not None:
                self._board.close()  # fails on a full disk
        finally:
            for handler in self._handlers:
                self.log.removeHandler(handler)
                handler.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DataError):  # in the middle of a run: its results so far are kept
            error.args = (f"{error}. Fix that, then resume with --resume {self.path}",)
        self.close()
        if is_out_of_memory(error):
            raise RunError(
                f"out of memory. What was saved is untouched: resume with --resume {self.path} when there is more; or "
                f"start a new run, and {ADVICE}"
            ) from error


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl; a truncated last line is left out."""
    return read_lines(folder, METRICS)


def read_lines(folder: str | Path, name: str) -> list[dict[str, Any]]:
    """Read the lines of a file with one JSON object per epoch; a truncated last line is left out."""
    path = Path(folder) / name
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):  # ValueError: not JSON, or a number with thousands of digits
            continue
        if isinstance(line, dict) and isinstance(line.get("epoch"), int):
            lines.append(line)
    return lines


def _scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


try:
    import fcntl
except ImportError:  # pragma: no cover (Windows: there, runs are not locked)
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Create the folder and lock it for this process; remove it at the end if no run was started in it.

    The lock ends with the process, however that ends. (POSIX record locks, because loader workers would inherit those
    of `flock` or the package filelock, and hold them for seconds after their parent was killed.)

    Raises:
        RunError: Another process holds it.
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
                with contextlib.suppress(OSError):  # another file is in it
                    folder.rmdir()


def _locked(path: Path) -> IO[str]:
    if path.is_symlink():  # a stranger's folder may have one, to a file that is not ours to open
        raise RunError(f"{path} is a link: a run locks a file of its own; remove the link")
    while True:
        file = path.open("a")
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
        file.close()  # its owner has removed the file meanwhile: this lock is void
