"""Metrics of a segmentation, from one confusion matrix over a whole split.

With n[i, j] the number of pixels of class i that were predicted as j:

    IoU of class c  = n[c, c] / (sum_j n[c, j] + sum_i n[i, c] - n[c, c])
    mean IoU        = mean of the IoU over the classes that occur in labels or predictions
    pixel accuracy  = sum_c n[c, c] / sum_ij n[i, j]

Ignored pixels do not count, whatever was predicted there. A mean of per-image values is a different number.

A metric is a function of that matrix, registered once: validation, nas-evaluate, reports and model cards use all of
`METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.extensions import HINT, load_plugins
from search_spaces.registry import Registry

__all__ = [
    "METRICS",
    "ConfusionMatrix",
    "Metric",
    "all_metrics",
    "epoch_text",
    "labelled",
    "mean_note",
    "numbers",
    "register_metric",
]


class ConfusionMatrix:
    """Counts pixels by label and prediction.

    Args:
        classes: Number of classes, at least 1.
        ignore: Label of pixels that do not count; not a class id.

    Raises:
        ValueError: The number of classes is below 1, or ``ignore`` is a class id.
    """

    def __init__(self, classes: int, ignore: int = 255) -> None:
        if classes < 1:
            raise ValueError(f"classes is {classes}; expected at least 1")
        if 0 <= ignore < classes:
            raise ValueError(f"ignore is {ignore}, which is one of the {classes} classes; give another id")
        self.classes = classes
        self.ignore = ignore
        self._counts: NDArray[np.int64] = np.zeros((classes, classes), dtype=np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pixels so far, int64 [classes, classes]: row = label, column = prediction. A copy."""
        return self._counts.copy()

    def add_up(self, total: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Adds up the counts of several processes; `total` computes the sum over them."""
        self._counts = total(torch.from_numpy(self._counts)).numpy()

    def update(self, prediction: torch.Tensor, label: torch.Tensor) -> None:
        """Count a batch.

        Args:
            prediction: Integer class ids, any shape, on any device.
            label: Integer class ids and ``ignore``; same shape and device.

        Raises:
            ValueError: Shapes differ, a tensor does not hold integers, or a value is not a class; then nothing of the
                batch is counted.
        """
        if prediction.shape != label.shape:
            raise ValueError(
                f"prediction is {tuple(prediction.shape)} but label is {tuple(label.shape)}; resize the prediction"
            )
        for name, tensor in (("prediction", prediction), ("label", label)):
            if tensor.is_floating_point() or tensor.is_complex():
                raise ValueError(f"{name} is {tensor.dtype}; expected integer class ids (argmax over the classes)")
        label, prediction = label.reshape(-1).long(), prediction.reshape(-1).long()
        # Two extra bins, so that one bincount (and one transfer from the device) counts, ignores and checks.
        ignored, wrong = self.classes**2, self.classes**2 + 1
        bins = label * self.classes + prediction
        inside = (label >= 0) & (label < self.classes) & (prediction >= 0) & (prediction < self.classes)
        bins = torch.where(inside, bins, wrong)
        bins = torch.where(label == self.ignore, ignored, bins)
        found: NDArray[np.int64] = torch.bincount(bins, minlength=wrong + 1).cpu().numpy()
        if found[wrong]:
            self._raise_wrong(prediction, label)
        self._counts += found[:ignored].reshape(self.classes, self.classes)

    def _raise_wrong(self, prediction: torch.Tensor, label: torch.Tensor) -> None:
        counted = label != self.ignore
        for name, tensor in (("label", label), ("prediction", prediction)):
            outside = tensor[counted & ((tensor < 0) | (tensor >= self.classes))]
            if outside.numel():
                raise ValueError(
                    f"{name} holds {int(outside[0])}, which is none of the {self.classes} classes "
                    f"(0..{self.classes - 1}) nor {self.ignore} (ignored labels); pixels: {outside.numel()}"
                )
        raise AssertionError("a pixel was in no bin")

    def merge(self, other: ConfusionMatrix | NDArray[np.integer]) -> None:
        """Add the pixels of another matrix, or of its `counts`.

        Raises:
            ValueError: The number of classes differs.
        """
        counts = other._counts if isinstance(other, ConfusionMatrix) else np.asarray(other)
        if counts.shape != self._counts.shape:
            raise ValueError(f"cannot merge a matrix {counts.shape} into one of {self.classes} classes")
        self._counts += counts

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union per class, float64 [classes], in 0..1.

        n[c, c] / (sum_j n[c, j] + sum_i n[i, c] - n[c, c]); NaN for a class that is neither in the labels nor
        predicted.
        """
        correct = np.diagonal(self._counts)
        union = self._counts.sum(axis=0) + self._counts.sum(axis=1) - correct
        return np.where(union > 0, correct / np.maximum(union, 1), np.nan)

    def mean_over(self) -> list[int]:
        """Number of classes that occur, whose mean `mean_iou` is, and of all classes."""
        return [int((~np.isnan(self.iou())).sum()), self.classes]

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur; NaN if nothing was counted."""
        iou = self.iou()
        occurs = ~np.isnan(iou)
        return float(iou[occurs].mean()) if occurs.any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of pixels that are right, sum_c n[c, c] / sum_ij n[i, j]; NaN if nothing was counted."""
        total = int(self._counts.sum())
        return float(np.trace(self._counts) / total) if total else float("nan")


Compute = Callable[[ConfusionMatrix], float]


@dataclass(frozen=True)
class Metric:
    """A measure of the quality of a segmentation."""

    name: str
    """Key in files: `val` of metrics.jsonl, evaluation-*.json."""
    compute: Compute
    """Confusion matrix -> value; NaN if it is not defined."""
    label: str
    """Name for display, such as "mIoU"."""
    percent: bool = True
    """Whether its values, from 0 to 1, are shown in percent."""
    higher_is_better: bool = True
    """Otherwise lower is better."""
    headline: bool = True
    """Whether the line of each epoch and a report's first table, with the best epoch, show it."""

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ValueError(f"metric {self.name!r:.60}: give a name of letters, digits and underscores")

    def text(self, value: float | None, unit: str = " %") -> str:
        """A value for display: "12.34 %", or "0.1234" if it is not in percent; "--" for None."""
        if value is None:
            return "--"
        return f"{100 * value:.2f}{unit}" if self.percent else f"{value:.4f}"


METRICS: Registry[Metric] = Registry("metric", HINT)
"""Every metric by name, in display order."""


def register_metric(
    name: str, *, label: str, percent: bool = True, higher_is_better: bool = True, headline: bool = True
) -> Callable[[Compute], Compute]:
    """Decorator that registers a metric for every validation and evaluation; see `Metric` for the arguments.

    Raises:
        ValueError: The name is taken or not valid.
    """

    def register(compute: Compute) -> Compute:
        METRICS.register(name, Metric(name, compute, label, percent, higher_is_better, headline))
        return compute

    return register


register_metric("miou", label="mIoU")(ConfusionMatrix.mean_iou)
register_metric("pixel_accuracy", label="pixel accuracy", headline=False)(ConfusionMatrix.pixel_accuracy)


def all_metrics() -> tuple[Metric, ...]:
    """Every metric, including those of plugins, which are loaded here.

    Raises:
        ExtensionError: A plugin cannot be loaded.
    """
    load_plugins()
    return METRICS.values()


def numbers(matrix: ConfusionMatrix) -> dict[str, float]:
    """All metrics of a confusion matrix, by name.

    Raises:
        ValueError: One cannot be computed, or a plugin cannot be loaded.
    """
    found = {}
    for metric in all_metrics():
        try:
            found[metric.name] = float(metric.compute(matrix))
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"metric {metric.name!r}: {type(error).__name__}: {error}; fix its function") from error
    return found


def labelled(metrics: Mapping[str, float | None]) -> list[str]:
    """Metrics for display, each as "mIoU 12.34 %"; "--" for one that is not defined."""
    return [f"{METRICS[name].label} {METRICS[name].text(value)}" for name, value in metrics.items()]


def mean_note(mean_over: Any) -> str:
    """An addition to an mIoU, such as " (mean over 5 of 6 classes)"; empty if it is the mean over all, or unknown.

    Args:
        mean_over: As `ConfusionMatrix.mean_over`; from files, anything.
    """
    good = isinstance(mean_over, list) and len(mean_over) == 2 and all(isinstance(part, int) for part in mean_over)
    return f" (mean over {mean_over[0]} of {mean_over[1]} classes)" * (good and mean_over[0] < mean_over[1])


def epoch_text(metrics: Mapping[str, Any]) -> str:
    """An epoch's headline metrics for its line on the screen, such as "val mIoU 12.34 %, kappa 0.1234"."""
    miou, *others = labelled({m.name: metrics[m.name] for m in all_metrics() if m.headline})
    return f"val {', '.join([miou + mean_note(metrics.get('mean_over')), *others])}"
