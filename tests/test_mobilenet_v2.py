"""MobileNetV2: torchvision's layout, the strides and rates of output stride 16, and where lateral inhibitions stand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.evaluation.cost import count_parameters
from retrain.networks.mobilenet_v2 import MobileNetV2, ResidualBottleneck, mobilenet_batch_norm
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.modules import BatchNorm

NORM = mobilenet_batch_norm(0.1)
WIDTHS = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]  # of blocks 1 to 17


def meta(inhibited: Sequence[int] = ()) -> MobileNetV2:
    with torch.device("meta"):
        return MobileNetV2(NORM, inhibited)


def test_names_and_shapes_are_torchvisions() -> None:
    expected: dict[str, tuple[int, ...]] = {"features.0.0.weight": (32, 3, 3, 3)}
    norms = {"features.0.1": 32}
    channels = 32
    for block, width in enumerate(WIDTHS, start=1):
        inner, name = channels * (1 if block == 1 else 6), f"features.{block}.conv"
        if block > 1:
            expected[f"{name}.0.0.weight"] = (inner, channels, 1, 1)
            norms[f"{name}.0.1"] = inner
        at = 0 if block == 1 else 1
        expected |= {f"{name}.{at}.0.weight": (inner, 1, 3, 3), f"{name}.{at + 1}.weight": (width, inner, 1, 1)}
        norms |= {f"{name}.{at}.1": inner, f"{name}.{at + 2}": width}
        channels = width
    for name, width in norms.items():
        expected |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{name}.num_batches_tracked"] = ()
    assert {name: tuple(tensor.shape) for name, tensor in meta().state_dict().items()} == expected
    assert "features.17.conv.3.running_var" in expected


def test_number_of_parameters() -> None:
    # torchvision's 3,504,872 without the classifier (1281 * 1000) and the last convolution (1280 * (320 + 2)).
    assert count_parameters(meta()) == 3_504_872 - 1281 * 1000 - 1280 * 322 == 1_811_712


@pytest.mark.parametrize(
    ("blocks", "added"),
    [((1, 2, 3, 4, 5, 6), 800), ((16,), 960), ((13, 16), 1536), ((10, 13, 16), 1920), ((1,), 32), ((17, 17), 960)],
)
def test_inhibitions_add_a_parameter_a_channel_and_shift_no_name(blocks: tuple[int, ...], added: int) -> None:
    network = meta(blocks)
    assert count_parameters(network) - count_parameters(meta()) == added
    others = [name for name in network.state_dict() if not name.endswith("li.intensity")]
    assert others == list(meta().state_dict())
    places = [name for name, module in network.named_modules() if isinstance(module, LateralInhibition)]
    assert places == [f"features.{block}.li" for block in dict.fromkeys(blocks)]


def test_strides_stop_at_16_and_rates_take_over() -> None:
    depthwise = [module for module in meta().modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert [convolution.stride[0] for convolution in depthwise] == [1, 2, 1, 2, 1, 1, 2] + [1] * 10
    assert [convolution.dilation[0] for convolution in depthwise] == [1] * 14 + [2] * 3
    assert all(convolution.padding == convolution.dilation for convolution in depthwise)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (65, 64)])
def test_features(size: tuple[int, int]) -> None:
    network = meta()
    features = network(torch.empty(2, 3, *size, device="meta"))
    assert list(features) == [f"stage{number}" for number in range(1, 8)]
    assert [tuple(info) for info in network.feature_info] == [
        (16, 2), (24, 4), (32, 8), (64, 16), (96, 16), (160, 16), (320, 16),
    ]  # fmt: skip
    for feature, info in zip(features.values(), network.feature_info, strict=True):
        assert feature.shape == (2, info.channels, *(-(-side // info.stride) for side in size))


def normalise(x: Tensor) -> Tensor:
    """A fresh batch norm in eval mode: mean 0, variance 1, eps 1e-5."""
    return x / (1 + 1e-5) ** 0.5


@pytest.mark.parametrize(("channels_out", "stride", "rate"), [(4, 1, 1), (4, 1, 2), (4, 2, 1), (6, 1, 1)])
@pytest.mark.parametrize("expansion", [1, 3])
def test_block_by_hand(channels_out: int, stride: int, rate: int, expansion: int) -> None:
    torch.manual_seed(0)
    block = ResidualBottleneck(4, channels_out, expansion, stride, rate, NORM, LateralInhibition).eval()
    assert block.li is not None
    nn.init.uniform_(block.li.intensity, 0, 0.2)
    *expand, depthwise, project = [p for name, p in block.named_parameters() if p.dim() == 4]
    x = 3 * torch.randn(2, 4, 9, 7)
    y = F.relu6(normalise(F.conv2d(x, expand[0]))) if expand else x
    inhibited = block.li(y)
    y = F.conv2d(inhibited, depthwise, None, stride, rate, rate, groups=4 * expansion)
    y = normalise(F.conv2d(F.relu6(normalise(y)), project))
    torch.testing.assert_close(block(x), x + y if stride == 1 and channels_out == 4 else y)


def test_inhibitions_at_rest_change_nothing() -> None:
    torch.manual_seed(0)
    plain, inhibited = MobileNetV2(NORM).eval(), MobileNetV2(NORM, (1, 10, 13, 16)).eval()
    missing, unexpected = inhibited.load_state_dict(plain.state_dict(), strict=False)
    assert len(missing) == 4 and not unexpected
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        for feature, other in zip(plain(x).values(), inhibited(x).values(), strict=True):
            assert torch.equal(feature, other)
        inhibited.features[10].li.intensity.fill_(0.1)  # type: ignore[union-attr,operator]
        assert not torch.equal(plain(x)["stage7"], inhibited(x)["stage7"])


@pytest.mark.parametrize(("momentum", "expected"), [(None, 0.003), (0.1, 0.1)])
def test_batch_norm(momentum: float | None, expected: float) -> None:
    norm = mobilenet_batch_norm(momentum)(5)
    assert isinstance(norm, BatchNorm) and (norm.eps, norm.momentum) == (1e-5, expected)
