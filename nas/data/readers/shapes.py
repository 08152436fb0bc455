"""A built-in data set of drawn shapes, generated on the fly from a seed: no files, nothing to download.

Light and noise are independent of the class, and colours nearly so: a linear classifier on them does little better than
to call everything background. Squares carry checks, discs and triangles stripes, coarse and fine ones; rings and lines
are plain and a few pixels thin. So a network needs fine features as well as context, and a small one learns the task in
a minute. Objects cover each other, and each has a border of void. Sample i of a split is a pure function of (seed,
split, index, size).

Shapes: image uint8 [H, W, 3], label uint8 [H, W]. Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.base import IGNORE, DataError, Sample, SegmentationDataset, register_dataset

__all__ = ["CLASSES", "COLORS", "COUNTS", "Shapes"]

CLASSES = ("background", "disc", "square", "triangle", "ring", "line")

COLORS = ((60, 60, 60), (220, 60, 50), (60, 130, 220), (240, 190, 50), (70, 180, 100), (180, 90, 200))

COUNTS = {"train": 1000, "val": 100, "test": 100}
"""Default number of samples per split."""

TEXTURES = {"disc": (False, (12, 18)), "square": (True, (6, 10)), "triangle": (False, (6, 9))}
"""Classes with a texture: whether it has checks, or stripes; and the range of its period."""

TINT = 0.3
"""Share of the class's own colour in the colour of an object. Without any, trainings differ by chance in when they
leave the plateau of their first epochs, and by more than networks do."""

Float = NDArray[np.float32]
Distance = Callable[[Float, Float], Float]
"""Signed distance to an outline, negative inside, of points given by (y, x) from the centre of the shape."""


@register_dataset(
    "shapes",
    needs_root=False,
    summary="drawn shapes, 6 classes, made on the fly (no files)",
    splits=lambda: tuple(COUNTS),
)
class Shapes(SegmentationDataset):
    """Drawn shapes.

    Args:
        split: `train`, `val` or `test`; they share no sample.
        size: Height and width of every sample, at least 24 each.
        count: Number of samples of this split; None for `COUNTS`.
        seed: 0 or above; another seed gives another data set of the same kind.

    Raises:
        DataError: The split does not exist or an option is out of range.
    """

    def __init__(self, split: str, size: tuple[int, int] = (97, 129), count: int | None = None, seed: int = 0) -> None:
        if split not in COUNTS:
            raise DataError(f"shapes: there is no split {split!r}; choose one of {', '.join(COUNTS)}")
        if len(size) != 2 or min(size) < 24:
            raise DataError(f"shapes: size is {size}; expected height and width, each at least 24 pixels")
        if count is not None and count < 1:
            raise DataError(f"shapes: count is {count}; expected at least 1")
        if seed < 0:
            raise DataError(f"shapes: seed is {seed}; expected 0 or above")
        self.name = "shapes"
        self.split = split
        self.classes = CLASSES
        self.colors = np.array(COLORS, dtype=np.uint8)
        self.size = (int(size[0]), int(size[1]))
        self.count = COUNTS[split] if count is None else count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def sample_name(self, index: int) -> str:
        return f"{self.split}_{index:06d}"

    def identity(self, index: int) -> list[Any]:
        return [*super().identity(index), *self.size, self.seed]

    def read(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"index {index} is outside the {self.count} samples of shapes {self.split}")
        rng = np.random.default_rng([self.seed, list(COUNTS).index(self.split), index])
        return _draw(rng, self.size)


def _draw(rng: np.random.Generator, size: tuple[int, int]) -> Sample:
    height, width = size
    y, x = np.ogrid[:height, :width]
    base = rng.uniform(40, 215, 3)
    canvas = np.broadcast_to(base.astype(np.float32), (*size, 3)).copy()
    label = np.zeros(size, dtype=np.uint8)
    for _ in range(int(rng.integers(3, 7))):
        _draw_object(rng, base, canvas, label)
    # Light falls off in one direction; sensor noise comes on top.
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.1)
    slope_y, slope_x = strength * np.sin(angle) / height, strength * np.cos(angle) / width
    light = 1 + slope_y * (2 * y - height) + slope_x * (2 * x - width)
    canvas *= light[..., None].astype(np.float32)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise *= np.float32(rng.uniform(1, 3))
    canvas += noise
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8), label


def _draw_object(rng: np.random.Generator, base: NDArray[np.float64], canvas: Float, label: NDArray[np.uint8]) -> None:
    """Draw one random object with its texture, its class, and a border of void around it."""
    height, width = label.shape
    kind = int(rng.integers(1, len(CLASSES)))
    distance, reach = _outline(rng, kind, min(height, width))
    border = int(rng.integers(1, 3))
    centre_y, centre_x = rng.uniform(0.05, 0.95) * height, rng.uniform(0.05, 0.95) * width
    # Only the window that the object can touch is computed.
    top, left = (max(0, int(centre - reach - 3)) for centre in (centre_y, centre_x))
    bottom = min(height, int(centre_y + reach + 4))
    right = min(width, int(centre_x + reach + 4))
    y, x = np.ogrid[top:bottom, left:right]
    y, x = (y - centre_y).astype(np.float32), (x - centre_x).astype(np.float32)
    # Lines run in all directions; the others are only tilted, as telling them apart would take long training.
    angle = rng.uniform(-1, 1) * (np.pi / 2 if CLASSES[kind] == "line" else 0.3)
    sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    signed = distance(cos * y - sin * x, sin * y + cos * x)
    # The farthest of five colours from the background's: the object stands out, but not by a colour of its own.
    color = max(rng.uniform(40, 215, (5, 3)), key=lambda candidate: float(np.abs(candidate - base).sum()))
    color += TINT * (np.array(COLORS[kind]) - color)
    cover = np.clip(0.5 - signed, 0, 1)[..., None]  # antialiased edge
    window = canvas[top:bottom, left:right]
    window += cover * (_surface(rng, CLASSES[kind], color, y, x) - window)
    ids = label[top:bottom, left:right]
    ids[signed < border] = IGNORE
    ids[signed < 0] = kind


def _outline(rng: np.random.Generator, kind: int, side: int) -> tuple[Distance, float]:
    """Signed distance of a random object, and the largest distance of an inner point from its centre."""
    radius = rng.uniform(0.15, 0.35) * side
    name = CLASSES[kind]
    if name == "disc":
        return lambda y, x: np.hypot(y, x) - np.float32(radius), radius
    if name == "square":
        half = 0.89 * radius  # the area of the disc
        return lambda y, x: np.maximum(np.abs(y), np.abs(x)) - np.float32(half), 1.4143 * half
    if name == "triangle":
        inner = 0.78 * radius  # radius of the inscribed circle: the area of the disc
        root = np.float32(np.sqrt(0.75))
        return lambda y, x: np.maximum(-y, np.float32(0.5) * y + root * np.abs(x)) - np.float32(inner), 2 * inner
    if name == "ring":
        half_width = max(1.5, rng.uniform(0.1, 0.18) * radius)
        middle = radius - half_width
        return lambda y, x: np.abs(np.hypot(y, x) - np.float32(middle)) - np.float32(half_width), radius
    half_length, half_width = rng.uniform(0.35, 0.65) * side, rng.uniform(1.0, 2.0)
    return (
        lambda y, x: np.maximum(np.abs(y) - np.float32(half_width), np.abs(x) - np.float32(half_length)),
        half_length + half_width,
    )


def _surface(rng: np.random.Generator, name: str, color: NDArray[np.float64], y: Float, x: Float) -> Float:
    """The surface of a class around a colour, [h, w, 3] or [1, 1, 3]: plain or textured; y is [h, 1], x [1, w]."""
    if name not in TEXTURES:
        return color.astype(np.float32)[None, None]
    checks, period = TEXTURES[name]
    frequency, angle = 2 * np.pi / rng.uniform(*period), rng.uniform(0, np.pi)
    along_y, along_x = np.float32(frequency * np.sin(angle)), np.float32(frequency * np.cos(angle))
    mix = np.sin(along_y * y + along_x * x)
    if checks:
        mix = np.sign(mix * np.sin(along_x * y - along_y * x))
    mix = np.float32(0.5) + np.float32(0.5) * mix
    other = rng.choice((-1, 1), 3) * rng.uniform(40, 80, 3)  # the texture's second colour less its first
    surface: Float = color.astype(np.float32) + mix[..., None] * other.astype(np.float32)
    return surface
