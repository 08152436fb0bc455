"""Reading images, labels and lists. The size that a file claims is checked before memory is allocated for it.

Every error is one line that names the file. Pillow reads, and tifffile what Pillow cannot: TIFF files of several bands
with more than 8 bits, of five bands, of several pages. Shapes: image [H, W, channels], label int32 [H, W].
"""

from __future__ import annotations

import struct
import threading
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.config import Exif, ImageConfig
from nas.data.base import IMAGE_TYPES, DataError, check_image

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "TEXT_LIMIT",
    "TURNS",
    "read_header",
    "read_image",
    "read_label",
    "read_palette",
    "read_text",
]

_NO_IMAGES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"})
"""Formats that Pillow knows, but reads only with other programs, or only writes."""

IMAGE_SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind not in _NO_IMAGES)
"""Extensions, in lower case, of the files that Pillow reads."""
_FORMATS = [kind for kind in Image.OPEN if kind not in _NO_IMAGES]
"""Pillow goes by the content, whatever the extension: an EPS file named .png would start Ghostscript."""
LABEL_SUFFIXES = frozenset({".bmp", ".gif", ".pgm", ".png", ".tif", ".tiff"})
"""Of formats that keep every id; JPEG does not."""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""Raised by Pillow and tifffile for files that they cannot decode."""

LARGEST = 2 * 89_478_485
"""Pixels of an image that is not `large`: Pillow's limit, so that a small file cannot fill the memory."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files."""

_ORIENTATION = 0x0112
"""Tag of the orientation in EXIF and TIFF."""

TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""From the pixels as stored to those that a viewer shows, by orientation (EXIF 2.32, tag 0x0112)."""

_BACK = {6: 8, 8: 6}
"""Orientations whose turn another one undoes; the others undo themselves."""

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


class _Pixels(NamedTuple):
    """The content of a file."""

    values: NDArray[Any]
    """[H, W] or [H, W, bands], of one of `IMAGE_TYPES`."""
    mode: str
    """Pillow's mode, after a conversion; empty if tifffile has read it."""
    raw: str
    """Pillow's name of the layout in the file, such as L;4 or RGB;16B."""


def read_image(path: Path, images: ImageConfig | None = None, large: bool = False) -> NDArray[Any]:
    """Read an image.

    Args:
        path: The file.
        images: Channels, normalisation and orientation; None: RGB of 8 bits, turned as EXIF says.
        large: Whether it may have more than `LARGEST` pixels.

    Returns:
        [H, W, channels], not normalised: uint8, uint16, or float32 for all other values.

    Raises:
        DataError: The file is missing or broken, or its values are not as `images` says.
    """
    images = images or ImageConfig()
    found = _read("image", path, images.exif, partial(_converted, channels=images.channels), large)
    values = found.values if found.values.ndim == 3 else found.values[..., None]
    if images.channels == 1 and (grey := _one_band(found)) is not None:
        values = grey[..., None]
    check_image(f"image {path}", values, images)
    return values


def read_label(path: Path, large: bool = False) -> NDArray[np.int32]:
    """Read the ids in a label file of 1 to 16 bits: greyscale, palette, or colours with three equal channels.

    EXIF does not turn a label: it is drawn on what a viewer shows of the image.

    Returns:
        int32 [H, W], unchecked.

    Raises:
        DataError: The file is missing or broken, or holds colours, fractions or several opacities instead of ids.
    """
    found = _read("label", path, "ignore", lambda image: image, large)
    ids, what = _one_band(found), f"colours ({found.mode or 'several bands'})"
    if found.values.ndim == 3 and found.mode.endswith("A") and np.ptp(found.values[..., -1]):
        ids, what = None, f"pixels of several opacities ({found.mode})"
    elif ids is not None and ids.dtype == np.float32 and (ids != ids.round()).any():
        ids, what = None, "fractions"
    if ids is None:
        raise DataError(
            f"label {path} holds {what}; expected one class id per pixel, as a greyscale or palette PNG: convert "
            "colours to ids"
        )
    return ids.astype(np.int32) // _EXPANDED.get(found.raw, 1)


def read_palette(path: Path) -> NDArray[np.uint8] | None:
    """Read the colours of a palette file, uint8 [entries, 3]; None if the file has no palette."""
    with _told("label", path), Image.open(path, formats=_FORMATS) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    return None if palette is None else np.array(palette, dtype=np.uint8).reshape(-1, 3)


def read_header(path: Path) -> tuple[tuple[int, int], int]:
    """Read height and width of an image as it is stored, and its orientation: 1 (as stored) to 8."""
    with _told("image", path):
        try:
            with Image.open(path, formats=_FORMATS) as image:
                tags = getattr(image, "tag_v2", {})  # Pillow exchanges the sides of a TIFF file that is to be turned
                size = tags.get(257, image.height), tags.get(256, image.width)
                if image.format == "PNG" and not any("exif" in str(key) or "xmp" in str(key) for key in image.info):
                    return size, 1  # `getexif` would decode the whole image to look behind it
                return size, _orientation(image)
        except Image.UnidentifiedImageError:
            values, orientation = _read_tiff(path, header=True)
            return (values.shape[0], values.shape[1]), orientation


