"""The data set `folder`: which files are read, what class files of other tools mean, what label values stand for."""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import trees
from nas.config import LoaderConfig
from nas.data import IGNORE, DataError, open_dataset
from nas.data.base import SegmentationDataset
from nas.data.readers.classes import read_class_file
from nas.data.readers.folder import class_ids
from nas.data.readers.listing import list_files, not_read
from nas.data.readers.reading import IMAGE_SUFFIXES, LABEL_SUFFIXES, read_image
from trees import message, write_pair


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return trees.plain(tmp_path / "plain")


def names(dataset: SegmentationDataset) -> list[str]:
    return [dataset.sample_name(index) for index in range(len(dataset))]


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "gif", "jfif", "JPG", "ppm", "webp", "bmp", "jp2", "tga", "pgm"])
def test_images_are_read_in_every_format_of_pillow(plain: Path, suffix: str) -> None:
    image = Image.fromarray(np.full((6, 8, 3), 90, dtype=np.uint8))
    image.save(plain / f"images/val/z.{suffix}", format=Image.registered_extensions()[f".{suffix.lower()}"])
    shutil.copy(plain / "labels/val/d.png", plain / "labels/val/z.png")
    dataset = open_dataset("folder", plain, "val")
    assert names(dataset) == ["d", "e", "z"] and not dataset.unread
    assert dataset.read(2)[0].shape == (6, 8, 3)


@pytest.mark.parametrize("suffix", sorted(LABEL_SUFFIXES))
def test_labels_are_read_in_formats_that_keep_every_id(plain: Path, suffix: str) -> None:
    ids = np.tile(np.array([0, 1], dtype=np.uint8), (6, 4))
    (plain / "labels/val/e.png").unlink()
    Image.fromarray(ids).save(plain / f"labels/val/e{suffix}")
    np.testing.assert_array_equal(open_dataset("folder", plain, "val").read(1)[1], ids)


def test_suffixes_are_those_that_this_pillow_reads() -> None:
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert {".png", ".jpg", ".tif", ".webp", ".jp2"} <= IMAGE_SUFFIXES <= known | {".mpo"}
    assert not IMAGE_SUFFIXES & {".pdf", ".eps", ".ps", ".mpg", ".h5"} and LABEL_SUFFIXES < IMAGE_SUFFIXES


def test_folders_in_a_split_are_read(plain: Path) -> None:
    for name in ("night/rain/a", "night/b"):
        write_pair(plain / f"images/train/{name}.jpg", plain / f"labels/train/{name}.png", 1)
    dataset = open_dataset("folder", plain, "train")
    assert names(dataset) == ["a", "b", "c", "night/b", "night/rain/a"]
    assert dataset.where(4).endswith("images/train/night/rain/a.jpg")
    (plain / "labels/train/night/b.png").unlink()
    assert f"b.jpg has no label; expected {plain / 'labels/train/night/b.png'}" in message("folder", plain)


def test_linked_folders_are_followed_and_loops_end(plain: Path, tmp_path: Path) -> None:
    for kind, suffix in (("images", "jpg"), ("labels", "png")):
        elsewhere = tmp_path / "elsewhere" / kind
        elsewhere.mkdir(parents=True)
        shutil.copy(plain / f"{kind}/val/d.{suffix}", elsewhere / f"x.{suffix}")
        (plain / kind / "train" / "linked").symlink_to(elsewhere)
        (elsewhere / "back").symlink_to(plain / kind / "train")
    dataset = open_dataset("folder", plain, "train")
    assert names(dataset) == ["a", "b", "c", "linked/x"]
    assert [path.name for path in dataset.unread] == ["back", "back"]
    assert not_read(dataset.unread, plain) == (
        "2 folders were not read: images/train/linked/back/, labels/train/linked/back/"
    )


def test_a_folder_is_read_by_its_own_path_not_by_a_link_to_it(tmp_path: Path) -> None:
    trees.write_image(tmp_path / "z" / "x.png")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert list_files(tmp_path, IMAGE_SUFFIXES) == ([tmp_path / "z" / "x.png"], [tmp_path / "a"])


