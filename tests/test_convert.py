"""nas-data convert: each format by hand-made files, the split, and what is refused or named."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import search_spaces.files
from cli import common, data
from nas.data import DataError, open_dataset
from nas.data.convert import converting
from nas.data.convert.config import FOR_MASKS, FOR_SHAPES, ConvertConfig, Format
from nas.data.convert.converting import assign, convert
from nas.data.convert.shapes import draw, fill, uncompressed

SIZE = (12, 16)
"""Height and width of the scene."""
ROAD, HOLE, CAR = (2, 3, 10, 9), (4, 5, 6, 7), (8, 1, 14, 5)
"""Left, top, right, bottom: the road has a hole, and the car lies over it."""


def scene() -> NDArray[np.uint8]:
    """0 background, 1 car, 2 road."""
    label = np.zeros(SIZE, np.uint8)
    label[3:9, 2:10] = 2
    label[5:7, 4:6] = 0
    label[1:5, 8:14] = 1
    return label


def corners(box: tuple[int, int, int, int]) -> list[list[int]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def runs(mask: NDArray[np.bool_], by_column: bool) -> list[int]:
    """Run lengths, the slow and obvious way."""
    counts, inside = [0], False
    for pixel in mask.ravel(order="F" if by_column else "C").tolist():
        if pixel != inside:
            counts.append(0)
            inside = pixel
        counts[-1] += 1
    return counts


def compressed(counts: list[int]) -> str:
    """COCO's text of run lengths."""
    text = ""
    for number, count in enumerate(counts):
        value, more = count - (counts[number - 2] if number > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def png(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def write_image(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng([seed, *path.stem.encode()]).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


NAMES = tuple(f"clip{number % 3}_{number}" for number in range(6))


def coco(root: Path) -> None:
    """Road as compressed run lengths, for its hole, and car as a polygon, listed first: it is smaller."""
    road = (scene() == 2) | (scene() == 1) & np.pad(np.ones((2, 2), bool), ((3, 7), (8, 6)))
    content: dict[str, list[Any]] = {
        "categories": [{"id": 7, "name": "road"}, {"id": 3, "name": "car"}],
        "images": [
            {"id": 10 + n, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
            for n, name in enumerate(NAMES)
        ],
        "annotations": [],
    }
    for n in range(len(NAMES)):
        counts: Any = runs(road, by_column=True)
        counts = compressed(counts) if n % 2 else counts
        polygon = [float(number) for point in corners(CAR) for number in point]
        content["annotations"] += [
            {"image_id": 10 + n, "category_id": 3, "segmentation": [polygon], "iscrowd": 0},
            {
                "image_id": 10 + n,
                "category_id": 7,
                "segmentation": {"size": list(SIZE), "counts": counts},
                "iscrowd": 1,
            },
        ]
    write(root / "annotations" / "instances.json", content)


def labelme(root: Path) -> None:
    """A file next to each image; the hole is painted over in background."""
    for name in NAMES:
        shapes = [
            {"label": "road", "points": corners(ROAD), "shape_type": "polygon"},
            {"label": "_background_", "points": corners(HOLE)[::2], "shape_type": "rectangle"},
            {"label": "car", "points": corners(CAR)[::2], "shape_type": "rectangle"},
        ]
        of = {"imagePath": f"..\\old\\{name}.png", "imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        write(root / "json" / f"{name}.json", {"version": "5.4.1", "flags": {}, "shapes": shapes, **of})


def cvat(root: Path) -> None:
    """The car first, but higher; the road as a mask."""
    road = (scene() == 2) | (scene() == 1) & np.pad(np.ones((2, 2), bool), ((3, 7), (8, 6)))
    left, top, right, bottom = ROAD
    rle = ", ".join(map(str, runs(road[top:bottom, left:right], by_column=False)))
    images = "".join(
        f'<image id="{n}" name="{name}.png" width="{SIZE[1]}" height="{SIZE[0]}">'
        f'<polygon label="car" z_order="1" points="{";".join(f"{x}.0,{y}.0" for x, y in corners(CAR))}"/>'
        f'<mask label="road" z_order="0" rle="{rle}" left="{left}" top="{top}" width="{right - left}" '
        f'height="{bottom - top}"></mask></image>'
        for n, name in enumerate(NAMES)
    )
    labels = "".join(
        f"<label><name>{name}</name><color>{color}</color></label>"
        for name, color in (("car", "#ff0000"), ("road", "#808080"))
    )
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    write(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{images}</annotations>')


def supervisely(root: Path) -> None:
    """A polygon with a hole, and a bitmap over it."""
    classes = [
        {"title": "car", "shape": "any", "color": "#FF0000"},
        {"title": "road", "shape": "any", "color": "#808080"},
    ]
    write(root / "meta.json", {"classes": classes, "tags": []})
    car = np.full((4, 6), 255, np.uint8)
    for name in NAMES:
        objects = [
            {
                "classTitle": "road",
                "geometryType": "polygon",
                "points": {"exterior": corners(ROAD), "interior": [corners(HOLE)]},
            },
            {
                "classTitle": "car",
                "geometryType": "bitmap",
                "bitmap": {"data": base64.b64encode(zlib.compress(png(car))).decode(), "origin": [8, 1]},
            },
        ]
        content = {"description": "", "size": {"height": SIZE[0], "width": SIZE[1]}, "objects": objects, "tags": []}
        write(root / "ds" / "ann" / f"{name}.png.json", content)
        write_image(root / "ds" / "img" / f"{name}.png")


COLORS = {"background": (0, 0, 0), "car": (255, 0, 0), "road": (128, 128, 128)}


def masks(root: Path) -> None:
    for name in NAMES:
        path = root / "masks" / f"{name}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(list(COLORS.values()), np.uint8)[scene()]).save(path)
    write(root / "classes.txt", "".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in COLORS.items()))


MAKERS: dict[str, Callable[[Path], None]] = {
    "coco": coco,
    "labelme": labelme,
    "cvat": cvat,
    "supervisely": supervisely,
    "masks": masks,
}


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A folder in each format, with six images of the scene."""
    root = tmp_path / "raw"
    if request.param != "supervisely":
        for name in NAMES:
            write_image(root / "images" / f"{name}.png")
    MAKERS[request.param](root)
    return request.param, root


def given_classes(kind: str, root: Path) -> dict[str, Any]:
    return {"colors": str(root / "classes.txt")} if kind == "masks" else {}


def run(root: Path, out: Path, **options: Any) -> Any:
    return convert(ConvertConfig(str(root), str(out), **options))


def labels(out: Path, split: str) -> dict[str, NDArray[np.uint8]]:
    """The labels of a split as class names would read them, by name."""
    dataset = open_dataset("folder", out, split)
    return {dataset.sample_name(index): dataset.read(index)[1] for index in range(len(dataset))}


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `nas-data`; failures are one line."""

    def command(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            common.run("nas-data", data.main, [*map(str, arguments)])
        text = capsys.readouterr()
        assert text.err.count("\n") == (stop.value.code != 0), text.err
        return Outcome(int(stop.value.code or 0), text.out, text.err)

    return command


def refused(root: Path, out: Path, **options: Any) -> str:
    """The message of a conversion that fails: one line, and nothing is left."""
    with pytest.raises(ValueError) as raised:
        run(root, out, **options)
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
    return str(raised.value)


# Every format


def test_every_format_is_tested() -> None:
    assert {"auto", *MAKERS} == set(get_args(Format))
    assert len(MAKERS) == 5


def test_each_format_gives_the_scene(made: tuple[str, Path], tmp_path: Path, command: Command) -> None:
    kind, root = made
    out = tmp_path / "mine"
    options = ["--colors", root / "classes.txt"] if kind == "masks" else []
    done = command("convert", root, out, *options)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{kind}: 6 images, 3 classes; split by shares, seed 0\n")
    assert f"\nnext: nas-data check folder {out}" in done.out
    train = open_dataset("folder", out, "train")
    assert [len(open_dataset("folder", out, split)) for split in ("train", "val", "test")] == [4, 1, 1]
    assert sorted(train.classes) == ["_background_" if kind == "labelme" else "background", "car", "road"]
    order = [next(n for n, name in enumerate(train.classes) if word in name) for word in ("background", "car", "road")]
    for split in ("train", "val", "test"):
        for name, label in labels(out, split).items():
            assert (label == np.array(order, np.uint8)[scene()]).all(), (split, name)
    if kind in ("cvat", "supervisely", "masks"):
        assert {tuple(color) for color in train.colors.tolist()} == set(COLORS.values())
    assert command("check", "folder", out).code == 0
    again = command("convert", root, out, *options)
    assert again.code == 2 and "is there, and is not empty" in again.err


def test_labels_show_their_colours_in_viewers(made: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = made
    run(root, tmp_path / "mine", **given_classes(kind, root))
    train = open_dataset("folder", tmp_path / "mine", "train")
    label = Image.open(tmp_path / "mine" / "labels" / "train" / f"{train.sample_name(0)}.png")
    assert (np.array(label.convert("RGB")) == train.colors[np.array(label)]).all()


def test_images_are_the_same_bytes(made: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = made
    run(root, tmp_path / "mine", **given_classes(kind, root))
    before = {path.name: path.read_bytes() for path in root.rglob("*.png") if "mask" not in str(path)}
    after = {path.name: path.read_bytes() for path in (tmp_path / "mine" / "images").rglob("*.png")}
    assert before == after


def test_options_of_other_formats_are_refused(made: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = made
    values: dict[str, Any] = {"unlabelled": "ignore", "line_width": 3, "masks": "masks", "suffix": "_m", "nearest": 9.0}
    assert set(values) == {*FOR_SHAPES, *FOR_MASKS}
    for option in FOR_SHAPES if kind == "masks" else FOR_MASKS:
        more = given_classes("masks", root) if option == "nearest" else {}
        text = refused(root, tmp_path / "mine", **{**given_classes(kind, root), **more, option: values[option]})
        assert f"--{option} is not for {kind}" in text


# Shapes


def test_a_pixel_belongs_to_the_outline_around_its_centre() -> None:
    square = np.array([[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]])
    left, top, pixels = fill([[square]], (4, 4))
    assert (left, top, pixels.tolist()) == (1, 1, [[True, True], [True, True]])
    # A triangle below the diagonal of 4x4: centres (x + .5, y + .5) with x <= y, but for those on the line itself.
    _, _, pixels = fill([[np.array([[0.0, 0.0], [4.0, 4.0], [0.0, 4.0]])]], (4, 4))
    assert pixels.sum() == 6
    halves = [np.array([[0.0, 0.0], [4.0, 4.0], [0.0, 4.0]]), np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0]])]
    both = [np.zeros((4, 4), int), np.zeros((4, 4), int)]
    for canvas, half in zip(both, halves, strict=True):
        left, top, pixels = fill([[half]], (4, 4))
        canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    assert (both[0] + both[1] == 1).all(), "neighbours neither overlap nor leave a gap"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(-24, 56), st.integers(-24, 56)), max_size=7))
def test_filling_equals_the_test_of_each_centre(quarters: list[tuple[int, int]]) -> None:
    points = [(x / 4, y / 4) for x, y in quarters]
    ring = np.array(points, dtype=float).reshape(-1, 2)
    left, top, pixels = fill([[ring]], (7, 9))
    whole = np.zeros((7, 9), bool)
    whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    for y in range(7):
        for x in range(9):
            inside = False
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
                if (y1 <= y + 0.5) != (y2 <= y + 0.5) and x1 + (y + 0.5 - y1) * ((x2 - x1) / (y2 - y1)) <= x + 0.5:
                    inside = not inside
            assert whole[y, x] == inside, (x, y)


def test_parts_are_joined_and_rings_inside_are_holes() -> None:
    def area(*parts: Any) -> int:
        return int(fill([[np.array(ring, float) for ring in rings] for rings in parts], (20, 20))[2].sum())

    one, other = corners((2, 2, 8, 8)), corners((4, 4, 10, 10))
    assert area([one], [other]) == 36 + 36 - 16
    assert area([one, corners((3, 3, 5, 5))]) == 36 - 4
    assert area([corners((-5, -5, 3, 3))]) == 9, "what lies outside the image is cut off"
    assert area([[[1, 1], [5, 5]]]) == 0
    assert area([]) == 0


@pytest.mark.parametrize(
    ("kind", "points", "area"),
    [
        ("rectangle", [[9, 8], [4, 5]], 15),
        ("rectangle", [[4, 5], [9, 5], [9, 8], [4, 8]], 15),
        ("circle", [[10, 10], [13, 14]], np.pi * 25),
        ("line", [[2, 10], [17, 10]], 16 * 4),
        ("line", [[10, 2], [10, 17]], 16 * 4),
        ("polygon", [[[1, 1], [5, 1], [5, 3], [1, 3]]], 8),
        ("polygons", [[1, 1, 5, 1, 5, 3, 1, 3], [4, 1, 6, 1, 6, 3, 4, 3]], 10),
    ],
)
def test_shapes_have_their_area(kind: str, points: Any, area: float) -> None:
    assert abs(int(draw(kind, points, (20, 20), 4)[2].sum()) - area) <= (0 if kind[0] in "rp" else 8)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[1, 2], [3]], "expected pairs of numbers"),
        ("here", "expected pairs of numbers"),
        (None, "expected pairs of numbers"),
        ([[1, float("nan")]] * 3, "expected pairs of numbers"),
        ([[1, float("inf")]] * 3, "expected pairs of numbers"),
        ([[0, 0], [1e12, 0], [0, 5]], "lies far outside the image of 20x20"),
    ],
)
def test_points_that_make_no_sense_are_refused(points: Any, words: str) -> None:
    for kind in ("polygon", "line", "circle"):
        with pytest.raises(ValueError, match=words):
            draw(kind, [points] if kind == "polygon" else points, (20, 20))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=7))
