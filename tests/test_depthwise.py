"""The depthwise convolution against PyTorch's, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.supernet.engine.convolutions import convolve

sides = st.integers(1, 9)


def depthwise(x: torch.Tensor, weight: torch.Tensor, rate: int) -> torch.Tensor:
    around = rate * (weight.shape[-1] // 2)
    return convolve(x, weight, None, (around, around), (rate, rate), len(weight), None)


@settings(deadline=None)  # a busy machine is no failure
@given(sides, sides, st.sampled_from([1, 3, 5, 7]), st.integers(1, 3), st.integers(1, 5), st.booleans())
def test_equals_pytorch(height: int, width: int, kernel: int, rate: int, channels: int, channels_last: bool) -> None:
    torch.manual_seed(height * 9 + width)
    x = torch.randn(2, channels, height, width, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    y = depthwise(x, weight, rate)
    expected = F.conv2d(x, weight, None, 1, rate * (kernel // 2), rate, channels)
    torch.testing.assert_close(y, expected)
    direction = torch.randn_like(y)
    for own, other in zip(*(torch.autograd.grad(z, (x, weight), direction) for z in (y, expected)), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("of_x", [True, False])
def test_only_what_is_asked_for_is_computed(of_x: bool) -> None:
    x = torch.randn(1, 2, 5, 5, requires_grad=of_x)
    weight = torch.randn(2, 1, 3, 3, requires_grad=not of_x)
    depthwise(x, weight, 2).sum().backward()
    assert (x.grad is not None, weight.grad is not None) == (of_x, not of_x)


@pytest.mark.parametrize(("kernel", "rate"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_mixed_precision_is_that_of_pytorch(kernel: int, rate: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 9, 9, requires_grad=True), torch.randn(3, 1, kernel, kernel, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x, weight, rate)
        expected = F.conv2d(x, weight, None, 1, rate * (kernel // 2), rate, 3)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected)
    for own, other in zip(*(torch.autograd.grad(z.sum(), (x, weight)) for z in (y, expected)), strict=True):
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, other, atol=0.3, rtol=0.02)  # of sums of 162 numbers with 8 bits each


def test_a_small_one_by_gradcheck() -> None:
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    for kernel in (3, 5):
        weight = torch.randn(2, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda a, b: depthwise(a, b, 2), (x, weight))