def test_names_that_unicode_writes_in_two_ways_match(plain: Path) -> None:
    name = "forêt"
    one, other = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    write_pair(plain / f"images/val/{one}.jpg", plain / f"labels/val/{other}.png", 1)
    assert names(open_dataset("folder", plain, "val")) == ["d", "e", one]
    trees.write_image(plain / f"images/val/{other}.png")
    assert "share one name" in message("folder", plain, "val")


def test_names_that_differ_in_case_are_told(plain: Path) -> None:
    (plain / "labels/train/a.png").rename(plain / "labels/train/A.png")
    said = message("folder", plain)
    assert f"a.jpg has no label; {plain / 'labels/train/A.png'} differs in case only: rename one" in said


def test_what_is_not_read_is_counted_and_named(plain: Path) -> None:
    for name in ("images/train/notes.txt", "images/train/.hidden.txt", "labels/train/a.json", "images/loose.jpg"):
        (plain / name).write_text("")
    (plain / "images/train/Thumbs.db").write_text("")
    dataset = open_dataset("folder", plain, "train")
    assert not_read(dataset.unread, plain) == (
        "3 files were not read: images/train/notes.txt, labels/train/a.json, images/loose.jpg"
    )
    assert not_read([]) == ""
    assert not_read([Path(f"{n}.txt") for n in range(9)]).startswith("9 files were not read: 0.txt, 1.txt, ")
    assert not_read([plain, plain / "classes.txt"], plain.parent) == (
        "2 files and folders were not read: plain/, plain/classes.txt"
    )


def test_a_label_in_jpeg_is_no_label(plain: Path) -> None:
    (plain / "labels/train/a.png").rename(plain / "labels/train/a.jpg")
    assert "a.jpg has no label; expected" in message("folder", plain)


# --- class files --------------------------------------------------------------------------------------------

THREE = ("background", "lane 1", "forêt")


