"""The commands: help, wrong use, settings, and the chain from search to prediction."""

from __future__ import annotations

import configparser
import errno
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import cli
from cli import common
from cli import decode as decode_command
from cli.messages import with_hyphens
from decoders.decoding import decode
from nas.config import CHANGEABLE, SearchConfig
from nas.data.readers import DATA_SETS
from nas.runs.names import read_config
from nas.training.interruption import InterruptedRun
from retrain.config import RetrainConfig
from retrain.networks import NETWORKS, build
from retrain.networks.settings import NetworkConfig
from retrain.sweeps.space import setting_names
from search_spaces.genotype import Block, load_genotype
from search_spaces.published import auto_deeplab
from search_spaces.space import SearchSpace, load

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "optuna", "matplotlib", "networkx", "tensorboard", "torch.utils.tensorboard", "onnx")


def console_scripts() -> dict[str, str]:
    """Command -> module, as they are installed."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    entries = dict(re.split(r"\s*=\s*", line.strip()) for line in lines)
    return {name: target.partition(":")[0] for name, target in entries.items()}


def operands(command: str) -> list[str]:
    """A word for each operand of a command: a verb or a shipped sweep, where it takes one of them."""
    parser = importlib.import_module(COMMANDS[command]).make_parser()
    actions = [action for action in parser._actions if not action.option_strings]
    return [action.choices[0] if action.choices else KNOWN.get(action.metavar, "x") for action in actions]


COMMANDS = console_scripts()
KNOWN = {"SWEEP": "search"}
"""Operands that must be there before options are looked at."""
WITH_SETTINGS = ("nas-search", "nas-retrain")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAS_TRACEBACK", raising=False)

    def call(command: str, *arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            common.run(command, importlib.import_module(COMMANDS[command]).main, [str(word) for word in arguments])
        text = capsys.readouterr()
        return Outcome(stop.value.code or 0, text.out, text.err)  # type: ignore[arg-type]

    return call


def assert_refused(outcome: Outcome, command: str, *words: str) -> None:
    """Exit code 2, and one line on standard error that has these words."""
    assert outcome.code == 2, outcome
    assert outcome.err.startswith(f"{command}: ")
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


# Help


def test_the_commands_are_those_of_the_readable_names() -> None:
    assert len(COMMANDS) >= 7
    for command, module in COMMANDS.items():
        assert module == f"cli.{command.removeprefix('nas-')}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_heavy_imports(command: str) -> None:
    program = (
        f"import sys, cli.common, {COMMANDS[command]} as command\n"
        f"try:\n    cli.common.run({command!r}, command.main, ['--help'])\n"
        f"except SystemExit as stop:\n    print(stop.code, [m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 []"
    assert done.stdout.startswith(f"usage: {command} ")
    assert len(done.stdout.splitlines()[0]) < 80


@pytest.mark.parametrize("command", COMMANDS)
def test_runs_as_a_module(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", COMMANDS[command], "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {command} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text(command: str, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    text = call(command, "--help").out
    entries = re.findall(r"^  (-\S.*?|[A-Z]+)(?: {2,}(.*)|)\n(?: {5,}(\S.*))?", text, re.MULTILINE)
    assert len(entries) >= 2
    for option, same_line, next_line in entries:
        words = re.sub(r"\((?:type|default|required).*", "", same_line or next_line)
        assert len(words.split()) >= 2, f"{option} has no help text"


# Wrong use


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_refused(command: str, call: Run) -> None:
    assert_refused(call(command, *operands(command), "--frobnicate", "3"), command, "--frobnicate", "--help")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--loader.batchsize", "--loader.batch-size"),
        ("--batch-size", "--loader.batch-size"),
        ("--crop", "--loader.augment.crop"),
        ("--lr", "--optimizer.lr or --architecture.lr"),
        ("--epoch", "--epochs"),
        ("--data-rot", "--data-root"),
    ],
)
def test_a_mistyped_option_suggests_the_right_one(typed: str, meant: str, call: Run) -> None:
    assert_refused(call("nas-search", typed, "3"), "nas-search", f"did you mean {meant}?")


def test_options_are_not_abbreviated(call: Run) -> None:
    assert_refused(call("nas-search", "--loader.batch", "4"), "nas-search", "no option --loader.batch;")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer.lr", "x"], "--optimizer.lr is 'x': expected a number"),
        (["--epochs", "1.5"], "--epochs is '1.5': expected a whole number"),
        (["--layers", "1x"], "--layers is '1x': expected a whole number, or null"),
        (["--loader.cache", "maybe"], "--loader.cache is 'maybe': expected one of none, memory, disk"),
        (["--precision", "float8"], "--precision is 'float8': expected one of float32, tf32, bfloat16, float16"),
        (["--loader.augment.crop", "33"], "--loader.augment.crop is '33': expected a list"),
        (["--loader.augment.crop", "[1,2,3]"], "--loader.augment.crop is '[1, 2, 3]': expected a list of 2"),
        (["--loader", "nothing.yaml"], "--loader is 'nothing.yaml': expected a YAML file"),
        (["--epochs"], "--epochs needs a value"),
        (["--config"], "--config needs a value"),
        (["--quiet=3"], "--quiet takes no value"),
        (["extra"], "'extra' is one argument too many"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(arguments: list[str], message: str, call: Run) -> None:
    assert_refused(call("nas-search", *arguments), "nas-search", message)


REFUSED_BY_BOTH = [
    ("epochs", "0"),
    ("seed", "-1"),
    ("accumulate", "0"),
    ("optimizer.lr", "0"),
    ("optimizer.momentum", "1"),
    ("optimizer.weight_decay", "-1"),
    ("optimizer.clip", "0"),
    ("loader.resolution", "0"),
    ("loader.workers", "-1"),
    ("loader.prefetch", "-1"),
    ("loader.batch_size", "1"),
    ("loader.train_limit", "0"),
    ("loader.val_limit", "0"),
    ("loader.augment.crop", "[0,33]"),
    ("loader.augment.scale", "[2,1]"),
    ("accumulate", "65537"),
    ("loader.workers", "1025"),
    ("loader.prefetch", "1025"),
    ("loader.batch_size", "65537"),
    ("loader.augment.crop", "[33,16385]"),
]
REFUSED = [
    *((command, name, value) for command in WITH_SETTINGS for name, value in REFUSED_BY_BOTH),
    ("nas-search", "optimizer.lr_end", "9"),
    ("nas-search", "architecture.lr", "0"),
    ("nas-search", "architecture.weight_decay", "-1"),
    ("nas-search", "architecture.start_epoch", "-1"),
    ("nas-search", "architecture.skip_dropout", "1"),
    ("nas-search", "architecture.entropy", "-1"),
    ("nas-search", "architecture.cost_weight", "-1"),
    ("nas-search", "architecture.cost_target", "0.3"),
    ("nas-search", "architecture.cost", "parameters"),
    ("nas-search", "health.gap_batches", "-1"),
    ("nas-search", "health.eigenvalue_steps", "-1"),
    ("nas-search", "health.stop_when_stable", "0"),
    ("nas-search", "loader.augment.scale_step", "-0.5"),
    ("nas-search", "loader.augment.scale_step", "2"),
    ("nas-search", "partial_channels", "0"),
    ("nas-search", "partial_channels", "-1"),
    ("nas-retrain", "optimizer.power", "-1"),
    ("nas-retrain", "optimizer.eps", "0"),
    ("nas-retrain", "optimizer.head_lr_multiplier", "0"),
    ("nas-retrain", "optimizer.head_bias_lr_multiplier", "0"),
    ("nas-retrain", "network.filter_multiplier", "0"),
    ("nas-retrain", "network.stem_channels", "[8]"),
    ("nas-retrain", "network.filter_multiplier", "65537"),
    ("nas-retrain", "network.stem_channels", str([8] * 17)),
    ("nas-retrain", "network.aspp_channels", "0"),
    ("nas-retrain", "network.decoder_channels", "0"),
    ("nas-retrain", "network.low_level_channels", "0"),
    ("nas-retrain", "network.dropout", "1"),
    ("nas-retrain", "network.drop_path_keep", "0"),
    ("nas-retrain", "network.batch_norm_momentum", "0"),
    *(
        (command, name, value)
        for command in ("nas-evaluate", "nas-predict")
        for name, value in (
            ("window", "12"),
            ("stride", "8x8"),
            ("window_batch", "0"),
            ("window_batch", "8"),
            ("scales", "0"),
        )
    ),
    ("nas-search", "seeds", "0,0"),
    ("nas-rank", "seeds", "-1"),
    ("nas-rank", "random", "-1"),
    ("nas-rank", "split", ""),
    ("nas-decode", "top", "0"),
    ("nas-decode", "candidate", "0"),
    ("nas-decode", "max_multiply_adds", "many"),
    ("nas-decode", "max_parameters", "-1"),
    ("nas-decode", "max_latency", "40"),
    ("nas-decode", "max_latency", "0ms"),
    ("nas-decode", "vary", "path"),
]


@pytest.mark.parametrize(("command", "name", "value"), REFUSED)
def test_a_value_outside_its_limits_is_refused(command: str, name: str, value: str, call: Run) -> None:
    outcome = call(command, f"--{name}={value}", *operands(command))
    assert_refused(outcome, command, f"{name.rpartition('.')[2].removesuffix('s')}")
    assert re.search(r": (give|batch norm needs|the smaller factor comes first)", outcome.err) or "give" in outcome.err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("nas-search", ["--space", "nothing"], "choose one of autodeeplab"),
        ("nas-search", ["--data", "nothing"], "choose one of ade20k, camvid, celebamask, cityscapes, folder"),
        ("nas-search", ["--data", "camvid"], "--data-root"),
        ("nas-search", ["--data", "camvid", "--data-root", "nothing"], "nothing does not exist"),
        ("nas-search", ["--data", "camvid", "--data_root", "nothing"], "nothing does not exist"),
        ("nas-search", ["--data", "shapes", "--data-root", "x"], "reads no folder"),
        ("nas-search", ["--loader.train_split", "nothing"], "choose one of train"),
        ("nas-search", ["--device", "tpu"], "device is 'tpu'"),
        (
            "nas-search",
            ["--levels", "9"],
            "in 4 layers a path reaches no more than 5; give --levels 5, or more --layers",
        ),
        (
            "nas-search",
            ["--levels", "9", "--layers", "9"],
            "a crop, 65 pixels; give --levels 5, or a larger --loader.aug",
        ),
        ("nas-search", ["--epochs", "2"], "give --architecture.start-epoch 1, or any below 2, or more --epochs"),
        ("nas-sweep", ["search", "--epochs", "3"], "To vary otherwise, change `parameters` in a copy of"),
        ("nas-sweep", ["."], ". cannot be read: it is a folder"),
        ("nas-search", ["--device", "cpu", "--precision", "tf32"], "only NVIDIA GPUs from Ampere on have"),
        ("nas-retrain", ["fplnet", "--device", "cpu", "--precision", "tf32"], "give --precision float32"),
        ("nas-search", ["--device", "cpu", "--supernet.graphs", "true"], "the device is cpu: leave it out"),
        ("nas-search", ["--memory_check", "maybe"], "expected one of stop, warn, off"),
        ("nas-search", ["--recipe", "nothing"], "choose one of autodeeplab"),
        ("nas-retrain", ["--recipe", "nothing"], "choose one of autodeeplab"),
        ("nas-search", ["--resume", "nothing"], "not a run folder"),
        ("nas-retrain", ["--resume", "nothing"], "not a run folder"),
        ("nas-search", ["--resume", "nothing", "--recipe", "small"], "leave --recipe and --config out"),
        ("nas-search", ["--resume", "nothing", "--config", "x.yaml"], "leave --recipe and --config out"),
        ("nas-search", ["--resume", "nothing", "--out", "x"], "leave --out out"),
        ("nas-retrain", [], "name a genotype.json file"),
        ("nas-retrain", ["nothing.json"], "no genotype file 'nothing.json'"),
        ("nas-retrain", ["auto-deeplab-s", "--genotype", "auto-deeplab-m"], "named twice"),
        ("nas-decode", [], "FILE is missing"),
        ("nas-decode", ["nothing.json"], "nothing.json: cannot be read"),
        ("nas-decode", ["g.json", "--images", "3"], "--images is for --by perturbation"),
        ("nas-decode", ["g.json", "--by", "perturbation", "--images", "0"], "--images is 0: give"),
        ("nas-decode", ["g.json", "--by", "perturbation", "--as_is"], "--as-is decodes nothing: leave it out"),
        ("nas-decode", ["g.json", "--by", "chance"], "expected one of alpha, perturbation"),
        ("nas-evaluate", [], "RUN is missing"),
        ("nas-evaluate", ["nothing"], "nothing is not a folder"),
        ("nas-evaluate", [".", "--checkpoint", "first"], "expected one of best, last"),
        ("nas-evaluate", ["."], "best.pt does not exist"),
        ("nas-export", ["."], "--onnx is missing: name the file to write"),
        ("nas-export", [".", "--onnx", "best.pt"], "--onnx is 'best.pt': name a file that ends in .onnx"),
        ("nas-export", [".", "--onnx", "x.onnx", "--opset", "26"], "opset is 26: give a whole number from 18 to 25"),
        ("nas-export", [".", "--onnx", "x.onnx", "--output", "masks"], "expected one of logits, labels"),
        ("nas-predict", ["."], "SOURCE is missing"),
        ("nas-predict", [".", "nothing"], "nothing does not exist"),
        ("nas-predict", [".", "."], "no image"),
        ("nas-describe", [], "--space NAME"),
        ("nas-describe", ["auto-deeplab-s", "--space", "autodeeplab"], "either a network"),
        ("nas-describe", ["auto-deeplab-s", "--input", "12"], "--input is '12': give HEIGHTxWIDTH"),
        ("nas-describe", ["auto-deeplab-s", "--classes", "1"], "--classes is 1"),
        ("nas-describe", ["auto-deeplab-s", "--yaml"], "--yaml prints a space"),
        ("nas-describe", ["--space", "autodeeplab", "--yaml", "--json"], "exclude each other"),
        ("nas-describe", ["--space", "autodeeplab", "--input", "9x9"], "for a network"),
        ("nas-describe", ["--space", "autodeeplab", "--network.dropout", "0.2"], "for a network"),
        ("nas-describe", ["--space", "nothing"], "choose one of autodeeplab"),
        ("nas-describe", ["nothing"], "auto-deeplab-s"),
        ("nas-describe", ["--networks", "fplnet"], "--networks lists all published networks: give nothing else"),
        ("nas-describe", ["--networks", "--classes", "3"], "give nothing else"),
        ("nas-describe", ["mnv2-aspp", "--network.backbone_weights", "none.pt"], "none.pt cannot be read"),
        ("nas-describe", ["auto-deeplab-s", "--network", "fplnet"], "auto-deeplab-s is a published network: leave it"),
        ("nas-describe", ["--space", "autodeeplab", "--network", "fplnet"], "for a network"),
        ("nas-describe", ["g.json", "--network", "espnet"], "--network is 'espnet': give deeplab or fplnet"),
        ("nas-retrain", ["g.json", "--network", "mine.yaml"], "a file of settings by --config"),
        ("nas-retrain", ["g.json", "--network=fplnet-encoder"], "is named in place of the genotype"),
        ("nas-retrain", ["g.json", "--network="], "--network is '': give deeplab or fplnet"),
        ("nas-retrain", ["g.json", "--network"], "--network needs a value"),
        ("nas-retrain", ["mnv2-aspp", "--network", "deeplab"], "mnv2-aspp is a published network: leave it out"),
        ("nas-retrain", ["fplnet", "--network.aspp_channels", "8"], "network.aspp_channels has no effect on fplnet"),
        ("nas-retrain", ["fplnet", "--recipe", "small"], "has no effect on fplnet"),
        ("nas-retrain", ["fplnet", "--init_from", "a", "--network.backbone_weights", "b"], "starts from one of them"),
        ("nas-retrain", ["fplnet", "--init-from", "nothing"], "nothing does not exist"),
        (
            "nas-retrain",
            ["fplnet", "--network.frozen_batch_norm", "true"],
            "needs the statistics of trained weights",
        ),
        ("nas-retrain", ["mnv2-aspp", "--recipe", "li-mnv2"], "the recipe li-mnv2 is for your data: give --data NAME"),
        ("nas-retrain", ["fplnet", "--recipe", "fplnet"], "data set 'cityscapes' is read from disk: give its root"),
        ("nas-search", ["--recipe", "autodeeplab"], "data set 'cityscapes' is read from disk: give its root folder"),
        ("nas-retrain", ["fplnett"], "no published network 'fplnett'; did you mean fplnet? choose one of"),
        ("nas-retrain", ["runs/x/genotype.json"], "there is no genotype file 'runs/x/genotype.json'"),
        ("nas-retrain", ["fplnet", "--network.fpl_rates", "4"], "is '4': expected a list such as [1, 2]"),
        ("nas-retrain", ["li-mnv2-aspp", "--network.li_init", "0.5"], "is '0.5': expected a list such as [0, 0.1]"),
        ("nas-evaluate", [".", "--scales", "li4"], "--scales is 'li4': give factors with commas"),
        ("nas-evaluate", [".", "--scales", "0.5,0"], "scales[1] is 0.0: give a number above 0 up to 8"),
        ("nas-evaluate", [".", "--window", "9"], "--window is '9': give HEIGHTxWIDTH in pixels"),
        ("nas-evaluate", [".", "--window", "9x9", "--stride", "4x10"], "stride 4x10 is larger than the window, 9x9"),
        ("nas-evaluate", [".", "--stride", "9x9"], "stride is 9x9, but there is no window: give --window, too"),
        ("nas-evaluate", [".", "--precision", "half"], "expected one of float32, tf32, bfloat16, float16, fp32, bf16"),
        ("nas-predict", [".", ".", "--precision", "int8"], "expected one of float32, tf32, bfloat16, float16, fp32"),
        ("nas-predict", [".", ".", "--scales", "li4"], "--scales is 'li4': give factors with commas"),
        ("nas-draw", [], "RUN is missing"),
        ("nas-draw", ["nothing"], "nothing is not a run folder"),
        ("nas-draw", [".", "--what", "moon"], "there is no picture 'moon': choose from trellis, cell"),
        ("nas-draw", [".", "--channels", "0"], "channels is 0: give a whole number from 1"),
        ("nas-draw", [".", "--paths", "0"], "paths is 0: give a whole number from 1 to 50"),
        ("nas-draw", [".", "--what", "cell", "--paths", "3"], "paths has no effect on the picture cell: leave it out"),
        ("nas-draw", [".", "--size", "8"], "size is 8: give a whole number from 9"),
        ("nas-draw", [".", "--samples", "0"], "samples is 0: give a whole number from 1"),
        ("nas-draw", [".", "--image="], "image: a path is ''"),
        (
            "nas-draw",
            [".", "--what", "field", "--layer", "x"],
            "layer has no effect on the picture field: leave it out",
        ),
        ("nas-draw", [".", "--what", "cell", "--image", "x"], "image has no effect on the picture cell: leave it out"),
        ("nas-draw", [".", "--out", "x.svg"], "one file: name one picture by --what"),
        ("nas-draw", [".", "--what", "cell", "--out", "x.gif"], "an animation, which only history can be"),
        ("nas-draw", [".", "--what", "cell", "--out", "."], "--out is '.', a folder"),
        ("nas-draw", [".", "--checkpoint", "first"], "expected one of best, last"),
        ("nas-report", [], "RUN is missing"),
        ("nas-report", ["nothing"], "nothing is not a run folder"),
        ("nas-report", [".", "--out", "."], "--out is '.', a folder"),
        ("nas-report", [".", "--out", "config.yaml"], "--out is 'config.yaml': name a file that ends in .html"),
    ],
)
def test_bad_input_is_refused_in_one_line(command: str, arguments: list[str], message: str, call: Run) -> None:
    assert_refused(call(command, *arguments), command, message)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(call: Run) -> None:
    assert_refused(call("nas-search", "--device", "cuda"), "nas-search", "--device cpu")


def test_an_output_folder_that_is_a_file_is_refused(call: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(call("nas-search", "--out", "file", "--loader.cache", "none"), "nas-search", "file is a file")
    assert_refused(call("nas-predict", ".", ".", "--out", "file"), "nas-predict", "'file', a file: name a folder")
    auto_deeplab().save(tmp_path / "genotype.json")
    assert_refused(call("nas-decode", "genotype.json", "-o", "file/x.json"), "nas-decode", "file")
    for option in ("--output", "--draw"):
        assert_refused(call("nas-decode", "genotype.json", option, "."), "nas-decode", f"{option} is '.', a folder")
    assert_refused(call("nas-decode", "genotype.json", "--draw", "x.bmp"), "nas-decode", ".svg")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["nas-decode", "nas-describe", "nas-retrain"])
def test_a_broken_genotype_is_refused(command: str, call: Run, tmp_path: Path) -> None:
    text = auto_deeplab().to_json()
    (tmp_path / "truncated.json").write_text(text[: len(text) // 2])
    assert_refused(call(command, "truncated.json"), command, "truncated.json", "JSON")
    data = json.loads(text)
    data["cell"][1]["operations"][0] = "teleport"
    (tmp_path / "unknown.json").write_text(json.dumps(data))
    assert_refused(call(command, "unknown.json"), command, "cell[1].operations[0]", "'teleport'", "skip")


@pytest.mark.parametrize(
    ("command", "words"),
    [("nas-decode", ()), ("nas-retrain", ("--print_config",)), ("nas-describe", ("--input=33x65",))],
)
def test_a_folder_stands_for_the_genotype_in_it(
    command: str, words: tuple[str, ...], call: Run, tmp_path: Path
) -> None:
    auto_deeplab().save(tmp_path / "found" / "genotype.json")
    (tmp_path / "empty").mkdir()
    folder, file = (call(command, name, *words) for name in ("found", "found/genotype.json"))
    assert folder.code == 0 and folder.out == file.out.replace("found/genotype.json", "found")
    assert_refused(call(command, "empty"), command, "empty")


def test_a_folder_of_runs_says_which_one_to_name(call: Run, tmp_path: Path) -> None:
    for number, name in enumerate(("runs/old", "runs/new", "study/trial-3", "study/trial-12")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("seed: 0\n")
        os.utime(tmp_path / name / "config.yaml", (number, number))
    (tmp_path / "study" / "sweep.yaml").touch()
    for command, *words in (["nas-evaluate", "runs"], ["nas-report", "runs"], ["nas-search", "--resume", "runs"]):
        assert_refused(call(command, *words), command, "it holds runs: name one of them, such as runs/new")
    said = "it is a study: name one of its trials, such as study/trial-12"
    assert_refused(call("nas-export", "study", "--onnx", "x.onnx"), "nas-export", said)
    (tmp_path / "study" / "best.yaml").write_text("# The best of 4 complete trials of the study x: trial 3, 31 %.\n")
    said = "name one of its trials, of which study/trial-3 is the best"
    assert_refused(call("nas-evaluate", "study"), "nas-evaluate", said)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_spelt_with_hyphens(command: str, call: Run) -> None:
    assert not re.search(r"--[\w.]*_", call(command, "--help").out)


def test_hyphens_are_for_options_alone() -> None:
    text = "give --loader.batch_size 2, data_root or runs/--my_file --x=a_b"
    assert with_hyphens(text) == "give --loader.batch-size 2, data_root or runs/--my_file --x=a_b"


@pytest.mark.parametrize("program", ["/usr/bin/nas-search", "-m"])
def test_an_interrupt_while_a_command_is_imported_is_one_line(program: str) -> None:
    text = f"import sys\nsys.argv = [{program!r}]\nimport cli\nraise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode in (130, -2), done.stderr) == (True, "interrupted\n")


def hooks() -> tuple[Any, ...]:
    return sys.excepthook, threading.excepthook, warnings.showwarning, signal.getsignal(signal.SIGTERM)


def test_a_program_that_imports_and_runs_a_command_keeps_its_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    before = hooks()
    importlib.reload(cli)
    assert hooks() == before
    during: list[tuple[Any, ...]] = []
    for error in (ValueError("no"), KeyboardInterrupt(), SystemExit(0)):

        def main(arguments: list[str], error: BaseException = error) -> None:
            during.append(hooks())
            raise error

        run_main(main, capsys)
        assert hooks() == before
    assert all(old != new for old, new in zip(before[1:], during[0][1:], strict=True))


# Settings


def settings_of(outcome: Outcome) -> dict:
    assert outcome.code == 0, outcome
    return yaml.safe_load(outcome.out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optimizer: [1,\n", "not readable as YAML: line 2"),
        ("optimizer:\n  lrr: 1\n", "no setting optimizer.lrr; did you mean optimizer.lr?"),
        ("optimizr:\n  lr: 1\n", "no setting optimizr; did you mean optimizer.lr?"),
        ("loader:\n  augment:\n    flop: true\n", "no setting loader.augment.flop; did you mean loader.augment.flip?"),
        ("- 1\n", "the content is [1]"),
        ("optimizer: 3\n", "the setting optimizer is 3"),
        ("", "is empty"),
        ("recipe: small\n", "give --recipe on the command line"),
        ("resume: x\n", "give --resume on the command line"),
    ],
)
@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_a_wrong_settings_file_is_refused(command: str, content: str, message: str, call: Run, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(content)
    assert_refused(call(command, "--config", "my.yaml"), command, "my.yaml", message)


def test_a_wrong_value_in_a_settings_file_is_refused(call: Run, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("optimizer:\n  lr: fast\n")
    assert_refused(call("nas-search", "--config", "my.yaml"), "nas-search", "optimizer.lr is 'fast': expected a number")
    (tmp_path / "my.yaml").write_text("optimizer:\n  lr: -1\n")
    assert_refused(call("nas-search", "--config", "my.yaml"), "nas-search", "optimizer.lr is -1.0: give")
    (tmp_path / "my.yaml").write_bytes(b"\xff\xfe\x00")
    assert_refused(call("nas-search", "--config", "my.yaml"), "nas-search", "not readable as YAML")
    assert_refused(call("nas-search", "--config", "none.yaml"), "nas-search", "none.yaml cannot be read")


def test_an_exponent_without_a_point_is_a_number(call: Run, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("optimizer:\n  lr: 2e-3\n")  # to YAML 1.1 this is a text
    assert settings_of(call("nas-search", "--config", "my.yaml", "--print_config"))["optimizer"]["lr"] == 0.002


@pytest.mark.parametrize("option", ["--data-root", "--data_root", "--data-root=", "--data_root="])
def test_options_take_hyphens_and_underscores(option: str, call: Run) -> None:
    words = [f"{option}my-data_set"] if option.endswith("=") else [option, "my-data_set"]
    outcome = call("nas-search", "--data", "camvid", *words, "--print-config")
    assert settings_of(outcome)["data_root"] == "my-data_set"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("nas-search", ["--recipe", "small", "--seed", "7", "--quiet"]),
        ("nas-search", ["--data", "camvid", "--data-root", "x", "--layers", "5"]),
        ("nas-retrain", ["auto-deeplab-m", "--network.stem_channels", "[8,8]"]),
        ("nas-retrain", ["--recipe", "autodeeplab", "--genotype", "g.json"]),
    ],
)
def test_printed_settings_are_a_settings_file(command: str, arguments: list[str], call: Run, tmp_path: Path) -> None:
    first = call(command, *arguments, "--print_config")
    (tmp_path / "printed.yaml").write_text(first.out)
    second = call(command, "--config", "printed.yaml", "--print_config")
    assert second.out == first.out
    assert settings_of(second).keys().isdisjoint({"config", "recipe", "resume", "quiet", "source"})
    if command == "nas-retrain":
        assert settings_of(second)["genotype"] == ("auto-deeplab-m" if arguments[0] == "auto-deeplab-m" else "g.json")


def test_options_win_over_files_and_files_over_the_recipe(call: Run, tmp_path: Path) -> None:
    recipe = settings_of(call("nas-search", "--recipe", "small", "--print_config"))
    (tmp_path / "one.yaml").write_text("epochs: 97\nseed: 97\noptimizer:\n  lr: 0.97\n")
    (tmp_path / "two.yaml").write_text("seed: 98\n")
    # The options stand first: it is not the order on the line that counts.
    words = ["--epochs=99", "--config", "one.yaml", "--recipe", "small", "--config=two.yaml", "--print_config"]
    merged = settings_of(call("nas-search", *words))
    assert (merged["epochs"], merged["seed"], merged["optimizer"]["lr"]) == (99, 98, 0.97)
    assert merged["loader"] == recipe["loader"]
    assert recipe["epochs"] != 97


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_the_help_lists_all_that_may_change_on_resume(command: str, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    (line,) = re.findall(r"--resume RESUME +.* may change: (.*?)\. ", call(command, "--help").out)
    listed = {name.removeprefix("--").replace("-", "_") for name in line.split(", ")}
    settings = set(setting_names({"nas-search": SearchConfig, "nas-retrain": RetrainConfig}[command]))
    assert listed == (CHANGEABLE & settings) - {"out"}
    assert {"epochs", "loader.workers"} <= listed


def test_printed_settings_may_leave_out_the_defaults(call: Run) -> None:
    words = ("nas-search", "--data", "camvid", "--epochs", "41", "--layers=null")
    assert settings_of(call(*words, "--print-config=skip_default,skip_unset")) == {"data": "camvid", "epochs": 41}
    assert "layers" in settings_of(call(*words, "--print-config"))
    assert_refused(call(*words, "--print-config=brief"), "nas-search", "no flag 'brief': give skip_default or")


def test_a_sweep_s_settings_are_over_its_recipe_and_under_files_and_options(call: Run, tmp_path: Path) -> None:
    parameters = {"optimizer.lr": {"range": [0.1, 0.2]}}
    settings = {"data": "camvid", "data_root": "one", "epochs": 97, "loader": {"batch_size": 97}}
    sweep = {"command": "search", "recipe": "camvid", "parameters": parameters, "settings": settings}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(sweep))
    (tmp_path / "file.yaml").write_text("data_root: two\nepochs: 98\nseed: 98\n")
    recipe = settings_of(call("nas-search", "--recipe", "camvid", "--print_config"))
    printed = settings_of(call("nas-sweep", "mine.yaml", "--seed=99", "--config=file.yaml", "--print_config"))
    assert [printed[name] for name in ("data", "data_root", "epochs", "seed")] == ["camvid", "two", 98, 99]
    assert printed["loader"] == {**recipe["loader"], "batch_size": 97}


def test_a_list_of_operands_goes_on_behind_an_option(call: Run) -> None:
    words = ["nas-rank", "auto-deeplab-s", "--seeds", "0,1", "espnet-c", "--print_config", "fplnet"]
    small = call("nas-retrain", "fplnet", "--recipe", "small-published", "--print_config")
    assert settings_of(call(*words))["loss"] == settings_of(small)["loss"]
    assert_refused(call("nas-rank"), "nas-rank", "RUN is missing")
    assert_refused(call("nas-report", "one", "--image", "x.png", "two"), "nas-report", "one is not a run folder")


def test_without_data_the_small_recipe_is_taken(call: Run) -> None:
    small = call("nas-search", "--recipe", "small", "--print_config").out
    assert call("nas-search", "--print_config").out == small
    # Whoever spells the default out does not want the protocol of a GPU on it.
    assert call("nas-search", "--data", "shapes", "--print_config").out == small
    assert settings_of(call("nas-search", "--data", "camvid", "--print_config"))["epochs"] == 40


def test_network_is_short_for_what_a_genotype_becomes(call: Run) -> None:
    for words in (["--network", "fplnet"], ["--network=fplnet"], ["--network.kind", "fplnet"]):
        outcome = call("nas-retrain", "g.json", *words, "--data=camvid", "--print_config")
        assert settings_of(outcome)["network"]["kind"] == "fplnet"
    # The last one counts, as everywhere.
    outcome = call("nas-retrain", "g.json", "--network=fplnet", "--network=deeplab", "--data=camvid", "--print_config")
    assert settings_of(outcome)["network"]["kind"] == "deeplab"


@pytest.mark.parametrize(
    ("recipe", "arguments"),
    [
        ("small", ["g.json"]),
        ("small", ["g.json", "--network", "deeplab"]),
        ("small", ["--genotype", "auto-deeplab-s"]),
        ("small", ["--seed", "3", "auto-deeplab-l"]),
        ("small", ["--out", "fplnet", "g.json"]),
        ("small-published", ["g.json", "--network=fplnet"]),
        ("small-published", ["mnv2-aspp"]),
        ("small-published", ["--seed", "3", "--quiet", "fplnet", "--epochs=1"]),
        ("small-published", ["--genotype=espnet-c"]),
        ("small-published", ["--out", "auto-deeplab-s", "deeplabv2-resnet101"]),
    ],
)
def test_the_recipe_without_data_fits_the_network(recipe: str, arguments: list[str], call: Run) -> None:
    taken = call("nas-retrain", *arguments, "--print_config")
    assert taken.out == call("nas-retrain", *arguments, "--recipe", recipe, "--print_config").out
    assert (settings_of(taken)["network"]["filter_multiplier"] == 20) == (recipe == "small")
    first = call("nas-retrain", "--print_config", *arguments)
    assert first.out == taken.out


# Exit codes


def run_main(main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]) -> Outcome:
    with pytest.raises(SystemExit) as stop:
        common.run("nas-x", main, [])
    text = capsys.readouterr()
    return Outcome(stop.value.code or 0, text.out, text.err)  # type: ignore[arg-type]


def raising(error: BaseException) -> Callable[[list[str]], None]:
    def main(arguments: list[str]) -> None:
        raise error

    return main


def test_an_interrupted_run_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(raising(InterruptedRun("saved; go on")), capsys) == Outcome(130, "", "nas-x: saved; go on\n")
    assert run_main(raising(KeyboardInterrupt()), capsys) == Outcome(130, "", "nas-x: interrupted\n")


def test_success_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda arguments: print("done"), capsys) == Outcome(0, "done\n", "")


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_main(raising(OSError(errno.ENOSPC, "No space left on device", "runs/x.pt")), capsys)
    assert_refused(outcome, "nas-x", "runs/x.pt: No space left on device: what was saved before is untouched")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_is_one_line_with_advice(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(run_main(raising(error), capsys), "nas-x", "out of memory: use a smaller crop", "batch")


def test_messages_of_several_lines_become_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(raising(ValueError("a\n  b\n\nc")), capsys) == Outcome(2, "", "nas-x: a b c\n")


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="a fault"):
        common.run("nas-x", raising(RuntimeError("a fault")), [])


def test_the_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_TRACEBACK", "1")
    outcome = run_main(raising(ValueError("bad value")), capsys)
    assert outcome.code == 2
    assert outcome.err.startswith("Traceback") and outcome.err.endswith("\nnas-x: bad value\n")


@pytest.mark.parametrize("arguments", [["--space", "autodeeplab", "--yaml"], ["--help"]])
def test_a_reader_that_goes_away_is_no_failure(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cli.describe", *arguments]
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# nas-describe and nas-decode


def test_describes_the_space_of_the_paper(call: Run) -> None:
    facts = json.loads(call("nas-describe", "--space", "autodeeplab", "--json").out)
    assert (facts["paths_first_fixed"], facts["paths"]) == (28_657, 75_025)
    assert facts["cells"] == 556_627_761_561_600
    assert facts["supernet_parameters"] > 0
    assert facts["architecture_parameters"] > 0


def test_describes_the_network_of_the_paper(call: Run) -> None:
    words = ("auto-deeplab-s", "--classes", 19, "--input", "1025x2049")
    facts = json.loads(call("nas-describe", *words, "--json").out)
    assert facts["parameters"] == 10_147_427
    assert facts["multiply_adds"] == 320_450_382_392
    assert [f["stride"] for f in facts["features"]] == list(auto_deeplab().path)


def test_help_lists_the_data_sets(call: Run) -> None:
    assert f"--data DATA Data set: {', '.join(DATA_SETS)};" in " ".join(call("nas-search", "--help").out.split())


def test_help_and_list_have_every_published_network(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = call("nas-retrain", "--help").out
    table = call("nas-describe", "--networks").out
    facts = json.loads(call("nas-describe", "--networks", "--json").out)
    assert [fact["name"] for fact in facts] == list(NETWORKS)
    for name in NETWORKS:
        ablation = NETWORKS[name].ablation
        start = r"^ +(ablations: )?([\w+-]+, )*" if ablation else "^    "
        assert re.search(rf"{start}{re.escape(name)}{'(,|$)' if ablation else r'  +'}", text, re.MULTILINE)
        (line,) = re.findall(rf"^    {re.escape(name)}  +.*", table, re.MULTILINE)
        assert line.endswith(NETWORKS[name].description)
        assert (NETWORKS[name].printed or "--") in line
    assert max(map(len, text.partition("published networks:")[2].splitlines())) < 80


def test_weights_of_a_backbone_are_loaded_to_be_described(call: Run, tmp_path: Path) -> None:
    backbone = build("mnv2-aspp", 2, NetworkConfig(aspp_channels=4)).get_submodule("backbone")
    torch.save(backbone.state_dict(), tmp_path / "weights.pt")
    words = ["mnv2-aspp", "--input=33x33", "--network.aspp_channels=4"]
    plain = json.loads(call("nas-describe", *words, "--json").out)
    loaded = json.loads(call("nas-describe", *words, "--json", "--network.backbone_weights=weights.pt").out)
    assert "tensors of the backbone from weights.pt" in loaded.pop("backbone_weights")
    assert loaded == plain
    text = call("nas-describe", *words, "--network.backbone_weights=weights.pt").out
    assert re.search(r"^backbone weights: .* from weights\.pt", text, re.MULTILINE)
    assert_refused(
        call("nas-describe", "fplnet", "--network.backbone_weights=weights.pt"), "nas-describe", "no effect on fplnet"
    )


def test_a_genotype_is_described_as_what_it_shall_become(call: Run) -> None:
    words = ("nas-describe", ROOT / "tests" / "data" / "genotype_v1.json", "--input=33x65", "--json")
    described = [json.loads(call(*words, f"--network={kind}").out) for kind in ("deeplab", "fplnet")]
    assert described[0]["parameters"] != described[1]["parameters"]


def test_network_options_change_the_network_described(call: Run) -> None:
    words = ("nas-describe", ROOT / "tests" / "data" / "genotype_v1.json", "--input=33x65")
    small, large = (json.loads(call(*words, "--json", f"--network.aspp-channels={n}").out) for n in (8, 16))
    assert small["parameters"] < large["parameters"]
    text = call(*words, "--network.aspp_channels=8").out
    for part in (f"{small['parameters']:,}", f"{small['multiply_adds']:,}", "input: 33x65", "cell4: "):
        assert part in text


@pytest.mark.parametrize("name", ["autodeeplab", "autodeeplab-tiny"])
def test_a_printed_space_loads(name: str, call: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(call("nas-describe", "--space", name, "--yaml").out)
    assert load(tmp_path / "mine.yaml") == load(name)


@pytest.mark.parametrize(
    ("mode", "option"), [(mode, option) for mode, row in decode_command.MODES.items() for option in row.options]
)
def test_an_option_of_a_mode_is_refused_in_the_others(mode: str, option: str, call: Run) -> None:
    values = {"device": "cpu", "input": "33x33", "network": "fplnet", "data_changed": "accept"}
    asked = {"as_is": ["--as-is"], "perturbation": ["--by", "perturbation"], "candidates": ["--top", "2"], None: []}
    for other, words in asked.items():
        outcome = call("nas-decode", "nothing.json", *words, f"--{option}", values.get(option, "3"))
        acts = other is not None and option in decode_command.MODES[other].options
        assert_refused(outcome, "nas-decode", "cannot be read" if acts else f"--{option.replace('_', '-')} is for ")


def test_a_published_genotype_is_shown_and_left_as_it_is(call: Run, tmp_path: Path) -> None:
    auto_deeplab().save(tmp_path / "genotype.json")
    before = (tmp_path / "genotype.json").read_bytes()
    outcome = call("nas-decode", "genotype.json", "--draw", "picture.svg")
    assert outcome.code == 0
    assert "atrous_5x5" in outcome.out
    assert "nothing was decoded" in outcome.out
    assert (tmp_path / "genotype.json").read_bytes() == before
    for name in ("picture.svg", "picture-trellis.svg"):
        assert "<svg" in (tmp_path / name).read_text()
        assert f"wrote {name}" in outcome.out
    facts = json.loads(call("nas-decode", "genotype.json", "--json").out)
    assert facts["path"] == list(auto_deeplab().path)
    assert facts["path_probability"] is None


# The chain


TINY = (
    "--loader.train_limit=8",
    "--loader.val_limit=2",
    "--loader.augment.crop=[33,33]",
    "--loader.batch_size=2",
    "--device=cpu",
    "--quiet",
)


def test_the_chain_from_search_to_prediction(call: Run, tmp_path: Path) -> None:
    space = ["--layers=2", "--levels=2", "--blocks=1", "--filter_multiplier=2"]
    done = call(
        "nas-search",
        "--space=autodeeplab-tiny",
        *space,
        "--epochs=1",
        "--architecture.start_epoch=0",
        "--out=search",
        *TINY,
    )
    assert done == Outcome(0, "", "")
    found = load_genotype("search/genotype.json")
    assert found.space.layers == 2 and found.alpha is not None

    # The run is repeated from its own settings.
    repeated = call("nas-search", "--config=search/config.yaml", "--out=again", "--print_config")
    assert settings_of(repeated) == {**read_config(Path("search")), "out": "again"}
    assert_refused(call("nas-search", "--config=search/config.yaml"), "nas-search", "holds a run already")

    # It goes on to more epochs, and only as the same run.
    assert_refused(call("nas-search", "--resume=search", "--seed=3", "--quiet"), "nas-search", "another seed")
    before = Path("search/metrics.jsonl").read_text()
    done = call("nas-search", "--resume", "search", "--epochs", "2")
    assert done.code == 0
    assert "genotype: search/genotype.json" in done.out
    assert Path("search/metrics.jsonl").read_text().startswith(before)
    assert Path("search/metrics.jsonl").read_text().count("\n") == 2
    assert load_genotype("search/genotype.json").provenance["epoch"] == 2

    # Decoding is a pure function of the file.
    done = call("nas-decode", "search/genotype.json", "--draw", "cell.svg", "-o", "first.json")
    assert done.code == 0
    assert "path probability" in done.out
    assert Path("cell.svg").is_file() and Path("trellis.svg").is_file()
    facts = json.loads(call("nas-decode", "first.json", "-o", "second.json", "--json").out)
    assert Path("second.json").read_bytes() == Path("first.json").read_bytes()
    assert facts["path"] == list(load_genotype("first.json").path)
    assert 0 < facts["path_probability"] <= 1

    network = ["--network.filter_multiplier=2", "--network.stem_channels=[4,4]", "--network.aspp_channels=4"]
    described = json.loads(call("nas-describe", "first.json", *network, "--classes=6", "--input=33x33", "--json").out)
    assert described["parameters"] > 0
    assert len(described["features"]) == 2

    done = call("nas-retrain", "first.json", *network, "--epochs=1", "--out=trained", *TINY)
    assert done == Outcome(0, "", "")
    assert Path("trained/genotype.json").read_bytes() == Path("first.json").read_bytes()
    assert_refused(call("nas-retrain", "first.json", "--resume=trained"), "nas-retrain", "leave the genotype out")
    Path("first.json").unlink()  # the run folder stands alone
    done = call("nas-retrain", "--resume=trained", "--epochs=2")
    assert done.code == 0
    assert "nas-evaluate trained" in done.out

    measured = json.loads(call("nas-evaluate", "trained", "--json", "--device=cpu").out)
    assert 0 <= measured["miou"] <= 1
    assert set(measured["iou"]) == {"background", "disc", "square", "triangle", "ring", "line"}
    assert "mean" in call("nas-evaluate", "trained", "--checkpoint", "last").out
    assert_refused(call("nas-evaluate", "search"), "nas-evaluate", "checkpoint of a search")
    several = call("nas-evaluate", "trained", "--scales", "li3", "--flip", "--device=cpu")
    assert "scales 0.5, 1, 1.75, each also mirrored" in several.out
    written = json.loads(Path("trained/evaluation-val-best-scales-0.5-1-1.75-flip.json").read_text())
    assert (written["scales"], written["flip"]) == ([0.5, 1.0, 1.75], True)
    assert json.loads(Path("trained/evaluation-val-best.json").read_text()) == measured
    for command, run, owner in (("nas-search", "trained", "nas-retrain"), ("nas-retrain", "search", "nas-search")):
        right = f"{run} is a run of {owner}: resume it with {owner} --resume {run}"
        assert_refused(call(command, f"--resume={run}"), command, right)
    Path("search/config.yaml").write_text("epochs: 3\n")
    says = "search/config.yaml does not name the command"
    assert_refused(call("nas-search", "--resume=search"), "nas-search", says)

    Path("images").mkdir()
    generator = np.random.default_rng(0)
    sizes = {"wide": (33, 50), "odd": (41, 37)}
    for name, (height, width) in sizes.items():
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(f"images/{name}.png")
    done = call("nas-predict", "trained", "images", "--out", "masks", "--device", "cpu")
    assert (done.code, done.out) == (0, "wrote 2 masks and overlays into masks\n")
    for name, (height, width) in sizes.items():
        mask = Image.open(f"masks/{name}.png")
        assert (mask.size, mask.mode) == ((width, height), "P")
        assert np.asarray(mask).max() < 6
        assert Image.open(f"masks/{name}_overlay.png").size == (width, height)


def test_a_genotype_edited_by_hand_is_never_lost(call: Run, tmp_path: Path) -> None:
    space = SearchSpace("s", 2, 2, 1, 2, ("skip", "separable_3x3"))
    alpha, beta = np.array([[0.9, 0.1], [0.8, 0.2]]), np.zeros((2, 2, 3))
    beta[0, 0, 1:] = beta[1, 0, 1:] = beta[1, 1, :2] = (0.75, 0.25)
    found = decode(space, alpha, beta)
    edited = replace(found, cell=(Block(("l-2", "l-1"), ("separable_3x3", "skip")),), path=(8, 8))
    text = edited.save("hand.json").read_text()

    done = call("nas-decode", "hand.json", "--draw", "cell.svg")
    assert done.code == 0 and "edited by hand" in done.out
    assert Path("hand.json").read_text() == text
    shown = json.loads(call("nas-decode", "hand.json", "--as-is", "--json").out)
    assert shown["path"] == [8, 8] and shown["cell"][0]["operations"] == ["separable_3x3", "skip"]
    assert call("nas-decode", "hand.json", "-o", "hand.json").code == 0
    assert load_genotype("hand.json").cell == found.cell


def test_the_numbers_of_a_space_file_hold_against_those_of_a_recipe(call: Run, tmp_path: Path) -> None:
    text = yaml.safe_dump({"name": "mine", "layers": 5, "levels": 2, "blocks": 1, "operations": ["skip", "atrous_3x3"]})
    Path("mine.yaml").write_text(text)
    printed = settings_of(call("nas-search", "--space=mine.yaml", "--blocks=3", "--print_config"))
    assert (printed["layers"], printed["levels"], printed["blocks"]) == (None, None, 3)
    Path("epochs.yaml").write_text("epochs: 3\nlevels: 1\n")
    words = ["--space=mine.yaml", "--recipe=small", "--config=epochs.yaml", "--print_config"]
    printed = settings_of(call("nas-search", *words))
    assert [printed[name] for name in ("epochs", "layers", "levels", "blocks")] == [3, None, 1, None]
    shipped = settings_of(call("nas-search", "--space=autodeeplab", "--print_config"))
    assert (shipped["layers"], shipped["blocks"]) == (4, 2)


def test_a_trained_run_is_described_with_its_own_widths(call: Run, tmp_path: Path) -> None:
    widths = {"filter_multiplier": 1, "stem_channels": "[4,4]", "aspp_channels": 4, "decoder_channels": 4}
    narrow = [f"--network.{name}={width}" for name, width in (widths | {"low_level_channels": 4}).items()]
    assert call("nas-retrain", "auto-deeplab-s", *narrow, "--epochs=1", "--out=trained", *TINY).code == 0
    own = json.loads(call("nas-describe", "trained", "--input=33x33", "--json").out)
    given = json.loads(call("nas-describe", "auto-deeplab-s", *narrow, "--classes=6", "--input=33x33", "--json").out)
    assert own["parameters"] == given["parameters"]
    assert own["multiply_adds"] == given["multiply_adds"]
    assert_refused(call("nas-describe", "trained", "--classes=3"), "nas-describe", "leave them out")
