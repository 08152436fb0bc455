"""Data sets, augmentation and loaders.

Names are resolved on first use: :class:`AugmentConfig` costs neither NumPy nor torch (command line help stays
quick), the data sets need NumPy and Pillow only, and torch is imported for the loaders alone. The function
``augment`` is taken from its module, ``nas.data.augment``, whose name it shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from nas.data.base import (
        DATASETS,
        IGNORE,
        DataError,
        DatasetEntry,
        Resized,
        SegmentationDataset,
        Subset,
        load_readers,
        open_dataset,
        register_dataset,
    )
    from nas.data.caching import Cached, DiskCached
    from nas.data.camvid import CamVid
    from nas.data.config import AugmentConfig
    from nas.data.folder import Folder
    from nas.data.loading import (
        epoch_batches,
        evaluation_loader,
        image_to_tensor,
        label_to_tensor,
        split_dataset,
        split_indices,
        training_loader,
    )
    from nas.data.shapes import Shapes

_EXPORTS = {
    "AugmentConfig": "nas.data.config",
    "Cached": "nas.data.caching",
    "CamVid": "nas.data.camvid",
    "DiskCached": "nas.data.caching",
    "Folder": "nas.data.folder",
    "Shapes": "nas.data.shapes",
    **dict.fromkeys(
        (
            "DATASETS",
            "IGNORE",
            "DataError",
            "DatasetEntry",
            "Resized",
            "SegmentationDataset",
            "Subset",
            "load_readers",
            "open_dataset",
            "register_dataset",
        ),
        "nas.data.base",
    ),
    **dict.fromkeys(
        (
            "epoch_batches",
            "evaluation_loader",
            "image_to_tensor",
            "label_to_tensor",
            "split_dataset",
            "split_indices",
            "training_loader",
        ),
        "nas.data.loading",
    ),
}

_get, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = [
    "DATASETS",
    "IGNORE",
    "AugmentConfig",
    "Cached",
    "CamVid",
    "DataError",
    "DatasetEntry",
    "DiskCached",
    "Folder",
    "Resized",
    "SegmentationDataset",
    "Shapes",
    "Subset",
    "epoch_batches",
    "evaluation_loader",
    "image_to_tensor",
    "label_to_tensor",
    "load_readers",
    "open_dataset",
    "register_dataset",
    "split_dataset",
    "split_indices",
    "training_loader",
]


def __getattr__(name: str) -> Any:
    if name == "DATASETS":
        _get("load_readers")()  # the registry is filled by importing the modules of the data sets
    return _get(name)
