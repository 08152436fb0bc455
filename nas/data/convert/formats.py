"""Files of shapes: COCO, one for many images; labelme and Supervisely, one for each image; CVAT for images 1.1."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from PIL import ImageColor

from nas.data.base import DataError
from nas.data.convert.config import ConvertConfig
from nas.data.convert.shapes import Color, Notes, Picture, Shape, Source
from nas.data.readers.listing import list_files
from nas.data.readers.reading import IMAGE_SUFFIXES
from search_spaces.files import parse_json
from search_spaces.validation import raised_as, short

__all__ = ["Names", "inside", "read"]

KEYS = {
    frozenset({"images", "annotations", "categories"}): "coco",
    frozenset({"shapes", "imagePath"}): "labelme",
    frozenset({"objects", "size"}): "supervisely",
    frozenset({"classes", "tags"}): "supervisely",  # meta.json
}
"""Keys by which the format of a JSON file is known."""
KINDS = {
    "labelme": {kind: kind for kind in ("polygon", "rectangle", "circle", "line")} | {"linestrip": "line"},
    "cvat": {"polygon": "polygon", "box": "rectangle", "polyline": "line", "mask": "runs"},
    "supervisely": {kind: kind for kind in ("polygon", "rectangle", "line", "bitmap")},
}
"""Kinds of shapes as the formats name them, and as `nas.data.convert.shapes.draw` does."""
WITHOUT_AREA = frozenset({"point", "points", "graph", "tag", "cuboid", "skeleton"})
"""Kinds that no pixel belongs to."""

_TYPES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}

Classes = dict[str, Color | None]


class Names:
    """Paths of images with slashes, found by the names that annotations and lists give them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_end: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for name in names:
            path = PurePosixPath(unicodedata.normalize("NFC", name))
            for end in {path.name, path.stem}:
                self._by_end[end].append((path.parent.parts, name))

    def find(self, name: str, place: str) -> str | None:
        """The path that ends most like this name, as its folder may be another where the labels were made.

        The name may be without an extension. None if there is no such file; a DataError, for `place`, if two fit.
        """
        path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
        alike: dict[tuple[int, bool], list[str]] = defaultdict(list)
        for folders, known in self._by_end.get(path.name, []):
            same = [own == other for own, other in zip(folders[::-1], path.parent.parts[::-1], strict=False)]
            alike[(*same, False).index(False), folders == path.parent.parts].append(known)
        best = alike[max(alike)] if alike else [None]
        if len(best) > 1:
            raise DataError(f"{place}: the image {short(name)} may be {best[0]} or {best[1]}: write its path")
        return best[0]


def inside(source: str, name: str) -> Path:
    """A folder that the user names, in SOURCE or anywhere; a DataError if there is none."""
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    found = next((path for path in (root / name, Path(name)) if path.is_dir()), None)
    if found is None:
        raise DataError(f"there is no folder {name}, in {source} or here")
    return found


def read(config: ConvertConfig, folder: Path, notes: Notes) -> Source | None:
    """Read all annotation files of one format at SOURCE, that of the first one unless it is given.

    Classes are in the order of the files' lists of them, others by name. None if there is no such file.

    Raises:
        DataError: A file is not as its format says; the message names the entry.
    """
    source = Path(config.source)
    root = source if source.is_dir() else source.parent
    form: str | None = None if config.format == "auto" else config.format
    classes: Classes = {}
    labelled: list[Picture] = []
    for path in list_files(source, {".json", ".xml"})[0] if source.is_dir() else [source]:
        content, own = _load(path)
        form = form or own
        if own is not None and own == form:
            labelled += READERS[own](path, content, classes, notes)
        else:
            notes["files of another format, left out"].append(str(path))
    if form is None and source.is_dir():
        return None
    images = {path.relative_to(folder).as_posix() for path in list_files(folder, IMAGE_SUFFIXES)[0]}
    names, pictures = Names(images), dict[str, Picture]()
    lacking = notes[f"labelled images that are not in {folder}, left out"]
    for picture in labelled:
        if (found := names.find(picture.image.removeprefix(f"{root.as_posix()}/"), picture.place)) is None:
            lacking.append(picture.image)
        elif found in pictures:
            raise DataError(f"{picture.place}: {found} has a label already, of {pictures[found].place}: keep one")
        else:
            pictures[found] = picture._replace(image=found)
            if not picture.shapes:
                notes["images without a shape, all of them background, or ignored"].append(picture.place)
    if form is None or not pictures:
        if lacking:
            raise DataError(f"{lacking[0]} is not in {folder}: name the folder of the images by --images")
        raise DataError(f"{source} holds no annotations of {form or 'a known format'}: give another --format")
    for name in sorted({shape.name for picture in pictures.values() for shape in picture.shapes}):
        classes.setdefault(name)
    return Source(form, folder, images, classes, [*pictures.values()])


