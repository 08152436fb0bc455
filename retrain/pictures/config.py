"""What a picture of a run may be told; imports no torch."""

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

    image: str | None = None
    """The image that the network is shown (features, heat), or of which it is shown crops (field)."""
    paths: int | None = None
    """trellis: how many of the most probable paths, the others in grey beneath the genotype's own; 5, if not given."""
    layer: str | None = None
    """features: name of the lateral inhibition; the network's first one, if not given."""
    channels: int | None = None
    """features: how many channels; 6, if not given."""
    classes: str | None = None
    """heat: names of classes, with commas; the six that the network sees most of, if not given."""
    size: int | None = None
    """field: side of the input in pixels; 257, if not given."""
    samples: int | None = None
    """field: how many inputs the gradients are averaged over; 16, if not given."""
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