def test_run_lengths_come_back_as_the_mask(rows: list[list[bool]]) -> None:
    mask = np.array(rows)
    for by_column in (False, True):
        counts = runs(mask, by_column)
        left, top, pixels = draw("runs", (0, 0, *mask.shape, "F" if by_column else "C", counts), mask.shape)
        whole = np.zeros_like(mask)
        whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        assert (whole == mask).all()
        assert uncompressed(compressed(counts)) == counts


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 2**31), max_size=9))
def test_compressed_run_lengths_come_back(counts: list[int]) -> None:
    assert uncompressed(compressed(counts)) == counts


def test_the_text_that_pycocotools_writes() -> None:
    # A 4x4 square at row 2, column 3 of 9x9, by columns: 29 outside, then 4 inside and 5 outside in turn.
    counts = [29, 4, 5, 4, 5, 4, 5, 4, 21]
    assert uncompressed("m04500000`0") == counts


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=30))
def test_any_text_is_run_lengths_or_refused(text: str) -> None:
    try:
        draw("runs", (0, 0, 5, 5, "F", text), (5, 5))
    except ValueError as error:
        assert "run lengths" in str(error)


def test_run_lengths_cannot_ask_for_memory() -> None:
    with pytest.raises(ValueError, match="add up to"):
        draw("runs", (0, 0, 10, 10, "C", [10**18, 10**18]), (10, 10))
    with pytest.raises(ValueError, match="whole numbers from 0"):
        draw("runs", (0, 0, 10, 10, "C", [-5, 105]), (10, 10))
    with pytest.raises(ValueError, match="not the text"):
        uncompressed("o" * 100_000)


