"""Smoothed dilated convolutions: windows and mixtures by hand, what they start as, gridding, shared coefficients."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.evaluation.cost import count_parameters, measure, to_meta
from search_spaces.module_protocols import reported, undecayed
from search_spaces.modules import BatchNorm
from search_spaces.operations import OPERATIONS
from search_spaces.settings import OperationSettings
from search_spaces.smoothing import (
    AggregatedFilter,
    AggregationCoefficients,
    AverageFilter,
    GaussianFilter,
    GroupInteraction,
    SharedFilter,
    SmoothedConv2d,
    Smoothing,
    average_kernel,
    gaussian_kernel,
    window_arguments,
    window_side,
)

KINDS = get_args(Smoothing)
FILTERS = ("average", "gaussian", "ss_conv", "aggregated")
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def plain(module: SmoothedConv2d, x: Tensor) -> Tensor:
    padding = module.rate * (module.kernel_size[0] // 2)
    return F.conv2d(x, module.weight, None, 1, padding, module.rate, module.groups)


def impulse(side: int) -> Tensor:
    x = torch.zeros(1, 1, side, side)
    x[0, 0, side // 2, side // 2] = 1
    return x


@pytest.mark.parametrize(
    ("rate", "paper", "official"), [(2, 3, 1), (3, 3, 2), (4, 5, 3), (5, 5, 4), (6, 7, 5), (12, 13, 11), (24, 25, 23)]
)
def test_window_sides(rate: int, paper: int, official: int) -> None:
    assert window_side(rate, "paper") == paper
    assert window_side(rate, "official") == official


@pytest.mark.parametrize(
    ("side", "sigma", "expected"),
    [
        (3, math.sqrt(0.5), {(1, 1): 0.331911, (0, 1): 0.122103, (0, 0): 0.044919}),  # what the official code has
        (3, 1.0, {(1, 1): 0.204180, (0, 1): 0.123841, (0, 0): 0.075114}),
        (5, 1.0, {(2, 2): 0.162103, (0, 0): 0.002969}),
    ],
)
def test_gaussian_kernel(side: int, sigma: float, expected: dict[tuple[int, int], float]) -> None:
    kernel = gaussian_kernel(side, sigma)
    assert {where: kernel[where].item() for where in expected} == pytest.approx(expected, abs=1e-6)


@given(side=st.integers(1, 25), sigma=st.floats(0.1, 10))
def test_kernels_sum_to_one(side: int, sigma: float) -> None:
    for kernel in (average_kernel(side), gaussian_kernel(side, sigma)):
        assert kernel.shape == (side, side)
        assert kernel.sum().item() == pytest.approx(1, abs=1e-5)


def test_filters_by_hand() -> None:
    x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)  # 1 2 3 / 4 5 6 / 7 8 9
    sums = torch.tensor([12.0, 21, 16, 27, 45, 33, 24, 39, 28]).reshape(1, 1, 3, 3)  # zeros around
    torch.testing.assert_close(AverageFilter(3)(x), sums / 9)
    torch.testing.assert_close(GaussianFilter(3, 1.0)(impulse(3))[0, 0], gaussian_kernel(3, 1.0))
    assert AverageFilter(1)(x) is x


def test_an_even_window_reaches_down_and_right() -> None:
    """TensorFlow pads "SAME" with one more pixel there: an output is the mean of itself, right, below and both."""
    x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    means = torch.tensor([12.0, 16, 9, 24, 28, 15, 15, 17, 9]).reshape(1, 1, 3, 3) / 4
    torch.testing.assert_close(AverageFilter(2)(x), means)
    near, far = 1.0, math.exp(-0.5)
    expected = torch.tensor([[near, far], [far, far * far]]) / (near + far) ** 2
    torch.testing.assert_close(gaussian_kernel(2, 1.0), expected)
    y = GaussianFilter(2, 1.0)(impulse(5))[0, 0]
    torch.testing.assert_close(y[1:3, 1:3], expected.flip(0, 1))  # the impulse is felt above it and to its left
    assert y.sum().item() == pytest.approx(1)
    y = AverageFilter(4)(impulse(7))[0, 0]
    assert y.nonzero().amin(0).tolist() == [1, 1] and y.nonzero().amax(0).tolist() == [4, 4]


@given(size=sizes, rate=st.integers(1, 5), kernel=st.sampled_from([1, 3, 5]), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_learned_smoothing_starts_as_the_plain_convolution(
    size: tuple[int, int], rate: int, kernel: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, *size)
    for smoothing in ("none", "ss_conv", "g_interact"):
        module = SmoothedConv2d(3, 4, kernel, rate, smoothing)
        torch.testing.assert_close(module(x), plain(module, x), rtol=1e-4, atol=1e-5)


@given(size=sizes, rate=st.integers(2, 5), smoothing=st.sampled_from(KINDS), official=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_size(size: tuple[int, int], rate: int, smoothing: Smoothing, official: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = OperationSettings(smoothing_window="official" if official else "paper")
        module = SmoothedConv2d(2, 4, 3, rate, smoothing, groups=2, **window_arguments(smoothing, asked))
    y = module(torch.randn(2, 2, *size))
    assert y.shape == (2, 4, *size) and torch.isfinite(y).all()


@pytest.mark.parametrize("window", ["paper", "official"])
@pytest.mark.parametrize("rate", [3, 4])
def test_smoothing_is_a_filter_and_then_the_convolution(rate: int, window: Any) -> None:
    x, side = torch.randn(2, 3, 9, 8), window_side(rate, window)
    shared, coefficients = torch.randn(2 * rate - 1, 2 * rate - 1), torch.randn(4)
    average, gaussian, learned = AverageFilter(side), GaussianFilter(side, 2.0), SharedFilter(rate)
    with torch.no_grad():
        learned.weight.copy_(shared)
    four = torch.stack([x, average(x), gaussian(x), learned(x)])
    mixed = (coefficients.softmax(0)[:, None, None, None, None] * four).sum(0)
    for smoothing, smooth in zip(FILTERS, (*four[1:], mixed), strict=True):
        asked = OperationSettings(smoothing_window=window, smoothing_sigma=2.0)
        module = SmoothedConv2d(3, 4, 3, rate, smoothing, **window_arguments(smoothing, asked))
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name.startswith("smoothing"):
                    parameter.copy_(coefficients if name.endswith("logits") else shared)
        torch.testing.assert_close(module(x), plain(module, smooth), rtol=1e-4, atol=1e-4)


def test_shared_filter_by_hand() -> None:
    module = SharedFilter(2)
    with torch.no_grad():
        module.weight[1, 2] = 2.0  # the pixel plus twice its right neighbour
    x = torch.tensor([[1.0, 10.0, 100.0]]).reshape(1, 1, 1, 3).repeat(1, 2, 1, 1)
    assert module(x).tolist() == [[[[21, 210, 100]]] * 2]
    assert SharedFilter(4).weight.shape == (7, 7)


def test_group_interaction_by_hand() -> None:
    module = GroupInteraction(2)
    groups = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(2, 3)[None, None]  # group = 2 (row mod 2) + column mod 2
    assert torch.equal(module(groups), groups)
    with torch.no_grad():
        module.weight.copy_(0.1 * torch.arange(1.0, 17.0).reshape(4, 4))  # F[j, i] = 0.1 (4 j + i + 1)
    expected = torch.tensor([[9.0, 10.0], [11.0, 12.0]]).repeat(2, 3)[None, None]
    torch.testing.assert_close(module(groups), expected)


def test_group_interaction_is_pixel_by_pixel() -> None:
    module, r = GroupInteraction(3), 3
    x, y = torch.randn(2, 2, 6, 9), torch.zeros(2, 2, 6, 9)
    with torch.no_grad():
        module.weight.normal_()
        for i in range(r * r):
            for j in range(r * r):
                y[..., i // r :: r, i % r :: r] += module.weight[j, i] * x[..., j // r :: r, j % r :: r]
        torch.testing.assert_close(module(x), y)


def test_group_interaction_pads_the_convolutions_input() -> None:
    """As in the authors' code: what the convolution gives in the padding takes part in the mixture."""
    module, x = SmoothedConv2d(2, 3, rate=3, smoothing="g_interact"), torch.randn(1, 2, 5, 7)
    assert module.interaction is not None
    nn.init.normal_(module.interaction.weight)
    padded = F.pad(x, (0, 2, 0, 1))  # to 6 x 9
    torch.testing.assert_close(module(x), module.interaction(plain(module, padded))[..., :5, :7])


