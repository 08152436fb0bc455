"""Settings of the networks, a dataclass for each family. No torch, so that `--help` answers at once.

A family inherits the groups of settings that it reads. `NetworkConfig` inherits from all families: command lines, files
and checkpoints fill it in, and `build` refuses settings that the chosen network does not read. A field that is None has
the value of the network's paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from search_spaces.settings import FplFusion, OperationSettings, Smoothing, SmoothingWindow
from search_spaces.space import MAX_CHANNELS
from search_spaces.validation import Settings, raised_as, require

__all__ = [
    "DEFAULT_FILTER_MULTIPLIER",
    "ASPPSettings",
    "BackboneSettings",
    "CellSettings",
    "CommonSettings",
    "DecoderSettings",
    "DeepLabSettings",
    "DeepLabV2Settings",
    "DeepLabV3Settings",
    "FPLNetSettings",
    "Kind",
    "LISettings",
    "NetworkConfig",
    "SearchedFPLNetSettings",
    "names",
]

Kind = Literal["deeplab", "fplnet"]
DEFAULT_FILTER_MULTIPLIER = 20
"""F of a genotype's network."""

WIDTH = {"least": 1, "most": MAX_CHANNELS}
LIMITS: dict[str, dict[str, Any]] = {
    "in_channels": WIDTH,
    "batch_norm_momentum": {"above": 0, "most": 1},
    "drop_path_keep": {"above": 0, "most": 1},
    "dropout": {"least": 0, "below": 1},
    "filter_multiplier": WIDTH,
    "stem_channels": WIDTH,
    "aspp_channels": WIDTH,
    "decoder_channels": WIDTH,
    "low_level_channels": WIDTH,
    "li_blocks": {"least": 1, "most": 17},
}
"""Limits of the fields that are numbers; `OperationSettings` checks its own."""


def names(*groups: type[CommonSettings]) -> frozenset[str]:
    """Returns the names of all settings of these dataclasses."""
    return frozenset(f.name for group in groups for f in dataclasses.fields(group))


# Groups of settings that several families share.