def _load(path: Path) -> tuple[Any, str | None]:
    """Read a file; its content, and the format if it is one of those here."""
    try:
        if path.suffix.lower() == ".xml":
            root = ElementTree.parse(path).getroot()
            return root, "cvat" if root.tag == "annotations" else None
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}") from error
    keys = content.keys() if isinstance(content, dict) else ()
    return content, next((form for needed, form in KEYS.items() if needed.issubset(keys)), None)


def _coco(path: Path, data: Any, classes: Classes, notes: Notes) -> Iterator[Picture]:
    """A crowd (`iscrowd`) is of its category, below all others; `paint` draws the others by their area."""
    images, categories = dict[int, Any](), dict[int, Any]()
    for key, table in (("images", images), ("categories", categories)):
        for number, item in enumerate(_entry(data, key, list, str(path))):
            place = f"{path}, {key}[{number}]"
            if (known := _entry(item, "id", int, place)) in table:
                raise DataError(f"{place} has the id {known}, as another one has: give each its own")
            table[known] = item
    names = {known: _entry(item, "name", str, f"{path}, category {known}") for known, item in categories.items()}
    classes.update((names[known], None) for known in sorted(names))
    shapes: dict[int, list[Shape]] = defaultdict(list)
    for number, item in enumerate(_entry(data, "annotations", list, str(path))):
        place = f"{path}, annotations[{number}]"
        image, category = (_entry(item, f"{key}_id", int, place) for key in ("image", "category"))
        for key, known, table in (("image", image, images), ("category", category, names)):
            if known not in table:
                raise DataError(f"{place} has the {key}_id {known}, which the file does not list")
        if not (content := item.get("segmentation")):
            notes["annotations without segmentation, such as a box alone, left out"].append(place)
            continue
        kind = "runs" if isinstance(content, dict) else "polygons"
        if kind == "runs":
            size = [images[image].get(key) for key in ("height", "width")]
            if content.get("size") != size:
                raise DataError(f"{place}: its run lengths are of {short(content.get('size'))}: expected {short(size)}")
            content = (0, 0, *size, "F", content.get("counts"))
        shapes[image].append(Shape(place, names[category], kind, content, -bool(item.get("iscrowd"))))
    for known, item in images.items():
        name = _entry(item, "file_name", str, f"{path}, image {known}")
        place = f"{path}, image {known} ({name})"
        height, width = (_entry(item, key, int, place) for key in ("height", "width"))
        yield Picture(name, place, shapes[known], (height, width))


def _labelme(path: Path, data: Any, classes: Classes, notes: Notes) -> Iterator[Picture]:
    shapes = []
    for number, item in enumerate(_entry(data, "shapes", list, str(path))):
        place = f"{path}, shapes[{number}]"
        if kind := _drawn("labelme", _entry(item, "shape_type", str, place, "polygon"), place, notes):
            points = item.get("points")
            content = [points] if kind == "polygon" else points
            shapes.append(Shape(place, _entry(item, "label", str, place), kind, content))
    height, width = data.get("imageHeight"), data.get("imageWidth")
    name = f"{path.parent.as_posix()}/{_entry(data, 'imagePath', str, str(path))}"
    yield Picture(name, str(path), shapes, (height, width) if height and width else None)