def test_bias_is_added_once() -> None:
    module = SmoothedConv2d(2, 3, smoothing="g_interact", bias=True)
    with torch.no_grad():
        module.weight.zero_()
        assert module.interaction is not None and module.bias is not None
        module.interaction.weight.normal_()
    y = module(torch.randn(1, 2, 5, 5))
    torch.testing.assert_close(y, module.bias[None, :, None, None].expand_as(y))


@pytest.mark.parametrize("smoothing", KINDS)
def test_gradients(smoothing: Smoothing) -> None:
    torch.manual_seed(0)
    module = SmoothedConv2d(2, 2, smoothing=smoothing, bias=True).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    names, parameters = zip(*module.named_parameters(), strict=True)
    x = torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.parametrize("smoothing", KINDS)
def test_gridding(smoothing: Smoothing) -> None:
    """Two convolutions at rate 2 of an impulse reach pixels at an odd offset only if something smooths."""
    torch.manual_seed(0)
    layers = [SmoothedConv2d(1, 1, rate=2, smoothing=smoothing) for _ in range(2)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1)
            for parameter in layer.parameters():
                if parameter is not layer.weight:
                    parameter.add_(0.1 * torch.rand_like(parameter))
    y = layers[1](layers[0](impulse(13)))[0, 0]
    even = torch.zeros(13, 13, dtype=torch.bool)
    even[::2, ::2] = True  # the impulse is at (6, 6)
    assert y[even].abs().max() > 0
    assert (y[~even].abs().max() > 0) == (smoothing != "none")


