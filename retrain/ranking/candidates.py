"""Candidates of a ranking: genotypes of searches, genotype files, published networks, and random genotypes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nas.config import SearchConfig
from nas.runs.names import CONFIG, GENOTYPE, is_run_of, read_config
from nas.seeds import is_complete, supernet_miou
from retrain.networks import NETWORKS
from retrain.networks.published import main_names
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.graph import random_genotype
from search_spaces.space import SearchSpace
from search_spaces.validation import as_path, from_plain

__all__ = ["Candidate", "Kind", "Origin", "find_candidates", "identity", "random_candidates", "space_names"]

Kind = Literal["searched", "given", "random", "published"]

TRIES = 300
"""Successive draws without a new genotype after which a space counts as too small."""


@dataclass(frozen=True)
class Origin:
    """Where a genotype comes from."""

    name: str
    """Unique within a ranking."""
    source: str
    """The file, the name of the network, or the seed of the draw."""
    kind: Kind
    """searched: the result of a search; given: a genotype file from elsewhere; random; published: a network's name."""
    supernet: float | None = None
    """Validation mIoU of the supernet from which a search decoded it, 0 to 1."""
    data: str | None = None
    """Data set of that search, and its root."""


@dataclass(frozen=True)
class Candidate:
    """A genotype or a published network. Searches that found the same genotype share a candidate."""

    origins: tuple[Origin, ...]
    genotype: Genotype | None
    """None: a published network."""

    @property
    def name(self) -> str:
        """All its names."""
        return ", ".join(origin.name for origin in self.origins)


def identity(genotype: Genotype) -> tuple[Any, ...]:
    """The parts in which equal genotypes agree: space, cell and path."""
    return genotype.space, genotype.cell, genotype.path


def find_candidates(operands: Sequence[str]) -> list[Candidate]:
    """Reads the genotypes to rank.

    Args:
        operands: Run folders of nas-search, folders of run folders, genotype files, names of published networks.

    Raises:
        ValueError: An operand is none of these, is given twice, or is an incomplete search; one line.
    """
    files: list[Path | str] = []
    for operand in operands:
        files += [operand] if operand in NETWORKS else _files(as_path(operand))
    keys = [file if isinstance(file, str) else file.resolve() for file in files]
    for number, (file, key) in enumerate(zip(files, keys, strict=True)):
        if key in keys[:number]:
            raise ValueError(f"{file} is given twice: give each genotype once")
    found: list[Candidate] = []
    for file, name in zip(files, _names(files), strict=True):
        if isinstance(file, str):
            found.append(Candidate((Origin(name, file, "published"),), None))
            continue
        genotype = load_genotype(file)
        origin = Origin(name, str(file), "given")
        if is_run_of(file.parent, SearchConfig.command) and file.name == GENOTYPE:
            data, settings = (genotype.provenance.get(name) for name in ("data", "data_settings"))
            root = settings.get("data_root") if isinstance(settings, dict) else None
            known = f"{data} at {root}" if isinstance(data, str) and root else data if isinstance(data, str) else None
            origin = Origin(name, str(file), "searched", supernet_miou(genotype), known)
        for place, other in enumerate(found):
            if other.genotype is not None and identity(other.genotype) == identity(genotype):
                found[place] = Candidate((*other.origins, origin), other.genotype)
                break
        else:
            found.append(Candidate((origin,), genotype))
    return found


def _files(path: Path) -> list[Path]:
    """The genotype files that an operand names."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise ValueError(
            f"there is no {str(path)!r}: name a run folder of nas-search, a folder of run folders, a genotype.json "
            f"file, or one of {', '.join(main_names())}"
        )
    if (path / CONFIG).exists():
        return [_result(path)]
    runs = [folder for folder in sorted(path.iterdir(), key=_by_number) if is_run_of(folder, SearchConfig.command)]
    if not runs:
        raise ValueError(f"{path} has no run of nas-search in it: name a run folder, or a folder of run folders")
    return [_result(run) for run in runs]


def _result(run: Path) -> Path:
    """The genotype file of a run, which must be complete if it is a search."""
    file = run / GENOTYPE
    if not is_run_of(run, SearchConfig.command):  # of nas-retrain
        return file
    try:
        complete = is_complete(run, from_plain(SearchConfig, read_config(run)))
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from error
    if not complete:
        instead = f", or name {file} as it is now" if file.exists() else ""
        raise ValueError(f"{run} is not complete: resume it by nas-search --resume {run}{instead}")
    return file


def _by_number(path: Path) -> list[tuple[int, str]]:
    """seed-2 before seed-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def _names(files: Sequence[Path | str]) -> list[str]:
    """The shortest ends of the paths (of run folder or file) that tell them apart."""
    whole: list[tuple[str, ...]] = []
    for file in files:
        if isinstance(file, str):
            whole.append((file,))
            continue
        path = file.resolve()
        *parents, last = (path.parent if path.name == GENOTYPE else path.with_suffix("")).parts
        # The prefix tells a search's seed from the seed of a training.
        whole.append((*parents[1:], f"search-{last}" if re.fullmatch(r"seed-[0-9]+", last) else last))
    names = []
    for number, parts in enumerate(whole):
        others = [other for place, other in enumerate(whole) if place != number]
        length = next(
            (n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts)
        )
        names.append("/".join(parts[-length:]))
    return names


def space_names(candidates: Sequence[Candidate]) -> dict[str, SearchSpace]:
    """The spaces of the candidates by name; a number tells different spaces of one name apart."""
    spaces: dict[str, SearchSpace] = {}
    for candidate in candidates:
        if candidate.genotype is None or candidate.genotype.space in spaces.values():
            continue
        name, number = candidate.genotype.space.name, 1
        while name in spaces:
            number += 1
            name = f"{candidate.genotype.space.name} ({number})"
        spaces[name] = candidate.genotype.space
    return spaces


def random_candidates(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Draws `count` random genotypes of each space of the candidates, all different and none of them a candidate.

    They are drawn with the seeds 1, 2, ...: a larger `count` includes those of a smaller one.

    Raises:
        ValueError: A space does not have that many.
    """
    spaces = space_names(candidates)
    taken = [candidate.genotype for candidate in candidates if candidate.genotype is not None]
    drawn: list[Candidate] = []
    for name, space in spaces.items():
        own: list[Genotype] = []
        seed = last = 0
        while len(own) < count and seed < last + TRIES:
            seed += 1
            genotype = random_genotype(space, seed)
            if all(identity(genotype) != identity(other) for other in (*taken, *own)):
                own.append(genotype)
                last = seed
        if len(own) < count:
            raise ValueError(
                f"the space {name} has few genotypes: {seed} draws gave only {len(own)} that are not there yet; give "
                f"--random {len(own)}"
            )
        for number, genotype in enumerate(own, 1):
            label = f"random {number}" + (f" of {name}" if len(spaces) > 1 else "")
            drawn.append(Candidate((Origin(label, f"seed {genotype.provenance['seed']}", "random"),), genotype))
    return drawn
