"""Memory: what is alive, what a step will need, what is said before a start, and a run that runs out of it."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import nas.evaluation.memory
from cli import common
from nas.config import ArchitectureConfig, AugmentConfig, LoaderConfig, RunConfig, SearchConfig
from nas.darts import search
from nas.evaluation.memory import (
    PER_MODULE,
    PER_TENSOR,
    LiveBytes,
    check_memory,
    free_memory,
    search_memory,
    step_memory,
)
from nas.runs.free_memory import is_out_of_memory, left_in_container
from nas.supernet.network import Supernet
from retrain.config import RetrainConfig
from retrain.networks import NETWORKS, build
from retrain.networks.settings import NetworkConfig
from retrain.training import _memory
from runs import check_same_run, on_step
from search_spaces.space import SearchSpace, available, load

CPU = torch.device("cpu")
SPACE = SearchSpace("small", 3, 2, 2, 2, ("none", "skip", "separable_3x3"))
MIB = 2**20


def config_of(crop: int = 33, batch: int = 2, **changes: Any) -> SearchConfig:
    loader = LoaderConfig(train_limit=12, val_limit=2, batch_size=batch, augment=AugmentConfig((crop, crop)))
    values: dict[str, Any] = {"epochs": 2, "architecture": ArchitectureConfig(start_epoch=1), "loader": loader}
    return SearchConfig(**(values | changes))


# What is alive


def test_bytes_are_counted_while_somebody_holds_them() -> None:
    size = 4 * 1000 + PER_TENSOR
    x = torch.empty(1000, device="meta")
    with LiveBytes() as live:
        live.add(x)
        assert live.now == size
        y = x + 1
        z = y * 2
        assert live.now == 3 * size
        view = y.view(10, 100)[3:]
        z.add_(1)
        assert live.now == 3 * size  # views and in-place functions take no memory
        del y
        assert live.now == 3 * size
        del view
        assert live.now == 2 * size
        parts = torch.stack([x, x]).unbind()
        assert live.now == 2 * size + 4 * 2000 + PER_TENSOR
        del parts
    assert (live.now, live.peak) == (2 * size, 2 * size + 4 * 2000 + PER_TENSOR)


def test_what_is_known_of_a_function_has_the_right_shape_and_order() -> None:
    x = torch.empty(2, 8, 5, 7, device="meta").contiguous(memory_format=torch.channels_last)
    weight = torch.empty(4, 8, 3, 3, device="meta")
    expected = nn.functional.max_pool2d(nn.functional.conv2d(x, weight), 2, return_indices=True)
    with LiveBytes():
        for _ in range(2):
            found = nn.functional.max_pool2d(nn.functional.conv2d(x, weight), 2, return_indices=True)
            for ours, theirs in zip(found, expected, strict=True):
                assert (ours.shape, ours.stride(), ours.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)


class Chain(nn.Module):
    """Eight tanhs of a tensor of 3 x H x W, each of which keeps its result; computed again, if that is asked for."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.classify, self.again = nn.Conv2d(3, 2, 1, bias=False), again

    def forward(self, x: Tensor) -> Tensor:
        y = self.classify(x)
        for _ in range(4):
            y = checkpoint(self.pair, y, use_reentrant=False) if self.again else self.pair(y)
        return y

    def pair(self, y: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(y))


def needed(network: nn.Module, images: tuple[int, int, int] = (2, 64, 64), **options: Any) -> int:
    return step_memory(network, [(list(network.parameters()), 1)], images, **options)


def test_a_chain_by_hand() -> None:
    pixels = 2 * 64 * 64
    inputs = pixels * (4 * 3 + 8)  # images, labels
    kept = pixels * 2 * 4 * 8  # the results of the functions
    loss = pixels * (2 * 4 + 1)  # log probabilities; which pixels are labelled, for a moment
    found = needed(Chain(again=False))
    logits = pixels * 2 * 4
    assert inputs + kept + loss <= found <= inputs + kept + loss + 3 * logits + 40 * PER_TENSOR + 2 * PER_MODULE


def test_what_is_computed_again_is_not_counted_as_kept() -> None:
    pixels = 2 * 64 * 64
    saved = needed(Chain(again=False)) - needed(Chain(again=True))
    assert saved == pytest.approx(pixels * 2 * 4 * (4 - 2), rel=0.1)  # four of eight results, less the two of one pair


