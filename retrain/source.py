"""What a run was trained from, kept in its folder: the published network's name, or a copy of the genotype."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.checkpoint import CheckpointError, fitting, load_checkpoint
from nas.config import from_plain
from nas.data.base import MAX_CLASSES
from nas.folders import runs_within
from nas.run import BEST, CHECKPOINT, GENOTYPE
from retrain.config import RetrainConfig
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork

__all__ = ["TrainedNetwork", "genotype_source", "load_trained"]

KIND = "retrain"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that would command a terminal."""


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
    val_miou: float
    """Validation mIoU behind its last epoch, 0 to 1; NaN where the file does not say."""


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
    within = "" if path.exists() else runs_within(folder)
    if within:
        raise CheckpointError(f"{folder} is not a run folder: it has no {path.name}{within}")
    saved: dict[str, Any] = load_checkpoint(path, KIND)
    with fitting(path):
        classes, colors = _classes(path, saved["classes"], saved["colors"])
        try:
            config = from_plain(RetrainConfig, saved["config"])
        except ValueError as error:
            raise CheckpointError(f"{path}: its settings cannot be: {error}") from None
        source = genotype_source(config, folder)
        with torch.device("meta"):  # the settings may ask for any width: without memory, until they fit the weights
            _check_shapes(path, build(source, len(classes), config.network), saved["network"])
        network = build(source, len(classes), config.network)
        network.load_state_dict(saved["network"])
        epoch, val_miou = int(saved["state"]["epoch"]), float(saved["state"].get("last_miou", "nan"))
        mirror = {int(one): int(other) for one, other in saved.get("mirror", {}).items()}  # an older run has none
    network = network.to(device or torch.device("cpu")).eval()
    return TrainedNetwork(network, config, classes, colors, mirror, path, epoch, val_miou)


def _classes(path: Path, names: Any, colors: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """The checked names and colours of the classes; they go into tables on the screen and into pictures."""
    good = isinstance(names, list) and 1 <= len(names) <= MAX_CLASSES
    good = good and all(isinstance(name, str) and not CONTROL.search(name) for name in names)
    good = good and isinstance(colors, list) and len(colors) == len(names)
    good = good and all(isinstance(color, list) and len(color) == 3 for color in colors)
    good = good and all(isinstance(part, int) and 0 <= part <= 255 for color in colors for part in color)
    if not good:
        raise CheckpointError(f"{path}: its classes cannot be: expected up to {MAX_CLASSES} names, each with a colour")
    return tuple(names), np.array(colors, dtype=np.uint8)


def _check_shapes(path: Path, network: SegmentationNetwork, weights: dict[str, Tensor]) -> None:
    wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: list(tensor.shape) for name, tensor in weights.items()}
    for name in {**wanted, **given}:
        if wanted.get(name) != given.get(name):
            raise CheckpointError(
                f"{path} does not fit its own settings: {name} has shape {given.get(name, 'none')}, and "
                f"{wanted.get(name, 'none')} in the network that they describe: name a folder of one run"
            )
