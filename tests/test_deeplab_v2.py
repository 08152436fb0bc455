"""DeepLabv2 with smoothed dilated convolutions: the paper's numbers, where smoothing acts, and what is refused."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.evaluation.cost import count_parameters
from retrain.networks import build
from retrain.networks.base import SegmentationNetwork, freeze_batch_norm
from retrain.networks.deeplab_v2 import DeepLabV2
from retrain.networks.settings import NetworkConfig
from search_spaces.modules import BatchNorm
from search_spaces.smoothing import AggregationCoefficients, AverageFilter, GaussianFilter, SmoothedConv2d

WINDOWED = ("average", "gaussian", "aggregated")
pytestmark = pytest.mark.filterwarnings("ignore:the official window")


def meta(name: str, classes: int = 21, **settings: Any) -> SegmentationNetwork:
    with torch.device("meta"):
        return build(name, classes, NetworkConfig(**settings))


def small(**settings: Any) -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(3, NetworkConfig(**settings), units=(2, 1, 2, 1)).eval()


@pytest.mark.parametrize(
    ("smoothing", "resnet101", "resnet50"),
    [
        ("none", 0, 0),
        ("average", 0, 0),
        ("gaussian", 0, 0),
        ("ss_conv", 23 * 9 + 3 * 49, 6 * 9 + 3 * 49),
        ("g_interact", 23 * 16 + 3 * 256, 6 * 16 + 3 * 256),
        ("aggregated", 4 + 354, 4 + 201),
    ],
)
def test_parameters(smoothing: Any, resnet101: int, resnet50: int) -> None:
    network = meta("deeplabv2-resnet101", smoothing=smoothing)
    assert count_parameters(network) == 44_048_532 + resnet101
    freeze_batch_norm(network)
    assert count_parameters(network) == 43_943_188 + resnet101
    assert count_parameters(meta("deeplabv2-resnet50", smoothing=smoothing)) == 25_056_404 + resnet50


def test_parameters_at_19_classes() -> None:
    assert count_parameters(meta("deeplabv2-resnet101", 19)) == 43_901_068


@pytest.mark.parametrize("smoothing", ["none", "ss_conv", "average"])
def test_where_smoothing_acts(smoothing: Any) -> None:
    network = meta("deeplabv2-resnet101", smoothing=smoothing)
    smoothed = {name: m for name, m in network.named_modules() if isinstance(m, SmoothedConv2d)}
    assert list(smoothed) == [
        *(f"backbone.layer3.{unit}.conv2" for unit in range(23)),
        *(f"backbone.layer4.{unit}.conv2" for unit in range(3)),
    ]
    assert [module.rate for module in smoothed.values()] == [2] * 23 + [4] * 3
    assert all((module.smoothing is None) == (smoothing == "none") for module in smoothed.values())
    rates = [m.dilation[0] for m in network.get_submodule("aspp").modules() if isinstance(m, nn.Conv2d)]
    assert rates == [6, 12, 18, 24]


def test_strides() -> None:
    network = meta("deeplabv2-resnet50")
    assert [info.stride for info in network.feature_info] == [4, 4, 8, 8, 8]  # type: ignore[union-attr]
    assert network.logits(torch.empty(2, 3, 65, 33, device="meta")).shape == (2, 21, 9, 5)


def test_logits_are_the_sum_of_four_convolutions() -> None:
    network = small()
    x = torch.randn(1, 3, 33, 49)
    with torch.no_grad():
        feature, logits = network.features(x)["layer4"], network.logits(x)
        expected = torch.zeros_like(logits)
        for convolution, rate in zip(network.aspp, (6, 12, 18, 24), strict=True):
            assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
            assert not convolution.bias.any() and convolution.weight.abs().max() <= 0.02
            convolution.bias.normal_()
            bias = convolution.bias[:, None, None]
            expected += bias + F.conv2d(feature, convolution.weight, padding=rate, dilation=rate)
        torch.testing.assert_close(network.logits(x), expected)


@pytest.mark.parametrize("smoothing", ["ss_conv", "g_interact"])
def test_learned_smoothing_starts_as_the_plain_network(smoothing: Any) -> None:
    plain, smoothed = small(), small(smoothing=smoothing)
    missing, unexpected = smoothed.load_state_dict(plain.state_dict(), strict=False)
    assert len(missing) == 3 and not unexpected  # one tensor for each convolution
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        torch.testing.assert_close(smoothed(x), plain(x))


@pytest.mark.parametrize(
    ("window", "sides"), [(None, {2: 1, 4: 3}), ("official", {2: 1, 4: 3}), ("paper", {2: 3, 4: 5})]
)
def test_window(window: Any, sides: dict[int, int]) -> None:
    for smoothing, kind in (("average", AverageFilter), ("gaussian", GaussianFilter)):
        network = meta("deeplabv2-resnet50", smoothing=smoothing, smoothing_window=window)
        layers = [module for module in network.modules() if isinstance(module, SmoothedConv2d)]
        for layer in layers:
            assert isinstance(layer.smoothing, kind)
            side = layer.smoothing.side if isinstance(layer.smoothing, AverageFilter) else len(layer.smoothing.kernel)
            assert side == sides[layer.rate]


@pytest.mark.parametrize(
    ("smoothing", "window"),
    [
        *((smoothing, None) for smoothing in ("none", "ss_conv", "g_interact")),
        *((smoothing, window) for smoothing in WINDOWED for window in (None, "official", "paper")),
    ],
)
def test_an_identity_at_rate_2_is_said_once(smoothing: Any, window: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        meta("deeplabv2-resnet101", smoothing=smoothing, smoothing_window=window)
    messages = [str(warning.message) for warning in caught]
    if smoothing in WINDOWED and window != "paper":
        assert len(messages) == 1 and "only in the 3 convolutions of rate 4, not in the 23 of rate 2" in messages[0]
    else:
        assert not messages


def test_sigma_acts() -> None:
    kernels = [small(smoothing="gaussian", smoothing_sigma=sigma) for sigma in (1.0, 0.5)]
    first, second = (network.backbone.layer4[0].conv2.smoothing.kernel for network in kernels)  # type: ignore[union-attr]
    assert first.shape == (3, 3) and first[1, 1].item() == pytest.approx(0.204180, abs=1e-6)  # type: ignore[index]
    assert second[1, 1] > first[1, 1]  # type: ignore[index]


def test_all_layers_share_the_coefficients_of_aggregation() -> None:
    network = copy.deepcopy(small(smoothing="aggregated"))  # sharing survives a copy
    assert [name for name, _ in network.named_parameters() if "logits" in name] == ["coefficients.logits"]
    assert isinstance(network.coefficients, AggregationCoefficients)
    layers = [module for module in network.modules() if isinstance(module, SmoothedConv2d)]
    assert len(layers) == 3
    for layer in layers:
        assert layer.smoothing.coefficients is network.coefficients  # type: ignore[union-attr]
    network(torch.randn(1, 3, 33, 33)).square().mean().backward()
    gradient = network.coefficients.logits.grad
    assert gradient is not None and gradient.any()


@pytest.mark.parametrize(
    ("smoothing", "field", "value"),
    [
        *(
            (smoothing, field, value)
            for smoothing in ("none", "ss_conv", "g_interact")
            for field, value in (("smoothing_window", "paper"), ("smoothing_sigma", 1.0))
        ),
        ("average", "smoothing_sigma", 1.0),
    ],
)
def test_settings_without_effect_are_refused(smoothing: Any, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"network\.{field} has no effect.* that read it: .*network\.smoothing\b"):
        meta("deeplabv2-resnet50", smoothing=smoothing, **{field: value})


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_batch_norms(momentum: float | None) -> None:
    norms = [
        module
        for module in meta("deeplabv2-resnet50", batch_norm_momentum=momentum, frozen_batch_norm=True).modules()
        if isinstance(module, BatchNorm)
    ]
    assert len(norms) == 53
    assert all(norm.momentum == (momentum or 0.05) and norm.frozen for norm in norms)
