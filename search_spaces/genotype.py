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

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.files import GENOTYPE, parse_json, write_atomically
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace, SpaceError
from search_spaces.validation import short

__all__ = [
    "CELL_INPUTS",
    "Block",
    "Genotype",
    "GenotypeError",
    "load_genotype",
    "package_version",
    "state_names",
    "transition_mask",
]

CELL_INPUTS = ("l-2", "l-1")
"""Names of the outputs of the cells two layers and one layer before."""

FORMAT, VERSION = "nas-genotype", 1
MAX_FILE_BYTES = 8 * 2**20
PROBABILITY_TOLERANCE = 1e-3


class GenotypeError(ValueError):
    """A genotype that cannot be: the message names the field and what was expected."""


def state_names(blocks: int) -> tuple[str, ...]:
    """Names of a cell's states: `l-2`, `l-1`, then `block1` ... `blockB`."""
    return (*CELL_INPUTS, *(f"block{number}" for number in range(1, blocks + 1)))


def package_version() -> str:
    """The installed version of this toolkit, or "unknown" when it runs from a folder."""
    try:
        return version("nas-segmentation")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class Block:
    """One block of a decoded cell: the sum of two operations on two inputs."""

    inputs: tuple[str, str]
    """Names of the two states it reads."""
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
    """One entry a block."""
    path: tuple[int, ...]
    """Stride of each layer's cell, in pixels of the image."""
    alpha: np.ndarray | None = None
    """Probabilities [edges, operations] in the order of `space.edges` and `space.operations`, or None."""
    beta: np.ndarray | None = None
    """Probabilities [layers, levels, 3]: of the step from layer l-1 at that level to the finer, the same and the
    coarser level in layer l; zero where the trellis has no such edge. Or None."""
    edge_weights: np.ndarray | None = None
    """Weights [edges] in the order of `space.edges`, sum 1 over the edges into a block; decoding ranks a block's inputs
    by weight times alpha. Or None: they were not weighed, and alpha alone ranks them."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from: package version, data set, seed, epoch, metrics."""

    def __post_init__(self) -> None:
        _check_cell(self.space, self.cell)
        _check_path(self.space, self.path)
        if self.alpha is not None:
            _check_alpha(self.space, self.alpha)
        if self.beta is not None:
            _check_beta(self.space, self.beta)
        if self.edge_weights is not None:
            _check_edge_weights(self.space, self.edge_weights, self.alpha)

    @property
    def levels(self) -> tuple[int, ...]:
        """The path as levels 0, 1, ..."""
        return tuple(self.space.strides.index(stride) for stride in self.path)

    def to_json(self) -> str:
        """The text of the file, laid out for reading: a block, a row of alpha and a layer of beta a line."""
        lines = [
            f'"format": {json.dumps(FORMAT)}',
            f'"version": {VERSION}',
            f'"space": {json.dumps(self.space.to_dict())}',
            _rows("cell", [{"inputs": block.inputs, "operations": block.operations} for block in self.cell]),
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
        """Writes the file; the one that was there stays until the new one is whole."""
        return write_atomically(path, self.to_json())

    @classmethod
    def from_dict(cls, data: object) -> Genotype:
        """Builds a genotype from the parsed JSON.

        Raises:
            GenotypeError: A field is missing, unknown or wrong.
        """
        fields = _object("the genotype", data, required=("format", "version", "space", "cell", "path"))
        known = {"format", "version", "space", "cell", "path", "alpha", "beta", "edge_weights", "provenance"}
        for name in fields:
            if name not in known:
                expected = ", ".join(sorted(known))
                raise GenotypeError(f"the genotype has an unknown field {short(name)}: expected {expected}")
        if fields["format"] != FORMAT:
            raise GenotypeError(f"format is {short(fields['format'])}: expected {FORMAT!r}")
        version = fields["version"]
        if isinstance(version, bool) or not isinstance(version, int) or version != VERSION:
            raise GenotypeError(f"version is {short(version)}: expected {VERSION}, the one that this release reads")
        try:
            space = SearchSpace.from_dict(fields["space"])
        except SpaceError as error:
            raise GenotypeError(f"space: {error}") from None
        return cls(
            space=space,
            cell=tuple(_block(number, entry) for number, entry in enumerate(_list("cell", fields["cell"]))),
            path=tuple(_list("path", fields["path"])),
            alpha=_array("alpha", fields.get("alpha")),
            beta=_array("beta", fields.get("beta")),
            edge_weights=_array("edge_weights", fields.get("edge_weights")),
            provenance=dict(_object("provenance", fields.get("provenance", {}))),
        )


def load_genotype(path: str | Path) -> Genotype:
    """Reads and validates a genotype file.

    Raises:
        GenotypeError: The file is missing, too large, not JSON, or a field is wrong; one line that names the file.
    """
    path = Path(path)
    if path.is_dir():
        inside = path / GENOTYPE
        raise GenotypeError(f"{path} is a folder: name {inside if inside.is_file() else f'a {GENOTYPE} file'}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise GenotypeError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB, which no genotype is")
        text = path.read_bytes()
    except OSError as error:
        raise GenotypeError(f"{path}: cannot be read: {error.strerror}. Name a genotype.json file") from error
    try:
        data = parse_json(text)
    except ValueError as error:  # not UTF-8, not JSON, a key twice, a number of thousands of digits
        raise GenotypeError(
            f"{path}: not valid JSON: {error}. Mend that place, or take a whole copy if the file was cut short"
        ) from error
    try:
        return Genotype.from_dict(data)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from None


def _rows(name: str, rows: Sequence[object]) -> str:
    return f'"{name}": [\n    ' + ",\n    ".join(json.dumps(row) for row in rows) + "\n  ]"


def _object(where: str, value: object, required: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise GenotypeError(f"{where} is {short(value)}: expected an object {{...}}")
    for name in required:
        if name not in value:
            raise GenotypeError(f"{where} has no field {name!r}: expected {', '.join(required)}")
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
    for name in fields:
        if name not in ("inputs", "operations"):
            raise GenotypeError(f"cell[{number}] has an unknown field {short(name)}: expected inputs, operations")
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
            if block.inputs[branch] not in states[: 2 + number]:
                raise GenotypeError(
                    f"cell[{number}].inputs[{branch}] is {short(block.inputs[branch])}: "
                    f"expected one of {', '.join(states[: 2 + number])}"
                )
            if block.operations[branch] not in allowed:
                raise GenotypeError(
                    f"cell[{number}].operations[{branch}] is {short(block.operations[branch])}: "
                    f"expected one of {', '.join(allowed)}"
                )


def _check_path(space: SearchSpace, path: tuple[int, ...]) -> None:
    if len(path) != space.layers:
        raise GenotypeError(f"path has {len(path)} entries: expected {space.layers}, the space's number of layers")
    level = 0
    for number, stride in enumerate(path):
        reachable = [space.strides[target] for target in space.transitions(number, level)]
        if isinstance(stride, bool) or not isinstance(stride, int) or stride not in reachable:
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


def _check_alpha(space: SearchSpace, alpha: np.ndarray) -> None:
    shape = (len(space.edges), len(space.operations))
    if alpha.shape != shape:
        raise GenotypeError(f"alpha has shape {list(alpha.shape)}: expected [edges, operations] = {list(shape)}")
    _check_distributions("alpha", alpha, np.ones(len(alpha), dtype=bool))


def _check_beta(space: SearchSpace, beta: np.ndarray) -> None:
    shape = (space.layers, space.levels, 3)
    if beta.shape != shape:
        raise GenotypeError(f"beta has shape {list(beta.shape)}: expected [layers, levels, 3] = {list(shape)}")
    exists = transition_mask(space)
    _check_distributions("beta", beta, np.any(exists, axis=2))
    if np.any(beta[~exists] != 0):
        layer, level, step = (int(i) for i in np.argwhere((beta != 0) & ~exists)[0])
        raise GenotypeError(f"beta[{layer}][{level}][{step}] is not 0: expected 0, as the trellis has no such edge")


def _check_edge_weights(space: SearchSpace, weights: np.ndarray, alpha: np.ndarray | None) -> None:
    if alpha is None:
        raise GenotypeError("edge_weights is there, but alpha is not: expected both, or neither")
    if weights.shape != (len(space.edges),):
        raise GenotypeError(f"edge_weights has shape {list(weights.shape)}: expected [edges] = [{len(space.edges)}]")
    _check_probabilities("edge_weights", weights)
    blocks = np.array([block for _, block in space.edges])
    for block in range(space.blocks):
        total = weights[blocks == block].sum()
        if abs(total - 1) > PROBABILITY_TOLERANCE:
            raise GenotypeError(f"edge_weights of the edges into block{block + 1} sum to {total:.6g}: expected 1")


def _check_probabilities(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all() or (array < 0).any() or (array > 1 + PROBABILITY_TOLERANCE).any():
        raise GenotypeError(f"{name} has an entry that is not a probability: expected numbers from 0 to 1")


def _check_distributions(name: str, array: np.ndarray, used: np.ndarray) -> None:
    _check_probabilities(name, array)
    wrong = np.argwhere(used & (np.abs(array.sum(axis=-1) - 1) > PROBABILITY_TOLERANCE))
    if len(wrong):
        where = "".join(f"[{int(i)}]" for i in wrong[0])
        raise GenotypeError(f"{name}{where} sums to {array.sum(axis=-1)[tuple(wrong[0])]:.6g}: expected 1")
