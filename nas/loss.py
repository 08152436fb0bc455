"""The loss of search and retraining, and the check that it is a number."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.data.base import IGNORE

__all__ = ["NonFiniteLossError", "check_finite", "check_weights", "cross_entropy"]


class NonFiniteLossError(ArithmeticError):
    """The loss or a weight is not a number; nothing of that was saved."""


REMEDY = (
    "lower the learning rate (--optimizer.lr) or set --optimizer.clip 5, and start anew or go on from the last "
    "checkpoint with --resume"
)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over labelled pixels: logits (N, classes, H, W), labels (N, H, W) with 255 ignored -> scalar.

    A batch without a labelled pixel has loss 0, not 0 / 0.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


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
