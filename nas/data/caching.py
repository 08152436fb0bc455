"""Keeping decoded samples: in memory, or on disk in a memory-mapped file.

The file: images and labels one after the other as they are in memory (uint8, image before label), then a table, int64
[samples, 6], of each sample's start, height and width of image and label, and CRC-32, then a trailer. It is written
once and never changed, so that any number of processes may map it; they share its pages. Shapes as in
`nas.data.base`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import time
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
from numpy.typing import NDArray

from nas.data.base import DataError, Sample, SegmentationDataset, Wrapper
from nas.runs.free_memory import available_memory
from search_spaces.files import write_atomically

__all__ = ["Cached", "DiskCached", "default_folder"]

FORMAT = 1
"""Of the file. To be raised, too, when the package reads or draws samples otherwise than before."""

SUFFIX = ".samples"
MAGIC = b"NAS-SEGM"
TRAILER = struct.Struct("<8s32sQI")  # magic, key, samples, CRC-32 of the table
COLUMNS = 6

ESTIMATED_FROM = 4
"""Samples from whose size that of all is estimated."""

ADVICE = "name another folder by XDG_CACHE_HOME, or give --loader.cache none"

ABANDONED = 3600.0
"""Seconds without a write after which a temporary file is that of a process that was killed."""


class Cached(Wrapper):
    """Keep decoded samples in memory after the first read; for data sets that fit.

    A loader worker is a copy, and what it reads is in its own memory: call `fill` before workers are started.
    Arrays are read-only, because every reader of a sample gets the same ones.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        super().__init__(dataset)
        self._samples: dict[int, Sample] = {}

    def read(self, index: int) -> Sample:
        if index not in self._samples:
            self._samples[index] = _read_only(self.dataset.read(index))
        return self._samples[index]

    def fill(self, copies: int = 1) -> None:
        """Read every sample now.

        Args:
            copies: Processes that will hold all samples, where workers do not share this one's memory.

        Raises:
            DataError: By the size of the first samples, all of them would take more than half of the free memory.
        """
        available = available_memory()
        for index in range(len(self)):
            self.read(index)
            if index + 1 == min(ESTIMATED_FROM, len(self)) and available is not None:
                needed = copies * _estimate(list(self._samples.values()), len(self))
                if needed > available / 2:
                    raise DataError(
                        f"{self.name} {self.split}: {len(self)} decoded samples need about {_size(needed)} of memory, "
                        f"more than half of the {_size(available)} that are free: give --loader.cache disk, or none"
                    )


class DiskCached(Wrapper):
    """Keep decoded samples in one memory-mapped file, which is built when it is not there yet.

    The file is named by a digest of all that determines the samples, so that it is found again, and never taken for
    another data set's. It is moved into place when it is whole: of two processes that build it at once, either's will
    do. A file that is broken is built anew; so is one whose samples are found broken later, by the next run, while this
    one reads those samples from the data set. Arrays are read-only.

    Args:
        dataset: What to read.
        folder: Folder of the file, made if it is missing.

    Raises:
        DataError: The file cannot be written, or a sample cannot be read.
    """

    def __init__(self, dataset: SegmentationDataset, folder: str | Path) -> None:
        super().__init__(dataset)
        self._key = _key(dataset)
        self.path = Path(folder) / f"{self.name}-{self.split}-{self._key.hex()[:16]}{SUFFIX}"
        self._checked = bytearray(len(self))  # samples whose CRC-32 was right: once a process is enough
        self._map()
        if self._table is None:
            self._build()
            self._map()
            if self._table is None:
                raise DataError(f"{self.path} was written, but cannot be mapped into memory: {ADVICE}")

    def read(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside the {len(self)} samples of {self.name} {self.split}")
        if self._table is None:
            return _read_only(self.dataset.read(index))
        start, height, width, label_height, label_width, checksum = self._table[index].tolist()
        middle = start + 3 * height * width
        end = middle + label_height * label_width
        data = self._data[start:end]
        if not self._checked[index]:
            within = min(start, height, width, label_height, label_width) >= 0 and end <= len(self._data)
            if not within or zlib.crc32(data.data) != checksum:
                with contextlib.suppress(OSError):
                    self.path.unlink()  # mapped as it is by those who use it; the next run builds another
                return _read_only(self.dataset.read(index))
            self._checked[index] = 1
        image, label = data[: middle - start], data[middle - start :]
        return image.reshape(height, width, 3), label.reshape(label_height, label_width)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_table": None}  # a map is not copied: it is opened again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def _map(self) -> None:
        """Map the file; `_table` is None if it is missing, cut short, or another's."""
        self._table: NDArray[np.int64] | None = None
        try:
            self._data = np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r"))
        except (OSError, ValueError):  # ValueError: it is empty
            return
        table_end = len(self._data) - TRAILER.size
        table_start = table_end - 8 * COLUMNS * len(self)
        if table_start < 0:
            return
        magic, key, samples, checksum = TRAILER.unpack(self._data[table_end:].tobytes())
        table = self._data[table_start:table_end].tobytes()
        if (magic, key, samples) == (MAGIC, self._key, len(self)) and zlib.crc32(table) == checksum:
            self._table = np.frombuffer(table, "<i8").reshape(-1, COLUMNS)

    def _build(self) -> None:
        first = [self.dataset.read(index) for index in range(min(ESTIMATED_FROM, len(self)))]
        needed = _estimate(first, len(self))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self.path.parent)
            free = shutil.disk_usage(self.path.parent).free
            if needed > free:
                raise DataError(
                    f"the cache folder {self.path.parent} has {_size(free)} left, but {len(self)} decoded samples of "
                    f"{self.name} {self.split} need about {_size(needed)}: {ADVICE}"
                )
            write_atomically(self.path, self._write)
        except OSError as error:
            raise DataError(
                f"the cache of {self.name} {self.split} (about {_size(needed)}) cannot be written to "
                f"{self.path.parent}: {error.strerror or error}; {ADVICE}"
            ) from error

    def _write(self, file: IO[bytes]) -> None:
        table = np.zeros((len(self), COLUMNS), dtype="<i8")
        start = 0
        for index in range(len(self)):
            image, label = self.dataset.read(index)
            data = image.tobytes() + label.tobytes()
            file.write(data)
            table[index] = start, *image.shape[:2], *label.shape, zlib.crc32(data)
            start += len(data)
        data = table.tobytes()
        file.write(data + TRAILER.pack(MAGIC, self._key, len(self), zlib.crc32(data)))


def default_folder() -> Path:
    """Where files of `DiskCached` go: below the user's cache directory.

    Raises:
        DataError: The user has no home directory.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative path there is to be ignored (XDG Base Directory Specification).
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "nas-segmentation"
    except RuntimeError as error:
        raise DataError("there is no home directory to keep a cache in: name one by XDG_CACHE_HOME") from error


def _key(dataset: SegmentationDataset) -> bytes:
    """SHA-256 of all that determines the samples; Pillow decodes and resizes them."""
    content = [FORMAT, PIL.__version__, [dataset.identity(index) for index in range(len(dataset))]]
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _read_only(sample: Sample) -> Sample:
    image, label = (array.view() for array in sample)  # the flag below is for the views, not for the owner
    image.setflags(write=False)
    label.setflags(write=False)
    return image, label


def _estimate(first: list[Sample], samples: int) -> int:
    """Bytes of all samples, if they are as the first ones on average."""
    return sum(array.nbytes for sample in first for array in sample) * samples // max(1, len(first))


def _size(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left."""
    for path in folder.glob(f".*{SUFFIX}.*.tmp"):
        with contextlib.suppress(OSError):  # another process may be at the same
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
