"""Making a table: the trainings of the networks of a space, by any number of workers.

FOLDER/table.json             what the table is of
FOLDER/journal.log            the results, unless --storage names another place
FOLDER/0017/genotype.json     a network of the space, by its place in `all_genotypes`
FOLDER/0017/seed-0            the run folder of a training; without weights when it is done
FOLDER/latency.json           the latency of the networks, of `measure_latency`
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import torch
import yaml

from nas.evaluation.cost import measure, median_seconds, timed_on
from nas.runs.folder import read_lines, read_metrics
from nas.runs.names import BEST, CHECKPOINT, CONFIG, GENOTYPE, RunError
from nas.seeds import FREE
from nas.training.devices import choose_device, random_state, restore_random_state, set_float32
from retrain.config import RetrainConfig, TableConfig
from retrain.evaluation import evaluate
from retrain.networks import build
from retrain.ranking.training import OWN, check_data
from retrain.sweeps.storage import open_storage, study_name
from retrain.sweeps.study import leaves
from retrain.sweeps.workers import Jobs, wait_until_free
from retrain.table.reading import Network, Run, write_table
from retrain.training import train
from search_spaces.files import open_own, parse_json, write_atomically
from search_spaces.genotype import package_version
from search_spaces.graph import all_genotypes
from search_spaces.space import SearchSpace
from search_spaces.validation import counted, from_plain, raised_as, require, to_plain

__all__ = ["Making", "measure_latency", "open_making", "pack", "trainings_of"]

TABLE, LATENCY, EPOCHS = "table.json", "latency.json", "table.jsonl"
"""Files of the folder, and of a run folder: what was measured after each epoch."""


def trainings_of(table: TableConfig, networks: int) -> list[tuple[int, int]]:
    """Number of the network, of so many, and seed of each training, in the order in which they are begun.

    The order of the networks is random but fixed: what is stopped halfway is a random sample.
    """
    order = np.random.default_rng(0).permutation(networks).tolist()
    chosen = order[: max(1, round(table.share * networks))]
    again = chosen[: round(table.again * len(chosen))]
    return [(n, table.seeds[0]) for n in chosen] + [(n, seed) for seed in table.seeds[1:] for n in again]


@dataclasses.dataclass
class Making:
    """The trainings of a table and one worker's part in them.

    Raises:
        ValueError: The space is too large, or folder or storage hold something else.
    """

    table: TableConfig
    base: RetrainConfig
    """Settings of all trainings; genotype, seed and out are filled in."""
    space: SearchSpace
    folder: Path
    storage: str | None = None
    """Where the results are kept; see `open_storage`."""
    study: str | None = None
    """Name in the storage; see `study_name`."""
    say: Callable[[str], object] = print

    def __post_init__(self) -> None:
        if (self.folder / CONFIG).exists():
            raise RunError(f"{self.folder} is the folder of a run: choose another --out")
        self.genotypes = all_genotypes(self.space)
        trainings = trainings_of(self.table, len(self.genotypes))
        self.trainings = {f"{number:04d}/seed-{seed}": (number, seed) for number, seed in trainings}  # by run folder
        settings = {name: value for name, value in leaves(to_plain(self.base)) if name not in {*FREE, *OWN}}
        self.size, data = check_data(self.base, self.table.split)
        self.classes = len(data["classes"])
        own = {"space": self.space.to_dict(), "split": self.table.split, "every": self.table.every}
        own |= {name: data[name] for name in ("classes", "splits")}
        name, storage = study_name(self.study, self.storage, self.folder), open_storage(self.storage, self.folder)
        self.jobs = Jobs(storage, name, settings | own, list(self.trainings), self._train, self.say)

    def work(self) -> None:
        """Trains until all networks are trained, by this worker or by others.

        Raises:
            ValueError: Settings or data cannot be used, or three trainings in a row failed; one line.
            InterruptedRun: Ctrl-C or SIGTERM came; the state was saved.
        """
        content = {"table": to_plain(self.table), "space": self.space.to_dict(), "settings": to_plain(self.base)}
        write_atomically(self.folder / TABLE, json.dumps(content, indent=1) + "\n")
        networks = len({number for number, _ in self.trainings.values()})
        self.say(
            f"{counted(len(self.trainings), 'training')} of {counted(networks, 'network')} of the space "
            f"{self.space.name}, {len(self.jobs.results())} done already; all files go to {self.folder}"
        )
        self.jobs.run_trials()

    def _train(self, job: str, alive: Callable[[], None]) -> dict[str, Any]:
        """Trains a network, or resumes its training; returns the record."""
        number, seed = self.trainings[job]
        run, genotype = self.folder / job, self.genotypes[number]
        source = run.parent / GENOTYPE
        if not source.exists():
            genotype.save(source)
        config = dataclasses.replace(self.base, genotype=str(source), seed=seed, out=str(run))
        wait_until_free(run, alive)
        began = time.process_time()

        def after(epoch: int, _: Mapping[str, float]) -> None:
            """Measures on the second split, without a trace in the training's random numbers and CPU seconds."""
            nonlocal began
            line: dict[str, Any] = {"epoch": epoch, "cpu_seconds": round(time.process_time() - began, 3)}
            alive()
            state = random_state()
            if (epoch + 1) % self.table.every == 0 or epoch + 1 == config.epochs:
                line["miou"] = self._measured(run)
            with open_own(run / EPOCHS) as file:
                file.write(json.dumps(line) + "\n")
            restore_random_state(state)
            began = time.process_time()

        if (run / CHECKPOINT).exists() or not read_metrics(run):  # else it is done, and its weights are gone
            train(config, run if (run / CONFIG).exists() else None, quiet=True, each_epoch=after)
        result = self._record(run)
        self.say(
            f"{len(self.jobs.results()) + 1} of {len(self.trainings)}: network {number}, "
            f"{'-'.join(map(str, genotype.path))}, seed {seed}: val mIoU {100 * result['validation'][-1]:.2f} %, "
            f"{self.table.split} {100 * result['miou']:.2f} %, {result['cpu_seconds']:.0f} CPU seconds"
        )
        for path in (run / CHECKPOINT, run / BEST, *run.glob("events.out.*")):
            path.unlink(missing_ok=True)
        return result

    def _measured(self, run: Path) -> float:
        """mIoU after the last epoch on the second split."""
        found = evaluate(run, self.table.split, "last", self.base.data_root, self.base.device, write=False)
        return round(found.miou, 5)

    def _record(self, run: Path) -> dict[str, Any]:
        """What came of a training, from the files of its run folder."""
        metrics, lines = read_metrics(run), {line["epoch"]: line for line in read_lines(run, EPOCHS)}
        last = lines.setdefault(len(metrics) - 1, {})
        if "miou" not in last:  # killed between the last epoch and its measurement
            last["miou"] = self._measured(run)
        seconds = [line["cpu_seconds"] for line in lines.values() if "cpu_seconds" in line] or [0.0]
        return {
            "miou": last["miou"],
            "validation": [round(line["val"]["miou"], 5) for line in metrics],
            "measured": [lines.get(line["epoch"], {}).get("miou") for line in metrics],
            "cpu_seconds": round(sum(seconds) / len(seconds) * len(metrics), 1),
            "package_version": package_version(),
            "torch_version": torch.__version__,
        }


