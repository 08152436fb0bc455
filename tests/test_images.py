"""One reading of an image and a label: orientation, channels, normalisation, palettes, sizes."""

from __future__ import annotations

import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import nas
import retrain
from nas.config import AugmentConfig, ImageConfig, LoaderConfig, NormalisationConfig
from nas.data.augment import augment
from nas.data.base import DataError, SegmentationDataset, open_dataset, resized
from nas.data.caching import DiskCached
from nas.data.check.checking import check, open_splits
from nas.data.check.contact_sheet import draw_contact_sheet
from nas.data.check.report import as_data, as_text
from nas.data.loading import image_to_tensor
from nas.data.readers import reading
from nas.data.readers.reading import read_header, read_image, read_label
from nas.data.splits import open_split
from nas.evaluation.cost import measure
from nas.evaluation.evaluate import predict_classes, predict_scores
from nas.evaluation.inference import Inference, Viewing
from nas.runs.pictures import as_picture, prediction_strip
from retrain.config import RetrainConfig
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork
from retrain.networks.settings import NetworkConfig
from retrain.prediction import predict
from retrain.pretrained import load_backbone_weights
from tiny import GENOTYPE, LOADER, command, searching, training

RANGE = NormalisationConfig(range=(0, 10000))
FOUR = ImageConfig(channels=4, normalisation=RANGE)
CPU = torch.device("cpu")


def pixels(*shape: int, seed: int = 0, dtype: Any = np.uint8, most: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, shape).astype(dtype)


def save_turned(path: Path, stored: np.ndarray, orientation: int, **options: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif, **options)


