"""Loaders: a pure function of (seed, epoch, index), for any number of workers and from any batch on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import (
    AugmentConfig,
    Cached,
    DataError,
    Resized,
    Shapes,
    Subset,
    evaluation_loader,
    image_to_tensor,
    label_to_tensor,
    split_dataset,
    split_indices,
    training_loader,
)

Batches = list[tuple[torch.Tensor, torch.Tensor]]

AUGMENT = AugmentConfig(crop=(33, 41), scale=(0.5, 2.0))


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return Shapes("train", size=(32, 40), count=23)


def epoch_of(
    dataset: Shapes, *, seed: int = 3, epoch: int = 0, start: int = 0, workers: int = 0, cached: bool = False
) -> Batches:
    data = Cached(dataset) if cached else dataset
    return list(training_loader(data, range(len(data)), AUGMENT, 4, seed, epoch, start=start, workers=workers))


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for first, second in zip(one, other, strict=True) for a, b in zip(first, second, strict=True)
    )


def test_batches(shapes: Shapes) -> None:
    batches = epoch_of(shapes)
    assert len(batches) == 23 // 4
    for images, labels in batches:
        assert images.shape == (4, 3, 33, 41) and images.dtype == torch.float32
        assert labels.shape == (4, 33, 41) and labels.dtype == torch.int64
        assert images.min() >= -1 and images.max() <= 1
        assert set(labels.flatten().tolist()) <= {*range(6), 255}


def test_workers_and_cache_change_nothing(shapes: Shapes) -> None:
    expected = epoch_of(shapes)
    assert same(expected, epoch_of(shapes, workers=2))
    assert same(expected, epoch_of(shapes, cached=True))


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_start_gives_the_tail_of_the_epoch(shapes: Shapes, start: int) -> None:
    assert same(epoch_of(shapes, epoch=2, start=start), epoch_of(shapes, epoch=2)[start:])


def test_epochs_and_seeds_differ(shapes: Shapes) -> None:
    first = epoch_of(shapes)
    assert same(first, epoch_of(shapes))
    assert not same(first, epoch_of(shapes, epoch=1))
    assert not same(first, epoch_of(shapes, seed=4))


def test_every_index_once_per_epoch(shapes: Shapes) -> None:
    indices = [2, 3, 5, 7, 11, 13]
    orders = []
    for epoch in range(8):
        loader = training_loader(shapes, indices, AUGMENT, 2, 0, epoch)
        orders.append([index for batch in loader.batch_sampler for index in batch])  # type: ignore[union-attr]
    assert all(sorted(order) == indices for order in orders)
    assert len({tuple(order) for order in orders}) > 4


def test_global_generators_are_left_alone(shapes: Shapes) -> None:
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1]  # type: ignore[index]
    epoch_of(shapes)
    list(evaluation_loader(shapes))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]


def test_fewer_samples_than_a_batch(shapes: Shapes) -> None:
    with pytest.raises(DataError, match=r"shapes train: 3 samples are fewer than one batch of 4; use a smaller"):
        training_loader(shapes, [1, 2, 3], AUGMENT, 4, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected 0 or above"),
        ({"epoch": -1}, "epoch is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"start": 6}, r"start is 6; the epoch has 5 batches, expected 0..5"),
    ],
)
def test_numbers_out_of_range(shapes: Shapes, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"batch_size": 4, "seed": 0, "epoch": 0, **options}
    with pytest.raises(ValueError, match=message):
        training_loader(shapes, range(23), AUGMENT, **arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_loader_gives_whole_samples_in_order(shapes: Shapes, workers: int) -> None:
    dataset = Resized(Subset(shapes, [4, 1, 20]), 1.3)
    seen = list(evaluation_loader(dataset, workers=workers))
    assert [int(index) for _, _, index in seen] == [0, 1, 2]
    for position, (image, label, _) in enumerate(seen):
        expected = dataset.read(position)
        assert image.shape == (1, 3, 42, 52) and label.shape == (1, 42, 52)
        assert torch.equal(image[0], image_to_tensor(expected[0]))
        assert torch.equal(label[0], label_to_tensor(expected[1]))


def test_input_scaling() -> None:
    image = np.array([[[0, 51, 255]]], dtype=np.uint8)
    tensor = image_to_tensor(image)
    assert tensor.shape == (3, 1, 1) and tensor.dtype == torch.float32
    torch.testing.assert_close(tensor.flatten(), torch.tensor([-1, -0.6, 1]))
    assert label_to_tensor(np.array([[3, 255]], dtype=np.uint8)).tolist() == [[3, 255]]


@settings(deadline=None)
@given(st.data())
def test_parts_are_disjoint_complete_and_even(data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, 4))
    count = data.draw(st.integers(parts, 200))
    blocks = data.draw(st.none() | st.integers(parts, count))
    seed = data.draw(st.integers(0, 2**31))
    dealt = split_indices(count, seed, parts, blocks)
    assert len(dealt) == parts
    assert sorted(np.concatenate(dealt).tolist()) == list(range(count))
    assert all((np.diff(part) > 0).all() for part in dealt)
    sizes = [len(part) for part in dealt]
    assert max(sizes) - min(sizes) <= (1 if blocks is None else -(-count // blocks))
    for part, again in zip(dealt, split_indices(count, seed, parts, blocks), strict=True):
        np.testing.assert_array_equal(part, again)
    if blocks is not None:
        owner = np.zeros(count, dtype=int)
        for number, part in enumerate(dealt):
            owner[part] = number
        assert (np.diff(owner) != 0).sum() <= blocks - 1  # neighbours are parted only where blocks meet


def test_seeds_deal_differently() -> None:
    for blocks in (None, 20):
        assert len({split_indices(100, seed, 2, blocks)[0].tobytes() for seed in range(10)}) > 8


def test_video_is_dealt_by_blocks(shapes: Shapes) -> None:
    video = Subset(Shapes("train", count=367), range(367))
    assert any(np.diff(part).min() == 1 and np.diff(part).max() > 2 for part in split_dataset(video, 0))
    video.video = True
    for part in split_dataset(video, 0):
        runs = np.split(part, np.flatnonzero(np.diff(part) > 1) + 1)
        assert min(len(run) for run in runs) >= 22  # 367 frames in 16 blocks
    shapes.video = False
    assert sorted(np.concatenate(split_dataset(shapes, 0)).tolist()) == list(range(23))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0, 2, None), "1 samples cannot be dealt into 2 parts"),
        ((10, 0, 0, None), "into 0 parts"),
        ((10, 0, 2, 1), r"blocks is 1; expected 2 \(the parts\) to 10 \(the samples\)"),
        ((10, 0, 2, 11), "blocks is 11"),
    ],
)
def test_impossible_splits(arguments: tuple[int, int, int, int | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_indices(*arguments)
