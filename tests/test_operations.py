"""The contract of candidate operations, over the registry: a new entry is tested the moment it is registered."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.evaluation.cost import count_parameters, measure
from search_spaces.modules import BatchNorm, resize
from search_spaces.operations import NONE, OPERATIONS, Cost, register_operation
from search_spaces.registry import Registry
from search_spaces.settings import OperationSettings
from search_spaces.space import load

CHANNELS = 6
SIZES = [(8, 8), (9, 7), (1, 1), (1, 5), (2, 1)]
every_operation = pytest.mark.parametrize("name", OPERATIONS)
strides = pytest.mark.parametrize("stride", [1, 2])


def make(name: str, stride: int) -> nn.Module:
    torch.manual_seed(0)
    return OPERATIONS[name].build(CHANNELS, stride, BatchNorm)


def halved(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def test_an_operation_need_not_take_settings() -> None:
    with OPERATIONS.temporarily():
        for name, builder in (
            ("without", lambda channels, stride, batch_norm: nn.Conv2d(channels, channels, 3, stride, 1)),
            ("by_any_name", lambda c, s, norm, settings: nn.Conv2d(c, settings.li_zone, 3, s, 1)),
        ):
            register_operation(name, label="x", color="#000000", cost=lambda *_: Cost())(builder)
        built = [
            OPERATIONS[name].build(5, 2, BatchNorm, OperationSettings(li_zone=7)) for name in ("without", "by_any_name")
        ]
    assert [module.out_channels for module in built] == [5, 7]
    assert "without" not in OPERATIONS


def test_the_registry_has_the_papers_operations() -> None:
    assert {
        "none", "skip", "max_pooling_3x3", "average_pooling_3x3",
        "separable_3x3", "separable_5x5", "atrous_3x3", "atrous_5x5",
    } <= set(OPERATIONS)  # fmt: skip
    assert {
        "li_atrous_3x3", "li_atrous_5x5", "li_dilated_separable_3x3",
        "average_smoothed_atrous_3x3", "gaussian_smoothed_atrous_3x3",
        "ss_conv_smoothed_atrous_3x3", "aggregated_smoothed_atrous_3x3",
    } <= set(OPERATIONS)  # fmt: skip


def test_the_extended_space_has_the_operations_of_the_paper_and_its_three_extensions() -> None:
    parts = [load(name) for name in ("autodeeplab", "autodeeplab-li", "autodeeplab-smooth", "autodeeplab-factorized")]
    union = {name for part in parts for name in part.operations}
    assert set(load("autodeeplab-extended").operations) == union


@every_operation
@strides
@pytest.mark.parametrize("size", SIZES)
def test_shape(name: str, stride: int, size: tuple[int, int]) -> None:
    module = make(name, stride)
    for mode in (True, False):
        y = module.train(mode)(torch.randn(2, CHANNELS, *size))
        assert y.shape == (2, CHANNELS, *halved(size, stride))
        assert torch.isfinite(y).all()


@every_operation
@strides
@pytest.mark.parametrize("size", [(9, 7), (1, 1)])
def test_every_parameter_gets_a_gradient(name: str, stride: int, size: tuple[int, int]) -> None:
    module = make(name, stride)
    x = torch.randn(2, CHANNELS, *size, requires_grad=True)
    y = module(x)
    if name == NONE:
        assert not y.requires_grad
        return
    y.square().sum().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in module.parameters())
    assert x.grad is not None and torch.isfinite(x.grad).all()


@every_operation
def test_the_record_tells_the_truth(name: str) -> None:
    record = OPERATIONS[name]
    assert record.name == name
    assert record.label and record.color.startswith("#")
    assert len(record.label) <= 11, "wider than its box in the picture of a cell"
    assert [other for other in OPERATIONS if OPERATIONS[other].label == record.label] == [name]
    assert record.has_weights == (count_parameters(make(name, 1)) > 0)


@every_operation
@strides
@pytest.mark.parametrize("size", SIZES)
def test_the_records_cost_is_what_is_measured(name: str, stride: int, size: tuple[int, int]) -> None:
    measured = measure(make(name, stride), size, channels=CHANNELS)
    assert measured == OPERATIONS[name].cost(CHANNELS, *size, stride)


@every_operation
@strides
@pytest.mark.filterwarnings("ignore:the official window")
def test_other_settings(name: str, stride: int) -> None:
    settings = OperationSettings(
        li_zone=5,
        li_rate=2,
        li_sigma=2.0,
        li_init=(0.1, 0.2),
        smoothing_window="official",
        smoothing_sigma=0.5,
        fpl_rates=(1, 3),
        fpl_fusion="none",
    )
    module = OPERATIONS[name].build(CHANNELS, stride, BatchNorm, settings)
    y = module(torch.randn(2, CHANNELS, 9, 7))
    assert y.shape == (2, CHANNELS, *halved((9, 7), stride))
    assert torch.isfinite(y).all()


@every_operation
@strides
def test_mixed_precision(name: str, stride: int) -> None:
    module = make(name, stride)
    x = torch.randn(2, CHANNELS, 9, 7, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    if name != NONE:
        y.float().square().sum().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in module.parameters())


@every_operation
@strides
def test_sources_do_not_touch_each_other(name: str, stride: int) -> None:
    torch.manual_seed(0)
    module = OPERATIONS[name].build(CHANNELS, stride, lambda channels: BatchNorm(channels, sources=3))
    before = {key: value.clone() for key, value in module.named_buffers() if "running" in key}
    module(torch.randn(2, CHANNELS, 9, 7) + 1, source=1)
    for key, value in module.named_buffers():
        if "running" in key:
            assert torch.equal(value[0], before[key][0]) and torch.equal(value[2], before[key][2])
            assert not torch.equal(value[1], before[key][1])


def test_none_gives_zeros() -> None:
    for stride in (1, 2):
        assert make(NONE, stride)(torch.randn(2, CHANNELS, 5, 4)).abs().max() == 0


def normalise(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Batch norm of a fresh layer in training, written out."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


@strides
@pytest.mark.parametrize("kernel", [3, 5])
def test_separable_by_hand(kernel: int, stride: int) -> None:
    module = make(f"separable_{kernel}x{kernel}", stride)
    weights = dict(module.named_parameters())
    x = y = torch.randn(2, CHANNELS, 9, 7)
    for half, step in (("first", stride), ("second", 1)):
        y = F.conv2d(F.relu(y), weights[f"{half}.depthwise.weight"], None, step, kernel // 2, groups=CHANNELS)
        y = normalise(F.conv2d(y, weights[f"{half}.pointwise.weight"]))
    torch.testing.assert_close(module(x), y)


@strides
@pytest.mark.parametrize("kernel", [3, 5])
def test_dilated_separable_by_hand(kernel: int, stride: int) -> None:
    module = make(f"dilated_separable_{kernel}x{kernel}", stride)
    weights = dict(module.named_parameters())
    x = torch.randn(2, CHANNELS, 9, 7)
    y = F.conv2d(F.relu(x), weights["depthwise.weight"], None, stride, kernel - 1, dilation=2, groups=CHANNELS)
    torch.testing.assert_close(module(x), normalise(F.conv2d(y, weights["pointwise.weight"])))


@pytest.mark.parametrize("kernel", [3, 5])
def test_atrous_by_hand(kernel: int) -> None:
    x = torch.randn(2, CHANNELS, 9, 7)
    fine, coarse = make(f"atrous_{kernel}x{kernel}", 1), make(f"atrous_{kernel}x{kernel}", 2)
    weight = next(fine.parameters())
    assert weight.shape == (CHANNELS, CHANNELS, kernel, kernel)  # full, not depthwise
    torch.testing.assert_close(fine(x), normalise(F.conv2d(F.relu(x), weight, padding=2 * (kernel // 2), dilation=2)))
    weight = next(coarse.parameters())
    # 9x7 shrinks bilinearly to 5x4 with aligned corners: every second pixel of the odd sizes.
    torch.testing.assert_close(
        coarse(x), normalise(F.conv2d(F.relu(x[..., ::2, ::2]), weight, padding=kernel // 2)), rtol=1e-4, atol=1e-5
    )


def test_skip_by_hand() -> None:
    x = torch.randn(2, CHANNELS, 9, 7)
    assert torch.equal(make("skip", 1)(x), x)
    module = make("skip", 2)
    torch.testing.assert_close(module(x), normalise(F.conv2d(F.relu(x), next(module.parameters()), stride=2)))


def test_pooling_by_hand() -> None:
    x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)  # 1 2 3 / 4 5 6 / 7 8 9
    averages, maxima = OPERATIONS["average_pooling_3x3"].build, OPERATIONS["max_pooling_3x3"].build
    # The padding does not count: a corner's mean is over 4 values, an edge's over 6.
    assert averages(1, 1, BatchNorm)(x).flatten().tolist() == [3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7]
    assert averages(1, 2, BatchNorm)(x).flatten().tolist() == [3, 4, 6, 7]
    assert maxima(1, 1, BatchNorm)(x).flatten().tolist() == [5, 6, 6, 8, 9, 9, 8, 9, 9]
    assert maxima(1, 1, BatchNorm)(-x).flatten().tolist() == [-1, -1, -2, -1, -1, -2, -4, -4, -5]


def test_batch_norm_keeps_statistics_per_source() -> None:
    norm = BatchNorm(1, sources=2, momentum=0.1)
    assert norm.running_mean.shape == norm.running_var.shape == (2, 1)
    x = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)  # mean 2, variance 1, unbiased 2
    y = norm(x, source=1)
    assert y.flatten().tolist() == pytest.approx([-1, 1], abs=1e-4)
    assert norm.running_mean.flatten().tolist() == pytest.approx([0, 0.2])
    assert norm.running_var.flatten().tolist() == pytest.approx([1, 0.9 + 0.1 * 2])
    norm.eval()
    assert norm(x, source=0).flatten().tolist() == pytest.approx([1, 3], abs=1e-4)
    shifted = [(value - 0.2) / math.sqrt(1.1) for value in (1, 3)]
    assert norm(x, source=1).flatten().tolist() == pytest.approx(shifted, abs=1e-4)
    assert norm.running_mean.flatten().tolist() == pytest.approx([0, 0.2])  # eval changes nothing


def test_batch_norm_with_one_source_is_torchs() -> None:
    ours, theirs = BatchNorm(3, eps=1e-3, momentum=0.3), nn.BatchNorm2d(3, eps=1e-3, momentum=0.3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 5, 5) * 2 + 1
    torch.testing.assert_close(ours(x, 0), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert not list(BatchNorm(3, sources=2, affine=False).parameters())


def test_batch_norm_state_goes_into_the_state_dict() -> None:
    norm = BatchNorm(2, sources=3)
    norm(torch.randn(4, 2, 3, 3) + 5, source=2)
    copy = BatchNorm(2, sources=3)
    copy.load_state_dict(norm.state_dict())
    x = torch.randn(4, 2, 3, 3)
    assert torch.equal(norm.eval()(x, source=2), copy.eval()(x, source=2))


def test_resize() -> None:
    x = torch.tensor([[0.0, 2.0]]).reshape(1, 1, 1, 2)
    assert resize(x, (1, 3)).flatten().tolist() == [0, 1, 2]  # corners stay corners
    assert resize(x, (2, 2)).flatten().tolist() == [0, 2, 0, 2]
    assert resize(x, (1, 2)) is x


def test_costs_add_up() -> None:
    assert Cost(1, 2) + Cost(10, 20) == Cost(11, 22)


def test_registry() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    registry.register("two", 2)
    assert registry.names() == tuple(registry) == ("one", "two")
    assert registry["two"] == registry.get("two") == 2
    assert registry.values() == (1, 2)
    assert "one" in registry and "three" not in registry and len(registry) == 2
    with pytest.raises(ValueError, match="number 'one' is registered already"):
        registry.register("one", 3)
    assert registry["one"] == 1
    with pytest.raises(ValueError, match="unknown number 'three': choose one of one, two"):
        registry.get("three")
    with pytest.raises(ValueError, match=r"candidate operation.*separable_3x3"):
        OPERATIONS.get("separable")


def test_what_is_registered_temporarily_is_undone_whatever_happens() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    with pytest.raises(KeyError), registry.temporarily():
        registry.register("two", 2)
        raise KeyError
    assert registry.names() == ("one",)


def test_shipped_entries_are_loaded_at_the_first_look() -> None:
    loads: list[int] = []

    def load_shipped() -> None:
        loads.append(1)
        numbers.register("one", 1)

    numbers: Registry[int] = Registry("number", load_shipped=load_shipped)
    assert loads == []
    with pytest.raises(ValueError, match="number 'one' is registered already"):
        numbers.register("one", 3)
    assert (numbers["one"], list(numbers), loads) == (1, ["one"], [1])