def tiff(path: Path, values: np.ndarray, **options: Any) -> Path:
    """A TIFF of bands [H, W, C]."""
    tifffile = pytest.importorskip("tifffile", reason="the extra `tiff` is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="minisblack", **({"planarconfig": "contig"} | options))
    return path


def folder(root: Path, number: int = 6, bands: bool = False, orientation: int | None = None) -> Path:
    """Squares of class 1 that differ in their values; of four bands of 16 bits, or phone photos as they are stored."""
    rng = np.random.default_rng(0)
    back = {number: number for number in range(1, 9)} | {6: 8, 8: 6}
    for split, count in (("train", number), ("val", 2)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            label = np.zeros((48, 64), dtype=np.uint8)
            top, left = rng.integers(0, 28), rng.integers(0, 40)
            label[top : top + 20, left : left + 20] = 1
            if bands:
                colors = np.array([[500, 900, 300, 4000], [600, 800, 350, 9000]])
                image = (colors[label] + rng.integers(0, 200, (48, 64, 4))).astype(np.uint16)
                tiff(root / f"images/{split}/{index}.tif", image)
            else:
                image = np.array([[60, 60, 60], [200, 40, 40]], dtype=np.uint8)[label]
                held = orientation or index % 8 + 1
                stored = np.ascontiguousarray(reading.TURNS[back[held]](image))
                save_turned(root / f"images/{split}/{index}.jpg", stored, held, quality=95)
            Image.fromarray(label).save(root / f"labels/{split}/{index}.png")
    (root / "classes.txt").write_text("background\nthing\n")
    return root


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_an_image_is_turned_as_viewers_do_or_left_as_stored(tmp_path: Path, suffix: str, orientation: int) -> None:
    file = tmp_path / f"photo.{suffix}"
    save_turned(file, pixels(5, 7, 3), orientation, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(file) as image:
        np.testing.assert_array_equal(read_image(file), np.asarray(ImageOps.exif_transpose(image)))
    save_turned(tmp_path / f"plain.{suffix}", pixels(5, 7, 3), 1, **({"lossless": True} if suffix == "webp" else {}))
    stored = read_image(tmp_path / f"plain.{suffix}")
    np.testing.assert_array_equal(read_image(file, ImageConfig(exif="ignore")), stored)
    assert read_header(file) == ((5, 7), orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_are_turned_as_photos_are(tmp_path: Path, orientation: int) -> None:
    values = pixels(5, 7, 5)
    file = tiff(tmp_path / "a.tif", values, extratags=[(0x0112, 3, 1, orientation, True)])
    save_turned(tmp_path / "a.png", np.ascontiguousarray(values[..., :3]), orientation)
    seen = read_image(file, ImageConfig(channels=5))
    np.testing.assert_array_equal(seen[..., :3], read_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_image(file, ImageConfig(channels=5, exif="ignore")), values)
    assert read_header(file) == ((5, 7), orientation)


def test_labels_fit_what_a_viewer_shows_or_are_told(tmp_path: Path) -> None:
    root = folder(tmp_path, 8)
    dataset = open_dataset("folder", root, "train")
    for index in range(8):
        image, label = dataset.read(index)
        assert ((image[..., 0] > 130) == (label == 1)).mean() > 0.97  # JPEG blurs the borders
    unturned = open_dataset("folder", root, "train", ImageConfig(exif="ignore"))
    with pytest.raises(DataError, match=r"orientation 6; as stored, it is 48x64 as its label is not: give .* turn$"):
        unturned.read(5)


def test_labels_that_were_drawn_on_unturned_pixels_have_a_setting(tmp_path: Path) -> None:
    root = folder(tmp_path, 2, orientation=6)
    for split in ("train", "val"):
        for file in (root / "labels" / split).iterdir():
            label = np.rot90(np.asarray(Image.open(file)))
            Image.fromarray(np.ascontiguousarray(label)).save(file)
    said = "orientation 6; turned, it is 64x48 as its label is not: give --loader.exif ignore if"
    with pytest.raises(DataError, match=said):
        open_dataset("folder", root, "train").read(0)
    assert [problem.kind for problem in check(open_splits("folder", root)).problems] == ["size"] * 4
    report = check(open_splits("folder", root, images=ImageConfig(exif="ignore")))
    assert (
        report.problems == []
        and "2 of 2 images of train have an EXIF orientation other than 1 (6: 2): they are left" in (report.warnings[0])
    )


def test_the_check_counts_orientations(tmp_path: Path) -> None:
    report = check(open_splits("folder", folder(tmp_path, 10)))
    counted = {str(number): 1 for number in range(3, 9)} | {"2": 2}
    train, val = as_data(report)["splits"]
    assert (train["orientations"], val["orientations"]) == (counted, {"2": 1})
    assert report.problems == []
    assert "8 of 10 images of train have an EXIF orientation other than 1 (2: 2, 3: 1, 4: 1, 5: 1" in as_text(report)


# Labels

IDS = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)


def as_mode(mode: str) -> Image.Image:
    if mode == "P":
        made = Image.fromarray(IDS)
        made.putpalette([9, 9, 9, 250, 0, 0, 0, 250, 0])
        return made
    if mode == "I;16":
        return Image.fromarray(IDS.astype(np.uint16))
    return Image.fromarray(IDS).convert(mode)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_label_is_read_by_one_rule(tmp_path: Path, mode: str, suffix: str) -> None:
    as_mode(mode).save(tmp_path / f"label.{suffix}")
    found = read_label(tmp_path / f"label.{suffix}")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, IDS)


def test_what_is_not_one_id_a_pixel_is_refused(tmp_path: Path) -> None:
    def said(image: Image.Image, name: str = "label.png") -> str:
        image.save(tmp_path / name)
        with pytest.raises(DataError) as raised:
            read_label(tmp_path / name)
        return str(raised.value)

    assert "holds colours (RGB); expected one class id per pixel" in said(Image.new("RGB", (3, 2), (1, 0, 1)))
    image = Image.new("LA", (3, 2), (1, 255))
    image.putpixel((0, 0), (1, 0))
    assert "holds pixels of several opacities (LA)" in said(image)
    assert "holds fractions" in said(Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32)), "label.tif")


