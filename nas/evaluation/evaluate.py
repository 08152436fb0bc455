"""Evaluation of a network on a data set: one confusion matrix over all images, seen whole or in sliding windows.

Sliding windows average the logits of overlapping parts of an image. They average logits, not probabilities, so that a
network with windows still maps images to logits and combines with scales and mirroring.

Shapes: N images of h x w pixels, labels of H x W (the same, unless the network was trained at another resolution).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from nas.config import Precision
from nas.data.base import UNCHANGED, DataError
from nas.evaluation.inference import Viewing
from nas.evaluation.metrics import ConfusionMatrix
from nas.training.devices import autocast
from nas.training.distributed import ALONE, Processes
from search_spaces.modules import resize

__all__ = ["evaluate_network", "predict_logits", "predict_scores", "slide", "starts"]


@torch.no_grad()
def predict_logits(network: nn.Module, images: Tensor, device: torch.device, precision: Precision) -> Tensor:
    """Logits (N, classes, H, W) in float32 for images (N, 3, H, W) in [-1, 1]; the network must be in eval mode."""
    with autocast(device, precision):
        return network(images.to(device, non_blocking=True)).float()


@torch.no_grad()
def predict_scores(
    network: nn.Module,
    images: Tensor,
    size: tuple[int, int],
    viewing: Viewing,
    device: torch.device,
    precision: Precision,
    mirror: Mapping[int, int] = UNCHANGED,
) -> Tensor:
    """Scores (N, classes, *size), whose argmax is the prediction.

    For a single view (`viewing.single`) these are the logits, resized; for several views, the mean of their class
    probabilities, each resized.

    Args:
        network: (N, 3, h, w) -> logits (N, classes, h, w), in eval mode.
        images: (N, 3, h, w) in [-1, 1].
        size: Size of the result, in pixels.
        viewing: Scales, mirroring and windows. Images are resized to a scale bilinearly; a side of n pixels becomes
            (n - 1) * scale + 1, rounded, which scales the distance between corners (as in DeepLab's code).
        device: Device of the network.
        precision: Precision of the forward pass.
        mirror: Classes that mirroring turns into others.
    """
    see: Callable[[Tensor], Tensor] = partial(predict_logits, network, device=device, precision=precision)
    if viewing.window is not None:
        see = partial(slide, see, window=viewing.window, stride=viewing.steps, batch=viewing.window_batch)
    images = images.to(device, non_blocking=True)
    if viewing.single:
        return resize(see(images), size)
    total = torch.zeros((), device=device)  # a running sum, as all views together may be large
    for scale in viewing.scales:
        height, width = (max(1, round((side - 1) * scale) + 1) for side in images.shape[-2:])
        scaled = resize(images, (height, width))
        for mirrored in (False, True)[: 1 + viewing.flip]:
            probabilities = see(scaled.flip(-1) if mirrored else scaled).softmax(dim=1)
            if mirrored:
                classes = [mirror.get(number, number) for number in range(probabilities.shape[1])]
                probabilities = probabilities.flip(-1)[:, classes]
            total = total + resize(probabilities, size)  # (N, classes, *size)
    return total / (len(viewing.scales) * (1 + viewing.flip))


def evaluate_network(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    classes: int,
    device: torch.device,
    precision: Precision = "float32",
    each: Callable[[Tensor, Tensor, Tensor], None] | None = None,
    viewing: Viewing | None = None,
    mirror: Mapping[int, int] = UNCHANGED,
    processes: Processes = ALONE,
) -> ConfusionMatrix:
    """Runs the network in eval mode over (images, labels, indices) and counts every labelled pixel.

    Args:
        network: (N, 3, H, W) -> (N, classes, H, W); its mode is restored afterwards.
        batches: Images (N, 3, h, w) in [-1, 1], labels (N, H, W) with 255 ignored, indices (N). If the sizes differ,
            logits are resized to the labels.
        classes: Number of classes.
        device: Device of the network.
        precision: Precision of the forward pass.
        each: Called with (images, labels, predictions (N, H, W)) after each batch, on the CPU.
        viewing: Scales, mirroring and windows; None: each image once, as it is.
        mirror: Classes that mirroring turns into others (`SegmentationDataset.mirror`).
        processes: The processes that share the images; all get the counts of all.

    Raises:
        DataError: No image has a labelled pixel.
    """
    viewing = viewing or Viewing()
    matrix, training = ConfusionMatrix(classes), network.training
    network.eval()
    try:
        for images, labels, _ in batches:
            size = (labels.shape[-2], labels.shape[-1])
            scores = predict_scores(network, images, size, viewing, device, precision, mirror)
            predictions = scores.argmax(dim=1).cpu()  # (N, H, W)
            matrix.update(predictions, labels)
            if each is not None:
                each(images, labels, predictions)
    finally:
        network.train(training)
    matrix.add_up(processes.add_up)
    if not matrix.counts.any():
        raise DataError(
            "there is no labelled pixel to measure on: every label is 255 (ignored), as in a test split whose labels "
            "are not public"
        )
    return matrix


def starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side: every `stride` pixels, the last one shifted inwards to the border.

    Args:
        side: Pixels of the image, at least 1.
        window: Pixels of a window, at least 1; [0] where it covers the side.
        stride: 1 to `window`.
    """
    return [*range(0, side - window, stride), max(0, side - window)]


@torch.no_grad()
def slide(
    network: Callable[[Tensor], Tensor], images: Tensor, window: tuple[int, int], stride: tuple[int, int], batch: int
) -> Tensor:
    """Logits (N, classes, H, W) of images (N, 3, H, W), each the mean over the windows that contain the pixel.

    Args:
        network: (M, 3, h, w) -> logits (M, classes, h, w).
        images: (N, 3, H, W).
        window: h and w; cut to the image if it is larger.
        stride: Distance between windows, down and to the right.
        batch: Windows of each image that go through the network together.
    """
    number, _, image_height, image_width = images.shape
    height, width = min(window[0], image_height), min(window[1], image_width)
    tops, lefts = starts(image_height, height, stride[0]), starts(image_width, width, stride[1])
    places = [(slice(top, top + height), slice(left, left + width)) for top in tops for left in lefts]
    if len(places) == 1:
        return network(images)
    total = torch.zeros((), device=images.device)
    seen = torch.zeros(image_height, image_width, device=images.device)  # windows that a pixel lies in
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        parts = torch.cat([images[:, :, rows, columns] for rows, columns in group])  # (windows * N, 3, h, w)
        logits = network(parts)  # (windows * N, classes, h, w)
        if first == 0:
            total = logits.new_zeros(number, logits.shape[1], image_height, image_width)
        for (rows, columns), part in zip(group, logits.split(number), strict=True):
            total[:, :, rows, columns] += part
            seen[rows, columns] += 1
    return total.div_(seen)
