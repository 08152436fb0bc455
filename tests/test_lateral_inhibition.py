"""Lateral inhibition: numbers by hand and by brute force, gradients, projection, and the convolutions behind it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.evaluation.cost import measure
from search_spaces.lateral_inhibition import LateralInhibition, LIConv2d, inhibition_kernel, lateral_inhibition
from search_spaces.module_protocols import project, reported, undecayed
from search_spaces.modules import BatchNorm
from search_spaces.operations import OPERATIONS
from search_spaces.settings import OperationSettings


def inhibition(intensity: float, channels: int = 1, **arguments: Any) -> LateralInhibition:
    return LateralInhibition(channels, init=(intensity, intensity), **arguments)


def by_brute_force(x: Tensor, intensity: Tensor, zone: int, rate: int, sigma: float) -> Tensor:
    """Equations 4 and 5, pixel by pixel."""
    x, (n, channels, height, width) = x.clamp(min=0), x.shape
    y = x.clone()
    steps = range(-(zone // 2), zone // 2 + 1)
    offsets = [(i, j) for i in steps for j in steps if (i, j) != (0, 0)]
    for image, channel, row, column in [
        (a, b, c, d) for a in range(n) for b in range(channels) for c in range(height) for d in range(width)
    ]:
        for i, j in offsets:
            neighbour = row + rate * i, column + rate * j
            if 0 <= neighbour[0] < height and 0 <= neighbour[1] < width:
                share = intensity[channel] * math.exp(-(i * i + j * j) / (2 * sigma**2))
                y[image, channel, row, column] -= share * x[image, channel, neighbour[0], neighbour[1]]
    return y.clamp(min=0)


def test_kernel_by_hand() -> None:
    edge, corner = math.exp(-0.5), math.exp(-1)
    expected = torch.tensor([[corner, edge, corner], [edge, 0, edge], [corner, edge, corner]])
    torch.testing.assert_close(inhibition_kernel(3, 1.0), expected)
    assert inhibition_kernel(3, 1.0).sum().item() == pytest.approx(3.897640)
    assert inhibition_kernel(5, 1.0).sum().item() == pytest.approx(5.168924)
    assert inhibition_kernel(3, 0.5)[0, 1].item() == pytest.approx(math.exp(-2))


def test_ones() -> None:
    y = inhibition(0.1)(torch.ones(1, 1, 5, 5))[0, 0]
    # A border pixel has fewer neighbours: 1 - 0.1 * (3 * 0.606531 + 2 * 0.367879), 1 - 0.1 * (2 * 0.606531 + 0.367879).
    assert y[2, 2].item() == pytest.approx(0.6102, abs=5e-5)
    assert y[0, 2].item() == y[2, 4].item() == pytest.approx(0.7445, abs=5e-5)
    assert y[0, 0].item() == y[4, 4].item() == pytest.approx(0.8419, abs=5e-5)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (1, {(2, 2): 2.6457, (0, 4): 1.9557, (4, 4): 17.5808, (0, 0): 0}),
        (2, {(2, 2): 2.6457, (0, 4): 1.1762, (4, 4): 18.7501}),
    ],
)
def test_ramp(rate: int, expected: dict[tuple[int, int], float]) -> None:
    y = inhibition(0.2, rate=rate)(torch.arange(25.0).reshape(1, 1, 5, 5))[0, 0]
    assert {where: y[where].item() for where in expected} == pytest.approx(expected, abs=5e-5)


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    zone=st.sampled_from([3, 5]),
    rate=st.integers(1, 3),
    sigma=st.sampled_from([0.5, 1.0, 2.0]),
    seed=st.integers(0, 100),
)
@settings(max_examples=20, deadline=None)
def test_against_brute_force(size: tuple[int, int], zone: int, rate: int, sigma: float, seed: int) -> None:
    torch.manual_seed(seed)
    module = LateralInhibition(2, zone, rate, sigma, (0.0, 0.3))
    x = torch.randn(2, 2, *size)
    torch.testing.assert_close(module(x).detach(), by_brute_force(x, module.intensity.detach(), zone, rate, sigma))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_intensity_it_is_relu_to_the_bit(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 9, 7, dtype=dtype)
    y = LateralInhibition(3, zone=5, rate=2)(x)
    assert y.dtype == dtype and torch.equal(y, F.relu(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = LateralInhibition(3)(x)
    assert y.dtype == dtype and torch.equal(y, F.relu(x))


@pytest.mark.parametrize("intensity", [0.0, 0.1, 0.25, 0.256565, 0.3, 1.0])
def test_a_constant_field_fades_and_goes_out(intensity: float) -> None:
    y = inhibition(intensity)(torch.full((1, 1, 5, 5), 2.0))[0, 0, 2, 2]
    assert y.item() == pytest.approx(2 * max(0, 1 - 3.897640 * intensity), abs=1e-5)


def test_contours_stand_out() -> None:
    x = torch.ones(1, 1, 7, 8)
    x[..., 4:] = 2  # a step between columns 3 and 4
    row = inhibition(0.1)(x)[0, 0, 3]
    assert row[4] / row[3] > 2 > row[5] / row[6] - 1e-6
    assert row[3] < row[2] and row[4] > row[5]  # darker before the step, brighter behind it


@pytest.mark.parametrize(("zone", "rate"), [(3, 1), (3, 2), (5, 1)])
def test_gradients(zone: int, rate: int) -> None:
    torch.manual_seed(0)
    module = LateralInhibition(2, zone, rate, init=(0.05, 0.15)).double()
    x = (torch.rand(2, 2, 5, 4, dtype=torch.float64) + 0.1).requires_grad_()

    def run(x: Tensor, intensity: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"intensity": intensity}, (x,))

    assert torch.autograd.gradcheck(run, (x, module.intensity))
    assert torch.autograd.gradgradcheck(run, (x, module.intensity))


def test_gradient_of_the_intensity_by_hand() -> None:
    module = LateralInhibition(2)
    x = torch.rand(3, 2, 6, 5) + 0.1
    g = torch.randn(3, 2, 6, 5)
    module(x).backward(g)
    received = F.conv2d(x, inhibition_kernel(3, 1.0).expand(2, 1, 3, 3), padding=1, groups=2)
    torch.testing.assert_close(module.intensity.grad, -(g * received).sum((0, 2, 3)))


def test_gradients_in_mixed_precision() -> None:
    module, x = inhibition(0.1, channels=2), torch.randn(2, 2, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(F.conv2d(x, torch.ones(2, 2, 1, 1)))
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32
    assert module.intensity.grad is not None and module.intensity.grad.dtype == torch.float32


def test_it_keeps_no_more_than_its_input_and_its_output() -> None:
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(2, 4, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = inhibition(0.1, channels=4)(x)
    assert y.requires_grad
    assert sum(size for size in kept.values() if size >= 4 * x.numel()) == 2 * 4 * x.numel()


@pytest.mark.parametrize("step", [-0.7, 0.3])
def test_projection(step: float) -> None:
    """A step leaves [0, 1] and is taken back to its end; the gradient at W = 0 can move it up."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), LateralInhibition(4), nn.Conv2d(4, 2, 1))
    layer = network[1]
    assert isinstance(layer, LateralInhibition)
    layer.intensity.grad = torch.full((4,), -step)
    optimizer = torch.optim.SGD(network.parameters(), lr=4.0)
    optimizer.step()
    assert layer.intensity.tolist() == pytest.approx([4 * step] * 4)
    project(network)
    assert layer.intensity.tolist() == [0.0 if step < 0 else 1.0] * 4


