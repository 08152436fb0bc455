"""The genotype after each epoch of a search: genotypes.jsonl in the run folder, and pictures of it.

A line holds `epoch` (from 0) and the parts of a genotype file that change: alpha, beta, cell, path, and edge_weights if
the search has them. The space, which does not change, is in the run's genotype.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nas.runs.folder import RunFolder, read_lines
from nas.runs.names import GENOTYPE, GENOTYPES, RunError
from nas.runs.pictures import draw_paths, figure_to_array
from search_spaces.drawing import draw_cell, draw_changes
from search_spaces.files import MARK, write_atomically
from search_spaces.genotype import Genotype, GenotypeError, load_genotype
from search_spaces.validation import as_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Snapshot", "draw_history", "read_history", "record_genotype", "save_animation", "spread"]

DIGITS = 6
"""Digits of a probability: enough to draw and decode it, in a third of the file size."""

SHOWN, FRAMES = 8, 60
"""Epochs in the picture and in the animation, spread evenly over the search."""

SECONDS, LAST_SECONDS = 0.7, 3.0
"""Duration of a frame of the animation, and of the last one."""

FRAME_DOTS_PER_INCH = 100

Item = TypeVar("Item")


@dataclass(frozen=True)
class Snapshot:
    """The genotype after an epoch."""

    epoch: int
    """Number of the epoch, from 0."""
    genotype: Genotype
    """As decoded after it."""


def record_genotype(run: RunFolder, epoch: int, genotype: Genotype) -> None:
    """Append the genotype after an epoch (from 0) to genotypes.jsonl."""
    fields: dict[str, Any] = {"cell": genotype.plain_cell, "path": list(genotype.path)}
    for name in ("alpha", "beta", "edge_weights"):
        array = getattr(genotype, name)
        if array is not None:
            fields[name] = array.round(DIGITS).tolist()
    run.append(GENOTYPES, {"epoch": epoch, **fields})


def read_history(folder: str | Path) -> list[Snapshot]:
    """Read the genotypes of a search, epoch by epoch.

    Raises:
        RunError: There are none, as in a run of nas-retrain, or a line is invalid.
        GenotypeError: The run's genotype.json cannot be read.
    """
    folder = as_path(folder)
    lines = read_lines(folder, GENOTYPES)
    if not lines:
        raise RunError(
            f"{folder} has no {GENOTYPES} with an epoch in it: that is written by nas-search, after each of its epochs"
        )
    whole = load_genotype(folder / GENOTYPE)
    constant = {"format": "nas-genotype", "version": 1, "space": whole.space.to_dict()}
    history = []
    for line in lines:
        fields = {key: value for key, value in line.items() if key != "epoch"}
        try:
            history.append(Snapshot(line["epoch"], Genotype.from_dict({**constant, **fields})))
        except GenotypeError as error:
            raise RunError(f"{folder / GENOTYPES}, epoch {line['epoch']}: {error}") from error
    return history


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Up to `most` of the items at equal distances, including the last and, if there are two, the first."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(number * (len(items) - 1) / (most - 1))] for number in range(most)]


def draw_history(history: Sequence[Snapshot]) -> Figure:
    """Draw path and cell after up to eight epochs, counted from 1.

    Raises:
        ValueError: There is none.
    """
    return draw_changes([(shot.epoch + 1, shot.genotype) for shot in spread(history, SHOWN)])


def save_animation(history: Sequence[Snapshot], path: str | Path) -> Path:
    """Write trellis and cell of up to 60 epochs as an animated GIF that plays once.

    Raises:
        ValueError: There is no epoch.
        OSError: The folder cannot be written.
    """
    from PIL import Image

    shots = spread(history, FRAMES)
    if not shots:
        raise ValueError("there is no epoch to draw: let the search finish one")
    frames = [_frame(shot) for shot in shots]
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    images = [Image.fromarray(_centred(frame, height, width)) for frame in frames]
    # One palette for all frames, from a sheet of some: with separate palettes the colours would flicker.
    sheet = Image.fromarray(np.concatenate([np.asarray(image) for image in spread(images, 4)]))
    palette = sheet.quantize(64, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [round(1000 * seconds) for seconds in [SECONDS] * (len(images) - 1) + [LAST_SECONDS]]
    buffer = BytesIO()
    kept = {"save_all": True, "append_images": images[1:], "duration": durations, "comment": MARK}
    images[0].save(buffer, format="GIF", **kept)
    return write_atomically(as_path(path), buffer.getvalue())


def _frame(shot: Snapshot) -> np.ndarray:
    """Trellis above cell: uint8 [H, W, 3]."""
    parts = []
    for draw, what in ((draw_paths, "path"), (draw_cell, "cell")):
        figure = draw(shot.genotype, title=f"epoch {shot.epoch + 1}: {what}")
        figure.set_dpi(FRAME_DOTS_PER_INCH)
        parts.append(figure_to_array(figure))
    width = max(part.shape[1] for part in parts)
    return np.concatenate([_centred(part, part.shape[0], width) for part in parts])


def _centred(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture [h, w, 3] at the top centre of white [height, width, 3]."""
    left = (width - picture.shape[1]) // 2
    whole = np.full((height, width, 3), 255, dtype=np.uint8)
    whole[: picture.shape[0], left : left + picture.shape[1]] = picture
    return whole
