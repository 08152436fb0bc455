"""The benchmarks: what they measure on tiny things, their tables, and the documents that they made."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks import decoding, documents, networks, operations, scaling, startup, supernet
from benchmarks.config import (
    AXES,
    VARIANTS,
    DecodingBench,
    NetworksBench,
    OperationsBench,
    ScalingBench,
    StartupBench,
    SupernetBench,
)
from benchmarks.measuring import Dispatched, PeakMemory, copy_speed, in_turn, largest, launches, protocol_hours
from benchmarks.trial import Remote, Trial
from cli import bench, common
from decoders import decode
from nas.config import AugmentConfig, LoaderConfig
from nas.evaluation.cost import measure
from nas.supernet.network import Supernet
from retrain.config import RetrainConfig
from retrain.export import open_session, run_session
from retrain.networks import NETWORKS, build
from retrain.networks.published import main_names
from retrain.training import train
from search_spaces.operations import OPERATIONS
from search_spaces.space import SearchSpace, load

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \|(?P<cells>.*)\|$", re.MULTILINE)
TINY = SearchSpace("tiny", 2, 2, 1, 2, ("none", "skip", "separable_3x3"))


def rows(text: str) -> dict[str, list[str]]:
    return {row["name"]: [cell.strip() for cell in row["cells"].split("|")] for row in ROW.finditer(text)}


# Documents


@pytest.mark.parametrize("name", main_names())
def test_the_documented_numbers_are_the_codes(name: str) -> None:
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    documented = rows(text.partition(documents.BEGIN)[2].partition(documents.END)[0])
    assert set(documented) == set(main_names())
    record = NETWORKS[name]
    with torch.device("meta"):
        cost = measure(build(name, record.classes), networks.COST_SIZE)
    description, printed, parameters, classes, multiply_adds, *_ = documented[name]
    assert (description, printed, int(classes)) == (record.description, record.printed or "", record.classes)
    assert parameters == f"{cost.parameters:,}"
    assert multiply_adds == f"{cost.multiply_adds / 1e9:.3f}"


GENERATED = sorted([ROOT / "docs" / "networks.md", *(ROOT / "benchmarks").glob("*.md")])


@pytest.mark.parametrize("file", GENERATED, ids=[file.name for file in GENERATED])
def test_the_documents_commands_are_understood(file: Path) -> None:
    before, after = documents.split(file)
    commands = re.findall(r"^    nas-bench (\S+) (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands and before and after
    for verb, rest in commands:
        bench.read(verb, rest.split())


def test_a_table_goes_between_the_markers(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    file.write_text(f"before\n{documents.BEGIN}\nold\n{documents.END}\nafter\n")
    documents.put("| new |", file)
    assert file.read_text() == f"before\n{documents.BEGIN}\n| new |\n\n{documents.END}\nafter\n"
    file.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        documents.put("| new |", file)
    with pytest.raises(ValueError, match=r"nothing\.md cannot be read"):
        documents.split(tmp_path / "nothing.md")


# Settings and the command


CONFIGS = [
    ("supernet", SupernetBench(spaces=("autodeeplab",), crops=(33, 65), layers=3, largest_batch=True)),
    ("scaling", ScalingBench(vary=("crop",), at=(33, 65), variant="plain")),
    ("scaling", ScalingBench()),
    ("networks", NetworksBench(networks=("espnet", "my file.json"), sizes=(), modes=("training",))),
    ("networks", NetworksBench(relative_to="espnet", precision="bfloat16")),
    ("networks", NetworksBench(networks=("runs/x",), onnx=("a.onnx", "b.onnx"), modes=("inference",))),
    ("operations", OperationsBench(shapes=("1x2x3x4", "2x4x9x7"), only_operations=True)),
    ("decoding", DecodingBench(repeats=3)),
    ("startup", StartupBench(commands=("nas-search", "nas-decode"))),
]


@pytest.mark.parametrize(("verb", "config"), CONFIGS)
def test_the_printed_command_measures_the_same_again(verb: str, config: Any) -> None:
    words = shlex.split(documents.command(verb, config))
    assert words[:2] == ["nas-bench", verb]
    assert bench.read(verb, words[2:])[0] == config


def test_every_verb_is_tested_above() -> None:
    assert {verb for verb, _ in CONFIGS} == set(bench.VERBS)


def test_the_help_of_a_verb_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom cli.bench import VERBS, make_verb_parser\n"
        "texts = [make_verb_parser(verb).format_help() for verb in VERBS]\n"
        "print(all(texts), [name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


REFUSED = [
    ("", "VERB is missing"),
    ("supernt", "no verb 'supernt'; did you mean supernet? choose one of supernet, scaling"),
    ("supernet --crops", "crops is empty: give 1 or more"),
    ("supernet --crops a", "--crops is 'a': expected a whole number"),
    ("supernet --crops 33 0", "crops[1] is 0: give a whole number from 1"),
    ("supernet --crops 33 33", "crops is [33, 33]: give each one once"),
    ("supernet --variants quick", "variants has 'quick': give some of plain, fast"),
    ("supernet --spaces nothing", "no search space 'nothing': choose one of autodeeplab"),
    ("supernet --batch-size 1", "batch_size is 1: give a whole number from 2"),
    ("supernet --together 1", "together is 1: give"),
    ("supernet --layers 0", "layers is 0: give"),
    ("supernet --threads 0", "threads is 0: give"),
    ("supernet --precision int8", "--precision is 'int8': expected one of float32"),
    ("supernet --largest-batch", "largest_batch is for a GPU"),
    ("supernet --device tpu", "device is 'tpu'"),
    ("supernet --crop 33", "there is no option --crop; did you mean --crops?"),
    ("scaling --vary depth", "vary has 'depth': give some of layers"),
    ("scaling --vary", "vary is empty: give 1 or more"),
    ("scaling --at 3", "at is 3, but 6 things are varied: name one with --vary"),
    ("scaling --vary operations --at 9", "at has 9 operations, but autodeeplab has 8"),
    ("scaling --vary operations --at 1", "the first of autodeeplab is none: give at least 2"),
    ("scaling --vary batch_size --at 1", "at[0] is 1: give a whole number from 2"),
    ("scaling --vary blocks --at 99", "blocks is 99"),
    ("scaling --variant slow", "variant is 'slow': give one of plain"),
    ("scaling --plot curves.bmp", "plot is 'curves.bmp': give a name that ends in .svg, .png"),
    ("networks --networks nothing", "no published network and no genotype file 'nothing'"),
    ("networks --sizes 512", "sizes has '512': give 2 numbers of at least 1"),
    ("networks --sizes 0x9", "sizes has '0x9': give 2 numbers of at least 1"),
    ("networks --modes sleeping", "modes has 'sleeping': give some of inference, training"),
    ("networks --relative-to nothing --sizes 9x9", "no genotype file 'nothing'"),
    ("networks --relative-to espnet --sizes", "but there are no sizes"),
    ("networks --onnx x.onnx --modes training", "onnx is x.onnx: files are timed by --modes inference"),
    ("networks --onnx x.onnx --sizes", "onnx is x.onnx: files are timed by"),
    ("networks --onnx x.onnx --relative-to espnet", "without --relative-to"),
    ("networks --onnx x.onnx --device cuda", "on --device cpu"),
    ("networks --onnx nothing.onnx", "nothing.onnx is no file: name an ONNX file, such as nas-export writes"),
    ("network --networks .", "best.pt does not exist: name a run folder that has a checkpoint"),
    ("operations --shapes 40x81", "shapes has '40x81': give 4 numbers"),
    ("operations --slow-repeats 0", "slow_repeats is 0: give"),
    ("decoding --repeats 0", "repeats is 0: give a whole number from 1"),
    ("decoding --into nothing.md", "nothing.md cannot be read as text: name a Markdown file"),
    ("startup --commands nas-nothing", "commands has 'nas-nothing', which does not run here"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_a_wrong_line_is_refused_in_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        common.run("nas-bench", bench.main, line.split())
    text = capsys.readouterr()
    assert stop.value.code == 2 and text.out == ""
    assert text.err.startswith("nas-bench: ") and text.err.count("\n") == 1
    assert message in text.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("verb", ["supernet", "scaling", "networks", "operations"])
def test_a_missing_gpu_is_refused(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        common.run("nas-bench", bench.main, [verb, "--device", "cuda"])
    assert "PyTorch sees 0 GPUs here: use --device cpu" in capsys.readouterr().err


def test_the_command_prints_json_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "decoding.md"
    file.write_text(f"before\n{documents.BEGIN}\n{documents.END}\nafter\n")
    bench.main(["decoding", "--repeats", "1", "--json", "--into", str(file)])
    data = json.loads(capsys.readouterr().out)
    assert decoding.make_table(data) in file.read_text()


# Tools


def test_works_take_turns_and_the_first_two_rounds_do_not_count() -> None:
    calls: list[str] = []

    def work(name: str) -> float:
        calls.append(name)
        return len(calls)

    assert in_turn([lambda: work("a"), lambda: work("b")], 2) == [[5, 7], [6, 8]]
    assert calls == ["a", "b"] * 4


def test_a_copy_has_a_speed() -> None:
    assert copy_speed(torch.device("cpu"), 2**16) > 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory is in use")
def test_the_peak_of_memory_is_what_was_needed_in_between() -> None:
    peak = PeakMemory(torch.device("cpu"))
    torch.ones(2**24)  # 64 MiB
    found = peak.mib()
    assert found is not None and 60 < found < 500


def test_dispatched_operations_and_bytes_by_hand() -> None:
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    with Dispatched() as counted:
        x + y  # reads two tensors of 24 bytes, writes one
    assert (counted.operations, counted.bytes) == (1, 72)
    with Dispatched() as counted:
        x.view(3, 2).t()  # two views
    assert (counted.operations, counted.bytes) == (2, 0)
    with Dispatched() as counted:
        x.add_(y)  # reads two, writes one of them
    assert (counted.operations, counted.bytes) == (1, 72)
    with Dispatched() as counted:
        torch.neg(torch.ones(1).expand(10))  # reads the 4 bytes that are there, writes 40
    assert counted.bytes - 4 == 44  # ones writes 4; expand is a view
    with Dispatched() as counted:
        nn.Parameter(torch.ones(())).mul(2).backward()
    assert counted.operations >= 4, "the backward pass counts"


def test_launches_of_kernels() -> None:
    names = ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaLaunchCooperativeKernel", "cudaMemcpyAsync", "aten::add"]
    assert launches(names) == 3


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 50), st.integers(1, 10), st.integers(1, 50))
def test_the_largest_that_fits(limit: int, low: int, high: int) -> None:
    tried = []

    def fits(number: int) -> bool:
        tried.append(number)
        assert low <= number <= max(low, high)
        return number <= limit

    expected = max([n for n in range(low, max(low, high) + 1) if n <= limit], default=0)
    assert largest(fits, low, max(low, high)) == expected
    assert len(tried) == len(set(tried)) <= 2 + 2 * math.log2(max(low, high))


def test_hours_of_the_papers_protocol_by_hand() -> None:
    # Half of 2,975 images in batches of 2 are 743 steps: 40 epochs of the weights, 20 of alpha and beta.
    assert protocol_hours(3.6, 0) == pytest.approx(743 * 40 / 1000)
    assert protocol_hours(0, 3.6) == pytest.approx(743 * 20 / 1000)
    assert protocol_hours(1, 2, 16) == pytest.approx(92 * (40 + 2 * 20) / 3600)


def test_an_object_in_another_process() -> None:
    with Remote(dict, {"a": 1}) as remote:
        assert (remote.ask("get", "a"), remote.ask("get", "b")) == (1, None)


@pytest.mark.parametrize(
    ("module", "method", "argument", "error"),
    [
        ("math", "sqrt", -1.0, ValueError),
        ("os", "_exit", 3, RuntimeError),
        ("signal", "raise_signal", 9, MemoryError),  # what the system does where memory ends
    ],
)
def test_a_failure_in_another_process(module: str, method: str, argument: Any, error: type[Exception]) -> None:
    with Remote(importlib.import_module, module) as remote, pytest.raises(error):
        remote.ask(method, argument)


# Supernet and scaling


AVAILABLE = [v for v in VARIANTS if v.recompute == "none" or "recompute" in inspect.signature(Supernet).parameters]


@pytest.mark.parametrize("variant", AVAILABLE, ids=[variant.name for variant in AVAILABLE])
def test_a_trial_says_what_its_steps_cost(variant: Any) -> None:
    threads = torch.get_num_threads()
    trial = Trial(TINY, variant, 17, 2, "cpu", threads, "bfloat16")
    before = [p.detach().clone() for p in trial.supernet.parameters()]
    assert trial.step("weight") > 0 and trial.step("architecture") > 0
    assert any(not torch.equal(p, q) for p, q in zip(trial.supernet.parameters(), before, strict=True))
    assert trial.dispatched() > 100
    assert trial.traffic("weight") > sum(p.numel() * 4 for p in trial.supernet.parameters())


def test_variants_are_compared(tmp_path: Path) -> None:
    config = SupernetBench(
        spaces=("autodeeplab-tiny",), crops=(17,), variants=("plain", "fast"), layers=2, blocks=1, repeats=1
    )
    data = supernet.measure(config)
    plain, fast = data["rows"]
    assert (plain["variant"], fast["variant"], plain["crop"]) == ("plain", "fast", 17)
    assert fast["ratios"]["weight"] == plain["weight"] / fast["weight"]
    assert plain["hours"] == protocol_hours(plain["weight"], plain["architecture"])
    assert data["dispatched"][0]["operations"] > data["dispatched"][1]["operations"] > 100
    text = supernet.make_table(json.loads(json.dumps(data)))
    assert f"    {documents.command('supernet', config)}\n" in text
    assert "| `autodeeplab-tiny` | 17 | plain |" in text and "| `autodeeplab-tiny` | fast |" in text


def test_means_are_geometric_and_leave_out_what_did_not_fit() -> None:
    def row(crop: int, variant: str, *ratios: float | None) -> dict[str, Any]:
        names = ("weight", "architecture", "memory")
        return {"space": "s", "crop": crop, "variant": variant, "ratios": dict(zip(names, ratios, strict=True))}

    found = supernet.geometric_means(
        [
            row(1, "plain", 1, 1, 1), row(1, "fast", 2, 3, 0.5), row(1, "fast-node", None, None, None),
            row(2, "plain", 1, 1, 1), row(2, "fast", 8, 3, None), row(2, "fast-node", None, None, None),
        ]
    )  # fmt: skip
    assert (found[0]["variant"], found[1]["variant"]) == ("fast", "fast-node")
    assert [found[0][name] for name in supernet.RATIOS] == pytest.approx([4, 3, 0.5])
    assert [found[1][name] for name in supernet.RATIOS] == [None, None, None]


def test_the_first_variant_is_measured_in_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[list[str]] = []
    costs = {"plain": 4, "fast": 1}

    def cost_in_turn(trials: list[Any], repeats: int, more: list[Any]) -> list[dict[str, Any] | None]:
        names = [variant.name for _, variant, *_ in trials]
        groups.append(names)
        keys = ("weight", "architecture", "memory", *(name for name, *_ in more))
        return [None if name == "fast-node" else dict.fromkeys(keys, costs[name]) for name in names]

    monkeypatch.setattr(supernet, "cost_in_turn", cost_in_turn)
    data = supernet.measure(SupernetBench(spaces=("autodeeplab",), crops=(33, 65)))
    assert groups == [["plain", "fast"], ["plain", "fast-node"]] * 2
    assert [row["ratios"]["weight"] for row in data["rows"]] == [1, 4, None] * 2
    assert [count["operations"] for count in data["dispatched"]] == [4, 1, None]
    assert "| `autodeeplab` | 33 | fast, recompute node | -- | -- |" in supernet.make_table(data)
    groups.clear()
    supernet.measure(SupernetBench(spaces=("autodeeplab",), crops=(33,), together=3))
    assert groups == [["plain", "fast", "fast-node"]]
    groups.clear()
    supernet.measure(SupernetBench(spaces=("autodeeplab",), crops=(33,), variants=("fast",)))
    assert groups == [["fast"]]


def test_a_gpu_has_columns_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alone:
        def __init__(self, *arguments: Any) -> None: ...
        def __enter__(self) -> Alone:
            return self

        def __exit__(self, *arguments: Any) -> None: ...
        def ask(self, method: str) -> int:
            return {"largest_batch": 34}[method]

    def cost_in_turn(trials: list[Any], repeats: int, more: list[Any]) -> list[dict[str, Any] | None]:
        assert all(hasattr(Trial, method) for _, method, *_ in more)
        cost = {"weight": 2, "architecture": 1, "memory": 9, "kernels_weight": 1234, "kernels_architecture": 567}
        return [{**cost, "traffic": 300, "copy_speed": 200, "dispatched": 8} for _ in trials]

    monkeypatch.setattr(supernet, "choose_device", torch.device)
    monkeypatch.setattr(supernet, "hardware", lambda device, threads: "a GPU")
    monkeypatch.setattr(supernet, "Remote", Alone)
    monkeypatch.setattr(supernet, "cost_in_turn", cost_in_turn)
    config = SupernetBench(spaces=("autodeeplab",), crops=(33,), variants=("fast",), device="cuda", largest_batch=True)
    text = supernet.make_table(supernet.measure(config))
    assert "| kernels, weight step | kernels, architecture step | share of a copy's speed | largest batch |" in text
    assert "| 1,234 | 567 | 0.75 | 34 |" in text  # 300 bytes in 2 s, where a copy moves 200 a second


def test_a_line_is_fitted() -> None:
    line = scaling.fit([1, 2, 4], [5, 7, 11])
    assert line == {"start": pytest.approx(3), "slope": pytest.approx(2), "deviation": pytest.approx(0, abs=1e-9)}
    assert scaling.fit([1, 2, 3], [1, 2, 6])["deviation"] == pytest.approx(0.5)  # the line is 0.5, 3, 5.5


def test_every_axis_is_varied_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    def cost_in_turn(trials: list[Any], repeats: int) -> list[dict[str, Any] | None]:
        points = [
            (s.layers, s.blocks, s.filter_multiplier, crop, batch, len(s.operations))
            for s, _, crop, batch, *_ in trials
        ]
        seen.extend(points)
        return [
            None if filters == 16 else {"weight": 3 + 2 * batch, "architecture": layers, "memory": crop * crop}
            for layers, _, filters, crop, batch, _ in points
        ]

    monkeypatch.setattr(scaling, "cost_in_turn", cost_in_turn)
    config = ScalingBench()
    data = scaling.measure(config)
    base = (4, 3, 4, 65, 2, 8)
    for number, axis in enumerate(AXES):
        points = [p for p, row in zip(seen, data["rows"], strict=True) if row["axis"] == axis.name]
        assert points == [(*base[:number], value, *base[number + 1 :]) for value in axis.values]
    lines = {(line["axis"], line["quantity"]): line for line in data["fits"]}
    assert lines["batch_size", "weight"]["slope"] == pytest.approx(2)
    assert lines["crop", "memory"]["slope"] == pytest.approx(1), "crops are compared by their pixels"
    assert {axis for axis, _ in lines} == {"layers", "blocks", "crop", "batch_size"}
    text = scaling.make_table(data)
    assert text.count("| filter multiplier F | ") == 4 and "| filter multiplier F | 16 | -- | -- | -- |" in text
    figure = scaling.draw(data, tmp_path / "scaling.svg")
    assert len(figure.axes) == 2 * len(AXES) and (tmp_path / "scaling.svg").is_file()


# Networks, operations, decoding, startup


def test_networks_have_a_speed_and_so_have_genotype_files() -> None:
    file = str(ROOT / "tests" / "data" / "genotype_v1.json")
    data = networks.measure(NetworksBench(networks=("espnet-c", file), sizes=("16x24",), repeats=1))
    text, _, latency = networks.make_table(data).partition("Latency of one image, over 1 forward passes:")
    found, times = rows(text), rows(latency)
    assert found["espnet-c"][2:4] == ["349,449", "20"] and found[file][3] == "19"
    for name in ("espnet-c", file):
        assert all(float(cell) > 0 for cell in found[name][-2:])
        assert all(float(cell) > 0 for cell in times[name][-3:])


def test_latency_is_of_one_image_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def times(config: NetworksBench, mode: str, names: list[str], shape: tuple[int, ...], device: object) -> Any:
        batches.append(shape[0])
        return [[shape[0] * time for time in (0.010, 0.020, 0.030, 0.040, 0.120)]]

    monkeypatch.setattr(networks, "_times", times)
    config = NetworksBench(networks=("espnet-c",), sizes=("8x8",), modes=("inference",), inference_batch=4)
    data = networks.measure(config)
    assert batches == [4, 1]
    assert data["rows"][0]["speeds"] == {"inference": {"8x8": pytest.approx(4 / 0.120)}}
    # The 95th percentile of five lies 0.8 of the way from the fourth to the fifth.
    expected = pytest.approx({"median": 30, "p95": 40 + 0.8 * 80})
    assert [row["milliseconds"]["8x8"] for row in data["latency"]] == [expected]
    assert rows(networks.make_table(data).partition("Latency")[2])["espnet-c"][1:] == ["33.3", "30", "104"]


def test_runs_and_onnx_files_are_timed(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    images, classes = (onnx.helper.make_tensor_value_info(n, 1, ["N", 3, "H", "W"]) for n in ("images", "logits"))
    node = onnx.helper.make_node("Relu", ["images"], ["logits"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [images], [classes]),
        ir_version=10,
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )
    file, run = str(tmp_path / "x.onnx"), str(tmp_path / "run")
    onnx.save(model, file)
    config = RetrainConfig(
        genotype="espnet-c",
        out=run,
        epochs=1,
        loader=LoaderConfig(train_limit=2, val_limit=1, batch_size=2, augment=AugmentConfig(crop=(9, 9))),
    )
    train(config, quiet=True)
    data = networks.measure(
        NetworksBench(networks=(run,), onnx=(file,), sizes=("9x9",), modes=("inference",), repeats=1)
    )
    (row,) = data["rows"]
    assert (row["paper"], row["classes"]) == ("Runs", 6) and row["parameters"] > 0
    runtimes = {row["name"]: row["runtime"].partition(" ")[0] for row in data["latency"]}
    assert runtimes == {run: "PyTorch", file: "onnxruntime"}
    assert all(row["milliseconds"]["9x9"]["median"] > 0 for row in data["latency"])
    with pytest.raises(ValueError, match="the graph does not run on images of shape"):
        run_session(open_session(file), np.zeros((1, 4, 9, 9), dtype=np.float32))


def test_networks_are_set_beside_another() -> None:
    config = NetworksBench(
        networks=("espnet-c",), sizes=("16x24", "8x8"), modes=("inference",), relative_to="espnet", repeats=1
    )
    text = networks.make_table(networks.measure(config))
    assert "Speed is relative to `espnet`" in text and "| speed at 16x24 | speed at 8x8 |" in text
    assert all(float(cell) > 0 for cell in rows(text)["espnet-c"][-2:])


def test_networks_without_sizes_are_counted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "build", lambda name, classes: name)
    monkeypatch.setattr(networks, "describe", lambda name, size: {"parameters": len(name), "multiply_adds": 10**9})
    text = networks.make_table(networks.measure(NetworksBench(networks=("fplnet", "all"), sizes=())))
    found = rows(text)
    assert next(iter(found)) == "fplnet" and set(found) == set(main_names()) and "images/s" not in text
    assert (found["espnet"][2], found["espnet"][4]) == ("6", "1.000")


def test_operations_have_a_line_each() -> None:
    config = OperationsBench(shapes=("2x4x9x7",), repeats=1, only_operations=True)
    found = rows(operations.make_table(operations.measure(config)))
    assert {name for name in OPERATIONS if OPERATIONS[name].has_weights} < set(found)
    saved = {name: float(found[name][2]) for name in ("atrous_3x3", "li_atrous_3x3")}
    # The ReLU's output and the convolution's; and what is inhibited. Batch norm's statistics are small.
    assert saved == pytest.approx({"atrous_3x3": 2, "li_atrous_3x3": 3}, abs=0.1)
    builders = operations.convolutions(4, 2)
    assert {name: build()(torch.randn(1, 4, 5, 5)).shape[1] for name, build in builders.items()} == dict.fromkeys(
        ("plain", "average", "gaussian", "ss_conv", "g_interact", "aggregated", "li"), 4
    )


@pytest.mark.parametrize("alike", [True, False])
def test_the_decoded_probabilities_are_those_of_a_search(alike: bool) -> None:
    space = load("autodeeplab")
    alpha, beta = decoding.probabilities(space, alike)
    genotype = decode(space, alpha, beta)  # checks that they are distributions on the space's edges
    assert len(genotype.path) == 12
    assert (len(set(alpha.flatten().tolist())) == 1) == alike


def test_decoding_and_startup_have_tables() -> None:
    found = decoding.measure(DecodingBench(repeats=1))
    assert [(row["layers"], row["levels"], row["limit"]) for row in found["rows"][::2]] == [
        (12, 4, 0.005),
        (200, 8, 0.1),
    ]
    assert decoding.make_table(found).count("\n| 200 | 8 | 5 | 8 |") == 2
    data = startup.measure(StartupBench(repeats=1))
    assert 0 < data["rows"][0]["median"] <= data["rows"][0]["slowest"]
    assert "| `nas-search --help` |" in startup.make_table(data)
