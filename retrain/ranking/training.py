"""The trainings of a ranking, one after the other, each in a run folder of its own:

    FOLDER/NAME/genotype.json, FOLDER/NAME/seed-0, FOLDER/NAME/seed-1, ...

Finished trainings are kept, stopped ones are resumed, missing ones are started. Genotypes are compared by content: more
operands, random genotypes or seeds add trainings to a folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nas.data.base import DataError
from nas.data.identity import data_identity
from nas.data.splits import open_split, steps_per_epoch
from nas.evaluation.cost import measure
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import claimed
from nas.runs.free_memory import is_out_of_memory
from nas.runs.names import CHECKPOINT, CONFIG, GENOTYPE, RunError
from nas.seeds import check_comparable
from nas.training.devices import choose_device, set_float32
from nas.training.interruption import InterruptedRun
from retrain.config import RANDOM, RankingConfig, RetrainConfig
from retrain.evaluation import evaluate
from retrain.load import KIND
from retrain.networks import build
from retrain.ranking.candidates import Candidate, find_candidates, identity, random_candidates, space_names
from retrain.ranking.result import Entry, Ranking, write
from retrain.training import train
from search_spaces.genotype import load_genotype
from search_spaces.validation import require

__all__ = ["rank"]

OWN = ("genotype", "seed", "out")
"""Settings in which the trainings differ."""


def rank(
    operands: Sequence[str | Path],
    config: RetrainConfig,
    ranking: RankingConfig | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    say: Callable[[str], object] = print,
) -> Ranking:
    """Trains genotypes alike, random ones included, and ranks them; writes ranking.json and ranking.md.

    Args:
        operands: Run folders of searches, folders of run folders, genotype files, names of published networks.
        config: Settings of all trainings; genotype, seed and out are filled in.
        ranking: Random genotypes, seeds, the split; None: the defaults.
        out: Folder of the trainings; None: runs/rank-DATA.
        quiet: Print nothing.
        say: Called with a line before and after each training.

    Raises:
        ValueError: Operands, settings or data cannot be used, the folder holds trainings with other settings, or
            every training failed; one line.
        InterruptedRun: Ctrl-C or SIGTERM came; the state was saved.
    """
    ranking = ranking or RankingConfig()
    candidates = _candidates([str(operand) for operand in operands], ranking)
    folder = Path(out or f"runs/rank-{config.data}")
    size, data = _check(config, ranking)
    _check_folder(folder, config, data)
    classes = len(data["classes"])
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
    with claimed(folder):
        homes = [_home(folder, candidate) for candidate in candidates]
        mious: dict[tuple[int, int], float | None] = {}
        failures: list[dict[int, str]] = [{} for _ in candidates]
        total = len(candidates) * len(ranking.seeds)
        for seed in ranking.seeds:  # the outer loop: all networks compare after the first seed
            for place, (candidate, home) in enumerate(zip(candidates, homes, strict=True)):
                source = candidate.name if candidate.genotype is None else str(home / GENOTYPE)
                run = home / f"seed-{seed}"
                own = dataclasses.replace(config, genotype=source, seed=seed, out=str(run))
                where = f"{len(mious) + 1} of {total}: {candidate.name}, seed {seed}"
                found = _miou(own, ranking.split, data["splits"][ranking.split], where, say)
                if isinstance(found, str):
                    failures[place][seed] = found
                mious[place, seed] = None if isinstance(found, str) else found
        entries = []
        for place, (candidate, cost) in enumerate(zip(candidates, costs, strict=True)):
            reached = tuple(mious[place, seed] for seed in ranking.seeds)
            entries.append(
                Entry(candidate, cost.parameters, cost.multiply_adds, homes[place], reached, failures[place])
            )
        result = Ranking.of(config, ranking, folder, size, entries)
        if all(miou is None for miou in mious.values()):
            raise ValueError(f"every training failed, the first with: {result.failures[0][2]}")
        write(result)
    return result


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


def _check(config: RetrainConfig, ranking: RankingConfig) -> tuple[tuple[int, int], dict[str, Any]]:
    """Checks settings and data; returns H and W of a validation image, and the identity of the data."""
    set_float32(choose_device(config.device), config.precision)
    learned = open_split(config, config.loader.train_split, config.loader.train_limit)
    steps_per_epoch(len(learned), config.images_per_update)
    measured, dataset = open_split(config, ranking.split), open_split(config, config.loader.val_split)
    height, width = dataset.read(0)[1].shape
    return (int(height), int(width)), data_identity(config.data_root, learned, dataset, measured)


def _check_folder(folder: Path, config: RetrainConfig, data: Mapping[str, Any]) -> None:
    """Refuses (ValueError) a folder of something else, or of trainings with other settings or on other data."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose another --out")
    if (folder / CONFIG).exists() or any(folder.glob(f"*/{CONFIG}")):
        raise RunError(f"{folder} holds runs that are not a ranking's: choose another --out")
    for file in sorted(folder.glob(f"*/seed-*/{CONFIG}")):
        check_comparable(file.parent, config, data, KIND, OWN)


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
    while home.exists():
        number += 1
        home = folder / f"{name}-{number}"
    candidate.genotype.save(home / GENOTYPE)
    return home


def _miou(
    config: RetrainConfig, split: str, samples: Mapping[str, Any], where: str, say: Callable[[str], object]
) -> float | str:
    """Trains and measures unless that is done; returns the mIoU after the last epoch, or why the training failed.

    DataError and OSError are raised: they would end the other trainings, too.
    """
    run = Path(str(config.out))
    known = _measured(run, split, samples, config.epochs)
    if known is not None:
        say(f"{where}: {split} mIoU {100 * known:.2f} %, measured already")
        return known
    say(f"{where}; {run}/log.txt has the epochs")
    try:
        if not _is_trained(run, config.epochs):
            train(config, run if (run / CONFIG).exists() else None, quiet=True)
        changed = config.data_changed
        miou = evaluate(run, split, "last", config.data_root, config.device, data_changed=changed).miou
    except KeyboardInterrupt:
        raise InterruptedRun(f"stopped in {run}; the same command resumes it") from None
    except DataError:
        raise
    except (ArithmeticError, ValueError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise  # a bug
        reason = " ".join(str(error).split()) or type(error).__name__
        say(f"   failed: {reason}")
        return reason
    if not 0 <= miou <= 1:
        return f"no pixel of the split {split} is labelled"
    say(f"   {split} mIoU {100 * miou:.2f} %")
    return miou


def _is_trained(run: Path, epochs: int) -> bool:
    return (run / CHECKPOINT).exists() and load_checkpoint(run / CHECKPOINT, KIND)["state"]["epoch"] >= epochs


def _measured(run: Path, split: str, samples: Mapping[str, Any], epochs: int) -> float | None:
    """mIoU of a run's last epoch on a split, from the file that `nas-evaluate` writes; None if that is not there.

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
    return miou if 0 <= miou <= 1 else None
