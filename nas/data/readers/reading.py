"""Reading images, labels and lists. The size that a file claims is checked before memory is allocated for it.

Every error is one line that names the file. Shapes: image uint8 [H, W, 3], label int32 [H, W].
"""

from __future__ import annotations

import struct
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from nas.data.base import DataError

__all__ = ["IMAGE_SUFFIXES", "LABEL_SUFFIXES", "TEXT_LIMIT", "read_image", "read_label", "read_text"]

_NO_IMAGES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"})
"""Formats that Pillow knows, but reads only with other programs, or only writes."""

IMAGE_SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind not in _NO_IMAGES)
"""Extensions, in lower case, of the files that Pillow reads."""
LABEL_SUFFIXES = frozenset({".bmp", ".gif", ".pgm", ".png", ".tif", ".tiff"})
"""Of formats that keep every id; JPEG does not."""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""Raised by Pillow for files that it cannot decode or that claim more than 179 million pixels."""

TEXT_LIMIT = 2**24
"""Limit in bytes of a list; the longest of the shipped data sets, CelebA-HQ's, has 990,000."""

_EXPANDED = {"L;2": 85, "L;4": 17}
"""Pillow scales 2-bit and 4-bit greyscale to 0..255; dividing by the factor gives the ids."""


def read_text(kind: str, path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        kind: Kind of file, for messages.
        path: The file.

    Raises:
        DataError: The file is missing, not text, or longer than `TEXT_LIMIT`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(TEXT_LIMIT + 1)
        if len(content) <= TEXT_LIMIT:
            return content.decode("utf-16" if content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{kind} {path} cannot be read as text, from line {line} on: save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{kind} {path} cannot be read: {error.strerror}") from error
    raise DataError(f"{kind} {path} is longer than {TEXT_LIMIT // 2**20} MiB; expected a short text file")


@contextmanager
def _opened(kind: str, path: Path) -> Iterator[ImageFile.ImageFile]:
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except _BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) else None  # without the number and the path
        reason = " ".join((reason or str(error)).split()) or type(error).__name__
        raise DataError(f"{kind} {path} cannot be read: {reason}") from error


def read_image(path: Path, upright: bool = False) -> NDArray[np.uint8]:
    """Read an image as RGB.

    Args:
        path: The file.
        upright: Apply the EXIF orientation, as viewers do; labels match the pixels as stored.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: The file is missing, broken, or has more than 8 bits per channel.
    """
    with _opened("image", path) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(f"image {path} has more than 8 bits per channel ({image.mode}): convert it to 8 bits")
        turned: Image.Image = ImageOps.exif_transpose(image) if upright else image
        if turned.mode == "P" and "transparency" in turned.info:
            turned = turned.convert("RGBA")  # Pillow would warn
        return np.array(turned.convert("RGB"), dtype=np.uint8)


def read_label(path: Path) -> NDArray[np.int32]:
    """Read the ids in a label file: greyscale or palette, 1 to 16 bits.

    Returns:
        int32 [H, W], unchecked.

    Raises:
        DataError: The file is missing, broken, or holds colours instead of ids.
    """
    with _opened("label", path) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise DataError(
                f"label {path} holds colours ({image.mode}); expected one class id per pixel, "
                "as a greyscale or palette PNG: convert colours to ids"
            )
        tile = image.tile[0] if image.tile else None
        factor = _EXPANDED.get(str(tile[3]), 1) if tile is not None and image.mode == "L" else 1
        return np.array(image).astype(np.int32) // factor
