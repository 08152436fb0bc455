"""Which split each image belongs to: by shares of groups, by lists, or as its folders are named."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from nas.data.base import DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.source import inside
from nas.data.readers.listing import list_files
from nas.data.readers.reading import read_text
from search_spaces.validation import short

__all__ = ["assign", "split_folder"]

SHARE = 0.15
"""Of val and of test, if nothing else is said."""

_SPLITS = re.compile(r"(train|val|test)(?:ing|id|idation)?\d*", re.IGNORECASE)


def split_folder(name: str) -> str | None:
    """The split that a folder is named after, such as val for `valid` or train for `train2017`."""
    match = _SPLITS.fullmatch(name)
    return match[1].lower() if match else None


def assign(names: Sequence[str], config: ConvertConfig) -> tuple[dict[str, str], str]:
    """Assign images to splits.

    Args:
        names: Paths of the images with slashes, each once.
        config: The settings.

    Returns:
        The split of each name, without those that no list names, and how they were split, in words.

    Raises:
        DataError: A list names an image twice, or one that there is not; or --group matches nothing in a name.
    """
    if config.lists is not None:
        return _by_lists(names, config), f"as the lists in {config.lists} say"
    folders = {
        name: [split for part in PurePosixPath(name).parts[:-1] if (split := split_folder(part))] for name in names
    }
    if all(folders.values()) and config.val is None and config.test is None:
        if config.group is not None or config.seed is not None:
            raise DataError(
                "the folders are splits already: give --val and --test to split again, or leave --group and --seed out"
            )
        return {name: found[-1] for name, found in folders.items()}, "as the folders are named"
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[_group(name, config.group)].append(name)
    # By a digest, as shuffling may differ between versions; most images stay in their splits when others are added.
    order = sorted(
        groups,
        key=lambda group: hashlib.sha256(f"{config.seed or 0}/{group}".encode(errors="surrogateescape")).digest(),
    )
    shares = {"val": SHARE if config.val is None else config.val, "test": SHARE if config.test is None else config.test}
    splits: dict[str, str] = {}
    for split, share in shares.items():
        wanted, taken = share * len(names), list[str]()
        for group in order:  # in turn, whatever brings the split nearer to its size
            if abs(wanted - len(groups[group])) < abs(wanted) and len(order) - len(taken) > 1:
                wanted -= len(groups[group])
                taken.append(group)
        if share and not taken and len(order) > 1:
            taken = [min(order, key=lambda group: len(groups[group]))]
        splits.update((name, split) for group in taken for name in groups[group])
        order = [group for group in order if groups[group][0] not in splits]
    splits.update((name, "train") for group in order for name in groups[group])
    kept = f" of {len(groups)} groups" if config.group is not None else ""
    return splits, f"by shares{kept}, seed {config.seed or 0}"


def _group(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    if pattern == "folder":
        return str(PurePosixPath(name).parent)
    if (match := re.search(pattern, name)) is None:
        raise DataError(f"--group {short(pattern)} matches nothing in {short(name)}: give one that fits all images")
    return match[0] if not match.groups() else match[1] or ""


def _by_lists(names: Sequence[str], config: ConvertConfig) -> dict[str, str]:
    files = list_files(inside(config.source, config.lists or ""), {".txt"}, recursive=False)[0]
    if not files:
        raise DataError(f"--lists {config.lists} holds no list: expected train.txt, val.txt, ..., with a name a line")
    known: dict[str, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        for form in {name, str(path.with_suffix("")), path.name, path.stem}:
            known[form].append(name)
    splits: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(read_text("list", file).splitlines(), start=1):
            if not (form := line.strip()):
                continue
            found = known.get(form) or [
                name
                for name in known.get(PurePosixPath(form).name, [])
                if f"/{name}".endswith(f"/{form}") or f"/{form}".endswith(f"/{name}")
            ]
            place = f"{file}, line {number}: {short(form)}"
            if len(found) != 1:
                what = f"may be {found[0]} or {found[1]}" if found else "is no image with a label"
                raise DataError(f"{place} {what}: write its path below the folder of the images")
            if found[0] in splits:
                raise DataError(f"{place} is named before, for {splits[found[0]]}: name each image once")
            splits[found[0]] = file.stem
    return splits
