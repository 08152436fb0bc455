"""The trainings of a ranking, by any number of workers, each in a run folder of its own:

    FOLDER/NAME/genotype.json, FOLDER/NAME/seed-0, FOLDER/NAME/seed-1, ...

Finished trainings are kept, stopped ones are resumed, missing ones are started. Genotypes are compared by content: more
operands, random genotypes or seeds add trainings to a folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nas.data.identity import data_identity
from nas.data.splits import open_split, steps_per_epoch
from nas.evaluation.cost import measure
from nas.evaluation.metrics import is_collapse
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import claimed, pinned, refuse_links
from nas.runs.names import CHECKPOINT, CONFIG, GENOTYPE, BusyError, RunError
from nas.seeds import FREE, check_comparable
from nas.training.devices import choose_device, set_float32
from nas.training.interruption import InterruptedRun
from retrain.config import RANDOM, RankingConfig, RetrainConfig
from retrain.evaluation import evaluate
from retrain.load import KIND
from retrain.networks import build
from retrain.ranking.candidates import Candidate, find_candidates, identity, random_candidates, space_names
from retrain.ranking.result import RECORD, Entry, Ranking, write
from retrain.sweeps.storage import open_storage, study_name
from retrain.sweeps.study import leaves
from retrain.sweeps.workers import Jobs, wait_until_free
from retrain.training import train
from search_spaces.genotype import load_genotype
from search_spaces.validation import as_path, require, to_plain

__all__ = ["OWN", "check_data", "rank"]

OWN = ("genotype", "seed", "out")
"""Settings in which the trainings differ."""


def rank(
    operands: Sequence[str | Path],
    config: RetrainConfig,
    ranking: RankingConfig | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    say: Callable[[str], object] = print,
    storage: str | None = None,
    study: str | None = None,
) -> Ranking:
    """Trains genotypes alike, random ones included, and ranks them; writes ranking.json and ranking.md.

    Args:
        operands: Run folders of searches, folders of run folders, genotype files, names of published networks.
        config: Settings of all trainings; genotype, seed and out are filled in.
        ranking: Random genotypes, seeds, the split; None: the defaults.
        out: Folder of the trainings; None: runs/rank-DATA.
        quiet: Print nothing.
        say: Called with a line before and after each training.
        storage: Where workers, each a call of this function in its own process, keep their results (see
            `open_storage`); None: in the folder.
        study: Name in the storage; None: that of the folder.

    Raises:
        ValueError: Operands, settings or data cannot be used, the folder holds trainings with other settings, or
            every training failed; one line.
        InterruptedRun: Ctrl-C or SIGTERM came; the state was saved.
    """
    ranking = ranking or RankingConfig()
    candidates = _candidates([str(operand) for operand in operands], ranking)
    folder = as_path(out or f"runs/rank-{config.data}")
    size, data = check_data(config, ranking.split)
    _check_folder(folder, config, data)
    classes, samples = len(data["classes"]), data["splits"][ranking.split]
    costs = []
    for candidate in candidates:
        with torch.device("meta"):  # shapes only; settings that a network does not read are refused here
            network = build(candidate.genotype or candidate.name, classes, config.network)
        costs.append(measure(network, size))
    say = (lambda line: None) if quiet else say
    say(
        f"{len(candidates)} networks, each trained with the seeds {', '.join(map(str, ranking.seeds))}; all files go "
        f"to {folder}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    homes = _homes(folder, candidates)
    check = pinned(folder)
    keys = [candidate.genotype.digest if candidate.genotype else candidate.name for candidate in candidates]
    # The outer loop is that over seeds: all networks compare after the first one.
    measured = f"{ranking.split}-{samples['sha256'][:12]}"
    trainings = {f"{keys[n]}/seed-{s}/{measured}": (n, s) for s in ranking.seeds for n in range(len(candidates))}

    def where(job: str) -> str:
        place, seed = trainings[job]
        return f"{list(trainings).index(job) + 1} of {len(trainings)}: {candidates[place].name}, seed {seed}"

    def do(job: str, alive: Callable[[], None]) -> dict[str, Any]:
        check()
        place, seed = trainings[job]
        run, genotype = homes[place] / f"seed-{seed}", candidates[place].genotype
        wait_until_free(run, alive)
        source = candidates[place].name if genotype is None else str(homes[place] / GENOTYPE)
        own = dataclasses.replace(config, genotype=source, seed=seed, out=str(run))
        return _measure(own, ranking.split, samples, where(job), say, alive)

    settings = {name: value for name, value in leaves(to_plain(config)) if name not in {*FREE, *OWN}}
    settings |= {"classes": data["classes"]}
    name = study_name(study, storage, folder)
    jobs = Jobs(open_storage(storage, folder), name, settings, list(trainings), do, say, failures=math.inf)
    for job, result in jobs.results().items():
        if job in trainings:
            say(f"{where(job)}: {ranking.split} mIoU {100 * result['miou']:.2f} %, measured already")
    jobs.run_trials()
    results, reasons = jobs.results(), jobs.reasons()
    entries = []
    for place, (candidate, cost) in enumerate(zip(candidates, costs, strict=True)):
        own = {seed: job for job, (number, seed) in trainings.items() if number == place}
        reached = tuple(results[job]["miou"] if job in results else None for job in own.values())
        failures = {seed: reasons[job] for seed, job in own.items() if job not in results}
        collapsed = tuple(seed for seed, job in own.items() if results.get(job, {}).get("collapsed"))
        counts = cost.parameters, cost.multiply_adds
        entries.append(Entry(candidate, *counts, homes[place], reached, failures, collapsed))
    found = Ranking.of(config, ranking, folder, size, entries)
    if all(miou is None for entry in entries for miou in entry.mious):
        raise ValueError(f"every training failed, the first with: {found.failures[0][2]}")
    check()
    write(found)
    return found


def _candidates(operands: Sequence[str], ranking: RankingConfig) -> list[Candidate]:
    require(len(operands) > 0, "there is nothing to rank: name a run folder of nas-search")
    candidates = find_candidates(operands)
    has_space = bool(space_names(candidates))
    count = (RANDOM if has_space else 0) if ranking.random is None else ranking.random
    require(
        has_space or count == 0,
        f"--random is {count}, but a published network has no search space to draw from: leave it out, or name a "
        "search or a genotype.json file, too",
    )
    candidates += random_candidates(candidates, count)
    require(
        len(candidates) > 1,
        f"there is nothing to rank: {candidates[0].name} is one network; name another one"
        + (", or give --random 1 or more" if has_space else ""),
    )
    return candidates


def check_data(config: RetrainConfig, split: str) -> tuple[tuple[int, int], dict[str, Any]]:
    """Checks settings and data, before networks are trained on it and measured on a split.

    Returns:
        H and W of a validation image, and the identity of the data.

    Raises:
        ValueError: They cannot be used.
    """
    set_float32(choose_device(config.device), config.precision)
    learned = open_split(config, config.loader.train_split, config.loader.train_limit)
    steps_per_epoch(len(learned), config.images_per_update)
    measured, dataset = open_split(config, split), open_split(config, config.loader.val_split)
    height, width = dataset.read(0)[1].shape
    return (int(height), int(width)), data_identity(config.data_root, learned, dataset, measured)


def _check_folder(folder: Path, config: RetrainConfig, data: Mapping[str, Any]) -> None:
    """Refuses (ValueError) a folder of something else, or of trainings with other settings or on other data."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose another --out")
    if (folder / CONFIG).exists() or any(folder.glob(f"*/{CONFIG}")):
        raise RunError(f"{folder} holds runs that are not a ranking's: choose another --out")
    refuse_links([*folder.glob("*/"), *folder.glob("*/seed-*")])
    begun = sorted(folder.glob(f"*/seed-*/{CONFIG}"))
    if not begun and (folder / RECORD).exists():
        raise RunError(f"{folder / RECORD} was not written by a ranking there: choose another --out")
    for file in begun:
        check_comparable(file.parent, config, data, KIND, OWN)


