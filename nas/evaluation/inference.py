"""How a trained network is used: what it sees of an image, and how it is computed. No torch, for --help."""

from __future__ import annotations

from dataclasses import dataclass

from nas.config import Precision, full_precision
from search_spaces.validation import Settings, require

__all__ = ["PLAIN_SCALES", "WINDOW_BATCH", "Inference", "Viewing"]

PLAIN_SCALES = (1.0,)
MOST_SCALES, LARGEST_SCALE = 16, 8.0
WINDOW_BATCH = 4


@dataclass(frozen=True)
class Viewing(Settings):
    """What a network sees of an image: all of it once, as it is; or several views, whose results are averaged."""

    scales: tuple[float, ...] = PLAIN_SCALES
    """Factors on the sides of the image; with more than 1.0 alone, class probabilities are averaged."""
    flip: bool = False
    """See each scale mirrored left and right, too."""
    window: tuple[int, int] | None = None
    """Height and width in pixels of the windows in which a larger image is seen, at each scale; None: all at once."""
    stride: tuple[int, int] | None = None
    """Steps from a window to the next, down and to the right, at most its sides; None: two thirds of them."""
    window_batch: int = WINDOW_BATCH
    """Windows in one pass through the network, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("scales", most=MOST_SCALES, note=", such as 0.5,1,1.75", distinct=True)
        self.limit("scales", above=0, most=LARGEST_SCALE)
        self.limit("window", "stride", "window_batch", least=1)
        if self.window is None:
            require(
                self.stride is None,
                f"stride is {_text(self.stride or (0, 0))}, but there is no window: give --window, too",
            )
            require(
                self.window_batch == WINDOW_BATCH,
                f"window_batch is {self.window_batch}, but there is no window: give --window, too",
            )
        elif self.stride is not None:
            require(
                self.stride[0] <= self.window[0] and self.stride[1] <= self.window[1],
                f"stride {_text(self.stride)} is larger than the window, {_text(self.window)}, and would leave pixels "
                f"out: give at most {_text(self.window)}",
            )

    @property
    def single(self) -> bool:
        """Whether the image is seen at its own size only, and not mirrored."""
        return tuple(self.scales) == PLAIN_SCALES and not self.flip

    @property
    def steps(self) -> tuple[int, int]:
        """Steps from a window to the next, down and to the right: the stride, or two thirds of the sides."""
        assert self.window is not None
        height, width = self.window
        return self.stride or (-(-2 * height // 3), -(-2 * width // 3))

    @property
    def suffix(self) -> str:
        """What a file's name says of it, such as "-scales-0.5-1-1.75-flip-window-512x512-stride-342x342"."""
        suffix = ""
        if not self.single:
            suffix = f"-scales-{'-'.join(f'{scale:g}' for scale in self.scales)}{'-flip' * self.flip}"
        if self.window is not None:
            suffix += f"-window-{_text(self.window)}-stride-{_text(self.steps)}"
        return suffix

    def describe(self) -> str:
        """The same in words for the end of a line: "; scales 0.5, 1, each also mirrored"."""
        text = ""
        if not self.single:
            text = f"; scales {', '.join(f'{scale:g}' for scale in self.scales)}{', each also mirrored' * self.flip}"
        if self.window is not None:
            text += f"; windows of {_text(self.window)} at stride {_text(self.steps)}"
        return text


@dataclass(frozen=True)
class Inference(Viewing):
    """What a network sees of an image, and how it is computed."""

    precision: Precision | None = None
    """In place of the run's own: float32; tf32, for NVIDIA GPUs from Ampere on; bfloat16 or float16. (fp32, bf16 and
    fp16 are short for them.)"""
    fold: bool = True
    """Make batch norms part of the convolutions in front of them: the same to rounding, and faster."""
    compile: bool = False
    """Compile the network (torch.compile): minutes at first, and faster afterwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision is not None:
            object.__setattr__(self, "precision", full_precision(self.precision))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
