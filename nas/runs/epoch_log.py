"""The end of an epoch: its numbers are recorded; a search's is decoded, drawn and logged, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decoders.decoding import decode
from decoders.path import path_probability
from nas.config import SearchConfig
from nas.data.base import SegmentationDataset
from nas.runs.folder import RunFolder, read_lines
from nas.runs.history import draw_history, read_history, record_genotype
from nas.runs.names import GENOTYPES
from nas.runs.pictures import SampleKeeper, draw_paths, figure_to_array, heat_map
from nas.supernet.network import Supernet
from nas.training.progress import waiting_advice
from search_spaces.drawing import draw_cell, save_figure
from search_spaces.genotype import Genotype
from search_spaces.messages import counted
from search_spaces.module_protocols import reported
from search_spaces.space import SearchSpace

__all__ = [
    "EachEpoch",
    "decode_supernet",
    "headline",
    "package_version",
    "record_epoch",
    "report_epoch",
    "show_history",
]

EachEpoch = Callable[[int, Mapping[str, float]], None]
"""Is told the number of an epoch, from 0, and its validation metrics."""
RECORDED = 32
"""With more numbers of modules than that, they go to TensorBoard only: people read metrics.jsonl."""


def package_version() -> str:
    """The installed version of this toolkit, or "unknown" when it runs from a folder."""
    try:
        return version("nas-segmentation")
    except PackageNotFoundError:
        return "unknown"


def decode_supernet(supernet: Supernet, provenance: Mapping[str, Any]) -> Genotype:
    """Decodes the architecture as it stands: greedy cell, Viterbi path."""
    alpha, beta = (_array(p) for p in supernet.architecture())
    weights = supernet.architecture.edge_weights()
    provenance = {"package_version": package_version(), **provenance}
    return decode(supernet.space, alpha, beta, provenance, None if weights is None else _array(weights))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def record_epoch(run: RunFolder, epoch: int, metrics: Mapping[str, Any], network: nn.Module) -> None:
    """Writes an epoch's numbers to metrics.jsonl and TensorBoard, with those that modules report as "modules/...".

    Args:
        run: The open run folder.
        epoch: Number of the epoch, from 0.
        metrics: The epoch's numbers.
        network: What was trained.
    """
    numbers = reported(network)
    if 0 < len(numbers) <= RECORDED:
        metrics = {**metrics, "modules": numbers}
    else:
        for name, value in numbers.items():
            run.board.add_scalar(f"modules/{name}", value, epoch)
    run.record(epoch, metrics)


def headline(
    config: SearchConfig,
    space: SearchSpace,
    train_set: SegmentationDataset,
    validation: SegmentationDataset,
    split: Sequence[Sized],
    device: torch.device,
    folder: Path,
) -> str:
    """What a search says first: the space, the data and its split, the epochs, where it runs and where it writes."""
    return (
        f"searching {space.name} (layers {space.layers}, levels {space.levels}, blocks {space.blocks}, filter "
        f"multiplier {space.filter_multiplier}, {counted(len(space.operations), 'operation')}) on {config.data}: "
        f"{len(split[0])} + {counted(len(split[1]), 'training image')}, {len(validation)} for validation, "
        f"{len(train_set.classes)} classes; {counted(config.epochs, 'epoch')} on {device}, alpha and beta from epoch "
        f"{config.architecture.start_epoch + 1}; run folder {folder}"
    )


def report_epoch(
    run: RunFolder,
    epoch: int,
    epochs: int,
    metrics: Mapping[str, Any],
    supernet: Supernet,
    genotype: Genotype,
    samples: SampleKeeper,
    colors: np.ndarray,
) -> None:
    """Writes an epoch of a search to the record, TensorBoard, the pictures and the screen.

    Args:
        run: The open run folder.
        epoch: Number of the epoch, from 0.
        epochs: Number of epochs in the run.
        metrics: The epoch's numbers; `warnings`, in words, are said, too.
        supernet: As it is after the epoch.
        genotype: As decoded after the epoch.
        samples: (images, labels, predictions) of a few validation batches.
        colors: uint8 [classes, 3].
    """
    assert genotype.alpha is not None and genotype.beta is not None
    path = {"strides": list(genotype.path), "probability": path_probability(genotype.beta, genotype.levels)}
    record_epoch(run, epoch, {**metrics, "path": path}, supernet)
    board = run.board
    board.add_image("architecture/alpha", heat_map(genotype.alpha), epoch, dataformats="HW")
    layers, levels, steps = genotype.beta.shape
    board.add_image(
        "architecture/beta", heat_map(genotype.beta.reshape(layers, levels * steps)), epoch, dataformats="HW"
    )
    board.add_histogram("architecture/alpha_values", genotype.alpha, epoch)
    board.add_histogram("architecture/beta_values", genotype.beta, epoch)
    if genotype.edge_weights is not None:
        board.add_histogram("architecture/edge_weights", genotype.edge_weights, epoch)
    for name, draw in (("cell", draw_cell), ("trellis", draw_paths)):
        figure = draw(genotype)
        save_figure(figure, run.path / f"{name}.svg")
        save_figure(figure, run.path / f"{name}.png")
        board.add_image(f"architecture/{name}", figure_to_array(figure), epoch, dataformats="HWC")
    record_genotype(run, epoch, genotype)
    run.show_samples(epoch, samples, colors)
    losses = ", ".join(f"{name} loss {value:.3f}" for name, value in metrics["loss"].items())
    run.log.info(
        f"epoch {epoch + 1}/{epochs}: {losses}, val mIoU {100 * metrics['val']['miou']:.2f} %, "
        f"path {'-'.join(map(str, genotype.path))}, {metrics['seconds']:.0f} s{waiting_advice(metrics['waiting'])}"
    )
    for warning in metrics["warnings"]:
        run.log.warning(warning)


def show_history(run: RunFolder) -> None:
    """How path and cell changed, as a picture; that it cannot be drawn stops nothing.

    Args:
        run: The open run folder of a search that ends, be it early; without an epoch it gets no picture.
    """
    try:
        if not read_lines(run.path, GENOTYPES):
            return
        history = read_history(run.path)
        figure = draw_history(history)
        save_figure(figure, run.path / "history.svg")
        save_figure(figure, run.path / "history.png")
    except (OSError, ValueError) as error:
        run.log.warning(f"no picture of the search's history: {error}")
        return
    run.board.add_image("architecture/history", figure_to_array(figure), history[-1].epoch, dataformats="HWC")
