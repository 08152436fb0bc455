"""Predicting masks for images that have no labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from nas.config import ImageConfig
from nas.data.base import DataError, resize_image
from nas.data.loading import image_to_tensor
from nas.data.readers.folder import class_ids
from nas.data.readers.listing import list_files, not_read
from nas.data.readers.reading import IMAGE_SUFFIXES, read_image
from nas.evaluation.evaluate import predict_classes, predict_scores
from nas.evaluation.inference import Inference, Viewing
from nas.runs.folder import pinned
from nas.runs.pictures import as_picture, colorize
from nas.training.interruption import InterruptedRun
from nas.training.progress import StepProgress
from retrain.load import TrainedNetwork, load_ready, memory_advice
from search_spaces.files import MARK, check_replaceable, write_atomically
from search_spaces.validation import as_path

__all__ = ["Outputs", "Predicted", "find_images", "predict", "predict_mask"]

OVERLAY = 0.5
"""Share of the class colour in an overlay."""
STRIP = 1024
"""Rows of an overlay that are computed at a time."""
NAMED = 5
"""Failures that a message lists."""


class Outputs(NamedTuple):
    """Files to write for each image besides its label picture, NAME.png."""

    overlay: bool = True
    """NAME_overlay.png: the classes' colours over the image."""
    probabilities: bool = False
    """NAME.npz: `probabilities`, float16 [classes, H, W], and `classes`, their names."""

    def files(self, image: Path) -> list[Path]:
        """Returns the files for an image, in its folder, the label picture first."""
        endings = [".png", *["_overlay.png"] * self.overlay, *[".npz"] * self.probabilities]
        return [image.with_name(image.stem + ending) for ending in endings]


class Predicted(NamedTuple):
    """Results of `predict`."""

    written: list[Path]
    """Label pictures, in the order of the images."""
    there: int
    """Number of images whose files existed already, and were left as they are."""
    unread: str = ""
    """The files and folders of the source that are no images, counted and named; empty if there are none."""


def find_images(
    source: str | Path, recursive: bool = False, without: str | Path | None = None
) -> tuple[list[Path], list[Path]]:
    """Finds one image, or all images in a folder, without hidden ones.

    Args:
        source: An image, or a folder.
        recursive: Whether to search subfolders, too.
        without: A folder inside the source to leave out, such as that of the predictions.

    Returns:
        The images, and the files and folders that are not read; both sorted by name.

    Raises:
        DataError: There is no such file, or the folder has no image.
    """
    source = as_path(source)
    if source.is_file():
        return [source], []
    if not source.is_dir():
        raise DataError(f"{source} does not exist: name an image or a folder of images")
    aside = None if without is None else Path(without).resolve()
    found, unread = list_files(source, IMAGE_SUFFIXES, recursive, aside)
    if not found:
        told = f"; {not_read(unread, source)}" if unread else ""
        deeper = "; its folders have some: give --recursive" * bool(list_files(source, IMAGE_SUFFIXES, True, aside)[0])
        raise DataError(f"{source} has no image: expected files such as .jpg, .png or .tif{told}{deeper}")
    return found, unread


def predict_mask(trained: TrainedNetwork, image: np.ndarray, viewing: Viewing | None = None) -> np.ndarray:
    """Predicts the class of every pixel.

    Args:
        trained: The network.
        image: [H, W, C] as in the training: uint8 [H, W, 3], RGB, unless the settings of its loader differ.
        viewing: Scales, mirroring and windows; None: the image once, as it is.

    Returns:
        Class ids, uint8 [H, W].
    """
    device = next(trained.network.parameters()).device
    precision = trained.config.precision
    x, size = _as_trained(trained, image)
    scores = predict_scores(trained.network, x, size, viewing or Viewing(), device, precision, trained.mirror)
    return _mask(scores)