# COCO


def one_image(root: Path, **changes: Any) -> Path:
    """COCO with one image and one square of 20x20."""
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}],
    }
    write_image(root / "a.png", (48, 64))
    for key, change in changes.items():
        content[key] = change(content[key])
    write(root / "instances.json", content)
    return root


def annotation(**changes: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda found: [{**found[0], **changes}]


def test_a_single_image_goes_into_train(tmp_path: Path) -> None:
    converted = run(one_image(tmp_path / "raw"), tmp_path / "mine")
    label = labels(tmp_path / "mine", "train")["a"]
    assert (int((label == 1).sum()), label[5:25, 5:25].min()) == (400, 1)
    assert converted.images == {"train": 1}
    assert converted.pixels["train"].tolist() == [48 * 64 - 400, 400, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"annotations": annotation(category_id=8)},
            "annotations[0] has the category_id 8, which the file does not list",
        ),
        ({"annotations": annotation(image_id=2)}, "annotations[0] has the image_id 2"),
        ({"annotations": annotation(image_id="1")}, "annotations[0]: image_id is '1': expected a whole number"),
        ({"annotations": annotation(segmentation=[[1, 2, 3]])}, "annotations[0]: its points are [1, 2, 3]"),
        ({"annotations": annotation(segmentation="m0")}, "annotations[0]: its points are 'm'"),
        ({"annotations": annotation(segmentation=[[1, 2, "x", 4]])}, "annotations[0]: its points are"),
        (
            {"annotations": annotation(segmentation={"size": [64, 48], "counts": "0"})},
            "its run lengths are of [64, 48]: expected [48, 64]",
        ),
        ({"annotations": annotation(segmentation={"size": [48, 64], "counts": None})}, "its run lengths are null"),
        ({"annotations": annotation(segmentation={"size": [48, 64], "counts": [5]})}, "add up to 5: expected 3072"),
        ({"annotations": lambda _: 5}, "annotations is 5: expected a list"),
        ({"categories": lambda found: [*found, found[0]]}, "categories[1] has the id 7, as another one has"),
        ({"categories": lambda found: [{"id": 7}]}, "category 7: name is missing: expected a text"),
        ({"images": lambda found: [{**found[0], "file_name": "b.png"}]}, "b.png is not in"),
        ({"images": lambda found: [*found, {**found[0], "id": 2}]}, "a.png has a label already"),
        ({"images": lambda found: [{**found[0], "height": 47}]}, "the label is 64x47, but its image"),
        ({"images": lambda found: [{**found[0], "height": 10**9}]}, "the label is 64x1000000000"),
    ],
)
def test_what_coco_cannot_mean_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    root = one_image(tmp_path / "raw", **changes)
    assert words in refused(root, tmp_path / "mine", format="coco")


