"""Measuring a trained network on a split: one confusion matrix over all images, at the labels' own size."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.config import DataChanged
from nas.data.identity import check_same_data, data_identity
from nas.data.loading import evaluation_loader
from nas.data.splits import open_split
from nas.evaluation.evaluate import evaluate_network
from nas.evaluation.inference import Inference, Viewing
from nas.evaluation.metrics import labelled, numbers
from nas.runs.names import BEST
from nas.training.progress import StepProgress
from retrain.load import load_ready, memory_advice
from search_spaces.files import write_atomically
from search_spaces.genotype import package_version
from search_spaces.validation import as_path, counted, to_plain

__all__ = ["Evaluation", "evaluate"]

NEAR_0 = 0.1
"""Share of the training's validation mIoU below which another data set is suspected of other classes."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of a network on a split, and the facts that identify them."""

    miou: float
    """Mean IoU over the classes that occur, 0 to 1."""
    pixel_accuracy: float
    """Share of labelled pixels that are correct, 0 to 1."""
    iou: dict[str, float | None]
    """IoU of each class, 0 to 1; None where the class occurs neither in labels nor in predictions."""
    mean_over: list[int]
    """Number of classes whose mean the mIoU is, and of all classes."""
    images: int
    """Number of images."""
    names_sha256: str
    """SHA-256 of their names, in order."""
    data: str
    """Name of the data set."""
    split: str
    resolution: float
    """Factor by which images were resized before the network; predictions are measured at the labels' own size."""
    checkpoint: str
    """File name of the checkpoint."""
    checkpoint_sha256: str
    epoch: int
    """Epochs for which the weights were trained."""
    seed: int
    """Seed of the training."""
    confusion: list[list[int]]
    """Pixels [label][prediction]."""
    metrics: dict[str, float | None]
    """Other metrics of `METRICS` by name; None where one is not defined."""
    scales: list[float]
    """Factors by which each image was resized."""
    flip: bool
    """Whether each image was also mirrored."""
    window: list[int] | None
    """Height and width of the windows for larger images; None: whole images."""
    stride: list[int] | None
    """Steps between windows, down and to the right."""
    smallest_image: list[int]
    """Height and width of the image with the fewest pixels, as input of the network at scale 1."""
    largest_image: list[int]
    """The same of the image with the most pixels."""
    precision: str
    """Precision of the forward passes."""
    folded: int
    """Number of batch norms folded into a convolution."""
    compiled: bool
    """Whether the network was compiled."""
    device_type: str
    """cpu or cuda."""
    package_version: str
    """Version of this toolkit."""
    torch_version: str
    settings: dict[str, Any]
    """Options by name, as given; None for those that were not."""

    @property
    def viewing(self) -> Viewing:
        """Scales, mirroring and windows."""
        window, stride = ((size[0], size[1]) if size else None for size in (self.window, self.stride))
        return Viewing(tuple(self.scales), self.flip, window, stride)

    def save(self, run: str | Path) -> Path:
        """Writes evaluation-SPLIT-CHECKPOINT.json into the run folder.

        Scales, mirroring, windows and precision are appended where they are not the defaults, such as
        "-scales-0.5-1-1.75-flip-bfloat16".
        """
        which = "best" if self.checkpoint == BEST else "last"
        asked = self.settings.get("precision")
        name = f"evaluation-{self.split}-{which}{self.viewing.suffix}{f'-{asked}' if asked else ''}.json"
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        return write_atomically(as_path(run) / name, text)

    def table(self) -> str:
        """Formats the result as text: a line for each class, then a summary."""
        width = max(len(name) for name in self.iou)
        lines = [f"{'class':<{width}}   IoU %"]
        for name, value in self.iou.items():
            lines.append(f"{name:<{width}}  {'  --' if value is None else f'{100 * value:6.2f}'}")
        lines.append(f"{'mean':<{width}}  {100 * self.miou:6.2f}  over {'{} of {}'.format(*self.mean_over)} classes")
        others = {"pixel_accuracy": self.pixel_accuracy, **self.metrics}
        precision = "" if self.precision == "float32" else f"; in {self.precision}"
        lines.append(
            f"{', '.join(labelled(others))} on {counted(self.images, 'image')} of {self.data}, "
            f"split {self.split}; {self.checkpoint} after {counted(self.epoch, 'epoch')}, sha256 "
            f"{self.checkpoint_sha256[:12]}{precision}{self.viewing.describe()}"
        )
        return "\n".join(lines)


