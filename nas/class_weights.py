"""Weights of the classes in the loss, from how often each occurs.

Source: ENet (Paszke et al., 2016), section 5.2, whose 1 / ln(c + p) FPLNet (Atif et al., 2023) takes over.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nas.data.base import IGNORE, DataError, SegmentationDataset
from nas.data.loading import evaluation_loader

__all__ = ["class_shares", "inverse_log"]


def class_shares(dataset: SegmentationDataset, workers: int = 0) -> NDArray[np.float64]:
    """The share of each class among the labelled pixels of all samples as they are read, without augmentation.

    Args:
        dataset: What to count; each sample is read once.
        workers: Processes that read; 0 does it in this one.

    Returns:
        float64 [classes], with sum 1.

    Raises:
        DataError: There is no labelled pixel.
    """
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64)
    with evaluation_loader(dataset, workers) as samples:
        for _, labels, _ in samples:
            counts += torch.bincount(labels.flatten(), minlength=len(counts))
    pixels = counts[: len(dataset.classes)].double().numpy()
    if not pixels.sum():
        raise DataError(
            f"{dataset.name} {dataset.split} has no labelled pixel to weigh classes by: every label is 255 (ignored)"
        )
    return pixels / pixels.sum()


def inverse_log(shares: ArrayLike, constant: float = 1.02) -> Tensor:
    """1 / ln(constant + share): a rare class weighs more, at most 1 / ln(constant).

    Args:
        shares: Share of each class, 0 to 1, [classes].
        constant: Above 1.

    Returns:
        float32 [classes].
    """
    return torch.from_numpy(1 / np.log(constant + np.asarray(shares, dtype=np.float64))).float()
