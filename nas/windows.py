"""Sliding windows: an image that is larger than a window is seen in overlapping parts, whose logits are averaged.

Logits, and not probabilities, so that a network behind windows is again one that maps images to logits: at a single
scale or several, mirrored or not, nothing else changes, and an image no larger than the window gives what it gave.

Shapes: N images of H x W pixels, windows of h x w.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["slide", "starts"]


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
    """Logits (N, classes, H, W) of images (N, 3, H, W), each pixel's the mean over the windows that it lies in.

    Args:
        network: (M, 3, h, w) -> logits (M, classes, h, w).
        images: (N, 3, H, W).
        window: h and w; a larger one than the image is cut to it.
        stride: From a window to the next, down and to the right.
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
