"""Evaluation of a network on a data set: one confusion matrix over all images, seen whole or in sliding windows.

Sliding windows average the logits of overlapping parts of an image. They average logits, not probabilities, so that a
network with windows still maps images to logits and combines with scales and mirroring.

Shapes: N images of h x w pixels, labels of H x W (the same, unless the network was trained at another resolution).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.config import Precision
from nas.data.base import UNCHANGED, DataError
from nas.evaluation.inference import Viewing
from nas.evaluation.metrics import ConfusionMatrix
from nas.training.devices import autocast
from nas.training.distributed import ALONE, Processes
from search_spaces.modules import resize

__all__ = ["evaluate_network", "predict_classes", "predict_logits", "predict_scores", "slide", "starts"]


@torch.no_grad()
def predict_logits(network: nn.Module, images: Tensor, device: torch.device, precision: Precision) -> Tensor:
    """Logits (N, classes, H, W) in float32 for images (N, C, H, W); the network must be in eval mode."""
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
        network: (N, C, h, w) -> logits (N, classes, h, w), in eval mode.
        images: (N, C, h, w).
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


def predict_classes(
    network: nn.Module,
    crop: Callable[[slice, slice], Tensor],
    size: tuple[int, int],
    viewing: Viewing,
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """The most likely class of every pixel, (N, H, W) on the CPU; scores are kept of a few rows at a time.

    Args:
        network: As for `predict_scores`, like the other arguments.
        crop: (rows, columns) -> that part of the images, (N, C, h, w).
        size: H and W of the images and of the result.
        viewing: Windows, and one view (`Viewing.by_rows`).
        device, precision: As for `predict_scores`.
    """
    assert viewing.window is not None and viewing.by_rows
    see = partial(predict_logits, network, device=device, precision=precision)
    rows = slide_rows(see, crop, size, viewing.window, viewing.steps, viewing.window_batch)
    return torch.cat([logits.argmax(dim=1).cpu() for logits in rows], dim=1)


def _window(images: Tensor, rows: slice, columns: slice) -> Tensor:
    return images[:, :, rows, columns]


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
        network: (N, C, H, W) -> (N, classes, H, W); its mode is restored afterwards.
        batches: Images (N, C, h, w), labels (N, H, W) with 255 ignored, indices (N). If the sizes differ,
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
            if viewing.by_rows and size == tuple(images.shape[-2:]):
                crop = partial(_window, images)
                predictions = predict_classes(network, crop, size, viewing, device, precision)  # (N, H, W)
            else:
                scores = predict_scores(network, images, size, viewing, device, precision, mirror)
                predictions = scores.argmax(dim=1).cpu()
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
    """Logits (N, classes, H, W) of images (N, C, H, W), each the mean over the windows that contain the pixel.

    Args:
        network: (M, C, h, w) -> logits (M, classes, h, w).
        images: (N, C, H, W).
        window: h and w; cut to the image if it is larger.
        stride: Distance between windows, down and to the right.
        batch: Windows of each image that go through the network together.
    """
    size = (images.shape[-2], images.shape[-1])
    whole, done = images, 0
    for rows in slide_rows(network, partial(_window, images), size, window, stride, batch):
        if rows.shape[2] == size[0]:
            return rows
        if done == 0:
            whole = rows.new_empty(*rows.shape[:2], *size)
        whole[:, :, done : done + rows.shape[2]] = rows
        done += rows.shape[2]
    return whole


def slide_rows(
    network: Callable[[Tensor], Tensor],
    crop: Callable[[slice, slice], Tensor],
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    batch: int,
) -> Iterator[Tensor]:
    """The result of `slide` in parts (N, classes, rows, W) from top to bottom: only unfinished rows are in memory.

    Args:
        network: As for `slide`, like the other arguments.
        crop: (rows, columns) -> that part of the images, (N, C, h, w).
        size: H and W of the images.
        window, stride, batch: As for `slide`.
    """
    height, width = min(window[0], size[0]), min(window[1], size[1])
    tops, lefts = starts(size[0], height, stride[0]), starts(size[1], width, stride[1])
    places = [(slice(top, top + height), slice(left, left + width)) for top in tops for left in lefts]
    if len(places) == 1:
        yield network(crop(*places[0]))
        return
    total, seen, done = torch.zeros(()), torch.zeros(()), 0  # of the rows from `done` on; windows that a pixel lies in
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        parts = [crop(*place) for place in group]
        logits = network(torch.cat(parts))  # (windows * N, classes, h, w)
        if first == 0:
            total = logits.new_zeros(len(parts[0]), logits.shape[1], 0, size[1])
            seen = logits.new_zeros(0, size[1], dtype=torch.float32)
        more = max(0, group[-1][0].stop - done - total.shape[2])
        total, seen = F.pad(total, (0, 0, 0, more)), F.pad(seen, (0, 0, 0, more))
        for (rows, columns), part in zip(group, logits.split(len(parts[0])), strict=True):
            rows = slice(rows.start - done, rows.stop - done)
            total[:, :, rows, columns] += part
            seen[rows, columns] += 1
        finished = (places[first + batch][0].start if first + batch < len(places) else size[0]) - done
        if finished:
            yield total[:, :, :finished].div_(seen[:finished])
            total, seen, done = total[:, :, finished:], seen[finished:], done + finished
