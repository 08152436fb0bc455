"""Caches of decoded samples: in memory, or on disk in a memory-mapped file.

The file holds the samples (each image before its label, from a multiple of four bytes on), then a table, int64
[samples, 7], with each sample's offset, the heights and widths of image and label, the type of the image's values (its
place in `IMAGE_TYPES`), and the CRC-32, then a trailer. It is written once and never changed:
any number of processes may map it, and they share its pages. Shapes as in `nas.data.base`.
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

from nas.data.base import IMAGE_TYPES, DataError, Sample, SegmentationDataset, Wrapper
from nas.runs.free_memory import available_memory
from search_spaces.files import write_atomically

__all__ = ["Cached", "DiskCached", "default_folder", "digest"]

FORMAT = 2
"""Version of the file. Also raised when the package reads or draws samples differently than before."""

SUFFIX = ".samples"
MAGIC = b"NAS-SEGM"
TRAILER = struct.Struct("<8s32sQI")  # magic, key, samples, CRC-32 of the table
COLUMNS = 7

ESTIMATED_FROM = 4
"""Number of samples from which the total size is estimated."""

ADVICE = "name another folder by XDG_CACHE_HOME, or give --loader.cache none"

ABANDONED = 3600.0
"""Seconds without a write after which a temporary file counts as left behind by a killed process."""


class Cached(Wrapper):
    """A data set that keeps decoded samples in memory after the first read.

    A loader worker fills a copy of its own: call `fill` before starting workers. Arrays are read-only, because all
    readers of a sample share them.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        super().__init__(dataset)
        self._samples: dict[int, Sample] = {}

    def read(self, index: int) -> Sample:
        if index not in self._samples:
            self._samples[index] = _read_only(self.dataset.read(index))
        return self._samples[index]

    def fill(self, copies: int = 1) -> None:
        """Read all samples now.

        Args:
            copies: Processes that each hold all samples, because they do not share memory.

        Raises:
            DataError: All samples, estimated by the first ones, would take more than half of the free memory.
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
    """A data set that keeps decoded samples in one memory-mapped file, built on first use.

    The file name holds a digest of everything that determines the samples. The file is moved into place when it is
    complete, so two processes may build it at once. A broken file is rebuilt. If a sample is found broken later, it is
    read from the data set, and the next run rebuilds the file. Arrays are read-only.

    Args:
        dataset: The data set to read.
        folder: Folder of the file, created if it is missing.

    Raises:
        DataError: The file cannot be written, or a sample cannot be read.
    """

    def __init__(self, dataset: SegmentationDataset, folder: str | Path) -> None:
        super().__init__(dataset)
        self._key = digest(dataset)
        self.path = Path(folder) / f"{self.name}-{self.split}-{self._key.hex()[:16]}{SUFFIX}"
        self._checked = bytearray(len(self))  # samples whose CRC-32 was right: one check per process suffices
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
        start, height, width, label_height, label_width, kind, checksum = self._table[index].tolist()
        dtype = np.dtype(IMAGE_TYPES[kind % len(IMAGE_TYPES)])
        middle = start + dtype.itemsize * self.images.channels * height * width
        end = middle + label_height * label_width
        data = self._data[start:end]
        if not self._checked[index]:
            within = min(start, height, width, label_height, label_width) >= 0 and end <= len(self._data)
            if not within or zlib.crc32(data.data) != checksum:
                with contextlib.suppress(OSError):
                    self.path.unlink()  # those who have mapped it keep it; the next run builds another
                return _read_only(self.dataset.read(index))
            self._checked[index] = 1
        image, label = data[: middle - start], data[middle - start :]
        return image.view(dtype).reshape(height, width, self.images.channels), label.reshape(label_height, label_width)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_table": None}  # a copy opens the map again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def _map(self) -> None:
        """Map the file; `_table` is None if it is missing, truncated, or of other data."""
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
            table[index] = start, *image.shape[:2], *label.shape, IMAGE_TYPES.index(str(image.dtype)), zlib.crc32(data)
            start += file.write(data + bytes(-len(data) % 4))
        data = table.tobytes()
        file.write(data + TRAILER.pack(MAGIC, self._key, len(self), zlib.crc32(data)))


def default_folder() -> Path:
    """Folder for the files of `DiskCached`, in the user's cache directory.

    Raises:
        DataError: The user has no home directory.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG Base Directory Specification says to ignore relative paths.
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "nas-segmentation"
    except RuntimeError as error:
        raise DataError("there is no home directory to keep a cache in: name one by XDG_CACHE_HOME") from error


def digest(dataset: SegmentationDataset) -> bytes:
    """SHA-256 of everything that determines the samples; Pillow decodes and resizes them."""
    content = [FORMAT, PIL.__version__, [dataset.identity(index) for index in range(len(dataset))]]
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _read_only(sample: Sample) -> Sample:
    image, label = (array.view() for array in sample)  # the owner stays writable
    image.setflags(write=False)
    label.setflags(write=False)
    return image, label


def _estimate(first: list[Sample], samples: int) -> int:
    """Bytes of all samples, estimated by the mean of the first ones."""
    return sum(array.nbytes for sample in first for array in sample) * samples // max(1, len(first))


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files of processes that were killed while writing."""
    for path in folder.glob(f".*{SUFFIX}.*.tmp"):
        with contextlib.suppress(OSError):  # another process may remove it, too
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
