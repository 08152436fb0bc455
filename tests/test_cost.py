"""Costs against numbers computed by hand."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.evaluation.cost import Cost, breakdown, count_parameters, describe, measure
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
    assert breakdown(network, (9, 11)) == {
        "first": Cost(8 * 3 * 9 + 8, first),
        "rest": Cost(8 * 9 + 16, depthwise),
        "linear": Cost(4 * 2 + 2, linear),
    }


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
