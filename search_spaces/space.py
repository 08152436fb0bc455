"""A search space as data: a cell of mixed operations, a trellis of resolutions, a stem and a head.

Source: Auto-DeepLab (Liu et al., 2019), section 3. Words: `level` 0, 1, ... is the resolution (with the usual stem
stride 4, 8, 16, 32), `layer` 1..L, `node` = (layer, level), `cell` = a DAG of B `blocks`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search_spaces.files import read_yaml
from search_spaces.operations import NONE, OPERATIONS
from search_spaces.settings import OperationSettings
from search_spaces.validation import Settings, as_path, from_plain, raised_as, short, to_plain

__all__ = ["Head", "SearchSpace", "SpaceError", "Stem", "available", "load"]

SHIPPED = Path(__file__).parent / "spaces"

# An untrusted file must not make us allocate without bound: far above any use, far below any harm.
MAX_LAYERS, MAX_LEVELS, MAX_BLOCKS, MAX_CHANNELS = 1000, 10, 30, 65536
MAX_CANDIDATES = 2_000_000  # Auto-DeepLab's space has 7,680; the limit of a supernet is lower


class SpaceError(ValueError):
    """An invalid search space: the message names the field, the value and what is allowed."""


@dataclass(frozen=True)
class Stem(Settings):
    """The 3x3 convolutions in front of the trellis (paper, section 3.2: two, each of stride 2)."""

    strides: tuple[int, ...] = (2, 2)
    """Stride of each convolution, 1 or 2; their product is the stride of level 0."""
    channels: tuple[int, ...] | None = None
    """Output channels of each; None: B x F x s / s0, which extends the trellis's width to finer strides."""

    prefix = "stem."
    error = SpaceError

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("strides", most=16)
        self.limit("strides", least=1, most=2)
        self.limit("channels", least=1, most=MAX_CHANNELS)
        if self.channels is not None and len(self.channels) != len(self.strides):
            raise SpaceError(f"stem.channels has {len(self.channels)} entries, stem.strides {len(self.strides)}")

    @property
    def stride(self) -> int:
        """Stride of its output, in pixels of the image."""
        return math.prod(self.strides)


@dataclass(frozen=True)
class Head(Settings):
    """The search-time ASPP at every level of the last layer (paper, section 5.1)."""

    reach: tuple[int, ...] = (96,)
    """Reach of each atrous 3x3 branch in pixels of the image: its rate at stride s is reach / s, at least 1."""
    image_pooling: bool = True
    """Whether there is an image pooling branch."""

    prefix = "head."
    error = SpaceError

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("reach", least=0, most=16)
        self.limit("reach", least=1, most=4096)


