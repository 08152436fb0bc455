"""Data sets, augmentation and loaders; the class of each data set is in `nas.data.readers`.

Names are resolved on first use: `AugmentConfig` needs neither NumPy nor torch, the data sets only NumPy and Pillow, and
only the loaders import torch. The function `augment` is imported from its module, `nas.data.augment`.
"""

from typing import TYPE_CHECKING

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

__getattr__, __dir__, __all__ = lazy_exports(__name__)