@pytest.mark.parametrize("intensity", [-0.2, 1.2])
def test_the_forward_pass_does_not_clip_the_intensity(intensity: float) -> None:
    module, x = LateralInhibition(1), torch.tensor([[1.0, 3.0]]).reshape(1, 1, 1, 2)
    with torch.no_grad():
        module.intensity.fill_(intensity)
    share = intensity * math.exp(-0.5)
    assert module(x).flatten().tolist() == pytest.approx([max(0, 1 - 3 * share), max(0, 3 - share)])


def test_training_moves_the_intensity_up_from_zero() -> None:
    torch.manual_seed(0)
    module, x = LateralInhibition(2), torch.rand(2, 2, 8, 8) + 0.5
    target = inhibition(0.2, channels=2)(x).detach()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        F.mse_loss(module(x), target).backward()
        optimizer.step()
        project(module)
    assert module.intensity.tolist() == pytest.approx([0.2, 0.2], abs=0.02)


def test_traits() -> None:
    network = nn.Sequential(LIConv2d(3, 5, init=(0.2, 0.2)), nn.ReLU(), LIConv2d(5, 2, kind="separable"))
    assert [parameter.numel() for parameter in undecayed(network)] == [3, 5]
    assert reported(network) == pytest.approx(
        {"0.inhibition/mean": 0.2, "0.inhibition/max": 0.2, "2.inhibition/mean": 0, "2.inhibition/max": 0}
    )