def evaluate(
    run: str | Path,
    split: str | None = None,
    which: str = "best",
    data_root: str | None = None,
    device: str = "auto",
    write: bool = True,
    how: Inference | None = None,
    progress: bool = False,
    data_changed: DataChanged = "refuse",
) -> Evaluation:
    """Measures the network of a retraining run on a split of its data set.

    Args:
        run: The run folder.
        split: The split; None: the validation split of the run.
        which: "best" (highest validation mIoU) or "last".
        data_root: Folder of the data set; None: that of the run.
        device: auto, cpu, cuda, cuda:N.
        write: Write the result into the run folder (see `Evaluation.save`).
        how: Views of an image, and precision, folding and compiling; None: each image once, as it is.
        progress: Show a bar with the time left in a terminal.
        data_changed: Reaction if the training or validation split has other samples than in the training: refuse, or
            accept. Other splits may be of any samples.

    Raises:
        ValueError: The run, its checkpoint, the data, the device, the precision or the window cannot be used; one line.
    """
    asked = {"run": str(run), "split": split, "checkpoint": which, "data_root": data_root, "device": device}
    asked["data_changed"] = data_changed
    how = how or Inference()
    ready = load_ready(run, which, device, how)
    trained = ready.trained
    config = dataclasses.replace(trained.config, data_root=data_root or trained.config.data_root)
    split = split or config.loader.val_split
    dataset = open_split(config, split, resize_labels=False, large=how.by_rows and config.loader.resolution == 1)
    identity = data_identity(config.data_root, dataset)
    del identity["colors"]  # nothing is drawn
    check_same_data(trained.data, identity, run, data_changed == "accept")
    (samples,) = identity["splits"].values()
    sizes: list[tuple[int, int]] = []
    with (
        evaluation_loader(dataset, config.loader.workers) as loader,
        StepProgress(len(dataset), quiet=not progress) as bar,
        memory_advice(),
    ):

        def each(images: Tensor, *_: Tensor) -> None:
            sizes.append((images.shape[-2], images.shape[-1]))
            bar.step(split)

        classes = len(trained.classes)
        matrix = evaluate_network(
            ready.network, loader, classes, ready.device, ready.precision, each, how, dataset.mirror
        )
    sizes.sort(key=lambda size: (size[0] * size[1], size))
    found = numbers(matrix)
    result = Evaluation(
        miou=found.pop("miou"),
        pixel_accuracy=found.pop("pixel_accuracy"),
        metrics={name: _known(value) for name, value in found.items()},
        iou={name: _known(value) for name, value in zip(trained.classes, matrix.iou(), strict=True)},
        mean_over=matrix.mean_over(),
        confusion=matrix.counts.tolist(),
        images=len(dataset),
        names_sha256=samples["sha256"],
        data=config.data,
        split=split,
        resolution=config.loader.resolution,
        checkpoint=trained.checkpoint.name,
        checkpoint_sha256=hashlib.sha256(trained.checkpoint.read_bytes()).hexdigest(),
        epoch=trained.epoch,
        seed=config.seed,
        scales=list(how.scales),
        flip=how.flip,
        window=list(how.window) if how.window else None,
        stride=list(how.steps) if how.window else None,
        smallest_image=list(sizes[0]),
        largest_image=list(sizes[-1]),
        precision=ready.precision,
        folded=ready.folded,
        compiled=how.compile,
        device_type=ready.device.type,
        package_version=package_version(),
        torch_version=torch.__version__,
        settings=to_plain({**asked, **dataclasses.asdict(how)}),
    )
    if config.data_root != trained.config.data_root and result.miou < NEAR_0 * trained.val_miou:
        warnings.warn(
            f"{100 * result.miou:.2f} % is near 0, where the training ended with {100 * trained.val_miou:.2f} %: are "
            f"the labels in {config.data_root} numbered as those with which the network was trained, from 0 "
            f"({trained.classes[0]}) to {classes - 1} ({trained.classes[-1]})? nas-data check shows their classes",
            stacklevel=2,
        )
    if write:
        result.save(run)
    return result


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
