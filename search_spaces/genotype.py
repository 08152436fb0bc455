"""The genotype: the discrete result of a search, as a JSON file that a person can read and edit.

    {
      "format": "nas-genotype", "version": 1,
      "space": {...},                                    the whole search space, so that the file stands alone
      "cell": [{"inputs": ["l-2", "l-1"], "operations": ["atrous_5x5", "separable_3x3"]}, ...],     one entry a block
      "path": [4, 4, 8, ...],                            the stride of each layer
      "alpha": [[...]], "beta": [[[...]]],               the relaxed result as probabilities; may be missing
      "edge_weights": [...],                             where the search weighed the edges into a block; else missing
      "provenance": {...}                                where it comes from
    }

Inputs are named `l-2` and `l-1` (the cells two and one layers before) and `block1`, `block2`, ... (of this cell).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.files import GENOTYPE, parse_json, write_atomically
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace
from search_spaces.validation import as_path, raised_as, short

__all__ = [
    "CELL_INPUTS",
    "Block",
    "Genotype",
    "GenotypeError",
    "load_genotype",
    "package_version",
    "state_names",
    "check_shapes",
    "genotype_file",
    "transition_mask",
]

CELL_INPUTS = ("l-2", "l-1")
"""Names of the outputs of the cells two layers and one layer earlier."""

FORMAT, VERSION = "nas-genotype", 1
MAX_FILE_BYTES = 8 * 2**20
PROBABILITY_TOLERANCE = 1e-3


class GenotypeError(ValueError):
    """An invalid genotype: the message names the field and what was expected."""


def state_names(blocks: int) -> tuple[str, ...]:
    """Names of a cell's states: `l-2`, `l-1`, then `block1` ... `blockB`."""
    return (*CELL_INPUTS, *(f"block{number}" for number in range(1, blocks + 1)))


def package_version() -> str:
    """The installed version of this toolkit, or "unknown" when it is not installed."""
    try:
        return version("nas-segmentation")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class Block:
    """One block of a decoded cell: the sum of two operations on two inputs."""

    inputs: tuple[str, str]
    """Names of the two states that it reads."""
    operations: tuple[str, str]
    """Names of the operations on them."""


