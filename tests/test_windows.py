"""Sliding windows: against a loop over pixels, with scales and mirroring; one that covers the image changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.evaluation.evaluate import evaluate_network, predict_scores, slide, starts
from nas.evaluation.inference import Viewing

CPU = torch.device("cpu")


class Bordered(nn.Module):
    """A convolution whose zero padding, and an image mean, make a window differ from a part of the image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 5, padding=2)
        self.batches: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(tuple(x.shape))
        return self.convolution(x) + x.mean((1, 2, 3), keepdim=True)


def by_hand(network: nn.Module, images: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """One pixel at a time: the mean over all windows that it lies in, each computed alone."""
    height, width = images.shape[-2:]
    h, w = min(window[0], height), min(window[1], width)
    tops = sorted({min(top, height - h) for top in range(0, height, stride[0])})
    lefts = sorted({min(left, width - w) for left in range(0, width, stride[1])})
    out = torch.zeros(images.shape[0], 4, height, width)
    for number in range(images.shape[0]):
        seen = {
            (top, left): network(images[number : number + 1, :, top : top + h, left : left + w])[0]
            for top in tops
            for left in lefts
        }
        for y in range(height):
            for x in range(width):
                here = [
                    logits[:, y - top, x - left]
                    for (top, left), logits in seen.items()
                    if top <= y < top + h and left <= x < left + w
                ]
                out[number, :, y, x] = torch.stack(here).mean(0)
    return out


@given(st.integers(1, 60), st.integers(1, 30), st.data())
def test_windows_cover_a_side_and_stay_inside(side: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    found = starts(side, window, stride)
    assert found == sorted(set(found)) and found[0] == 0
    covered = {pixel for start in found for pixel in range(start, start + min(window, side))}
    assert covered == set(range(side))
    assert all(second - first <= stride for first, second in itertools.pairwise(found))
    assert found[:-1] == list(range(0, stride * (len(found) - 1), stride))  # only the last one is shifted


@pytest.mark.parametrize(
    ("side", "window", "stride", "expected"),
    [(10, 4, 3, [0, 3, 6]), (10, 4, 4, [0, 4, 6]), (9, 4, 4, [0, 4, 5]), (4, 4, 2, [0]), (3, 4, 2, [0])],
)
def test_the_last_window_is_shifted_inwards(side: int, window: int, stride: int, expected: list[int]) -> None:
    assert starts(side, window, stride) == expected


@pytest.mark.parametrize(
    ("window", "stride"), [((6, 5), (4, 3)), ((6, 5), (6, 5)), ((6, 5), (1, 5)), ((6, 40), (5, 7)), ((40, 5), (9, 2))]
)
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_windows_are_averaged_as_by_hand(window: tuple[int, int], stride: tuple[int, int], batch: int) -> None:
    network, images = Bordered(), torch.randn(2, 3, 13, 11)
    found = slide(network, images, window, stride, batch)
    assert max(shape[0] for shape in network.batches) <= 2 * batch
    with torch.no_grad():
        torch.testing.assert_close(found, by_hand(network, images, window, stride))


def test_a_window_that_covers_the_image_changes_nothing() -> None:
    network, images = Bordered(), torch.randn(1, 3, 13, 11)
    for window in ((13, 11), (20, 30)):
        for scales, flip in (((1.0,), False), ((1.0,), True)):
            whole, seen = (
                predict_scores(network, images, (26, 22), Viewing(scales, flip, given), CPU, "float32")
                for given in (None, window)
            )
            assert torch.equal(whole, seen)


def test_windows_go_with_scales_and_mirroring() -> None:
    network, images = Bordered(), torch.randn(1, 3, 13, 11)
    viewing = Viewing((0.5, 1.0, 1.5), True, (8, 7), (5, 4))
    found = predict_scores(network, images, (13, 11), viewing, CPU, "float32")
    views = []
    with torch.no_grad():
        for size in ((7, 6), (13, 11), (19, 16)):
            scaled = nn.functional.interpolate(images, size, mode="bilinear", align_corners=True)
            for x, back in ((scaled, False), (scaled.flip(3), True)):
                share = by_hand(network, x, (8, 7), (5, 4)).softmax(1)
                share = share.flip(3) if back else share
                views.append(nn.functional.interpolate(share, (13, 11), mode="bilinear", align_corners=True))
    torch.testing.assert_close(found, torch.stack(views).mean(0))


def test_evaluation_in_windows_counts_the_argmax_by_hand() -> None:
    network = Bordered()
    images = [torch.randn(1, 3, 13, 11), torch.randn(1, 3, 7, 6), torch.randn(1, 3, 5, 20)]
    labels = [torch.randint(4, (1, *image.shape[-2:])) for image in images]
    batches = [(i, t, torch.tensor([n])) for n, (i, t) in enumerate(zip(images, labels, strict=True))]
    found = evaluate_network(network, batches, 4, CPU, viewing=Viewing(window=(7, 6), stride=(4, 4)))
    expected = torch.zeros(4, 4, dtype=torch.int64)
    with torch.no_grad():
        for image, label in zip(images, labels, strict=True):
            prediction = by_hand(network, image, (7, 6), (4, 4)).argmax(1)
            expected.index_put_((label.flatten(), prediction.flatten()), torch.tensor(1), accumulate=True)
    assert found.counts.tolist() == expected.tolist()


def test_the_stride_is_two_thirds_of_the_window() -> None:
    assert Viewing(window=(769, 769)).steps == (513, 513)
    assert Viewing(window=(64, 1)).steps == (43, 1)
    assert Viewing(window=(64, 1), stride=(1, 1)).steps == (1, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window": (0, 5)}, "window[0] is 0: give a whole number from 1"),
        ({"window": (5,)}, "window is (5,): give a list of 2, each a whole number"),
        ({"window": (9, 9), "stride": (0, 9)}, "stride[0] is 0: give a whole number from 1"),
        ({"window": (9, 9), "stride": (9, 10)}, "stride 9x10 is larger than the window, 9x9, and would leave pixels"),
        ({"stride": (9, 9)}, "stride is 9x9, but there is no window: give --window, too"),
        ({"window_batch": 2}, "window_batch is 2, but there is no window: give --window, too"),
        ({"window": (9, 9), "window_batch": 0}, "window_batch is 0: give a whole number from 1"),
    ],
)
def test_windows_that_cannot_be_used_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as raised:
        Viewing(**changes)
    assert str(raised.value).startswith(says) and "\n" not in str(raised.value)