def open_making(folder: str | Path, storage: str | None = None, study: str | None = None) -> Making:
    """Opens the folder of a table that `nas-table make` began.

    Raises:
        ValueError: It is none, or its storage is elsewhere or out of reach.
    """
    file = Path(folder) / TABLE
    if not file.is_file():
        raise RunError(f"{folder} is not the folder of a table: it has no {TABLE}; nas-table make writes one")
    with raised_as(ValueError, f"{file}: "):
        data = parse_json(file.read_text(encoding="utf-8"))
        table, base = from_plain(TableConfig, data.get("table")), from_plain(RetrainConfig, data.get("settings"))
        space = SearchSpace.from_dict(data.get("space"))
    return Making(table, base, space, Path(folder), storage, study)


def measure_latency(making: Making) -> Path:
    """Measures the latency of each network that is trained, one image, and writes latency.json.

    One quiet pass: nothing else must run on the device meanwhile.
    """
    base = making.base
    device, size = choose_device(base.device), making.size
    set_float32(device, base.precision)
    image, seconds = torch.zeros(1, 3, *size, device=device), {}
    for number in sorted({number for number, _ in making.trainings.values()}):
        network = build(making.genotypes[number], making.classes, base.network).to(device)
        seconds[number] = round(median_seconds(network, image, precision=base.precision), 6)
    content = {"timed_on": timed_on(device), "input": list(size), "seconds": seconds}
    return write_atomically(making.folder / LATENCY, json.dumps(content) + "\n")


def pack(making: Making, name: str, folder: Path) -> tuple[Path, Path]:
    """Packs the results so far into NAME.jsonl.gz, and describes them in NAME.md.

    Raises:
        ValueError: No training is done, or latency was measured for another input.
    """
    results, base, size = making.jobs.results(), making.base, making.size
    require(bool(results), f"{making.folder} has no trained network: train one, or give --storage as for make")
    file, latency = making.folder / LATENCY, dict[str, Any]()
    if file.is_file():
        latency = parse_json(file.read_text(encoding="utf-8"))
        require(latency["input"] == list(size), f"{file} is of another input than {list(size)}: measure it again")
    runs: dict[int, dict[int, Run]] = {}
    for job, (number, seed) in making.trainings.items():
        if (result := results.get(job)) is not None:
            runs.setdefault(number, {})[seed] = Run(**{name: result[name] for name in Run._fields})
    networks = []
    for number in sorted(runs):
        genotype, seconds = making.genotypes[number], latency.get("seconds", {}).get(str(number))
        with torch.device("meta"):
            cost = measure(build(genotype, making.classes, base.network), size)
        networks.append(Network(number, genotype, cost.parameters, cost.multiply_adds, seconds, runs[number]))
    card = {
        "name": name,
        "split": making.table.split,
        "classes": making.classes,
        "input": list(size),
        "timed_on": latency.get("timed_on"),
        "trainings": len(results),
        "missing": len(making.trainings) - len(results),
        "failures": making.jobs.reasons(),
        "versions": {k: sorted({r[k] for r in results.values()}) for k in ("package_version", "torch_version")},
        "table": to_plain(making.table),
        "space": making.space.to_dict(),
        "settings": {k: v for k, v in to_plain(base).items() if k not in {*OWN, "data_root", "device"}},
    }
    path = write_table(card, networks, folder)
    options = " ".join(f"--{option} {card['table'][option]}" for option in ("share", "again", "split", "every"))
    seeds = ",".join(map(str, making.table.seeds))
    text = f"""# Table {name}

`{path.name}`: sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}

Made by these commands, with `space` and `settings` from below as `space.yaml` and `settings.yaml` (a data set of files
needs `--data-root`, too):

    nas-table make --out FOLDER --space space.yaml --config settings.yaml {options} --seeds {seeds}
    nas-table latency FOLDER
    nas-table pack FOLDER --name {name}

Multiply-adds and latency are for one image of `input`. The card:

{indent(yaml.safe_dump(card, sort_keys=False), "    ")}"""
    return path, write_atomically(folder / f"{name}.md", text)
