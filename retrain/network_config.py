"""Settings of the networks. No torch, so that `--help` answers at once.

One dataclass holds the settings of all networks; each network's record names those it reads, and `build` refuses the
others, so that no setting is accepted and ignored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from search_spaces.settings import FplFusion, OperationSettings, SmoothingWindow
from search_spaces.space import MAX_CHANNELS
from search_spaces.validation import Settings, require

__all__ = [
    "ASPP_SETTINGS",
    "COMMON_SETTINGS",
    "LI_SETTINGS",
    "PYRAMID_SETTINGS",
    "SMOOTHING_SETTINGS",
    "Factorization",
    "Fusion",
    "NetworkConfig",
    "Smoothing",
]

Smoothing = Literal["none", "average", "gaussian", "ss_conv", "g_interact", "aggregated"]
Fusion = Literal["fir", "if", "isff-add", "isff-concat", "if+isff-add", "if+isff-concat"]
Factorization = Literal["composite", "none", "all"]

COMMON_SETTINGS = frozenset({"batch_norm_momentum", "frozen_batch_norm"})
"""Settings that every network reads."""
LI_SETTINGS = frozenset({"li_zone", "li_rate", "li_sigma", "li_init"})
"""Settings of lateral inhibition."""
SMOOTHING_SETTINGS = frozenset({"smoothing", "smoothing_window", "smoothing_sigma"})
"""Settings of smoothed dilated convolutions."""
PYRAMID_SETTINGS = frozenset({"fpl_rates", "fpl_fusion"})
"""Settings of FPL modules."""
ASPP_SETTINGS = frozenset({"aspp_channels", "dropout"})
"""Settings of an ASPP of one width."""


@dataclass(frozen=True)
class NetworkConfig(Settings):
    """The network that is trained. A field that is None is as the network's paper has it.

    Raises:
        ValueError: A field is outside its limits; the message names the value and what to give.
    """

    filter_multiplier: int | None = None
    """F, 1 to 65536: operations work on F channels at level 0, twice as many each level up. None: that of the published
    network, 20 for a genotype."""
    stem_channels: tuple[int, ...] = (64, 64, 128)
    """Output channels of the stem's 3x3 convolutions, 2 to 16."""
    aspp_channels: int = 256
    """Output channels of every branch of the ASPP and of the ASPP, 1 to 65536."""
    decoder_channels: int = 256
    """Output channels of the decoder's two 3x3 convolutions, 1 to 65536."""
    low_level_channels: int = 48
    """Channels that the decoder reduces its fine feature to, 1 to 65536."""
    dropout: float = 0.1
    """Probability with which dropout zeroes a value of the ASPP's output, 0 to below 1."""
    drop_path_keep: float = 1.0
    """Probability of keeping a branch of the last cell at the end of training, above 0 to 1; 1 drops nothing. Earlier
    cells and earlier steps keep more."""
    batch_norm_momentum: float | None = None
    """Weight of the newest batch in the running statistics, above 0 to 1. The authors' values suit hundreds of
    thousands of steps; recipes for short runs set 0.1, or evaluation sees statistics that never left their start."""

    kind: Literal["deeplab", "fplnet"] = "deeplab"
    """What a genotype becomes: a DeepLab-style network (ASPP and decoder), or an FPLNet-style one (stages closed by FIR
    units, sequential decoder). `--network fplnet` is short for `--network.kind fplnet`."""
    frozen_batch_norm: bool = False
    """Keep statistics, scale and shift of all batch norms as they are: for fine-tuning pretrained weights."""
    backbone_weights: str | None = None
    """Checkpoint file with a state dict in torchvision's layout, to start the backbone from (ImageNet weights)."""

    aspp: Literal["atrous", "li"] = "atrous"
    """ASPP of a genotype's network: atrous convolutions, or each behind a lateral inhibition (LI-ASPP)."""
    li_zone: int | None = None
    """Side of the lateral inhibition zone in pixels, odd, from 3; None: 3, or what the genotype's space says."""
    li_rate: int | None = None
    """Dilation e of the zone, at least 1; None: 1, or what the genotype's space says."""
    li_sigma: float | None = None
    """Standard deviation of the inhibition's Gaussian in steps of the zone; None: 1, or what the space says."""
    li_init: tuple[float, float] | None = None
    """Range in [0, 1] of the intensities W at the start; None: [0, 0], or what the genotype's space says."""
    li_blocks: tuple[int, ...] | None = None
    """Residual bottlenecks 1..17 of a MobileNetV2 with a lateral inhibition behind the expansion; None: [10, 13, 16]
    where the network's name begins with li-mnv2."""
    li_units: tuple[str, ...] | None = None
    """Bottlenecks of a ResNet with a lateral inhibition in front of the 3x3 convolution, conv2_1 to conv5_3; None:
    [conv5_3] where the network's name begins with li-resnet."""
    resnet_stem: Literal["beta", "plain"] = "beta"
    """Stem of a DeepLabv3 ResNet: three 3x3 convolutions (resnet_v1_beta), or one 7x7, with torchvision's names, shapes
    and strides."""

    smoothing: Smoothing = "none"
    """Smoothing of the dilated convolutions in DeepLabv2's last two residual stages, or a genotype network's ASPP."""
    smoothing_window: SmoothingWindow | None = None
    """Side of the average and Gaussian windows at rate r: paper, 2 * floor(r / 2) + 1; official, r - 1 (nothing is
    smoothed at rate 2). None: official in DeepLabv2, what the space says in a genotype's network."""
    smoothing_sigma: float | None = None
    """Standard deviation of the Gaussian window in pixels, above 0; None: 1, or what the genotype's space says."""

    modules: tuple[int, int] | None = None
    """Number of modules in stages 2 and 3, each at least 0; None: [4, 8] in FPLNet, [2, 8] in ESPNet."""
    module: Literal["fpl", "esp"] | None = None
    """The module of the stages; None: the network's own."""
    fusion: Fusion = "fir"
    """What closes a stage of FPLNet: the FIR unit, or another fusion of the shallow, deep and image features."""
    factorization: Factorization = "composite"
    """Which 3x3 convolutions of an FPL module are split into 3x1 and 1x3: those of the second stage, none, or all."""
    hasty_stem: bool = False
    """FPLNet without the two extra convolutions at half resolution."""
    fpl_rates: tuple[int, ...] | None = None
    """Dilation of each branch of an FPL module; None: [2, 4, 8, 16], or what the genotype's space says."""
    fpl_fusion: FplFusion | None = None
    """Pairwise feature fusion in an FPL module: each branch with the first stage's output, pair by pair, or none; None:
    stage1, or what the genotype's space says."""

    prefix = "network."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filter_multiplier is not None:
            _whole("filter_multiplier", self.filter_multiplier, 1)
        require(
            2 <= len(self.stem_channels) <= 16,
            f"network.stem_channels has {len(self.stem_channels)} entries: give 2 to 16, the first cell reads the last "
            "two",
        )
        for number, channels in enumerate(self.stem_channels):
            _whole(f"stem_channels[{number}]", channels, 1)
        for name in ("aspp_channels", "decoder_channels", "low_level_channels"):
            _whole(name, getattr(self, name), 1)
        require(0 <= self.dropout < 1, f"network.dropout is {self.dropout}: give a number from 0 to below 1")
        require(
            0 < self.drop_path_keep <= 1,
            f"network.drop_path_keep is {self.drop_path_keep}: give a number above 0 and up to 1",
        )
        require(
            self.batch_norm_momentum is None or 0 < self.batch_norm_momentum <= 1,
            f"network.batch_norm_momentum is {self.batch_norm_momentum}: give a number above 0 and up to 1",
        )
        for number, block in enumerate(self.li_blocks or ()):
            _whole(f"li_blocks[{number}]", block, 1, 17)
        if self.modules is not None:
            require(len(self.modules) == 2, f"network.modules is {list(self.modules)}: give two numbers, as in [4, 8]")
            for number, count in enumerate(self.modules):
                _whole(f"modules[{number}]", count, 0, 1000)
        types: dict[str, tuple[str | None, ...]] = {
            "kind": ("deeplab", "fplnet"),
            "aspp": ("atrous", "li"),
            "resnet_stem": ("beta", "plain"),
        }
        types |= {"smoothing": get_args(Smoothing), "fusion": get_args(Fusion)}
        types |= {"factorization": get_args(Factorization), "module": (None, "fpl", "esp")}
        for name, allowed in types.items():
            value = getattr(self, name)
            names = ", ".join(choice for choice in allowed if choice)
            require(value in allowed, f"network.{name} is {value!r}: give one of {names}")
        try:
            self.operation_settings()
        except ValueError as error:
            raise ValueError(f"network.{error}") from None

    def operation_settings(self, base: OperationSettings | None = None) -> OperationSettings:
        """Settings of the operations: those of `base` (None: the defaults), changed by the fields that are not None."""
        names = [f.name for f in dataclasses.fields(OperationSettings)]
        changes: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(base or OperationSettings(), **changes)

    def refuse_others(self, network: str, settings: Collection[str]) -> None:
        """Refuses every field that is set and that the network does not read.

        Args:
            network: Its name, for the message.
            settings: The fields it reads, besides `COMMON_SETTINGS`.

        Raises:
            ValueError: A field is set that is not among them; the message lists those that are.
        """
        known = COMMON_SETTINGS | set(settings)
        for f in dataclasses.fields(self):
            if f.name not in known and getattr(self, f.name) != f.default:
                raise ValueError(
                    f"network.{f.name} has no effect on {network}: leave it out; its settings are "
                    f"{', '.join(f'network.{name}' for name in sorted(known))}"
                )


def _whole(name: str, value: object, low: int, high: int = MAX_CHANNELS) -> None:
    good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(good, f"network.{name} is {value!r:.60}: give a whole number from {low} to {high}")
