"""Augmentation: sizes, padding, and one geometric transform for image and label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data import IGNORE, AugmentConfig
from nas.data.augment import augment, random_flip, random_size, random_window, resized_window
from nas.data.base import Sample

sides = st.integers(1, 40)
seeds = st.integers(0, 2**31)


def positions(height: int, width: int) -> Sample:
    """A sample in which every pixel is different, and the label is a function of the image (never 255)."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, (y * 7 + x * 3) % 251], axis=-1).astype(np.uint8)
    return image, image[..., 2].copy()


def resized(image: np.ndarray, label: np.ndarray, size: tuple[int, int]) -> Sample:
    """The slow and obvious way: all of both."""
    if size == label.shape:
        return image, label
    return (
        np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)),
        np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST)),
    )


def random_scale(image: np.ndarray, label: np.ndarray, scale: tuple[float, float], rng: np.random.Generator) -> Sample:
    size = random_size((label.shape[0], label.shape[1]), scale, rng)
    return resized_window(image, label, size, (slice(0, size[0]), slice(0, size[1])))


def random_crop(image: np.ndarray, label: np.ndarray, crop: tuple[int, int], rng: np.random.Generator) -> Sample:
    return augment(image, label, AugmentConfig(crop, (1.0, 1.0), flip=False), rng)


