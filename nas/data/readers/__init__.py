"""The data sets, one file each, and the code that their readers share.

A data set is a file here and a line below. Its name is the file's, which is the class's in lower case.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from nas.data.readers.ade20k import Ade20k
    from nas.data.readers.camvid import CamVid
    from nas.data.readers.celebamask import CelebAMask
    from nas.data.readers.cityscapes import Cityscapes
    from nas.data.readers.folder import Folder
    from nas.data.readers.shapes import Shapes
    from nas.data.readers.voc2012 import Voc2012

__getattr__, __dir__, __all__ = lazy_exports(__name__)

DATA_SETS = tuple(name.lower() for name in __all__)
"""Names of the data sets."""


def load_readers() -> None:
    """Import the readers; each registers its data set."""
    for name in DATA_SETS:
        import_module(f"{__name__}.{name}")
