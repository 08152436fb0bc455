"""Measuring a trained network on a split: one confusion matrix over all images, at the labels' own size."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.loading import evaluation_loader
from nas.devices import choose_device
from nas.evaluation import PLAIN_SCALES, check_scales, evaluate_network, is_plain
from nas.metrics import ConfusionMatrix
from nas.opening import open_split
from nas.run import BEST
from retrain.source import load_trained
from search_spaces.files import write_atomically

__all__ = ["Evaluation", "evaluate"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network reached on a split, and all that names the result."""

    miou: float
    """Mean IoU over the classes that occur, 0 to 1."""
    pixel_accuracy: float
    """Share of labelled pixels that are right, 0 to 1."""
    iou: dict[str, float | None]
    """IoU of each class, 0 to 1; None where the class occurs neither in labels nor in predictions."""
    images: int
    """Images measured."""
    data: str
    """Data set."""
    split: str
    """Its split."""
    resolution: float
    """Factor by which images were resized before the network; predictions are measured at the labels' own size."""
    checkpoint: str
    """File name of the checkpoint."""
    checkpoint_sha256: str
    """Hash of the checkpoint."""
    epoch: int
    """Epochs that the weights were trained for."""
    seed: int
    """Seed of the training."""
    confusion: list[list[int]]
    """Pixels [label][prediction]."""
    scales: list[float] = dataclasses.field(default_factory=lambda: list(PLAIN_SCALES))
    """Factors at which each image was seen."""
    flip: bool = False
    """Whether it was seen mirrored, too."""

    def save(self, run: str | Path) -> Path:
        """Writes evaluation-SPLIT-CHECKPOINT.json into the run folder.

        Behind the checkpoint stands how images were seen, where that was not once and as they are, such as
        "-scales-0.5-1-1.75-flip".
        """
        which = "best" if self.checkpoint == BEST else "last"
        seen = ""
        if not is_plain(self.scales, self.flip):
            seen = f"-scales-{'-'.join(f'{scale:g}' for scale in self.scales)}{'-flip' * self.flip}"
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        return write_atomically(Path(run) / f"evaluation-{self.split}-{which}{seen}.json", text)

    def table(self) -> str:
        """The result as text: a line a class, then the summary."""
        width = max(len(name) for name in self.iou)
        lines = [f"{'class':<{width}}   IoU %"]
        for name, value in self.iou.items():
            lines.append(f"{name:<{width}}  {'  --' if value is None else f'{100 * value:6.2f}'}")
        lines.append(f"{'mean':<{width}}  {100 * self.miou:6.2f}")
        seen = ""
        if not is_plain(self.scales, self.flip):
            seen = f"; scales {', '.join(f'{scale:g}' for scale in self.scales)}{', each also mirrored' * self.flip}"
        lines.append(
            f"pixel accuracy {100 * self.pixel_accuracy:.2f} % on {self.images} images of {self.data}, split "
            f"{self.split}; {self.checkpoint} after {self.epoch} epochs, sha256 {self.checkpoint_sha256[:12]}{seen}"
        )
        return "\n".join(lines)


def evaluate(
    run: str | Path,
    split: str | None = None,
    which: str = "best",
    data_root: str | None = None,
    device: str = "auto",
    write: bool = True,
    scales: Sequence[float] = PLAIN_SCALES,
    flip: bool = False,
) -> Evaluation:
    """Measures the network of a retraining run on a split of its data set.

    Args:
        run: The run folder.
        split: The split; None: the one that the run validated on.
        which: "best" (highest validation mIoU) or "last".
        data_root: In place of the run's folder of the data set.
        device: auto, cpu, cuda, cuda:N.
        write: Write the result into the run folder (see `Evaluation.save`).
        scales: Factors on the sides of the images; the class probabilities at all of them are averaged.
        flip: Average with those of the mirrored images, too.

    Raises:
        ValueError: The run, its checkpoint, the data, the device or the scales cannot be used; one line.
    """
    check_scales(scales)
    place = choose_device(device)
    trained = load_trained(run, which, place)
    config = dataclasses.replace(trained.config, data_root=data_root or trained.config.data_root)
    split = split or config.loader.val_split
    dataset = open_split(config, split, resize_labels=False)
    if dataset.classes != trained.classes:
        raise ValueError(
            f"{config.data} at {config.data_root} has classes {', '.join(dataset.classes)}, but the network was "
            f"trained for {', '.join(trained.classes)}: give the data set that it was trained on"
        )
    with evaluation_loader(dataset, config.loader.workers) as loader:
        matrix = evaluate_network(
            trained.network, loader, len(trained.classes), place, config.precision, scales=scales, flip=flip
        )
    result = Evaluation(
        **_numbers(matrix, trained.classes),
        images=len(dataset),
        data=config.data,
        split=split,
        resolution=config.loader.resolution,
        checkpoint=trained.checkpoint.name,
        checkpoint_sha256=hashlib.sha256(trained.checkpoint.read_bytes()).hexdigest(),
        epoch=trained.epoch,
        seed=config.seed,
        scales=list(scales),
        flip=flip,
    )
    if write:
        result.save(run)
    return result


def _numbers(matrix: ConfusionMatrix, classes: tuple[str, ...]) -> dict[str, Any]:
    iou = {name: None if np.isnan(value) else float(value) for name, value in zip(classes, matrix.iou(), strict=True)}
    return {
        "miou": matrix.mean_iou(),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "iou": iou,
        "confusion": matrix.counts.tolist(),
    }
