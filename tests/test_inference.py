"""Precision by its short names, where it acts; what cannot be computed is refused; the compiled network."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

import retrain.load
from benchmarks.config import NetworksBench, ScalingBench, SupernetBench
from nas.config import Precision, RunConfig, SearchConfig, full_precision
from nas.evaluation.inference import Inference
from nas.runs.checkpoint import save_checkpoint
from nas.runs.folder import check_resumable
from nas.training.devices import autocast, grad_scaler
from retrain.config import RetrainConfig
from retrain.load import load_ready
from retrain.networks import build
from search_spaces.validation import from_plain, to_plain

CPU = torch.device("cpu")
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def made_run(folder: Path, precision: Precision = "float32") -> Path:
    torch.manual_seed(0)
    state = {
        "config": to_plain(RetrainConfig(genotype="espnet-c", precision=precision)),
        "classes": ["a", "b"],
        "colors": [[0, 0, 0], [9, 9, 9]],
        "network": build("espnet-c", 2).state_dict(),
        "state": {"epoch": 1, "last_miou": 0.5},
        "mirror": {},
    }
    save_checkpoint(folder / "best.pt", "retrain", state)
    return folder


@pytest.mark.parametrize("short", SHORT)
@pytest.mark.parametrize("config", [RunConfig, SearchConfig, RetrainConfig, NetworksBench, SupernetBench, ScalingBench])
def test_settings_hold_the_full_name_of_a_precision(config: Any, short: str) -> None:
    assert config(precision=short).precision == SHORT[short]
    assert Inference(precision=short).precision == SHORT[short]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="half"):
        config(precision="half")


def test_every_name_stands_for_a_precision() -> None:
    assert {full_precision(name) for name in get_args(Precision)} == {"float32", "tf32", "bfloat16", "float16"}
    with pytest.raises(ValueError, match="precision is 'half': give one of float32, tf32"):
        Inference(precision="half")  # type: ignore[arg-type]


def test_a_run_goes_on_under_either_name() -> None:
    saved = {"config": to_plain(SearchConfig(precision="bfloat16")), "state": {"epoch": 0}, "samples": 1}
    check_resumable(saved, from_plain(SearchConfig, saved["config"] | {"precision": "bf16"}), 1)


@pytest.mark.parametrize("short", SHORT)
def test_a_short_name_acts_where_precision_does(short: Any) -> None:
    images, layer = torch.ones(1, 1, 2, 2), nn.Conv2d(1, 1, 1)
    with autocast(CPU, short):
        assert layer(images).dtype == getattr(torch, SHORT[short])
    assert grad_scaler(CPU, short).is_enabled() == (short == "fp16")


@pytest.mark.parametrize("asked", [None, "fp32", "bf16", "fp16"])
def test_the_precision_asked_for_is_the_one_computed_in(asked: Any, tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    ready = load_ready(made_run(tmp_path, "bf16"), "best", "cpu", Inference(precision=asked))
    assert ready.precision == SHORT[asked or "bf16"]
    convolution = next(module for module in ready.network.modules() if isinstance(module, nn.Conv2d))
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad(), autocast(CPU, ready.precision):
        assert ready.network(torch.zeros(1, 3, 16, 16)).isfinite().all()
    assert seen == [getattr(torch, ready.precision)]


def test_tf32_is_refused_where_asked_for_and_float32_where_the_run_had_it(tmp_path: Path) -> None:
    run = made_run(tmp_path, "tf32")
    with pytest.raises(ValueError, match=r"only NVIDIA GPUs from Ampere on have: give --precision float32"):
        load_ready(run, "best", "cpu", Inference(precision="tf32"))
    assert load_ready(run, "best", "cpu", Inference()).precision == "float32"


def test_without_a_compiler_compiling_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

    run = made_run(tmp_path)
    monkeypatch.setattr(retrain.load.torch, "compile", nothing)
    with pytest.raises(ValueError, match=r"^--compile cannot work here \(.*InvalidCxx.*\): install a C\+\+") as raised:
        load_ready(run, "best", "cpu", Inference(compile=True))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("fold", [True, False])
def test_the_compiled_network_is_the_network(fold: bool, tmp_path: Path) -> None:
    run, how = made_run(tmp_path), Inference(fold=fold)
    plain = load_ready(run, "best", "cpu", how)
    compiled = load_ready(run, "best", "cpu", dataclasses.replace(how, compile=True))
    with torch.no_grad():
        for size in ((32, 48), (40, 40)):
            x = torch.randn(1, 3, *size)
            torch.testing.assert_close(compiled.network(x), plain.network(x), rtol=1e-4, atol=1e-4)
