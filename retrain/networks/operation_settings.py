"""Settings of operations are for networks with such operations: a built network is asked which of them it reads."""

from __future__ import annotations

from torch import nn

from retrain.network_config import LI_SETTINGS, PYRAMID_SETTINGS, NetworkConfig
from search_spaces.factorized import FactorizedPyramid
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.smoothing import AggregatedFilter, AverageFilter, GaussianFilter

__all__ = ["check_operation_settings"]

WINDOWED = (AverageFilter, GaussianFilter, AggregatedFilter)

READERS: dict[str, tuple[tuple[type[nn.Module], ...], str, str]] = {
    **dict.fromkeys(sorted(LI_SETTINGS), ((LateralInhibition,), "lateral inhibition", "give network.aspp li")),
    "smoothing_window": (
        WINDOWED,
        "smoothing with a window",
        "give network.smoothing average, gaussian or aggregated",
    ),
    "smoothing_sigma": (
        (GaussianFilter, AggregatedFilter),
        "Gaussian smoothing",
        "give network.smoothing gaussian or aggregated",
    ),
    **dict.fromkeys(sorted(PYRAMID_SETTINGS), ((FactorizedPyramid,), "FPL module", "take a genotype with fpl")),
}
"""Modules that read a setting, what they are called, and how a network comes by one."""


def check_operation_settings(config: NetworkConfig, network: nn.Module) -> None:
    """Refuses settings of operations that `network` has none of, after it was built.

    Args:
        config: The settings it was built with.
        network: A network that reads settings of operations as far as it has such operations: that of a genotype, or
            one whose smoothing may be chosen.

    Raises:
        ValueError: A setting is given that no module of the network reads; the message says what would read it.
    """
    modules = list(network.modules())
    for name, (readers, what, remedy) in READERS.items():
        if getattr(config, name) is not None and not any(isinstance(module, readers) for module in modules):
            # An FPLNet-style network has no ASPP to give them to.
            remedy = remedy if config.kind == "deeplab" else "take a genotype with such operations"
            raise ValueError(
                f"network.{name} has no effect: there is no {what} in this network; leave it out, or {remedy}"
            )
