"""Which data a run is of: classes, colours, and the names of the samples of each split.

An identity is in plain containers, for checkpoints, genotypes and studies: `data`, `root`, `classes`, `colors`, and
`splits` (the number of samples of each, and the SHA-256 of their names in order). The root, where the data was, is not
compared.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas.config import RunConfig
from nas.data.base import DataError, SegmentationDataset, Wrapper
from search_spaces.validation import counted, fits, short

__all__ = ["changed_parts", "check_same_data", "data_identity", "data_provenance", "recorded_data", "told"]

Identity = Mapping[str, Any]

MOST_SHOWN = 200
"""Characters of a list of classes in a message."""


def data_identity(root: str | None, *splits: SegmentationDataset) -> dict[str, Any]:
    """The identity of data, from its absolute root and its splits; no sample is read.

    All samples of a split count, also where only a part of it is used.
    """
    identity: dict[str, Any] = {"root": root, "splits": {}}
    for dataset in splits:
        while isinstance(dataset, Wrapper):
            dataset = dataset.dataset
        # In one normal form: file systems store the same name differently.
        names = [unicodedata.normalize("NFC", dataset.sample_name(index)) for index in range(len(dataset))]
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        identity["splits"][dataset.split] = {"samples": len(names), "sha256": digest}
        identity |= {"data": dataset.name, "classes": list(dataset.classes), "colors": dataset.colors.tolist()}
    return identity


def data_provenance(config: RunConfig, identity: Identity) -> dict[str, Any]:
    """What a genotype records of the data of its search: enough to take the same data for a training."""
    known = {"data": config.data, "classes": len(identity["classes"])}
    return {**known, "data_settings": config.data_settings(), "data_identity": dict(identity)}


def recorded_data(saved: Mapping[str, Any]) -> Any:
    """The identity in a checkpoint; in one of an older release, the classes that a retraining has."""
    return saved.get("data", {name: saved[name] for name in ("classes", "colors") if name in saved})


def changed_parts(before: Identity, now: Identity) -> list[str]:
    """The parts in which two identities differ: classes, colors, names of splits. What one lacks is not compared.

    Raises:
        DataError: `before`, which comes from a file, is damaged.
    """
    splits = before.get("splits", {}) if isinstance(before, Mapping) else None
    if not (
        isinstance(splits, Mapping)
        and all(isinstance(before.get(name, []), list) for name in ("classes", "colors"))
        and all(isinstance(one, Mapping) and fits(one.get("samples"), int) for one in splits.values())
    ):
        raise DataError(f"what is recorded of the data is damaged, {short(before)}: take a whole copy of the file")
    parts = [name for name in ("classes", "colors") if name in before and before[name] != now.get(name, before[name])]
    return parts + [name for name, one in now.get("splits", {}).items() if splits.get(name, one) != one]


def check_same_data(
    before: Identity, now: Identity, whose: object, accept: bool = False, say: Callable[[str], object] = warnings.warn
) -> bool:
    """Compares the data that a run was begun on with the data at hand.

    Args:
        before: The recorded identity.
        now: The identity of the data at hand.
        whose: The run, for messages.
        accept: Whether other samples and other colours are accepted (`data_changed`); other classes never are.
        say: Called with a line where a change is accepted.

    Returns:
        Whether the data changed.

    Raises:
        DataError: It did, and that is not accepted; the message names both.
    """
    changed = changed_parts(before, now)
    if not changed:
        return False
    remedy = "give the data that it is of (--data-root), or " + (
        "start a new run" if "classes" in changed else "accept the change by --data-changed accept"
    )
    if "classes" in changed or not accept:
        raise DataError(f"{told(before, now, changed, whose)}: {remedy}")
    say(f"{told(before, now, changed, whose)}: accepted, as data_changed says")
    return True


def told(before: Identity, now: Identity, parts: Sequence[str], whose: object) -> str:
    """Two identities in words, with the parts in which they differ."""
    sides = []
    for own, other in ((before, now), (now, before)):
        words = []
        for part in parts:
            if part in ("classes", "colors"):
                words.append(f"{part} {_listed(own[part], other[part])}")
            else:
                one = own["splits"][part]
                words.append(f"{counted(one['samples'], 'sample')} in {part} (names {str(one.get('sha256'))[:8]})")
        root = own.get("root")
        sides.append(f"{own.get('data', 'data')}{f' at {root}' if root else ''} with {' and '.join(words)}")
    return f"the data changed: {whose} is of {sides[0]}, but this is {sides[1]}"


def _listed(own: Sequence[Any], other: Sequence[Any]) -> str:
    """A list in words; if it is long, from the first entry on that differs."""
    first = next((place for place, pair in enumerate(zip(own, other, strict=False)) if pair[0] != pair[1]), len(other))
    whole = ", ".join(map(str, own))
    if len(whole) <= MOST_SHOWN:
        return whole
    return f"(the first {first} alike) {', '.join(map(str, own[first:]))[:MOST_SHOWN]}..."