def check_window(height: int, width: int, size: tuple[int, int], crop: tuple[int, int], seed: int) -> float:
    """Compares a window of a resized sample with one cut out of all of it; returns the share of values that differ."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)  # noise: any shift would show
    label = rng.integers(0, 256, (height, width), dtype=np.uint8)
    window, target = random_window(size, crop, rng)
    assert all(0 <= s.start < s.stop <= side for s, side in zip(window, size, strict=True))
    assert [s.stop - s.start for s in window] == [s.stop - s.start for s in target]
    new_image, new_label = resized_window(image, label, size, window)
    whole_image, whole_label = resized(image, label, size)
    np.testing.assert_array_equal(new_label, whole_label[window])
    difference = np.abs(new_image.astype(int) - whole_image[window])
    assert difference.max() <= 2  # two passes of Pillow, each of which rounds
    return float((difference > 0).mean())


@settings(deadline=None, max_examples=400)
@given(sides, sides, sides, sides, sides, sides, seeds)
def test_a_window_is_that_of_the_whole_resized_sample(
    height: int, width: int, new_h: int, new_w: int, want_h: int, want_w: int, seed: int
) -> None:
    check_window(height, width, (new_h, new_w), (want_h, want_w), seed)


@pytest.mark.parametrize("factor", [0.5, 0.737, 1.0, 1.318, 2.0])
def test_a_window_of_a_large_sample_hardly_differs(factor: float) -> None:
    size = (round(512 * factor), round(1024 * factor))
    assert check_window(512, 1024, size, (321, 321), 3) < 0.01


@settings(deadline=None)
@given(sides, sides, sides, sides, seeds)
def test_crop_cuts_out_a_window_and_pads(height: int, width: int, want_h: int, want_w: int, seed: int) -> None:
    image, label = positions(height, width)
    new_image, new_label = random_crop(image, label, (want_h, want_w), np.random.default_rng(seed))
    assert new_image.shape == (want_h, want_w, 3) and new_label.shape == (want_h, want_w)
    assert new_image.dtype == np.uint8 and new_label.dtype == np.uint8
    inside = new_label != IGNORE
    assert inside.sum() == min(height, want_h) * min(width, want_w)
    assert (new_image[~inside] == 127).all()
    kept = new_image[inside].reshape(min(height, want_h), min(width, want_w), 3)
    top, left = int(kept[0, 0, 0]), int(kept[0, 0, 1])
    np.testing.assert_array_equal(kept, image[top : top + kept.shape[0], left : left + kept.shape[1]])
    np.testing.assert_array_equal(new_label[inside], new_image[inside][:, 2])


@settings(deadline=None)
@given(sides, sides, seeds)
def test_flip_mirrors_both_or_neither(height: int, width: int, seed: int) -> None:
    image, label = positions(height, width)
    new_image, new_label = random_flip(image, label, np.random.default_rng(seed))
    np.testing.assert_array_equal(new_image[..., 2], new_label)
    assert np.array_equal(new_image, image) or np.array_equal(new_image, image[:, ::-1])


def test_flip_happens_half_of_the_time() -> None:
    image, label = positions(2, 5)
    rng = np.random.default_rng(0)
    flipped = sum(not np.array_equal(random_flip(image, label, rng)[0], image) for _ in range(400))
    assert 160 < flipped < 240


@settings(deadline=None)
@given(sides, sides, st.floats(0.1, 3), st.floats(0, 1), seeds)
def test_scale_keeps_proportions(height: int, width: int, low: float, more: float, seed: int) -> None:
    image, label = positions(height, width)
    new_image, new_label = random_scale(image, label, (low, low + more), np.random.default_rng(seed))
    assert new_image.shape[:2] == new_label.shape
    for new, old in zip(new_label.shape, (height, width), strict=True):
        assert max(1, old * low - 0.51) <= new <= max(1, old * (low + more) + 0.51)
    assert set(np.unique(new_label)) <= set(np.unique(label))  # nearest: no ids in between


@settings(deadline=None, max_examples=50)
@given(st.integers(24, 60), st.integers(24, 60), st.floats(0.5, 2.5), seeds)
def test_scale_moves_image_and_label_alike(height: int, width: int, factor: float, seed: int) -> None:
    label = np.zeros((height, width), dtype=np.uint8)
    rng = np.random.default_rng(seed)
    top, left = rng.integers(2, 10, 2)
    label[top : top + 12, left : left + 12] = 1
    image = np.repeat(label[..., None] * 200, 3, axis=2)
    new_image, new_label = random_scale(image, label, (factor, factor), rng)
    # Only along the edge, where the image is interpolated, may the two disagree.
    wrong = (new_image[..., 0] > 100) != (new_label == 1)
    assert wrong.sum() <= 4 * 12 * factor + 8
    for axis in (0, 1):
        bright = np.flatnonzero((new_image[..., 0] > 100).any(axis=1 - axis))
        ones = np.flatnonzero((new_label == 1).any(axis=1 - axis))
        assert abs(int(bright[0]) - int(ones[0])) <= 1 and abs(int(bright[-1]) - int(ones[-1])) <= 1


@settings(deadline=None)
@given(sides, sides, sides, sides, st.booleans(), seeds)
def test_augment_gives_the_crop_and_depends_on_the_generator_alone(
    height: int, width: int, want_h: int, want_w: int, flip: bool, seed: int
) -> None:
    image, label = positions(height, width)
    before = image.copy(), label.copy()
    config = AugmentConfig(crop=(want_h, want_w), scale=(0.5, 2.0), flip=flip)
    first = augment(image, label, config, np.random.default_rng(seed))
    again = augment(image, label, config, np.random.default_rng(seed))
    assert first[0].shape == (want_h, want_w, 3) and first[1].shape == (want_h, want_w)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (first[0][first[1] == IGNORE] == 127).all()
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])


def test_ids_survive_without_scaling() -> None:
    image, label = positions(20, 30)
    config = AugmentConfig(crop=(20, 30), scale=(1, 1), flip=False)
    new_image, new_label = augment(image, label, config, np.random.default_rng(0))
    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_label, label)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"crop": (0, 5)}, r"crop\[0\] is 0: give a whole number from 1 to 16384"),
        ({"crop": (5,)}, r"crop is \(5,\)"),
        ({"crop": (5.5, 5)}, r"crop\[0\] is 5.5: give a whole number"),
        ({"scale": (0.0, 1.0)}, r"scale\[0\] is 0.0: give a number above 0"),
        ({"scale": (0.5, float("nan"))}, "finite"),
        ({"scale": (2.0, 0.5)}, r"the smaller factor comes first: \[0.5, 2.0\]"),
    ],
)
def test_wrong_settings(settings_: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**settings_)  # type: ignore[arg-type]


def test_scales_in_steps() -> None:
    """DeepLab's: 0.5, 0.75, ... 2, alike often; the largest is reached, whatever the rounding."""
    rng = np.random.default_rng(0)
    heights = [random_size((100, 40), (0.5, 2.0), rng, 0.25)[0] for _ in range(7000)]
    counts = {height: heights.count(height) for height in set(heights)}
    assert sorted(counts) == [50, 75, 100, 125, 150, 175, 200]
    assert all(850 < count < 1150 for count in counts.values())
    assert {random_size((100, 40), (0.1, 0.7), rng, 0.2)[0] for _ in range(200)} == {10, 30, 50, 70}
    assert {random_size((100, 40), (1.0, 2.0), rng, 0.6)[0] for _ in range(200)} == {100, 160}


def test_padding_is_next_to_the_mean() -> None:
    """DeepLab's mean pixel for this scaling is 127.5, which becomes 0."""
    image, label = random_crop(*positions(2, 2), (9, 9), np.random.default_rng(0))
    assert (label == IGNORE).sum() == 81 - 4
    assert abs(127 / 127.5 - 1) < 0.004 and (image[label == IGNORE] == 127).all()


def test_a_mirrored_label_takes_the_names_of_the_other_side() -> None:
    label = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    image = np.zeros((1, 4, 3), dtype=np.uint8)
    found = {
        tuple(random_flip(image, label, np.random.default_rng(seed), {1: 2, 2: 1})[1][0].tolist()) for seed in range(20)
    }
    assert found == {(0, 1, 2, 255), (255, 1, 2, 0)}
    assert label[0].tolist() == [0, 1, 2, 255]
