"""Settings of alpha and beta in a search. No torch, so that `--help` answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from nas.requiring import require

__all__ = ["ArchitectureConfig", "CostName", "Sampling"]

Sampling = Literal["none", "gumbel"]
CostName = Literal["multiply_adds", "parameters"]


@dataclass(frozen=True)
class ArchitectureConfig:
    """Adam for alpha and beta, and what is done against a search that collapses."""

    lr: float = 3e-3
    """Learning rate, above 0."""
    weight_decay: float = 1e-3
    """L2 penalty on the logits, at least 0."""
    start_epoch: int = 20
    """First epoch (from 0) in which alpha and beta learn; before, only the weights do."""
    skip_dropout: float = 0.0
    """Probability, from 0 to below 1, with which a step does without the skip of an edge; it falls linearly to 0 over
    the run (operation-level dropout, P-DARTS). 0: off."""
    entropy: float = 0.0
    """Weight that the relative entropy of alpha has in the architecture's loss at the end of the run, at least 0; it
    rises linearly from 0 in the epoch start_epoch, so that alpha decides itself late (DA2S). 0: off."""
    sampling: Sampling = "none"
    """none, all operations are weighed by alpha; or gumbel, each edge of each step has one operation, drawn by alpha
    (hard Gumbel-softmax, GDAS), and validation has the likeliest one."""
    temperature: float = 10.0
    """Of the Gumbel-softmax at the start of the run, above 0 (for sampling gumbel)."""
    temperature_end: float = 0.1
    """Of the Gumbel-softmax at the end of the run, above 0; the way there is linear (for sampling gumbel)."""
    cost_weight: float = 0.0
    """Weight in the architecture's loss of what the relaxed network's operations cost above cost_target, at least 0;
    the cost is relative to that of uniform alpha and beta. 0: off."""
    cost_target: float = 0.5
    """Cost, relative to that of uniform alpha and beta, below which nothing is to be gained, at least 0 (for
    cost_weight)."""
    cost: CostName = "multiply_adds"
    """What is counted, at the size of a training crop: multiply_adds or parameters (for cost_weight)."""

    def __post_init__(self) -> None:
        require(self.lr > 0, f"architecture.lr is {self.lr}: give a number above 0")
        require(self.weight_decay >= 0, f"architecture.weight_decay is {self.weight_decay}: give at least 0")
        require(self.start_epoch >= 0, f"architecture.start_epoch is {self.start_epoch}: give a whole number from 0")
        require(
            0 <= self.skip_dropout < 1,
            f"architecture.skip_dropout is {self.skip_dropout}: give a probability from 0 (off) to below 1",
        )
        require(
            math.isfinite(self.entropy) and self.entropy >= 0,
            f"architecture.entropy is {self.entropy}: give a weight from 0 (off)",
        )
        names = get_args(Sampling)
        require(self.sampling in names, f"architecture.sampling is {self.sampling!r}: give one of {', '.join(names)}")
        for name, default in (("temperature", 10.0), ("temperature_end", 0.1)):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0,
                f"architecture.{name} is {value}: give a number above 0, as {default}",
            )
            require(
                self.sampling == "gumbel" or value == default,
                f"architecture.{name} is {value}, but architecture.sampling is none and has no temperature: leave it "
                "out, or give --architecture.sampling gumbel",
            )

        for name in ("cost_weight", "cost_target"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"architecture.{name} is {value}: give a finite number from 0")
        names = get_args(CostName)
        require(self.cost in names, f"architecture.cost is {self.cost!r}: give one of {', '.join(names)}")
        require(
            self.cost_weight > 0 or (self.cost_target, self.cost) == (0.5, "multiply_adds"),
            f"architecture.cost_target is {self.cost_target} and architecture.cost {self.cost}, but "
            "architecture.cost_weight is 0, so that cost does not count: leave them out, or give a cost_weight",
        )

    @property
    def varies(self) -> tuple[str, ...]:
        """Names of the settings in force that change from step to step what is computed of alpha."""
        on = {"skip_dropout": self.skip_dropout > 0, "entropy": self.entropy > 0, "sampling": self.sampling != "none"}
        return tuple(name for name, there in on.items() if there)
