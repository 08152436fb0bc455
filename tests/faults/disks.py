"""Disks that are full or read-only, tried for real: python tests/faults/disks.py

Mounts small file systems in a mount namespace of its own (Linux; `unshare -rm`, which needs no root where user
namespaces are allowed), so that nobody else sees them. A search runs on a disk that becomes full at each file that it
writes; then there is room again, the search goes on, and must end as one that was never disturbed, bit for bit. Prints
a table in Markdown. Exit codes: 0 all is well, 1 something was lost, 77 mounting is not allowed here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOT_ALLOWED = 77
TESTS = Path(__file__).parents[1]
INSIDE = "NAS_TRIES_DISKS_IN"


def main() -> None:
    """Starts this script anew where it may mount."""
    with tempfile.TemporaryDirectory() as folder:
        probe = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs tmpfs {folder}"]
        if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
            print("a user may not mount a file system here", file=sys.stderr)
            sys.exit(NOT_ALLOWED)
        path = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
        environment = {**os.environ, INSIDE: folder, "PYTHONPATH": path}
        words = ["unshare", "-rm", sys.executable, __file__]
        sys.exit(subprocess.run(words, env=environment, check=False).returncode)


def fill(disk: Path) -> None:
    """Writes until not a byte more fits."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass


def try_full(folder: Path) -> bool:
    """A disk that becomes full at one file after the other."""
    import pytest

    import nas.runs.checkpoint
    import nas.runs.folder
    import search_spaces.genotype
    import tiny
    from nas.darts import search
    from runs import check_same_run

    disk = folder / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk))
    patch = pytest.MonkeyPatch()
    tiny.without_pictures(patch)
    whole = search(tiny.searching(folder, out=str(folder / "whole")), quiet=True).folder
    run = disk / "run"
    config = tiny.searching(folder, out=str(run))

    def attempt(*resume: Path) -> tuple[int, str]:
        outcome = tiny.called("nas-search", lambda _: search(config, *resume, quiet=True))
        lines = outcome.err.strip().splitlines()  # above the last one may be what a thread of TensorBoard's says
        return outcome.code, lines[-1] if lines else ""

    def once_written(name: str, number: int) -> Callable[..., Any]:
        """A `write_atomically` before which the disk becomes full, when it writes the file the n-th time."""
        seen = [0]

        def write(path: Any, content: Any) -> Any:
            seen[0] += Path(path).name == name
            if Path(path).name == name and seen[0] == number:
                fill(disk)
            return search_spaces.files.write_atomically(path, content)

        return write

    def before(function: Callable[..., Any], number: int) -> Callable[..., Any]:
        """A function before whose n-th call the disk becomes full."""
        seen = [0]

        def called(*arguments: Any, **named: Any) -> Any:
            seen[0] += 1
            if seen[0] == number:
                fill(disk)
            return function(*arguments, **named)

        return called

    from torch.utils.tensorboard import SummaryWriter

    record, scalar, flush = nas.runs.folder.RunFolder.record, SummaryWriter.add_scalar, SummaryWriter.close
    faults: list[tuple[str, Any, str, Callable[..., Any]]] = [
        ("config.yaml", nas.runs.folder, "write_atomically", once_written("config.yaml", 1)),
        ("checkpoint.pt, first", nas.runs.checkpoint, "write_atomically", once_written("checkpoint.pt", 1)),
        ("checkpoint.pt, second", nas.runs.checkpoint, "write_atomically", once_written("checkpoint.pt", 2)),
        ("best.pt", nas.runs.checkpoint, "write_atomically", once_written("best.pt", 1)),
        ("genotype.json, first", search_spaces.genotype, "write_atomically", once_written("genotype.json", 1)),
        ("genotype.json, second", search_spaces.genotype, "write_atomically", once_written("genotype.json", 2)),
        ("metrics.jsonl and log.txt", nas.runs.folder.RunFolder, "record", before(record, 2)),
        ("TensorBoard", SummaryWriter, "add_scalar", before(scalar, 2)),
        ("TensorBoard, at the end", SummaryWriter, "close", before(flush, 1)),
    ]
    print("| the disk is full at | exit code and message | after that, with room |\n|---|---|---|")
    good = True
    for name, owner, attribute, replacement in faults:
        with pytest.MonkeyPatch.context() as full:
            full.setattr(owner, attribute, replacement)
            code, said = attempt()
        (disk / "filler").unlink()
        left = [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
        resumable = (run / "config.yaml").is_file() and (run / "checkpoint.pt").is_file()
        again, problem = attempt(run) if resumable else new_run(run, attempt)
        try:
            check_same_run(whole, run, "search")
            same = "the same end, bit for bit"
        except AssertionError as error:
            same = f"ANOTHER END: {error}"
        how = "--resume" if resumable else "a new run (nothing was begun)"
        fine = again == 0 and same.startswith("the same") and not left and said.count("\n") == 0
        good &= fine
        print(f"| {name} | {code}: {said or '(the run ended)'} | {how}: {problem or same}{left or ''} |", flush=True)
        shutil.rmtree(run)
    return good


def try_read_only(folder: Path) -> bool:
    """A run folder on a file system that became read-only; as the root user, too."""
    import tiny
    from nas.darts import search

    disk = folder / "read-only"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk))
    config = tiny.searching(folder, out=str(disk / "run"))
    run = search(config, quiet=True).folder
    contents = {path: path.read_bytes() for path in run.iterdir()}
    mount("-o", "remount,ro", str(disk))
    said = tiny.called("nas-search", lambda _: search(config, run, quiet=True)).err.strip()
    kept = contents == {path: path.read_bytes() for path in run.iterdir()}
    print("\n| read-only | message | the run folder |\n|---|---|---|")
    print(f"| the run folder | {said} | {'untouched' if kept else 'CHANGED'} |")
    return kept and "\n" not in said and "Read-only file system: choose a folder that you may write to" in said


def new_run(run: Path, attempt: Callable[..., tuple[int, str]]) -> tuple[int, str]:
    """What is left of a run that could not begin is no run: it is removed, and the same command begins anew."""
    if run.exists():
        shutil.rmtree(run)
    return attempt()


def try_shared_memory() -> bool:
    """A worker whose batches do not fit into /dev/shm, as in a container with the usual 64 MiB."""
    from nas.data.prefetch import Loader

    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm")
    try:
        with Loader(large, range(8), workers=1) as loader:
            list(loader)
        said = "nothing"
    except ValueError as error:
        said = str(error)
    print(f"\n| shared memory | message |\n|---|---|\n| 1 MiB, batches of 4 MB | {said} |")
    return said.startswith("a batch does not fit into shared memory") and "\n" not in said


def large(_: int) -> tuple[Any]:
    """A batch of 4 MB."""
    import torch

    return (torch.zeros(10**6),)


def mount(*arguments: str) -> None:
    """Mounts in this process's own namespace."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    if INSIDE in os.environ:
        place = Path(os.environ[INSIDE])
        results = [try_full(place), try_read_only(place), try_shared_memory()]
        sys.exit(0 if all(results) else 1)
    main()
