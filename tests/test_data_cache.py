"""Kept samples: the same as those read, found again, and never broken, another's, or too large."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nas.data.caching
import search_spaces.files
from nas.config import LoaderConfig, RunConfig
from nas.data import Cached, DataError, DiskCached, Resized, SegmentationDataset, Subset, open_dataset
from nas.data.base import Sample, Wrapper
from nas.data.caching import default_folder
from nas.data.readers import Shapes
from nas.data.splits import training_split, validation_split
from nas.runs.free_memory import available_memory


class Counted(Wrapper):
    """Counts what is read."""

    reads = 0

    def read(self, index: int) -> Sample:
        self.reads += 1
        return super().read(index)


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    """A data set `folder` of five images that differ in size."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for part in ("images/train", "labels/train"):
        (root / part).mkdir(parents=True)
    for number, (height, width) in enumerate(((6, 8), (1, 1), (9, 4), (5, 7), (13, 2))):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/train/{number}.png")
        Image.fromarray(pixels[..., 0] % 3).save(root / f"labels/train/{number}.png")
    (root / "classes.txt").write_text("a\nb\nc\n")
    return root


def opened(root: Path) -> Counted:
    return Counted(open_dataset("folder", root, "train"))


def check_same(kept: SegmentationDataset, plain: SegmentationDataset) -> None:
    assert len(kept) == len(plain)
    for index in range(len(plain)):
        for one, other in zip(kept.read(index), plain.read(index), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == np.uint8 and not one.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                one[0, 0] = 0


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# On disk


def test_samples_come_back_from_disk_without_being_decoded(sizes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    DiskCached(opened(sizes), folder)
    again = opened(sizes)
    kept = DiskCached(again, folder)
    check_same(kept, open_dataset("folder", sizes, "train"))
    assert again.reads == 0
    assert kept.read(0)[0].base is not None and len(files(folder)) == 1
    pixels = sum(height * width for height, width in ((6, 8), (1, 1), (9, 4), (5, 7), (13, 2)))
    assert kept.path.stat().st_size == 4 * pixels + 5 * 7 * 8 + 52
    for index in (-1, 5):
        with pytest.raises(IndexError, match="outside the 5 samples of folder train"):
            kept.read(index)


def test_labels_of_another_size_than_their_images_are_kept(sizes: Path, tmp_path: Path) -> None:
    dataset = Resized(open_dataset("folder", sizes, "train"), 0.5, labels=False)
    check_same(DiskCached(dataset, tmp_path / "cache"), dataset)


def test_a_copy_in_another_process_maps_the_file_anew(sizes: Path, tmp_path: Path) -> None:
    kept = DiskCached(opened(sizes), tmp_path / "cache")
    pickled = pickle.dumps(kept)
    assert len(pickled) < 4000
    copy = pickle.loads(pickled)
    check_same(copy, open_dataset("folder", sizes, "train"))
    assert copy.dataset.reads == kept.dataset.reads  # type: ignore[attr-defined]  # none more
    kept.path.unlink()
    check_same(pickle.loads(pickled), open_dataset("folder", sizes, "train"))  # it does without


def test_whatever_changes_the_samples_is_another_file(sizes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    plain = open_dataset("folder", sizes, "train")
    DiskCached(plain, folder)
    for number, other in enumerate(
        (Resized(plain, 0.5), Resized(plain, 0.5, labels=False), Subset(plain, [0, 1]), Subset(plain, [1, 0]))
    ):
        check_same(DiskCached(other, folder), other)
        assert len(files(folder)) == number + 2
    for number, name in enumerate(("images", "labels")):
        changed = sizes / name / "train" / "3.png"
        os.utime(changed, (1, 1))
        DiskCached(open_dataset("folder", sizes, "train"), folder)
        assert len(files(folder)) == number + 6
    shapes = [Shapes("train", (24, 24), 3), Shapes("train", (24, 25), 3), Shapes("train", (24, 24), 3, seed=1)]
    for dataset in (*shapes, Shapes("val", (24, 24), 3)):
        check_same(DiskCached(dataset, folder), dataset)
    assert len(files(folder)) == 11


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"foreign",
        lambda content: content[:-1],
        lambda content: content[:100],
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: content[:-52] + b"OTHER-ID" + content[-44:],  # another program's
        lambda content: content[:-44] + bytes(32) + content[-12:],  # another data set's
        lambda content: content[:-60] + bytes([content[-60] ^ 1]) + content[-59:],  # a bit of the table
    ],
)
def test_a_broken_or_foreign_file_is_built_anew(sizes: Path, tmp_path: Path, spoil: Any) -> None:
    path = DiskCached(opened(sizes), tmp_path / "cache").path
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    again = opened(sizes)
    check_same(DiskCached(again, tmp_path / "cache"), open_dataset("folder", sizes, "train"))
    assert again.reads > 0 and path.read_bytes() == good and files(path.parent) == [path]


def test_a_sample_that_is_broken_in_the_file_is_read_from_the_data_set(sizes: Path, tmp_path: Path) -> None:
    path = DiskCached(opened(sizes), tmp_path / "cache").path
    good = path.read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])  # the first pixel
    kept = DiskCached(opened(sizes), tmp_path / "cache")
    check_same(kept, open_dataset("folder", sizes, "train"))
    assert not path.exists()  # so that the next run builds it anew
    DiskCached(opened(sizes), tmp_path / "cache")
    assert path.read_bytes() == good


