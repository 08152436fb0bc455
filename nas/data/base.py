"""The interface of segmentation data sets, their registry, and wrappers around them.

Shapes: images are uint8 [H, W, 3] in RGB order unless `ImageConfig` says otherwise: then uint8, uint16 or float32
[H, W, C]. Labels are uint8 [H, W]. A label holds class ids in 0..classes-1 or `IGNORE`; a data set therefore has at
most 255 classes. NumPy and Pillow only, no torch.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.config import ImageConfig
from nas.data.readers import load_readers
from search_spaces.extensions import HINT
from search_spaces.registry import Registry
from search_spaces.validation import as_path, counted

__all__ = [
    "DATASETS",
    "IGNORE",
    "MAX_CLASSES",
    "UNCHANGED",
    "DataError",
    "DatasetEntry",
    "Resized",
    "Sample",
    "SegmentationDataset",
    "Subset",
    "Wrapper",
    "check_image",
    "file_state",
    "open_dataset",
    "register_dataset",
    "resize_image",
    "resized",
]

IGNORE = 255
"""Label of pixels that neither the loss nor the metrics count (void, padding)."""

MAX_CLASSES = 255
"""Ids 0..254: labels are 8-bit, and 255 is `IGNORE`."""

UNCHANGED: Mapping[int, int] = MappingProxyType({})
"""No class changes in a mirror image."""

IMAGE_TYPES = ("uint8", "uint16", "float32")
"""Types of the values of an image."""

Sample = tuple[NDArray[Any], NDArray[np.uint8]]
"""An image [H, W, C] and its label [H, W]."""


class DataError(ValueError):
    """The data on disk, or the request for it, is not as expected; the message is one line."""


class SegmentationDataset(ABC):
    """One split of a data set, read by index. Picklable: each loader worker gets a copy."""

    name: str
    """Name of the data set, as in the registry."""

    split: str
    """Name of the split, such as `train`."""

    classes: tuple[str, ...]
    """Class names; the position is the id in the labels."""

    colors: NDArray[np.uint8]
    """Colour of each class in pictures, [classes, 3], RGB."""

    video: bool = False
    """Neighbouring samples are correlated frames: only contiguous blocks may be split off."""

    mirror: Mapping[int, int] = UNCHANGED
    """Class ids that change in a mirror image, such as left and right."""

    unread: Sequence[Path] = ()
    """Files next to those of the samples that are not read; they are named when a run starts."""
    images: ImageConfig = ImageConfig()
    """Channels, normalisation and orientation of the images, which `open_dataset` sets; `read` gives the values of the
    files, not normalised."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Read one sample.

        Args:
            index: 0..len-1.

        Returns:
            Image, one of `IMAGE_TYPES` [H, W, C] (3: RGB), and label, uint8 [H, W] (class ids and `IGNORE`). The arrays
            may be read-only or shared: callers copy before they write.

        Raises:
            DataError: A file is broken or its content is not as expected; the message names the file.
            IndexError: The index is out of range.
        """

    @abstractmethod
    def sample_name(self, index: int) -> str:
        """Name of a sample without folder and extension, unique in the split; the stem of predicted files."""

    def where(self, index: int) -> str:
        """Origin of a sample for messages; its path if it has one."""
        return f"{self.name} {self.split} {self.sample_name(index)}"

    def identity(self, index: int) -> list[Any]:
        """Everything that determines the result of `read`, found without reading; the key of cached copies.

        A data set adds its options, and all files other than the one that `where` names.

        Returns:
            Plain values that JSON can hold.
        """
        return [self.name, self.split, self.sample_name(index), *file_state(self.where(index))]


def file_state(path: str | Path) -> list[Any]:
    """A file's absolute path, size in bytes and modification time in nanoseconds; empty if it does not exist."""
    try:
        state = Path(path).stat()
    except (OSError, ValueError):  # ValueError: the text cannot be a path
        return []
    return [str(Path(path).absolute()), state.st_size, state.st_mtime_ns]


@dataclass(frozen=True)
class DatasetEntry:
    """One data set of the registry."""

    opener: Callable[..., SegmentationDataset]
    """Called as opener(root, split, **options), or opener(split, **options) if no root is needed."""

    needs_root: bool
    """The samples are files in a folder that the user names."""

    summary: str
    """One line for help texts."""

    splits: Callable[..., Sequence[str]] | None = None
    """Called as splits(root), or splits() if no root is needed: the splits that exist, without overlap; empty if the
    layout of the root is not as expected. None if the splits are unknown."""

    def options(self) -> tuple[str, ...]:
        """Names of the opener's options besides root and split."""
        return tuple(name for name in inspect.signature(self.opener).parameters if name not in ("root", "split"))


