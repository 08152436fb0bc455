"""The confusion matrix, on tables worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.evaluation.metrics import METRICS, ConfusionMatrix, epoch_text, is_collapse, mean_note, numbers


def table() -> ConfusionMatrix:
    """Labels 0 0 0 1 1 2 void, predictions 0 0 1 1 0 2 2."""
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([0, 0, 1, 1, 0, 2, 2]), torch.tensor([0, 0, 0, 1, 1, 2, 255]))
    return matrix


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_collapse_is_told_from_two_numbers(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = torch.from_numpy(rng.integers(0, classes, 400))
    chance = torch.from_numpy(rng.integers(0, classes, 400))
    for predictions, expected in ((torch.full((400,), 1), True), (chance, False), (labels, False)):
        matrix = ConfusionMatrix(classes)
        matrix.update(predictions, labels)
        assert is_collapse(numbers(matrix)) == expected
    assert not is_collapse({}) and not is_collapse({"miou": 0.0, "pixel_accuracy": 0.0})


def test_counts_by_hand() -> None:
    assert table().counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert table().counts.dtype == np.int64


def test_iou_by_hand() -> None:
    # class 0: 2 / (3 + 3 - 2), class 1: 1 / (2 + 2 - 1), class 2: 1 / (1 + 1 - 1)
    np.testing.assert_allclose(table().iou(), [1 / 2, 1 / 3, 1])
    assert table().mean_iou() == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert table().pixel_accuracy() == pytest.approx(4 / 6)


def test_class_that_never_occurs_is_nan_and_left_out_of_the_mean() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 0, 3]), torch.tensor([0, 0, 0]))
    iou = matrix.iou()
    assert np.isnan(iou[1]) and np.isnan(iou[2])
    assert iou[3] == 0  # predicted, though never right: that counts
    assert matrix.mean_iou() == pytest.approx((2 / 3 + 0) / 2)
    assert matrix.mean_over() == [2, 4] and table().mean_over() == [3, 3]


def test_an_miou_says_of_how_many_classes_it_is_the_mean_where_those_are_not_all() -> None:
    values = {metric.name: 0.5 for metric in METRICS.values()}
    assert epoch_text({**values, "mean_over": [2, 4]}).startswith("val mIoU 50.00 % (mean over 2 of 4 classes)")
    assert "mean" not in epoch_text({**values, "mean_over": [4, 4]}) + epoch_text(values)
    for strange in (None, [], [1], ["1", "2"], {"a": 1}, "1 of 2", [1, 2, 3], [None, 2]):
        assert mean_note(strange) == ""


def test_nothing_counted() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([[1, 0]]), torch.tensor([[255, 255]]))
    assert matrix.counts.sum() == 0
    assert math.isnan(matrix.mean_iou()) and math.isnan(matrix.pixel_accuracy())


def test_one_matrix_over_batches_is_not_a_mean_of_means() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(torch.zeros(1, 1, 9, dtype=torch.int64), torch.zeros(1, 1, 9, dtype=torch.uint8))
    matrix.update(torch.tensor([[[0]]]), torch.tensor([[[1]]]))
    np.testing.assert_allclose(matrix.iou(), [9 / 10, 0])


def test_merge() -> None:
    both = table()
    both.merge(table())
    both.merge(table().counts)
    assert both.counts.tolist() == (3 * table().counts).tolist()
    with pytest.raises(ValueError, match=r"\(2, 2\) into one of 3 classes"):
        both.merge(ConfusionMatrix(2))


def test_counts_is_a_copy() -> None:
    matrix = table()
    matrix.counts[:] = 0
    assert matrix.counts.sum() == 6


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([0, 1], [0, 7], r"label holds 7, which is none of the 3 classes \(0..2\) nor 255"),
        ([0, 1], [-1, 1], "label holds -1"),
        ([0, 3], [0, 1], "prediction holds 3"),
        ([0, -2], [0, 1], "prediction holds -2"),
        ([0, 1], [0, 1, 1], r"prediction is \(2,\) but label is \(3,\)"),
        ([0.0, 1.0], [0, 1], "prediction is torch.float32; expected integer"),
    ],
)
def test_wrong_values_are_refused_and_not_counted(prediction: list[float], label: list[int], message: str) -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.update(torch.tensor(prediction), torch.tensor(label))
    assert matrix.counts.sum() == 0


def test_what_is_predicted_at_ignored_pixels_does_not_matter() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([99, 1]), torch.tensor([255, 1]))
    assert matrix.counts.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(("classes", "ignore", "message"), [(0, 255, "classes is 0"), (300, 255, "ignore is 255")])
def test_wrong_settings(classes: int, ignore: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(classes, ignore)


@settings(deadline=None)
@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=60))
def test_against_a_loop(classes: int, pixels: list[tuple[int, int]]) -> None:
    prediction = [p % classes for p, _ in pixels]
    label = [255 if value == 6 else value % classes for _, value in pixels]
    expected = np.zeros((classes, classes), dtype=np.int64)
    for p, t in zip(prediction, label, strict=True):
        if t != 255:
            expected[t, p] += 1
    matrix = ConfusionMatrix(classes)
    matrix.update(torch.tensor(prediction, dtype=torch.int32), torch.tensor(label, dtype=torch.int16))
    assert matrix.counts.tolist() == expected.tolist()


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_the_contract(name: str) -> None:
    metric = METRICS[name]
    right, wrong = ConfusionMatrix(2), ConfusionMatrix(2)
    labels = torch.tensor([0, 0, 1, 1])
    right.update(labels, labels)
    wrong.update(1 - labels, labels)
    best, worst = metric.compute(right), metric.compute(wrong)
    assert (best > worst) == metric.higher_is_better and metric.label and metric.text(best)
    assert all(0 <= value <= 1 for value in (best, worst) if metric.percent)
    assert math.isnan(metric.compute(ConfusionMatrix(2)))
