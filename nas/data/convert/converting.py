"""Converting: find the format, draw the labels, split, write a data set in the layout of `folder`, count."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nas.data.base import IGNORE, MAX_CLASSES, DataError
from nas.data.convert import cvat, masks
from nas.data.convert.config import FORMATS, ConvertConfig
from nas.data.convert.json_formats import KEYS, load_json, read_coco, read_labelme, read_supervisely
from nas.data.convert.shapes import Notes
from nas.data.convert.source import FOLDERS, Images, Picture, Source, inside
from nas.data.convert.splitting import assign, split_folder
from nas.data.readers.classes import default_colors, read_class_file
from nas.data.readers.listing import NAMED, list_files
from nas.training.progress import StepProgress
from search_spaces.files import write_atomically
from search_spaces.text import aligned
from search_spaces.validation import counted, raised_as

__all__ = ["Converted", "as_text", "convert"]

READERS = {
    "coco": read_coco,
    "labelme": read_labelme,
    "supervisely": read_supervisely,
    "cvat": cvat.read,
    "masks": masks.read,
}
BACKGROUND = ("background", "_background_")
"""Names of the class of all pixels outside all shapes, if there is one; the first is given if there is none."""
IGNORED = "__ignore__"
"""labelme's class of the pixels to ignore."""
ORIENTATION = 0x0112
"""EXIF's tag."""


@dataclass
class Converted:
    """What was written."""

    format: str
    classes: tuple[str, ...]
    how: str
    """How the images were split."""
    images: Counter[str]
    """Of each split."""
    pixels: dict[str, NDArray[np.int64]]
    """Of each split: pixels of each class, and in the last place of those to ignore."""
    notes: Notes
    """What was left out or taken for something else, with the names."""


def as_text(converted: Converted) -> str:
    """What was written, a table with the pixels of each class in each split, and the notes."""
    splits = [split for split in ("train", "val", "test") if split in converted.images]
    splits += sorted(converted.images.keys() - set(splits))
    rows = [["id", "class", *splits], ["", "images", *(f"{converted.images[split]:,}" for split in splits)]]
    for number, name in enumerate((*converted.classes, "(ignored)")):
        place = IGNORE if number == len(converted.classes) else number
        rows.append([str(place), name, *(f"{converted.pixels[split][number]:,}" for split in splits)])
    classes = f"{len(converted.classes)} class{'es' * (len(converted.classes) != 1)}"
    lines = [f"{converted.format}: {counted(converted.images.total(), 'image')}, {classes}; split {converted.how}"]
    lines += [f"  {line}" for line in aligned(rows, left=(1,))]
    notes = dict(converted.notes)
    for split in dict.fromkeys(("train", "val", *splits)):
        absent = [
            name for name, count in zip(converted.classes, converted.pixels.get(split, []), strict=False) if not count
        ]
        notes[f"classes without a pixel in {split}"] = absent
        lines += [f"no image is in {split}, which a run needs"] * (split not in splits)
    for note, names in notes.items():
        shown = ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)
        lines += [f"{note}: {len(names):,} ({shown})"] * bool(names)
    return "\n".join(lines)


def convert(config: ConvertConfig, quiet: bool = True) -> Converted:
    """Convert annotations to a data set that `folder` reads.

    Everything is written into a hidden folder next to OUT, which becomes OUT at the end.

    Args:
        config: The settings.
        quiet: Show no progress.

    Raises:
        DataError: SOURCE is not as its format says, nothing in it can be used, or OUT has something in it.
        ValueError: An option is not for this format.
    """
    source, out = Path(config.source), Path(config.out)
    if not source.exists():
        raise DataError(f"{source} does not exist: name the folder, or the file, with the annotations")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there, and is not empty: choose another folder; nothing is ever overwritten")
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise DataError(f"{out} lies in {source}, and would be read as a part of it: choose a folder outside")
    name = _format(source) if config.format == "auto" else config.format
    defaults = {field.name: field.default for field in fields(ConvertConfig)}
    for option in sorted({option for options in FORMATS.values() for option in options}.difference(FORMATS[name])):
        if getattr(config, option) != defaults[option]:
            raise ValueError(f"--{option} is not for {name}: leave it out")
    notes: Notes = defaultdict(list)
    images = Images(source, inside(config.source, config.images) if config.images else None, notes)
    found = READERS[name](config, images, notes)
    images.check(found.pictures)
    classes, colors, ids, rest = _classes(found, config)
    splits, how = assign([picture.image.relative_to(images.folder).as_posix() for picture in found.pictures], config)
    result = Converted(name, classes, how, Counter(), {}, notes)
    with _moved_into(out) as part, StepProgress(len(found.pictures), quiet=quiet) as progress:
        places = _places(splits)
        for picture in found.pictures:
            path = picture.image.relative_to(images.folder).as_posix()
            progress.step(name)
            if path not in splits:
                notes["images in no list, left out"].append(path)
                continue
            label = _label(picture, config, ids, rest, notes)
            split, place = splits[path], places[path]
            counts = result.pixels.setdefault(split, np.zeros(len(classes) + 1, dtype=np.int64))
            counts += np.bincount(np.minimum(label.ravel(), len(classes)), minlength=len(classes) + 1)
            result.images[split] += 1
            image = part / "images" / split / place
            image.parent.mkdir(parents=True, exist_ok=True)
            (os.link if config.link else shutil.copyfile)(picture.image.resolve(), image)
            written = Image.fromarray(label)
            written.putpalette(colors.tobytes())
            file = (part / "labels" / split / place).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            written.save(file)
        found.finish()
        rows = zip(classes, colors.tolist(), strict=False)
        lines = [json.dumps({"name": name, "color": color}, ensure_ascii=False) for name, color in rows]
        file = write_atomically(part / "classes.json", "[\n" + ",\n".join(lines) + "\n]\n")
        with raised_as(DataError, f"the classes of {source} cannot be used: "):
            read_class_file(file)
    return result