@contextmanager
def _told(kind: str, path: Path) -> Iterator[None]:
    """Turn what Pillow and tifffile raise into a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        size = str(error).partition(",")[0]
        raise DataError(
            f"{kind} {path} cannot be read: {size}; nas-predict and nas-evaluate read it with --window (without "
            "--scales, --flip and --probabilities); for training, cut it into tiles"
        ) from error
    except _BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) else None  # without the number and the path
        reason = " ".join((reason or str(error)).split()) or type(error).__name__
        raise DataError(f"{kind} {path} cannot be read: {reason}") from error


_lifted = threading.RLock()


@contextmanager
def _without_limit(lift: bool) -> Iterator[None]:
    """Lift Pillow's limit of pixels, which all threads share."""
    if not lift:
        yield
        return
    with _lifted:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _read(kind: str, path: Path, exif: Exif, convert: Callable[[Image.Image], Image.Image], large: bool) -> _Pixels:
    """Read a file with Pillow, or with tifffile a TIFF file that Pillow does not read, or not as a whole."""
    with _told(kind, path), _without_limit(large):
        turned = False
        try:
            with Image.open(path, formats=_FORMATS) as image:
                raw, orientation = _raw(image), _orientation(image)
                if ";16" in raw and not image.mode.startswith("I"):
                    raise ValueError(f"Pillow keeps 8 of its 16 bits ({raw}): save it as TIFF, or with 8 bits")
                if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                    raise ValueError("it has several pages, of which Pillow reads one")
                image.load()
                turned = orientation != _orientation(image)  # Pillow turns TIFF files itself
                converted = convert(image)
                mode, values = converted.mode, np.array(converted)
        except (Image.UnidentifiedImageError, ValueError):
            with path.open("rb") as file:
                if file.read(4) not in _TIFF:
                    raise
            mode = raw = ""
            values, orientation = _read_tiff(path, large)
        if turned != (exif == "turn"):
            values = TURNS[_BACK.get(orientation, orientation) if turned else orientation](values)
        if values.dtype not in IMAGE_TYPES:
            exact = {np.dtype(bool): np.uint8, np.dtype(">u2"): np.uint16}
            values = values.astype(exact.get(values.dtype, np.float32))
        return _Pixels(np.ascontiguousarray(values), mode, raw)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:  # damaged EXIF data, which viewers ignore
        return 1
    return value if value in TURNS else 1


def _raw(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    raw = tiles[0][3] if tiles else ""
    return str(raw[0] if isinstance(raw, tuple) and raw else raw)


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """An image whose array has the channels that a viewer would name, if it is not of numbers alone."""
    if image.mode.startswith(("I", "F")):
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow would warn
    if channels == 3:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _one_band(found: _Pixels) -> NDArray[Any] | None:
    """The only band, [H, W], without opacity; None if there are several that differ."""
    values, bands = found.values, {"LA": 1, "PA": 1, "RGB": 3, "RGBA": 3}.get(found.mode)
    if values.ndim == 2:
        return values
    colours = values[..., :bands]
    return colours[..., 0] if (colours == colours[..., :1]).all() and (bands or values.shape[2] == 1) else None


def _read_tiff(path: Path, large: bool = False, header: bool = False) -> tuple[NDArray[Any], int]:
    """Read a TIFF file of any bands and bits, [H, W] or [H, W, bands] (`header`: the size alone), and orientation."""
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise ValueError("this kind of TIFF needs tifffile: pip install 'nas-segmentation[tiff]'") from error
    with TiffFile(path) as file:
        series, tag = file.series[0], file.pages.first.tags.get(_ORIENTATION)
        orientation = int(tag.value) if tag is not None and tag.value in TURNS else 1
        sizes = dict(zip(series.axes, series.shape, strict=True))
        height, width, bands = sizes.pop("Y", 0), sizes.pop("X", 0), [axis for axis, size in sizes.items() if size > 1]
        if len(bands) > 1 or min(height, width) < 1:
            raise ValueError(f"its axes are {series.axes}; expected height, width and bands")
        if header:
            return np.broadcast_to(np.uint8(0), (height, width)), orientation
        if height * width > LARGEST and not large:
            raise Image.DecompressionBombError(
                f"Image size ({height * width} pixels) exceeds limit of {LARGEST} pixels"
            )
        values = series.asarray(maxworkers=1)
        order = [series.axes.index(axis) for axis in ("Y", "X", *sizes)]
        return values.transpose(order).reshape(height, width, *(sizes[axis] for axis in bands)), orientation
