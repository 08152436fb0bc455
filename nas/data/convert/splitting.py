"""Which images there are by name, which split each belongs to, and where in it each is written."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from nas.data.base import DataError
from nas.data.convert.config import ConvertConfig
from nas.data.readers.listing import list_files
from nas.data.readers.reading import read_text
from search_spaces.validation import short

__all__ = ["Names", "assign", "inside", "places"]

SHARE = 0.15
"""Of val and of test, if nothing else is said."""

_SPLITS = re.compile(r"(train|val|test)(?:ing|id|idation)?\d*", re.IGNORECASE)
"""Names of folders that are splits, such as valid and train2017."""


class Names:
    """Paths of images with slashes, found by the names that annotations and lists give them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_end: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for name in names:
            path = PurePosixPath(unicodedata.normalize("NFC", name))
            for end in {path.name, path.stem}:
                self._by_end[end].append((path.parent.parts, name))

    def find(self, name: str, place: str) -> str | None:
        """The path that ends most like this name, as its folder may be another where the labels were made.

        The name may be without an extension. None if there is no such file; a DataError, for `place`, if two fit.
        """
        path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
        alike: dict[tuple[int, bool], list[str]] = defaultdict(list)
        for folders, known in self._by_end.get(path.name, []):
            same = [own == other for own, other in zip(folders[::-1], path.parent.parts[::-1], strict=False)]
            alike[(*same, False).index(False), folders == path.parent.parts].append(known)
        best = alike[max(alike)] if alike else [None]
        if len(best) > 1:
            raise DataError(
                f"{place}: the image {short(name)} may be {best[0]} or {best[1]}: write its path, or name its folder "
                "by --images"
            )
        return best[0]


def inside(source: str, name: str) -> Path:
    """A folder that the user names, in SOURCE or anywhere; a DataError if there is none."""
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    found = next((path for path in (root / name, Path(name)) if path.is_dir()), None)
    if found is None:
        raise DataError(f"there is no folder {name}, in {source} or here")
    return found


def assign(names: Collection[str], config: ConvertConfig) -> tuple[dict[str, str], str]:
    """Assign paths of images to splits by lists, by names of folders, or by shares of groups.

    Returns:
        The split of each path, without those that no list names, and how they were split, in words.

    Raises:
        DataError: A list names an image twice, or one that there is not; or --group matches nothing in a name.
    """
    if config.lists is not None:
        return _by_lists(names, config.source, config.lists), f"as the lists in {config.lists} say"
    found = {name: list(filter(None, map(_SPLITS.fullmatch, PurePosixPath(name).parts[:-1]))) for name in names}
    by_shares = config.val, config.test, config.group, config.seed
    if all(found.values()) and by_shares == (None,) * 4:
        return {name: matches[-1][1].lower() for name, matches in found.items()}, "as the folders are named"
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        match = re.search(config.group or "(?s:.*)", name)
        if match is None:
            raise DataError(f"--group {short(config.group)} matches nothing in {short(name)}: it must fit all images")
        groups[match[0] if not match.groups() else match[1] or ""].append(name)
    # By a digest, as shuffling may differ between versions; most images stay in their splits when others are added.
    order = sorted(
        groups,
        key=lambda group: hashlib.sha256(f"{config.seed or 0}/{group}".encode(errors="surrogateescape")).digest(),
    )
    splits: dict[str, str] = {}
    for split, share in (("val", config.val), ("test", config.test)):
        wanted, taken = (SHARE if share is None else share) * len(names), list[str]()
        for group in order:  # in turn, whatever brings the split nearer to its size
            if abs(wanted - len(groups[group])) < abs(wanted) and len(order) - len(taken) > 1:
                wanted -= len(groups[group])
                taken.append(group)
        if share != 0 and not taken and len(order) > 1:
            taken = [min(order, key=lambda group: len(groups[group]))]
        splits.update((name, split) for group in taken for name in groups[group])
        order = [group for group in order if group not in taken]
    splits.update((name, "train") for group in order for name in groups[group])
    kept = f" of {len(groups)} groups" if config.group is not None else ""
    return splits, f"by shares{kept}, seed {config.seed or 0}"


def _by_lists(names: Collection[str], source: str, lists: str) -> dict[str, str]:
    files, known = list_files(inside(source, lists), {".txt"}, recursive=False)[0], Names(names)
    if not files:
        raise DataError(f"--lists {lists} holds no list: expected train.txt, val.txt, ..., with a name a line")
    splits: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(read_text("list", file).splitlines(), start=1):
            if not (name := line.strip()):
                continue
            place = f"{file}, line {number}"
            found = known.find(name, place)
            if found is None:
                raise DataError(f"{place}: {short(name)} is no image with a label: remove the line")
            if found in splits:
                raise DataError(f"{place}: {short(name)} is named before, for {splits[found]}: name each image once")
            splits[found] = file.stem
    return splits


def places(splits: Mapping[str, str]) -> dict[str, str]:
    """Where each image is written in its split: by its file's name if each is there once, else by its path."""
    stems = Counter((split, PurePosixPath(name).stem.casefold()) for name, split in splits.items())
    if set(stems.values()) <= {1}:
        return {name: PurePosixPath(name).name for name in splits}
    taken: dict[str, str] = {}
    for name in splits:
        other = taken.setdefault(str(PurePosixPath(name).with_suffix("")).casefold(), name)
        if other != name:
            raise DataError(f"{other} and {name} differ in case or extension only: rename one")
    return {name: name for name in splits}
