"""Searches that differ only in their seed, one after the other, in FOLDER/seed-0, FOLDER/seed-1, ...

The same call continues: complete searches are left alone, stopped ones are resumed, missing ones are started.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.config import RunConfig, SearchConfig, check_seeds
from nas.darts import KIND, search
from nas.data.identity import check_same_data, recorded_data
from nas.data.splits import identity_of
from nas.diagnostics.health import reason_to_stop
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import CHANGEABLE, read_metrics, refuse_links
from nas.runs.names import BEST, CHECKPOINT, CONFIG, GENOTYPE, SPACE, RunError, read_config
from nas.training.distributed import process_group
from nas.training.interruption import InterruptedRun
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.space import load
from search_spaces.validation import as_path, differences, from_plain, raised_as, require, to_plain

__all__ = ["SeedResult", "check_comparable", "is_complete", "search_seeds", "supernet_miou"]

FREE = {name for name in CHANGEABLE if name != "epochs" and not name.startswith("health.")}
"""Settings that may differ between runs that are compared: they say where and how, not what."""
STATES = {"missing": "a new search", "begun": "resumes from its last checkpoint", "complete": "complete already"}


@dataclass(frozen=True)
class SeedResult:
    """The result of the search with one of the seeds."""

    seed: int
    folder: Path
    """Its run folder."""
    genotype: Genotype | None
    """The genotype that it found; None: its loss was not a number."""
    failure: str | None = None
    """Why it found none."""

    @property
    def val_miou(self) -> float | None:
        """mIoU of the supernet on the validation split after the last epoch, 0 to 1."""
        return supernet_miou(self.genotype) if self.genotype is not None else None


def search_seeds(
    config: SearchConfig,
    seeds: Sequence[int],
    folder: str | Path,
    quiet: bool = False,
    say: Callable[[str], object] = print,
) -> list[SeedResult]:
    """Searches once with each seed; continues from what is in the folder.

    Args:
        config: All settings; `seed` and `out` are filled in.
        seeds: The seeds, each once.
        folder: Parent of the run folders seed-0, seed-1, ...
        quiet: Print nothing.
        say: Called with a line before each search.

    Raises:
        ValueError: Settings or data cannot be used, or the folder holds runs with other settings.
        InterruptedRun: Ctrl-C or SIGTERM arrived; the state was saved.
    """
    seeds, folder = check_seeds(seeds), as_path(folder)
    # All are checked before the first one starts, so that a refusal comes at once and all processes agree.
    with process_group(config.device) as processes:
        states = processes.agreed(lambda: _states(config, seeds, folder))
        first, alone = processes.first, not processes.several
    results = []
    for number, (seed, state) in enumerate(zip(seeds, states, strict=True), 1):
        run = folder / f"seed-{seed}"
        if not quiet and first:
            say(f"seed {seed}, {number} of {len(seeds)}: {STATES[state]}")
        if state == "complete":
            results.append(SeedResult(seed, run, load_genotype(run / GENOTYPE)))
            continue
        own = dataclasses.replace(config, seed=seed, out=str(run))
        try:
            found = search(own, run if state == "begun" else None, quiet)
        except KeyboardInterrupt:
            raise InterruptedRun(f"stopped in {run}; the same command continues") from None
        except ArithmeticError as error:
            if not alone:  # the other processes may not have seen it
                raise
            results.append(SeedResult(seed, run, None, str(error)))
            continue
        results.append(SeedResult(seed, run, found.genotype))
    return results


def _states(config: SearchConfig, seeds: Sequence[int], folder: Path) -> list[str]:
    """The state of each search, one of `STATES`."""
    data = identity_of(config)
    require(not folder.exists() or folder.is_dir(), f"{folder} is a file: choose another --out")
    require(not (folder / CONFIG).exists(), f"{folder} is the folder of a run: choose another --out for those of seeds")

    def state(seed: int) -> str:
        run = folder / f"seed-{seed}"
        refuse_links([run])
        if not (run / CONFIG).exists():
            return "missing"
        check_comparable(run, dataclasses.replace(config, seed=seed), data, KIND)
        return "complete" if is_complete(run, config) else "begun"

    return list(map(state, seeds))


def check_comparable(
    folder: Path, config: RunConfig, data: Mapping[str, Any], kind: str, but: Sequence[str] = ()
) -> None:
    """Refuses a run that was begun with other settings, except for `FREE` ones, or on other data.

    Args:
        folder: The run folder.
        config: The settings to compare with, of the run's own class.
        data: The identity of their data.
        kind: search or retrain.
        but: Further names of settings that may differ.

    Raises:
        RunError: It has other settings, or they cannot be read.
        DataError: Its data is not the same, and `config` does not accept that.
    """
    values = read_config(folder)
    with raised_as(RunError, f"{folder / CONFIG}: "):
        begun = from_plain(type(config), values)
    changed = [name for name in differences(to_plain(begun), to_plain(config)) if name not in {*FREE, *but}]
    if isinstance(begun, SearchConfig) and isinstance(config, SearchConfig):  # compare contents, not file names
        own = folder / SPACE
        if load(str(own) if own.exists() else begun.space) != load(config.space):
            changed.append("space")
    if changed:
        remedy = "give the same settings to resume it, or choose another --out"
        raise RunError(f"{folder} was begun with another {', '.join(changed)}: {remedy}")
    check_same_data(_data_of(folder, kind), data, folder, config.data_changed == "accept")


def _data_of(folder: Path, kind: str) -> Mapping[str, Any]:
    """The identity of a run's data, as far as it is known where a user removed its checkpoints."""
    for name in (CHECKPOINT, BEST):
        if (folder / name).exists():
            return recorded_data(load_checkpoint(folder / name, kind))
    if kind == KIND and (folder / GENOTYPE).exists():
        return load_genotype(folder / GENOTYPE).provenance.get("data_identity", {})
    return {}


def is_complete(folder: Path, config: SearchConfig) -> bool:
    """Whether a search has all its epochs, or was ended by `config.health`."""
    if not (folder / CHECKPOINT).exists():  # never written, or removed by the user when the search was done
        lines = read_metrics(folder)
        return bool(lines) and int(lines[-1]["epoch"]) + 1 >= config.epochs
    state = load_checkpoint(folder / CHECKPOINT, KIND)["state"]
    return state["epoch"] >= config.epochs or reason_to_stop(config.health, state["memory"]) is not None


def supernet_miou(genotype: Genotype) -> float | None:
    """mIoU of the supernet that a genotype was decoded from, 0 to 1; None if its provenance has none."""
    value = genotype.provenance.get("supernet_val_miou")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1 else None  # NaN is neither