def predict(
    run: str | Path,
    source: str | Path,
    out: str | Path,
    which: str = "best",
    device: str = "auto",
    how: Inference | None = None,
    outputs: Outputs | None = None,
    recursive: bool = False,
    skip_existing: bool = False,
    progress: bool = False,
    overwrite: bool = False,
) -> Predicted:
    """Predicts images, and writes a label picture (class ids with a palette) and more for each into a folder.

    Images are turned as EXIF says, unless the network was trained with loader.exif ignore. One that cannot be read is
    skipped, and named at the end.

    Args:
        run: The run folder of a retraining.
        source: An image, or a folder of images.
        out: The folder for the pictures, made if it is missing; with `recursive` it gets the same subfolders.
        which: "best" (highest validation mIoU) or "last".
        device: auto, cpu, cuda, cuda:N.
        how: Views of an image, and precision, folding and compiling; None: each image once, as it is.
        outputs: Files to write; None: label pictures and overlays.
        recursive: Whether to predict images in subfolders, too.
        skip_existing: Skip images whose files exist already, to resume after an interruption.
        progress: Show a bar with the time left in a terminal.
        overwrite: Replace files, too, that were not written by this function; never those in the run's data set.

    Raises:
        ValueError: The run, the device, the precision or the window cannot be used, two images have one name, a file is
            there that was not written by this function, or images cannot be read (those that can are predicted
            before); one line that names the files.
        InterruptedRun: After Ctrl-C; the message has the option that resumes.
    """
    how, outputs, out = how or Inference(), outputs or Outputs(), as_path(out)
    source = as_path(source)
    if source.is_dir() and out.resolve() == source.resolve():
        raise DataError(f"{out} is the folder of the images: give another folder to write to")
    images, unread = find_images(source, recursive, out)
    folder = images[0].parent if source.is_file() else source
    targets = [[out / file for file in outputs.files(image.relative_to(folder))] for image in images]
    _check_targets(images, targets)
    work = list(zip(images, targets, strict=True))
    if skip_existing:
        work = [(path, files) for path, files in work if not all(file.is_file() for file in files)]
    there = len(images) - len(work)
    ready = load_ready(run, which, device, how)
    trained, written, failures = ready.trained, list[Path](), list[str]()
    by_rows = how.by_rows and trained.config.loader.resolution == 1 and not outputs.probabilities
    _check_kept([file for _, files in work for file in files], trained.config.data_root, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    check = pinned(out)
    try:
        with StepProgress(len(images), there, quiet=not progress) as bar, memory_advice():
            for path, files in work:
                try:
                    image = read_image(path, trained.config.loader, by_rows)
                except DataError as error:
                    failures.append(str(error))
                    bar.step(path.name)
                    continue
                where, likely = (ready.device, ready.precision), None
                if by_rows:
                    see = partial(_part, image, trained.config.loader)
                    mask = predict_classes(ready.network, see, image.shape[:2], how, *where)[0].to(torch.uint8).numpy()
                else:
                    x, size = _as_trained(trained, image)
                    scores = predict_scores(ready.network, x, size, how, *where, trained.mirror)
                    mask = _mask(scores)
                    if outputs.probabilities:
                        likely = (scores.softmax(dim=1) if how.single else scores)[0].half().cpu().numpy()
                check()
                _write(files, outputs, image, mask, likely, trained)
                written.append(files[0])
                bar.step(path.name)
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"interrupted: {there + len(written)} of {len(images)} images are done; --skip-existing resumes with the "
            "others"
        ) from None
    if failures and len(images) == 1:
        raise DataError(failures[0])
    if failures:
        more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
        others = f"; {not_read(unread, folder)}" if unread else ""
        others += f". The masks of the others are in {out}" if len(failures) < len(images) else ""
        raise DataError(
            f"{len(failures)} of {len(images)} images were left out: {'; '.join(failures[:NAMED])}{more}{others}"
        )
    return Predicted(written, there, not_read(unread, folder))


def _as_trained(trained: TrainedNetwork, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """Resizes an image to the resolution of the training, (1, 3, h, w); returns its own height and width, too."""
    resized = resize_image(image, trained.config.loader.resolution)
    return image_to_tensor(resized, trained.config.loader)[None], (image.shape[0], image.shape[1])


def _part(image: np.ndarray, images: ImageConfig, rows: slice, columns: slice) -> Tensor:
    return image_to_tensor(image[rows, columns], images)[None]


def _mask(scores: Tensor) -> np.ndarray:
    return scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy()  # [H, W]


def _write(
    files: Sequence[Path],
    outputs: Outputs,
    image: np.ndarray,
    mask: np.ndarray,
    probabilities: np.ndarray | None,
    trained: TrainedNetwork,
) -> None:
    """Writes the files of an image, the label picture last: if it exists, the others do."""
    rest = list(files[1:])
    if outputs.overlay:
        picture = as_picture(image)
        overlay = np.empty_like(picture)
        for top in range(0, len(picture), STRIP):  # the numbers with fractions take many times the memory of the image
            strip = slice(top, top + STRIP)
            colored = colorize(mask[strip], trained.colors).astype(np.float32)
            overlay[strip] = ((1 - OVERLAY) * picture[strip] + OVERLAY * colored).round()
        write_atomically(rest.pop(0), partial(Image.fromarray(overlay).save, format="PNG", pnginfo=_mark()))
    if probabilities is not None:
        names = np.array(trained.classes)
        write_atomically(rest.pop(0), partial(np.savez, probabilities=probabilities, classes=names))
    values = _values(trained)
    label = Image.fromarray(values[mask])
    if values.dtype == np.uint8:
        palette = np.zeros((256, 3), np.uint8)
        palette[values] = trained.colors
        label.putpalette(palette.tobytes())
    write_atomically(files[0], partial(label.save, format="PNG", pnginfo=_mark()))


def _mark() -> PngInfo:
    mark = PngInfo()
    mark.add_text("Software", MARK)
    return mark


def _check_kept(files: Sequence[Path], root: str | None, overwrite: bool) -> None:
    """Checks that files which would be replaced are predictions; those in the data set are never anything else."""
    there = [file for file in files if os.path.lexists(file)]
    if root is not None:
        theirs = [file for file in there if file.resolve().is_relative_to(Path(root).resolve())]
        check_replaceable(theirs, f"it is in the run's data set, {root}; give another --out")
    if not overwrite:
        check_replaceable(there, "give another --out, or --overwrite")


def _values(trained: TrainedNetwork) -> np.ndarray:
    """The (lowest) value of each class in label files, [classes]: uint8, or uint16 if one is above 255."""
    table = class_ids(trained.config.loader.ids, len(trained.classes))
    first = {number: value for value, number in sorted(table.items(), reverse=True)}
    values = [first[number] for number in range(len(trained.classes))]
    return np.array(values, dtype=np.uint8 if max(values) < 256 else np.uint16)


def _check_targets(images: Sequence[Path], targets: Sequence[Sequence[Path]]) -> None:
    """Checks that no file would overwrite another one or an image."""
    originals = {image.resolve() for image in images}
    writers: dict[Path, Path] = {}
    for image, files in zip(images, targets, strict=True):
        for file in files:
            if file in writers:
                raise DataError(
                    f"{writers[file].name} and {image.name} would both be written to {file.name}: rename one"
                )
            writers[file] = image
            if file.resolve() in originals:
                raise DataError(
                    f"the prediction for {image} would overwrite the image {file}: give another folder to write to"
                )
