"""The loss with weights for the classes and at the logits' resolution, by hand; how classes are counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nas.config import LossNameConfig, SgdConfig
from nas.data.base import DataError, Resized, Sample, SegmentationDataset, Subset, open_dataset
from nas.data.label_counts import count_labels
from nas.training.class_weights import class_shares, inverse_log
from nas.training.losses import LOSSES, cross_entropy, make_loss, resize_labels
from nas.training.optimizers import make_optimizer
from nas.training.step import Execution, Stepper
from retrain.networks.base import SegmentationNetwork


def test_inverse_log_weights_by_hand() -> None:
    weights = inverse_log([0.0, 0.3, 1.0], 1.02)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([50.4983, 3.60189, 1.42228], rel=1e-5)
    assert inverse_log([0.0], math.e).tolist() == pytest.approx([1.0])


class Labels(SegmentationDataset):
    """Labels as given, black images."""

    name, split = "labels", "train"
    colors = np.zeros((3, 3), dtype=np.uint8)
    classes = ("a", "b", "c")

    def __init__(self, labels: Sequence[list[list[int]]]) -> None:
        self.labels = [np.array(label, dtype=np.uint8) for label in labels]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Sample:
        label = self.labels[index]
        return np.zeros((*label.shape, 3), dtype=np.uint8), label

    def sample_name(self, index: int) -> str:
        return str(index)


def test_shares_are_of_labelled_pixels_over_the_whole_split() -> None:
    # Of images of different sizes: 3 pixels of a, 1 of b, none of c, 3 ignored.
    dataset = Labels([[[0, 0, 255]], [[0, 1], [255, 255]]])
    assert class_shares(count_labels(dataset)[:3]).tolist() == [0.75, 0.25, 0.0]
    assert class_shares(count_labels(Subset(dataset, [1]))[:3]).tolist() == [0.5, 0.5, 0.0]


def test_shares_of_the_built_in_data_as_they_are_read() -> None:
    dataset = Resized(Subset(open_dataset("shapes", None, "train"), range(3)), 0.5)
    labels = [dataset.read(index)[1] for index in range(3)]
    counts = np.array([sum(int((label == k).sum()) for label in labels) for k in range(6)])
    np.testing.assert_allclose(class_shares(count_labels(dataset)[:6]), counts / counts.sum())


def test_a_split_without_labels_has_no_shares() -> None:
    with pytest.raises(DataError, match="there is no labelled pixel to weigh classes by"):
        class_shares(count_labels(Labels([[[255]]]))[:3])


def test_weighted_cross_entropy_by_hand() -> None:
    # Probabilities of the labelled class: 1/2 and 3/4 for class 0, 1/4 for class 1; one pixel is ignored.
    logits = torch.log(torch.tensor([[1.0, 3.0, 3.0, 9.0], [1.0, 1.0, 1.0, 1.0]])).view(1, 2, 2, 2)
    labels = torch.tensor([[[0, 0], [1, 255]]])
    expected = (2 * math.log(2) + 2 * math.log(4 / 3) + 5 * math.log(4)) / (2 + 2 + 5)
    weights = torch.tensor([2.0, 5.0])
    assert cross_entropy(logits, labels, weights).item() == pytest.approx(expected)
    assert cross_entropy(logits, labels, weights).item() == pytest.approx(
        F.cross_entropy(logits, labels, weights, ignore_index=255).item()
    )
    assert cross_entropy(logits, labels, 7 * weights).item() == pytest.approx(expected)  # their scale is divided out
    alike = cross_entropy(logits, labels, torch.ones(2))
    assert alike.item() == pytest.approx(cross_entropy(logits, labels).item())


def test_without_labels_the_weighted_loss_and_gradient_are_zero() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255), torch.tensor([0.1, 1.0, 2.0]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_labels_at_a_finer_size_are_brought_to_the_logits() -> None:
    labels = torch.arange(16).view(1, 4, 4)
    assert resize_labels(labels, (2, 2)).tolist() == [[[0, 2], [8, 10]]]
    assert resize_labels(labels, (3, 1)).tolist() == [[[0], [4], [8]]]
    assert resize_labels(labels[:, :2, :2], (4, 2)).tolist() == [[[0, 1], [0, 1], [4, 5], [4, 5]]]
    assert resize_labels(labels, (4, 4)) is labels
    logits = torch.randn(1, 16, 2, 2)
    expected = F.cross_entropy(logits, torch.tensor([[[0, 2], [8, 10]]]))
    assert cross_entropy(logits, labels).item() == pytest.approx(expected.item())


@given(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 40)] * 2))
def test_nearest_neighbours_one_at_a_time(given_size: tuple[int, int], wanted: tuple[int, int]) -> None:
    labels = torch.arange(given_size[0] * given_size[1]).view(1, *given_size)
    resized = resize_labels(labels, wanted)
    assert resized.shape == (1, *wanted)
    for row in range(wanted[0]):
        for column in range(wanted[1]):
            source = (row * given_size[0] // wanted[0], column * given_size[1] // wanted[1])
            assert resized[0, row, column] == labels[0, source[0], source[1]]


class Strided(SegmentationNetwork):
    """Logits at stride 4."""

    def __init__(self) -> None:
        super().__init__(3)
        self.convolution = torch.nn.Conv2d(3, 3, 3, 4, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x)


@pytest.mark.parametrize("resolution", ["image", "logits"])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 4.0, 9.0])])
def test_a_step_takes_the_loss_where_it_is_told_to(resolution: str, weights: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    network = Strided()
    images, labels = torch.randn(2, 3, 17, 22), torch.randint(3, (2, 17, 22))
    logits = network.logits(images)
    assert logits.shape == (2, 3, 5, 6)
    if resolution == "logits":
        rows, columns = [i * 17 // 5 for i in range(5)], [i * 22 // 6 for i in range(6)]
        expected = F.cross_entropy(logits, labels[:, rows][:, :, columns], weights)
    else:
        full = F.interpolate(logits, (17, 22), mode="bilinear", align_corners=True)
        expected = F.cross_entropy(full, labels, weights)
    optimizer = make_optimizer(network, network.parameters(), SgdConfig(0.1, 0.0))
    forward = network.logits if resolution == "logits" else None
    loss = partial(cross_entropy, class_weights=weights)
    stepper = Stepper("test", network, optimizer, Execution(torch.device("cpu")), loss, forward=forward)
    assert stepper.step(images, labels, "here") == pytest.approx(expected.item())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_keeps_the_contract(name: str, dtype: torch.dtype) -> None:
    loss = make_loss(LossNameConfig(name), 3, torch.device("cpu"))
    logits = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    labels = torch.randint(3, (2, 9, 11), generator=torch.Generator().manual_seed(1))  # of another size
    value = loss(logits, labels)
    value.backward()
    assert value.shape == () and value.isfinite() and logits.grad is not None and logits.grad.abs().sum() > 0
    ignored = loss(logits, torch.full_like(labels, 255))
    assert ignored.item() == 0
    half = labels.clone()
    half[:, :, 6:] = 255
    other = logits.detach().clone()
    other[..., -1] += 7  # where every label is ignored
    assert loss(other, half).item() == pytest.approx(loss(logits, half).item())
