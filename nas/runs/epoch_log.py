"""The end of an epoch: its numbers are recorded; a search's is decoded, drawn and logged, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

__all__ = ["record_epoch", "report_epoch", "show_history"]

RECORDED = 32
"""With more numbers of modules than that, they go to TensorBoard only: people read metrics.jsonl."""


def record_epoch(run: RunFolder, epoch: int, metrics: Mapping[str, Any], network: nn.Module) -> None:
    """Write an epoch's numbers to metrics.jsonl and TensorBoard, with those that modules report as "modules/...".

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
    """Write an epoch of a search to the record, TensorBoard, the pictures and the screen.

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
        f"epoch {epoch + 1}/{epochs}: {losses}, {epoch_text(metrics['val'])}, "
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