def test_a_palette_that_contradicts_the_class_file_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path, 3, orientation=1)

    def drawn(*palette: int) -> list[str]:
        for file in root.glob("labels/*/*.png"):
            label = Image.fromarray(np.asarray(Image.open(file)))
            label.putpalette(palette)
            label.save(file)
        return check(open_splits("folder", root)).warnings

    swapped = (250, 0, 0, 10, 20, 30)
    assert drawn(*swapped) == []  # the class file has no colours
    (root / "classes.txt").write_text("background 10 20 30\nthing 250 0 0\n")
    train, val = drawn(*swapped)
    assert "has the colour [250, 0, 0] for 0, but the class file [10, 20, 30] (background): are the classes" in train
    assert train.endswith("(so in 3 labels)") and val.endswith("(so in 2 labels)")
    with pytest.warns(UserWarning, match="are the classes in another order"):
        open_split(RetrainConfig(data="folder", data_root=str(root)), "train")
    assert drawn(10, 20, 30, 250, 0, 0) == drawn(0, 0, 0, 1, 1, 1) == []


# Channels and normalisation


def test_values_are_scaled_as_by_hand() -> None:
    image = np.array([[[0, 2500, 10000, 20000]]], dtype=np.uint16)
    assert image_to_tensor(image, FOUR).flatten().tolist() == [-1, -0.5, 1, 3]
    own = NormalisationConfig(mean=(10, 20), std=(5, 10))
    two = ImageConfig(channels=2, normalisation=own)
    assert image_to_tensor(np.array([[[20, 20]]], dtype=np.uint8), two).flatten().tolist() == [2, 0]
    one = ImageConfig(channels=2, normalisation=NormalisationConfig(mean=(10,), std=(5, 10)))
    assert image_to_tensor(np.array([[[20, 20]]], dtype=np.uint8), one).flatten().tolist() == [2, 1]
    plain = pixels(4, 5, 3)
    expected = plain.transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert np.array_equal(image_to_tensor(plain).numpy(), expected)  # bit for bit


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"range": (1, 1)}, r"loader.normalisation.range is \[1, 1\]: the lower value comes first"),
        ({"mean": (1,)}, "either mean and std, or range"),
        ({"mean": (1,), "std": (1,), "range": (0, 1)}, "either mean and std, or range"),
        ({"mean": (1,), "std": (0,)}, r"loader.normalisation.std\[0\] is 0"),
        ({"mean": (1, 2), "std": (1,)}, "mean has 2 entries, and loader.channels is 3: give one for each channel"),
    ],
)
def test_a_normalisation_is_one_of_two(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageConfig(normalisation=NormalisationConfig(**given))


def test_16_bits_and_bands_are_read_whole_or_refused(tmp_path: Path) -> None:
    values = pixels(6, 8, 4, dtype=np.uint16, most=65536)
    for number, file in enumerate(
        (
            tiff(tmp_path / "contiguous.tif", values),
            tiff(tmp_path / "planes.tif", values.transpose(2, 0, 1), planarconfig="separate"),
            tiff(tmp_path / "pages.tif", values.transpose(2, 0, 1), planarconfig=None),
            tiff(tmp_path / "packed.tif", values, compression="zlib", byteorder=">"),
        )
    ):
        found = read_image(file, FOUR)
        assert found.dtype == np.uint16, number
        np.testing.assert_array_equal(found, values)
    grey = ImageConfig(channels=1, normalisation=RANGE)
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(values[..., 0]).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name, grey), values[..., :1])
    depth = values[..., 0].astype(np.float32) + 0.5
    Image.fromarray(depth).save(tmp_path / "depth.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "depth.tif", grey)[..., 0], depth)

    def said(name: str, images: ImageConfig) -> str:
        with pytest.raises(DataError) as raised:
            read_image(tmp_path / name, images)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    text = said("contiguous.tif", ImageConfig())
    assert (
        "4 channels of more than 8 bits" in text
        and "--loader.channels 4 and --loader.normalisation.range [0,65535]" in text
    )
    assert "without a normalisation: train with --loader.norm" in said(
        "grey.png", replace(grey, normalisation=NormalisationConfig())
    )
    assert "has 1 channel of more than 8 bits" in said("grey.png", FOUR)
    Image.fromarray(pixels(6, 8)).save(tmp_path / "eight.png")
    assert "has 8 bits, but loader.normalisation is for more" in said("eight.png", grey)
    depth[0, 0] = np.nan
    Image.fromarray(depth).save(tmp_path / "holes.tif")
    assert "no finite numbers" in said("holes.tif", grey)


def test_a_broken_tiff_is_named(tmp_path: Path) -> None:
    for name, compression in (("raw.tif", None), ("packed.tif", "zlib")):
        file = tiff(tmp_path / name, pixels(60, 80, 4, dtype=np.uint16, most=9999), compression=compression)
        file.write_bytes(file.read_bytes()[:-900])
        with pytest.raises(DataError, match=f"image .*{name} cannot be read: "):
            read_image(file, FOUR)


def test_without_tifffile_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiff(tmp_path / "a.tif", pixels(6, 8, 4, dtype=np.uint16))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"a\.tif cannot be read: .*pip install 'nas-segmentation\[tiff\]'$"):
        read_image(file, FOUR)