def test_state() -> None:
    torch.manual_seed(0)
    module = LateralInhibition(3, init=(0.1, 0.4))
    assert list(module.state_dict()) == ["intensity"]
    assert 0.1 <= module.intensity.min() < module.intensity.max() <= 0.4
    x = torch.randn(1, 3, 6, 6)
    other = LateralInhibition(3)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), module(x)) and torch.equal(copy.deepcopy(module)(x), module(x))


@pytest.mark.parametrize("zone", [3, 5])
def test_cost(zone: int) -> None:
    cost = measure(LateralInhibition(960, zone), (33, 33), channels=960)
    assert cost.parameters == 960  # whatever the zone
    assert cost.multiply_adds == zone**2 * 960 * 33 * 33
    if zone == 3:
        assert round(2 * cost.multiply_adds / 1e6, 2) == 18.82  # LI-ASPP on a MobileNetV2, three of 320 channels


@pytest.mark.parametrize("kind", ["full", "depthwise", "separable"])
@pytest.mark.parametrize(("kernel", "stride", "rate"), [(3, 1, 2), (3, 2, 1), (5, 2, 3), (1, 1, 1)])
def test_convolutions(kind: Any, kernel: int, stride: int, rate: int) -> None:
    channels_out = 4 if kind == "depthwise" else 6
    module = LIConv2d(4, channels_out, kernel, stride, rate, kind, init=(0.1, 0.1))
    assert not any("bias" in name for name, _ in module.named_parameters())
    for size in ((9, 8), (1, 1), (2, 5)):
        x = torch.randn(2, 4, *size)
        y = module(x)
        assert y.shape == (2, channels_out, -(-size[0] // stride), -(-size[1] // stride))
        groups = 1 if kind == "full" else 4
        expected = F.conv2d(
            inhibition(0.1, channels=4)(x), module.convolution.weight, None, stride, rate * (kernel // 2), rate, groups
        )
        if kind == "separable":
            assert module.pointwise is not None
            expected = F.conv2d(expected, module.pointwise.weight)
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("li_atrous_3x3", "atrous_3x3"),
        ("li_atrous_5x5", "atrous_5x5"),
        ("li_dilated_separable_3x3", "dilated_separable_3x3"),
    ],
)
def test_operations_start_as_the_plain_ones(name: str, plain: str, stride: int) -> None:
    inhibited, other = OPERATIONS[name].build(4, stride, BatchNorm), OPERATIONS[plain].build(4, stride, BatchNorm)
    missing = other.load_state_dict(inhibited.state_dict(), strict=False)
    assert not missing.missing_keys and missing.unexpected_keys == ["activation.intensity"]
    x = torch.randn(2, 4, 9, 7)
    assert torch.equal(inhibited(x), other(x))
    with torch.no_grad():
        inhibited.get_parameter("activation.intensity").fill_(0.2)
    assert not torch.allclose(inhibited(x), other(x))


def test_operations_follow_the_settings() -> None:
    asked = OperationSettings(li_zone=5, li_rate=2, li_sigma=2.0, li_init=(0.1, 0.1))
    layer = OPERATIONS["li_atrous_3x3"].build(4, 1, BatchNorm, asked).get_submodule("activation")
    direct = lateral_inhibition(4, asked)
    x = torch.rand(1, 4, 9, 9)
    assert torch.equal(layer(x), direct(x))
    assert torch.equal(direct(x), LateralInhibition(4, 5, 2, 2.0, (0.1, 0.1))(x))
    assert str(direct) == "LateralInhibition(4, zone=5, rate=2, sigma=2.0)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"zone": 4}, "^zone is 4: give an odd number"),
        ({"zone": 1}, "^zone is 1"),
        ({"rate": 0}, "rate is 0"),
        ({"sigma": 0.0}, r"sigma is 0\.0: give a number above 0"),
        ({"init": (0.5, 0.1)}, r"init is \[0.5, 0.1\]: give the smallest value first"),
        ({"init": (0.0, 2.0)}, "init.* from 0 to 1"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LateralInhibition(3, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "dense"}, "kind is 'dense': give one of full, depthwise, separable"),
        ({"kind": "depthwise"}, "3 channels has as many outputs, not 4"),
        ({"kernel": 2}, "kernel is 2: give an odd side"),
        ({"zone": 4}, "^zone is 4"),
    ],
)
def test_refusals_of_convolutions(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LIConv2d(3, 4, **arguments)
