"""The pictures of a report: each kind of picture a row, with the runs side by side."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from retrain.pictures.config import PictureConfig
from retrain.pictures.drawing import FOLDER, PICTURES, Subject
from retrain.report.markup import Markup, details, element, figure, join
from retrain.report.runs import RunRecord
from search_spaces.validation import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Album",
    "gallery",
]


FROM_RECORD = ("trellis", "cell", "history", "smoothing")
"""Pictures that are redrawn for every report: they need no network."""

MOST_FILES = 12
"""Pictures taken from a run's folder of pictures."""

Shown = dict[str, dict[str, Markup]]
"""Picture -> run -> what is shown."""


def gallery(
    runs: Sequence[RunRecord], album: Album, image: str | Path | None = None
) -> Iterator[tuple[str, str, Markup]]:
    """The section of pictures, if there are any: (anchor, heading, content).

    Args:
        runs: Those of the report.
        album: Holds the pictures.
        image: What the networks of retrainings are shown at work on; else the pictures of `nas-draw` are taken.

    Raises:
        ValueError: The image cannot be read.
    """
    config = PictureConfig(image=str(image) if image is not None else None)
    shown: Shown = defaultdict(dict)
    left_out: list[str] = []
    for run in runs:
        subject = Subject(run.path, config)
        if image is not None:
            _ = subject.image
        drawn = [name for name in FROM_RECORD if _is_there(name, run)]
        if image is not None and not run.searches:
            drawn += [name for name in PICTURES if name not in FROM_RECORD]
        for name in drawn:
            try:
                address = album.figure(PICTURES[name].draw(subject))
            except ValueError as error:
                if name not in ("smoothing", "features"):  # most runs have none of these
                    left_out.append(f"{name} of {run.name}: {error}")
                continue
            shown[name][run.name] = _image(address, name, run.name)
        _add_files(run, album, drawn, shown, left_out)
    if not shown and not left_out:
        return
    order = [*(name for name in PICTURES if name in shown), *(name for name in shown if name not in PICTURES)]
    parts: list[object] = []
    for name in order:
        title = PICTURES[name].description if name in PICTURES else name
        figures = [figure(run if len(runs) > 1 else "", content) for run, content in shown[name].items()]
        parts.append(element("h3", title[0].upper() + title[1:]))
        parts.append(element("div", *figures, class_="grid" if len(figures) > 1 else "grid one"))
    if left_out:
        notes = [element("p", f"No {reason}") for reason in left_out]
        parts.append(details("Pictures that are not here", *notes))
    yield "pictures", "Pictures", join(parts)


def _is_there(name: str, run: RunRecord) -> bool:
    if name == "history":
        return len(run.history) > 1
    return run.genotype is not None if name in ("trellis", "cell") else bool(run.lines)


def _add_files(run: RunRecord, album: Album, drawn: Sequence[str], shown: Shown, left_out: list[str]) -> None:
    """Adds what nas-draw left in the run's folder, unless it was redrawn."""
    files = [path for path in sorted((run.path / FOLDER).glob("*.png")) if path.stem not in drawn]
    files += [
        path for path in (run.path / FOLDER / "history.gif",) if path.exists() and run.name in shown.get("history", {})
    ]
    for path in files[:MOST_FILES]:
        try:
            picture = _image(album.file(path), path.stem, run.name)
        except ValueError as error:
            left_out.append(f"{path.stem} of {run.name}: {error}")
            continue
        if path.suffix == ".gif":  # below the picture, and folded: it moves only where that is asked for
            picture = join([shown[path.stem][run.name], details("As an animation", picture)])
        shown[path.stem][run.name] = picture
    if len(files) > MOST_FILES:
        left_out.append(f"more than {MOST_FILES} pictures of {run.name}, of {len(files)} in {run.path / FOLDER}")


def _image(address: str, name: str, run: str) -> Markup:
    what = PICTURES[name].description if name in PICTURES else name
    return element("img", src=Markup(address), alt=f"{what}, of run {run}")


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
