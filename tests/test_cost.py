"""Costs against numbers computed by hand."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nas.evaluation.cost
from nas.config import Precision
from nas.evaluation.cost import (
    Cost,
    call_seconds,
    count_parameters,
    describe,
    measure,
    median_seconds,
    timed_on,
)
from retrain.networks import build
from retrain.networks.settings import NetworkConfig


class Small(nn.Module):
    """A module convolution, a list of convolutions, a functional one and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.rest = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)])
        self.kernel = nn.Parameter(torch.ones(4, 8, 1, 1))
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return self.linear(F.conv2d(x, self.kernel).mean((2, 3)))


def test_by_hand() -> None:
    network = Small()
    # 9x11 halves to 5x6 = 30 pixels.
    first, depthwise, functional, linear = 30 * 8 * 3 * 9, 30 * 8 * 9, 30 * 4 * 8, 4 * 2
    parameters = (8 * 3 * 9 + 8) + (8 * 9 + 16) + 4 * 8 + (4 * 2 + 2)
    assert count_parameters(network) == parameters
    assert measure(network, (9, 11)) == Cost(parameters, first + depthwise + functional + linear)
    assert describe(network, (9, 11))["parts"] == [
        {"name": "first", "parameters": 8 * 3 * 9 + 8, "multiply_adds": first},
        {"name": "rest", "parameters": 8 * 9 + 16, "multiply_adds": depthwise},
        {"name": "linear", "parameters": 4 * 2 + 2, "multiply_adds": linear},
    ]


def test_frozen_and_shared_parameters() -> None:
    network = Small()
    network.first.requires_grad_(False)
    assert count_parameters(network) == count_parameters(Small()) - (8 * 3 * 9 + 8)
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    shared[1].weight = shared[0].weight
    assert count_parameters(shared) == 16 + 4 + 4
    assert measure(nn.Sequential(nn.Conv2d(5, 2, 1)), (3, 3), channels=5).multiply_adds == 9 * 10


def test_the_network_is_left_alone() -> None:
    network = Small().train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    measure(network, (9, 11))
    assert network.training and network.rest[1].training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(value.device.type == "cpu" for value in network.parameters())


def test_describe() -> None:
    config = NetworkConfig(filter_multiplier=2, stem_channels=(4, 4, 8), aspp_channels=8, decoder_channels=8)
    network = build("auto-deeplab-s", 3, config)
    described = describe(network, (65, 33))
    whole = measure(network, (65, 33))
    assert (described["parameters"], described["multiply_adds"]) == (whole.parameters, whole.multiply_adds)
    assert [part["name"] for part in described["parts"]] == ["stem", "cells", "aspp", "decoder"]
    assert sum(part["multiply_adds"] for part in described["parts"]) == whole.multiply_adds
    assert sum(part["parameters"] for part in described["parts"]) == whole.parameters
    assert described["features"][3] == {"name": "cell4", "channels": 20, "stride": 8, "size": [9, 5]}
    assert describe(Small(), (9, 11))["features"] == []


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_sizes_are_checked(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        measure(Small(), size)


def test_large_networks_are_measured_quickly_and_without_memory() -> None:
    with torch.device("meta"):
        network = build("auto-deeplab-l", 19)
    start = time.perf_counter()
    # At this size a single feature at stride 4 would take 2 TB.
    assert measure(network, (200_001, 200_001)).multiply_adds > 10**15
    assert time.perf_counter() - start < 10


# Latency


class Recorder(nn.Module):
    """Takes the seconds that it is told, on a clock of its own, and notes how it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
        super().__init__()
        self.now, self.seconds, self.modes = 0.0, seconds, set[tuple[bool, ...]]()
        self.calls = 0
        monkeypatch.setattr(nas.evaluation.cost.time, "perf_counter", lambda: self.now)

    def forward(self, x: Tensor) -> Tensor:
        self.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        self.modes.add((self.training, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")))
        return x


@pytest.mark.parametrize(
    ("seconds", "repeats", "timed"),
    [
        ([1.0], None, 10),  # slow: the least
        ([0.0625], None, 10),  # 8 calls would take half a second
        ([0.03125], None, 16),  # half a second
        ([0.0], None, 100),  # fast: the most
        ([1.0], 3, 3),
        ([0.0], 200, 200),
    ],
)
def test_calls_are_timed_until_there_are_enough_behind_two_that_are_not(
    seconds: list[float], repeats: int | None, timed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Recorder(monkeypatch, [100.0, 100.0, *seconds])
    assert call_seconds(module, torch.zeros(1), repeats=repeats) == seconds * timed
    assert module.calls == 2 + timed


@pytest.mark.parametrize(("precision", "mixed"), [("float32", False), ("bfloat16", True)])
def test_latency_is_the_median_in_eval_and_inference_mode(
    precision: Precision, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Recorder(monkeypatch, [9.0, 9.0, *(float(number) for number in range(11))])  # timed: 0, 1, ... 9
    assert median_seconds(module, torch.zeros(1), precision=precision) == 4.5
    assert module.modes == {(False, True, mixed)}


def test_functions_of_arrays_are_timed_too() -> None:
    assert len(call_seconds(sum, [1, 2], repeats=2)) == 2


def test_where_a_latency_was_measured() -> None:
    threads = torch.get_num_threads()
    try:
        for number, words in ((1, "cpu, 1 thread"), (2, "cpu, 2 threads")):
            torch.set_num_threads(number)
            assert timed_on(torch.device("cpu")) == words
    finally:
        torch.set_num_threads(threads)
    assert timed_on(torch.device("cuda:1")) == "cuda:1"
