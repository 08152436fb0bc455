"""The result of a ranking: networks in order, groups, and their comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from nas.evaluation.metrics import mean_note
from retrain.config import RankingConfig, RetrainConfig
from retrain.ranking.candidates import Candidate, Kind, space_names
from retrain.ranking.comparison import Comparison, compare, kendall, pooled, spread
from search_spaces.files import write_atomically
from search_spaces.genotype import package_version
from search_spaces.space import SearchSpace
from search_spaces.text import aligned
from search_spaces.validation import to_plain

__all__ = ["MARKDOWN", "RECORD", "Entry", "Group", "Ranking", "markdown", "sentences", "table", "write"]

ENOUGH = 3
"""Fewest searches for which Kendall's tau is computed."""


@dataclass(frozen=True)
class Entry:
    """A candidate and its results."""

    candidate: Candidate
    parameters: int
    """Trainable parameters of its network."""
    multiply_adds: int
    """For an image of `Ranking.size`."""
    folder: Path
    """Parent of its run folders, seed-0, seed-1, ..."""
    mious: tuple[float | None, ...]
    """mIoU with each seed after the last epoch, 0 to 1; None where the training failed."""
    failures: Mapping[int, str]
    """Seed -> why its training failed."""
    collapsed: tuple[int, ...] = ()
    """Seeds with which the network predicts one class everywhere."""

    @property
    def reached(self) -> list[float]:
        """mIoU of the trainings that did not fail."""
        return [miou for miou in self.mious if miou is not None]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None if a training failed, as means over different seeds do not compare."""
        return mean(self.reached) if len(self.reached) == len(self.mious) else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return spread(self.reached)


@dataclass(frozen=True)
class Group:
    """Genotypes of one kind and one space, each with its mean over the seeds."""

    space: str
    kind: Kind
    means: tuple[float, ...]
    """One for each search, file or random genotype: a genotype that two searches found counts twice."""

    @property
    def mean(self) -> float:
        """Mean of the means."""
        return mean(self.means)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the means (n - 1); None for fewer than two."""
        return spread(self.means)