def test_optimizers_count_by_what_they_keep() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2000, 1, bias=False), nn.Conv2d(2000, 2, 1, bias=False))
    numbers = 5 * 2000
    sgd, adam = (step_memory(network, [(list(network.parameters()), kept)], (1, 4, 4)) for kept in (0, 2))
    assert adam - sgd == 2 * 4 * numbers


# Supernets


def settled(supernet: Supernet) -> Any:
    tensors = [*supernet.named_parameters(), *supernet.named_buffers()]
    state = {name: (id(tensor), tensor.device, tensor.requires_grad) for name, tensor in tensors}
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in supernet.modules()]
    return state, hooks, supernet.space, [p.grad for p in supernet.parameters()], supernet.training


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_the_estimate_changes_neither_the_network_nor_random_numbers(engine: Any) -> None:
    supernet = Supernet(dataclasses.replace(SPACE, layers=5), 3, engine)
    before, random = settled(supernet), torch.get_rng_state()
    values = copy.deepcopy(supernet.state_dict())
    search_memory(supernet, config_of())
    assert settled(supernet) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(values[name], tensor) for name, tensor in supernet.state_dict().items())


@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_deep_supernet_from_its_first_layers_is_that_of_all(engine: Any, precision: Any) -> None:
    supernet = Supernet(dataclasses.replace(SPACE, layers=9), 3, engine)
    config = config_of(65, precision=precision)
    trained = [(supernet.weights(), 1), (list(supernet.architecture.parameters()), 2)]
    whole = step_memory(supernet, trained, (2, 65, 65), precision)
    assert search_memory(supernet, config) == pytest.approx(whole, rel=0.02)


def test_what_needs_more_and_less() -> None:
    def of(config: SearchConfig, engine: Any = "fast") -> int:
        return search_memory(Supernet(SPACE, 3, engine), config)

    base = of(config_of(129))
    assert of(config_of(257)) > 2.5 * base
    assert of(config_of(129, batch=4)) > 1.4 * base  # larger tensors, of which more is made again
    assert base < of(config_of(129, accumulate=4)) < 1.4 * base
    assert 0.4 * base < of(config_of(129, precision="bfloat16")) < 0.85 * base
    assert of(config_of(129), "plain") > base


@pytest.mark.parametrize("name", available())
def test_every_shipped_space_is_estimated(name: str) -> None:
    space = dataclasses.replace(load(name), layers=2, levels=2, blocks=1, filter_multiplier=2)
    for engine in ("plain", "fast"):
        assert search_memory(Supernet(space, 3, engine), config_of()) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fplnet", "espnet", "li-mnv2-aspp", "auto-deeplab-s"])
def test_networks_are_estimated_too(name: str) -> None:
    assert name in NETWORKS
    network = build(name, 3, NetworkConfig())
    crop = dataclasses.replace(LoaderConfig(), augment=AugmentConfig((33, 33)))
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert _memory(RetrainConfig(genotype=name, loader=crop), network) > 3 * weights


# Before a start


@pytest.mark.parametrize(
    ("policy", "free", "says"),
    [
        ("stop", 3 * 2**30, ["needs about 2.1 GiB at batch 2, crop 321x321; 3.0 GiB free"]),
        ("stop", None, ["needs about 2.1 GiB at batch 2, crop 321x321"]),
        ("warn", 500 * MIB, ["needs about 2.1 GiB at batch 2, crop 321x321; 500 MiB free: it may not fit; use a"]),
        ("off", 0, []),
    ],
)
def test_what_is_said_before_a_start(policy: Any, free: int | None, says: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(nas.evaluation.memory, "free_memory", lambda device: free)
    lines = check_memory(RunConfig(memory_check=policy), CPU, lambda: 2**31)
    assert len(lines) == len(says)
    assert all(line.startswith(start) for line, start in zip(lines, says, strict=True))


def test_what_does_not_fit_is_refused_before_a_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.evaluation.memory, "free_memory", lambda device: MIB)
    config = config_of(space="autodeeplab-tiny", out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"batch 2, crop 33x33; 1 MiB free: use a smaller crop .* warn") as raised:
        search(config, quiet=True)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_an_operation_that_reads_numbers_stops_no_run() -> None:
    class Reading(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float(x.sum())

    (line,) = check_memory(RunConfig(), CPU, lambda: needed(Reading(3, 2, 1)))
    assert line.startswith("memory is not estimated: ")


def test_an_error_without_words_is_named() -> None:
    def fail() -> int:
        raise NotImplementedError

    assert check_memory(RunConfig(), CPU, fail) == ["memory is not estimated: NotImplementedError"]


def test_memory_that_is_kept_from_an_earlier_run_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"mem_get_info": (10, 100), "memory_reserved": 60, "memory_allocated": 20}
    for name, value in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(torch.device("cuda")) == 10 + 60 - 20


