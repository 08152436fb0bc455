"""Settings of retraining. No torch, so that `--help` answers at once.

The defaults are Auto-DeepLab's (Liu et al., 2019, section 5.2, and the authors' network code).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nas.config import LoaderConfig, RunConfig, SgdConfig, load_recipe, require
from nas.data.config import AugmentConfig

__all__ = ["NetworkConfig", "PolySgdConfig", "RetrainConfig", "recipe"]

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class NetworkConfig:
    """The network that a genotype is retrained as.

    Raises:
        ValueError: A field is outside its limits; the message names the value and what to give.
    """

    filter_multiplier: int | None = None
    """F, at least 1: operations work on F channels at level 0, twice as many each level up. None: that of the published
    network, 20 for a genotype."""
    stem_channels: tuple[int, ...] = (64, 64, 128)
    """Output channels of the stem's 3x3 convolutions, two or more."""
    aspp_channels: int = 256
    """Output channels of every branch of the ASPP and of the ASPP, at least 1."""
    decoder_channels: int = 256
    """Output channels of the decoder's two 3x3 convolutions, at least 1."""
    low_level_channels: int = 48
    """Channels that the decoder reduces its fine feature to, at least 1."""
    dropout: float = 0.1
    """Probability with which dropout zeroes a value of the ASPP's output, 0 to below 1."""
    drop_path_keep: float = 1.0
    """Probability of keeping a branch of the last cell at the end of training, above 0 to 1; 1 drops nothing. Earlier
    cells and earlier steps keep more."""
    batch_norm_momentum: float = 0.0003
    """Weight of the newest batch in the running statistics, above 0 to 1. The authors' value suits hundreds of
    thousands of steps; recipes for short runs set 0.1, or evaluation sees statistics that never left their start."""

    def __post_init__(self) -> None:
        if self.filter_multiplier is not None:
            _positive("filter_multiplier", self.filter_multiplier)
        object.__setattr__(self, "stem_channels", tuple(self.stem_channels))
        require(
            len(self.stem_channels) >= 2,
            f"network.stem_channels has {len(self.stem_channels)} entries: give two or more, "
            "the first cell reads the last two",
        )
        for number, channels in enumerate(self.stem_channels):
            _positive(f"stem_channels[{number}]", channels)
        for name in ("aspp_channels", "decoder_channels", "low_level_channels"):
            _positive(name, getattr(self, name))
        require(0 <= self.dropout < 1, f"network.dropout is {self.dropout}: give a number from 0 to below 1")
        require(
            0 < self.drop_path_keep <= 1,
            f"network.drop_path_keep is {self.drop_path_keep}: give a number above 0 and up to 1",
        )
        require(
            0 < self.batch_norm_momentum <= 1,
            f"network.batch_norm_momentum is {self.batch_norm_momentum}: give a number above 0 and up to 1",
        )


def _positive(name: str, value: object) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value >= 1, f"network.{name} is {value!r}: give a whole number of at least 1")  # type: ignore[operator]


@dataclass(frozen=True)
class PolySgdConfig(SgdConfig):
    """SGD whose learning rate is lr * (1 - progress) ** power."""

    lr: float = 0.05
    """Learning rate at the start, above 0."""
    weight_decay: float = 4e-5
    """L2 penalty, at least 0."""
    power: float = 0.9
    """Exponent of the schedule, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.power > 0, f"optimizer.power is {self.power}: give a number above 0")


@dataclass(frozen=True)
class RetrainConfig(RunConfig):
    """Settings of `nas-retrain`; the defaults are the protocol of Auto-DeepLab, section 5.2, on Cityscapes."""

    genotype: str = ""
    """A genotype.json file, or the name of a published network."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Widths and regularisation of the network."""
    optimizer: PolySgdConfig = field(default_factory=PolySgdConfig)
    """SGD with the poly schedule."""
    loader: LoaderConfig = field(
        default_factory=lambda: LoaderConfig(batch_size=16, augment=AugmentConfig(crop=(769, 769)))
    )
    """How the data set is read."""
    epochs: int = 8000
    """Passes over the training data, at least 1; 8,000 of Cityscapes' 2,975 images are the paper's 1.5 M steps."""


def recipe(name: str) -> RetrainConfig:
    """The settings of a shipped training recipe: "small", "autodeeplab", "camvid"."""
    return load_recipe(RetrainConfig, RECIPES, name)
