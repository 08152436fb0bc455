"""A ranking to read: on the screen, and as Markdown."""

from __future__ import annotations

import json
from pathlib import Path

from retrain.ranking.result import ENOUGH, Ranking
from search_spaces.files import write_atomically

__all__ = ["MARKDOWN", "RECORD", "markdown", "sentences", "table", "write"]

RECORD, MARKDOWN = "ranking.json", "ranking.md"
LEFT = ("network", "path")
"""Columns of text; numbers stand to the right."""


def rows(ranking: Ranking) -> list[list[str]]:
    """The heads, and a row for each network."""
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
    """What the numbers of the table are."""
    height, width = ranking.size
    config = ranking.config
    return (
        f"{config.data}, split {ranking.ranking.split}: mIoU % after {config.epochs} epoch{'s' * (config.epochs > 1)}; "
        f"multiply-adds at {height}x{width}"
    )


def sentences(ranking: Ranking) -> list[str]:
    """What the numbers say of groups and of the order, a line each."""
    several, said = len(ranking.spaces) > 1, []
    of = {"searched": "search", "given": "genotype", "random": "genotype"}
    for group in ranking.groups:
        count = len(group.means)
        noun = of[group.kind] + ("" if count == 1 else "es" if group.kind == "searched" else "s")
        where = f" of {group.space}" if several else ""
        said.append(f"{group.kind}{where}: mean {_percent(group.mean)}, s.d. {_percent(group.spread)} ({count} {noun})")
    for group, (_, _, text) in ranking.comparisons:
        said.append(f"{group.space}: {text}" if several else text)
    if ranking.lead is not None and ranking.seed_spread is not None:
        verdict = "more" if ranking.lead > ranking.seed_spread else "no more"
        said.append(
            f"first - second: {100 * ranking.lead:.2f} points, {verdict} than the s.d. over seeds of "
            f"{100 * ranking.seed_spread:.2f}"
        )
    if ranking.tau is not None:
        said.append(
            f"order by the supernet's val mIoU against this one: Kendall's tau {ranking.tau:+.2f} over "
            f"{len(ranking.searches)} searches (1: the same, -1: the opposite)"
        )
    elif len(ranking.searches) >= ENOUGH:
        said.append("order by the supernet's val mIoU: not compared (all equal, or of several spaces or data sets)")
    for name, seed, why in ranking.failures:
        said.append(f"failed: {name} with seed {seed}: {why}")
    return said


def table(ranking: Ranking) -> str:
    """The ranking as text."""
    found = rows(ranking)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    left = [head in LEFT for head in found[0]]
    lines = [title(ranking), ""]
    for row in found:
        cells = zip(row, widths, left, strict=True)
        lines.append("   ".join(f"{cell:<{w}}" if is_left else f"{cell:>{w}}" for cell, w, is_left in cells).rstrip())
    return "\n".join([*lines, "", *sentences(ranking)])


def markdown(ranking: Ranking) -> str:
    """The ranking as a Markdown document."""
    heads, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows(ranking)]
    marks = ["---" if head in LEFT else "---:" for head in heads]
    chosen = ranking.ranking.split == ranking.config.loader.val_split
    best = next((entry for entry in ranking.entries if entry.mean is not None), None)
    parts = [
        "# Ranking",
        f"{title(ranking)}. All were trained with the same settings, which `{RECORD}` has.",
        "\n".join(f"| {' | '.join(row)} |" for row in (heads, marks, *others)),
        "\n".join(f"- {sentence}" for sentence in sentences(ranking)),
    ]
    if chosen and best is not None:
        run = best.folder / f"seed-{ranking.ranking.seeds[0]}"
        parts.append(
            "The first one was chosen by the split that its number is of, so that number is an optimistic one. On "
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