def _format(source: Path) -> str:
    """The format of SOURCE, by its first file of annotations."""
    for path in [source] if source.is_file() else list_files(source, {".json", ".xml"})[0]:
        if path.suffix.lower() == ".xml" and cvat.load_xml(path).tag == "annotations":
            return "cvat"
        data = load_json(path) if path.suffix.lower() == ".json" else None
        for name, keys in KEYS.items():
            if isinstance(data, dict) and data.keys() >= keys:
                return name
    if source.is_file():
        raise DataError(f"{source} is none of {', '.join(FORMATS)}: give a file or folder of one of these formats")
    return "masks"


def _classes(found: Source, config: ConvertConfig) -> tuple[tuple[str, ...], NDArray[np.uint8], dict[str, int], int]:
    """The classes, the palette of the labels [256, 3], the id of each class, and that of pixels outside all shapes."""
    colors = default_colors(IGNORE + 1)
    if config.colors is not None:
        names, given = read_class_file(Path(config.colors))
        colors[: len(names)] = given
    else:
        names = tuple(name for name in found.classes if name != IGNORED)
    background = next((name for name in names if name in BACKGROUND), None)
    if background is None and not found.complete and config.unlabelled != "ignore":
        if config.colors is not None:
            raise DataError(f"{config.colors} has no class {BACKGROUND[0]}: add it, or give --unlabelled ignore")
        background, names = BACKGROUND[0], (BACKGROUND[0], *names)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(f"{config.source} has {len(names)} classes: expected 2 to {MAX_CLASSES}")
    own = [found.classes.get(name) or (0, 0, 0) for name in names]
    if config.colors is None and len(set(own)) == len(own):
        colors[: len(own)] = own
    ids = {name: number for number, name in enumerate(names)} | {IGNORED: IGNORE}
    return names, colors, ids, ids[background] if background and config.unlabelled != "ignore" else IGNORE


def _label(
    picture: Picture, config: ConvertConfig, ids: Mapping[str, int], rest: int, notes: Notes
) -> NDArray[np.uint8]:
    """Draw the label of an image as viewers show it.

    Raises:
        DataError: The image cannot be read, or the label is of another size.
    """
    try:
        with Image.open(picture.image) as image:
            stored, orientation = (image.height, image.width), image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image {picture.image} cannot be read: {error}") from error
    size = stored[::-1] if orientation in (5, 6, 7, 8) and config.exif == "turn" else stored

    def check(drawn: tuple[int, ...]) -> None:
        if drawn != size:
            hint = f"its orientation is {orientation}: give --exif ignore if labels were drawn on the pixels as stored"
            raise DataError(
                f"{picture.place}: the label is {drawn[1]}x{drawn[0]}, but its image {picture.image} is "
                f"{size[1]}x{size[0]} (width x height){f'; {hint}' * (drawn == stored)}"
            )

    check(picture.size or size)  # before memory is taken for it
    label = picture.label(size, ids, rest, notes)
    check(label.shape)
    if config.exif == "ignore" and orientation != 1:
        turning = Image.fromarray(label)
        turning.getexif()[ORIENTATION] = orientation
        label = np.array(ImageOps.exif_transpose(turning))
    return label


def _places(splits: Mapping[str, str]) -> dict[str, str]:
    """Where each image is written: its path without folders that say no more than the new ones do.

    Raises:
        DataError: Two images would have labels of the same name.
    """
    shared = len(
        PurePosixPath(os.path.commonpath([PurePosixPath(name).parent for name in splits] or [PurePosixPath()])).parts
    )
    for short in (True, False):
        places, taken = dict[str, str](), dict[tuple[str, str], str]()
        for name, split in splits.items():
            *folders, file = PurePosixPath(name).parts
            if short:
                folders = [part for part in folders[shared:] if part.lower() not in FOLDERS and not split_folder(part)]
            places[name] = "/".join((*folders, file))
            other = taken.setdefault((split, str(PurePosixPath(places[name]).with_suffix("")).casefold()), name)
            if other != name and not short:
                raise DataError(f"{other} and {name} differ in case or extension only: rename one")
        if len(taken) == len(places):
            break
    return places


try:
    import fcntl
except ImportError:  # pragma: no cover (Windows: there, two conversions to one folder are not kept apart)
    fcntl = None  # type: ignore[assignment]


@contextmanager
def _moved_into(out: Path) -> Iterator[Path]:
    """A new folder that becomes OUT if the block ends well, and is removed otherwise; one of a killed command, too.

    Raises:
        DataError: Another process writes there.
    """
    part = out.absolute().with_name(f".{out.absolute().name}.part")
    part.mkdir(parents=True, exist_ok=True)
    with (part / ".lock").open("a") as lock:
        try:
            if fcntl is not None:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"another process is converting to {out}: wait until it has ended") from None
        for path in part.iterdir():  # of a command that was killed
            if path != part / ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield part
            (part / ".lock").unlink()
            if out.is_dir():
                out.rmdir()  # is empty, or this fails
            part.rename(out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
