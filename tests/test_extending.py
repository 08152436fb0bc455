"""Operations, spaces, data sets, metrics from outside: the files and commands of docs/extending.md; what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.config import LossNameConfig
from nas.darts import search
from nas.data import (
    DATASETS,
    DataError,
    SegmentationDataset,
    evaluation_loader,
    open_dataset,
    register_dataset,
)
from nas.data.check.checking import check, open_splits
from nas.evaluation.cost import measure
from nas.evaluation.metrics import METRICS, ConfusionMatrix, epoch_text, labelled, numbers, register_metric
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.training.losses import LOSSES, make_loss
from nas.training.optimizers import OPTIMIZERS
from search_spaces import extensions
from search_spaces.extensions import ExtensionError, load_extensions, loaded_extensions
from search_spaces.genotype import load_genotype
from search_spaces.modules import BatchNorm
from search_spaces.operations import OPERATIONS, Cost
from search_spaces.space import load
from test_data_sets import contract
from tiny import command, refused, searching, without_pictures

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = {name: text for text, name in re.findall(r"```(?:python|yaml)\n(# ([\w.]+)\n.*?)```", PAGE, re.DOTALL)}
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (nas-.*)$", PAGE, re.MULTILINE)]
TINY = {
    "nas-search": "--epochs 1 --architecture.start_epoch 0 --loader.train_limit 4 --loader.val_limit 2 "
    "--loader.batch_size 2 --layers 2 --blocks 1 --quiet",
    "nas-retrain": "--epochs 1 --loader.train_limit 2 --loader.val_limit 2 --loader.batch_size 2 "
    "--loader.augment.crop [65,65] --quiet",
    "nas-decode": "--input 65x65 --network.filter_multiplier 2",
}
"""Options that make the commands of the page a matter of seconds."""


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a test registers and imports is gone after it; the files of the page are in its folder."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extensions, "_LOADED", {})
    monkeypatch.setattr(extensions, "_PLUGINS", None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("NAS_EXTENSIONS", raising=False)
    modules = set(sys.modules)
    with ExitStack() as registries:
        for registry in (OPERATIONS, DATASETS, METRICS, LOSSES, OPTIMIZERS):
            registries.enter_context(registry.temporarily())
        yield
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_city(root: Path) -> Path:
    """A picture a split: `train` has 4 tiles of 128x128, and a rest; `val` has 2."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for split, size in (("train", (256, 300)), ("val", (130, 256))):
        np.save(root / f"{split}_image.npy", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        np.save(root / f"{split}_label.npy", rng.integers(0, 3, size, dtype=np.uint8))
    return root


# The page


def test_the_page_has_the_files() -> None:
    assert set(FILES) == {"partial_convolution.py", "partial.yaml", "mosaic.py", "kappa.py", "focal.py", "radam.py"}
    assert all(len(text.splitlines()) <= 60 for text in FILES.values())
    assert {words[0] for words in COMMANDS} >= {"nas-search", "nas-decode", "nas-describe", "nas-retrain", "nas-data"}


def test_every_file_linked_is_there() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGE)]
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_operation_is_searched_with_decoded_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    monkeypatch.setenv("NAS_EXTENSIONS", "./partial_convolution.py")
    options = ["--recipe", "small", "--space", "partial.yaml", "--out", "run", *TINY["nas-search"].split()]
    searched = command("nas-search", *options)
    assert searched.code == 0, searched.err
    found = load_genotype("run/genotype.json")
    assert found.space == dataclasses.replace(load("partial.yaml"), layers=2, blocks=1)
    assert found.space.operations[-1] == "partial_3x3"
    first = Path("run/log.txt").read_text(encoding="utf-8").splitlines()[0]
    digest = hashlib.sha256(FILES["partial_convolution.py"].encode()).hexdigest()
    assert first.endswith(f"extensions: {Path('partial_convolution.py').resolve()} (SHA-256 {digest[:12]})")
    for block in found.cell:
        object.__setattr__(block, "operations", ("partial_3x3", "partial_3x3"))
    file = found.save("mine.json")
    decoded = command("nas-decode", file, "--as-is")
    assert decoded.code == 0 and decoded.out.count("partial_3x3") == 2
    described = command("nas-describe", file, "--network.filter_multiplier", "2", "--input", "65x65", "--json")
    assert described.code == 0, described.err


