"""Data sets, augmentation and loaders.

Names are resolved on first use: :class:`AugmentConfig` costs neither NumPy nor torch (command line help stays
quick), the data sets need NumPy and Pillow only, and torch is imported for the loaders alone. The function
``augment`` is taken from its module, ``nas.data.augment``, whose name it shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from nas.config import AugmentConfig
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
    from nas.data.loading import (
        epoch_batches,
        evaluation_loader,
        image_to_tensor,
        label_to_tensor,
        split_dataset,
        split_indices,
        training_loader,
    )
    from nas.data.readers.ade20k import Ade20k
    from nas.data.readers.camvid import CamVid
    from nas.data.readers.celebamask import CelebAMask
    from nas.data.readers.cityscapes import Cityscapes
    from nas.data.readers.folder import Folder
    from nas.data.readers.shapes import Shapes
    from nas.data.readers.voc2012 import Voc2012

_EXPORTS = {
    "Ade20k": "nas.data.readers.ade20k",
    "AugmentConfig": "nas.config",
    "Cached": "nas.data.caching",
    "CamVid": "nas.data.readers.camvid",
    "CelebAMask": "nas.data.readers.celebamask",
    "Cityscapes": "nas.data.readers.cityscapes",
    "DiskCached": "nas.data.caching",
    "Folder": "nas.data.readers.folder",
    "Shapes": "nas.data.readers.shapes",
    "Voc2012": "nas.data.readers.voc2012",
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
    "Ade20k",
    "AugmentConfig",
    "Cached",
    "CamVid",
    "CelebAMask",
    "Cityscapes",
    "DataError",
    "DatasetEntry",
    "DiskCached",
    "Folder",
    "Resized",
    "SegmentationDataset",
    "Shapes",
    "Subset",
    "Voc2012",
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
    if name in ("DATASETS", "register_dataset"):
        _get("load_readers")()  # the registry is filled by importing the modules of the data sets
    return _get(name)
