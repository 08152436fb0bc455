"""ResNets: torchvision's layout, strides and rates of both stems, where lateral inhibitions stand, the low level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.evaluation.cost import count_parameters
from retrain.networks.resnet import Bottleneck, ResNet, resnet_batch_norm, strides_and_rates
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.modules import BatchNorm

NORM = resnet_batch_norm(0.1)
RESNET50 = (3, 4, 6, 3)


def meta(units: Sequence[int] = RESNET50, **arguments: Any) -> ResNet:
    with torch.device("meta"):
        return ResNet(units, NORM, **arguments)


@pytest.mark.parametrize(
    ("units", "stem", "parameters"),
    [
        (RESNET50, "plain", 25_557_032 - 2049 * 1000),  # torchvision's, without the classifier
        ((3, 4, 23, 3), "plain", 44_549_160 - 2049 * 1000),
        (RESNET50, "beta", 23_631_808),
    ],
)
def test_number_of_parameters(units: tuple[int, ...], stem: str, parameters: int) -> None:
    assert count_parameters(meta(units, stem=stem)) == parameters


def test_names_and_shapes_are_torchvisions() -> None:
    expected: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    norms = {"bn1": 64}
    channels = 64
    for layer, (units, width) in enumerate(zip(RESNET50, (64, 128, 256, 512), strict=True), start=1):
        for unit in range(units):
            name = f"layer{layer}.{unit}"
            expected |= {
                f"{name}.conv1.weight": (width, channels, 1, 1),
                f"{name}.conv2.weight": (width, width, 3, 3),
                f"{name}.conv3.weight": (4 * width, width, 1, 1),
            }
            norms |= {f"{name}.bn1": width, f"{name}.bn2": width, f"{name}.bn3": 4 * width}
            if unit == 0:
                expected[f"{name}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norms[f"{name}.downsample.1"] = 4 * width
            channels = 4 * width
    for name, width in norms.items():
        expected |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{name}.num_batches_tracked"] = ()
    plain = meta(stem="plain").state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in plain.items()} == expected
    # Behind another stem only the first unit's input is wider.
    beta = {name: tuple(tensor.shape) for name, tensor in meta().state_dict().items() if name.startswith("layer")}
    assert beta.pop("layer1.0.conv1.weight") == (64, 128, 1, 1)
    assert beta.pop("layer1.0.downsample.0.weight") == (256, 128, 1, 1)
    assert beta.items() <= expected.items()


def test_beta_stem() -> None:
    convolutions = {name: module for name, module in meta().named_modules() if isinstance(module, nn.Conv2d)}
    stem = {name: module for name, module in convolutions.items() if name.startswith("conv1")}
    described = {name: (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for name, m in stem.items()}
    assert described == {"conv1.0": (3, 64, 3, 2), "conv1.3": (64, 64, 3, 1), "conv1.6": (64, 128, 3, 1)}


@pytest.mark.parametrize(
    ("stem", "output_stride", "multi_grid", "strided", "rates"),
    [
        ("beta", 16, (1, 2, 4), [(0, 2), (1, 3)], ([1] * 6, [2, 4, 8])),
        ("plain", 16, (1, 2, 4), [(1, 0), (2, 0)], ([1] * 6, [2, 4, 8])),
        ("plain", 16, (1,), [(1, 0), (2, 0)], ([1] * 6, [2, 2, 2])),
        ("plain", 8, (1,), [(1, 0)], ([2] * 6, [4, 4, 4])),
        ("beta", 8, (1,), [(0, 2)], ([2] * 6, [4, 4, 4])),
    ],
)
def test_strides_and_rates(
    stem: Any, output_stride: int, multi_grid: tuple[int, ...], strided: list[Any], rates: Any
) -> None:
    layout = strides_and_rates(RESNET50, stem, output_stride, multi_grid)
    steps = {(layer, unit): step for layer, units in enumerate(layout) for unit, step in enumerate(units)}
    assert [place for place, (stride, _) in steps.items() if stride == 2] == strided
    assert [[rate for _, rate in units] for units in layout] == [[1] * 3, [1] * 4, *map(list, rates)]

    network = meta(stem=stem, output_stride=output_stride, multi_grid=multi_grid)
    for (layer, unit), (stride, rate) in steps.items():
        convolution = network.get_submodule(f"layer{layer + 1}.{unit}.conv2")
        assert isinstance(convolution, nn.Conv2d)
        assert (convolution.stride[0], convolution.dilation[0], convolution.padding[0]) == (stride, rate, rate)


@pytest.mark.parametrize(("stem", "strides"), [("beta", [4, 8, 16, 16, 16]), ("plain", [4, 4, 8, 16, 16])])
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (65, 64)])
def test_features(stem: str, strides: list[int], size: tuple[int, int]) -> None:
    network = meta(stem=stem)
    features = network(torch.empty(2, 3, *size, device="meta"))
    assert list(features) == ["low", "layer1", "layer2", "layer3", "layer4"]
    assert [tuple(info) for info in network.feature_info] == list(
        zip([256, 256, 512, 1024, 2048], strides, strict=True)
    )
    for feature, info in zip(features.values(), network.feature_info, strict=True):
        assert feature.shape == (2, info.channels, *(-(-side // info.stride) for side in size))


def normalise(x: Tensor) -> Tensor:
    """A fresh batch norm in eval mode: mean 0, variance 1, eps 1e-5."""
    return x / (1 + 1e-5) ** 0.5


@pytest.mark.parametrize(("channels", "stride", "rate"), [(16, 1, 1), (16, 2, 1), (16, 1, 2), (6, 1, 1), (6, 2, 1)])
def test_bottleneck_by_hand(channels: int, stride: int, rate: int) -> None:
    torch.manual_seed(0)
    li = LateralInhibition(4, init=(0.0, 0.2))
    unit = Bottleneck(channels, 4, stride, nn.Conv2d(4, 4, 3, stride, rate, rate, bias=False), NORM, li).eval()
    weights = {name: p for name, p in unit.named_parameters() if p.dim() == 4}
    x = torch.randn(2, channels, 9, 7)
    y = li(F.relu(normalise(F.conv2d(x, weights["conv1.weight"]))))
    y = F.relu(normalise(F.conv2d(y, weights["conv2.weight"], None, stride, rate, rate)))
    y = normalise(F.conv2d(y, weights["conv3.weight"]))
    if channels == 16:
        shortcut = F.max_pool2d(x, 1, stride)
    else:
        shortcut = normalise(F.conv2d(x, weights["downsample.0.weight"], stride=stride))
    output, branch = unit(x)
    torch.testing.assert_close(branch, y)
    torch.testing.assert_close(output, F.relu(y + shortcut))


def test_low_level_feature_is_the_second_units_branch() -> None:
    torch.manual_seed(0)
    network = ResNet((2, 1, 1, 1), NORM).eval()
    branches: list[Tensor] = []
    network.layer1[1].bn3.register_forward_hook(lambda module, inputs, output: branches.append(output))  # type: ignore[union-attr]
    with torch.no_grad():
        low = network(torch.randn(1, 3, 17, 17))["low"]
    assert torch.equal(low, branches[0])
    assert low.min() < 0


@pytest.mark.parametrize(
    ("units", "added", "places"),
    [
        (("conv5_3",), 512, ["layer4.2.li"]),
        (("conv4_6", "conv5_3"), 768, ["layer3.5.li", "layer4.2.li"]),
        (("conv3_4",), 128, ["layer2.3.li"]),
        (("conv2_1",), 64, ["layer1.0.li"]),
    ],
)
def test_inhibitions_add_a_parameter_a_channel_and_shift_no_name(
    units: tuple[str, ...], added: int, places: list[str]
) -> None:
    network, plain = meta(inhibited=units), meta()
    assert count_parameters(network) - count_parameters(plain) == added
    assert [name for name in network.state_dict() if "li.intensity" not in name] == list(plain.state_dict())
    assert [name for name, module in network.named_modules() if isinstance(module, LateralInhibition)] == places


@pytest.mark.parametrize("name", ["conv5_4", "conv1_1", "conv5-3", "layer4.2", ""])
def test_unknown_unit(name: str) -> None:
    with pytest.raises(ValueError, match=rf"no unit '{name}': choose among conv2_1, .*, conv5_3$"):
        meta(inhibited=("conv5_3", name))


@pytest.mark.parametrize(("momentum", "expected"), [(None, 0.05), (0.1, 0.1)])
def test_batch_norm(momentum: float | None, expected: float) -> None:
    norm = resnet_batch_norm(momentum)(5)
    assert isinstance(norm, BatchNorm) and (norm.eps, norm.momentum) == (1e-5, expected)
