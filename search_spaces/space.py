"""A search space as data: a cell of mixed operations, a trellis of resolutions, a stem and a head.

Source: Auto-DeepLab (Liu et al., 2019), section 3. Words: `level` 0, 1, ... is the resolution (with the usual stem
stride 4, 8, 16, 32), `layer` 1..L, `node` = (layer, level), `cell` = a DAG of B `blocks`.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search_spaces.files import YamlError, read_yaml
from search_spaces.operations import NONE, OPERATIONS
from search_spaces.settings import OperationSettings, changed

__all__ = ["Head", "SearchSpace", "SpaceError", "Stem", "available", "load"]

SHIPPED = Path(__file__).parent / "spaces"

# A file from a stranger must not make us allocate without bound: far above any use, far below any harm.
MAX_LAYERS, MAX_LEVELS, MAX_BLOCKS, MAX_CHANNELS = 1000, 10, 30, 65536
MAX_CANDIDATES = 2_000_000  # that of Auto-DeepLab has 7,680; a supernet may have fewer still


class SpaceError(ValueError):
    """A search space that cannot be: the message names the field, the value and what is allowed."""


def short(value: object) -> str:
    """`repr` for messages, cut to one readable length."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # a number of thousands of digits, which Python refuses to print
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def _whole(where: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpaceError(f"{where} is {short(value)}: expected a whole number from {low} to {high}")


@dataclass(frozen=True)
class Stem:
    """The 3x3 convolutions in front of the trellis (paper, section 3.2: two, each of stride 2)."""

    strides: tuple[int, ...] = (2, 2)
    """Stride of each convolution, 1 or 2; their product is the stride of level 0."""
    channels: tuple[int, ...] | None = None
    """Output channels of each; None: B x F x s / s0, the width of the trellis continued to finer strides."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides))
        if not 1 <= len(self.strides) <= 16:
            raise SpaceError(f"stem.strides has {len(self.strides)} entries: expected 1 to 16")
        for number, stride in enumerate(self.strides):
            _whole(f"stem.strides[{number}]", stride, 1, 2)
        if self.channels is not None:
            object.__setattr__(self, "channels", tuple(self.channels))
            if len(self.channels) != len(self.strides):
                raise SpaceError(f"stem.channels has {len(self.channels)} entries, stem.strides {len(self.strides)}")
            for number, channels in enumerate(self.channels):
                _whole(f"stem.channels[{number}]", channels, 1, MAX_CHANNELS)

    @property
    def stride(self) -> int:
        """Stride of its output, in pixels of the image."""
        return math.prod(self.strides)


@dataclass(frozen=True)
class Head:
    """The search-time ASPP at every level of the last layer (paper, section 5.1)."""

    reach: tuple[int, ...] = (96,)
    """Reach of each atrous 3x3 branch in pixels of the image: its rate at stride s is reach / s, at least 1."""
    image_pooling: bool = True
    """Whether there is a branch of the image's mean."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reach", tuple(self.reach))
        if len(self.reach) > 16:
            raise SpaceError(f"head.reach has {len(self.reach)} entries: expected at most 16")
        for number, reach in enumerate(self.reach):
            _whole(f"head.reach[{number}]", reach, 1, 4096)
        if not isinstance(self.image_pooling, bool):
            raise SpaceError(f"head.image_pooling is {short(self.image_pooling)}: expected true or false")


@dataclass(frozen=True)
class SearchSpace:
    """What may be built. Every number is free; nothing elsewhere assumes particular ones.

    Raises:
        SpaceError: A field has a value that cannot be; the message names it.
    """

    name: str
    """For messages and files."""
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
    """Of the operations that have any, such as the zone of lateral inhibitions."""

    def __post_init__(self) -> None:
        name = self.name  # becomes part of a folder's name, and is shown on the screen
        if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable() or set(name) & set("/\\"):
            raise SpaceError(f"name is {short(name)}: expected a text of 1 to 100 characters, without / and \\")
        _whole("layers", self.layers, 1, MAX_LAYERS)
        _whole("levels", self.levels, 1, MAX_LEVELS)
        _whole("blocks", self.blocks, 1, MAX_BLOCKS)
        _whole("filter_multiplier", self.filter_multiplier, 1, 1024)
        object.__setattr__(self, "operations", tuple(self.operations))
        for operation in self.operations:
            if not isinstance(operation, str) or operation not in OPERATIONS:
                raise SpaceError(
                    f"operations has {short(operation)}, which is no candidate operation: "
                    f"choose from {', '.join(OPERATIONS)}; {OPERATIONS.hint}"
                )
        if len(set(self.operations)) != len(self.operations):
            raise SpaceError(f"operations is {', '.join(self.operations)}: expected each name once")
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
        """Refuses a space of more candidate operations.

        Raises:
            SpaceError: There are more.
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
        """Plain containers, ready for YAML and JSON; settings of operations only where they are not the defaults."""
        data = _plain(dataclasses.asdict(self))
        data["settings"] = changed(self.settings)
        if not data["settings"]:
            del data["settings"]
        return data

    def to_yaml(self) -> str:
        """The YAML text that `load` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_dict(cls, data: object) -> SearchSpace:
        """Builds a space from plain containers.

        Raises:
            SpaceError: An unknown field, a missing one, or a value that cannot be.
        """
        fields = dict(_mapping("the space", data, cls))
        for name, part in (("stem", Stem), ("head", Head)):
            if name in fields:
                fields[name] = part(**_mapping(name, fields[name], part))
        if "settings" in fields:
            try:
                fields["settings"] = OperationSettings(**_mapping("settings", fields["settings"], OperationSettings))
            except ValueError as error:
                raise SpaceError(str(error) if isinstance(error, SpaceError) else f"settings.{error}") from None
        missing = {"name", "operations"} - set(fields)
        if missing:
            raise SpaceError(f"the space has no field {sorted(missing)[0]!r}: expected name, operations")
        return cls(**fields)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _mapping(where: str, data: object, target: type) -> Mapping[str, Any]:
    """Checks that `data` maps names of `target`'s fields, sequences where a sequence is expected."""
    if not isinstance(data, Mapping):
        raise SpaceError(f"{where} is {type(data).__name__}: expected fields with values")
    types = {f.name: str(f.type) for f in dataclasses.fields(target)}
    for name, value in data.items():
        if name not in types:
            raise SpaceError(f"{where} has an unknown field {short(name)}: expected {', '.join(types)}")
        if types[name].startswith("tuple") and not isinstance(value, list | tuple):
            if value is None and "None" in types[name]:
                continue
            raise SpaceError(f"{name} is {short(value)}: expected a list")
    return data


def available() -> tuple[str, ...]:
    """Names of the shipped spaces."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def load(name_or_file: str | Path) -> SearchSpace:
    """Loads a shipped space by name, or one from a YAML file.

    Raises:
        SpaceError: No such space or file, broken YAML, or a field that cannot be; one line.
    """
    path = SHIPPED / f"{name_or_file}.yaml" if str(name_or_file) in available() else Path(name_or_file)
    if not path.is_file():
        raise SpaceError(
            f"no search space {str(name_or_file)!r}: choose one of {', '.join(available())}, or name a YAML file"
        )
    try:
        data = read_yaml(path)
    except YamlError as error:
        raise SpaceError(str(error)) from error
    try:
        return SearchSpace.from_dict(data)
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from None