@dataclass(frozen=True, kw_only=True)
class CommonSettings(Settings):
    """Settings of every network.

    Raises:
        ValueError: A field is outside its limits; the message names the value and what to give.
    """

    in_channels: int | None = None
    """Channels of the images, 1 to 65536. None: those of the data, loader.channels, or 3."""
    batch_norm_momentum: float | None = None
    """Weight of the newest batch in the running statistics, above 0 to 1. The authors' values suit hundreds of
    thousands of steps; recipes for short runs set 0.1, or the statistics would stay near their initial values."""
    frozen_batch_norm: bool = False
    """Keep statistics, scale and shift of all batch norms fixed, for fine-tuning pretrained weights."""

    prefix = "network."
    path_fields = ("backbone_weights",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in dataclasses.fields(self):
            self.limit(f.name, **LIMITS.get(f.name, {}))
        with raised_as(ValueError, self.prefix):
            self.operation_settings()

    @property
    def image_channels(self) -> int:
        """Channels of the images: `in_channels`, or 3."""
        return self.in_channels or 3

    def operation_settings(self, base: OperationSettings | None = None) -> OperationSettings:
        """Returns `base` (None: the defaults) with the fields that are not None."""
        given = {f.name: getattr(self, f.name, None) for f in dataclasses.fields(OperationSettings)}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(base or OperationSettings(), **changes)


@dataclass(frozen=True, kw_only=True)
class CellSettings(CommonSettings):
    """Settings of the cells of a genotype's network."""

    filter_multiplier: int | None = None
    """F, 1 to 65536: operations work on F channels at level 0, and on twice as many at each coarser level. None: that
    of the published network, 20 for a genotype."""
    drop_path_keep: float = 1.0
    """Probability of keeping a branch of the last cell at the end of training, above 0 to 1; 1 drops nothing. Earlier
    cells and earlier steps keep more."""


@dataclass(frozen=True, kw_only=True)
class BackboneSettings(CommonSettings):
    """Settings of a backbone for which there are pretrained weights."""

    backbone_weights: str | None = None
    """Checkpoint file with a state dict in torchvision's layout, to start the backbone from (ImageNet weights)."""


@dataclass(frozen=True, kw_only=True)
class ASPPSettings(CommonSettings):
    """Settings of an ASPP of one width."""

    aspp_channels: int = 256
    """Output channels of every branch of the ASPP and of the ASPP, 1 to 65536."""
    dropout: float = 0.1
    """Dropout probability of the ASPP's output, 0 to below 1."""


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(CommonSettings):
    """Settings of DeepLabv3+'s decoder."""

    decoder_channels: int = 256
    """Output channels of the decoder's two 3x3 convolutions, 1 to 65536."""
    low_level_channels: int = 48
    """Channels to which the decoder reduces its fine feature, 1 to 65536."""


@dataclass(frozen=True, kw_only=True)
class LISettings(CommonSettings):
    """Settings of the lateral inhibitions; None: that of the genotype's space, if there is one."""

    li_zone: int | None = None
    """Side of the lateral inhibition zone in pixels, odd, from 3; None: that of the genotype's space, or 3."""
    li_rate: int | None = None
    """Dilation e of the zone, at least 1; None: that of the genotype's space, or 1."""
    li_sigma: float | None = None
    """Standard deviation of the inhibition's Gaussian in steps of the zone; None: that of the space, or 1."""
    li_init: tuple[float, float] | None = None
    """Range in [0, 1] of the initial intensities W; None: that of the genotype's space, or [0, 0]."""


@dataclass(frozen=True, kw_only=True)
class SmoothingFilterSettings(CommonSettings):
    """Settings of the filters of smoothed dilated convolutions."""

    smoothing_window: SmoothingWindow | None = None
    """Side of the average and Gaussian windows at rate r: paper, 2 * floor(r / 2) + 1; official, r - 1 (nothing is
    smoothed at rate 2). None: official in DeepLabv2, that of the space in a genotype's network."""
    smoothing_sigma: float | None = None
    """Standard deviation of the Gaussian window in pixels, above 0; None: that of the genotype's space, or 1."""


@dataclass(frozen=True, kw_only=True)
class SmoothingSettings(SmoothingFilterSettings):
    """Settings of smoothed dilated convolutions."""

    smoothing: Smoothing = "none"
    """Smoothing of the dilated convolutions in DeepLabv2's last two residual stages, or a genotype network's ASPP."""


@dataclass(frozen=True, kw_only=True)
class FPLNetSettings(CommonSettings):
    """Settings of FPL modules, and of FPLNet. (ESPNet has only the common ones.)"""

    fpl_rates: tuple[int, ...] | None = None
    """Dilation of each branch of an FPL module; None: that of the genotype's space, or [2, 4, 8, 16]."""
    fpl_fusion: FplFusion | None = None
    """Pairwise feature fusion in an FPL module: each branch with the first stage's output, pair by pair, or none; None:
    that of the genotype's space, or stage1."""


# Families: the settings that the networks of a kind read.


@dataclass(frozen=True, kw_only=True)
class DeepLabSettings(CellSettings, ASPPSettings, DecoderSettings, LISettings, SmoothingSettings, FPLNetSettings):
    """Settings of a genotype's DeepLab-style network."""

    stem_channels: tuple[int, ...] = (64, 64, 128)
    """Output channels of the stem's 3x3 convolutions, 2 to 16."""
    aspp: Literal["atrous", "li"] = "atrous"
    """ASPP of a genotype's network: atrous convolutions, or each preceded by a lateral inhibition (LI-ASPP)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("stem_channels", least=2, most=16, note=", the first cell reads the last two")


@dataclass(frozen=True, kw_only=True)
class SearchedFPLNetSettings(CellSettings, LISettings, SmoothingFilterSettings, FPLNetSettings):
    """Settings of a genotype's FPLNet-style network."""


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Settings(BackboneSettings, ASPPSettings, DecoderSettings, LISettings):
    """Settings of DeepLabv3 and DeepLabv3+."""

    li_blocks: tuple[int, ...] | None = None
    """Residual bottlenecks 1..17 of a MobileNetV2 with a lateral inhibition after the expansion; None: [10, 13, 16]
    where the network's name begins with li-mnv2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("li_blocks", note=", or take the network without lateral inhibitions in its backbone")


@dataclass(frozen=True, kw_only=True)
class DeepLabV2Settings(BackboneSettings, SmoothingSettings):
    """Settings of DeepLabv2."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(DeepLabSettings, SearchedFPLNetSettings, DeepLabV3Settings, DeepLabV2Settings):
    """The network that is trained. A field that is None has the value of the network's paper.

    Raises:
        ValueError: A field is outside its limits; the message names the value and what to give.
    """

    kind: Kind = "deeplab"
    """Network of a genotype: a DeepLab-style network (ASPP and decoder), or an FPLNet-style one (stages closed by FIR
    units, sequential decoder). `--network fplnet` is short for `--network.kind fplnet`."""

    def refuse_others(self, network: str, settings: Collection[str]) -> None:
        """Checks that the network reads every field that is set.

        Args:
            network: Name of the network, for the message.
            settings: The fields that it reads.

        Raises:
            ValueError: A field is set that is not among them; the message lists them.
        """
        for name in self.changed():
            require(
                name in settings,
                f"network.{name} has no effect on {network}: leave it out; its settings are "
                f"{', '.join(f'network.{one}' for one in sorted(settings))}",
            )
