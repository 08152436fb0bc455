"""Converting: read the labels, split, write a data set in the layout of `folder`, count."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.base import IGNORE, MAX_CLASSES, DataError
from nas.data.convert import formats, masks
from nas.data.convert.config import FOR_MASKS, FOR_SHAPES, ConvertConfig
from nas.data.convert.formats import Names, inside
from nas.data.convert.shapes import LINE_WIDTH, Notes, Picture, Source, paint
from nas.data.readers.classes import default_colors, read_class_file
from nas.data.readers.listing import few, list_files
from nas.data.readers.reading import TURNS, read_header, read_text
from nas.training.progress import StepProgress
from search_spaces.files import temporary_beside, write_atomically
from search_spaces.text import aligned
from search_spaces.validation import counted, raised_as, short

__all__ = ["Converted", "as_text", "assign", "convert"]

SHARE = 0.15
"""Of val and of test, if nothing else is said."""
SPLITS = re.compile(r"(train|val|test)(?:ing|id|idation)?\d*", re.IGNORECASE)
"""Names of folders that are splits, such as valid and train2017."""
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
    lines = [f"{converted.format}: {head}", *(f"  {line}" for line in aligned(rows, left=(1,)))]
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
        for name, place in _places(splits).items():
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


def assign(names: Collection[str], config: ConvertConfig) -> tuple[dict[str, str], str]:
    """Assign paths of images to splits by lists, by names of folders, or by shares of groups.

    Returns:
        The split of each path, without those that no list names, and how they were split, in words.

    Raises:
        DataError: A list names an image twice, or one that there is not; or --group matches nothing in a name.
    """
    if config.lists is not None:
        return _by_lists(names, config.source, config.lists), f"as the lists in {config.lists} say"
    found = {name: list(filter(None, map(SPLITS.fullmatch, PurePosixPath(name).parts[:-1]))) for name in names}
    by_shares = config.val, config.test, config.group, config.seed
    if all(found.values()) and by_shares == (None,) * 4:
        return {name: matches[-1][1].lower() for name, matches in found.items()}, "as the folders are named"
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        match = re.search(config.group or "(?s:.*)", name)
        if match is None:
            raise DataError(f"--group {short(config.group)} matches nothing in {short(name)}: it must fit all images")
        groups[match[0] if not match.groups() else match[1] or ""].append(name)
    # By a digest, as shuffling may differ between versions; most images stay in their splits when others are added.
    order = sorted(
        groups,
        key=lambda group: hashlib.sha256(f"{config.seed or 0}/{group}".encode(errors="surrogateescape")).digest(),
    )
    splits: dict[str, str] = {}
    for split, share in (("val", config.val), ("test", config.test)):
        wanted, taken = (SHARE if share is None else share) * len(names), list[str]()
        for group in order:  # in turn, whatever brings the split nearer to its size
            if abs(wanted - len(groups[group])) < abs(wanted) and len(order) - len(taken) > 1:
                wanted -= len(groups[group])
                taken.append(group)
        if share != 0 and not taken and len(order) > 1:
            taken = [min(order, key=lambda group: len(groups[group]))]
        splits.update((name, split) for group in taken for name in groups[group])
        order = [group for group in order if group not in taken]
    splits.update((name, "train") for group in order for name in groups[group])
    kept = f" of {len(groups)} groups" if config.group is not None else ""
    return splits, f"by shares{kept}, seed {config.seed or 0}"


def _by_lists(names: Collection[str], source: str, lists: str) -> dict[str, str]:
    files, known = list_files(inside(source, lists), {".txt"}, recursive=False)[0], Names(names)
    if not files:
        raise DataError(f"--lists {lists} holds no list: expected train.txt, val.txt, ..., with a name a line")
    splits: dict[str, str] = {}
    for file in files:
        for number, line in enumerate(read_text("list", file).splitlines(), start=1):
            if not (name := line.strip()):
                continue
            place = f"{file}, line {number}"
            found = known.find(name, place)
            if found is None:
                raise DataError(f"{place}: {short(name)} is no image with a label: remove the line")
            if found in splits:
                raise DataError(f"{place}: {short(name)} is named before, for {splits[found]}: name each image once")
            splits[found] = file.stem
    return splits


def _places(splits: Mapping[str, str]) -> dict[str, str]:
    """Where each image is written in its split: by its file's name if each is there once, else by its path."""
    stems = Counter((split, PurePosixPath(name).stem.casefold()) for name, split in splits.items())
    if set(stems.values()) <= {1}:
        return {name: PurePosixPath(name).name for name in splits}
    taken: dict[str, str] = {}
    for name in splits:
        other = taken.setdefault(str(PurePosixPath(name).with_suffix("")).casefold(), name)
        if other != name:
            raise DataError(f"{other} and {name} differ in case or extension only: rename one")
    return {name: name for name in splits}