@pytest.mark.parametrize(
    ("smoothing", "rate", "window", "side"),
    [
        ("ss_conv", 2, None, 7),
        ("ss_conv", 4, None, 15),
        ("average", 2, "official", 5),
        ("average", 4, "official", 11),
        ("gaussian", 2, "paper", 7),
    ],
)
@pytest.mark.filterwarnings("ignore:the official window")
def test_support(smoothing: Any, rate: int, window: Any, side: int) -> None:
    module = SmoothedConv2d(1, 1, 3, rate, smoothing, window)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1)
    touched = module(impulse(21))[0, 0].nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [side, side]


@pytest.mark.parametrize(
    ("smoothing", "extra"),
    [("none", 0), ("average", 0), ("gaussian", 0), ("ss_conv", 49), ("g_interact", 256), ("aggregated", 53)],
)
def test_parameters_and_cost(smoothing: Smoothing, extra: int) -> None:
    module = SmoothedConv2d(4, 6, 3, 4, smoothing)
    assert count_parameters(module) == 9 * 4 * 6 + extra
    filtering = {"none": 0, "average": 25 * 4, "gaussian": 25 * 4, "g_interact": 16 * 6}.get(smoothing, 49 * 4)
    assert measure(module, (8, 12), channels=4).multiply_adds == (9 * 4 * 6 + filtering) * 8 * 12
    # A plain network's weights have the same name; nothing fixed is saved.
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()} >= {"weight"}
    assert sum(parameter.numel() for parameter in undecayed(module)) == extra


@pytest.mark.parametrize("smoothing", KINDS)
def test_at_rate_1_there_is_nothing_to_smooth(smoothing: Smoothing) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = window_arguments(smoothing, OperationSettings(smoothing_window="official"))
        module = SmoothedConv2d(2, 3, 3, 1, smoothing, **asked)
    x = torch.randn(1, 2, 5, 5)
    assert list(module.state_dict()) == ["weight"]
    assert torch.equal(module(x), plain(module, x))


def test_coefficients() -> None:
    coefficients = AggregationCoefficients()
    quarters = dict.fromkeys(("identity", "average", "gaussian", "ss_conv"), 0.25)
    assert coefficients.report() == quarters
    with torch.no_grad():
        coefficients.logits.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).log())
    assert list(coefficients.report().values()) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    layer = nn.Sequential(SmoothedConv2d(2, 2, smoothing="aggregated"))
    assert reported(layer) == {f"0.smoothing.own/{name}": value for name, value in quarters.items()}


