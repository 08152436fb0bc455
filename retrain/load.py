"""Trained networks: loaded from a run folder, and made ready for use (precision, folding of batch norms, compiling)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from nas.config import Precision
from nas.data.base import MAX_CLASSES
from nas.data.identity import recorded_data
from nas.evaluation.cost import channels_of
from nas.evaluation.inference import Inference
from nas.runs.checkpoint import CheckpointError, fitting, load_checkpoint
from nas.runs.free_memory import is_out_of_memory
from nas.runs.names import BEST, CHECKPOINT, GENOTYPE, runs_within
from nas.training.devices import choose_device, set_float32
from retrain.config import RetrainConfig
from retrain.networks import NETWORKS, build
from retrain.networks.base import FeatureInfo, SegmentationNetwork
from search_spaces.genotype import load_genotype
from search_spaces.modules import BatchNorm
from search_spaces.validation import as_path, from_plain

__all__ = [
    "TOLERANCE",
    "ReadyNetwork",
    "TrainedNetwork",
    "check_genotype",
    "fold_batch_norms",
    "genotype_source",
    "load_ready",
    "load_trained",
    "memory_advice",
]

KIND = "retrain"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that would control a terminal."""
TOLERANCE = 1e-5
"""Largest difference of the logits, relative to the largest one, for which a folded network is used."""
SIZE = 64
"""Side in pixels of the image on which it is compared."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network from a run folder, in eval mode, and the facts needed to use it."""

    network: SegmentationNetwork
    """(N, C, H, W) -> logits (N, classes, H, W)."""
    config: RetrainConfig
    classes: tuple[str, ...]
    """Names of the classes."""
    colors: np.ndarray
    """uint8 [classes, 3]."""
    mirror: Mapping[int, int]
    """Classes that a mirror image turns into others (`SegmentationDataset.mirror`)."""
    data: Mapping[str, Any]
    """Identity of the data that it was trained on (see `nas.data.identity`)."""
    checkpoint: Path
    """Its file."""
    epoch: int
    """Epochs for which the weights were trained."""
    val_miou: float
    """Validation mIoU after its last epoch, 0 to 1; NaN before the first epoch has ended."""


def genotype_source(config: RetrainConfig, folder: Path) -> str | Path:
    """Returns the argument of `build` for a run's network: a published name, or the run's own copy of the genotype."""
    return config.genotype if config.genotype in NETWORKS else folder / GENOTYPE


def check_genotype(saved: Mapping[str, Any], source: str | Path, checkpoint: Path) -> None:
    """Refuses a genotype that is not the one whose weights a checkpoint holds.

    Args:
        saved: The checkpoint; one of an older release knows no genotype.
        source: As `genotype_source` gives it.
        checkpoint: The file, for the message.

    Raises:
        CheckpointError: Space, cell or path were edited, or replaced; one line with the remedy.
    """
    known = saved.get("genotype")
    if known is not None and isinstance(source, Path) and load_genotype(source).digest != known:
        raise CheckpointError(
            f"{source} is not the genotype whose weights {checkpoint} holds: its space, cell or path were changed; put "
            f"the file back as it was, or train the changed one: nas-retrain {source}"
        )


def load_trained(run: str | Path, which: str = "best", device: torch.device | None = None) -> TrainedNetwork:
    """Loads the network of a retraining run.

    Args:
        run: The run folder.
        which: "best" (highest validation mIoU) or "last".
        device: Device of the network; None: the CPU.

    Raises:
        ValueError: Not a retraining run, or its checkpoint cannot be used; one line.
    """
    folder, files = as_path(run), {"best": BEST, "last": CHECKPOINT}
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
            raise CheckpointError(f"{path}: its settings cannot be used: {error}") from None
        source = genotype_source(config, folder)
        check_genotype(saved, source, path)
        with torch.device("meta"):  # no memory until the settings, which may ask for any width, fit the weights
            _check_shapes(path, build(source, len(classes), config.network), saved["network"])
        network = build(source, len(classes), config.network)
        network.load_state_dict(saved["network"])
        epoch, val_miou = int(saved["state"]["epoch"]), float(saved["state"]["last_miou"])
        data = {**recorded_data(saved), "classes": list(classes), "colors": colors.tolist()}
        mirror = {int(one): int(other) for one, other in saved["mirror"].items()}
    network = network.to(device or torch.device("cpu")).eval()
    return TrainedNetwork(network, config, classes, colors, mirror, data, path, epoch, val_miou)


