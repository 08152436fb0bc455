"""The end of an epoch: record its numbers and, in a search, log and draw the genotype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from decoders.path import path_probability
from nas.evaluation.metrics import epoch_text
from nas.runs.folder import RunFolder, read_lines
from nas.runs.history import draw_history, read_history, record_genotype
from nas.runs.names import GENOTYPES
from nas.runs.pictures import SampleKeeper, draw_paths, figure_to_array, heat_map
from nas.supernet.network import Supernet
from nas.training.progress import waiting_advice
from search_spaces.drawing import draw_cell, save_figure
from search_spaces.genotype import Genotype
from search_spaces.module_protocols import reported

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["record_epoch", "report_epoch", "show_history"]

RECORDED = 32
"""Most numbers of modules in metrics.jsonl, which people read; more go to TensorBoard only."""


def record_epoch(run: RunFolder, epoch: int, metrics: Mapping[str, Any], network: nn.Module) -> None:
    """Write an epoch's numbers (epochs count from 0) to metrics.jsonl and TensorBoard.

    Numbers that modules of the network report are added as "modules/...".
    """
    numbers = reported(network)
    if 0 < len(numbers) <= RECORDED:
        metrics = {**metrics, "modules": numbers}
    else:
        for name, value in numbers.items():
            run.board.add_scalar(f"modules/{name}", value, epoch)
    run.record(epoch, metrics)


def report_epoch(
    run: RunFolder,
    epoch: int,
    epochs: int,
    metrics: Mapping[str, Any],
    warnings: Iterable[str],
    supernet: Supernet,
    genotype: Genotype,
    samples: SampleKeeper,
    colors: np.ndarray,
) -> None:
    """Write an epoch of a search to metrics.jsonl, TensorBoard, the pictures and the screen.

    Args:
        run: The open run folder.
        epoch: Number of the epoch, from 0.
        epochs: Number of epochs in the run.
        metrics: The epoch's numbers.
        warnings: Warnings that the epoch before did not have, to be logged.
        supernet: The network after the epoch.
        genotype: The genotype decoded after the epoch.
        samples: (images, labels, predictions) of a few validation batches.
        colors: uint8 [classes, 3].
    """
    path: dict[str, Any] = {"strides": list(genotype.path)}
    if genotype.beta is not None:
        path["probability"] = path_probability(genotype.beta, genotype.levels)
    record_epoch(run, epoch, {**metrics, "path": path}, supernet)
    board = run.board
    for name, values in (("alpha", genotype.alpha), ("beta", genotype.beta)):
        if values is not None:
            picture = heat_map(values.reshape(len(values), -1))
            board.add_image(f"architecture/{name}", picture, epoch, dataformats="HW")
            board.add_histogram(f"architecture/{name}_values", values, epoch)
    if genotype.edge_weights is not None:
        board.add_histogram("architecture/edge_weights", genotype.edge_weights, epoch)
    for name, draw in (("cell", draw_cell), ("trellis", draw_paths)):
        _show(run, name, draw(genotype), epoch)
    record_genotype(run, epoch, genotype)
    run.show_samples(epoch, samples, colors)
    losses = ", ".join(f"{name} loss {value:.3f}" for name, value in metrics["loss"].items())
    run.log.info(
        f"epoch {epoch + 1}/{epochs}: {losses}, {epoch_text(metrics['val'])}, "
        f"path {'-'.join(map(str, genotype.path))}, {metrics['seconds']:.0f} s{waiting_advice(metrics['waiting'])}"
    )
    for warning in warnings:
        run.log.warning(warning)


def _show(run: RunFolder, name: str, figure: Figure, epoch: int) -> None:
    for suffix in ("svg", "png"):
        save_figure(figure, run.file(f"{name}.{suffix}"))
    run.board.add_image(f"architecture/{name}", figure_to_array(figure), epoch, dataformats="HWC")


def show_history(run: RunFolder) -> None:
    """Draw how path and cell changed in a search; a failure is logged and stops nothing.

    A search that ended before its first epoch gets no picture.
    """
    try:
        if read_lines(run.path, GENOTYPES):
            history = read_history(run.path)
            _show(run, "history", draw_history(history), history[-1].epoch)
    except (OSError, ValueError) as error:
        run.log.warning(f"no picture of the search's history: {error}")