def test_colours_of_16_bits_are_not_cut_to_8_in_silence(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(6 * 8) for _ in range(6))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0))
    file = tmp_path / "rgb.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    for read in (read_image, read_label):
        with pytest.raises(DataError, match=r"Pillow keeps 8 of its 16 bits \(RGB;16B\): save it as TIFF"):
            read(file)
    tifffile = pytest.importorskip("tifffile")
    values = pixels(6, 8, 3, dtype=np.uint16, most=65536)
    tifffile.imwrite(tmp_path / "rgb.tif", values, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.tif", ImageConfig(normalisation=RANGE)), values)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_grey_is_one_channel_in_any_mode(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(pixels(6, 8))
    made = grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else grey.convert(mode)
    made.save(tmp_path / "a.png")
    seen = read_image(tmp_path / "a.png", ImageConfig(channels=1))
    np.testing.assert_array_equal(seen[..., 0], np.asarray(made.convert("RGB"))[..., 0])


def test_colours_are_no_single_channel_and_four_channels_keep_their_opacity(tmp_path: Path) -> None:
    values = pixels(6, 8, 4)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", ImageConfig(channels=4)), values)
    with pytest.raises(DataError, match=r"has 4 channels of 8 bits, but loader.channels is 1"):
        read_image(tmp_path / "a.png", ImageConfig(channels=1))


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 4), (np.uint16, 4), (np.float32, 1)])
def test_bands_are_resized_one_by_one(dtype: Any, channels: int) -> None:
    image = pixels(9, 12, channels, dtype=dtype, most=250)
    found = resized(image, (5, 7))
    assert (found.dtype, found.shape) == (dtype, (5, 7, channels))
    for band in range(channels):
        one = Image.fromarray(image[..., band].astype(np.float32)).resize((7, 5), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(found[..., band], np.asarray(one), atol=1.0 if dtype == np.uint8 else 0.5)


def test_augmentation_keeps_types_and_pads_with_the_mean() -> None:
    label = np.zeros((6, 8), dtype=np.uint8)
    config = AugmentConfig(crop=(20, 20), scale=(0.9, 1.1))
    for dtype, images, mean in (
        (np.uint16, FOUR, 5000),
        (np.float32, ImageConfig(channels=4, normalisation=NormalisationConfig(mean=(0.5,), std=(1,))), 0.5),
        (np.uint8, ImageConfig(channels=4), 127),
    ):
        image = np.full((6, 8, 4), 7, dtype=dtype)
        found, ids = augment(image, label, config, np.random.default_rng(0), images=images)
        assert (found.dtype, found.shape) == (dtype, (20, 20, 4))
        assert (found[ids == 255] == mean).all() and (found[ids == 0] == 7).all()


def test_bands_are_kept_on_disk(tmp_path: Path) -> None:
    for number, size in enumerate([(5, 7), (6, 3)]):
        tiff(tmp_path / f"data/images/train/{number}.tif", pixels(*size, 4, seed=number, dtype=np.uint16, most=65536))
        (tmp_path / "data/labels/train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(*size, most=2)).save(tmp_path / f"data/labels/train/{number}.png")
    (tmp_path / "data/classes.txt").write_text("a\nb\n")
    dataset = open_dataset("folder", tmp_path / "data", "train", FOUR)
    for _ in range(2):
        kept = DiskCached(dataset, tmp_path / "cache")
        for index in range(2):
            for one, other in zip(kept.read(index), dataset.read(index), strict=True):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype
    turned = open_dataset("folder", tmp_path / "data", "train", replace(FOUR, exif="ignore"))
    assert turned.identity(0) != dataset.identity(0)


def test_the_check_prints_the_normalisation_to_give(tmp_path: Path) -> None:
    root = folder(tmp_path, 3, bands=True)
    report = check(open_splits("folder", root, images=ImageConfig(channels=4)))
    data = np.stack([read_image(file, FOUR) for file in root.glob("images/train/*.tif")]).reshape(-1, 4).astype(float)
    train = as_data(report)["splits"][0]
    assert (report.problems, train["unit"]) == ([], 1)
    assert train["mean"] == pytest.approx(data.mean(0).tolist()) and train["std"] == pytest.approx(data.std(0).tolist())
    assert f"--loader.normalisation.mean '[{float(f'{data.mean(0)[0]:.6g}')}, " in report.warnings[0]
    assert check(open_splits("folder", root, images=FOUR)).warnings == []
    assert all("--loader.channels 4" in problem.message for problem in check(open_splits("folder", root)).problems)
    assert draw_contact_sheet(open_splits("folder", root, images=FOUR).splits, 2).width > 640
    tiff(root / "images/train/0.tif", pixels(48, 64, 4))
    said = check(open_splits("folder", root, images=ImageConfig(channels=4))).warnings[0]
    assert "images of train hold values of several types (uint16: 2, uint8: 1)" in said


def test_pictures_of_other_images_are_stretched() -> None:
    plain = pixels(4, 5, 3)
    assert np.array_equal(as_picture(plain), plain)
    assert np.array_equal(as_picture(plain[..., :1]), np.repeat(plain[..., :1], 3, axis=2))
    bands = pixels(40, 50, 4, dtype=np.uint16, most=3000)
    seen = as_picture(bands)
    assert (seen.shape, seen.dtype, seen.min(), seen.max()) == ((40, 50, 3), np.uint8, 0, 255)
    labels = torch.zeros(1, 40, 50, dtype=torch.long)
    colors = np.zeros((2, 3), dtype=np.uint8)
    strip = prediction_strip(image_to_tensor(bands, FOUR)[None], labels, labels, colors)
    assert strip.shape == (40, 150, 3) and abs(strip[:, :50].astype(int) - seen).max() <= 1
    assert np.array_equal(
        prediction_strip(image_to_tensor(plain)[None], labels[:, :4, :5], labels[:, :4, :5], colors)[:, :5], plain
    )


def test_a_reader_of_another_number_of_channels_is_told() -> None:
    dataset: SegmentationDataset = open_dataset("shapes", None, "val", ImageConfig(channels=4))
    with pytest.raises(DataError, match=r"val_000000 has 3 channels of 8 bits, but loader.channels is 4"):
        next(iter(nas.data.evaluation_loader(dataset)))


# Networks


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_published_network_reads_other_channels(name: str) -> None:
    with torch.device("meta"):
        network = build(name, 5, NetworkConfig(in_channels=4)).eval()
        assert network(torch.empty(1, 4, 64, 64)).shape == (1, 5, 64, 64)
    with pytest.raises(ValueError, match=r"shape \[1, 3, 64, 64\]: give images \(N, 4, H, W\)"):
        network(torch.empty(1, 3, 64, 64, device="meta"))
    assert measure(network, (64, 64)).multiply_adds > 0


@pytest.mark.parametrize("kind", ["deeplab", "fplnet"])
def test_a_genotype_becomes_a_network_of_other_channels(kind: Any) -> None:
    network = build(GENOTYPE, 5, NetworkConfig(kind=kind, in_channels=1, filter_multiplier=2)).eval()
    assert network(torch.randn(1, 1, 33, 47)).shape == (1, 5, 33, 47)


def test_a_users_network_that_ignores_the_channels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(SegmentationNetwork):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return x

    record = replace(NETWORKS["espnet-c"], build=lambda classes, config: Own(classes))
    monkeypatch.setitem(NETWORKS._entries, "espnet-c", record)
    with pytest.raises(ValueError, match=r"espnet-c reads 3 channels, and network.in_channels is 4"):
        build("espnet-c", 2, NetworkConfig(in_channels=4))


def test_a_network_follows_its_data() -> None:
    config = RetrainConfig(genotype="espnet-c", loader=LoaderConfig(channels=4))
    assert config.network.in_channels == 4 and RetrainConfig().network.in_channels is None
    with pytest.raises(ValueError, match=r"network.in_channels is 2, but loader.channels is 3: leave it out"):
        RetrainConfig(network=NetworkConfig(in_channels=2))


def test_backbone_weights_of_three_channels_are_refused_by_other_networks(tmp_path: Path) -> None:
    name = "resnet50-aspp-plain-stem"
    torch.save(build(name, 2).backbone.state_dict(), tmp_path / "weights.pth")  # type: ignore[union-attr]
    network = build(name, 2, NetworkConfig(in_channels=4))
    with pytest.raises(ValueError, match=r"conv1.weight of shape \[64, 4, 7, 7\].* images of 3 channels, not 4: leave"):
        load_backbone_weights(network, tmp_path / "weights.pth")


# Images of any size


@pytest.mark.parametrize("window", [(8, 9), (40, 40), (30, 6)])
def test_rows_of_windows_give_the_classes_of_the_whole(window: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = build("espnet-c", 6).eval()
    images = torch.randn(1, 3, 37, 29)
    for batch in (1, 3):
        viewing = Viewing(window=window, window_batch=batch)
        expected = predict_scores(network, images, (37, 29), viewing, CPU, "float32").argmax(1)
        found = predict_classes(network, lambda *part: images[:, :, *part], (37, 29), viewing, CPU, "float32")
        assert torch.equal(found, expected)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run on phone photos of all eight orientations."""
    root = folder(tmp_path / "photos", 8)
    config = training(tmp_path, data="folder", data_root=str(root), epochs=1, loader=replace(LOADER, val_split="train"))
    return retrain.train(config, quiet=True).folder


def test_evaluation_and_prediction_see_the_same(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "photos"
    measured = retrain.evaluate(trained, "train", which="last", write=False)
    out = tmp_path / "masks"
    predict(trained, root / "images/train", out, "last")
    names = [f"{number}.png" for number in range(8)]
    masks, labels = (
        np.stack([np.asarray(Image.open(at / name)) for name in names]) for at in (out, root / "labels/train")
    )
    counts = np.bincount((2 * labels + masks).ravel(), minlength=4).reshape(2, 2)
    assert counts.tolist() == measured.confusion
    # Larger than Pillow's limit: one line without windows, the same masks with them.
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        said = r"8 of 8 images were left out: .*limit of 2000 pixels; nas-predict .* --window"
        with pytest.raises(ValueError, match=said):
            predict(trained, root / "images/train", tmp_path / "none", "last")
        mirrored = Inference(window=(64, 64), flip=True)
        with pytest.raises(ValueError, match="exceeds limit of 2000 pixels"):
            predict(trained, root / "images/train/0.jpg", tmp_path / "none", "last", how=mirrored)
        windows = Inference(window=(64, 64))
        predict(trained, root / "images/train", tmp_path / "large", "last", how=windows)
        again = retrain.evaluate(trained, "train", which="last", write=False, how=windows)
        assert Image.MAX_IMAGE_PIXELS == 1000
    assert again.confusion == measured.confusion
    for name in names:
        assert np.array_equal(np.asarray(Image.open(tmp_path / "large" / name)), masks[names.index(name)])


# From files to a network


@pytest.mark.slow
def test_four_bands_of_16_bits_go_from_search_to_export(tmp_path: Path) -> None:
    root = folder(tmp_path / "four", 8, bands=True)
    loader = replace(LOADER, channels=4, normalisation=RANGE, cache="memory")
    data = {"data": "folder", "data_root": str(root), "loader": loader}
    found = nas.search(searching(tmp_path, **data), quiet=True)
    with pytest.raises(ValueError, match=r"--loader.channels 4"):
        retrain.train(training(tmp_path, data="folder", data_root=str(root), out=str(tmp_path / "refused")), quiet=True)
    config = training(tmp_path, **data, out=str(tmp_path / "trained"), epochs=8)
    run = retrain.train(replace(config, genotype=str(found.folder / "genotype.json")), quiet=True).folder
    assert retrain.evaluate(run).pixel_accuracy > 0.5
    predict(run, root / "images/val", tmp_path / "masks")
    assert Image.open(tmp_path / "masks/0_overlay.png").size == (64, 48)
    with pytest.raises(ValueError, match=r"has 8 bits, but loader\.normalisation is for more"):
        Image.fromarray(pixels(48, 64, 3)).save(tmp_path / "rgb.png")
        predict(run, tmp_path / "rgb.png", tmp_path / "masks")
    assert '"parameters"' in command("nas-describe", run, "--json").out
    assert command("nas-draw", run, "--image", root / "images/val/0.tif").code == 0
    pytest.importorskip("onnxruntime")
    card = retrain.export_onnx(run, tmp_path / "model.onnx").facts
    assert card["input"]["shape"] == ["N", 4, "H", "W"] and card["input"]["mean"] == [5000] * 4
    assert (card["input"]["scale"], card["input"]["std"], card["input"]["range"]) == (1, [5000] * 4, [-1, 1])
    assert card["input"]["orientation"] == "turned as EXIF says"


@pytest.mark.slow
@pytest.mark.parametrize("bands", [False, True], ids=["phone photos", "four bands"])
def test_the_commands_take_raw_files_to_predicted_masks(tmp_path: Path, bands: bool) -> None:
    root = folder(tmp_path / "raw", 8, bands=bands)
    own = ["--loader.channels", "4", "--loader.normalisation.range", "[0,10000]"] if bands else []
    data = [
        "--data",
        "folder",
        "--data-root",
        root,
        "--loader.augment.crop",
        "[33,33]",
        "--loader.batch-size",
        "2",
        *own,
    ]
    begin = ["--architecture.start-epoch", "0", "--epochs", "1"]
    for name, *arguments in (
        ("nas-data", "check", "folder", root, *own),
        ("nas-search", "--space", "autodeeplab-tiny", *data, *begin, "--out", tmp_path / "found"),
        ("nas-retrain", tmp_path / "found", "--recipe", "small", *data, "--epochs", "3", "--out", tmp_path / "trained"),
        ("nas-evaluate", tmp_path / "trained", "--split", "val", "--json"),
        ("nas-predict", tmp_path / "trained", root / "images/val", "--out", tmp_path / "masks"),
    ):
        outcome = command(name, *arguments)
        assert outcome.code == 0, f"{name}: {outcome}"
    measured = retrain.evaluate(tmp_path / "trained", "val", write=False).confusion
    names = [f"{number}.png" for number in range(2)]
    masks, labels = (
        np.stack([np.asarray(Image.open(at / name)) for name in names])
        for at in (tmp_path / "masks", root / "labels/val")
    )
    assert np.bincount((2 * labels + masks).ravel(), minlength=4).reshape(2, 2).tolist() == measured
