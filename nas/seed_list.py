"""Lists of seeds, as --seeds takes them. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nas.requiring import require

__all__ = ["check_seeds", "parse_seeds"]

EXPECTED = "give whole numbers from 0 to 2**32 - 1 with commas, such as 0,1,2"


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a text such as `0,1,2` or `[0, 1, 2]`.

    Raises:
        ValueError: It is none, or one of the seeds is refused.
    """
    bare = text.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    entries = [entry.strip() for entry in bare.split(",")]
    require(all(re.fullmatch(r"[0-9]{1,10}", entry) for entry in entries), f"--seeds is {text!r:.60}: {EXPECTED}")
    return check_seeds([int(entry) for entry in entries])


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, all different, one or more, each from 0 to 2**32 - 1.

    Raises:
        ValueError: They are not.
    """
    require(len(seeds) > 0, f"--seeds is empty: {EXPECTED}")
    for number, seed in enumerate(seeds):
        good = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32
        require(good, f"--seeds has {seed!r}: {EXPECTED}")
        require(seed not in seeds[:number], f"--seeds has {seed} twice: give each seed once")
    return tuple(seeds)