class Killed(BaseException):
    pass


def test_a_build_that_is_stopped_leaves_nothing(sizes: Path, tmp_path: Path) -> None:
    class Stops(Counted):
        def read(self, index: int) -> Sample:
            if self.reads == 7:  # four for the estimate
                raise Killed
            return super().read(index)

    with pytest.raises(Killed):
        DiskCached(Stops(open_dataset("folder", sizes, "train")), tmp_path / "cache")
    assert files(tmp_path / "cache") == []
    check_same(DiskCached(opened(sizes), tmp_path / "cache"), open_dataset("folder", sizes, "train"))


def test_what_killed_builds_left_is_removed_and_a_live_one_is_not(sizes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in (".folder-train-1.samples.a.tmp", ".folder-train-1.samples.b.tmp", ".notes.tmp", "x.samples"):
        (folder / name).write_text("")
        if ".b." not in name:
            os.utime(folder / name, (time.time() - 4000,) * 2)
    path = DiskCached(opened(sizes), folder).path
    assert {file.name for file in files(folder)} == {
        ".folder-train-1.samples.b.tmp",
        ".notes.tmp",
        "x.samples",
        path.name,
    }


def test_builds_at_once_all_end_well(sizes: Path, tmp_path: Path) -> None:
    together = threading.Barrier(3)
    plain = open_dataset("folder", sizes, "train")

    class Waits(Counted):
        def read(self, index: int) -> Sample:
            if self.reads in (0, 8):
                together.wait(10)  # all are at the same place of their builds
            return super().read(index)

    kept: list[DiskCached] = []

    def build() -> None:
        kept.append(DiskCached(Waits(plain), tmp_path / "cache"))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 3 and files(tmp_path / "cache") == [kept[0].path]
    for each in kept:
        check_same(each, plain)


def message(dataset: SegmentationDataset, folder: Path) -> str:
    with pytest.raises(DataError) as raised:
        DiskCached(dataset, folder)
    text = str(raised.value)
    assert "\n" not in text and "name another folder by XDG_CACHE_HOME, or give --loader.cache none" in text
    return text


def test_a_full_disk_is_one_line_and_leaves_nothing(
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(search_spaces.files.os, "fsync", full)
        assert f"cannot be written to {tmp_path / 'cache'}: No space left" in message(opened(sizes), tmp_path / "cache")
    assert files(tmp_path / "cache") == []
    monkeypatch.setattr(nas.data.caching.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    big = Shapes("train", (400, 400), 2)
    assert "has 1.0 MiB left, but 2 decoded samples of shapes train need about 1.2 MiB" in message(big, tmp_path / "c")


def test_a_folder_that_cannot_be_is_one_line(sizes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in message(opened(sizes), tmp_path / "file")
    assert "cannot be written to" in message(opened(sizes), tmp_path / "file" / "deeper")


def test_an_unreadable_image_is_told_as_ever(sizes: Path, tmp_path: Path) -> None:
    (sizes / "images/train/4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image .*4\.png cannot be read"):
        DiskCached(opened(sizes), tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_the_default_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "nas-segmentation"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert default_folder() == tmp_path / "home/.cache/nas-segmentation"


# In memory


def test_what_does_not_fit_into_memory_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Counted(Shapes("train", (64, 64), 100))  # 16 KiB a sample
    monkeypatch.setattr(nas.data.caching, "available_memory", lambda: 3 * 2**20)
    with pytest.raises(DataError) as raised:
        Cached(dataset).fill()
    assert str(raised.value) == (
        "shapes train: 100 decoded samples need about 1.6 MiB of memory, more than half of the 3.0 MiB that are free: "
        "give --loader.cache disk, or none"
    )
    assert dataset.reads == 4
    monkeypatch.setattr(nas.data.caching, "available_memory", lambda: 4 * 2**20)
    Cached(dataset).fill()
    with pytest.raises(DataError, match=r"need about 3.1 MiB"):
        Cached(dataset).fill(copies=2)
    monkeypatch.setattr(nas.data.caching, "available_memory", lambda: None)  # unknown
    Cached(dataset).fill(copies=1000)


def test_the_free_memory_is_less_than_there_is() -> None:
    free = available_memory()
    if hasattr(os, "sysconf"):
        assert free is not None
        assert 2**20 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# As the settings say


def test_runs_cache_what_they_train_and_validate_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def split(kind: Any) -> list[SegmentationDataset]:
        loader = LoaderConfig(train_limit=3, val_limit=2, cache=kind)
        return [opener(RunConfig(loader=loader)) for opener in (training_split, validation_split)]

    for plain, memory, disk in zip(split("none"), split("memory"), split("disk"), strict=True):
        assert isinstance(memory, Cached) and isinstance(disk, DiskCached)
        assert not isinstance(plain, Cached | DiskCached)
        check_same(memory, plain)
        check_same(disk, plain)
        assert disk.path.parent == tmp_path / "nas-segmentation"
    assert len(files(tmp_path / "nas-segmentation")) == 2