def test_boxes_crowds_and_shapes_without_pixels_are_named(tmp_path: Path) -> None:
    def change(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        square = found[0]
        return [
            square,
            {**square, "segmentation": [], "bbox": [1, 1, 2, 2]},
            {**square, "iscrowd": 1},
            {**square, "segmentation": [[1, 1, 1.2, 1, 1.2, 1.2]]},
        ]

    notes = run(one_image(tmp_path / "raw", annotations=change), tmp_path / "mine").notes
    found = {note: [name.rpartition(", ")[2] for name in names] for note, names in notes.items() if names}
    assert found == {
        "annotations without segmentation, such as a box alone, left out": ["annotations[1]"],
        "shapes that cover no pixel": ["annotations[3]"],
    }


def test_small_instances_cover_large_ones(tmp_path: Path) -> None:
    def change(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        small = {**found[0], "segmentation": [[10, 10, 12, 10, 12, 12, 10, 12]], "category_id": 8}
        return [small, *found]

    root = one_image(
        tmp_path / "raw", annotations=change, categories=lambda found: [*found, {"id": 8, "name": "small"}]
    )
    run(root, tmp_path / "mine")
    assert (labels(tmp_path / "mine", "train")["a"] == 2).sum() == 4


# EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_fit_the_turned_image(tmp_path: Path, orientation: int) -> None:
    root = tmp_path / "raw"
    stored = SIZE if orientation < 5 else SIZE[::-1]
    write_image(root / "a.jpg", stored, orientation)
    shapes = [{"label": "car", "points": corners(CAR)}]
    write(root / "a.json", {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": SIZE[0], "imageWidth": SIZE[1]})
    run(root, tmp_path / "mine")
    label = np.array(Image.open(tmp_path / "mine/labels/train/a.png"))
    assert label.shape == SIZE
    assert label[1:5, 8:14].all() and label.sum() == 24


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_on_pixels_as_stored_are_turned(tmp_path: Path, orientation: int) -> None:
    root = tmp_path / "raw"
    image = write_image(root / "a.jpg", SIZE, orientation)
    write(root / "a.json", {"shapes": [{"label": "car", "points": corners(CAR)}], "imagePath": "a.jpg"})
    if orientation >= 5:
        write(
            root / "a.json",
            {
                "shapes": [{"label": "car", "points": corners(CAR)}],
                "imagePath": "a.jpg",
                "imageHeight": SIZE[0],
                "imageWidth": SIZE[1],
            },
        )
        text = refused(root, tmp_path / "mine")
        assert f"its orientation is {orientation}: give --exif ignore" in text and "12x16" in text
    run(root, tmp_path / "mine", exif="ignore")
    label = np.array(Image.open(tmp_path / "mine/labels/train/a.png"))
    stored = np.zeros(SIZE, np.uint8)
    stored[1:5, 8:14] = 1
    exif = Image.open(image).getexif()
    assert exif[0x0112] == orientation
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }
    assert (label == turned[orientation]).all()


# labelme, CVAT, Supervisely


def labelled(root: Path, *shapes: dict[str, Any], **changes: Any) -> Path:
    """labelme with one image of 12x16."""
    write_image(root / "a.png")
    write(root / "a.json", {"shapes": list(shapes), "imagePath": "a.png", **changes})
    return root


def test_labelme_knows_pixels_to_ignore_and_names_points(tmp_path: Path) -> None:
    root = labelled(
        tmp_path / "raw",
        {"label": "__ignore__", "points": corners((0, 0, 16, 1))},
        {"label": "car", "points": [[2, 1], [4, 3]], "shape_type": "rectangle"},
        {"label": "nose", "points": [[3, 3]], "shape_type": "point"},
    )
    converted = run(root, tmp_path / "mine")
    assert converted.classes == ("background", "car")
    assert converted.pixels["train"].tolist() == [12 * 16 - 16 - 4, 4, 16]
    assert converted.notes["points, tags and the like, left out"] == [f"{root}/a.json, shapes[2] (point)"]
    ignored = run(root, tmp_path / "two", unlabelled="ignore", colors=str(write(tmp_path / "c.txt", "car\ntree\n")))
    assert ignored.pixels["train"].tolist() == [4, 0, 12 * 16 - 4]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (
            {"label": "a", "shape_type": "cloud", "points": []},
            "a.json, shapes[0] is of the kind 'cloud': expected one of",
        ),
        ({"label": "a", "shape_type": "mask", "points": []}, "a.json, shapes[0] is of the kind 'mask'"),
        ({"points": []}, "a.json, shapes[0]: label is missing: expected a text"),
        ({"label": "a"}, "a.json, shapes[0]: its points are null"),
        ({"label": "a", "shape_type": "circle", "points": [[1, 1]]}, "it has 1 points: expected 2 for a circle"),
    ],
)
def test_what_labelme_cannot_mean_is_one_line(tmp_path: Path, shape: dict[str, Any], words: str) -> None:
    assert words in refused(labelled(tmp_path / "raw", shape), tmp_path / "mine")


def test_classes_can_be_given_in_order(tmp_path: Path) -> None:
    root = labelled(tmp_path / "raw", {"label": "car", "points": corners(CAR)})
    file = write(tmp_path / "classes.txt", "road\nbackground\ncar 1 2 3\n")
    converted = run(root, tmp_path / "mine", colors=str(file))
    assert converted.classes == ("road", "background", "car")
    assert converted.pixels["train"].tolist() == [0, 12 * 16 - 24, 24, 0]
    write(file, "road\nbackground\n")
    assert "a.json, shapes[0]: there is no class 'car': add it to" in refused(root, tmp_path / "two", colors=str(file))
    write(file, "road\ncar\n")
    assert "has no class background: add it, or give --unlabelled ignore" in refused(
        root, tmp_path / "two", colors=str(file)
    )


def cvat_file(root: Path, shapes: str, head: str = "") -> Path:
    write_image(root / "a.png", (20, 20))
    content = f'<annotations><image name="a.png" width="20" height="20">{shapes}</image></annotations>'
    write(root / "a.xml", f'<?xml version="1.0"?>{head}{content}')
    return root


@pytest.mark.parametrize(
    ("shape", "area", "slack"),
    [
        ('<box label="a" xtl="2" ytl="3" xbr="6.0" ybr="9"/>', 24, 0),
        ('<box label="a" xtl="2" ytl="3" xbr="6.0" ybr="9" rotation="0.0"/>', 24, 0),
        ('<polygon label="a" points="2,3;6.0,3;6,9;2,9"/>', 24, 0),
        ('<polyline label="a" points="2,10;17,10"/>', 160, 24),
        ('<points label="a" points="2,10;17,10"/>', 0, 0),
    ],
)
def test_shapes_of_cvat(tmp_path: Path, shape: str, area: float, slack: float) -> None:
    box = '<box label="b" xtl="0" ytl="0" xbr="1" ybr="1"/>'
    converted = run(cvat_file(tmp_path / "raw", shape + box), tmp_path / "mine")
    number = converted.classes.index("a") if "a" in converted.classes else 1
    pixels = int(converted.pixels["train"][number]) - ("a" not in converted.classes)
    assert abs(pixels - area) <= slack


LAUGHS = f"""<!DOCTYPE l [<!ENTITY a "{"x" * 999}">{
    "".join(f'<!ENTITY {after} "{f"&{name};" * 20}">' for name, after in zip("abcdefghi", "bcdefghij", strict=True))
}]>"""
"""Entities that stand for more text than fits into any memory."""


@pytest.mark.parametrize(
    ("shapes", "head", "words"),
    [
        ('<cloud label="a"/>', "", "image 'a.png', cloud (entry 0) is of the kind 'cloud'"),
        ('<box label="a" xtl="2" ytl="x" xbr="6" ybr="9"/>', "", "box (entry 0): its points are [['2', 'x']"),
        ('<box label="a" xtl="nan" ytl="1" xbr="6" ybr="9"/>', "", "expected pairs of numbers"),
        ('<box label="a" xtl="2" ytl="3" xbr="6" ybr="9" rotation="30.5"/>', "", "is rotated by 30.5: draw it"),
        ('<ellipse label="a" cx="10" cy="10" rx="8" ry="4"/>', "", "ellipse (entry 0) is of the kind 'ellipse'"),
        ('<box label="a" xtl="2" ytl="3" xbr="6" ybr="9" z_order="x"/>', "", "box (entry 0) has no whole number where"),
        ('<polygon label="a" points="1,2;3"/>', "", "expected pairs of numbers"),
        (
            '<mask label="a" left="0" top="0" width="3" height="1" rle="1, x"/>',
            "",
            "invalid literal for int() with base 10: ' x'",
        ),
        ('<mask label="a" left="0" top="0" width="30" height="1" rle="30"/>', "", "are not all in the image"),
        ('<mask label="a" left="0" top="0" width="3" height="1" rle="1, 1"/>', "", "add up to 2: expected 3 pixels"),
        ("<box", "", "cannot be read as XML"),
        ("&j;", LAUGHS, "cannot be read as XML"),
        ("&a;", '<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "cannot be read as XML"),
    ],
)
def test_what_cvat_cannot_mean_is_one_line(tmp_path: Path, shapes: str, head: str, words: str) -> None:
    assert words in refused(cvat_file(tmp_path / "raw", shapes, head), tmp_path / "mine", format="cvat")


def test_a_video_of_cvat_says_what_to_export(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "a.xml", "<annotations><track id='0'/></annotations>")
    assert "export it as `CVAT for images 1.1`" in refused(tmp_path / "raw", tmp_path / "mine")


def test_a_bitmap_cannot_ask_for_memory(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    supervisely(root)
    bomb = base64.b64encode(zlib.compress(bytes(2**27), 1)).decode()
    path = root / "ds" / "ann" / f"{NAMES[0]}.png.json"
    content = json.loads(path.read_text())
    content["objects"][1]["bitmap"]["data"] = bomb
    write(path, content)
    assert "objects[1]: its bitmap cannot be read" in refused(root, tmp_path / "mine")


# Masks


def write_masks(root: Path, *pictures: Any, end: str = ".png", **options: Any) -> Path:
    for number, pixels in enumerate(pictures):
        write_image(root / "images" / f"{number}.jpg", pixels.shape[:2])
        path = root / "masks" / f"{number}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
    return root


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path, command: Command) -> None:
    root = write_masks(tmp_path / "raw", *[np.uint8([[0, 255], [255, 255]])] * 3)
    done = command("convert", root, tmp_path / "mine")
    assert "masks of 0 and 255, taken for two classes: 1 (" in done.out
    assert labels(tmp_path / "mine", "val").popitem()[1].tolist() == [[0, 1], [1, 1]]
    assert open_dataset("folder", tmp_path / "mine", "val").classes == ("background", "foreground")
    names = write(tmp_path / "names.txt", "street\ncar\n")
    assert run(root, tmp_path / "two", colors=str(names)).classes == ("street", "car")


def test_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "raw", np.uint8([[0, 1], [2, 255]]))
    converted = run(root, tmp_path / "mine")
    assert converted.classes == ("class 0", "class 1", "class 2")
    assert labels(tmp_path / "mine", "train")["0"].tolist() == [[0, 1], [2, 255]]
    names = write(tmp_path / "names.txt", "a\nb\nc\nd\n")
    assert run(root, tmp_path / "two", colors=str(names)).pixels["train"].tolist() == [1, 1, 1, 0, 1]


@pytest.mark.parametrize("values", [[[0, 128], [255, 255]], [[1, 2], [3, 3]], [[0, 254], [0, 255]]])
def test_values_that_are_no_ids_are_named(tmp_path: Path, values: Any) -> None:
    text = refused(write_masks(tmp_path / "raw", np.uint8(values)), tmp_path / "mine")
    assert f"the masks hold {', '.join(map(str, sorted({*values[0], *values[1]})))}: expected 0 to" in text
    assert text.endswith("--colors FILE")


def test_colours_without_a_table_are_named(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "raw", np.uint8([[[9, 8, 7], [9, 8, 7], [1, 2, 3]]]))
    assert "0.png holds colours: 9,8,7 (2 pixels), 1,2,3 (1 pixels). Give a file" in refused(root, tmp_path / "mine")


@pytest.mark.parametrize("table", ["__ignore__ 0 0 0\na 200 0 0\nb 0 200 0\n", "a #c80000\nb #00c800\n"])
def test_colours_near_those_of_the_table_are_named_or_taken(tmp_path: Path, table: str) -> None:
    picture = np.uint8([[[200, 0, 0], [198, 3, 1], [0, 200, 0], [0, 0, 0]]])
    root, file = write_masks(tmp_path / "raw", picture), write(tmp_path / "table.txt", table)
    text = refused(root, tmp_path / "mine", colors=str(file))
    ignored = "__ignore__" in table
    assert f"{1 if ignored else 2} pixels, such as in {root}/masks/0.png, have" in text and "198,3,1 (1 pixels)" in text
    assert ("0,0,0" in text.partition("List them")[0]) != ignored
    if ignored:
        converted = run(root, tmp_path / "mine", colors=str(file), nearest=4)
        assert labels(tmp_path / "mine", "train")["0"].tolist() == [[0, 0, 1, 255]]
        assert converted.notes["colours near listed ones, taken for those, in 1 pixels"] == ["198,3,1 (1 pixels)"]
        assert "198,3,1" in refused(root, tmp_path / "two", colors=str(file), nearest=3)


def test_masks_damaged_by_jpeg_need_nearest(tmp_path: Path) -> None:
    picture = np.kron(np.uint8([[0, 255]]), np.ones((16, 13), np.uint8))
    root = write_masks(tmp_path / "raw", picture, end=".jpg", quality=50)
    file = write(tmp_path / "table.txt", "a 0 0 0\nb 255 255 255\n")
    assert "have colours that" in refused(root, tmp_path / "mine", colors=str(file))
    assert "the masks hold 0, 1" in refused(root, tmp_path / "mine")
    run(root, tmp_path / "mine", colors=str(file), nearest=200)
    assert (labels(tmp_path / "mine", "train")["0"] == picture // 255).all()


@pytest.mark.parametrize(
    ("image", "mask", "options"),
    [
        ("a.jpg", "a_mask.png", {}),
        ("a.jpg", "a-gt.png", {"suffix": "-gt"}),
        ("images/a.jpg", "masks/a.png", {}),
        ("images/a.jpg", "masks/a_mask.png", {}),
        ("train/images/a.jpg", "train/labels/a.png", {}),
        ("JPEGImages/v1/a.jpg", "SegmentationClass/v1/a.png", {}),
        ("photos/a.jpg", "truth/a.png", {"images": "photos", "masks": "truth"}),
        ("photos/a.jpg", "truth/a_L.png", {"images": "photos", "masks": "truth", "suffix": "_L"}),
    ],
)
def test_masks_are_found(tmp_path: Path, image: str, mask: str, options: dict[str, Any]) -> None:
    root = tmp_path / "raw"
    write_image(root / image, (2, 2))
    write_image(root / image.replace("a.jpg", "b.jpg"), (2, 2))
    write(root / "notes.txt", "")
    (root / mask).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8([[0, 1], [1, 1]])).save(root / mask)
    converted = run(root, tmp_path / "mine", **options)
    assert converted.pixels["train"].tolist() == [1, 3, 0]
    assert [Path(name).name for name in converted.notes["images without a label, left out"]] == ["b.jpg"]
    inside = {path.relative_to(tmp_path / "mine").as_posix() for path in (tmp_path / "mine").rglob("*.*")}
    assert inside == {"classes.json", "images/train/a.jpg", "labels/train/a.png"}


def test_images_of_any_bands_are_converted(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    root = write_masks(tmp_path / "raw", np.uint8([[0, 255]]))
    (root / "images" / "0.jpg").unlink()
    bands = np.arange(8, dtype=np.uint16).reshape(1, 2, 4)
    tifffile.imwrite(root / "images" / "0.tif", bands, photometric="minisblack", planarconfig="contig")
    assert run(root, tmp_path / "mine").pixels["train"].tolist() == [1, 1, 0]
    assert (tmp_path / "mine/images/train/0.tif").read_bytes() == (root / "images/0.tif").read_bytes()


def test_a_file_of_no_known_format_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "a.png")
    file = write(tmp_path / "raw" / "a.json", {"version": 1})
    assert "holds no annotations of a known format" in refused(file, tmp_path / "mine")


def test_masks_that_fit_nothing_say_what_to_give(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "raw", np.uint8([[0, 1]]), end="_x.png")
    assert "1 image and 1 mask at" in (text := refused(root, tmp_path / "mine"))
    assert "--suffix" in text


# Splits


def options(**values: Any) -> ConvertConfig:
    return ConvertConfig("raw", "mine", **values)


def test_shares_are_those_that_were_asked_for() -> None:
    names = [f"{number}.png" for number in range(100)]
    splits, how = assign(names, options(val=0.2, test=0.1))
    found = [list(splits.values()).count(split) for split in ("train", "val", "test")]
    assert (found, how) == ([70, 20, 10], "by shares, seed 0")
    assert assign(names[::-1], options(val=0.2, test=0.1))[0] == splits, "the order of files does not matter"
    assert assign(names, options(val=0.2, test=0.1, seed=1))[0] != splits
    assert set(assign(names, options(val=0, test=0))[0].values()) == {"train"}


@pytest.mark.parametrize(("count", "expected"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (12, [8, 2, 2])])
def test_few_images_fill_train_and_val_first(count: int, expected: list[int]) -> None:
    splits = list(assign([f"{number}.png" for number in range(count)], options())[0].values())
    assert [splits.count(split) for split in ("train", "val", "test")] == expected


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 9))
def test_groups_stay_together(sizes: list[int], seed: int) -> None:
    names = [f"clip{group}_{number}.png" for group, size in enumerate(sizes) for number in range(size)]
    splits, how = assign(names, options(group=r"clip(\d+)_", seed=seed))
    assert set(splits) == set(names)
    assert len({(name.partition("_")[0], split) for name, split in splits.items()}) == len(sizes)
    assert "train" in splits.values()
    assert len(sizes) < 2 or "val" in splits.values()
    assert how == f"by shares of {len(sizes)} groups, seed {seed}"


