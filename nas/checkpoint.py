"""Checkpoints: plain containers and tensors in one file, loaded with `weights_only=True`, written atomically."""

from __future__ import annotations

import pickle
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
    write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(path: str | Path, kind: str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Nothing in the file is executed: it is read with `weights_only=True`.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint, or of another kind.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: name a run folder that has a checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this toolkit")
    if state.get("version") != 1:
        raise CheckpointError(f"{path} has version {state.get('version')!r}: this release reads version 1")
    if state.get("kind") != kind:
        raise CheckpointError(f"{path} is the checkpoint of a {state.get('kind')}: expected one of a {kind}")
    return state
