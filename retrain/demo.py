"""The whole chain on the built-in data set, in minutes: search, decode, draw, retrain, evaluate, compare."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from nas.config import SearchConfig
from nas.darts import search
from nas.data.splits import open_split
from nas.evaluation.cost import count_parameters
from nas.runs.names import CONFIG, GENOTYPE
from nas.runs.pictures import colorize
from retrain.config import RetrainConfig
from retrain.evaluation import evaluate
from retrain.load import load_trained
from retrain.prediction import predict_mask
from retrain.training import train
from search_spaces.drawing import save_figure
from search_spaces.files import check_replaceable
from search_spaces.genotype import Genotype
from search_spaces.graph import random_genotype
from search_spaces.validation import as_path

__all__ = ["Contestant", "DemoResult", "demo"]

SHOWN = 4
"""Test images in the picture of predictions."""
GRACE = 30.0
"""Seconds that a worker has to save after the end of the demo."""


@dataclass(frozen=True)
class Contestant:
    """A genotype of the comparison and its result."""

    name: str
    """"searched", or "random 1", ..."""
    genotype: Genotype
    parameters: int
    """Trainable parameters of its network."""
    miou: float
    """mIoU on the test split after the last epoch, 0 to 1."""
    folder: Path
    """Its run folder."""


@dataclass(frozen=True)
class DemoResult:
    """The searched genotype and random ones, all trained alike."""

    searched: Contestant
    randoms: tuple[Contestant, ...]
    random_mean: float
    """Mean mIoU of the random genotypes."""
    picture: Path
    """Test images with their labels and the predictions of the networks."""

    def table(self) -> str:
        """Formats the comparison as text."""
        lines = ["network         parameters   test mIoU %   path"]
        for one in (self.searched, *self.randoms):
            path = "-".join(map(str, one.genotype.path))
            lines.append(f"{one.name:<14}  {one.parameters:>10,}   {100 * one.miou:>11.2f}   {path}")
        lines.append(f"{'mean of random':<14}  {'':>10}   {100 * self.random_mean:>11.2f}")
        return "\n".join(lines)


def demo(
    out: str | Path,
    search_config: SearchConfig,
    retrain_config: RetrainConfig,
    randoms: int = 3,
    say: Callable[[str], Any] = print,
) -> DemoResult:
    """Searches, then retrains the result and random genotypes of the same space with the same settings, two at a time.

    Args:
        out: Folder for all runs; those that an earlier call began there with the same settings are resumed.
        search_config: Settings of the search.
        retrain_config: Settings of the retraining; the genotype is filled in.
        randoms: Number of random genotypes, at least 1; they are drawn with the seeds 1, 2, ...
        say: Called with a line before each stage.

    Raises:
        ValueError: Settings or data that cannot be used, or `out` holds other runs.
    """
    out = as_path(out)
    begun = out / "search"
    say(f"1. Search: the supernet learns weights and architecture in turn; all files go to {out}")
    found = search(dataclasses.replace(search_config, out=str(begun)), begun if (begun / CONFIG).exists() else None)
    space = found.genotype.space
    genotypes = [found.genotype, *(random_genotype(space, seed) for seed in range(1, randoms + 1))]
    names = ["searched", *(f"random {seed}" for seed in range(1, randoms + 1))]
    configs = []
    for name, genotype in zip(names, genotypes, strict=True):
        file = out / "search" / GENOTYPE
        if name != "searched":
            file = out / f"{name.replace(' ', '-')}.json"
            check_replaceable([file], "choose another --out")
            genotype.save(file)
        folder = out / f"retrain-{name.replace(' ', '-')}"
        configs.append(dataclasses.replace(retrain_config, genotype=str(file), out=str(folder)))
    say(
        f"2. Retrain the decoded network from scratch, and {randoms} random ones of the same space with the same "
        f"settings, two at a time; {out}/retrain-*/log.txt have the epochs"
    )
    contestants = [
        Contestant(name, genotype, parameters, miou, Path(str(config.out)))
        for name, genotype, config, (parameters, miou) in zip(
            names, genotypes, configs, _train_all(configs, say), strict=True
        )
    ]
    mean = sum(contestant.miou for contestant in contestants[1:]) / randoms
    picture = _draw_predictions(contestants, out / "predictions.png")
    return DemoResult(contestants[0], tuple(contestants[1:]), mean, picture)


def _draw_predictions(contestants: Sequence[Contestant], file: Path) -> Path:
    """Draws a few test images with their labels and the predictions of all networks side by side."""
    from matplotlib.figure import Figure

    networks = [load_trained(contestant.folder, "last") for contestant in contestants]
    dataset = open_split(networks[0].config, "test")
    titles = ["image", "label", *(f"{one.name}: {100 * one.miou:.1f} %" for one in contestants)]
    figure = Figure((2.2 * len(titles), 1.75 * SHOWN), layout="constrained")
    for row, index in zip(figure.subplots(SHOWN, len(titles), squeeze=False), range(SHOWN), strict=True):
        image, label = dataset.read(index)
        masks = [label, *(predict_mask(network, image) for network in networks)]
        for axes, title, picture in zip(
            row, titles, [image, *(colorize(m, dataset.colors) for m in masks)], strict=True
        ):
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(title if index == 0 else "", fontsize=10)
    return save_figure(figure, file)


def _train_all(configs: Sequence[RetrainConfig], say: Callable[[str], Any]) -> list[tuple[int, float]]:
    """Trains and tests every network, in up to one process for each core, with one thread each."""
    workers = min(len(configs), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
        scores = []
        for config, score in zip(configs, pool.map(_train_one, configs), strict=True):
            say(f"   {Path(str(config.out)).name}: test mIoU {100 * score[1]:.2f} %")
            scores.append(score)
        return scores


def _end_with_parent() -> None:
    """Makes a worker save and stop when the demo's process ends for any reason."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # a training saves and ends
        time.sleep(GRACE)
        os._exit(1)  # nobody is left to take the result

    threading.Thread(target=watch, daemon=True).start()


def _train_one(config: RetrainConfig) -> tuple[int, float]:
    """Returns trainable parameters, and mIoU on the test split after the last epoch."""
    torch.set_num_threads(1)
    folder = Path(str(config.out))
    train(config, folder if (folder / CONFIG).exists() else None, quiet=True)
    miou = evaluate(folder, "test", "last", device=config.device).miou
    return count_parameters(load_trained(folder, "last").network), miou