def test_folders_are_groups_or_splits() -> None:
    names = [f"v{number % 4}/{number}.png" for number in range(20)]
    splits, _ = assign(names, options(group="(.*)/"))
    assert len({(name.partition("/")[0], split) for name, split in splits.items()}) == 4
    named = {"train2017/a.png": "train", "valid/b.png": "val", "Test/c.png": "test", "training/x/d.png": "train"}
    assert assign(list(named), options()) == (named, "as the folders are named")
    assert set(assign(list(named), options(val=0.0, test=0.0))[0].values()) == {"train"}
    assert assign(list(named), options(group="(.*)/"))[1] == "by shares of 4 groups, seed 0"
    with pytest.raises(DataError, match=r"--group 'clip' matches nothing in 'v0/0\.png'"):
        assign(names, options(group="clip"))


def test_lists_name_the_images(tmp_path: Path) -> None:
    names = ["v1/a.png", "v1/b.png", "v2/b.png", "v2/c.png"]
    lists = tmp_path / "lists"
    write(lists / "train.txt", "a\nv2/b\n\n")
    write(lists / "val.txt", "images/v1/b.png\r\n")
    found, how = assign(names, options(lists=str(lists)))
    assert found == {"v1/a.png": "train", "v2/b.png": "train", "v1/b.png": "val"}
    assert how == f"as the lists in {lists} say"
    for text, words in (
        ("b", "val.txt, line 1: the image 'b' may be v1/b.png or v2/b.png"),
        ("\nd", "val.txt, line 2: 'd' is no image with a label"),
        ("a.png", "val.txt, line 1: 'a.png' is named before, for train"),
    ):
        write(lists / "val.txt", text)
        with pytest.raises(DataError, match=words):
            assign(names, options(lists=str(lists)))
    with pytest.raises(DataError, match="there is no folder nowhere, in raw or here"):
        assign(names, options(lists="nowhere"))


