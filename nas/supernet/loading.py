"""The supernet of a search, restored from its run folder to decode it by what it does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nas.config import Engine, SearchConfig
from nas.data.base import SegmentationDataset
from nas.data.splits import validation_split
from nas.runs.checkpoint import load_checkpoint
from nas.runs.names import CHECKPOINT, read_config
from nas.supernet.network import Supernet, decode_supernet, make_supernet
from nas.training.devices import choose_device, set_float32
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace
from search_spaces.validation import from_plain

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

    def decoded(self, **provenance: object) -> Genotype:
        """The genotype of alpha and beta, with the run's origin in its provenance."""
        own = {"data": self.config.data, "classes": self.supernet.classes, "seed": self.config.seed}
        return decode_supernet(self.supernet, {**own, "epoch": self.epoch, **provenance})


def load_supernet(
    folder: str | Path,
    images: int | None = None,
    device: str = "auto",
    data_root: str | None = None,
    engine: Engine | None = None,
) -> Searched:
    """Restores the supernet of a search's last checkpoint.

    Args:
        folder: The run folder.
        images: Validation images, evenly spread; None: as many as the run had.
        device: Device to compute on.
        data_root: Folder of the data set, if it has moved.
        engine: As for `Supernet`; None: the run's.

    Raises:
        ValueError: The run, its data or the device cannot be used; one line with the remedy.
    """
    folder = Path(folder)
    config = from_plain(SearchConfig, read_config(folder))
    loader = config.loader if images is None else dataclasses.replace(config.loader, val_limit=images)
    how = config.supernet if engine is None else dataclasses.replace(config.supernet, engine=engine, graphs=False)
    config = dataclasses.replace(config, loader=loader, data_root=data_root or config.data_root, supernet=how)
    saved = load_checkpoint(folder / CHECKPOINT, "search")
    place = choose_device(device)
    set_float32(place, config.precision)
    validation = validation_split(config)
    supernet = make_supernet(config, SearchSpace.from_dict(saved["space"]), len(validation.classes)).to(place)
    supernet.load_state_dict(saved["supernet"])
    halves = tuple(half.numpy() for half in saved["split"])
    return Searched(config, supernet, place, validation, halves, saved["state"]["epoch"])
