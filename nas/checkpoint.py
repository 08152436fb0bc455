"""Checkpoints: plain containers and tensors in one file, loaded with `weights_only=True`, written atomically."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from search_spaces.files import write_atomically

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint"]

FORMAT = "nas-checkpoint"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: the message names the file and says why."""


def save_checkpoint(path: str | Path, kind: str, state: Mapping[str, Any]) -> None:
    """Writes `state` (nested dicts, lists, numbers, text, tensors) to `path`.

    Args:
        path: The file; the one that was there stays until the new one is whole on disk.
        kind: What it is the state of ("search", "retrain").
        state: What to save.
    """
    content = {"format": FORMAT, "version": 1, "kind": kind, **state}
    buffer = io.BytesIO()  # torch.save on a file of a full disk raises a RuntimeError that does not say so
    torch.save(content, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def load_checkpoint(path: str | Path, kind: str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Nothing in the file is executed: it is read with `weights_only=True`.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint, or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: name a run folder that has a checkpoint")
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is cut short, or not a zip file")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged file raises anything: UnpicklingError, IndexError, struct.error, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this toolkit")
    if state.get("version") != 1:
        raise CheckpointError(f"{path} has version {state.get('version')!r}: this release reads version 1")
    if state.get("kind") != kind:
        raise CheckpointError(f"{path} is the checkpoint of a {state.get('kind')} run: name the folder of a {kind} run")
    return state
