"""What closes a stage of FPLNet: shallow and deep features and the image, fused; and the image at a coarser stride.

Shapes: N images, C channels, h x w pixels at the stage's stride.

Source: FPLNet (Atif et al., 2023), section III-A.3, Figure 3 and Table VIII.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.factorized import BatchNormPReLU
from search_spaces.modules import BatchNormFactory

__all__ = ["FUSIONS", "IMAGE_CHANNELS", "FusionUnit", "halve"]

IMAGE_CHANNELS = 3
FUSIONS: dict[str, tuple[str, ...]] = {
    "fir": ("sum", "deep", "image"),
    "if": ("deep", "image"),
    "isff-add": ("sum",),
    "isff-concat": ("deep", "shallow"),
    "if+isff-add": ("sum", "image"),
    "if+isff-concat": ("deep", "shallow", "image"),
}
"""What each fusion concatenates: shallow and deep are the outputs of a stage's first and last module, sum is theirs.
"fir" is the paper's feature-image reinforcement unit; the others are those that its Table VIII compares with it."""


class FusionUnit(nn.Module):
    """Features and image of a stage -> (N, channels_out, h, w): concatenation, batch norm, PReLU.

    Args:
        parts: What is concatenated, an entry of `FUSIONS`.
        channels: C, of the shallow and of the deep feature.
        batch_norm: Factory for the batch norm.

    Attributes:
        channels_out: Channels of the output.
    """

    def __init__(self, parts: tuple[str, ...], channels: int, batch_norm: BatchNormFactory) -> None:
        super().__init__()
        self.parts = parts
        self.channels_out = sum(IMAGE_CHANNELS if part == "image" else channels for part in parts)
        self.output = BatchNormPReLU(self.channels_out, batch_norm)

    def forward(self, shallow: Tensor, deep: Tensor, image: Tensor) -> Tensor:
        """(N, C, h, w), (N, C, h, w) and (N, 3, h, w) -> (N, channels_out, h, w)"""
        sources = {"shallow": shallow, "deep": deep, "image": image}
        if "sum" in self.parts:
            sources["sum"] = shallow + deep
        return self.output(torch.cat([sources[part] for part in self.parts], dim=1))

    def extra_repr(self) -> str:
        return ", ".join(self.parts)


def halve(image: Tensor, times: int = 1) -> Tensor:
    """Halves an image's sides, rounded up, `times` times: (N, 3, H, W) -> (N, 3, ceil(H / 2**times), ...).

    It is ESPNet's pooling, a cascade of averages over 3x3 windows at stride 2: the size is that behind a strided 3x3
    convolution, for any H and W. FPLNet's paper does not say which pooling it uses.
    """
    for _ in range(times):
        image = F.avg_pool2d(image, 3, stride=2, padding=1)
    return image
