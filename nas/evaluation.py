"""Measuring a network on a data set: one confusion matrix over all images.

Shapes: N images of h x w pixels, labels of H x W (the same, unless the network was trained at another resolution).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from nas.config import Precision
from nas.data.base import UNCHANGED, DataError
from nas.devices import autocast
from nas.metrics import ConfusionMatrix
from nas.processes import ALONE, Processes
from search_spaces.modules import resize

__all__ = ["PLAIN_SCALES", "check_scales", "evaluate_network", "is_plain", "predict_logits", "predict_probabilities"]

PLAIN_SCALES = (1.0,)
MOST_SCALES, LARGEST_SCALE = 16, 8.0


def is_plain(scales: Sequence[float], flip: bool) -> bool:
    """Whether each image is seen once, at its own size and not mirrored."""
    return tuple(scales) == PLAIN_SCALES and not flip


def check_scales(scales: Sequence[float]) -> None:
    """Checks the scales of an evaluation.

    Raises:
        ValueError: There is none, or there are too many, or one is out of range or given twice.
    """
    if not 1 <= len(scales) <= MOST_SCALES:
        raise ValueError(f"there are {len(scales)} scales: give 1 to {MOST_SCALES}, such as 0.5,1,1.75")
    for scale in scales:
        if not (math.isfinite(scale) and 0 < scale <= LARGEST_SCALE):
            raise ValueError(f"scale {scale:g} is out of range: give factors above 0, up to {LARGEST_SCALE:g}")
    if len(set(scales)) < len(scales):
        raise ValueError(f"scales {', '.join(f'{scale:g}' for scale in scales)} name one twice: give each once")


@torch.no_grad()
def predict_logits(network: nn.Module, images: Tensor, device: torch.device, precision: Precision) -> Tensor:
    """Logits (N, classes, H, W) in float32 for images (N, 3, H, W) in [-1, 1]; the network must be in eval mode."""
    with autocast(device, precision):
        return network(images.to(device, non_blocking=True)).float()


@torch.no_grad()
def predict_probabilities(
    network: nn.Module,
    images: Tensor,
    size: tuple[int, int],
    scales: Sequence[float],
    flip: bool,
    device: torch.device,
    precision: Precision,
    mirror: Mapping[int, int] = UNCHANGED,
) -> Tensor:
    """Mean over scales of the class probabilities (N, classes, *size), each brought to that size.

    Args:
        network: (N, 3, h, w) -> logits (N, classes, h, w), in eval mode.
        images: (N, 3, h, w) in [-1, 1].
        size: Of the result, in pixels.
        scales: Factors on the sides of the images, which are resized bilinearly; a side of n pixels becomes
            (n - 1) * scale + 1, rounded, so that the distance between corners is what is scaled (as in DeepLab's code).
        flip: Whether each scale is also seen mirrored left and right, and counts with the mirror image of the result.
        device: Where the network is.
        precision: Of the forward pass.
        mirror: Classes that a mirror image turns into others.
    """
    images = images.to(device, non_blocking=True)
    total = torch.zeros((), device=device)  # a sum: all views at once may be large
    for scale in scales:
        height, width = (max(1, round((side - 1) * scale) + 1) for side in images.shape[-2:])
        scaled = resize(images, (height, width))
        for mirrored in (False, True)[: 1 + flip]:
            view = scaled.flip(-1) if mirrored else scaled
            probabilities = predict_logits(network, view, device, precision).softmax(dim=1)
            if mirrored:
                classes = [mirror.get(number, number) for number in range(probabilities.shape[1])]
                probabilities = probabilities.flip(-1)[:, classes]
            total = total + resize(probabilities, size)  # (N, classes, *size)
    return total / (len(scales) * (1 + flip))


def evaluate_network(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    classes: int,
    device: torch.device,
    precision: Precision = "float32",
    each: Callable[[Tensor, Tensor, Tensor], None] | None = None,
    scales: Sequence[float] = PLAIN_SCALES,
    flip: bool = False,
    processes: Processes = ALONE,
    mirror: Mapping[int, int] = UNCHANGED,
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
        scales: Factors at which each image is seen; with more than 1.0 alone, mean probabilities are compared.
        flip: Whether each is also seen mirrored.
        processes: Those that each go through some of the images; all get the counts of all.
        mirror: Classes that a mirror image turns into others (`SegmentationDataset.mirror`).

    Raises:
        DataError: No image has a labelled pixel.
        ValueError: The scales cannot be used.
    """
    check_scales(scales)
    matrix, training = ConfusionMatrix(classes), network.training
    network.eval()
    try:
        for images, labels, _ in batches:
            size = (labels.shape[-2], labels.shape[-1])
            if is_plain(scales, flip):
                scores = resize(predict_logits(network, images, device, precision), size)
            else:
                scores = predict_probabilities(network, images, size, scales, flip, device, precision, mirror)
            predictions = scores.argmax(dim=1).cpu()  # (N, H, W)
            matrix.update(predictions, labels)
            if each is not None:
                each(images, labels, predictions)
    finally:
        network.train(training)
    matrix.add_up(processes.add_up)
    if not matrix.counts.any():
        raise DataError(
            "there is no labelled pixel to measure on: every label is 255 (ignored), as in a test split "
            "whose labels are not public"
        )
    return matrix
