"""How long the paper's search would take, from the seconds of its steps."""

from __future__ import annotations

__all__ = ["protocol_hours"]

IMAGES = 2975
"""Training images of Cityscapes: half of them for the weights, half for alpha and beta."""
EPOCHS, START_EPOCH = 40, 20
"""Passes over the weights' half; from the second number on, also over the other half."""


def protocol_hours(weight: float, architecture: float, batch_size: int = 2) -> float:
    """Hours of all steps of Auto-DeepLab's search (Liu et al., 2019, section 5.1), without validation and waiting.

    The paper's batches are of 2 images, at crop 321.

    Args:
        weight: Seconds of a step of the weights.
        architecture: Seconds of a step of alpha and beta.
        batch_size: Images in a step; an incomplete last batch is dropped, as `nas-search` does.
    """
    steps = IMAGES // 2 // batch_size
    return steps * (EPOCHS * weight + (EPOCHS - START_EPOCH) * architecture) / 3600
