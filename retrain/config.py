"""Settings of retraining. No torch, so that `--help` answers at once.

The defaults are Auto-DeepLab's (Liu et al., 2019, section 5.2, and the authors' network code).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from nas.config import Decay, LoaderConfig, OptimizerName, RunConfig, SgdConfig, load_recipe, require
from nas.data.config import AugmentConfig
from retrain.network_config import NetworkConfig

__all__ = ["ClassWeights", "LossConfig", "NetworkConfig", "OptimizerConfig", "RetrainConfig", "recipe"]

RECIPES = Path(__file__).parent / "recipes"
ClassWeights = Literal["none", "inverse_log"]
CONSTANT = 1.02


@dataclass(frozen=True)
class OptimizerConfig(SgdConfig):
    """SGD or Adam, whose learning rate is lr * (1 - progress) ** power."""

    name: OptimizerName = "sgd"
    """sgd (with momentum), or adam."""
    lr: float = 0.05
    """Learning rate at the start, above 0."""
    momentum: float = 0.9
    """Momentum of SGD, beta1 of Adam (beta2 is 0.999); 0 to below 1."""
    weight_decay: float = 4e-5
    """L2 penalty, at least 0; its gradient is added to the loss's, for Adam too, as in the papers' TensorFlow code."""
    eps: float | None = None
    """Adam's, added to the root of the second moment, above 0; None: 1e-8. SGD has none."""
    power: float = 0.9
    """Exponent of the schedule, at least 0; 0 keeps the rate constant."""
    decay: Decay = "all"
    """Which weights decay: all parameters; convolutions (their weights only: no biases, batch norms, PReLUs);
    dense_convolutions (those but depthwise ones). Lateral inhibitions never do."""
    head_lr_multiplier: float = 1.0
    """Factor on the learning rate of the network's head, which starts from scratch where the rest is pretrained; above
    0."""
    head_bias_lr_multiplier: float | None = None
    """The same for the biases of the head's convolutions; None: as the rest of the head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("name", OptimizerName), ("decay", Decay)):
            allowed = get_args(choices)
            value = getattr(self, name)
            require(value in allowed, f"optimizer.{name} is {value!r}: give one of {', '.join(allowed)}")
        require(self.power >= 0, f"optimizer.power is {self.power}: give a number of at least 0")
        require(self.eps is None or self.eps > 0, f"optimizer.eps is {self.eps}: give a number above 0, or null")
        require(
            self.eps is None or self.name == "adam",
            f"optimizer.eps is {self.eps}, but optimizer.name is {self.name}, which has none: leave it out, or give "
            "--optimizer.name adam",
        )
        for name in ("head_lr_multiplier", "head_bias_lr_multiplier"):
            value = getattr(self, name)
            require(value is None or value > 0, f"optimizer.{name} is {value}: give a number above 0")


@dataclass(frozen=True)
class LossConfig:
    """The cross entropy that is minimised."""

    class_weights: ClassWeights = "none"
    """none: every labelled pixel counts alike; inverse_log: a pixel counts 1 / ln(constant + p), with p the share of
    its class among the labelled pixels of the training split."""
    constant: float = CONSTANT
    """The constant of inverse_log, above 1: the smaller, the more a rare class counts."""
    resolution: Literal["image", "logits"] = "image"
    """Where the loss is taken: at the image's size, to which the logits are resized; or at the logits' own stride, to
    which the labels are, by nearest neighbour."""

    def __post_init__(self) -> None:
        for name, allowed in (("class_weights", get_args(ClassWeights)), ("resolution", ("image", "logits"))):
            value = getattr(self, name)
            require(value in allowed, f"loss.{name} is {value!r}: give one of {', '.join(allowed)}")
        require(self.constant > 1, f"loss.constant is {self.constant}: give a number above 1, such as {CONSTANT}")
        require(
            self.constant == CONSTANT or self.class_weights != "none",
            f"loss.constant is {self.constant}, but loss.class_weights is none: leave it out, or give "
            "--loss.class-weights inverse_log",
        )


@dataclass(frozen=True)
class RetrainConfig(RunConfig):
    """Settings of `nas-retrain`; the defaults are the protocol of Auto-DeepLab, section 5.2, on Cityscapes."""

    genotype: str = ""
    """A genotype.json file, or the name of a published network."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Widths and regularisation of the network."""
    init_from: str | None = None
    """Run folder of nas-retrain, or a checkpoint file of one, whose weights the network starts from: those of equal
    name and shape."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """SGD or Adam, with the poly schedule."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The cross entropy that is minimised."""
    loader: LoaderConfig = field(
        default_factory=lambda: LoaderConfig(batch_size=16, augment=AugmentConfig(crop=(769, 769)))
    )
    """How the data set is read."""
    epochs: int = 8000
    """Passes over the training data, at least 1; 8,000 of Cityscapes' 2,975 images are the paper's 1.5 M steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.init_from is None or self.network.backbone_weights is None,
            f"init_from is {self.init_from!r} and network.backbone_weights is {self.network.backbone_weights!r}, but a "
            "network starts from one of them: leave the other out",
        )


def recipe(name: str) -> RetrainConfig:
    """The settings of a shipped training recipe, such as "small" or "camvid"; see the files in retrain/recipes."""
    return load_recipe(RetrainConfig, RECIPES, name)