@pytest.mark.parametrize("stride", [1, 2])
def test_the_operation_keeps_the_contract(stride: int) -> None:
    load_extensions("partial_convolution.py")
    module = OPERATIONS["partial_3x3"].build(6, stride, BatchNorm).train()
    x = torch.randn(2, 6, 9, 7, requires_grad=True)
    y = module(x, 0)
    assert y.shape == (2, 6, -(-9 // stride), -(-7 // stride))
    y.square().sum().backward()
    assert all(value.grad is not None for value in module.parameters())
    assert measure(module, (9, 7), channels=6) == OPERATIONS["partial_3x3"].cost(6, 9, 7, stride)
    # By hand: 3x3 on ceil(6 / 4) = 2 channels, then 1x1 on 6; a scale and a shift each.
    assert OPERATIONS["partial_3x3"].cost(6, 9, 7, 1) == Cost(9 * 4 + 36 + 12, 72 * 63)


def test_the_data_set_is_checked_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_city(Path("city"))
    monkeypatch.setenv("NAS_EXTENSIONS", "./mosaic.py")
    checked = command("nas-data", "check", "mosaic", root, "--json")
    assert checked.code == 0, checked.err
    report = json.loads(checked.out)
    assert [(part["split"], part["samples"]) for part in report["splits"]] == [("train", 4), ("val", 2)]
    dataset = open_dataset("mosaic", root, "train")
    contract(dataset)
    np.testing.assert_array_equal(dataset.read(3)[0], np.load(root / "train_image.npy")[128:256, 128:256])
    before = dataset.identity(0)
    os.utime(root / "train_label.npy", ns=(1, 1))
    assert dataset.identity(0) != before
    assert "expected SPLIT_image.npy and SPLIT_label.npy" in refused("nas-data", "check", "mosaic", "nowhere")


def test_a_reader_that_breaks_its_word_is_found_out_by_the_check() -> None:
    class Wrong(SegmentationDataset):
        name, split, classes = "wrong", "train", ("a", "b")
        colors = np.zeros((2, 3), dtype=np.uint8)
        samples = (
            (np.zeros((4, 5, 3), np.uint8), np.full((4, 5), 255, np.uint8)),
            (np.zeros((4, 5, 3), np.int64), np.zeros((4, 5), np.uint8)),
            (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8)),
            (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 1), np.uint8)),
            (np.zeros((4, 5, 3), np.uint8), np.full((4, 5), 2, np.uint8)),
        )

        def __init__(self, split: str) -> None:
            pass

        def __len__(self) -> int:
            return len(self.samples)

        def read(self, index: int):  # type: ignore[no-untyped-def]
            return self.samples[index]

        def sample_name(self, index: int) -> str:
            return str(index)

    register_dataset("wrong", needs_root=False, summary="", splits=lambda: ["train"])(Wrong)
    missing, *problems = check(open_splits("wrong")).problems
    assert (missing.split, missing.kind) == ("val", "split")
    assert [problem.kind for problem in problems] == ["sample"] * 4 + ["labels"]
    assert "wrong train 1: the image is int64 [4, 5, 3]: expected uint8, uint16, float32" in problems[0].message
    assert "wrong train 2: the image is uint8 [4, 5, 3], the label uint8 [5, 4]: expected an" in problems[1].message
    assert "the label uint8 [4, 5, 1]: expected an image [H, W, C] and a label uint8 [H, W]" in problems[2].message
    assert "wrong train 4: the label has 2: expected class ids from 0 to 1, and 255" in problems[3].message
    Wrong.colors = np.zeros((3, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=r"has 2 classes and colors of shape \[3, 3\]"):
        open_dataset("wrong", None, "train")
    del Wrong.colors
    with pytest.raises(DataError, match="data set 'wrong' does not set colors"):
        open_dataset("wrong", None, "train")


def test_a_worker_reads_the_data_set() -> None:
    load_extensions("mosaic.py")
    dataset = open_dataset("mosaic", make_city(Path("city")), "val")
    with evaluation_loader(dataset, workers=1) as loader:
        assert [int(index) for _, _, index in loader] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted({"spawn", "forkserver"} & set(multiprocessing.get_all_start_methods())))
