"""Settings of a search's health. No torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from nas.requiring import require

__all__ = ["HealthConfig"]


@dataclass(frozen=True)
class HealthConfig:
    """When a search ends early. Numbers and warnings are there in any case (see docs/health.md)."""

    stop_when_stable: int | None = None
    """End the search once the decoded genotype has stayed the same for this many epochs in which alpha and beta
    learned, at least 1; None goes through all epochs."""
    stop_on_collapse: bool = False
    """End the search after the epoch in which half of the edges or more have come to prefer skip."""

    def __post_init__(self) -> None:
        require(
            self.stop_when_stable is None or self.stop_when_stable >= 1,
            f"health.stop_when_stable is {self.stop_when_stable}: give a number of epochs from 1, or null for never",
        )
