"""Settings of a table, and which trainings it consists of. No torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.config import check_seeds
from search_spaces.validation import Settings

__all__ = ["TableConfig"]


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

    def trainings(self, networks: int) -> list[tuple[int, int]]:
        """(number of a network, seed) of each training, in the order in which they are begun.

        The order of the networks is random but fixed: what is stopped halfway is a random sample.

        Args:
            networks: Number of genotypes of the space.
        """
        order = np.random.default_rng(0).permutation(networks).tolist()
        chosen = order[: max(1, round(self.share * networks))]
        others = chosen[: round(self.again * len(chosen))]
        return [(number, self.seeds[0]) for number in chosen] + [(n, seed) for seed in self.seeds[1:] for n in others]