def _homes(folder: Path, candidates: Sequence[Candidate]) -> list[Path]:
    """The folder of each candidate's trainings; workers that begin at the same time wait for each other."""
    while True:
        try:
            with claimed(folder):
                return [_home(folder, candidate) for candidate in candidates]
        except BusyError:
            time.sleep(0.1)


def _home(folder: Path, candidate: Candidate) -> Path:
    """The folder of a candidate's trainings: the one with its genotype, else a new one."""
    if candidate.genotype is None:
        home = folder / f"published-{candidate.name}"
        if (home / GENOTYPE).exists():
            raise RunError(f"{home} is of a genotype, not of the published network: choose another --out")
        return home
    for file in sorted(folder.glob(f"*/{GENOTYPE}")):
        if identity(load_genotype(file)) == identity(candidate.genotype):
            return file.parent
    name, number = re.sub(r"[^A-Za-z0-9._-]+", "-", candidate.name)[:60].strip("-.") or "genotype", 1
    home = folder / name
    while (home / GENOTYPE).exists() or any(home.glob("[!.]*")):  # not one that a killed command left empty
        number += 1
        home = folder / f"{name}-{number}"
    candidate.genotype.save(home / GENOTYPE)
    return home


def _measure(
    config: RetrainConfig,
    split: str,
    samples: Mapping[str, Any],
    where: str,
    say: Callable[[str], object],
    alive: Callable[[], None],
) -> dict[str, Any]:
    """Trains and measures unless that is done; returns mIoU after the last epoch, and whether it is a collapse."""
    run = Path(str(config.out))
    known = _measured(run, split, samples, config.epochs)
    if known is not None:
        say(f"{where}: {split} mIoU {100 * known['miou']:.2f} %, measured already")
        return known
    say(f"{where}; {run}/log.txt has the epochs")
    try:
        if not _is_trained(run, config.epochs):
            train(config, run if (run / CONFIG).exists() else None, quiet=True, each_epoch=lambda *_: alive())
        changed = config.data_changed
        found = evaluate(run, split, "last", config.data_root, config.device, data_changed=changed)
    except KeyboardInterrupt:
        raise InterruptedRun(f"stopped in {run}; the same command resumes it") from None
    require(0 <= found.miou <= 1, f"no pixel of the split {split} is labelled")
    collapsed = is_collapse({"miou": found.miou, "pixel_accuracy": found.pixel_accuracy})
    say(f"   {split} mIoU {100 * found.miou:.2f} %{', a collapse to one class' * collapsed}")
    return {"miou": found.miou, "collapsed": collapsed}


def _is_trained(run: Path, epochs: int) -> bool:
    return (run / CHECKPOINT).exists() and load_checkpoint(run / CHECKPOINT, KIND)["state"]["epoch"] >= epochs


def _measured(run: Path, split: str, samples: Mapping[str, Any], epochs: int) -> dict[str, Any] | None:
    """The same, from the file that `nas-evaluate` writes after a run's last epoch; None if that is not there.

    It must be of the `samples` of the split's identity; a file of an older release does not have them.
    """
    try:
        data = json.loads((run / f"evaluation-{split}-last.json").read_text(encoding="utf-8"))
        if data["epoch"] != epochs or data.get("names_sha256", samples["sha256"]) != samples["sha256"]:
            return None
        checkpoint = run / CHECKPOINT  # may have been removed after the evaluation
        if checkpoint.exists() and hashlib.sha256(checkpoint.read_bytes()).hexdigest() != data["checkpoint_sha256"]:
            return None
        miou = float(data["miou"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"miou": miou, "collapsed": is_collapse(data)} if 0 <= miou <= 1 else None