@dataclass(frozen=True, eq=False)
class Genotype:
    """A cell and a path in a search space.

    Raises:
        GenotypeError: A field does not fit the space; the message names the field and what was expected.
    """

    space: SearchSpace
    cell: tuple[Block, ...]
    """One entry per block."""
    path: tuple[int, ...]
    """Stride of each layer's cell, in pixels of the image."""
    alpha: np.ndarray | None = None
    """Probabilities [edges, operations] in the order of `space.edges` and `space.operations`, or None."""
    beta: np.ndarray | None = None
    """Probabilities [layers, levels, 3]: of the step from layer l-1 at that level to the finer, the same and the
    coarser level in layer l; zero where the trellis has no such edge. Or None."""
    edge_weights: np.ndarray | None = None
    """Weights [edges] in the order of `space.edges`, with sum 1 over the edges into a block; decoding ranks a block's
    inputs by weight times alpha. None if the search did not weigh edges: alpha alone ranks them."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Origin: package version, data set, seed, epoch, metrics."""

    def __post_init__(self) -> None:
        _check_cell(self.space, self.cell)
        _check_path(self.space, self.path)
        if self.edge_weights is not None and self.alpha is None:
            raise GenotypeError("edge_weights is there, but alpha is not: expected both, or neither")
        check_shapes(self.space, self.alpha, self.beta, self.edge_weights)
        if self.alpha is not None:
            _check_distributions("alpha", self.alpha)
        if self.beta is not None:
            _check_beta(self.space, self.beta)
        if self.edge_weights is not None:
            _check_edge_weights(self.space, self.edge_weights)

    @property
    def levels(self) -> tuple[int, ...]:
        """The path as levels 0, 1, ..."""
        return tuple(self.space.strides.index(stride) for stride in self.path)

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of what a network is built from: space, cell and path."""
        cell = [[block.inputs, block.operations] for block in self.cell]
        return hashlib.sha256(json.dumps([self.space.to_dict(), cell, self.path]).encode()).hexdigest()

    @property
    def plain_cell(self) -> list[dict[str, list[str]]]:
        """The cell in plain containers, as in a genotype file."""
        return [{"inputs": list(block.inputs), "operations": list(block.operations)} for block in self.cell]

    def to_json(self) -> str:
        """The text of the file, with one block, one row of alpha, or one layer of beta on each line."""
        lines = [
            f'"format": {json.dumps(FORMAT)}',
            f'"version": {VERSION}',
            f'"space": {json.dumps(self.space.to_dict())}',
            _rows("cell", self.plain_cell),
            f'"path": {json.dumps(self.path)}',
        ]
        if self.alpha is not None:
            lines.append(_rows("alpha", self.alpha.tolist()))
        if self.beta is not None:
            lines.append(_rows("beta", self.beta.tolist()))
        if self.edge_weights is not None:
            lines.append(f'"edge_weights": {json.dumps(self.edge_weights.tolist())}')
        lines.append(f'"provenance": {json.dumps(dict(self.provenance))}')
        return "{\n  " + ",\n  ".join(lines) + "\n}\n"

    def save(self, path: str | Path) -> Path:
        """Writes the file atomically."""
        return write_atomically(as_path(path), self.to_json())

    @classmethod
    def from_dict(cls, data: object) -> Genotype:
        """Builds a genotype from the parsed JSON.

        Raises:
            GenotypeError: A field is missing, unknown or wrong.
        """
        required, optional = (
            ("format", "version", "space", "cell", "path"),
            ("alpha", "beta", "edge_weights", "provenance"),
        )
        fields = _object("the genotype", data, required, optional)
        if fields["format"] != FORMAT:
            raise GenotypeError(f"format is {short(fields['format'])}: expected {FORMAT!r}")
        version = fields["version"]
        if type(version) is not int or version != VERSION:
            raise GenotypeError(f"version is {short(version)}: expected {VERSION}, the one that this release reads")
        with raised_as(GenotypeError, "space: "):
            space = SearchSpace.from_dict(fields["space"])
        provenance = fields.get("provenance", {})
        if not isinstance(provenance, Mapping):
            raise GenotypeError(f"provenance is {short(provenance)}: expected an object {{...}}")
        return cls(
            space=space,
            cell=tuple(_block(number, entry) for number, entry in enumerate(_list("cell", fields["cell"]))),
            path=tuple(_list("path", fields["path"])),
            alpha=_array("alpha", fields.get("alpha")),
            beta=_array("beta", fields.get("beta")),
            edge_weights=_array("edge_weights", fields.get("edge_weights")),
            provenance=dict(provenance),
        )


def genotype_file(path: str | Path) -> Path:
    """The genotype file that a path names: the file itself, or the one in a run folder."""
    return Path(path) / GENOTYPE if Path(path).is_dir() else Path(path)


def load_genotype(path: str | Path) -> Genotype:
    """Reads and validates a genotype file, or the one in a run folder.

    Raises:
        GenotypeError: The file is missing, too large, or not JSON, or a field is wrong; the message names the file.
    """
    path, named = genotype_file(as_path(path)), as_path(path)
    if path != Path(named) and not path.is_file():
        raise GenotypeError(f"{named} is a folder without a {GENOTYPE}: name a {GENOTYPE} file, or a run that has one")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise GenotypeError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB: no genotype is that large")
        text = path.read_bytes()
    except OSError as error:
        raise GenotypeError(f"{path}: cannot be read: {error.strerror}. Name a genotype.json file") from error
    try:
        data = parse_json(text)
    except ValueError as error:  # not UTF-8, not JSON, a repeated key, a number with thousands of digits
        raise GenotypeError(
            f"{path}: not valid JSON: {error}. Fix that place, or take a complete copy if the file was cut short"
        ) from error
    with raised_as(GenotypeError, f"{path}: "):
        return Genotype.from_dict(data)


def _rows(name: str, rows: Sequence[object]) -> str:
    return f'"{name}": [\n    ' + ",\n    ".join(json.dumps(row) for row in rows) + "\n  ]"


def _object(where: str, value: object, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise GenotypeError(f"{where} is {short(value)}: expected an object {{...}}")
    for name in required:
        if name not in value:
            raise GenotypeError(f"{where} has no field {name!r}: expected {', '.join(required)}")
    for name in value:
        if name not in (*required, *optional):
            expected = ", ".join(sorted((*required, *optional)))
            raise GenotypeError(f"{where} has an unknown field {short(name)}: expected {expected}")
    return value


def _list(where: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise GenotypeError(f"{where} is {short(value)}: expected a list [...]")
    return value


def _block(number: int, value: object) -> Block:
    fields = _object(f"cell[{number}]", value, required=("inputs", "operations"))
    pairs = []
    for name in ("inputs", "operations"):
        pair = _list(f"cell[{number}].{name}", fields[name])
        if len(pair) != 2 or not all(isinstance(entry, str) for entry in pair):
            raise GenotypeError(f"cell[{number}].{name} is {short(pair)}: expected two names")
        pairs.append((pair[0], pair[1]))
    return Block(*pairs)


def _array(where: str, value: object) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.array(_list(where, value))
    except ValueError as error:
        if isinstance(error, GenotypeError):
            raise
        raise GenotypeError(f"{where} is not a table of numbers: expected rows of equal length") from None
    if array.dtype.kind not in "iuf":  # text, true, null: NumPy would make numbers of them
        raise GenotypeError(f"{where} has an entry that is not a number: expected numbers from 0 to 1")
    return array.astype(np.float64)


def _check_cell(space: SearchSpace, cell: tuple[Block, ...]) -> None:
    if len(cell) != space.blocks:
        raise GenotypeError(f"cell has {len(cell)} blocks: expected {space.blocks}, the space's number")
    states = state_names(space.blocks)
    allowed = [name for name in space.operations if name != NONE]
    for number, block in enumerate(cell):
        for branch in range(2):
            for field_, choices in (("inputs", states[: 2 + number]), ("operations", allowed)):
                value = getattr(block, field_)[branch]
                if value not in choices:
                    where = f"cell[{number}].{field_}[{branch}]"
                    raise GenotypeError(f"{where} is {short(value)}: expected one of {', '.join(choices)}")


def _check_path(space: SearchSpace, path: tuple[int, ...]) -> None:
    if len(path) != space.layers:
        raise GenotypeError(f"path has {len(path)} entries: expected {space.layers}, the space's number of layers")
    level = 0
    for number, stride in enumerate(path):
        reachable = [space.strides[target] for target in space.transitions(number, level)]
        if type(stride) is not int or stride not in reachable:
            raise GenotypeError(f"path[{number}] is {short(stride)}: expected one of {', '.join(map(str, reachable))}")
        level = space.strides.index(stride)


def transition_mask(space: SearchSpace) -> np.ndarray:
    """Boolean [layers, levels, 3], in the order of `Genotype.beta`: whether the trellis has the edge."""
    mask = np.zeros((space.layers, space.levels, 3), dtype=bool)
    for layer in range(space.layers):
        for level in space.node_levels(layer):
            for target in space.transitions(layer, level):
                mask[layer, level, target - level + 1] = True
    return mask


def check_shapes(
    space: SearchSpace, alpha: np.ndarray | None, beta: np.ndarray | None, edge_weights: np.ndarray | None
) -> None:
    """Checks that the arrays of a genotype, where there are any, have the shapes that `space` asks for.

    Raises:
        GenotypeError: A shape is wrong.
    """
    for name, array, axes, shape in (
        ("alpha", alpha, "[edges, operations]", (len(space.edges), len(space.operations))),
        ("beta", beta, "[layers, levels, 3]", (space.layers, space.levels, 3)),
        ("edge_weights", edge_weights, "[edges]", (len(space.edges),)),
    ):
        if array is not None and array.shape != shape:
            raise GenotypeError(f"{name} has shape {list(array.shape)}: expected {axes} = {list(shape)}")


def _check_beta(space: SearchSpace, beta: np.ndarray) -> None:
    exists = transition_mask(space)
    _check_distributions("beta", beta, np.any(exists, axis=2))
    if np.any(beta[~exists] != 0):
        layer, level, step = (int(i) for i in np.argwhere((beta != 0) & ~exists)[0])
        raise GenotypeError(f"beta[{layer}][{level}][{step}] is not 0: expected 0, as the trellis has no such edge")


def _check_edge_weights(space: SearchSpace, weights: np.ndarray) -> None:
    _check_probabilities("edge_weights", weights)
    blocks = np.array([block for _, block in space.edges])
    for block in range(space.blocks):
        total = weights[blocks == block].sum()
        if abs(total - 1) > PROBABILITY_TOLERANCE:
            raise GenotypeError(f"edge_weights of the edges into block{block + 1} sum to {total:.6g}: expected 1")


def _check_probabilities(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all() or (array < 0).any() or (array > 1 + PROBABILITY_TOLERANCE).any():
        raise GenotypeError(f"{name} has an entry that is not a probability: expected numbers from 0 to 1")


def _check_distributions(name: str, array: np.ndarray, used: np.ndarray | bool = True) -> None:
    _check_probabilities(name, array)
    wrong = np.argwhere(used & (np.abs(array.sum(axis=-1) - 1) > PROBABILITY_TOLERANCE))
    if len(wrong):
        where = "".join(f"[{int(i)}]" for i in wrong[0])
        raise GenotypeError(f"{name}{where} sums to {array.sum(axis=-1)[tuple(wrong[0])]:.6g}: expected 1")