@dataclass(frozen=True)
class Ranking:
    """The result of `retrain.rank`."""

    config: RetrainConfig
    """Settings of all trainings, which differ in genotype, seed and out only."""
    ranking: RankingConfig
    folder: Path
    size: tuple[int, int]
    """Height and width of a validation image, for which multiply-adds are counted."""
    entries: tuple[Entry, ...]
    """The best one first; those with a failed training last."""
    spaces: Mapping[str, SearchSpace]
    """The candidates' spaces by name."""

    @classmethod
    def of(
        cls,
        config: RetrainConfig,
        ranking: RankingConfig,
        folder: Path,
        size: tuple[int, int],
        entries: Sequence[Entry],
    ) -> Ranking:
        """Sorts entries by mean mIoU; equal ones keep their order."""
        spaces = space_names([entry.candidate for entry in entries])
        ordered = sorted(entries, key=lambda entry: -1.0 if entry.mean is None else entry.mean, reverse=True)
        return cls(config, ranking, folder, size, tuple(ordered), spaces)

    @property
    def places(self) -> tuple[int | None, ...]:
        """The rank of each entry, from 1; equal means share one. None: a training failed."""
        means = [entry.mean for entry in self.entries]
        return tuple(None if mean is None else means.index(mean) + 1 for mean in means)

    def space_of(self, entry: Entry) -> str | None:
        """Name of an entry's space; None: a published network."""
        genotype = entry.candidate.genotype
        return next((name for name, space in self.spaces.items() if genotype and space == genotype.space), None)

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of each space that have a member: searched, given, random."""
        kinds: tuple[Kind, ...] = ("searched", "given", "random")
        groups = []
        for name in self.spaces:
            own = [entry for entry in self.entries if self.space_of(entry) == name]
            for kind in kinds:
                means = [e.mean for e in own for origin in e.candidate.origins if origin.kind == kind]
                if known := [value for value in means if value is not None]:
                    groups.append(Group(name, kind, tuple(known)))
        return groups

    @cached_property
    def comparisons(self) -> list[tuple[Group, Comparison]]:
        """Each other group compared with the random genotypes of its space."""
        random = {group.space: group for group in self.groups if group.kind == "random"}
        return [
            (group, compare(group.kind, group.means, random[group.space].means))
            for group in self.groups
            if group.kind != "random" and group.space in random
        ]

    @cached_property
    def seed_spread(self) -> float | None:
        """Standard deviation over the seeds, pooled over all genotypes."""
        return pooled([entry.reached for entry in self.entries])

    @cached_property
    def lead(self) -> float | None:
        """Mean of the first minus mean of the second; None if there is no second."""
        means = [entry.mean for entry in self.entries if entry.mean is not None]
        return means[0] - means[1] if len(means) > 1 else None

    @cached_property
    def searches(self) -> list[tuple[str, float, float]]:
        """Name, mIoU of the supernet and of the trained network, of each search that has both."""
        return [
            (origin.name, origin.supernet, entry.mean)
            for entry in self.entries
            for origin in entry.candidate.origins
            if origin.supernet is not None and entry.mean is not None
        ]

    @cached_property
    def tau(self) -> float | None:
        """Kendall's tau of `searches`; None for fewer than three, or for several spaces or data sets."""
        origins = [(e, o) for e in self.entries for o in e.candidate.origins if o.kind == "searched"]
        alike = len({(self.space_of(e), o.data) for e, o in origins}) == 1
        if len(self.searches) < ENOUGH or not alike:
            return None
        return kendall([(supernet, trained) for _, supernet, trained in self.searches])

    @cached_property
    def partial_means(self) -> list[dict[str, Any]]:
        """Network, seed and note of each mIoU that is not the mean over all classes, as its evaluation has it."""
        found = []
        for entry in self.entries:
            for seed in self.ranking.seeds:
                file = entry.folder / f"seed-{seed}" / f"evaluation-{self.ranking.split}-last.json"
                data = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
                note = mean_note(data.get("mean_over")).strip(" ()")
                found.append({"network": entry.candidate.name, "seed": seed, "note": note})
        return [partial for partial in found if partial["note"]]

    @property
    def failures(self) -> list[tuple[str, int, str]]:
        """Name, seed and reason of each training that failed."""
        return [(entry.candidate.name, seed, why) for entry in self.entries for seed, why in entry.failures.items()]

    def plain(self) -> dict[str, Any]:
        """The content of ranking.json in plain containers."""
        rows = []
        for place, entry in zip(self.places, self.entries, strict=True):
            genotype = entry.candidate.genotype
            rows.append(
                {
                    "rank": place,
                    "origins": [to_plain(origin) for origin in entry.candidate.origins],
                    "space": self.space_of(entry),
                    "path": None if genotype is None else list(genotype.path),
                    "parameters": entry.parameters,
                    "multiply_adds": entry.multiply_adds,
                    "miou": dict(zip(map(str, self.ranking.seeds), entry.mious, strict=True)),
                    "mean": entry.mean,
                    "spread": entry.spread,
                    "collapsed": list(entry.collapsed),
                    "failures": {str(seed): why for seed, why in entry.failures.items()},
                    "folder": str(entry.folder),
                }
            )
        return {
            "data": self.config.data,
            "split": self.ranking.split,
            "seeds": list(self.ranking.seeds),
            "epochs": self.config.epochs,
            "input": list(self.size),
            "ranking": rows,
            "groups": [{**to_plain(g), "mean": g.mean, "spread": g.spread} for g in self.groups],
            "comparisons": [
                {"space": g.space, "kind": g.kind, "difference": mean, "interval": to_plain(interval), "says": text}
                for g, (mean, interval, text) in self.comparisons
            ],
            "partial_means": self.partial_means,
            "seed_spread": self.seed_spread,
            "kendall_tau": self.tau,
            "package_version": package_version(),
            "settings": {k: v for k, v in to_plain(self.config).items() if k not in ("genotype", "seed", "out")},
        }


RECORD, MARKDOWN = "ranking.json", "ranking.md"
LEFT = ("network", "path")
"""Columns of text; numbers are aligned to the right."""


def rows(ranking: Ranking) -> list[list[str]]:
    """The heads, then one row per network."""
    heads = ["rank", "network", "parameters", "multiply-adds", *(f"seed {seed}" for seed in ranking.ranking.seeds)]
    found = [[*heads, "mean", "s.d.", "path"]]
    for place, entry in zip(ranking.places, ranking.entries, strict=True):
        genotype = entry.candidate.genotype
        found.append(
            [
                "-" if place is None else str(place),
                entry.candidate.name,
                f"{entry.parameters:,}",
                f"{entry.multiply_adds / 1e6:,.2f} M",
                *("failed" if miou is None else f"{100 * miou:.2f}" for miou in entry.mious),
                _percent(entry.mean),
                _percent(entry.spread),
                "-" if genotype is None else "-".join(map(str, genotype.path)),
            ]
        )
    return found


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def title(ranking: Ranking) -> str:
    """The caption of the table: data, split, epochs and input size."""
    height, width = ranking.size
    config = ranking.config
    return (
        f"{config.data}, split {ranking.ranking.split}: mIoU % after {config.epochs} epoch{'s' * (config.epochs > 1)}; "
        f"multiply-adds at {height}x{width}"
    )