def test_free_memory_is_at_most_what_a_container_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_memory(CPU)
    assert free is None or 0 < free < 2**50
    assert left_in_container(tmp_path) is None
    for name, content in (("max", "1000\n"), ("current", "700\n"), ("stat", "anon 500\ninactive_file 200\n")):
        (tmp_path / f"memory.{name}").write_text(content)
    assert left_in_container(tmp_path) == 1000 - 700 + 200
    (tmp_path / "memory.max").write_text("max\n")
    assert left_in_container(tmp_path) is None


# Within a run


def test_a_run_out_of_memory_ends_in_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(space="autodeeplab-tiny", out=str(tmp_path / "run"), layers=2, levels=2)
    straight = search(dataclasses.replace(config, out=str(tmp_path / "straight")), quiet=True).folder

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        on_step(patch, 4, fail)  # in the second epoch
        with pytest.raises(SystemExit) as stop:
            common.run("nas-search", lambda _: search(config, quiet=True) and None, [])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("nas-search: out of memory.") and said.count("\n") == 1
    assert f"--resume {tmp_path / 'run'}" in said and "--accumulate" in said
    search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(straight, tmp_path / "run", "search")


# Against the system's own count

MEASURE = """
import dataclasses, sys, torch
from benchmarks.measuring import PeakMemory
from nas.config import AugmentConfig, LoaderConfig, SearchConfig, SupernetConfig
from nas.darts import make_steppers
from nas.evaluation.memory import LOADED, search_memory
from nas.supernet.network import Supernet
from search_spaces.space import load

def estimate(variant, layers, blocks, filters, crop):
    space = dataclasses.replace(load("autodeeplab"), layers=layers, blocks=blocks, filter_multiplier=filters)
    loader = LoaderConfig(augment=AugmentConfig((crop, crop)))
    engine, _, recompute = variant.partition("-")
    config = SearchConfig(supernet=SupernetConfig(engine, recompute or "none"), loader=loader)
    supernet = Supernet(space, 19, engine, recompute or "none")
    images, labels = torch.randn(2, 3, crop, crop), torch.randint(19, (2, crop, crop))
    for stepper in 2 * make_steppers(config, supernet, torch.device("cpu")):
        stepper.step(images, labels, "here")
    return search_memory(supernet, config) + LOADED

idle = PeakMemory(torch.device("cpu"))
estimated = estimate(sys.argv[1], *map(int, sys.argv[2:]))
print(idle.mib() * 2**20, estimated)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's count")
@pytest.mark.parametrize("variant", ["plain", "fast", "fast-node"])
@pytest.mark.parametrize("sizes", [(4, 3, 8, 129), (4, 3, 8, 193), (12, 5, 4, 65)], ids=str)
def test_the_estimate_is_within_a_fifth_of_what_a_search_takes(variant: str, sizes: tuple[int, ...]) -> None:
    command = [sys.executable, "-c", MEASURE, variant, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured, estimated = map(float, done.stdout.split())
    assert estimated == pytest.approx(measured, rel=0.2)


SHORTAGES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory\nCUDA kernel errors might be", 2),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: f"{type(error).__name__} {str(error)[:40]}")
def test_what_says_that_memory_is_used_up_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [None, RuntimeError("shapes"), ValueError("out of memory"), OSError("CUDNN")])
def test_other_failures_are_no_lack_of_memory(error: Exception | None) -> None:
    assert not is_out_of_memory(error)
