"""Measuring a network on a data set: one confusion matrix over all images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from nas.config import Precision
from nas.data.base import DataError
from nas.devices import autocast
from nas.metrics import ConfusionMatrix
from search_spaces.modules import resize

__all__ = ["evaluate_network", "predict_logits"]


@torch.no_grad()
def predict_logits(network: nn.Module, images: Tensor, device: torch.device, precision: Precision) -> Tensor:
    """Logits (N, classes, H, W) in float32 for images (N, 3, H, W) in [-1, 1]; the network must be in eval mode."""
    with autocast(device, precision):
        return network(images.to(device, non_blocking=True)).float()


def evaluate_network(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    classes: int,
    device: torch.device,
    precision: Precision = "float32",
    each: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> ConfusionMatrix:
    """Runs the network in eval mode over (images, labels, indices) and counts every labelled pixel.

    Args:
        network: (N, 3, H, W) -> (N, classes, H, W); its mode is put back afterwards.
        batches: Images (N, 3, h, w) in [-1, 1], labels (N, H, W) with 255 ignored, indices (N). Where the sizes differ,
            logits are brought to the labels' size.
        classes: Number of classes.
        device: Where the network is.
        precision: Of the forward pass.
        each: Called with (images, labels, predictions (N, H, W)) after each batch, on the CPU.

    Raises:
        DataError: No image has a labelled pixel.
    """
    matrix, training = ConfusionMatrix(classes), network.training
    network.eval()
    try:
        for images, labels, _ in batches:
            logits = predict_logits(network, images, device, precision)
            height, width = labels.shape[-2:]
            predictions = resize(logits, (height, width)).argmax(dim=1).cpu()  # (N, H, W) of the labels
            matrix.update(predictions, labels)
            if each is not None:
                each(images, labels, predictions)
    finally:
        network.train(training)
    if not matrix.counts.any():
        raise DataError("there is no labelled pixel to measure on: every label is 255 (ignored)")
    return matrix