class Shared(nn.Module):
    """A network whose two layers share their coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = AggregationCoefficients()
        self.layers = nn.Sequential(
            *(SmoothedConv2d(3, 3, smoothing="aggregated", coefficients=self.coefficients) for _ in range(2))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def shared_by(network: nn.Module) -> set[int]:
    return {id(module.coefficients) for module in network.modules() if isinstance(module, AggregatedFilter)}


def test_shared_coefficients_are_one_module() -> None:
    network = Shared()
    assert count_parameters(network) == 2 * (81 + 9) + 4
    assert [name for name in network.state_dict() if "logits" in name] == ["coefficients.logits"]
    assert len([parameter for parameter in undecayed(network) if parameter.shape == (4,)]) == 1
    assert list(reported(network)) == [f"coefficients/{name}" for name in AggregationCoefficients.names]
    x = torch.randn(2, 3, 7, 7)
    network(x).square().sum().backward()
    assert network.coefficients.logits.grad is not None and network.coefficients.logits.grad.abs().sum() > 0
    assert shared_by(network) == {id(network.coefficients)}


def test_shared_coefficients_survive_copies() -> None:
    network, x = Shared(), torch.randn(2, 3, 7, 7)
    twin = copy.deepcopy(network)
    assert shared_by(twin) == {id(twin.coefficients)} != shared_by(network)
    other = Shared()
    other.load_state_dict(network.state_dict())
    before = network(x)
    assert torch.equal(twin(x), before) and torch.equal(other(x), before)
    with torch.no_grad():
        twin.coefficients.logits[0] = 5.0
    assert not torch.allclose(twin(x), before) and torch.equal(network(x), before)
    torch.testing.assert_close(network.double()(x.double()).float(), before)  # moves with its owner
    meta = to_meta(network)
    assert shared_by(meta) == {id(meta.coefficients)}
    assert all(parameter.is_meta for parameter in meta.parameters())
    assert measure(network, (8, 8)).multiply_adds == 2 * (81 + 9 * 3) * 64
    assert shared_by(network.to("meta")) == {id(network.coefficients)}


@pytest.mark.parametrize("smoothing", ["average", "gaussian", "aggregated"])
def test_a_window_of_one_pixel_is_told_of(smoothing: Smoothing) -> None:
    with pytest.warns(UserWarning, match=r"rate 2 is 1x1.*smooth nothing.*'paper'"):
        module = SmoothedConv2d(2, 2, smoothing=smoothing, window="official")
    x = torch.randn(1, 2, 5, 5)
    torch.testing.assert_close(module(x), plain(module, x))


@pytest.mark.parametrize("kind", FILTERS)
def test_operations(kind: str) -> None:
    name, x = f"{kind}_smoothed_atrous_3x3", torch.randn(2, 4, 9, 7)
    asked = OperationSettings(smoothing_sigma=0.5)
    smoothed, other = OPERATIONS[name].build(4, 1, BatchNorm, asked), OPERATIONS["atrous_3x3"].build(4, 1, BatchNorm)
    keys = other.load_state_dict(smoothed.state_dict(), strict=False)
    assert not keys.missing_keys and all("smoothing" in key for key in keys.unexpected_keys)
    direct = SmoothedConv2d(4, 4, smoothing=kind, **window_arguments(kind, asked))
    direct.load_state_dict(smoothed.get_submodule("body.convolution").state_dict())
    torch.testing.assert_close(smoothed(x), F.batch_norm(direct(F.relu(x)), None, None, training=True))
    assert torch.allclose(smoothed(x), other(x), atol=1e-5) == (kind == "ss_conv")
    strided = OPERATIONS[name].build(4, 2, BatchNorm)
    other = OPERATIONS["atrous_3x3"].build(4, 2, BatchNorm)
    other.load_state_dict(strided.state_dict())
    assert torch.equal(strided(x), other(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smoothing": "median"}, "smoothing is 'median': give one of none, average, gaussian"),
        ({"kernel": 2}, "kernel is 2: give an odd side"),
        ({"rate": 0}, "rate is 0: give a whole number of at least 1"),
        ({"smoothing": "average", "window": "wide"}, "smoothing_window is 'wide': give one of paper, official"),
        ({"smoothing": "gaussian", "sigma": -1.0}, r"smoothing_sigma is -1\.0: give a number above 0"),
        ({"smoothing": "ss_conv", "coefficients": AggregationCoefficients()}, "'ss_conv' has no coefficients"),
        ({"smoothing": "average", "sigma": 2.0}, "'average' has no sigma: leave it out, or give 'gaussian' or 'agg"),
        ({"smoothing": "g_interact", "window": "paper"}, "'g_interact' has no window: leave it out, or give 'average'"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmoothedConv2d(2, 2, **arguments)
