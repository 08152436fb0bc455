"""Which data a run is of: classes, colours, and the names of the samples of each split.

An identity is in plain containers, for checkpoints, genotypes and studies: `data`, `root`, `classes`, `colors`, and
`splits`, which has the number of samples and the SHA-256 of their names, in order, of each split. The root says where
the data was; it is not compared.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from nas.config import RunConfig
from nas.data.base import DataError, SegmentationDataset, Wrapper
from search_spaces.validation import counted, short

__all__ = [
    "changed_parts",
    "check_same_data",
    "data_digest",
    "data_identity",
    "data_provenance",
    "recorded_data",
    "told",
]

Identity = Mapping[str, Any]

MOST_SHOWN = 200
"""Characters of a list of classes in a message."""
DIGITS = 8
"""Digits of a digest in a message."""


def data_identity(root: str | None, *splits: SegmentationDataset) -> dict[str, Any]:
    """The identity of the data of a run, without reading a sample.

    Args:
        root: Folder of the data set, absolute, if it has one.
        splits: All samples of each count, also where it is a part of a split, such as the first hundred.
    """
    whole = []
    for dataset in splits:
        while isinstance(dataset, Wrapper):
            dataset = dataset.dataset
        whole.append(dataset)
    first = whole[0]
    return {
        "data": first.name,
        "root": root,
        "classes": list(first.classes),
        "colors": first.colors.tolist(),
        "splits": {dataset.split: _samples(dataset) for dataset in whole},
    }


def _samples(dataset: SegmentationDataset) -> dict[str, Any]:
    # In one normal form: file systems store the same name differently.
    names = [unicodedata.normalize("NFC", dataset.sample_name(index)) for index in range(len(dataset))]
    return {"samples": len(names), "sha256": hashlib.sha256(json.dumps(names).encode()).hexdigest()}


def data_provenance(config: RunConfig, identity: Identity) -> dict[str, Any]:
    """What a genotype records of the data of its search: enough to take the same data for a training."""
    known = {"data": config.data, "classes": len(identity["classes"])}
    return {**known, "data_settings": config.data_settings(), "data_identity": dict(identity)}


def data_digest(identity: Identity) -> str:
    """SHA-256 of what is compared, as a hexadecimal number."""
    compared = {name: value for name, value in identity.items() if name != "root"}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


def recorded_data(saved: Mapping[str, Any]) -> Any:
    """The identity in a checkpoint; from before there was one, the classes that a retraining's has."""
    return saved.get("data", {name: saved[name] for name in ("classes", "colors") if name in saved})


def changed_parts(before: Identity, now: Identity) -> list[str]:
    """The parts in which two identities differ: classes, colors, names of splits. What one lacks is not compared.

    Raises:
        DataError: One is damaged.
    """
    for one in (before, now):
        if not _is_sound(one):
            raise DataError(f"what is recorded of the data, {short(one)}, is damaged: take a whole copy of the file")
    old, new = ({**one, **one.get("splits", {})} for one in (before, now))
    return [part for part in old if part in new and part not in ("data", "root", "splits") and old[part] != new[part]]


def _is_sound(identity: object) -> bool:
    """Whether an identity from a file has the form of one."""
    if not isinstance(identity, Mapping):
        return False
    splits = identity.get("splits", {})
    return (
        all(isinstance(identity.get(name, []), list) for name in ("classes", "colors"))
        and isinstance(splits, Mapping)
        and not {"data", "root", "classes", "colors", "splits"} & set(splits)
        and all(isinstance(one, Mapping) and isinstance(one.get("samples"), int) for one in splits.values())
    )


def check_same_data(before: Identity, now: Identity, whose: object, accept: bool = False) -> str | None:
    """Compares the data that a run was begun on with the data at hand.

    Args:
        before: The recorded identity.
        now: The identity of the data at hand.
        whose: The run, for messages.
        accept: Whether other samples and other colours are accepted (`data_changed`); other classes never are.

    Returns:
        None if it is the same data; a line that names both where a change is accepted.

    Raises:
        DataError: It is other data, and that is not accepted; the message names both.
    """
    changed = changed_parts(before, now)
    if not changed:
        return None
    both = told(before, now, changed, str(whose))
    if "classes" in changed:
        raise DataError(f"the classes changed: {both}: give the data that it is of (--data-root), or start a new run")
    if not accept:
        raise DataError(
            f"the data changed: {both}: give the data that it is of (--data-root), or accept the change with "
            "--data-changed accept"
        )
    return f"the data changed, which is accepted (data_changed): {both}"


def told(before: Identity, now: Identity, parts: Sequence[str], whose: str) -> str:
    """Two identities in words, with the parts in which they differ."""
    return f"{whose} is of {_side(before, now, parts)}, but this is {_side(now, before, parts)}"


def _side(identity: Identity, other: Identity, parts: Sequence[str]) -> str:
    words = []
    for part in parts:
        if part in ("classes", "colors"):
            words.append(_listed(part, identity[part], other[part]))
        else:
            split = identity["splits"][part]
            words.append(f"{counted(split['samples'], 'sample')} in {part} (names {str(split.get('sha256'))[:DIGITS]})")
    root = identity.get("root")
    return f"{identity.get('data', 'data')}{f' at {root}' if root else ''} with {' and '.join(words)}"


def _listed(part: str, own: Sequence[Any], others: Sequence[Any]) -> str:
    """A list of classes or colours; a long one from the first entry on that differs."""
    pairs = zip(own, others, strict=False)
    first = next((place for place, (mine, other) in enumerate(pairs) if mine != other), min(len(own), len(others)))
    texts = list(map(str, own))
    whole = len(", ".join(texts)) <= MOST_SHOWN
    text = ", ".join(texts if whole else texts[first:])
    text = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
    what = "colours" if part == "colors" else part
    return f"the {len(own)} {what} {text}" if whole else f"{len(own)} {what}, from number {first} on {text}"