def _classes(path: Path, names: Any, colors: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Checks the names and colours of the classes, which are printed on the screen and drawn."""
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


@dataclass(frozen=True)
class ReadyNetwork:
    """A trained network on its device, in eval mode, possibly folded and compiled."""

    network: nn.Module
    """(N, C, H, W) -> logits (N, classes, H, W)."""
    trained: TrainedNetwork
    """Its source: settings, classes, colours."""
    device: torch.device
    precision: Precision
    """Precision of the forward pass."""
    folded: int
    """Number of batch norms folded into a convolution."""


def load_ready(run: str | Path, which: str, device: str, how: Inference) -> ReadyNetwork:
    """Loads the network of a retraining run for inference.

    Args:
        run: The run folder.
        which: "best" (highest validation mIoU) or "last".
        device: auto, cpu, cuda, cuda:N.
        how: Precision, folding, compiling; its window is checked against the network.

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
        own = "float32"  # tf32 is float32 on NVIDIA GPUs
    precision = how.precision or own
    set_float32(place, precision)
    folded = 0
    if how.fold:
        network, folded = fold_batch_norms(network)  # on the CPU, which computes in full float32
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
    """Compiles one addition, which fails without a C++ compiler or, on a GPU, without Triton."""
    try:
        torch.compile(lambda x: x + 1, options={"fx_graph_cache": False})(torch.zeros(8, device=device))
    except Exception as error:  # each backend, and each missing part, raises its own exceptions
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(error).__name__
        raise ValueError(
            f"--compile cannot work here ({reason}): install a C++ compiler such as g++ (on a GPU, Triton, too), or "
            "leave it out"
        ) from error


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turns running out of memory in its block into a ValueError with the remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            "out of memory: see large images in windows (--window 512x512; fewer at once by --window-batch 1), give "
            "--precision bfloat16 or smaller --scales"
        ) from error


class _Folded(nn.Module):
    """Placeholder of a folded batch norm."""

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return x


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> tuple[nn.Module, int]:
    """Copies a network with each batch norm that directly follows a convolution folded into it, for faster inference.

    In eval mode a batch norm is y = s x + t for each channel, with s = scale / sqrt(variance + eps) and t = shift -
    s mean. After a convolution it is the convolution with weights s W and bias s b + t.

    A forward pass shows which batch norm follows which convolution. The copy is compared with the network on the same
    image; they differ if something besides the batch norm reads a convolution's output.

    Args:
        network: (1, C, H, W) -> (1, classes, H, W), in eval mode, on the CPU in float32.

    Returns:
        The copy, in eval mode, and the number of folded batch norms; the network itself and 0 where there is none to
        fold, or the two differ by more than `TOLERANCE`.
    """
    assert not network.training
    image = 2 * torch.rand(1, channels_of(network), SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 1
    folded = copy.deepcopy(network)
    pairs, logits = _follow(folded, image)
    for convolution, (name, norm) in pairs.items():
        mean, variance = norm.running_mean, norm.running_var
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        convolution.weight, convolution.bias = weight, bias
        parent, _, child = name.rpartition(".")
        setattr(folded.get_submodule(parent), child, _Folded())
    difference = (folded(image) - logits).abs().max()
    if not pairs or not difference <= TOLERANCE * logits.abs().max():
        return network, 0
    return folded, len(pairs)


def _follow(network: nn.Module, image: Tensor) -> tuple[dict[nn.Conv2d, tuple[str, BatchNorm]], Tensor]:
    """Finds the batch norm after each convolution, both used once in a forward pass; and returns the logits."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the output's id; kept alive, so that no id is reused
    uses: dict[nn.Module, int] = {}
    pairs: dict[nn.Conv2d, tuple[str, BatchNorm]] = {}
    hooks = []

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:

            def after(module: nn.Module, _: object, output: Tensor) -> None:
                assert isinstance(module, nn.Conv2d)
                outputs[id(output)] = module, output
                uses[module] = uses.get(module, 0) + 1

            hooks.append(module.register_forward_hook(after))
        elif isinstance(module, BatchNorm) and module.sources == 1:

            def before(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                assert isinstance(module, BatchNorm)
                uses[module] = uses.get(module, 0) + 1
                if id(inputs[0]) in outputs:
                    pairs[outputs[id(inputs[0])][0]] = name, module

            hooks.append(module.register_forward_pre_hook(before))
    logits = network(image)
    for hook in hooks:
        hook.remove()
    return {c: (name, norm) for c, (name, norm) in pairs.items() if uses[c] == uses[norm] == 1}, logits
