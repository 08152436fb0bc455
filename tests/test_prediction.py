"""nas-predict: what is read, what is written, what is left out; views and windows in it and in nas-evaluate."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import retrain.evaluation
import retrain.prediction
from cli import common
from cli import predict as predict_command
from nas.config import LoaderConfig
from nas.data.readers.pairs import read_image
from nas.data.splits import open_split
from nas.evaluation.inference import Inference, Viewing
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from nas.training.interruption import InterruptedRun
from retrain.config import RetrainConfig
from retrain.evaluation import evaluate
from retrain.load import load_ready, load_trained
from retrain.networks import build
from retrain.prediction import Outputs, find_images, predict, predict_mask
from search_spaces.validation import to_plain

CLASSES = ("background", "disc", "square", "triangle", "ring", "line")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as nas-retrain leaves it, of an ESPNet that was never trained."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config = RetrainConfig(genotype="espnet-c", loader=LoaderConfig(resolution=0.5))
    state = {
        "config": to_plain(config),
        "classes": list(CLASSES),
        "colors": np.random.default_rng(0).integers(0, 256, (6, 3)).tolist(),
        "network": build("espnet-c", 6).state_dict(),
        "state": {"epoch": 3, "last_miou": 0.5},
        "mirror": {},
    }
    save_checkpoint(folder / "best.pt", "retrain", state)
    return folder


def pixels(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def images(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(30 + seed, 41, 3, seed=seed)).save(folder / name)
    return folder


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# What is read


def test_an_image_is_turned_as_its_exif_says(run: Path, tmp_path: Path) -> None:
    stored = pixels(24, 40, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn clockwise
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), np.rot90(stored, -1))
    predict(run, tmp_path / "photo.png", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "photo.png").size == (24, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_every_8_bit_mode_are_seen_in_colour(mode: str, tmp_path: Path) -> None:
    name = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    made = Image.fromarray(pixels(24, 40, 3)).convert("RGBA").convert(mode)
    made.save(name)
    seen = read_image(name)
    assert (seen.shape, seen.dtype) == ((24, 40, 3), np.uint8)
    if mode != "CMYK":
        np.testing.assert_array_equal(seen, np.asarray(made.convert("RGB")))
    if mode in ("1", "L", "LA"):
        assert (seen == seen[..., :1]).all()


def test_an_image_of_16_bits_is_named_and_the_others_are_predicted(run: Path, tmp_path: Path) -> None:
    source = images(tmp_path / "images", "a.png", "c.png")
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(source / "b.png")
    with pytest.raises(ValueError, match=r"1 of 3 images were left out: .*b\.png has .* more than 8 bits .* convert"):
        predict(run, source, tmp_path / "out", outputs=Outputs(overlay=False))
    assert written(tmp_path / "out") == {"a.png", "c.png"}


def test_folders_are_kept_and_predictions_hidden_files_and_others_are_no_images(run: Path, tmp_path: Path) -> None:
    source = images(tmp_path / "images", "b.png", "day/a.png", "day/deep/a.jpg", ".hidden/a.png", "day/.a.png")
    (source / "day" / "notes.txt").write_text("no image")
    out = source / "masks"
    for _ in range(2):  # the masks of the first time are not among the images of the second
        done = predict(run, source, out, recursive=True, outputs=Outputs(overlay=False))
        assert done.written == [out / "b.png", out / "day/a.png", out / "day/deep/a.png"]
    assert written(out) == {"b.png", "day/a.png", "day/deep/a.png"}
    assert find_images(source) == ([source / "b.png"], [source / "day", source / "masks"])


def test_a_folder_whose_folders_have_images_says_so(run: Path, tmp_path: Path) -> None:
    images(tmp_path, "day/a.png")
    with pytest.raises(ValueError, match=r"has no image: expected .*; its folders have some: give --recursive$"):
        find_images(tmp_path)
    with pytest.raises(ValueError, match=r"has no image: expected files such as [.]jpg, [.]png or [.]tif$"):
        find_images(tmp_path / "day" / "..", recursive=True, without=tmp_path / "day")


def test_every_format_of_pillow_is_predicted_and_the_rest_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = images(tmp_path / "photos", "a.png", "b.tif", "c.TIFF", "d.gif", "f.JPG", "g.ppm")
    (source / "d.gif").rename(source / "e.JFIF")
    for name in ("notes.txt", "raw.dng"):
        (source / name).write_text("")
    predict_command.main([str(run), str(source), "--out", str(tmp_path / "out"), "--device=cpu", "--no-overlay"])
    assert capsys.readouterr().out == (
        f"wrote 6 masks into {tmp_path / 'out'}; 2 files were not read: notes.txt, raw.dng\n"
    )
    assert written(tmp_path / "out") == {f"{name}.png" for name in "abcefg"}


@pytest.mark.parametrize(
    ("ids", "values"),
    [("one-based", [1, 2, 3, 4, 5, 6]), ({0: 0, 9: 1, 8: 1, 2: 2, 3: 3, 4: 4, 700: 5}, [0, 8, 2, 3, 4, 700])],
)
def test_masks_have_the_values_of_the_label_files(run: Path, tmp_path: Path, ids: Any, values: list[int]) -> None:
    own = tmp_path / "own"
    own.mkdir()
    saved = load_checkpoint(run / "best.pt", "retrain")
    saved["config"]["loader"]["ids"] = ids
    save_checkpoint(own / "best.pt", "retrain", {key: saved[key] for key in saved if key not in ("kind", "version")})
    source = images(tmp_path / "images", "a.png")
    plain, mapped = (predict(folder, source, tmp_path / folder.name).written[0] for folder in (run, own))
    ids_of, values_of = np.asarray(Image.open(plain)), np.asarray(Image.open(mapped))
    np.testing.assert_array_equal(values_of, np.array(values)[ids_of])
    if max(values) < 256:
        np.testing.assert_array_equal(Image.open(plain).convert("RGB"), Image.open(mapped).convert("RGB"))


def test_images_that_cannot_be_read_are_named_at_the_end(run: Path, tmp_path: Path) -> None:
    source = images(tmp_path / "images", "a.png", "z.png")
    for name in "bcdefgh":
        (source / f"{name}.png").write_bytes((source / "a.png").read_bytes()[:300])
    with pytest.raises(ValueError) as raised:
        predict(run, source, tmp_path / "out")
    text = str(raised.value)
    assert text.startswith(f"7 of 9 images were left out: image {source / 'b.png'} cannot be read")
    assert "f.png" in text and "g.png" not in text and "; and 2 more. The masks of the others are in" in text
    assert "\n" not in text
    assert written(tmp_path / "out") == {"a.png", "a_overlay.png", "z.png", "z_overlay.png"}


# What is written


def test_probabilities_are_those_of_the_mask(run: Path, tmp_path: Path) -> None:
    source = images(tmp_path / "images", "a.png")
    for number, how in enumerate((Inference(), Inference((0.5, 1.0), flip=True))):
        out = tmp_path / str(number)
        predict(run, source, out, how=how, outputs=Outputs(overlay=False, probabilities=True))
        assert written(out) == {"a.png", "a.npz"}
        with np.load(out / "a.npz") as file:
            probabilities, classes = file["probabilities"], file["classes"]
        assert tuple(classes) == CLASSES
        assert (probabilities.dtype, probabilities.shape) == (np.float16, (6, 30, 41))
        np.testing.assert_allclose(probabilities.astype(float).sum(0), 1, atol=3e-3)
        mask = np.asarray(Image.open(out / "a.png"))
        chosen = np.take_along_axis(probabilities, mask[None].astype(int), 0)[0]
        assert (chosen == probabilities.max(0)).all()


def test_existing_predictions_are_left_as_they_are(run: Path, tmp_path: Path) -> None:
    source, out = images(tmp_path / "images", "a.png", "b.png", "c.png"), tmp_path / "out"
    predict(run, source, out)
    before = (out / "a.png").stat().st_mtime_ns
    (out / "b.png").unlink()
    (out / "c_overlay.png").unlink()
    done = predict(run, source, out, skip_existing=True)
    assert (done.written, done.there) == ([out / "b.png", out / "c.png"], 1)
    assert (out / "a.png").stat().st_mtime_ns == before
    assert predict(run, source, out, skip_existing=True) == ([], 3, "")
    assert predict(run, source, out).there == 0


def test_an_interrupt_says_how_to_go_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = images(tmp_path / "images", "a.png", "b.png"), tmp_path / "out"

    def read(path: Path, *how: Any) -> np.ndarray:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return read_image(path, *how)

    with monkeypatch.context() as patch:
        patch.setattr(retrain.prediction, "read_image", read)
        with pytest.raises(InterruptedRun, match="1 of 2 images are done; --skip-existing resumes"):
            predict(run, source, out)
    assert written(out) == {"a.png", "a_overlay.png"}
    assert predict(run, source, out, skip_existing=True).written == [out / "b.png"]


def test_a_full_disk_stops_and_leaves_no_half_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = images(tmp_path / "images", "a.png"), tmp_path / "out"

    def full(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(SystemExit) as stop:
        common.run("nas-predict", predict_command.main, [str(run), str(source), "--out", str(out), "--probabilities"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "nas-predict: No space left on device: what was saved before is untouched\n"
    assert written(out) == {"a_overlay.png"}


def test_the_command_says_what_it_wrote(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images(tmp_path, "images/a.png", "images/b/c.png"))
    left = "; 1 folder was not read: b/"
    for words, says in (
        (["--no-overlay"], f"wrote 1 mask into out{left}\n"),
        (["--recursive", "--skip-existing"], "wrote 2 masks and overlays into out\n"),
        (["--recursive", "--skip-existing"], "wrote 0 masks and overlays into out; 2 were there\n"),
        (["--probabilities", "--window=16x16"], f"wrote 1 mask, its overlay and probabilities into out{left}\n"),
    ):
        predict_command.main([str(run), "images", "--out", "out", "--device=cpu", *words])
        assert capsys.readouterr().out == says


def test_a_terminal_shows_a_bar_with_the_time_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    source = images(tmp_path / "images", "a.png", "b.png")
    predict(run, source, tmp_path / "out", progress=True)
    shown = capsys.readouterr().out
    assert "2/2" in shown and "left" in shown


# Views, windows, precision: in both commands


def test_the_mask_is_that_of_its_views(run: Path, tmp_path: Path) -> None:
    source, trained = images(tmp_path / "images", "a.png"), load_trained(run)
    image = pixels(30, 41, 3)
    for how in (Inference(), Inference((0.5, 1.0), flip=True), Inference(window=(9, 8), stride=(5, 8))):
        predict(run, source, tmp_path / "out", how=dataclasses.replace(how, fold=False))
        mask = np.asarray(Image.open(tmp_path / "out" / "a.png"))
        np.testing.assert_array_equal(mask, predict_mask(trained, image, how))
    assert (predict_mask(trained, image, Viewing(window=(8, 8))) != predict_mask(trained, image)).any()


def test_the_record_has_all_that_names_the_result(run: Path) -> None:
    how = Inference((0.5, 1.0), False, (40, 48), precision="bf16")
    result = evaluate(run, device="cpu", how=how)
    file = run / "evaluation-val-best-scales-0.5-1-window-40x48-stride-27x32-bfloat16.json"
    record = json.loads(file.read_text())
    assert record == dataclasses.asdict(result)
    # The images of `shapes` are 96x128; the run's resolution is 0.5.
    assert record["smallest_image"] == record["largest_image"] == [48, 64]
    assert (record["window"], record["stride"]) == ([40, 48], [27, 32])
    assert (record["precision"], record["device_type"], record["compiled"]) == ("bfloat16", "cpu", False)
    assert record["torch_version"] == torch.__version__ and record["package_version"]
    assert record["folded"] > 0
    asked = {"run": str(run), "split": None, "checkpoint": "best", "data_root": None, "device": "cpu"}
    asked["data_changed"] = "refuse"
    assert record["settings"] == asked | {
        "scales": [0.5, 1.0],
        "flip": False,
        "window": [40, 48],
        "stride": None,
        "window_batch": 4,
        "precision": "bfloat16",
        "fold": True,
        "compile": False,
    }
    assert "; in bfloat16; scales 0.5, 1; windows of 40x48 at stride 27x32" in result.table()


@pytest.mark.parametrize(("before", "told"), [(1.0, True), (1e-6, False)])
def test_labels_numbered_otherwise_are_told_of(
    run: Path, tmp_path: Path, before: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    content = torch.load(run / "best.pt", weights_only=True)
    save_checkpoint(trained / "best.pt", "retrain", {**content, "state": {"epoch": 3, "last_miou": before}})
    few = open_split(RetrainConfig(), "val", 2)
    monkeypatch.setattr(retrain.evaluation, "open_split", lambda *_, **__: few)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        evaluate(trained, device="cpu", data_root="other", write=False)
    other = Path("other").absolute()
    says = f"% is near 0, where the training ended with 100.00 %: are the labels in {other} numbered as those"
    assert any(says in str(one.message) for one in said) == told


def test_a_window_smaller_than_the_largest_stride_is_refused(run: Path, tmp_path: Path) -> None:
    says = r"window 7x64 is smaller than the network's largest stride, 8 pixels: give at least 8x8"
    with pytest.raises(ValueError, match=says):
        evaluate(run, how=Inference(window=(7, 64)))
    with pytest.raises(ValueError, match=says):
        predict(run, images(tmp_path / "images", "a.png"), tmp_path / "out", how=Inference(window=(7, 64)))
    assert load_ready(run, "best", "cpu", Inference(window=(8, 8))).folded > 0
    assert load_ready(run, "best", "cpu", Inference(fold=False)).folded == 0


def test_running_out_of_memory_says_what_helps(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")

    monkeypatch.setattr(retrain.prediction, "predict_scores", scores)
    with pytest.raises(ValueError, match=r"^out of memory: see large images in windows \(--window 512x512"):
        predict(run, images(tmp_path / "images", "a.png"), tmp_path / "out")
