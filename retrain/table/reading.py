"""Tables as files: one line of JSON for the card, one for each network, compressed by gzip. No torch.

A network's line has its `number` (its place in `all_genotypes` of the space), `path`, `cell`, `parameters`,
`multiply_adds` and `latency` for an image of the card's `input`, and `runs`: for each seed the mIoU after each epoch on
the validation split (`validation`) and on the card's `split` (`measured`; null after epochs where it was not), and the
`cpu_seconds` of the training.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from search_spaces.files import parse_json, write_atomically
from search_spaces.genotype import Block, Genotype
from search_spaces.space import SearchSpace
from search_spaces.validation import choice, require

__all__ = ["Network", "Place", "Run", "Table", "load_table", "write_table"]

FORMAT, VERSION, ENDING = "nas-table", 1, ".jsonl.gz"
MOST_BYTES = 64 * 2**20
"""Largest table, decompressed."""
FOLDER = Path(__file__).parent


class Run(NamedTuple):
    """A training: mIoU after each epoch, 0 to 1."""

    validation: Sequence[float]
    measured: Sequence[float | None]
    """On the table's other split; None after epochs where it was not measured."""
    cpu_seconds: float


class Network(NamedTuple):
    """A network of a table and its trainings."""

    number: int
    """Its place in `all_genotypes` of the space."""
    genotype: Genotype
    parameters: int
    multiply_adds: int
    latency: float | None
    """Seconds for one image; None where it was not measured."""
    runs: Mapping[int, Run]
    """By seed."""


class Place(NamedTuple):
    """Where a network stands in a table, by the mIoU after the last epoch, mean over the seeds."""

    network: Network
    miou: float
    rank: int
    """Of so many `networks`; 1 is the best, and equal ones share a rank."""
    networks: int
    percentile: float
    """Share of the other networks that are worse, in percent."""
    regret: float
    """mIoU of the best network minus its own."""


@dataclass(frozen=True)
class Table:
    """A table of trained networks."""

    card: Mapping[str, Any]
    """What it is of: name, space, settings, split, input, versions, checksum."""
    networks: tuple[Network, ...]

    @cached_property
    def space(self) -> SearchSpace:
        """The search space."""
        return SearchSpace.from_dict(self.card["space"])

    @property
    def splits(self) -> tuple[str, str]:
        """Names of the validation split and of the other one."""
        return self.card["settings"]["loader"]["val_split"], self.card["split"]

    def miou(self, network: Network, split: str | None = None, seed: int | None = None) -> float:
        """mIoU after the last epoch, 0 to 1: mean over the seeds, or with one of them.

        `split` is one of `splits`; None: the second.
        """
        choice("split", split or self.splits[1], self.splits)
        runs = [run for number, run in network.runs.items() if seed in (None, number)]
        return mean((run.validation if split == self.splits[0] else run.measured)[-1] or 0.0 for run in runs)

    def ordered(self, split: str | None = None) -> list[Network]:
        """All networks, the best first."""
        return sorted(self.networks, key=lambda network: self.miou(network, split), reverse=True)

    def find(self, genotype: Genotype) -> Network:
        """The network of a genotype. Its space may have another name, head or order of operations.

        Raises:
            ValueError: It is not in the table.
        """
        key, strides = _key(genotype), self.space.strides
        require(
            genotype.space.strides[: len(strides)] == strides and genotype.space.settings == self.space.settings,
            f"the space {genotype.space.name} has other strides or settings than {self.space.name}, of which the table "
            f"{self.card['name']} is: search in that space",
        )
        for network in self.networks:
            if _key(network.genotype) == key:
                return network
        path = "-".join(map(str, genotype.path))
        operations = ", ".join(operation for block in genotype.cell for operation in block.operations)
        raise ValueError(
            f"the network with path {path} and operations {operations} is not in the table {self.card['name']}, which "
            f"has {len(self.networks)} networks of the space {self.space.name}: search in that space"
        )

    def rank(self, genotype: Genotype, split: str | None = None) -> Place:
        """Where a genotype stands; raises as `find` does."""
        network = self.find(genotype)
        own, others = self.miou(network, split), [self.miou(other, split) for other in self.networks]
        better, worse = sum(miou > own for miou in others), sum(miou < own for miou in others)
        share = 100 * worse / max(1, len(others) - 1)
        return Place(network, own, better + 1, len(others), share, max(others) - own)


def _key(genotype: Genotype) -> tuple[object, ...]:
    """What equal networks agree in: a block adds its two operations, in any order."""
    cell = [sorted(zip(block.inputs, block.operations, strict=True)) for block in genotype.cell]
    return genotype.path, tuple(map(tuple, cell))


def load_table(name_or_file: str | Path = "shapes") -> Table:
    """Loads a shipped table by name, or one from a file.

    Raises:
        ValueError: There is none, or it is damaged or of another format.
    """
    shipped = {path.name.removesuffix(ENDING): path for path in sorted(FOLDER.glob(f"*{ENDING}"))}
    path = shipped.get(str(name_or_file), Path(name_or_file))
    require(
        path.is_file(),
        f"there is no table {str(name_or_file)!r}: choose one of {', '.join(shipped) or '(none is shipped)'}, or name "
        f"a file of nas-table pack ({ENDING})",
    )
    try:
        with gzip.open(path) as file:
            text = file.read(MOST_BYTES + 1)
        require(len(text) <= MOST_BYTES, f"it is larger than {MOST_BYTES >> 20} MiB")
        first, _, rest = text.partition(b"\n")
        card = parse_json(first)
        require(isinstance(card, dict) and card.get("format") == FORMAT, f"it is no {FORMAT}")
        require(card["version"] == VERSION, f"version is {card['version']}: expected {VERSION}")
        require(hashlib.sha256(rest).hexdigest() == card["sha256"], "its checksum is wrong: it was changed")
        space = SearchSpace.from_dict(card["space"])
        return Table(card, tuple(_network(space, **parse_json(line)) for line in rest.splitlines()))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as a table: {error!s:.200}. Take a whole copy") from error


def _network(space: SearchSpace, path: Any, cell: Any, runs: Any, **others: Any) -> Network:
    blocks = tuple(Block(tuple(block["inputs"]), tuple(block["operations"])) for block in cell)
    by_seed = {int(seed): Run(**run) for seed, run in runs.items()}
    return Network(genotype=Genotype(space, blocks, tuple(path)), runs=by_seed, **others)


def write_table(card: Mapping[str, Any], networks: Sequence[Network], folder: Path) -> Path:
    """Writes NAME.jsonl.gz, NAME as the card has it; the same content gives the same bytes."""
    lines = []
    for network in networks:
        line = network._asdict()
        genotype: Genotype = line.pop("genotype")
        line |= {"path": genotype.path, "cell": genotype.plain_cell}
        lines.append(line | {"runs": {seed: run._asdict() for seed, run in network.runs.items()}})
    rest = "".join(json.dumps(line) + "\n" for line in lines).encode()
    whole = {"format": FORMAT, "version": VERSION, **card, "sha256": hashlib.sha256(rest).hexdigest()}
    content = gzip.compress(json.dumps(whole).encode() + b"\n" + rest, mtime=0)
    return write_atomically(folder / f"{card['name']}{ENDING}", content)
