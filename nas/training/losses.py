"""The registry of losses, and checks that losses and weights are finite.

Shapes: logits (N, classes, h, w), labels (N, H, W) with 255 ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.config import LossNameConfig, named_options
from nas.data.base import IGNORE
from nas.training.distributed import ALONE, Processes
from search_spaces.extensions import HINT
from search_spaces.registry import Registry

__all__ = [
    "LOSSES",
    "Loss",
    "LossContext",
    "LossRecord",
    "LossWatch",
    "NonFiniteLossError",
    "check_finite",
    "check_weights",
    "cross_entropy",
    "make_loss",
    "register_loss",
    "resize_labels",
]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits and labels -> a scalar. Labels of another size are resized to that of the logits (`resize_labels`)."""


@dataclass(frozen=True)
class LossContext:
    """Facts about the run that a loss may use."""

    classes: int
    """Number of classes."""
    class_weights: Tensor | None = None
    """Weight of each class, above 0, float32 [classes], on the device; None: all 1."""
    mean: Callable[[Tensor], Tensor] | None = None
    """With several processes that share a batch: the mean of a number over them. A loss that divides by a count must
    divide by the mean of the counts, so that the mean of the losses is the loss of the batch."""


@dataclass(frozen=True)
class LossRecord:
    """A loss of the registry."""

    build: Callable[..., Loss]
    """`build(context, **options)`."""
    description: str
    """One line, for lists."""
    weighs_classes: bool = False
    """Whether it uses the context's class weights; they are refused otherwise."""
    options: type | None = None
    """A dataclass of the fields of `loss.options`; None: there are none."""


LOSSES: Registry[LossRecord] = Registry("loss", HINT)


def register_loss(
    name: str, description: str, *, weighs_classes: bool = False, options: type | None = None
) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Decorator that registers a function that builds a loss, for `loss.name`; see `LossRecord`.

    Raises:
        ValueError: The name is taken.
    """

    def register(build: Callable[..., Loss]) -> Callable[..., Loss]:
        LOSSES.register(name, LossRecord(build, description, weighs_classes, options))
        return build

    return register


def make_loss(
    config: LossNameConfig,
    classes: int,
    device: torch.device,
    class_weights: Tensor | None = None,
    processes: Processes = ALONE,
) -> Loss:
    """Builds the loss that the settings name.

    Args:
        config: Name and options of the loss.
        classes: Number of classes.
        device: Device of the logits.
        class_weights: Weight of each class, [classes]; None: all alike.
        processes: The processes that share each batch.

    Raises:
        ValueError: There is no such loss, or it does not take the options or class weights.
    """
    record = LOSSES[config.name]
    if class_weights is not None and not record.weighs_classes:
        raise ValueError(
            f"loss.class_weights has no effect on the loss {config.name}: give --loss.class-weights none, or another "
            "--loss.name"
        )
    weights = None if class_weights is None else class_weights.to(device)
    context = LossContext(classes, weights, processes.mean if processes.several else None)
    return record.build(context, **named_options("loss.options", config.options, record.options))


@register_loss("cross_entropy", "mean over the labelled pixels", weighs_classes=True)
def _cross_entropy(context: LossContext) -> Loss:
    return partial(cross_entropy, class_weights=context.class_weights, mean=context.mean)


class NonFiniteLossError(ArithmeticError):
    """A loss or a weight is not finite; it was not saved."""


REMEDY = (
    "lower the learning rate (--optimizer.lr) or set --optimizer.clip 5, and start again or resume from the last "
    "checkpoint with --resume"
)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Cross entropy, averaged over the labelled pixels: with w the weight of a pixel's class, sum(w * ce) / sum(w).

    A batch without a labelled pixel has loss 0, not 0 / 0.

    Args:
        logits: (N, classes, h, w).
        labels: (N, H, W), 255 is ignored; resized to the size of the logits.
        class_weights: Above 0, [classes]; None: all 1.
        mean: As in `LossContext`: sum(w * ce) is divided by the mean of sum(w) over the processes.
    """
    labels = resize_labels(labels, (logits.shape[-2], logits.shape[-1]))
    logits = logits if logits.dtype == torch.float64 else logits.float()  # not in half precision
    total = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="sum")
    if class_weights is None:
        weight = (labels != IGNORE).sum().to(total.dtype)
    else:
        by_label = F.pad(class_weights, (0, IGNORE + 1 - len(class_weights)))  # [256], 0 for ids without a class
        weight = by_label[labels].sum()
    if mean is not None:
        weight = mean(weight)
    return total / weight.where(weight > 0, torch.ones_like(weight))


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize of labels (N, H, W) to (N, *size): pixel i of n is floor(i * H / n), as in TensorFlow.

    Computed in integers, so that no rounding of a scale factor picks a neighbour's label.
    """
    if labels.shape[-2:] == size:
        return labels
    rows, columns = (
        torch.arange(wanted, device=labels.device) * given // wanted
        for wanted, given in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[:, rows[:, None], columns]  # (N, h, w)


def check_finite(loss: Tensor, term: str, where: str) -> float:
    """Returns the loss as a float.

    Raises:
        NonFiniteLossError: It is infinite or not a number; the message names the term and the place.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the {term} is {value} at {where}: {REMEDY}")
    return value


class LossWatch:
    """Checks the losses of a GPU one step late, so that the host never waits for the step that it has just launched.

    The copy of a loss to the host is queued behind its step, and read when the next loss is added, or by `settle`.
    Until then, the optimiser itself skips a step whose loss is not finite (`nas.training.step`).

    Args:
        term: Name of the loss, for the message.
    """

    def __init__(self, term: str) -> None:
        self.term = term
        self._pending: tuple[Tensor, torch.cuda.Event | None, str] | None = None

    def add(self, loss: Tensor, where: str) -> None:
        """Adds the loss of a step, and checks that of the step before.

        Raises:
            NonFiniteLossError: The loss of the step before was not finite.
        """
        copied, event = loss.detach().to("cpu", non_blocking=True), None  # from a GPU, into pinned memory
        if loss.is_cuda:
            event = torch.cuda.Event()
            event.record()
        before, self._pending = self._pending, (copied, event, where)
        self._check(before)

    def settle(self) -> None:
        """Waits for the last loss and checks it.

        Raises:
            NonFiniteLossError: It was not finite.
        """
        before, self._pending = self._pending, None
        self._check(before)

    def _check(self, pending: tuple[Tensor, torch.cuda.Event | None, str] | None) -> None:
        if pending is not None:
            loss, event, where = pending
            if event is not None:
                event.synchronize()
            check_finite(loss, self.term, where)


def check_weights(network: nn.Module) -> None:
    """Checks a network before it is saved: a finite loss can have a gradient that is not finite.

    Raises:
        NonFiniteLossError: A parameter is infinite or not a number; the message names it.
    """
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NonFiniteLossError(f"the weights {name} are not finite after the last step: {REMEDY}")
