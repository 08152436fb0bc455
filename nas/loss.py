"""The loss of search and retraining, and the check that it is a number."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.data.base import IGNORE

__all__ = ["NonFiniteLossError", "check_finite", "check_weights", "cross_entropy", "resize_labels"]


class NonFiniteLossError(ArithmeticError):
    """The loss or a weight is not a number; nothing of that was saved."""


REMEDY = (
    "lower the learning rate (--optimizer.lr) or set --optimizer.clip 5, and start anew or go on from the last "
    "checkpoint with --resume"
)


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy, averaged over the labelled pixels: with w the weight of a pixel's class, sum(w * ce) / sum(w).

    A batch without a labelled pixel has loss 0, not 0 / 0.

    Args:
        logits: (N, classes, h, w).
        labels: (N, H, W), 255 is ignored; at another size than the logits they are brought to theirs.
        class_weights: Above 0, [classes]; None: all 1.
    """
    labels = resize_labels(labels, (logits.shape[-2], logits.shape[-1]))
    total = F.cross_entropy(logits.float(), labels, class_weights, ignore_index=IGNORE, reduction="sum")
    if class_weights is None:
        return total / (labels != IGNORE).sum().clamp(min=1)
    by_label = F.pad(class_weights, (0, IGNORE + 1 - len(class_weights)))  # [256], 0 for what is no class
    weight = by_label[labels].sum()
    return total / weight.where(weight > 0, torch.ones_like(weight))


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest neighbours (N, *size) of labels (N, H, W): pixel i of n is pixel floor(i * H / n), as TensorFlow has it.

    In whole numbers, so that no rounding of a scale factor picks a neighbour's label.
    """
    if labels.shape[-2:] == size:
        return labels
    rows, columns = (
        torch.arange(wanted, device=labels.device) * given // wanted
        for wanted, given in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[:, rows[:, None], columns]  # (N, h, w)


def check_finite(loss: Tensor, term: str, where: str) -> float:
    """Returns the loss as a number.

    Raises:
        NonFiniteLossError: It is infinite or not a number; the message names the term and the place.
    """
    value = float(loss.detach())
    if not torch.isfinite(loss.detach()):
        raise NonFiniteLossError(f"the {term} is {value} at {where}: {REMEDY}")
    return value


def check_weights(network: nn.Module) -> None:
    """Checks a network before it is saved: a finite loss can still have had a gradient that was none.

    Raises:
        NonFiniteLossError: A parameter is infinite or not a number; the message names it.
    """
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NonFiniteLossError(f"the weights {name} are not finite after the last step: {REMEDY}")
