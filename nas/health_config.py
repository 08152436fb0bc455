"""Settings of a search's health. No torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from nas.requiring import require

__all__ = ["HealthConfig"]


@dataclass(frozen=True)
class HealthConfig:
    """What of a search's health costs time, and when a search ends early (see docs/health.md)."""

    gap_batches: int = 8
    """Training batches on which the statistics of the batch norms are estimated anew to measure the discretisation gap:
    the mIoU that the supernet loses with the decoded architecture forced on it. 0: it is not measured."""
    gap_every: int = 1
    """Measure it after every how many epochs of those in which alpha and beta learn, at least 1."""
    eigenvalue_steps: int = 0
    """Steps of the power iteration for the dominant eigenvalue of the Hessian of the architecture's loss, after each
    epoch in which alpha and beta learn, on one batch; each takes two gradients, and 4 say enough. 0: it is not
    computed."""
    stop_when_stable: int | None = None
    """End the search once the decoded genotype has stayed the same for this many epochs in which alpha and beta
    learned, at least 1; None goes through all epochs."""
    stop_on_collapse: bool = False
    """End the search after the epoch in which half of the edges or more have come to prefer skip."""

    def __post_init__(self) -> None:
        require(
            self.gap_batches >= 0,
            f"health.gap_batches is {self.gap_batches}: give a whole number from 0; 0 measures no gap",
        )
        require(self.gap_every >= 1, f"health.gap_every is {self.gap_every}: give a number of epochs from 1")
        require(
            self.eigenvalue_steps >= 0,
            f"health.eigenvalue_steps is {self.eigenvalue_steps}: give a whole number from 0; 0 computes no eigenvalue",
        )
        require(
            self.stop_when_stable is None or self.stop_when_stable >= 1,
            f"health.stop_when_stable is {self.stop_when_stable}: give a number of epochs from 1, or null for never",
        )
