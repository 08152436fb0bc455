"""Settings of inference: views of an image, precision, folding, compilation. No torch, for --help."""

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
    """The views of an image that a network gets: the image as it is, or several views whose results are averaged."""

    scales: tuple[float, ...] = PLAIN_SCALES
    """Factors on the sides of the image; the class probabilities of all views are averaged."""
    flip: bool = False
    """Add a mirrored view of each scale."""
    window: tuple[int, int] | None = None
    """Height and width in pixels of the sliding windows for larger images, at each scale; None: the whole image."""
    stride: tuple[int, int] | None = None
    """Distance between windows, down and to the right, at most their sides; None: two thirds of the sides."""
    window_batch: int = WINDOW_BATCH
    """Windows in one pass through the network, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("scales", most=MOST_SCALES, note=", such as 0.5,1,1.75", distinct=True)
        self.limit("scales", above=0, most=LARGEST_SCALE)
        self.limit("window", "stride", "window_batch", least=1)
        if self.window is None:
            given = f"stride is {_text(self.stride)}" if self.stride else f"window_batch is {self.window_batch}"
            unused = self.stride is None and self.window_batch == WINDOW_BATCH
            require(unused, f"{given}, but there is no window: give --window, too")
        elif self.stride is not None:
            require(
                self.stride[0] <= self.window[0] and self.stride[1] <= self.window[1],
                f"stride {_text(self.stride)} is larger than the window, {_text(self.window)}, and would leave pixels "
                f"out: give at most {_text(self.window)}",
            )

    @property
    def single(self) -> bool:
        """Whether the only view is the image at its own size, not mirrored."""
        return tuple(self.scales) == PLAIN_SCALES and not self.flip

    @property
    def by_rows(self) -> bool:
        """Whether an image of any size can be predicted row by row: windows, and no other view."""
        return self.single and self.window is not None

    @property
    def steps(self) -> tuple[int, int]:
        """Distance between windows, down and to the right: the stride, or two thirds of the sides."""
        assert self.window is not None
        height, width = self.window
        return self.stride or (-(-2 * height // 3), -(-2 * width // 3))

    @property
    def suffix(self) -> str:
        """A suffix for file names, such as "-scales-0.5-1-1.75-flip-window-512x512-stride-342x342"."""
        suffix = ""
        if not self.single:
            suffix = f"-scales-{'-'.join(f'{scale:g}' for scale in self.scales)}{'-flip' * self.flip}"
        if self.window is not None:
            suffix += f"-window-{_text(self.window)}-stride-{_text(self.steps)}"
        return suffix

    def describe(self) -> str:
        """The views in words, for the end of a line, such as "; scales 0.5, 1, each also mirrored"."""
        text = ""
        if not self.single:
            text = f"; scales {', '.join(f'{scale:g}' for scale in self.scales)}{', each also mirrored' * self.flip}"
        if self.window is not None:
            text += f"; windows of {_text(self.window)} at stride {_text(self.steps)}"
        return text


@dataclass(frozen=True)
class Inference(Viewing):
    """The views of an image, and how the network is computed."""

    precision: Precision | None = None
    """Precision in place of the run's: float32; tf32, for NVIDIA GPUs from Ampere on; bfloat16 or float16. (fp32, bf16
    and fp16 are abbreviations.)"""
    fold: bool = True
    """Fold batch norms into the convolutions in front of them: faster, and the same to rounding."""
    compile: bool = False
    """Compile the network (torch.compile): takes minutes at first, and is faster afterwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision is not None:
            object.__setattr__(self, "precision", full_precision(self.precision))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