def test_images_in_no_list_are_named(made: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = made
    write(root / "lists" / "train.txt", "\n".join(NAMES[:3]))
    write(root / "lists" / "val.txt", NAMES[4])
    converted = run(root, tmp_path / "mine", lists="lists", **given_classes(kind, root))
    assert dict(converted.images) == {"train": 3, "val": 1}
    left = converted.notes["images in no list, left out"]
    assert [Path(name).stem for name in left] == [NAMES[3], NAMES[5]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"val": 0.6, "test": 0.5}, "give shares with a sum below 1"),
        ({"val": -0.1}, "val is -0.1: give a number from 0 to below 1"),
        ({"lists": "lists", "val": 0.1}, "leave --val out"),
        ({"lists": "lists", "seed": 0}, "leave --seed out"),
        ({"group": "("}, "which is no regular expression"),
        ({"nearest": 3.0}, "give --colors FILE, too"),
        ({"line_width": 0}, "line_width is 0: give a whole number from 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        options(**values)


# Files


def test_images_without_label_and_labels_without_image_are_named(tmp_path: Path) -> None:
    root = labelled(tmp_path / "raw", {"label": "car", "points": corners(CAR)})
    write_image(root / "b.png")
    write(root / "c.json", {"shapes": [], "imagePath": "c.png"})
    write(root / "other.json", [])
    notes = run(root, tmp_path / "mine").notes
    assert {note: [Path(name).name for name in names] for note, names in notes.items() if names} == {
        f"labelled images that are not in {root}, left out": ["c.png"],
        "images without a label, left out": ["b.png"],
        "files of another format, left out": ["other.json"],
    }


def test_an_image_that_may_be_two_is_refused(tmp_path: Path) -> None:
    root = labelled(tmp_path / "raw" / "x", imagePath="../y/b.png").parent
    write_image(root / "1" / "b.png")
    write_image(root / "2" / "b.png")
    assert "may be" in refused(root, tmp_path / "mine")
    write_image(root / "y" / "b.png")
    write(root / "x" / "a.json", {"shapes": [{"label": "car", "points": corners(CAR)}], "imagePath": "../y/b.png"})
    run(root, tmp_path / "mine")
    assert (tmp_path / "mine/images/train/b.png").read_bytes() == (root / "y/b.png").read_bytes()


def test_names_that_viewers_take_for_one_are_kept_apart(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for name in ("a.png", "a.jpg"):
        write_image(root / name)
        write(root / f"{name}.json", {"shapes": [{"label": "car", "points": corners(CAR)}], "imagePath": name})
    assert "differ in case or extension only: rename one" in refused(root, tmp_path / "mine", val=0.0, test=0.0)


@pytest.mark.parametrize("content", ["{", '{"shapes": [], "shapes": []}', "[" * 100_000, "\ud800"])
def test_files_that_are_no_json_are_one_line(tmp_path: Path, content: str) -> None:
    root = labelled(tmp_path / "raw")
    (root / "a.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert "a.json cannot be read as JSON" in refused(root, tmp_path / "mine")


def test_a_broken_image_is_one_line(tmp_path: Path) -> None:
    root = labelled(tmp_path / "raw", {"label": "car", "points": corners(CAR)})
    (root / "a.png").write_bytes(b"no image")
    assert "a.png cannot be read" in refused(root, tmp_path / "mine")


def test_out_is_not_read_as_a_part_of_source(tmp_path: Path) -> None:
    root = labelled(tmp_path / "raw", {"label": "car", "points": corners(CAR)})
    assert "lies in" in refused(root, root / "mine")
    with pytest.raises(DataError, match="does not exist"):
        run(tmp_path / "none", tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    run(root, tmp_path / "empty")
    assert (tmp_path / "empty" / "classes.json").exists()


def test_a_killed_conversion_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for name in NAMES:
        write_image(root / "images" / f"{name}.png")
    coco(root)
    code = (
        "import os, signal, sys\nfrom nas.data.convert import converting\nlabel, done = converting._label, []\n"
        "def slow(*arguments):\n    done.append(1)\n    if len(done) == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return label(*arguments)\n"
        "converting._label = slow\nconverting.convert(converting.ConvertConfig(*sys.argv[1:]))\n"
    )
    paths = os.pathsep.join(sys.path)
    killed = subprocess.run(
        [sys.executable, "-c", code, root, tmp_path / "mine"], env={**os.environ, "PYTHONPATH": paths}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mine").exists()
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".mine.")]
    assert len(left) == 1 and list(left[0].rglob("*.png"))
    search_spaces.files._CLEANED.clear()
    run(root, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "raw"]
    assert not list((tmp_path / "mine").rglob(".*"))


def test_what_another_conversion_has_written_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = labelled(tmp_path / "raw", {"label": "car", "points": corners(CAR)})
    label = converting._label

    def slow(*arguments: Any) -> Any:
        monkeypatch.setattr(converting, "_label", label)
        run(root, tmp_path / "mine", val=0.0)
        return label(*arguments)

    monkeypatch.setattr(converting, "_label", slow)
    with pytest.raises(OSError, match="not empty"):
        run(root, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "raw"]
    assert len(labels(tmp_path / "mine", "train")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labelme", "coco"])
def test_annotations_become_an_evaluated_network(tmp_path: Path, kind: str) -> None:
    root, rng = tmp_path / "raw", np.random.default_rng(0)
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "thing"}]}
    for number in range(24):
        x, y = (int(edge) for edge in rng.integers(0, (44, 28)))
        pixels = np.full((48, 64, 3), 60, np.uint8)
        pixels[y : y + 20, x : x + 20] = (200, 40, 40)
        polygon = corners((x, y, x + 20, y + 20))
        name = f"{number:02}.png"
        root.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / name)
        if kind == "labelme":
            write(root / f"{number:02}.json", {"shapes": [{"label": "thing", "points": polygon}], "imagePath": name})
        flat = [coordinate for point in polygon for coordinate in point]
        content["images"].append({"id": number, "file_name": name, "height": 48, "width": 64})
        content["annotations"].append({"image_id": number, "category_id": 7, "segmentation": [flat]})
    if kind == "coco":
        write(root / "instances.json", content)
    where = ["--data", "folder", "--data-root", "mine", "--loader.augment.crop=[33,33]", "--loader.batch-size=2"]
    for line in (
        ["data", "convert", "raw", "mine"],
        ["data", "check", "folder", "mine"],
        ["search", "--space", "autodeeplab-tiny", *where, "--epochs=1", "--architecture.start-epoch=0", "--out=found"],
        ["retrain", "found/genotype.json", *where, "--epochs=3", "--out=trained"],
        ["evaluate", "trained", "--split", "test", "--json"],
    ):
        command = [sys.executable, "-m", f"cli.{line[0]}", *line[1:]]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert 0 <= json.loads(done.stdout)["miou"] <= 1
    truth = np.array(Image.open(next((tmp_path / "mine/labels/train").glob("*.png"))))
    image = np.array(Image.open(next((tmp_path / "mine/images/train").glob("*.png"))))
    assert ((image[..., 0] == 200) == (truth == 1)).all()
