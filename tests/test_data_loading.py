"""Loaders: a pure function of (seed, epoch, index), however they are made, from any batch on; and how they end."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
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
    DiskCached,
    Resized,
    SegmentationDataset,
    Subset,
    epoch_batches,
    evaluation_loader,
    image_to_tensor,
    label_to_tensor,
    split_dataset,
    split_indices,
    training_loader,
)
from nas.data.augment import augment
from nas.data.base import Sample, Wrapper
from nas.data.prefetch import Loader
from nas.data.readers import Shapes

Batches = list[tuple[torch.Tensor, torch.Tensor]]

AUGMENT = AugmentConfig(crop=(33, 41), scale=(0.5, 2.0))


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return Shapes("train", size=(32, 40), count=23)


def epoch_of(dataset: SegmentationDataset, *, seed: int = 3, epoch: int = 0, start: int = 0, **options: Any) -> Batches:
    plan = epoch_batches(range(len(dataset)), 4, seed, epoch)[start:]
    with training_loader(dataset, plan, AUGMENT, seed, **options) as loader:
        return list(loader)


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


def test_batches_are_samples_augmented_one_by_one(shapes: Shapes) -> None:
    order = np.random.default_rng([3, 5, 0, 1]).permutation(23)
    for number, (images, labels) in enumerate(epoch_of(shapes, epoch=5)):
        for position, index in enumerate(order[4 * number : 4 * number + 4].tolist()):
            image, label = augment(*shapes.read(index), AUGMENT, np.random.default_rng([3, 5, index]))
            assert torch.equal(images[position], torch.from_numpy(image.copy()).permute(2, 0, 1) / 127.5 - 1)
            assert torch.equal(labels[position], torch.from_numpy(label.astype(int)))


@pytest.mark.parametrize(
    "options", [{"prefetch": 0}, {"prefetch": 1}, {"prefetch": 9}, {"workers": 1, "prefetch": 1}, {"workers": 2}]
)
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_workers_prefetch_and_cache_change_nothing(
    shapes: Shapes, options: dict[str, int], cache: str, tmp_path: Path
) -> None:
    kept = {"none": lambda: shapes, "memory": lambda: Cached(shapes), "disk": lambda: DiskCached(shapes, tmp_path)}
    assert same(epoch_of(shapes, prefetch=0), epoch_of(kept[cache](), **options))


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"prefetch": 3}, {"workers": 2}])
def test_one_loader_goes_through_all_epochs(shapes: Shapes, options: dict[str, int]) -> None:
    plan = (batch for epoch in (4, 5, 6) for batch in epoch_batches(range(23), 4, 3, epoch))
    with training_loader(shapes, plan, AUGMENT, 3, **options) as loader:
        batches = iter(loader)
        for epoch in (4, 5, 6):
            assert same([next(batches) for _ in range(5)], epoch_of(shapes, epoch=epoch))
        assert next(batches, None) is None


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
        plan = epoch_batches(indices, 2, 0, epoch)
        assert {number for batch in plan for number, _ in batch} == {epoch}
        orders.append([index for batch in plan for _, index in batch])
    assert all(sorted(order) == indices for order in orders)
    assert len({tuple(order) for order in orders}) > 4


def test_global_generators_are_left_alone(shapes: Shapes) -> None:
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1]  # type: ignore[index]
    epoch_of(shapes)
    list(evaluation_loader(shapes))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]


def test_fewer_samples_than_a_batch() -> None:
    with pytest.raises(DataError, match=r"3 samples are fewer than one batch of 4; use a smaller"):
        epoch_batches([1, 2, 3], 4, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected 0 or above"),
        ({"epoch": -1}, "epoch is -1"),
    ],
)
def test_plans_with_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epoch_batches(range(23), **{"batch_size": 4, "seed": 0, "epoch": 0, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; expected 0 or above"),
        ({"workers": -1}, "workers is -1; expected 0 or above"),
        ({"prefetch": -1}, "prefetch is -1; expected 0 or above"),
        ({"workers": 3, "prefetch": 0}, "prefetch is 0; expected 1 or above"),
    ],
)
def test_loaders_with_numbers_out_of_range(shapes: Shapes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_loader(shapes, [], AUGMENT, **{"seed": 0, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_loader_gives_whole_samples_in_order_in_every_pass(shapes: Shapes, workers: int) -> None:
    dataset = Resized(Subset(shapes, [4, 1, 20]), 1.3)
    with evaluation_loader(dataset, workers) as loader:
        for _ in range(2):
            seen = list(loader)
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
        ((1, 0, 2, None), "1 sample cannot be dealt into 2 parts"),
        ((10, 0, 0, None), "into 0 parts"),
        ((10, 0, 2, 1), r"blocks is 1; expected 2 \(the parts\) to 10 \(the samples\)"),
        ((10, 0, 2, 11), "blocks is 11"),
    ],
)
def test_impossible_splits(arguments: tuple[int, int, int, int | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_indices(*arguments)


# Reading ahead: errors, and that nothing is left behind


class Peculiar(Exception):
    """An error that does not come through a pickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Broken(Wrapper):
    """A data set in which one sample cannot be read."""

    def __init__(self, dataset: SegmentationDataset, error: Exception) -> None:
        super().__init__(dataset)
        self.error = error

    def read(self, index: int) -> Sample:
        if index == 13:
            raise self.error
        return super().read(index)


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def leaves_no_thread() -> Iterator[None]:
    yield
    assert not prefetching()


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"prefetch": 2}, {"workers": 2}])
@pytest.mark.parametrize("error", [DataError("image x.png cannot be read: cut short"), FileNotFoundError(2, "No", "x")])
def test_an_error_comes_at_its_batch_as_it_was_raised(
    shapes: Shapes, options: dict[str, int], error: Exception
) -> None:
    plan = epoch_batches(range(23), 4, 3, 0)
    broken_batch = next(number for number, batch in enumerate(plan) if (0, 13) in batch)
    assert broken_batch > 0
    with training_loader(Broken(shapes, error), plan, AUGMENT, 3, **options) as loader:
        batches = iter(loader)
        assert same([next(batches) for _ in range(broken_batch)], epoch_of(shapes)[:broken_batch])
        with pytest.raises(type(error)) as raised:
            next(batches)
        assert str(raised.value) == str(error) and not prefetching()
        assert next(batches, None) is None
        if "workers" in options:
            assert "def read" not in str(raised.value) and "in read" in str(raised.value.__cause__)


