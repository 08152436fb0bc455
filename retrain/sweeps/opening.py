"""A study that is there already, opened to be looked at."""

from __future__ import annotations

from json import JSONDecodeError
from pathlib import Path

import optuna

from nas.config import from_plain, require
from retrain.sweeps.settings import SWEEP_FILE, load_sweep
from retrain.sweeps.space import Space
from retrain.sweeps.storage import open_storage
from retrain.sweeps.study import Study

__all__ = ["open_study"]

KEPT = {"journal.log": "journal", "study.db": "sqlite"}
"""Where a study is, if it is in its own folder: file -> --storage."""


def open_study(folder: str | Path, storage: str | None = None, name: str | None = None) -> Study:
    """Opens the study of a folder that nas-sweep made.

    Args:
        folder: The study's.
        storage: Where it is kept, as nas-sweep had it; None: in the folder.
        name: The study's in the storage; None: the only one there, or the folder's.

    Raises:
        ValueError: It is no study's folder, the storage is elsewhere, broken or out of reach, or it has no such study;
            one line.
    """
    folder = Path(folder)
    require((folder / SWEEP_FILE).is_file(), f"{folder} is not the folder of a study: it has no {SWEEP_FILE}")
    sweep = load_sweep(folder / SWEEP_FILE)
    space = Space.of(sweep, from_plain(sweep.config_class, sweep.settings))
    where = storage
    if storage is None:
        here = [file for file in KEPT if (folder / file).is_file()]
        message = f"{folder} has no {' and no '.join(KEPT)}: the study is elsewhere; give --storage as nas-sweep had it"
        require(bool(here), message)
        where, storage = str(folder / here[-1]), KEPT[here[-1]]
    try:
        opened = open_storage(storage, folder)
        names = optuna.get_all_study_names(opened)
    except Exception as error:  # of Optuna, of a driver: a broken journal is whatever its first wrong line leads to
        if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where} cannot be read as a study's storage ({reason}): take a whole copy") from error
    name = name or (names[0] if len(names) == 1 else folder.resolve().name)
    require(name in names, f"the storage has no study {name!r}: give --storage and --study as nas-sweep had them")
    return Study(name, space, sweep.study, opened, folder)
