"""Checkpoints: plain containers and tensors in one file, loaded with `weights_only=True`, written atomically.

A file may come from a stranger. Nothing in it is executed, and the memory it takes is bounded by its own size:
`weights_only=True` alone would inflate compressed entries, and call `bytearray(10**11)` for a file of a kilobyte.
"""

from __future__ import annotations

import errno
import io
import math
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from nas.runs.free_memory import is_out_of_memory
from nas.runs.names import BEST, CHECKPOINT
from search_spaces.files import write_atomically
from search_spaces.validation import as_path

__all__ = ["CheckpointError", "fitting", "load_checkpoint", "read_plain", "save_checkpoint"]

FORMAT = "nas-checkpoint"

PLAIN = re.compile(
    r"collections OrderedDict|torch._utils _rebuild_(tensor_v2|parameter)|"
    r"torch (\w+Storage|Size|b?float\d+|u?int\d+|bool)"
)
"""Names allowed in a pickle: those that `torch.save` writes for tensors in plain containers."""
NAMING = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
"""Pickle instructions that name something outside the file."""
LEGACY_PICKLES = 4
"""Pickles at the start of a file from before PyTorch 1.6: a number, a version, the system, the content."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the reason."""


def save_checkpoint(path: str | Path, kind: str, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; an existing file stays until the new one is complete on disk.

    Args:
        path: The file.
        kind: Kind of run ("search", "retrain").
        state: Nested dicts, lists, numbers, text, and tensors.
    """
    content = {"format": FORMAT, "version": 1, "kind": kind, **state}
    buffer = io.BytesIO()  # on a full disk, torch.save raises a RuntimeError that hides the cause
    torch.save(content, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def load_checkpoint(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with `weights_only=True`: nothing in the file is executed.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint, or of another kind.
    """
    path = as_path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: name a run folder that has a checkpoint")
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is cut short, or not a zip file")
        state = read_plain(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file raises anything: UnpicklingError, IndexError, struct.error, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({reason}){_another(path)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this toolkit")
    if state.get("version") != 1:
        raise CheckpointError(f"{path} has version {state.get('version')!r}: this release reads version 1")
    if state.get("kind") != kind:
        raise CheckpointError(f"{path} is the checkpoint of a {state.get('kind')} run: name the folder of a {kind} run")
    return state


@contextmanager
def fitting(path: str | Path) -> Iterator[None]:
    """Turn errors in loading a checkpoint's content into a CheckpointError of one line.

    Raises:
        CheckpointError: Something is missing, or differs in shape or type from its destination.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {reason[:300]}{'...' * (len(reason) > 300)}"
        raise CheckpointError(
            f"{path} does not fit together with the run's settings ({reason}): name a folder whose files are of one run"
        ) from error


def read_plain(path: str | Path) -> Any:
    """Read a file of `torch.save` onto the CPU: tensors, numbers and text in dicts, lists and tuples.

    Raises:
        ValueError: It holds something else, or would take more memory than the file suggests.
        Exception: Whatever a damaged file makes PyTorch raise.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe, a device: reading might never end
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        size = path.stat().st_size
        if zipfile.is_zipfile(file):
            _check_zip(zipfile.ZipFile(file), size)
        else:
            file.seek(0)
            for _ in range(LEGACY_PICKLES):
                _check_names(file)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if _parts(content, {}) > size:  # nested lists that repeat one list many times
        raise ValueError("what it holds unfolds to more than the file")
    return content


def _check_zip(archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size:
        raise ValueError(f"its entries take {unpacked:,} bytes, but the file has {size:,}")
    for entry in entries:
        if entry.filename.lower().endswith(".pkl"):
            _check_names(io.BytesIO(archive.read(entry)))


def _check_names(file: IO[bytes]) -> None:
    """Check the names in a pickle without executing it; leaves the file at the pickle's end."""
    for instruction, name, _ in pickletools.genops(file):
        if instruction.name in NAMING and not PLAIN.fullmatch(str(name)):
            raise ValueError(f"it names {name or 'something'}, which is neither a tensor nor a plain container")


def _parts(value: Any, known: dict[int, float]) -> float:
    """Number of parts of nested containers, counted again at each occurrence."""
    if isinstance(value, torch.Tensor):
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"a tensor of shape {list(value.shape)} has fewer numbers than that")
        return 1
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # stays if the container holds itself
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_parts(part, known) for part in inner)
    return known[id(value)]


def _another(path: Path) -> str:
    """Remedy for a damaged checkpoint if the run folder holds another."""
    others = [name for name in (CHECKPOINT, BEST) if name != path.name and (path.parent / name).is_file()]
    if path.name != CHECKPOINT or not others:
        return ""
    return f": copy {path.with_name(others[0])} over it to resume from the best epoch, or start a new run"
