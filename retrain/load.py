"""What a run was trained from, kept in its folder: the published network's name, or a copy of the genotype.

The weights that a training starts from, and which of them learn faster: pretrained parts, and the head on them.

A trained network made ready to be used: its precision, batch norms folded, compiled.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.config import Precision
from nas.data.base import MAX_CLASSES
from nas.evaluation.inference import Inference
from nas.runs.checkpoint import CheckpointError, fitting, load_checkpoint
from nas.runs.free_memory import is_out_of_memory
from nas.runs.names import BEST, CHECKPOINT, GENOTYPE, runs_within
from nas.training.devices import choose_device, set_float32
from retrain.config import OptimizerConfig, RetrainConfig
from retrain.folding import fold_batch_norms
from retrain.networks import NETWORKS, build
from retrain.networks.base import FeatureInfo, SegmentationNetwork
from search_spaces.validation import from_plain

__all__ = [
    "ReadyNetwork",
    "TrainedNetwork",
    "genotype_source",
    "head_multipliers",
    "initialize",
    "load_matching",
    "load_ready",
    "load_trained",
    "memory_advice",
]


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
    """Validation mIoU after its last epoch, 0 to 1; NaN before the first epoch has ended."""


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
        epoch, val_miou = int(saved["state"]["epoch"]), float(saved["state"]["last_miou"])
        mirror = {int(one): int(other) for one, other in saved["mirror"].items()}
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


def initialize(network: SegmentationNetwork, config: RetrainConfig) -> str | None:
    """Loads the weights that the settings name into a fresh network.

    Returns:
        One line that says what was loaded; None where nothing is asked for.

    Raises:
        ValueError: The file cannot be used, or batch norms shall be kept as they are and nothing is loaded.
    """
    if config.init_from is not None:
        return load_matching(network, config.init_from)
    if config.network.backbone_weights is not None:
        from retrain.networks.backbone_weights import load_backbone_weights

        return load_backbone_weights(network, config.network.backbone_weights)
    if config.network.frozen_batch_norm:
        raise ValueError(
            "network.frozen_batch_norm is true (in the recipe smoothing, too), and needs the statistics of trained "
            "weights: give --network.backbone-weights FILE or --init-from RUN, or --network.frozen-batch-norm false"
        )
    return None


@torch.no_grad()
def load_matching(network: nn.Module, source: str | Path) -> str:
    """Copies the tensors of a trained network that have the same name and shape here.

    Args:
        network: Where to; what finds no counterpart stays as it is.
        source: The folder of a retraining run (its best checkpoint is taken), or a checkpoint file of one.

    Returns:
        One line that says how many tensors were taken, and which children of the network were left fresh.

    Raises:
        ValueError: There is no such checkpoint, or it has no parameter in common with the network.
    """
    path = Path(source)
    path = path / BEST if path.is_dir() else path
    weights, own = load_checkpoint(path, KIND).get("network"), network.state_dict()
    weights = weights if isinstance(weights, dict) else {}
    saved = {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    taken = {name for name, tensor in own.items() if name in saved and saved[name].shape == tensor.shape}
    if not taken & {name for name, _ in network.named_parameters()}:
        raise ValueError(
            f"{path} has no weights in common with the network: its parts are {_children(saved)}, those of the network "
            f"{_children(own)}; give --init-from a run of the same network or of a part of it, or leave it out"
        )
    for name in taken:
        own[name].copy_(saved[name])
    fresh = [name for name in own if name not in taken]
    left = f"; fresh, wholly or in part: {_children(fresh)}" if fresh else ""
    return f"{len(taken)} of {len(own)} tensors from {path}{left}"


def _children(names: Iterable[str]) -> str:
    """The children that the named tensors belong to."""
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))


def head_multipliers(network: SegmentationNetwork, config: OptimizerConfig) -> dict[Tensor, float]:
    """The factor on the learning rate of each parameter of the network's head, where the settings ask for one.

    Raises:
        ValueError: They do, and the network has no head, or the head no bias.
    """
    rest = config.head_lr_multiplier
    bias = rest if config.head_bias_lr_multiplier is None else config.head_bias_lr_multiplier
    if rest == bias == 1:
        return {}
    if not network.head:
        raise ValueError(
            f"optimizer.head_lr_multiplier is {rest:g} and optimizer.head_bias_lr_multiplier {bias:g}, but "
            f"{type(network).__name__} has no head that is told from the rest: leave them out"
        )
    head = [module for name in network.head for module in network.get_submodule(name).modules()]
    multipliers: dict[Tensor, float] = {
        parameter: rest for module in head for parameter in module.parameters(recurse=False)
    }
    convolutions = [module for module in head if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    biases = [module.bias for module in convolutions if module.bias is not None]
    if bias != rest and not biases:
        raise ValueError(
            f"optimizer.head_bias_lr_multiplier is {bias:g}, but the convolutions in the head of "
            f"{type(network).__name__} have no bias: leave it out"
        )
    return multipliers | dict.fromkeys(biases, bias)


@dataclasses.dataclass(frozen=True)
class ReadyNetwork:
    """A trained network on its device, in eval mode, and how it is computed."""

    network: nn.Module
    """(N, 3, H, W) in [-1, 1] -> logits (N, classes, H, W)."""
    trained: TrainedNetwork
    """What it was made from: settings, classes, colours."""
    device: torch.device
    """Where it is."""
    precision: Precision
    """Of the forward pass."""
    folded: int
    """Batch norms that became part of a convolution."""


def load_ready(run: str | Path, which: str, device: str, how: Inference) -> ReadyNetwork:
    """Loads the network of a retraining run for use.

    Args:
        run: The run folder.
        which: "best" (highest validation mIoU) or "last".
        device: auto, cpu, cuda, cuda:N.
        how: Precision, folding, compiling; windows are checked against the network.

    Raises:
        ValueError: The run, its checkpoint, the device, the precision or the window cannot be used, or there is no
            compiler; one line.
    """
    place = choose_device(device)
    trained = load_trained(run, which)
    network: nn.Module = trained.network
    _check_window(network, how)
    own = trained.config.precision
    if own == "tf32" and place.type != "cuda":
        own = "float32"  # which the run's own stood for, and is here
    precision = how.precision or own
    set_float32(place, precision)
    folded = 0
    if how.fold:
        network, folded = fold_batch_norms(network)  # on the CPU, where float32 is float32
    network = network.to(place)
    if how.compile:
        _check_compiler(place)
        network.compile()
    return ReadyNetwork(network, trained, place, precision, folded)


def _check_window(network: nn.Module, how: Inference) -> None:
    features: list[FeatureInfo] = getattr(network, "feature_info", [])
    largest = max((info.stride for info in features), default=1)
    if how.window is not None and min(how.window) < largest:
        raise ValueError(
            f"window {how.window[0]}x{how.window[1]} is smaller than the network's largest stride, {largest} pixels: "
            f"give at least {largest}x{largest}; about the crop that it was trained on is best"
        )


def _check_compiler(device: torch.device) -> None:
    """Compiles one addition: what PyTorch needs for that (a C++ compiler; on a GPU, Triton) may not be there.

    Raises:
        ValueError: It cannot be compiled.
    """

    def work(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    try:
        torch.compile(work, options={"fx_graph_cache": False})(torch.zeros(8, device=device))
    except Exception as error:  # each backend, and each missing part, raises something of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(error).__name__
        raise ValueError(
            f"--compile cannot work here ({reason}): install a C++ compiler such as g++ (on a GPU, Triton, too), or "
            "leave it out"
        ) from error


@contextmanager
def memory_advice() -> Iterator[None]:
    """Running out of memory within it ends in one line that says what to do.

    Raises:
        ValueError: There is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            "out of memory: see large images in windows (--window 512x512; fewer at once by --window-batch 1), give "
            "--precision bfloat16 or smaller --scales"
        ) from error
