"""Random scale, crop and mirroring of an image with its label.

Pure functions of (image, label, settings, generator): no global random state. NumPy and Pillow, no torch.
Shapes: image uint8 [H, W, 3], label uint8 [H, W].
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from nas.data.base import IGNORE, Sample
from nas.data.config import AugmentConfig

__all__ = ["PAD_GREY", "augment", "random_crop", "random_flip", "random_scale"]

PAD_GREY = 127
"""Value of padding in images: next to 0 once an image is scaled to [-1, 1]. Padding in labels is IGNORE."""


def random_scale(image: np.ndarray, label: np.ndarray, scale: tuple[float, float], rng: np.random.Generator) -> Sample:
    """Resize by one factor on both sides, drawn uniformly from [scale[0], scale[1]].

    The image is resized bilinearly (antialiased where it shrinks), the label by nearest neighbour; sides are
    rounded to whole pixels, at least 1.
    """
    factor = rng.uniform(*scale)
    height, width = (max(1, round(side * factor)) for side in label.shape)
    if (height, width) == label.shape:
        return image, label
    return (
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)),
        np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)),
    )


def random_crop(image: np.ndarray, label: np.ndarray, crop: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Cut out a window of exactly crop = (height, width) pixels, placed uniformly.

    A side that is shorter than the window lies wholly inside it, at a random place; the rest is padded with
    :data:`PAD_GREY` in the image and IGNORE in the label.
    """
    out_image = np.full((*crop, 3), PAD_GREY, dtype=np.uint8)
    out_label = np.full(crop, IGNORE, dtype=np.uint8)
    source, target = [], []
    for have, want in zip(label.shape, crop, strict=True):
        # Start of the window in the image; negative where the image is shorter and starts inside the window.
        start = int(rng.integers(min(0, have - want), max(0, have - want) + 1))
        source.append(slice(max(0, start), min(have, start + want)))
        target.append(slice(max(0, -start), min(want, have - start)))
    out_image[target[0], target[1]] = image[source[0], source[1]]
    out_label[target[0], target[1]] = label[source[0], source[1]]
    return out_image, out_label


def random_flip(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> Sample:
    """Mirror left and right with probability one half; the result may be a view."""
    if rng.random() < 0.5:
        return image[:, ::-1], label[:, ::-1]
    return image, label


def augment(image: np.ndarray, label: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Scale, crop and mirror one sample.

    Args:
        image: uint8 [H, W, 3].
        label: uint8 [H, W].
        config: What to do.
        rng: Source of every random choice; the result is a function of its state and the other arguments.

    Returns:
        Image, uint8 [crop height, crop width, 3], and label, uint8 [crop height, crop width].
    """
    image, label = random_scale(image, label, config.scale, rng)
    image, label = random_crop(image, label, config.crop, rng)
    if config.flip:
        image, label = random_flip(image, label, rng)
    return image, label
