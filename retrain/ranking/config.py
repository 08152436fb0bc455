"""Settings of a ranking, besides those of its trainings. No torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from nas.config import require
from nas.seed_list import check_seeds

__all__ = ["RANDOM", "RankingConfig"]

RANDOM = 3
MAX_RANDOM = 1000


@dataclass(frozen=True)
class RankingConfig:
    """What is trained, and where it is compared."""

    random: int | None = None
    """Random genotypes of the candidates' space, for each space if there are several; None: 3, if there is a space at
    all (a published network has none)."""
    seeds: tuple[int, ...] = (0, 1)
    """Every genotype is trained once with each of these seeds; a standard deviation needs two."""
    split: str = "val"
    """Split on which they are compared. The best of many on the split by which it was chosen is an optimistic number:
    measure it on another one."""

    def __post_init__(self) -> None:
        good = self.random is None or 0 <= self.random <= MAX_RANDOM
        require(good, f"random is {self.random}: give a whole number from 0 to {MAX_RANDOM}")
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        require(self.split != "", "split is empty: give the name of a split, such as val or test")
