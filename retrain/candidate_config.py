"""Which candidates `nas-decode` lists, and quantities as people write them. No torch: `--help` answers at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from nas.config import require

__all__ = ["CandidateConfig", "parse_quantity"]

COUNTS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
TIMES = {"us": 1, "ms": 10**3, "s": 10**6}
"""In microseconds."""


def parse_quantity(name: str, text: str, units: dict[str, int], example: str) -> int:
    """A number with a unit as a whole number of the smallest, rounded down: a limit is never widened.

    Args:
        name: Of the setting, for the message.
        text: Such as 20G, 2.5M, 40ms, 3e9.
        units: What each stands for.
        example: For the message.

    Raises:
        ValueError: It is no such number, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\+?\d{1,2})?) ?([a-zA-Z]*)", text.strip())
    value = int(Fraction(match[1]) * units[match[2]]) if match and match[2] in units else 0
    known = ", ".join(unit for unit in units if unit)
    require(value > 0, f"{name} is {text!r}: give a number above 0 with a unit of {known}, such as {example}")
    return value


@dataclass(frozen=True)
class CandidateConfig:
    """Candidates besides the paper's decoding.

    Raises:
        ValueError: A field is outside its limits, or would have no effect; the message says what to give.
    """

    top: int | None = None
    """List so many candidates, the most probable first, at least 1; 1 where only limits are given."""
    pareto: Literal["multiply_adds", "parameters", "latency"] | None = None
    """List the Pareto front of probability against this cost."""
    max_multiply_adds: str | None = None
    """Limit on the network's multiply-adds at --input, such as 20G."""
    max_parameters: str | None = None
    """Limit on its trainable parameters, such as 2.5M."""
    max_latency: str | None = None
    """Limit on its latency for one image on --device, such as 40ms: the sum of the measured times of its parts."""
    vary: Literal["both", "path", "cell"] | None = None
    """What may be other than in the paper's decoding: both (the default), the path alone, or the cell alone."""
    candidate: int | None = None
    """Show this candidate in full, draw it, write it with --output; the first if not given."""

    def __post_init__(self) -> None:
        for name in ("top", "candidate"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}: give at least 1")
        for name, choices in (
            ("pareto", ("multiply_adds", "parameters", "latency")),
            ("vary", ("both", "path", "cell")),
        ):
            value = getattr(self, name)
            require(value is None or value in choices, f"{name} is {value!r}: give one of {', '.join(choices)}")
        limits = self.limits()
        require(
            self.pareto is None or (self.top is None and not limits),
            "pareto shows the whole front: leave top and the limits out, or give them without pareto",
        )
        for name in ("vary", "candidate"):
            value = getattr(self, name)
            require(
                value is None or self.asked,
                f"{name} is {value}, but no candidates are listed: give top, pareto or a limit, or leave {name} out",
            )

    @property
    def asked(self) -> bool:
        """Whether any candidates are listed."""
        return self.top is not None or self.pareto is not None or bool(self.limits())

    @property
    def needs_latency(self) -> bool:
        """Whether a limit or the front is one of latency."""
        return self.max_latency is not None or self.pareto == "latency"

    def limits(self) -> dict[str, int]:
        """The limits by the names of `decoders.CostTable`: `multiply_adds`, `parameters`, `microseconds`."""
        given = (
            ("multiply_adds", "max_multiply_adds", COUNTS, "20G"),
            ("parameters", "max_parameters", COUNTS, "2.5M"),
            ("microseconds", "max_latency", TIMES, "40ms"),
        )
        return {
            cost: parse_quantity(name, getattr(self, name), units, example)
            for cost, name, units, example in given
            if getattr(self, name) is not None
        }
