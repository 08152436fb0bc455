"""nas-sweep: a study over any settings of nas-search or nas-retrain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import Namespace

from cli import common, networks
from nas.config import RunConfig
from nas.runs.names import BEST_SETTINGS, CONFIG, SWEEP_FILE
from retrain.config import RetrainConfig
from retrain.networks.published import main_names
from retrain.sweeps.settings import StudyConfig, Sweep, load_sweep, shipped
from search_spaces.files import MARK
from search_spaces.validation import to_plain, without_password

if TYPE_CHECKING:
    from retrain.sweeps.study import Study

DESCRIPTION = """\
Varies settings of nas-search or nas-retrain according to a sweep, a shipped one or a YAML file: each trial is a run,
and the best settings become a file for --config. The same command resumes a study; started several times, on one or
more machines, its workers share it. All settings of the runs are options: see nas-sweep SWEEP --help."""

PORT = 13000


def make_parser() -> common.Parser:
    """Makes the parser of nas-sweep, only for its help: sweeps and verbs have their own."""
    parser = common.parser("nas-sweep", DESCRIPTION, "SWEEP|report|proxy")
    choices = "A shipped sweep, a YAML file, or a verb: report or proxy; see below."
    parser.add_argument("sweep", metavar="SWEEP", type=str, help=choices)
    lines = [f"  {name:<8}  {load_sweep(name).description}" for name in shipped()]
    lines += ["", "verbs (nas-sweep VERB --help):", f"  {'report':<8}  tables and pictures of a study, and best.yaml"]
    lines += [f"  {'proxy':<8}  lets other machines at a storage, by gRPC"]
    parser.notes = "\n".join(["sweeps:", *lines])
    return parser


def make_sweep_parser(name: str, sweep: Sweep) -> common.Parser:
    """Makes the parser of a sweep: its own options, and the settings of its runs."""
    parser = common.parser(f"nas-sweep {name}", sweep.description or "A sweep of your own.")
    common.add_run_options(parser, sweep.recipes, resumes=False)
    parser.add_optional("--out", "Folder of the study; runs/sweep-NAME-DATA if not given.")
    common.add_storage(parser)
    parser.add_settings(StudyConfig)
    parser.set_defaults(to_plain(sweep.study))
    parser.add_settings(sweep.config_class, skip={"out"})
    parser.settings |= {"out", "storage", "study"}
    return parser


def main(arguments: list[str]) -> None:
    name, rest = common.take_verb(make_parser, arguments)
    if name == "report":
        return _report(rest)
    if name == "proxy":
        return _proxy(rest)
    return _sweep(name, rest)


def _sweep(name: str, arguments: list[str]) -> None:
    sweep = load_sweep(name)
    parser = make_sweep_parser(name, sweep)
    values = common.complete(parser, *_layers(name, sweep, parser, common.given(parser, arguments)))
    config = common.settings(StudyConfig, values)
    out = values.pop("out")  # the study's; a run has none
    base: RunConfig = common.settings(sweep.config_class, values)
    if isinstance(base, RetrainConfig) and not base.genotype:
        raise ValueError(
            f"name what is trained: --genotype with a genotype.json file, or one of {', '.join(main_names())}"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a sweep runs without torchrun: start the command once for each GPU instead")
    folder = Path(out or f"runs/sweep-{Path(name).stem}-{base.data}")

    from retrain.sweeps.space import Space

    try:
        space = Space.of(sweep, base)  # refuses what no trial could do, before anything heavy is imported
    except ValueError as error:
        raise ValueError(f"{error}. {_how_to_vary(name)}") from None

    from nas.data.splits import identity_of
    from retrain.sweeps.objective import check_networks, run_trial
    from retrain.sweeps.report import REPORT, counted, write_best, write_report
    from retrain.sweeps.screen import Screen
    from retrain.sweeps.storage import open_storage
    from retrain.sweeps.study import Study
    from search_spaces.files import check_replaceable, write_atomically

    check_networks(space)
    data = identity_of(base)
    if (folder / CONFIG).exists():
        raise ValueError(f"{folder} is the folder of a run: choose another --out for the study")
    if folder.is_file():
        raise ValueError(f"{folder} is a file: choose another --out")
    if not any(file for pattern in ("trial-*", "journal.log", "study.db") for file in folder.glob(pattern)):
        check_replaceable([folder / name for name in (SWEEP_FILE, BEST_SETTINGS, REPORT)], "choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(values.storage, folder)
    study = Study(values.study or folder.resolve().name, space, config, storage, folder, data)
    write_atomically(folder / SWEEP_FILE, _resolved(sweep, config, base))
    study.each_trial = lambda: write_best(study)
    try:
        with Screen(study, values.quiet):
            study.work(lambda trial: run_trial(trial, config.objectives))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command resumes the study") from None
    write_report(study)
    if not values.quiet:
        common.say(f"{counted(study.trials)}; {_best_line(study)}; full report: {folder / REPORT}")


def _how_to_vary(name: str) -> str:
    file = shipped().get(name, Path(name))
    return f"To vary otherwise, change `parameters` in a copy of {file}, and name that in place of {name}"


def _layers(name: str, sweep: Sweep, parser: common.Parser, given: Namespace) -> list[Namespace]:
    """Returns the settings of the recipe, over them those of the sweep, of files, and of the options."""
    common.refuse(given, {"resume": "the same command resumes a study"})
    for parameter in sweep.parameters:
        if parameter.name in given:
            raise common.UsageError(f"--{parameter.name} is what the sweep varies: leave it out. {_how_to_vary(name)}")
    own = common.layer(parser, sweep.settings)
    asked = Namespace({"recipe": sweep.recipe})
    for layer in (own, given):
        asked.update(layer)
    small = networks.small_recipe([asked.get("genotype")], asked) if sweep.command == "retrain" else "small"
    base, files = common.layers(parser, asked, sweep.recipes, small, networks.searched)
    return [base, own, *files, given]


def _resolved(sweep: Sweep, config: StudyConfig, base: RunConfig) -> str:
    """Formats the sweep with all settings resolved, as a sweep file."""
    parts = {p.name: {k: v for k, v in to_plain(p).items() if v and k != "name"} for p in sweep.parameters}
    plain = {
        "description": sweep.description,
        "command": sweep.command,
        "parameters": parts,
        "first": to_plain(sweep.first),
        **to_plain(config),
        "settings": to_plain(base),
    }
    return f"# {MARK}\n{yaml.safe_dump(plain, sort_keys=False)}"


def _best_line(study: Study) -> str:
    from retrain.sweeps.report import best_trial, collapses
    from retrain.sweeps.study import written

    best = best_trial(study)
    if best is None:
        return collapses(study).rstrip(".") or "no trial is complete"
    value = written("miou", best.values[study.config.objectives.index("miou")])
    return f"best: trial {best.number}, {value}: nas-{study.space.command} --config {study.folder / BEST_SETTINGS}"


def _report(arguments: list[str]) -> None:
    parser = common.parser("nas-sweep report", "Writes a study's report.md, pictures and best.yaml.", "STUDY")
    parser.add_argument("folder", metavar="STUDY", type=str, help="The study's folder.")
    parser.add_optional("--storage", "Storage of the study, as given to nas-sweep.")
    parser.add_optional("--study", "Name of the study, as given to nas-sweep.")
    values = common.parse(parser, arguments)

    from retrain.sweeps.report import REPORT, counted, write_report
    from retrain.sweeps.study import open_study

    study = open_study(values.folder, values.storage, values.study)
    write_report(study)
    common.say(f"{counted(study.trials)}; {_best_line(study)}; full report: {study.folder / REPORT}")


def _proxy(arguments: list[str]) -> None:
    description = (
        "Serves a storage by gRPC, for workers with --storage grpc://HOST:PORT. Everybody who reaches it may write: "
        "listen only at an address of a trusted network."
    )
    parser = common.parser("nas-sweep proxy", description)
    parser.add_argument(
        "--storage", type=str, required=True, help="A journal file (.log), sqlite:/// or postgresql:// URL."
    )
    parser.add_argument("--host", type=str, default="localhost", help="Address to listen at; 0.0.0.0 for all.")
    parser.add_argument("--port", type=int, default=PORT, help="Port to listen at, 1 to 65535.")
    values = common.parse(parser, arguments)
    if not 1 <= values.port <= 65535:
        raise ValueError(f"--port is {values.port}: give a number from 1 to 65535")
    if values.storage in ("journal", "sqlite") or values.storage.startswith("grpc:"):
        raise ValueError("--storage is a name or a proxy: give a journal file, or a URL of SQLite or PostgreSQL")

    from optuna.storages import run_grpc_proxy_server

    from retrain.sweeps.storage import open_storage

    storage: Any = open_storage(values.storage, Path())
    where = f"{values.host}:{values.port}; Ctrl-C ends it"
    common.say(f"serving {without_password(values.storage)} at {where}", flush=True)
    run_grpc_proxy_server(storage, host=values.host, port=values.port)


entry = common.command("nas-sweep", main)

if __name__ == "__main__":
    entry()