@pytest.mark.parametrize(
    "text",
    [
        "background\nlane 1\nforêt\n",
        "\n# a remark\nbackground\n\nlane 1\nforêt",
        "__ignore__\nbackground\nlane 1\nforêt\n",
        "-1 __ignore__\n0 background\n1 lane 1\n2 forêt\n",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nlane 1:1,2,3:left,right:\nforêt:::\n",
        "name,r,g,b\nbackground,0,0,0\nlane 1,1,2,3\nforêt,3,4,5\n",
        "Name;R;G;B;A\nbackground;0;0;0;0\nlane 1;1;2;3;9\nforêt;3;4;5;0\n",
        "id,name,color\n2,forêt,#030405\n0,background,#000000\n1,lane 1,#010203\n",
        "id\tname\n0\tbackground\n1\tlane 1\n2\tforêt\n",
        "0 background\n1 lane 1\n2 forêt\n255 void\n",
        "2: forêt\n0: background\n1: lane 1\n",
        "0,background,0,0,0\n1,lane 1,1,2,3\n2,forêt,3,4,5\n",
        '"background",0,0,0\n"lane 1",1,2,3\n"forêt",3,4,5\n',
        "background #000000\nlane 1 #010203\nforêt #030405FF\n",
        "background 0 0 0\nlane 1 1 2 3\nforêt 3 4 5\n",
        "background 0 0 0\nlane 1 1 2 3\nforêt 0 0 2\n",
        "background\t0\t0\t0\nlane 1\t1\t2\t3\nforêt\t3\t4\t5\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_class_files_of_other_tools_are_understood(tmp_path: Path, text: str, encoding: str, end: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(text.replace("\n", end).encode(encoding))
    found, colors = read_class_file(file)
    assert found == THREE
    if "3" in text.replace("0 background", "").replace(":::", ""):
        assert colors[1].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("name\nroad\ncar\n", 1, "looks like a heading: remove it"),
        ("nom,r,g,b\nroad,1,2,3\n", 1, "columns are `id,name,r,g,b,a`"),
        ("r,g,b,name\n1,2,3,road\n", 1, "columns are"),
        ("road,7\ncar,9\n", 1, "if this is a table, give a first line"),
        ("road 0\ncar 1\n", 1, "ids come before the names"),
        ("0 1 2 3 road\n1 4 5 6 car\n", 1, "the name comes before the colour"),
        ("road\n#804080 car\n", 2, "the name comes before the colour"),
        ("1 road\n2 car\n", 2, "has the id 2, .* no id 0; .*: count from 0, and give --loader.ids one-based"),
        ("0 road\ncar\n", 2, "it has no id, which the others have"),
        ("id,name\n0,road\ncar\n", 3, "it has no id"),
        ("0 road\n0 car\n", 2, "has the id 0; expected 0, 1"),
        ("road:1,2,3::\ncar\n", 2, "other lines are `name:R,G,B:parts:actions`"),
        ("road\n__ignore__\ncar\n", 2, "labelme writes it into the first line"),
        ('["road",\n"car"]\n', 1, "name the file classes.json"),
        ("lane 1 255 0 0\nlane 2 0 255 0\n", 1, "four numbers"),
        ("road\nc\x0car\n", 2, "control character"),
        ("road\ncar 1 2 256\n", 2, r"has the color \[1, 2, 256\]"),
        ("road\ncar\nroad\n", None, "lists road more than once"),
        ("road\n" + 100 * "x" + 101 * "\t" + "1\n", 2, "more than 200 characters"),
        ("\n".join(map("c{}".format, range(600))), None, "has 600 lines; expected one for each of up to 255"),
        (b"road\nfor\xeat\n", 2, "cannot be read as text, from line 2 on: save the file as UTF-8"),
    ],
)
def test_what_may_mean_something_else_is_refused_by_line(
    tmp_path: Path, text: str | bytes, line: int | None, why: str
) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        read_class_file(file)
    said = str(caught.value)
    assert str(file) in said and re.search(why, said) and "\n" not in said
    assert line is None or f"line {line}" in said


word = st.text("abcdefghijklmnopqrstuvwxyzäéß東-_'&() ", min_size=1, max_size=12).map(str.strip).filter(bool)
class_names = st.lists(word, min_size=2, max_size=6, unique=True).filter(
    lambda found: not {"name", "names", "class", "classes", "label", "labels", "category", "__ignore__"} & set(found)
)
FORMATS = {
    "names": "{name}",
    "with colours": "{name} {r} {g} {b}",
    "with alpha": "{name},{r},{g},{b},255",
    "in hexadecimal": "{name} #{r:02x}{g:02X}{b:02x}",
    "with ids": "{id} {name}",
    "as YAML": "{id}: {name}",
    "as CSV": "{id},{name},{r},{g},{b}",
    "of CVAT": "{name}:{r},{g},{b}::",
    "by tabs": "{name}\t{r}\t{g}\t{b}",
}


