"""Settings of retraining. No torch, so that `--help` answers at once.

The defaults are Auto-DeepLab's (Liu et al., 2019, section 5.2, and the authors' network code).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from nas.config import (
    AugmentConfig,
    Decay,
    LoaderConfig,
    LossNameConfig,
    RunConfig,
    SgdConfig,
    check_seeds,
    load_recipe,
)
from retrain.networks.settings import NetworkConfig
from search_spaces.validation import Settings, require, short

__all__ = [
    "CandidateConfig",
    "ClassWeights",
    "LossConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "RANDOM",
    "RankingConfig",
    "RetrainConfig",
    "TableConfig",
    "parse_quantity",
    "recipe",
]

RECIPES = Path(__file__).parent / "recipes"
ClassWeights = Literal["none", "inverse_log"]


@dataclass(frozen=True)
class OptimizerConfig(SgdConfig):
    """SGD or Adam, whose learning rate is lr * (1 - progress) ** power."""

    lr: float = 0.05
    """Learning rate at the start, above 0."""
    weight_decay: float = 4e-5
    """L2 penalty, at least 0; its gradient is added to the loss's, also for Adam, as in the papers' TensorFlow code."""
    eps: float | None = None
    """Adam's epsilon, added to the root of the second moment, above 0; None: 1e-8. SGD has none."""
    power: float = 0.9
    """Exponent of the schedule, at least 0; 0 keeps the rate constant."""
    decay: Decay = "all"
    """Which weights decay: all parameters; convolutions (only their weights: no biases, batch norms, PReLUs);
    dense_convolutions (the same without depthwise ones). Lateral inhibitions never do."""
    head_lr_multiplier: float = 1.0
    """Learning rate factor of the network's head, which starts from scratch where the rest is pretrained; above 0."""
    head_bias_lr_multiplier: float | None = None
    """The same for the biases of the head's convolutions; None: that of the head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("power", least=0)
        self.limit("eps", "head_lr_multiplier", "head_bias_lr_multiplier", above=0)
        require(
            self.eps is None or self.name == "adam",
            f"optimizer.eps is {self.eps}, but optimizer.name is {self.name}, which has none: leave it out, or give "
            "--optimizer.name adam",
        )


@dataclass(frozen=True)
class LossConfig(LossNameConfig):
    """Loss, class weights, and the resolution at which the loss is computed."""

    class_weights: ClassWeights = "none"
    """none: every labelled pixel has weight 1; inverse_log: a pixel has weight 1 / ln(1.02 + p), with p the share of
    its class among the labelled pixels of the training split."""
    resolution: Literal["image", "logits"] = "image"
    """Resolution of the loss: image resizes the logits to the image; logits resizes the labels to the logits' stride,
    by nearest neighbour."""


@dataclass(frozen=True)
class RetrainConfig(RunConfig):
    """Settings of `nas-retrain`; the defaults are the protocol of Auto-DeepLab, section 5.2, on Cityscapes."""

    command = "nas-retrain"
    path_fields = (*RunConfig.path_fields, "genotype", "init_from")

    genotype: str = ""
    """A genotype.json file, or the name of a published network."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Widths and regularisation of the network."""
    init_from: str | None = None
    """Run folder of nas-retrain, or a checkpoint file of one, from whose weights the network starts: those of equal
    name and shape."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """SGD or Adam, with the poly schedule."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Loss and class weights."""
    loader: LoaderConfig = field(
        default_factory=lambda: LoaderConfig(batch_size=16, augment=AugmentConfig(crop=(769, 769)))
    )
    """Loading and augmentation of the data set."""
    epochs: int = 8000
    """Passes over the training data, at least 1; 8,000 of Cityscapes' 2,975 images are the paper's 1.5 M steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.init_from is None or self.network.backbone_weights is None,
            f"init_from is {self.init_from!r} and network.backbone_weights is {self.network.backbone_weights!r}, but a "
            "network starts from one of them: leave the other out",
        )
        channels = self.loader.channels
        require(
            self.network.in_channels in (None, channels),
            f"network.in_channels is {self.network.in_channels}, but loader.channels is {channels}: leave it out",
        )
        if self.network.image_channels != channels:
            object.__setattr__(self, "network", replace(self.network, in_channels=channels))


def recipe(name: str) -> RetrainConfig:
    """Loads the settings of a shipped training recipe, such as "small" or "camvid"; see retrain/recipes."""
    return load_recipe(RetrainConfig, RECIPES, name)


COUNTS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
TIMES = {"us": 1, "ms": 10**3, "s": 10**6}
"""In microseconds."""


def parse_quantity(name: str, text: str, units: dict[str, int], example: str) -> int:
    """Parses a number with a unit, such as 20G or 40ms, rounded down to a whole number: a limit is never widened.

    Args:
        name: Name of the setting, for the message.
        text: The number, its unit optional.
        units: Factor of each unit.
        example: A valid text, for the message.

    Raises:
        ValueError: The text is no such number, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\+?\d{1,2})?) ?([a-zA-Z]*)", text.strip())
    value = int(Fraction(match[1]) * units[match[2]]) if match and match[2] in units else 0
    known = ", ".join(unit for unit in units if unit)
    require(value > 0, f"{name} is {short(text)}: give a number above 0 with a unit of {known}, such as {example}")
    return value


