"""Data sets, augmentation and loaders; the class of each data set is in `nas.data.readers`.

Names are resolved on first use: `AugmentConfig` costs neither NumPy nor torch (command line help stays
quick), the data sets need NumPy and Pillow only, and torch is imported for the loaders alone. The function
`augment` is taken from its module, `nas.data.augment`, whose name it shares.
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