DATASETS: Registry[DatasetEntry] = Registry("data set", HINT, load_readers)
"""Every data set by name."""

Opener = TypeVar("Opener", bound=Callable[..., SegmentationDataset])


def register_dataset(
    name: str, *, needs_root: bool, summary: str, splits: Callable[..., Sequence[str]] | None = None
) -> Callable[[Opener], Opener]:
    """Register the decorated class (or function) as a data set; see `DatasetEntry` for the arguments.

    Raises:
        ValueError: The name is taken, or the class lacks a method.
    """

    def register(opener: Opener) -> Opener:
        missing = sorted(getattr(opener, "__abstractmethods__", ()))
        if missing:
            raise ValueError(f"data set {name!r} has no {' and no '.join(missing)}: see SegmentationDataset")
        DATASETS.register(name, DatasetEntry(opener, needs_root, summary, splits))
        return opener

    return register


def open_dataset(
    name: str, root: str | Path | None, split: str, images: ImageConfig | None = None, **options: Any
) -> SegmentationDataset:
    """Open one split of a data set by name.

    Args:
        name: A name in `DATASETS`.
        root: Folder of the data set; None if it needs none.
        split: Such as `train`; the choices depend on the data set.
        images: Channels, normalisation and orientation of its images, and the ids in its labels; None: the defaults.
        **options: Options of the data set.

    Raises:
        ValueError: Unknown name; the message lists the choices.
        DataError: The root is missing, not needed, or not laid out as expected; the split or an option does not exist;
            images and labels do not pair up.
    """
    entry = DATASETS.get(name)
    if images is not None and images.ids is not None:
        options["ids"] = images.ids
    unknown = sorted(set(options) - set(entry.options()))
    if unknown:
        known = ", ".join(entry.options()) or "none"
        raise DataError(f"data set {name!r} has no option {', '.join(unknown)}; its options: {known}")
    if not entry.needs_root and root is not None:
        raise DataError(f"data set {name!r} is made on the fly and reads no folder: leave the root {root} out")
    if entry.needs_root and root is None:
        raise DataError(f"data set {name!r} is read from disk: give its root folder (--data-root DIR)")
    dataset = entry.opener(split, **options) if root is None else entry.opener(as_path(root), split, **options)
    missing = [field for field in ("name", "split", "classes", "colors") if not hasattr(dataset, field)]
    if missing:
        raise DataError(f"data set {name!r} does not set {', '.join(missing)}: see SegmentationDataset")
    shape = (len(dataset.classes), 3)
    if not 1 <= shape[0] <= MAX_CLASSES or np.shape(dataset.colors) != shape:
        raise DataError(
            f"data set {name!r} has {shape[0]} classes and colors of shape {list(np.shape(dataset.colors))}: "
            f"expected 1 to {MAX_CLASSES} classes, and colors [classes, 3]"
        )
    if images is not None:
        dataset.images = images
    return dataset


def check_image(where: str, image: NDArray[Any], images: ImageConfig) -> None:
    """Check that an image is as its settings say, so that nothing is divided, cut off or left out in silence.

    Raises:
        DataError: Type, channels or range of the values differ; the message has the setting to give.
    """
    if image.dtype not in IMAGE_TYPES or image.ndim != 3:
        raise DataError(
            f"{where}: the image is {image.dtype} {list(image.shape)}: expected {', '.join(IMAGE_TYPES)} [H, W, "
            f"{images.channels}]"
        )
    wide, count = image.dtype != np.uint8, image.shape[2]
    low, high = (float(image.min()), float(image.max())) if wide else (0.0, 255.0)
    if not math.isfinite(low + high):
        raise DataError(f"{where} holds values that are no finite numbers: fill them with numbers")
    if not wide and max(images.moments[0]) > 255:
        raise DataError(f"{where} has 8 bits, but loader.normalisation is for more: it needs that of 8-bit images")
    needed = [f"--loader.channels {count}"] if count != images.channels else []
    if wide and not images.scaled:
        fitting = "[0,65535]" if image.dtype == np.uint16 else f"[{low:g},{high:g}]"
        needed.append(f"--loader.normalisation.range {fitting}, or the mean and std that nas-data check prints")
    if needed:
        bits = f"more than 8 bits ({image.dtype}, from {low:g} to {high:g})" if wide else "8 bits"
        without = ", without a normalisation" if wide and not images.scaled else ""
        raise DataError(
            f"{where} has {counted(count, 'channel')} of {bits}, but loader.channels is {images.channels}{without}: "
            f"train with {' and '.join(needed)}; or convert the image"
        )