def test_a_worker_that_is_not_forked_imports_the_file(method: str) -> None:
    root = make_city(Path("city"))
    program = write(
        "program.py",
        "import multiprocessing, sys\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n"
        "    from cli import common\n"
        "    def main(words):\n"
        "        from nas.data import open_dataset, evaluation_loader\n"
        "        dataset = open_dataset('mosaic', words[0], 'val')\n"
        "        with evaluation_loader(dataset, workers=1) as loader:\n"
        "            print(sum(image.shape[-1] for image, label, index in loader))\n"
        "    common.run('nas-data', main)\n",
    )
    done = outside([str(program), str(root)], NAS_EXTENSIONS="mosaic.py")
    assert (done.returncode, done.stdout) == (0, "256\n"), done.stderr


def outside(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process and a folder that are not the checkout's."""
    everything = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *words], env=everything, capture_output=True, text=True, check=False)


def test_a_command_outside_the_checkout_knows_the_operation() -> None:
    words = ["-m", "cli.describe", "--space", "partial.yaml", "--yaml"]
    done = outside(words, NAS_EXTENSIONS=f"partial_convolution.py{os.pathsep}./partial_convolution.py")
    assert done.returncode == 0 and "- partial_3x3\n" in done.stdout, done.stderr


def test_without_its_file_an_operation_is_unknown_in_one_line() -> None:
    assert refused("nas-describe", "--space", "partial.yaml").endswith("one of your own: NAS_EXTENSIONS=FILE.py\n")


def test_the_metric_by_hand() -> None:
    load_extensions("kappa.py")
    matrix = ConfusionMatrix(2)
    matrix.merge(np.array([[20, 5], [10, 15]]))
    # Of 50 pixels 35 are right; by chance (25 * 30 + 25 * 20) / 50**2 = 0.5 of them: (0.7 - 0.5) / (1 - 0.5).
    assert numbers(matrix) == pytest.approx({"miou": (20 / 35 + 15 / 30) / 2, "pixel_accuracy": 0.7, "kappa": 0.4})
    assert epoch_text(numbers(matrix)) == "val mIoU 53.57 %, kappa 0.4000"
    one_class = ConfusionMatrix(2)
    one_class.merge(np.array([[3, 0], [0, 0]]))
    assert np.isnan(numbers(one_class)["kappa"])


def test_one_file_adds_operation_data_set_and_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    make_city(Path("city"))
    write("mine.py", "\n".join(FILES[name] for name in ("partial_convolution.py", "mosaic.py", "kappa.py")))
    monkeypatch.setenv("NAS_EXTENSIONS", "mine.py")
    data = ("--data", "mosaic", "--data-root", "city")
    tiny = {name: options.replace("--quiet", "").split() for name, options in TINY.items()}
    words = ["--recipe", "small", "--space", "partial.yaml", *data, "--out", "found", *tiny["nas-search"]]
    searched = command("nas-search", *words)
    assert searched.code == 0, searched.err
    value = read_metrics("found")[-1]["val"]["kappa"]
    assert re.search(rf"val mIoU \d+\.\d\d %, kappa {value:.4f}, path ", searched.out)
    words = ["found/genotype.json", "--recipe", "small", *data, "--out", "trained", *tiny["nas-retrain"]]
    trained = command("nas-retrain", *words)
    assert trained.code == 0, trained.err
    table, printed = command("nas-evaluate", "trained"), command("nas-evaluate", "trained", "--json")
    kappa = json.loads(printed.out)["metrics"]["kappa"]
    assert kappa == pytest.approx(read_metrics("trained")[-1]["val"]["kappa"])
    assert f"%, kappa {kappa:.4f} on 2 images of mosaic, split val" in table.out
    reported = command("nas-report", "found", "trained", "--out", "report.html")
    assert reported.code == 0, reported.err
    page = Path("report.html").read_text(encoding="utf-8")
    for shown in ("validation kappa, best", f"{value:.4f}", "kappa measured, val-best", f"{kappa:.4f}"):
        assert shown in page


