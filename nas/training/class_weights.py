"""Class weights of the loss, from the frequency of each class.

Sources: ENet (Paszke et al., 2016), section 5.2, whose 1 / ln(c + p) FPLNet (Atif et al., 2023) also uses; median
frequency balancing: Eigen and Fergus, 2015, section 4.3.2. Torch is imported where tensors are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.data.base import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONSTANT", "class_shares", "inverse_log", "inverse_log_weights", "median_frequency_weights"]

CONSTANT = 1.02
"""c of 1 / ln(c + p) in ENet."""


def class_shares(pixels: ArrayLike) -> NDArray[np.float64]:
    """The share of each class among the labelled pixels.

    Args:
        pixels: Pixels of each class, [classes], such as the first of `nas.data.label_counts.count_labels`.

    Returns:
        float64 [classes], with sum 1.

    Raises:
        DataError: There is no labelled pixel.
    """
    counts = np.asarray(pixels, dtype=np.float64)
    if not counts.sum():
        raise DataError("there is no labelled pixel to weigh classes by: every label is 255 (ignored)")
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def inverse_log(shares: ArrayLike, constant: float = CONSTANT) -> Tensor:
    """`inverse_log_weights` for the loss: float32 [classes]."""
    import torch

    return torch.from_numpy(inverse_log_weights(shares, constant)).float()


def inverse_log_weights(shares: ArrayLike, constant: float = CONSTANT) -> NDArray[np.float64]:
    """1 / ln(constant + share): a rare class weighs more, at most 1 / ln(constant).

    Args:
        shares: Share of each class, 0 to 1, [classes].
        constant: Above 1.

    Returns:
        float64 [classes].
    """
    weights: NDArray[np.float64] = 1 / np.log(constant + np.asarray(shares, dtype=np.float64))
    return weights


def median_frequency_weights(pixels: ArrayLike, pixels_of_images: ArrayLike) -> NDArray[np.float64]:
    """median(f) / f, with f the share of a class in the pixels of the images that it occurs in.

    The median is over the classes that occur.

    Args:
        pixels: Pixels of each class, [classes].
        pixels_of_images: Pixels, including ignored ones, of the images with the class, [classes].

    Returns:
        float64 [classes]; NaN for a class that does not occur.
    """
    counts = np.asarray(pixels, dtype=np.float64)
    frequency = np.full(counts.shape, np.nan)
    np.divide(counts, np.asarray(pixels_of_images, dtype=np.float64), out=frequency, where=counts > 0)
    if np.isnan(frequency).all():
        return frequency
    weights: NDArray[np.float64] = np.nanmedian(frequency) / frequency
    return weights
