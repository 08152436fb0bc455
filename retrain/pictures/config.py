"""Settings of the pictures of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search_spaces.validation import Settings, require

__all__ = ["Checkpoint", "PictureConfig"]

Checkpoint = Literal["best", "last"]

LARGEST_SIDE, MOST_SAMPLES, MOST_CHANNELS, MOST_PATHS = 2049, 1000, 24, 50


@dataclass(frozen=True)
class PictureConfig(Settings):
    """Settings of pictures; each picture reads some of them, and None stands for its own default."""

    path_fields = ("image",)

    image: str | None = None
    """features, heat: the image to show to the network; field: the image to take crops from."""
    paths: int | None = None
    """trellis: number of most probable paths, drawn in grey under the genotype's own; 5, if not given."""
    layer: str | None = None
    """features: name of the lateral inhibition; the network's first one, if not given."""
    channels: int | None = None
    """features: number of channels; 6, if not given."""
    classes: str | None = None
    """heat: names of classes, separated by commas; the six most probable ones, if not given."""
    size: int | None = None
    """field: side of the input in pixels; 257, if not given."""
    samples: int | None = None
    """field: number of inputs over which gradients are averaged; 16, if not given."""
    checkpoint: Checkpoint | None = None
    """features, heat, field: the weights, best (highest validation mIoU) or last; best, if not given."""
    device: str | None = None
    """features, heat, field: auto, cpu, cuda, cuda:1, ...; auto, if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("paths", least=1, most=MOST_PATHS)
        self.limit("channels", least=1, most=MOST_CHANNELS)
        self.limit("size", least=9, most=LARGEST_SIDE)
        self.limit("samples", least=1, most=MOST_SAMPLES)
        for name in ("image", "layer", "classes"):
            require(getattr(self, name) != "", f"{name} is empty: give a name, or leave it out")