@pytest.mark.parametrize("line", FORMATS.values(), ids=FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=class_names, seed=st.integers(0, 99))
def test_names_and_colours_survive_every_format(tmp_path: Path, line: str, found: list[str], seed: int) -> None:
    colors = np.random.default_rng(seed).integers(0, 256, (len(found), 3)).tolist()
    lines = [
        line.format(id=number, name=name, r=r, g=g, b=b)
        for number, (name, (r, g, b)) in enumerate(zip(found, colors, strict=True))
    ]
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    read, read_colors = read_class_file(file)
    assert list(read) == found
    assert "{r" not in line or read_colors.tolist() == colors


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("ab 0123,;:#\t\"'[{\r\n_-.é\x00|", max_size=40) | st.binary(max_size=40))
def test_any_class_file_is_read_or_refused_in_one_line(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        found, colors = read_class_file(file)
    except DataError as error:
        assert str(file) in str(error) and "\n" not in str(error)
    else:
        assert len(found) == len(set(found)) == len(colors) >= 2
        assert all(name.strip() == name and name for name in found)


# --- ids ----------------------------------------------------------------------------------------------------


def test_ids_by_hand() -> None:
    assert class_ids(None, 2) == {0: 0, 1: 1, 255: IGNORE}
    assert class_ids("one-based", 2) == {1: 0, 2: 1, 255: IGNORE}
    assert class_ids("zero-ignored", 2) == {0: IGNORE, 1: 0, 2: 1, 255: IGNORE}
    assert class_ids({0: 0, 255: 1}, 2) == {0: 0, 255: 1}
    assert class_ids("one-based", 255)[255] == 254


@pytest.mark.parametrize(
    ("ids", "values", "expected"),
    [
        ("one-based", [1, 2, 255], [0, 1, 255]),
        ("zero-ignored", [0, 1, 2, 255], [255, 0, 1, 255]),
        ({0: 0, 255: 1}, [0, 255], [0, 1]),
        ({7: 1, 1000: 0, 9: 255}, [7, 1000, 9, 255], [1, 0, 255, 255]),
    ],
)
def test_label_values_stand_for_what_the_setting_says(
    plain: Path, ids: object, values: list[int], expected: list[int]
) -> None:
    dtype = np.uint16 if max(values) > 255 else np.uint8
    label = np.resize(np.array(values, dtype=dtype), (6, 8))
    Image.fromarray(label).save(plain / "labels/train/a.png")
    dataset = open_dataset("folder", plain, "train", ids=ids)
    np.testing.assert_array_equal(dataset.read(0)[1], np.resize(np.array(expected, dtype=np.uint8), (6, 8)))
    assert dataset.identity(0) != open_dataset("folder", plain, "train").identity(0)


def test_the_message_about_ids_from_1_on_names_the_setting(plain: Path) -> None:
    Image.fromarray(np.full((6, 8), 2, dtype=np.uint8)).save(plain / "labels/train/a.png")
    said = message("folder", plain, read=0)
    assert "if 1 is the first class, give --loader.ids one-based, or zero-ignored where 0 is to be ignored" in said
    Image.fromarray(np.zeros((6, 8), dtype=np.uint8)).save(plain / "labels/train/a.png")
    assert "where 0 is to be ignored, give --loader.ids zero-ignored" in message(
        "folder", plain, read=0, ids="one-based"
    )
    Image.fromarray(np.full((6, 8), 128, dtype=np.uint8)).save(plain / "labels/train/a.png")
    assert "give --loader.ids, such as '{0: 0, 128: 1}'" in message("folder", plain, read=0)


def test_ids_that_cannot_be_are_refused(plain: Path) -> None:
    assert "loader.ids maps 3 to 2: give an id from 0 to 1, or 255" in message("folder", plain, ids={1: 0, 2: 1, 3: 2})
    assert "loader.ids maps no value to class 1: give one for each of 0 to 1" in message("folder", plain, ids={0: 0})
    for wrong in ({"a": 0}, {0: 256}, {-1: 0}, {65536: 0}, {0: 1.5}):
        with pytest.raises(
            ValueError, match=r"loader\.ids is .*: give the id, 0 to 255, of each value from 0 to 65535"
        ):
            LoaderConfig(ids=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"loader\.ids is 'two-based': give one of one-based, zero-ignored"):
        LoaderConfig(ids="two-based")  # type: ignore[arg-type]
    assert "data set 'camvid' has no option ids" in message("camvid", plain, ids="one-based")


def test_images_are_read_as_before_from_a_nested_folder(plain: Path) -> None:
    path = plain / "images/train/deep/er/a.b.png"
    trees.write_image(path)
    shutil.copytree(plain / "images/train/deep", plain / "labels/train/deep")
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(plain / "labels/train/deep/er/a.b.png")
    dataset = open_dataset("folder", plain, "train")
    assert names(dataset)[-1] == "deep/er/a.b"
    np.testing.assert_array_equal(dataset.read(3)[0], read_image(path))