@dataclass(frozen=True)
class SearchSpace(Settings):
    """A search space. Every number is free; nothing elsewhere assumes particular ones.

    Raises:
        SpaceError: A field has a wrong value; the message names it.
    """

    name: str
    """Name in messages and files."""
    layers: int = 12
    """L, the number of cells on a path, 1 to 1000."""
    levels: int = 4
    """Number of resolutions, 1 to 10; each halves the one before."""
    blocks: int = 5
    """B, blocks in a cell, 1 to 30."""
    filter_multiplier: int = 8
    """F: an operation at level l works on F * 2**l channels, a cell's output has B * F * 2**l."""
    operations: tuple[str, ...] = ()
    """Names of the candidate operations; their order is the order of alpha's columns."""
    stem: Stem = field(default_factory=Stem)
    head: Head = field(default_factory=Head)
    settings: OperationSettings = field(default_factory=OperationSettings)
    """Settings of the operations that have any, such as the zone of lateral inhibitions."""

    error = SpaceError

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.name  # becomes part of a folder's name, and is shown on screen
        if not 1 <= len(name) <= 100 or not name.isprintable() or set(name) & set("/\\"):
            raise SpaceError(f"name is {short(name)}: give a text of 1 to 100 characters, without / and \\")
        self.limit("layers", least=1, most=MAX_LAYERS)
        self.limit("levels", least=1, most=MAX_LEVELS)
        self.limit("blocks", least=1, most=MAX_BLOCKS)
        self.limit("filter_multiplier", least=1, most=1024)
        for operation in self.operations:
            if operation not in OPERATIONS:
                raise SpaceError(
                    f"operations has {short(operation)}, which is no candidate operation: "
                    f"choose from {', '.join(OPERATIONS)}; {OPERATIONS.hint}"
                )
        self.entries("operations", distinct=True)
        if not set(self.operations) - {NONE}:
            raise SpaceError(f"operations needs at least one other than {NONE!r}: nothing could be decoded")
        self.check_candidates(MAX_CANDIDATES)
        if self.node_channels(self.levels - 1) > MAX_CHANNELS:
            raise SpaceError(
                f"blocks x filter_multiplier x 2 ** (levels - 1) is {self.node_channels(self.levels - 1):,} channels: "
                f"expected at most {MAX_CHANNELS:,}, with fewer blocks or levels, or a smaller filter_multiplier"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each level, in pixels of the image."""
        return tuple(self.stem.stride * 2**level for level in range(self.levels))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(state, block) of every edge of a cell, in the order of alpha's rows.

        State 0 is H^{l-2}, state 1 is H^{l-1}, state 2 + b is the output of block b = 0..B-1; block b reads every state
        before its own.
        """
        return tuple((state, block) for block in range(self.blocks) for state in range(2 + block))

    def check_candidates(self, most: int) -> None:
        """Checks that the space has at most `most` candidate operations.

        Raises:
            SpaceError: It has more.
        """
        candidates = self.layers * self.levels * len(self.edges) * len(self.operations)
        if candidates > most:
            raise SpaceError(
                f"layers x levels x edges x operations is {candidates:,}: expected at most {most:,}, with fewer "
                "layers, levels, blocks or operations"
            )

    @property
    def stem_channels(self) -> tuple[int, ...]:
        """Output channels of each stem convolution."""
        if self.stem.channels is not None:
            return self.stem.channels
        width, remaining, channels = self.blocks * self.filter_multiplier, self.stem.stride, []
        for stride in self.stem.strides:
            remaining //= stride
            channels.append(max(1, width // remaining))
        return tuple(channels)

    def operation_channels(self, level: int) -> int:
        """Channels that the operations of a cell at `level` work on: F * 2**level."""
        return self.filter_multiplier * 2**level

    def node_channels(self, level: int) -> int:
        """Channels of a cell's output at `level`: B * F * 2**level (the paper's B x F x s, s in units of stride 4)."""
        return self.blocks * self.operation_channels(level)

    def node_levels(self, layer: int) -> range:
        """Levels that have a node in `layer`; layer 0 is the stem, at level 0. One step a layer reaches one level."""
        return range(min(layer + 1, self.levels))

    def transitions(self, layer: int, level: int) -> tuple[int, ...]:
        """Levels of layer `layer + 1` that the node (layer, level) has an edge to: one finer, the same, one coarser."""
        return tuple(target for target in (level - 1, level, level + 1) if 0 <= target < self.levels)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for YAML and JSON; includes only those settings of operations that are not the defaults."""
        data: dict[str, Any] = to_plain(self) | {"settings": self.settings.changed()}
        return {name: value for name, value in data.items() if name != "settings" or value}

    def to_yaml(self) -> str:
        """The YAML text that `load` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_dict(cls, data: object) -> SearchSpace:
        """Builds a space from plain containers.

        Raises:
            SpaceError: A field is unknown, missing, or has a wrong value.
        """
        with raised_as(SpaceError):
            return from_plain(cls, data)


def available() -> tuple[str, ...]:
    """Names of the shipped spaces."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def load(name_or_file: str | Path) -> SearchSpace:
    """Loads a shipped space by name, or one from a YAML file.

    Raises:
        SpaceError: There is no such space or file, the YAML is broken, or a field is wrong.
    """
    path = SHIPPED / f"{name_or_file}.yaml" if str(name_or_file) in available() else as_path(name_or_file)
    if not path.is_file():
        raise SpaceError(
            f"no search space {str(name_or_file)!r}: choose one of {', '.join(available())}, or name a YAML file"
        )
    with raised_as(SpaceError):
        data = read_yaml(path)
    with raised_as(SpaceError, f"{path}: "):
        return SearchSpace.from_dict(data)