@dataclass(frozen=True)
class CandidateConfig(Settings):
    """Candidates besides the paper's decoding.

    Raises:
        ValueError: A field is outside its limits, or would have no effect; the message says what to give.
    """

    top: int | None = None
    """Number of candidates to list, the most probable first, at least 1; 1 if only limits are given."""
    pareto: Literal["multiply_adds", "parameters", "latency"] | None = None
    """List the Pareto front of probability against this cost."""
    max_multiply_adds: str | None = None
    """Limit on the network's multiply-adds at --input, such as 20G."""
    max_parameters: str | None = None
    """Limit on the network's trainable parameters, such as 2.5M."""
    max_latency: str | None = None
    """Limit on the network's latency for one image on --device, such as 40ms: the sum of the measured times of its
    parts."""
    vary: Literal["both", "path", "cell"] | None = None
    """Parts that may differ from the paper's decoding: both (the default), only the path, or only the cell."""
    candidate: int | None = None
    """Show this candidate in full, draw it, write it with --output; the first if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("top", "candidate", least=1)
        limits = self.limits()
        require(
            self.pareto is None or (self.top is None and not limits),
            "pareto shows the whole front: leave top and the limits out, or give them without pareto",
        )
        for name in ("vary", "candidate"):
            value = getattr(self, name)
            require(
                value is None or self.asked,
                f"{name} is {value}, but no candidates are listed: give top, pareto or a limit, or leave {name} out",
            )

    @property
    def asked(self) -> bool:
        """Whether any candidates are requested."""
        return self.top is not None or self.pareto is not None or bool(self.limits())

    @property
    def needs_latency(self) -> bool:
        """Whether there is a limit or a front of latency."""
        return self.max_latency is not None or self.pareto == "latency"

    def limits(self) -> dict[str, int]:
        """Parses the limits, by the names of `decoders.CostTable`: `multiply_adds`, `parameters`, `microseconds`."""
        given = (
            ("multiply_adds", "max_multiply_adds", COUNTS, "20G"),
            ("parameters", "max_parameters", COUNTS, "2.5M"),
            ("microseconds", "max_latency", TIMES, "40ms"),
        )
        return {
            cost: parse_quantity(name, getattr(self, name), units, example)
            for cost, name, units, example in given
            if getattr(self, name) is not None
        }


RANDOM = 3
MAX_RANDOM = 1000


@dataclass(frozen=True)
class RankingConfig(Settings):
    """Settings of `nas-rank` besides those of its trainings."""

    random: int | None = None
    """Number of random genotypes of each candidate's space; None: 3 (0 for published networks, which have no space)."""
    seeds: tuple[int, ...] = (0, 1)
    """Every genotype is trained once with each of these seeds; a standard deviation needs two."""
    split: str = "val"
    """Split on which they are compared. The result of the best on this split is optimistic: measure it on another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("random", least=0, most=MAX_RANDOM)
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        require(self.split != "", "split is empty: give the name of a split, such as val or test")


@dataclass(frozen=True)
class TableConfig(Settings):
    """What is trained for a table."""

    space: str = "table"
    """Search space, a shipped one by name or a YAML file, of at most 10,000 genotypes."""
    share: float = 1.0
    """Share of the space's networks that are trained, drawn at random; a larger share includes a smaller one."""
    seeds: tuple[int, ...] = (0, 1)
    """All networks are trained with the first seed, then those of `again` with each other one."""
    again: float = 0.5
    """Share of the networks that are trained with all seeds, drawn at random."""
    split: str = "test"
    """Split on which networks are measured besides the validation split."""
    every: int = 1
    """Measure on that split after so many epochs, and after the last one; on the validation split after each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        self.limit("share", above=0, most=1)
        self.limit("again", least=0, most=1)
        self.limit("every", least=1)
