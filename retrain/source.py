"""What a run was trained from, kept in its folder: the published network's name, or a copy of the genotype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.checkpoint import CheckpointError, load_checkpoint
from nas.config import from_plain
from nas.run import BEST, CHECKPOINT, GENOTYPE
from retrain.config import RetrainConfig
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork

__all__ = ["TrainedNetwork", "genotype_source", "load_trained"]

KIND = "retrain"


@dataclass(frozen=True)
class TrainedNetwork:
    """A network from a run folder, in eval mode, with what is needed to use it."""

    network: SegmentationNetwork
    """(N, 3, H, W) in [-1, 1] -> logits (N, classes, H, W)."""
    config: RetrainConfig
    """Settings of the run."""
    classes: tuple[str, ...]
    """Names of the classes."""
    colors: np.ndarray
    """uint8 [classes, 3]."""
    mirror: Mapping[int, int]
    """Classes that a mirror image turns into others (`SegmentationDataset.mirror`)."""
    checkpoint: Path
    """The file that it was read from."""
    epoch: int
    """Epochs that the weights were trained for."""


def genotype_source(config: RetrainConfig, folder: Path) -> str | Path:
    """What `build` makes the run's network from: the published name, or the run's own copy of the genotype."""
    return config.genotype if config.genotype in NETWORKS else folder / GENOTYPE


def load_trained(run: str | Path, which: str = "best", device: torch.device | None = None) -> TrainedNetwork:
    """Loads the network of a retraining run.

    Args:
        run: The run folder.
        which: "best" (highest validation mIoU) or "last".
        device: Where to put it; None: the CPU.

    Raises:
        ValueError: Not a retraining run, or its checkpoint cannot be used; one line.
    """
    folder, files = Path(run), {"best": BEST, "last": CHECKPOINT}
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: name the run folder that nas-retrain wrote")
    if which not in files:
        raise CheckpointError(f"there is no checkpoint {which!r}: choose one of {', '.join(files)}")
    path = folder / files[which]
    saved: dict[str, Any] = load_checkpoint(path, KIND)
    config = from_plain(RetrainConfig, saved["config"])
    network = build(genotype_source(config, folder), len(saved["classes"]), config.network)
    network.load_state_dict(saved["network"])
    return TrainedNetwork(
        network.to(device or torch.device("cpu")).eval(),
        config,
        tuple(saved["classes"]),
        np.array(saved["colors"], dtype=np.uint8),
        dict(saved.get("mirror", {})),  # an older run has none
        path,
        saved["state"]["epoch"],
    )
