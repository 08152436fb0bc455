"""Factorized convolutions, FPL and ESP modules: the papers' numbers, by hand, at any width and size."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.evaluation.cost import count_parameters
from search_spaces.factorized import ESP, FPL, BatchNormPReLU, FactorizedConv2d, FactorizedPyramid, branch_widths
from search_spaces.modules import BatchNorm
from search_spaces.operations import OPERATIONS, Cost
from search_spaces.settings import OperationSettings
from search_spaces.space import load

EPS = 1e-5


def convolution_weights(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters() if value.dim() == 4)


def scaled(x: Tensor) -> Tensor:
    """A fresh batch norm in eval mode."""
    return x / (1 + EPS) ** 0.5


def slopes(module: nn.Module, value: float) -> None:
    """Gives all PReLUs one slope: 1 is the identity."""
    for child in module.modules():
        if isinstance(child, nn.PReLU):
            nn.init.constant_(child.weight, value)


@pytest.mark.parametrize(
    ("module", "weights"),
    [
        (ESP(60, 60, BatchNorm), 7_200),
        (FPL(60, 60, BatchNorm, factorization="none"), 11_025),
        (FPL(60, 60, BatchNorm), 8_325),
    ],
)
def test_table_1(module: nn.Module, weights: int) -> None:
    assert convolution_weights(module) == weights


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "stride", "parameters"),
    [(16, 16, 1, 656), (64, 64, 1, 9_728), (128, 128, 1, 38_400), (35, 64, 2, 9_280), (131, 128, 2, 38_528)],
)
def test_fpl_parameters(channels_in: int, channels_out: int, stride: int, parameters: int) -> None:
    assert count_parameters(FPL(channels_in, channels_out, BatchNorm, stride)) == parameters


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "stride", "parameters"),
    [
        (64, 64, 1, 7_872),
        (128, 128, 1, 32_384),
        (60, 60, 1, 7_380),
        (20, 20, 1, 860),
        (19, 64, 2, 9_156),
        (35, 64, 2, 10_884),
        (131, 128, 2, 58_659),
    ],
)
def test_esp_parameters(channels_in: int, channels_out: int, stride: int, parameters: int) -> None:
    assert count_parameters(ESP(channels_in, channels_out, BatchNorm, stride)) == parameters


@pytest.mark.parametrize(
    ("channels", "branches", "widths"),
    [(64, 4, (16,) * 4), (10, 4, (3, 3, 2, 2)), (5, 4, (2, 1, 1, 1)), (3, 4, (1, 1, 1)), (1, 4, (1,)), (7, 1, (7,))],
)
def test_branch_widths(channels: int, branches: int, widths: tuple[int, ...]) -> None:
    assert branch_widths(channels, branches) == widths
    assert sum(widths) == channels


@settings(max_examples=30, deadline=None)
@given(
    channels_in=st.integers(1, 9),
    channels_out=st.integers(1, 9),
    stride=st.sampled_from([1, 2]),
    rates=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    fusion=st.sampled_from(["stage1", "pair", "none"]),
    factorization=st.sampled_from(["composite", "none", "all"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_modules_at_any_width_and_size(
    channels_in: int,
    channels_out: int,
    stride: int,
    rates: list[int],
    fusion: str,
    factorization: str,
    size: tuple[int, int],
) -> None:
    for module in (
        FPL(channels_in, channels_out, BatchNorm, stride, rates, fusion, factorization),  # type: ignore[arg-type]
        ESP(channels_in, channels_out, BatchNorm, stride, rates),
    ):
        y = module(torch.randn(2, channels_in, *size))
        assert y.shape == (2, channels_out, -(-size[0] // stride), -(-size[1] // stride))
        y.square().sum().backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in module.parameters())


@pytest.mark.parametrize(("rate", "stride"), [(1, 1), (2, 1), (5, 1), (1, 2), (2, 2)])
def test_factorized_convolution_is_a_3x3_of_rank_one_but_for_its_prelu(rate: int, stride: int) -> None:
    module = FactorizedConv2d(2, 3, rate, stride)
    vertical, horizontal = module.vertical.weight, module.horizontal.weight  # (3, 2, 3, 1), (3, 3, 1, 3)
    kernel = torch.einsum("amx,miy->aiyx", horizontal[:, :, 0], vertical[..., 0])  # (3, 2, 3, 3)
    x = torch.randn(2, 2, 9, 7)
    slopes(module, 1.0)
    torch.testing.assert_close(module(x), F.conv2d(x, kernel, None, stride, rate, rate))
    slopes(module, 0.0)
    inner = F.relu(F.conv2d(x, vertical, None, (stride, 1), (rate, 0), (rate, 1)))
    torch.testing.assert_close(module(x), F.conv2d(inner, horizontal, None, (1, stride), (0, rate), (1, rate)))


@pytest.mark.parametrize("channels", [8, 10])
@pytest.mark.parametrize("fusion", ["stage1", "pair", "none"])
def test_fpl_by_hand(fusion: str, channels: int) -> None:
    module = FPL(channels, channels, BatchNorm, fusion=fusion).eval()  # type: ignore[arg-type]
    weights, x = dict(module.named_parameters()), torch.randn(2, channels, 9, 7)
    y = F.conv2d(F.conv2d(x, weights["pyramid.reduce.weight"]), weights["pyramid.local.weight"], padding=1)
    d2, d4, d8, d16 = (
        F.conv2d(
            F.prelu(
                F.conv2d(y, weights[f"{key}.vertical.weight"], padding=(rate, 0), dilation=(rate, 1)),
                weights[f"{key}.activation.weight"],
            ),
            weights[f"{key}.horizontal.weight"],
            padding=(0, rate),
            dilation=(1, rate),
        )
        for key, rate in ((f"pyramid.branches.{number}", 2 ** (number + 1)) for number in range(4))
    )
    assert [branch.shape[1] for branch in (d2, d4, d8, d16)] == {8: [2, 2, 2, 2], 10: [3, 3, 2, 2]}[channels]
    if fusion == "stage1":
        d2, d4, d8, d16 = (branch + y[:, : branch.shape[1]] for branch in (d2, d4, d8, d16))
    elif fusion == "pair":
        d4, d8 = d4 + d2, d8 + d16
    expected = F.prelu(scaled(torch.cat([d2, d4, d8, d16], 1) + x), weights["activation.weight"])
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(
    ("branches", "sums"),
    [
        (1, {0: {0}}),
        (2, {0: {0}, 1: {0, 1}}),
        (3, {0: {0}, 1: {0, 1}, 2: {2}}),
        (4, {0: {0}, 1: {0, 1}, 2: {2, 3}, 3: {3}}),
        (5, {0: {0}, 1: {0, 1}, 2: {2, 3}, 3: {3}, 4: {4}}),
        (6, {0: {0}, 1: {0, 1}, 2: {2}, 3: {2, 3}, 4: {4, 5}, 5: {5}}),
    ],
)
def test_pairs(branches: int, sums: dict[int, set[int]]) -> None:
    """Which branches reach which output: seen from the gradients of one output channel group."""
    module = FPL(branches, branches, BatchNorm, rates=range(1, branches + 1), fusion="pair")
    for output, expected in sums.items():
        module.zero_grad()
        module.pyramid.batch_norm.eval()
        module(torch.randn(2, branches, 9, 9))[:, output].sum().backward()
        reached = {
            number
            for number, branch in enumerate(module.pyramid.branches)
            if any(value.grad is not None and value.grad.abs().sum() > 0 for value in branch.parameters())
        }
        assert reached == expected


@pytest.mark.parametrize("stride", [1, 2])
def test_esp_by_hand(stride: int) -> None:
    module = ESP(13, 13, BatchNorm, stride).eval()
    weights, x = dict(module.named_parameters()), torch.randn(2, 13, 9, 7)
    y = F.conv2d(x, weights["reduce.weight"], None, stride, padding=stride // 2)
    d1, d2, d4, d8, d16 = (
        F.conv2d(y, weights[f"branches.{number}.weight"], padding=2**number, dilation=2**number) for number in range(5)
    )
    assert [d1.shape[1], d2.shape[1]] == [5, 2]
    y = torch.cat([d1, d2, d2 + d4, d2 + d4 + d8, d2 + d4 + d8 + d16], 1)
    y = scaled(y + x if stride == 1 else y)
    torch.testing.assert_close(module(x), F.prelu(y, weights["output.activation.weight"]))


def test_what_is_added_and_what_has_a_bias() -> None:
    for channels_in, stride, residual, bias in ((8, 1, True, False), (6, 1, False, False), (8, 2, False, True)):
        pyramid = FactorizedPyramid(channels_in, 8, BatchNorm, stride)
        assert (pyramid.add_input is not None) == residual
        biased = [key for key, value in pyramid.named_parameters() if key.endswith(".bias") and "batch_norm" not in key]
        assert biased == ["reduce.bias"] * bias


def test_batch_norm_prelu_by_hand() -> None:
    module = BatchNormPReLU(2, BatchNorm).eval()
    module.activation.weight.data = torch.tensor([0.5, 0.25])
    x = torch.tensor([-4.0, -4.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(module(x), scaled(torch.tensor([-2.0, -1.0]).reshape(1, 2, 1, 1)))


def test_factorized_atrous_operation_by_hand() -> None:
    x = torch.randn(2, 4, 9, 7)
    for stride, seen, rate in ((1, x, 2), (2, x[..., ::2, ::2], 1)):  # odd sizes shrink to every second pixel
        module = OPERATIONS["factorized_atrous_3x3"].build(4, stride, BatchNorm).eval()
        weights = dict(module.named_parameters())
        y = F.conv2d(F.relu(seen), weights["convolution.vertical.weight"], padding=(rate, 0), dilation=(rate, 1))
        y = F.prelu(y, weights["convolution.activation.weight"])
        y = F.conv2d(y, weights["convolution.horizontal.weight"], padding=(0, rate), dilation=(1, rate))
        torch.testing.assert_close(module(x), scaled(y), rtol=1e-4, atol=1e-5)


def test_fpl_operation_is_the_module_behind_a_relu_and_without_its_prelu() -> None:
    operation, module = OPERATIONS["fpl"].build(8, 1, BatchNorm).eval(), FPL(8, 8, BatchNorm).eval()
    module.pyramid.load_state_dict(operation.state_dict())
    slopes(operation, 0.3)
    slopes(module, 0.3)
    slopes(module.activation, 1.0)
    x = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(operation(x), module(F.relu(x)))
    assert operation(x).min() < 0


def test_costs_by_hand() -> None:
    # 6 * 4 * 4 weights, 4 slopes, 8 of the batch norm.
    assert OPERATIONS["factorized_atrous_3x3"].cost(4, 9, 7, 1) == Cost(96 + 12, 96 * 63)
    assert OPERATIONS["factorized_atrous_3x3"].cost(4, 9, 7, 2) == Cost(96 + 12, 96 * 20)
    # 8 channels: n = 2; 16 + 36 + 4 * (12 + 12) weights, 8 slopes, 16 of the batch norm.
    assert OPERATIONS["fpl"].cost(8, 9, 7, 1) == Cost(148 + 24, 148 * 63)
    assert OPERATIONS["fpl"].cost(8, 9, 7, 2) == Cost(148 + 24 + 2, 16 * 63 + 132 * 20)


def test_settings_reach_the_pyramid() -> None:
    built = OPERATIONS["fpl"].build(8, 1, BatchNorm, OperationSettings(fpl_rates=(1, 3), fpl_fusion="pair"))
    assert isinstance(built, FactorizedPyramid)
    rates = [(branch.vertical.dilation, branch.horizontal.dilation) for branch in built.branches]
    assert rates == [((1, 1), (1, 1)), ((3, 1), (1, 3))]
    assert built.fusion == "pair"


def test_the_shipped_space() -> None:
    space, original = load("autodeeplab-factorized"), load("autodeeplab")
    changed = {"atrous_3x3": "factorized_atrous_3x3", "atrous_5x5": "fpl"}
    assert space.operations == tuple(changed.get(name, name) for name in original.operations)
    same = ("layers", "levels", "blocks", "filter_multiplier", "stem", "head")
    assert all(getattr(space, name) == getattr(original, name) for name in same)
    colors = {OPERATIONS[name].color for name in changed.values()}
    assert len(colors) == 1
    assert not colors & {OPERATIONS[name].color for name in itertools.chain(changed, ("separable_3x3", "skip", "none"))}


def test_the_modules_work_as_they_are() -> None:
    x = torch.randn(2, 6, 9, 7)
    for module, shape in ((FPL(6, 6), (2, 6, 9, 7)), (FPL(6, 8, stride=2), (2, 8, 5, 4)), (ESP(6, 6), (2, 6, 9, 7))):
        assert module(x).shape == shape
    for wrong, message in (
        ({"fusion": "x"}, "fpl_fusion is 'x': give one of stage1"),
        ({"factorization": "x"}, "factorization is 'x': give one of composite"),
        ({"rates": (0,)}, "fpl_rates.* 1 to 64"),
    ):
        with pytest.raises(ValueError, match=message):
            FPL(6, 6, **wrong)  # type: ignore[arg-type]
