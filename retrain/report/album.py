"""The pictures of a report, as data in the page; small enough together, however many there are."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from nas.config import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Album"]

LARGEST_SVG = 400_000
"""Bytes; a larger one becomes a PNG."""

LARGEST_PNG = 400_000
"""Bytes; a larger one becomes a JPEG. (A palette would give a class's small square the colour of another class.)"""

LARGEST_ANIMATION = 3_000_000
WIDEST = 1600
"""Pixels; a wider picture is shrunk."""

MOST_PIXELS = 50_000_000
QUALITY = 92
"""Of a JPEG."""


@dataclass
class Album:
    """Turns pictures into the addresses of <img> elements, as long as there is room."""

    room: int = 24_000_000
    """Bytes left."""
    _full: str = field(default="the report is full: make one of fewer runs", init=False)

    def figure(self, figure: Figure) -> str:
        """The address of a drawn figure.

        Raises:
            ValueError: There is no room left.
        """
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        if len(buffer.getvalue()) <= LARGEST_SVG:
            return self._address("image/svg+xml", buffer.getvalue())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=min(150, WIDEST / figure.get_size_inches()[0]))
        return self._raster(buffer)

    def file(self, path: Path) -> str:
        """The address of a picture, shrunk where it is too wide, or of a GIF as it is.

        Raises:
            ValueError: It cannot be read, is too large, or there is no room left.
        """
        try:
            if path.suffix.lower() == ".gif":
                require(path.stat().st_size <= LARGEST_ANIMATION, "the animation is too large for a report")
                data = path.read_bytes()
                with Image.open(io.BytesIO(data)) as image:
                    require(image.format == "GIF", "it is no GIF")
                return self._address("image/gif", data)
            return self._raster(io.BytesIO(path.read_bytes()))
        except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path.name} cannot be read as a picture: {error}") from error

    def _raster(self, file: io.BytesIO) -> str:
        with Image.open(file) as image:
            require(image.width * image.height <= MOST_PIXELS, "the picture has too many pixels for a report")
            picture = image.convert("RGB")
        if picture.width > WIDEST:
            picture = picture.resize((WIDEST, max(1, round(picture.height * WIDEST / picture.width))))
        data = _encoded(picture, "PNG", optimize=True)
        if len(data) <= LARGEST_PNG:
            return self._address("image/png", data)
        return self._address("image/jpeg", _encoded(picture, "JPEG", quality=QUALITY, subsampling=0))

    def _address(self, kind: str, data: bytes) -> str:
        text = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        require(len(text) <= self.room, self._full)
        self.room -= len(text)
        return text


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()