class Wrapper(SegmentationDataset):
    """A data set that delegates everything to another one; the base of subsets, caches and the like."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset
        self.name = dataset.name
        self.split = dataset.split
        self.classes = dataset.classes
        self.colors = dataset.colors
        self.video = dataset.video
        self.mirror = dict(dataset.mirror)
        self.unread = dataset.unread
        self.images = dataset.images

    def __len__(self) -> int:
        return len(self.dataset)

    def index_inside(self, index: int) -> int:
        """Index of a sample in the wrapped data set."""
        return index

    def read(self, index: int) -> Sample:
        return self.dataset.read(self.index_inside(index))

    def sample_name(self, index: int) -> str:
        return self.dataset.sample_name(self.index_inside(index))

    def where(self, index: int) -> str:
        return self.dataset.where(self.index_inside(index))

    def identity(self, index: int) -> list[Any]:
        return self.dataset.identity(self.index_inside(index))


class Resized(Wrapper):
    """A data set at another resolution, as in a search on half-resolution Cityscapes.

    Images are resized bilinearly with Pillow's antialiasing, labels by nearest neighbour; sides are rounded to whole
    pixels, at least 1.

    Args:
        dataset: The data set to read.
        resolution: Factor on both sides, above 0; 0.5 is half resolution.
        labels: Resize labels too; otherwise they keep their size, for predictions that are upsampled to it.

    Raises:
        ValueError: The factor is not a finite number above 0.
    """

    def __init__(self, dataset: SegmentationDataset, resolution: float, labels: bool = True) -> None:
        if not (math.isfinite(resolution) and resolution > 0):
            raise ValueError(f"resolution is {resolution}: give a factor above 0, such as 0.5 for half resolution")
        super().__init__(dataset)
        self.resolution = resolution
        self.labels = labels

    def read(self, index: int) -> Sample:
        image, label = self.dataset.read(index)
        image = resize_image(image, self.resolution)
        height, width = image.shape[:2]
        if self.labels and (height, width) != label.shape:
            label = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
        return image, label

    def identity(self, index: int) -> list[Any]:
        return [*super().identity(index), self.resolution, self.labels]


def resize_image(image: NDArray[Any], resolution: float) -> NDArray[Any]:
    """Resize an image [H, W, C] by a factor, bilinearly and antialiased; sides are at least 1 pixel."""
    height, width = (max(1, round(side * resolution)) for side in image.shape[:2])
    return resized(image, (height, width))


def resized(
    image: NDArray[Any], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> NDArray[Any]:
    """Resize an image [H, W, C] of any of `IMAGE_TYPES` to `size` (height, width), bilinearly and antialiased.

    Args:
        image: The image.
        size: Height and width of the result, at least 1.
        box: Left, top, right and bottom of the part to resize; None: all.
    """
    if size == image.shape[:2] and box is None:
        return image

    def one(part: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(Image.fromarray(part).resize(size[::-1], Image.Resampling.BILINEAR, box))

    if image.dtype == np.uint8 and image.shape[2] == 3:
        return one(image)
    # Band by band: Pillow has no images of other bands, and would weigh colours by a fourth one as their opacity.
    bands = np.moveaxis(image if image.dtype == np.uint8 else image.astype(np.float32), 2, 0)
    whole = np.stack([one(np.ascontiguousarray(band)) for band in bands], axis=2)
    return whole if whole.dtype == image.dtype else whole.round().astype(image.dtype)


class Subset(Wrapper):
    """Some samples of a data set, in the given order.

    Args:
        dataset: The data set to read.
        indices: Indices of the samples, 0..len-1.

    Raises:
        IndexError: An index is out of range.
    """

    def __init__(self, dataset: SegmentationDataset, indices: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        super().__init__(dataset)
        self.indices = [int(index) for index in indices]
        for index in self.indices:
            if not 0 <= index < len(dataset):
                raise IndexError(f"index {index} is outside the {len(dataset)} samples of {dataset.name}")

    def __len__(self) -> int:
        return len(self.indices)

    def index_inside(self, index: int) -> int:
        return self.indices[index]