def test_the_loss_by_hand() -> None:
    load_extensions("focal.py")
    # Probabilities 3/4 and 1/4 of the right class, and an ignored pixel: the mean of (1/4)**g * ln(4/3) and
    # (3/4)**g * ln 4.
    logits = torch.tensor([[[[math.log(3.0), math.log(3.0), 5.0]], [[0.0, 0.0, 0.0]]]])
    labels = torch.tensor([[[0, 1, 255]]])
    for gamma in (0.0, 1.5):
        loss = make_loss(LossNameConfig("focal", {"gamma": gamma}), 2, torch.device("cpu"))
        expected = (0.25**gamma * math.log(4 / 3) + 0.75**gamma * math.log(4)) / 2
        assert loss(logits, labels).item() == pytest.approx(expected)
    assert make_loss(LossNameConfig("focal"), 2, torch.device("cpu"))(logits, torch.full((1, 1, 3), 255)).item() == 0


def test_a_loss_and_an_optimiser_of_ones_own_are_searched_and_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    monkeypatch.setenv("NAS_EXTENSIONS", os.pathsep.join(["focal.py", "radam.py"]))
    own = ["--loss.name", "focal", "--loss.options", "{gamma: 1.5}"]
    words = ["--recipe", "small", *TINY["nas-search"].split(), *own, "--architecture.optimizer", "radam"]
    searched = command("nas-search", *words, "--out", "found")
    assert searched.code == 0, searched.err
    own += ["--loss.class-weights", "none", "--optimizer.name", "radam"]
    words = ["--recipe", "small", *TINY["nas-retrain"].split(), *own]
    trained = command(
        "nas-retrain", "found/genotype.json", *words, "--optimizer.options", "{eps: 1e-6}", "--out", "trained"
    )
    assert trained.code == 0, trained.err
    groups = load_checkpoint(Path("trained/checkpoint.pt"), "retrain")["stepper"]["optimizer"]["groups"]
    assert {group["eps"] for group in groups} == {1e-6}
    resumed = command("nas-retrain", "--resume", "trained", "--epochs", "2", "--quiet")
    assert resumed.code == 0 and len(read_metrics("trained")) == 2, resumed.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loss.name", "focall"], "loss.name is 'focall': give one of cross_entropy, focal, or"),
        (["--loss.name", "focal", "--loss.options", "{gama: 1}"], "unknown setting loss.options.gama"),
        (["--loss.name", "focal", "--loss.options", "{gamma: -1}"], "gamma is -1"),
        (["--loss.options", "{gamma: 1}"], "loss.options has gamma, but there are no such options"),
        (
            ["--loss.name", "focal", "--loss.class-weights", "inverse_log"],
            "loss.class_weights has no effect on the loss",
        ),
        (["--optimizer.options", "{beta: 1}"], "unknown setting optimizer.options.beta: give one of eps"),
        (["--optimizer.name", "radma"], "optimizer.name is 'radma': give one of sgd, adam, radam, or"),
    ],
)
def test_options_that_a_loss_or_an_optimiser_has_not(
    options: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_EXTENSIONS", os.pathsep.join(["focal.py", "radam.py"]))
    words = ["fplnet", "--recipe", "small-published", *TINY["nas-retrain"].split(), "--out", "trained", *options]
    done = command("nas-retrain", *words)
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1
    assert not Path("trained").exists()


@pytest.mark.slow
def test_every_command_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    make_city(Path("city"))
    named = ""
    for line in re.findall(r"^    (export NAS_EXTENSIONS=.*|nas-.*)$", PAGE, re.MULTILINE):
        if line.startswith("export"):
            named = line.partition("=")[2].partition(" ")[0]
            continue
        name, *words = shlex.split(line)
        done = outside(
            ["-m", f"cli.{name.removeprefix('nas-')}", *words, *TINY.get(name, "").split()], NAS_EXTENSIONS=named
        )
        assert done.returncode == 0, (line, named, done.stderr)
    monkeypatch.setenv("NAS_EXTENSIONS", "./partial_convolution.py")
    assert load_genotype("runs/partial/genotype.json").space.name == "partial"
    assert read_metrics("runs/mosaic")[-1]["epoch"] == 0
    exported = command("nas-export", "runs/partial-trained", "--onnx", "net.onnx")
    assert exported.code == 0, exported.err


# Registering


def test_a_file_is_loaded_once_by_whatever_name() -> None:
    path = Path("partial_convolution.py")
    names = os.pathsep.join(map(str, [path, path.resolve(), f"./{path}", "", path.stem]))
    assert [extension.name for extension in load_extensions(names)] == [str(path.resolve())]
    assert load_extensions(str(path)) == loaded_extensions() != ()


def test_without_the_variable_nothing_is_loaded() -> None:
    path = list(sys.path)
    assert load_extensions() == () and sys.path == path


REGISTER = "from search_spaces import register_operation\n\nregister_operation({})(print)\n"
REFUSED = {
    "broken.py": ("def f(:\n", "broken.py, line 1: SyntaxError: invalid syntax"),
    "raising.py": ("x = 1\nraise KeyError('x')\n", "raising.py, line 2: KeyError: 'x'"),
    "ending.py": ("import sys\nsys.exit('enough')\n", "ending.py, line 2: SystemExit: enough"),
    "needing.py": ("import no_such_module\n", "needing.py, line 1: No module named 'no_such_module'"),
    "taken.py": (
        REGISTER.format("'skip', label='a', color='#000000', cost=print"),
        "taken.py, line 3: candidate operation 'skip' is registered already: choose another name",
    ),
    "missing.py": (
        REGISTER.format("'a', label='a', color='#000000'"),
        "missing.py, line 3: TypeError: register_operation() missing 1 required keyword-only argument: 'cost'",
    ),
    "called.py": (
        REGISTER.format("'3x3', label='a', color='#000000', cost=print"),
        "called.py, line 3: candidate operation '3x3': name is '3x3': give letters, digits and underscores",
    ),
    "red.py": (
        REGISTER.format("'a', label='a', color='red', cost=print"),
        "red.py, line 3: candidate operation 'a': color is 'red': give #RRGGBB",
    ),
    "wide.py": (
        REGISTER.format("'a', label='a label too long', color='#000000', cost=print"),
        "label is 'a label too long': give 1 to 11 characters",
    ),
    "costly.py": (REGISTER.format("'a', label='a', color='#000000', cost=3"), "cost is 3: give a function of"),
    "shipped.py": (
        "import nas.data\nnas.data.register_dataset('camvid', needs_root=False, summary='')(print)\n",
        "shipped.py, line 2: data set 'camvid' is registered already: choose another name",
    ),
    "incomplete.py": (
        "from nas.data import SegmentationDataset, register_dataset\n"
        "@register_dataset('mine', needs_root=False, summary='')\n"
        "class Mine(SegmentationDataset):\n    pass\n",
        "data set 'mine' has no __len__ and no read and no sample_name: see SegmentationDataset",
    ),
    "random.py": ("", "random.py has the name of another module ("),
    "my-operation.py": ("", "my-operation.py cannot be imported by that name: take one such as my_operation.py"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_ends_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = REFUSED[name]
    monkeypatch.setenv("NAS_EXTENSIONS", str(write(f"bad/{name}", text)))
    said = refused("nas-describe", "--space", "partial.yaml")
    assert said.startswith("nas-describe: NAS_EXTENSIONS: ") and expected in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere.py", "there is no file nowhere.py: name Python files or modules"),
        (
            "no_such_module",
            "there is no module no_such_module; a file is named with its ending, such as ./no_such_module.py",
        ),
        ("no.such.module", "there is no module no.such.module"),
        ("sys", "sys is no file of Python"),
    ],
)
def test_what_is_not_there_ends_in_one_line(name: str, expected: str) -> None:
    with pytest.raises(ExtensionError, match=re.escape(expected)):
        load_extensions(name)


def test_an_unknown_data_set_says_where_others_come_from() -> None:
    assert "; one of your own: NAS_EXTENSIONS=FILE.py" in refused("nas-data", "check", "mosaic", "city")


# Metrics


def test_metrics_in_words() -> None:
    register_metric("distance", label="distance", percent=False, higher_is_better=False)(lambda matrix: 0.5)
    assert labelled({"miou": 0.5, "distance": 2, "pixel_accuracy": None}) == [
        "mIoU 50.00 %",
        "distance 2.0000",
        "pixel accuracy --",
    ]


@pytest.mark.parametrize(
    ("name", "compute", "expected"),
    [
        ("miou", len, "metric 'miou' is registered already"),
        ("mean IoU", len, "metric 'mean IoU': give a name of letters, digits and underscores"),
    ],
)
def test_a_metric_that_cannot_be(name: str, compute: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        register_metric(name, label="x")(compute)


@pytest.mark.parametrize("compute", [3, lambda matrix: None, lambda matrix: 1 / 0])
def test_a_metric_that_fails_is_named(compute: Any) -> None:
    register_metric("mine", label="mine")(compute)
    with pytest.raises(ValueError, match=r"^metric 'mine': (TypeError|ZeroDivisionError): [^\n]*; fix its function$"):
        numbers(ConfusionMatrix(2))


# Plugins


def install(name: str, text: str, folder: str = "site") -> Path:
    """What pip leaves of a distribution `nas-NAME` 1.2 with one module, which is a plugin."""
    write(f"{folder}/{name}.py", text)
    write(f"{folder}/nas_{name}-1.2.dist-info/METADATA", f"Metadata-Version: 2.1\nName: nas-{name}\nVersion: 1.2\n")
    write(f"{folder}/nas_{name}-1.2.dist-info/entry_points.txt", f"[nas_segmentation.plugins]\n{name} = {name}\n")
    return Path(folder).resolve()


PLUGIN = f"""{FILES["partial_convolution.py"]}
{FILES["kappa.py"]}
from search_spaces import OPERATIONS
assert "other" not in OPERATIONS
"""
"""Asks for a name itself while it is loaded."""


def test_a_plugin_is_loaded_when_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install("ghost", PLUGIN))
    assert "skip" in OPERATIONS and "runs/x" not in OPERATIONS and "genotype.json" not in OPERATIONS
    assert loaded_extensions() == ()
    assert load("partial.yaml").operations[-1] == "partial_3x3"
    assert list(map(str, loaded_extensions())) == ["ghost (nas-ghost 1.2)"]
    assert "kappa" in METRICS
    with pytest.raises(ValueError, match=r"unknown candidate operation 'other': choose one of .*partial_3x3"):
        OPERATIONS.get("other")  # and nothing is loaded a second time


def test_a_run_has_the_metrics_of_plugins_and_names_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_pictures(monkeypatch)
    monkeypatch.syspath_prepend(install("ghost", FILES["kappa.py"]))
    search(searching(tmp_path, epochs=1), quiet=True)
    assert "kappa" in read_metrics("run")[0]["val"]
    assert Path("run/log.txt").read_text(encoding="utf-8").splitlines()[0].endswith("extensions: ghost (nas-ghost 1.2)")
    report = "from retrain.report import make_report, read_run; print('kappa, last' in make_report([read_run('run')]))"
    done = outside(["-c", report], PYTHONPATH=f"{ROOT}{os.pathsep}{Path('site').resolve()}")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize("text", ["x = 1\nraise KeyError('x')\n", "x = 1\nimport no_such_module\n"])
def test_a_plugin_that_cannot_be_loaded_is_named_in_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install("ghost", text))
    said = refused("nas-describe", "--space", "partial.yaml")
    assert said.startswith("nas-describe: partial.yaml: plugin of nas-ghost 1.2: ghost, line 2: ")
    assert said.endswith("; install another version of nas-ghost, or uninstall it\n")
    assert command("nas-describe", "--space", "autodeeplab").code == 0, "nothing unknown was asked for"


@pytest.mark.parametrize("by", ["plugin", "file"])
def test_a_process_that_is_not_forked_finds_the_name(by: str) -> None:
    program = write(
        "program.py",
        "import multiprocessing\n"
        "from search_spaces import OPERATIONS\n"
        "def label(name):\n"
        "    return OPERATIONS[name].label\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(label, ('partial_3x3',)))\n",
    )
    if by == "plugin":
        site = install("ghost", FILES["partial_convolution.py"])
        done = outside([str(program)], PYTHONPATH=f"{ROOT}{os.pathsep}{site}")
    else:
        done = outside([str(program)], NAS_EXTENSIONS="partial_convolution.py")
    assert (done.returncode, done.stdout) == (0, "part 3x3\n"), done.stderr
