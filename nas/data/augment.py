"""Random scaling, cropping and mirroring of an image and its label.

Pure functions of (image, label, settings, generator): no global random state. NumPy and Pillow, no torch. Only the
part of an image that the crop shows is resized.
Shapes: image [H, W, C] of one of `nas.data.base.IMAGE_TYPES`, label uint8 [H, W].
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nas.config import AugmentConfig, ImageConfig
from nas.data.base import IGNORE, UNCHANGED, Sample, resized

__all__ = ["augment", "padding", "random_flip", "random_size", "random_window", "resized_window"]

Slices = tuple[slice, slice]
"""Rows and columns."""


def random_size(
    size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator, step: float = 0.0
) -> tuple[int, int]:
    """Height and width times one random factor from scale[0] to scale[1]; whole pixels, at least 1.

    The factor is drawn uniformly from the interval or, with a step above 0, from scale[0], scale[0] + step, ...
    """
    if step:
        factor = scale[0] + step * float(rng.integers(math.floor((scale[1] - scale[0]) / step + 1e-9) + 1))
    else:
        factor = rng.uniform(*scale)
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def random_window(size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator) -> tuple[Slices, Slices]:
    """A window of crop = (height, width) pixels, placed uniformly on an image of `size`.

    A side that is shorter than the window lies entirely inside it, at a random position.

    Returns:
        The visible part of the image, and its place in the window; both have the same size.
    """
    source, target = [], []
    for have, want in zip(size, crop, strict=True):
        # Start of the window in the image; negative if the image is shorter and starts inside the window.
        start = int(rng.integers(min(0, have - want), max(0, have - want) + 1))
        source.append(slice(max(0, start), min(have, start + want)))
        target.append(slice(max(0, -start), min(want, have - start)))
    return (source[0], source[1]), (target[0], target[1])


def resized_window(image: np.ndarray, label: np.ndarray, size: tuple[int, int], window: Slices) -> Sample:
    """A window of a resized image and label; only the window is computed.

    The image is resized bilinearly (antialiased when it shrinks), the label by nearest neighbour. The result is what
    resizing with Pillow and then cropping gives, except that image values may differ by 1, rarely by 2, because Pillow
    rounds the borders of the source region to single precision.

    Args:
        image: [H, W, C].
        label: uint8 [H, W].
        size: Height and width to resize to.
        window: Rows and columns of the resized image.

    Returns:
        Image [rows, columns, C] and label, uint8 [rows, columns]; views if nothing is resized.
    """
    if size == label.shape:
        return image[window], label[window]
    region, box = zip(*(_source(*axis) for axis in zip(label.shape, size, window, strict=True)), strict=True)
    (top, bottom), (left, right) = box
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    part = resized(image[region], shape, (left, top, right, bottom))
    rows, columns = (_nearest(*axis) for axis in zip(label.shape, size, window, strict=True))
    return part, label[rows[:, None], columns]


def _source(have: int, want: int, window: slice) -> tuple[slice, tuple[float, float]]:
    """Source pixels of a window along one side, and the window's start and end within them."""
    step = have / want
    reach = max(1.0, step) + 1  # Pillow's filter, plus a margin of one pixel
    first = max(0, math.floor(window.start * step - reach))
    last = min(have, math.ceil(window.stop * step + reach))
    return slice(first, last), (window.start * step - first, min(window.stop * step - first, last - first))


def _nearest(have: int, want: int, window: slice) -> np.ndarray:
    """Pixels that Pillow's nearest neighbour takes along one side; like Pillow, this accumulates steps."""
    steps = np.full(want, have / want)
    steps[0] /= 2
    return np.add.accumulate(steps).astype(np.intp)[window]


def random_flip(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator, mirror: Mapping[int, int] = UNCHANGED
) -> Sample:
    """Mirror left and right with probability 0.5; the result may be a view.

    Args:
        image: [H, W, C].
        label: uint8 [H, W].
        rng: Source of the choice.
        mirror: Class ids that change in a mirror image, as a left eye becomes a right one.
    """
    if rng.random() >= 0.5:
        return image, label
    image, label = image[:, ::-1], label[:, ::-1]
    if mirror:
        table = np.arange(256, dtype=np.uint8)
        table[list(mirror)] = list(mirror.values())
        label = table[label]
    return image, label


def augment(
    image: np.ndarray,
    label: np.ndarray,
    config: AugmentConfig,
    rng: np.random.Generator,
    mirror: Mapping[int, int] = UNCHANGED,
    images: ImageConfig | None = None,
) -> Sample:
    """Scale, crop and mirror one sample; padded if it is smaller than the crop.

    Args:
        image: [H, W, C].
        label: uint8 [H, W].
        config: Scales, crop and flip.
        rng: Source of every random choice; the result depends only on its state and the other arguments.
        mirror: Class ids that change in a mirror image.
        images: Normalisation of the data set, by which images are padded; None: that of 8 bits.

    Returns:
        Image [crop height, crop width, C] and label, uint8 [crop height, crop width].
    """
    size = random_size((label.shape[0], label.shape[1]), config.scale, rng, config.scale_step)
    source, target = random_window(size, config.crop, rng)
    out_image = np.full(
        (*config.crop, image.shape[2]), padding(image.dtype, images or ImageConfig()), dtype=image.dtype
    )
    out_label = np.full(config.crop, IGNORE, dtype=np.uint8)
    out_image[target], out_label[target] = resized_window(image, label, size, source)
    return random_flip(out_image, out_label, rng, mirror) if config.flip else (out_image, out_label)


def padding(dtype: np.dtype, images: ImageConfig) -> np.ndarray:
    """Values [C] of padding: the mean, which becomes about 0; 127 for 8 bits. DeepLab's code pads with 127.5.

    Labels are padded with IGNORE.
    """
    mean = np.array(images.moments[0])
    if dtype.kind == "u":
        mean = np.floor(mean).clip(0, np.iinfo(dtype).max)
    return mean.astype(dtype)
