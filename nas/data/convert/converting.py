"""Converting: read the labels, split, write a data set in the layout of `folder`, count."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.base import IGNORE, MAX_CLASSES, DataError
from nas.data.check.report import table
from nas.data.convert import formats, masks
from nas.data.convert.config import FOR_MASKS, FOR_SHAPES, ConvertConfig
from nas.data.convert.shapes import LINE_WIDTH, Notes, Picture, Source, paint
from nas.data.convert.splitting import assign, inside, places
from nas.data.readers.classes import default_colors, read_class_file
from nas.data.readers.listing import few
from nas.data.readers.reading import TURNS, read_header
from nas.training.progress import StepProgress
from search_spaces.files import temporary_beside, write_atomically
from search_spaces.validation import counted, raised_as

__all__ = ["Converted", "as_text", "convert"]

BACKGROUND = ("background", "_background_")
"""Names of the class of all pixels outside all shapes, if there is one; the first is given if there is none."""
IGNORED = "__ignore__"
"""labelme's class of the pixels to ignore."""


@dataclass
class Converted:
    """What was written: of each split, the images, and the pixels of each class, in the last place those to ignore."""

    format: str
    classes: tuple[str, ...]
    how: str
    """How the images were split."""
    images: Counter[str]
    pixels: dict[str, NDArray[np.int64]]
    notes: Notes


def as_text(converted: Converted) -> str:
    """What was written, a table with the pixels of each class in each split, and the notes."""
    splits = sorted(converted.images, key=lambda split: (("train", "val", "test", split).index(split), split))
    rows = [["id", "class", *splits], ["", "images", *(f"{converted.images[split]:,}" for split in splits)]]
    ids = {**dict(enumerate(converted.classes)), IGNORE: "(ignored)"}
    for place, (number, name) in enumerate(ids.items()):
        rows.append([str(number), name, *(f"{converted.pixels[split][place]:,}" for split in splits)])
    head = f"{counted(converted.images.total(), 'image')}, {len(converted.classes)} classes; split {converted.how}"
    lines = [f"{converted.format}: {head}", *(f"  {line}" for line in table(rows))]
    lines += [f"no image is in {split}, which a run needs" for split in ("train", "val") if split not in splits]
    for note, names in converted.notes.items():
        lines += [f"{note}: {len(names):,} ({few(names)})"] * bool(names)
    return "\n".join(lines)


def convert(config: ConvertConfig, quiet: bool = True) -> Converted:
    """Convert annotations to a data set that `folder` reads; OUT appears when it is complete.

    Raises:
        DataError: SOURCE is not as its format says, nothing in it can be used, or OUT has something in it.
        ValueError: An option is not for this format.
    """
    source, out, notes = Path(config.source), Path(config.out), Notes(list)
    if not source.exists():
        raise DataError(f"{source} does not exist: name the folder, or the file, with the annotations")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there, and is not empty: choose another folder; nothing is ever overwritten")
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise DataError(f"{out} lies in {source}, and would be read as a part of it: choose a folder outside")
    folder = inside(config.source, config.images or ".")
    found = None if config.format == "masks" else formats.read(config, folder, notes)
    found = found or masks.read(config, folder, notes)
    for option in FOR_SHAPES if found.format == "masks" else FOR_MASKS:
        if getattr(config, option) is not None:
            raise ValueError(f"--{option} is not for {found.format}: leave it out")
    pictures = {picture.image: picture for picture in found.pictures}
    notes["images without a label, left out"] = sorted(found.images - pictures.keys())
    names, colors, rest = _classes(found, config)
    ids = {**{name: number for number, name in enumerate(names)}, IGNORED: IGNORE}
    splits, how = assign(pictures.keys(), config)
    notes["images in no list, left out"] = sorted(pictures.keys() - splits.keys())
    pixels = {split: np.zeros(len(names) + 1, dtype=np.int64) for split in splits.values()}
    with temporary_beside(out, folder=True) as temporary, StepProgress(len(splits), quiet=quiet) as progress:
        made = temporary / "made"  # with the usual permissions, which the temporary folder has not
        rows = zip(names, colors.tolist(), strict=False)
        lines = [json.dumps({"name": name, "color": color}, ensure_ascii=False) for name, color in rows]
        with raised_as(DataError, f"the classes of {source} cannot be used: "):
            read_class_file(write_atomically(made / "classes.json", "[\n" + ",\n".join(lines) + "\n]\n"))
        for name, place in places(splits).items():
            split = splits[name]
            label = _label(pictures[name], found, config, ids, rest, notes)
            pixels[split] += np.bincount(np.minimum(label.ravel(), len(names)), minlength=len(names) + 1)
            files = [made / kind / split / place for kind in ("images", "labels")]
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, files[0])
            written = Image.fromarray(label)
            written.putpalette(colors.tobytes())
            written.save(files[1].with_suffix(".png"))
            progress.step(found.format)
        if out.is_dir():
            out.rmdir()  # is empty, or this fails
        made.rename(out)
    return Converted(found.format, names, how, Counter(splits.values()), pixels, notes)


def _classes(found: Source, config: ConvertConfig) -> tuple[tuple[str, ...], NDArray[np.uint8], int]:
    """The classes, the palette of the labels [256, 3], and the id of pixels outside all shapes."""
    classes = {name: color or (0, 0, 0) for name, color in found.classes.items() if name != IGNORED}
    if config.colors is not None:
        names, given = read_class_file(Path(config.colors))
        classes = dict(zip(names, map(tuple, given.tolist()), strict=True))
    rest = None if found.format == "masks" or config.unlabelled == "ignore" else BACKGROUND[0]
    if rest is not None:
        rest = next(filter(BACKGROUND.__contains__, classes), rest)
        if config.colors is not None and rest not in classes:
            raise DataError(f"{config.colors} has no class {rest}: add it, or give --unlabelled ignore")
        classes = classes if rest in classes else {rest: (0, 0, 0), **classes}
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{config.source} has {len(classes)} classes: expected 2 to {MAX_CLASSES}")
    colors = default_colors(IGNORE + 1)
    if config.colors is not None or len(set(classes.values())) == len(classes):
        colors[: len(classes)] = list(classes.values())
    return tuple(classes), colors, IGNORE if rest is None else list(classes).index(rest)


def _label(
    picture: Picture, found: Source, config: ConvertConfig, ids: Mapping[str, int], rest: int, notes: Notes
) -> NDArray[np.uint8]:
    """The label of an image as viewers show it; a DataError if its size is not that of the image."""
    image = found.folder / picture.image
    stored, orientation = read_header(image)
    size = stored[::-1] if orientation > 4 and config.exif == "turn" else stored
    label = picture.mask() if picture.mask else None
    drawn = picture.size or size if label is None else label.shape
    if drawn != size:
        hint = f"its orientation is {orientation}: give --exif ignore if labels were drawn on the pixels as stored"
        raise DataError(
            f"{picture.place}: the label is {drawn[1]}x{drawn[0]}, but its image {image} is {size[1]}x{size[0]} "
            f"(width x height){f'; {hint}' * (drawn == stored)}"
        )
    if label is None:
        width = config.line_width or LINE_WIDTH
        label = paint(picture.shapes, size, ids, rest, notes, width, by_area=found.format == "coco")
    return TURNS[orientation](label) if config.exif == "ignore" else label
