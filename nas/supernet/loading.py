"""The supernet of a search, restored from its run folder to decode it by what it does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nas.config import DataChanged, Engine, SearchConfig
from nas.data.base import SegmentationDataset
from nas.data.identity import check_same_data, data_identity, data_provenance, recorded_data
from nas.data.splits import validation_split
from nas.runs.checkpoint import load_checkpoint
from nas.runs.names import CHECKPOINT, read_config
from nas.supernet.network import Supernet, decode_supernet, make_supernet
from nas.training.devices import choose_device, set_float32
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace
from search_spaces.validation import as_path, from_plain

__all__ = ["Searched", "load_supernet"]


class Searched(NamedTuple):
    """A search as its last checkpoint has it."""

    config: SearchConfig
    supernet: Supernet
    device: torch.device
    validation: SegmentationDataset
    halves: tuple[np.ndarray, ...]
    """Indices of trainA and of trainB."""
    epoch: int
    """Number of finished epochs."""
    data: dict[str, Any]
    """The identity of its data (see `nas.data.identity`)."""

    def decoded(self, **provenance: object) -> Genotype:
        """The genotype of alpha and beta, with the run's origin in its provenance."""
        own = data_provenance(self.config, self.data) | {"seed": self.config.seed, "epoch": self.epoch}
        return decode_supernet(self.supernet, own | provenance)


def load_supernet(
    folder: str | Path,
    images: int | None = None,
    device: str = "auto",
    data_root: str | None = None,
    engine: Engine | None = None,
    data_changed: DataChanged = "refuse",
) -> Searched:
    """Restores the supernet of a search's last checkpoint.

    Args:
        folder: The run folder.
        images: Validation images, evenly spread; None: as many as the run had.
        device: Device to compute on.
        data_root: Folder of the data set, if it has moved.
        engine: As for `Supernet`; None: the run's.
        data_changed: Reaction if the validation split has other samples than the search had: refuse, or accept.

    Raises:
        ValueError: The run, its data or the device cannot be used; one line with the remedy.
    """
    folder = as_path(folder)
    config = from_plain(SearchConfig, read_config(folder))
    loader = config.loader if images is None else dataclasses.replace(config.loader, val_limit=images)
    how = config.supernet if engine is None else dataclasses.replace(config.supernet, engine=engine, graphs=False)
    config = dataclasses.replace(config, loader=loader, data_root=data_root or config.data_root, supernet=how)
    saved = load_checkpoint(folder / CHECKPOINT, "search")
    place = choose_device(device)
    set_float32(place, config.precision)
    validation = validation_split(config)
    identity = data_identity(config.data_root, validation)
    check_same_data(recorded_data(saved), identity, folder, data_changed == "accept")
    supernet = make_supernet(config, SearchSpace.from_dict(saved["space"]), len(validation.classes)).to(place)
    supernet.load_state_dict(saved["supernet"])
    halves = tuple(half.numpy() for half in saved["split"])
    return Searched(config, supernet, place, validation, halves, saved["state"]["epoch"], saved.get("data", identity))