def sentences(ranking: Ranking) -> list[str]:
    """Conclusions on groups and on the order, a line each."""
    several, lines = len(ranking.spaces) > 1, []
    of = {"searched": "search", "given": "genotype", "random": "genotype"}
    for group in ranking.groups:
        count = len(group.means)
        noun = of[group.kind] + ("" if count == 1 else "es" if group.kind == "searched" else "s")
        where = f" of {group.space}" if several else ""
        lines.append(
            f"{group.kind}{where}: mean {_percent(group.mean)}, s.d. {_percent(group.spread)} ({count} {noun})"
        )
    for group, (_, _, text) in ranking.comparisons:
        lines.append(f"{group.space}: {text}" if several else text)
    if ranking.lead and ranking.seed_spread is not None:
        verdict = "more" if ranking.lead > ranking.seed_spread else "no more"
        lines.append(
            f"first - second: {100 * ranking.lead:.2f} points, {verdict} than the s.d. over seeds of "
            f"{100 * ranking.seed_spread:.2f}"
        )
    if ranking.tau is not None:
        lines.append(
            f"order by the supernet's val mIoU against this one: Kendall's tau {ranking.tau:+.2f} over "
            f"{len(ranking.searches)} searches (1: the same, -1: the opposite)"
        )
    elif len(ranking.searches) >= ENOUGH:
        lines.append("order by the supernet's val mIoU: not compared (all equal, or of several spaces or data sets)")
    if collapsed := [f"{e.candidate.name} with seed {seed}" for e in ranking.entries for seed in e.collapsed]:
        count = sum(len(entry.reached) for entry in ranking.entries)
        lines.append(
            f"a collapse, {len(collapsed)} of {count} trainings predict one class everywhere, which tells nothing of "
            f"their genotypes: {', '.join(collapsed)}. Train longer, or with another learning rate"
        )
    lines += [f"{one['network']} with seed {one['seed']}: {one['note']}" for one in ranking.partial_means]
    for name, seed, why in ranking.failures:
        lines.append(f"failed: {name} with seed {seed}: {why}")
    return lines


def table(ranking: Ranking) -> str:
    """The ranking as text."""
    found = rows(ranking)
    left = [place for place, head in enumerate(found[0]) if head in LEFT]
    return "\n".join([title(ranking), "", *aligned(found, left, "   "), "", *sentences(ranking)])


def markdown(ranking: Ranking) -> str:
    """The ranking as a Markdown document."""
    heads, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows(ranking)]
    marks = ["---" if head in LEFT else "---:" for head in heads]
    chosen = ranking.ranking.split == ranking.config.loader.val_split
    best = next((entry for entry in ranking.entries if entry.mean is not None), None)
    parts = [
        "# Ranking",
        f"{title(ranking)}. All were trained with the same settings, which are in `{RECORD}`.",
        "\n".join(f"| {' | '.join(row)} |" for row in (heads, marks, *others)),
        "\n".join(f"- {sentence}" for sentence in sentences(ranking)),
    ]
    if chosen and best is not None:
        run = best.folder / f"seed-{ranking.ranking.seeds[0]}"
        parts.append(
            "The first network was chosen on the split on which its number was measured: the number is optimistic. On "
            f"another split:\n\n    nas-evaluate {run} --checkpoint last --split test"
        )
    folders = [
        f"- `{entry.folder}`: {', '.join(f'{origin.name} ({origin.source})' for origin in entry.candidate.origins)}"
        for entry in ranking.entries
    ]
    parts.append("## Run folders\n\n" + "\n".join(folders))
    return "\n\n".join(parts) + "\n"


def write(ranking: Ranking) -> tuple[Path, Path]:
    """Writes ranking.json and ranking.md into the ranking's folder."""
    record = write_atomically(ranking.folder / RECORD, json.dumps(ranking.plain(), indent=1) + "\n")
    return record, write_atomically(ranking.folder / MARKDOWN, markdown(ranking))