def test_an_error_that_cannot_travel_is_torchs_to_tell(shapes: Shapes) -> None:
    broken = Broken(shapes, Peculiar(1, 2))
    with pytest.raises((Peculiar, RuntimeError), match="1 and 2"):
        epoch_of(broken, workers=1)


def test_so_many_batches_are_made_ahead_and_no_more() -> None:
    made: list[int] = []

    def make(number: int) -> tuple[torch.Tensor]:
        made.append(number)
        return (torch.tensor(number),)

    with Loader(make, range(100), prefetch=3) as loader:
        batches = iter(loader)
        assert not made
        for taken in (1, 2, 3):
            next(batches)
            deadline = time.monotonic() + 5
            while len(made) < taken + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert made == list(range(taken + 3))


def test_a_loader_that_is_left_leaves_no_thread(shapes: Shapes) -> None:
    plan = epoch_batches(range(23), 4, 3, 0)
    with training_loader(shapes, plan, AUGMENT, 3) as loader:
        batches = iter(loader)
        next(batches)
        assert prefetching()
    assert not prefetching()
    assert next(batches, None) is None
    with pytest.raises(KeyboardInterrupt), training_loader(shapes, plan, AUGMENT, 3) as loader:
        next(iter(loader))
        raise KeyboardInterrupt


def test_an_iterator_that_is_dropped_leaves_no_thread(shapes: Shapes) -> None:
    loader = training_loader(shapes, epoch_batches(range(23), 4, 3, 0), AUGMENT, 3)
    for _ in loader:
        assert prefetching()
        break
    assert not prefetching()
    iter(loader)
    assert not prefetching()
    assert len(list(loader)) == 5  # and it can be gone through anew


def pids(dataset: SegmentationDataset) -> Iterator[int]:
    """Of the process that makes each batch, in two passes."""
    with Loader(_pid, range(4), workers=2) as loader:
        for _ in range(2):
            yield from (int(batch[0]) for batch in loader)


def _pid(_: int) -> tuple[torch.Tensor]:
    return (torch.tensor(os.getpid()),)


def test_workers_live_through_all_passes_and_end_with_the_loader(shapes: Shapes) -> None:
    seen = list(pids(shapes))
    assert len(set(seen)) == 2 and os.getpid() not in seen
    for pid in set(seen):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_end_with_a_loader_that_nobody_closed() -> None:
    loader: Loader[Any] = Loader(_pid, range(4), workers=1)
    pid = int(next(iter(loader))[0])
    loader.itself = loader  # type: ignore[attr-defined]  # garbage that only the collector finds
    began = time.monotonic()
    del loader
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert time.monotonic() - began < 4  # torch waits for 5 seconds before it gives a worker up


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_workers_leave_signals_to_the_main_process(shapes: Shapes) -> None:
    with Loader(_pid, range(60), workers=1, prefetch=1) as loader:
        batches = iter(loader)
        pid = int(next(batches)[0])
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert {int(batch[0]) for batch in batches} == {pid}


class DrawsFromGlobals(Wrapper):
    """A data set of others: what it reads depends on the global generators of its process."""

    def read(self, index: int) -> Sample:
        image, label = self.dataset.read(index)
        noise = [random.randrange(256), np.random.randint(256), int(torch.randint(256, ()))]
        return np.broadcast_to(np.array(noise, dtype=np.uint8), image.shape), label


def test_global_generators_of_workers_are_seeded_by_seed_epoch_and_index(shapes: Shapes) -> None:
    dataset = DrawsFromGlobals(shapes)
    first = epoch_of(dataset, workers=1)
    assert same(first, epoch_of(dataset, workers=2, prefetch=3))
    assert same(first[3:], epoch_of(dataset, workers=2, start=3))
    pixels = {tuple(image[:, 16, 20].tolist()) for images, _ in first for image in images}
    assert len(pixels) > 15  # of 20 samples; padding in the middle of some
    assert not same(first, epoch_of(dataset, workers=2, epoch=1))
    with evaluation_loader(dataset, workers=2) as two, evaluation_loader(dataset, workers=1) as one:
        assert all(torch.equal(a[0], b[0]) for a, b in zip(two, one, strict=True))


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"prefetch": 2}, {"workers": 2}])
def test_loading_leaves_the_global_generators_alone(shapes: Shapes, options: dict[str, int]) -> None:
    def states() -> tuple[Any, ...]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    epoch_of(shapes, **options)
    assert states() == before