def _supervisely(path: Path, data: Any, classes: Classes, notes: Notes) -> Iterator[Picture]:
    """DATASET/ann/IMAGE.json is of DATASET/img/IMAGE; meta.json has the classes."""
    if "objects" not in data:
        for number, item in enumerate(_entry(data, "classes", list, str(path))):
            place = f"{path}, classes[{number}]"
            classes[_entry(item, "title", str, place)] = _color(item.get("color"), place)
        return
    shapes = []
    for number, item in enumerate(_entry(data, "objects", list, str(path))):
        place = f"{path}, objects[{number}]"
        kind = _drawn("supervisely", _entry(item, "geometryType", str, place), place, notes)
        if kind == "bitmap":
            bitmap = _entry(item, "bitmap", dict, place)
            content: Any = (bitmap.get("origin"), _entry(bitmap, "data", str, place))
        elif kind:
            points = _entry(item, "points", dict, place)
            content = points.get("exterior")
            content = [content, *_entry(points, "interior", list, place, [])] if kind == "polygon" else content
        if kind:
            shapes.append(Shape(place, _entry(item, "classTitle", str, place), kind, content))
    size = _entry(data, "size", dict, str(path))
    height, width = (_entry(size, key, int, str(path)) for key in ("height", "width"))
    yield Picture(f"{path.parent.parent.as_posix()}/img/{path.stem}", str(path), shapes, (height, width))


def _cvat(path: Path, root: ElementTree.Element, classes: Classes, notes: Notes) -> Iterator[Picture]:
    if root.find("track") is not None:
        raise DataError(f"{path} holds the tracks of a video: export it as `CVAT for images 1.1`")
    for label in root.iterfind("meta//labels/label"):
        classes[label.findtext("name", "")] = _color(label.findtext("color"), str(path))
    for image in root.iterfind("image"):
        name, shapes = image.get("name", ""), []
        for number, item in enumerate(image):
            place = f"{path}, image {name!r}, {item.tag} (entry {number})"
            if not (kind := _drawn("cvat", item.tag, place, notes)):
                continue
            if item.get("rotation", "").strip("0."):
                raise DataError(f"{place} is rotated by {item.get('rotation')}: draw it as a polygon")
            points: Any = [pair.split(",") for pair in item.get("points", "").split(";")]
            content = [points] if kind == "polygon" else points
            if kind == "rectangle":
                content = [[item.get("xtl"), item.get("ytl")], [item.get("xbr"), item.get("ybr")]]
            elif kind == "runs":
                box = _whole(place, *(item.get(key) for key in ("left", "top", "height", "width")))
                content = (*box, "C", _whole(place, *item.get("rle", "").split(",")))
            shapes.append(Shape(place, item.get("label", ""), kind, content, *_whole(place, item.get("z_order", "0"))))
        place = f"{path}, image {name!r}"
        height, width = _whole(place, image.get("height"), image.get("width"))
        yield Picture(name, place, shapes, (height, width))


READERS: dict[str, Callable[[Path, Any, Classes, Notes], Iterator[Picture]]] = {
    "coco": _coco,
    "labelme": _labelme,
    "supervisely": _supervisely,
    "cvat": _cvat,
}
"""Called as reader(file, content, classes, notes): adds the classes that the file lists."""


def _entry(data: Any, key: str, kind: type, place: str, default: Any = None) -> Any:
    """The value of a key, of this kind; a DataError if it is not, or if it is missing and there is no default."""
    value = data.get(key, default) if isinstance(data, dict) else None
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    what = f"{key} is missing" if value is None else f"{key} is {short(value)}"
    raise DataError(f"{place}: {what}: expected {_TYPES[kind]}")


def _whole(place: str, *texts: str | None) -> list[int]:
    with raised_as(DataError, f"{place} has no whole number where one is expected: "):
        return [int(text or "") for text in texts]


def _drawn(form: str, kind: str, place: str, notes: Notes) -> str | None:
    """How to draw a kind of shape; None for those without area, which are noted."""
    if kind not in KINDS[form] and kind not in WITHOUT_AREA:
        raise DataError(f"{place} is of the kind {short(kind)}: expected one of {', '.join(sorted(KINDS[form]))}")
    if kind in WITHOUT_AREA:
        notes["points, tags and the like, left out"].append(f"{place} ({kind})")
    return KINDS[form].get(kind)


def _color(text: Any, place: str) -> Color | None:
    """The colour of #rrggbb; None if there is none."""
    with raised_as(DataError, f"{place}: its color is {short(text)}: expected #rrggbb; "):
        return ImageColor.getrgb(str(text))[:3] if text else None
