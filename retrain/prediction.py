"""Predicting masks for images that have no labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from nas.data.base import DataError, resize_image
from nas.data.loading import image_to_tensor
from nas.data.reading import IMAGE_SUFFIXES, read_image
from nas.devices import choose_device
from nas.evaluation import predict_logits
from nas.pictures import colorize
from retrain.source import TrainedNetwork, load_trained
from search_spaces.files import write_atomically
from search_spaces.modules import resize

__all__ = ["find_images", "predict", "predict_mask"]

OVERLAY = 0.5
"""Share of the class colour in an overlay."""


def find_images(source: str | Path) -> list[Path]:
    """One image, or all images in a folder, sorted by name.

    Raises:
        DataError: There is no such file, or the folder has no image.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source} does not exist: name an image or a folder of images")
    images = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise DataError(f"{source} has no image: expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return images


def predict_mask(trained: TrainedNetwork, image: np.ndarray) -> np.ndarray:
    """Predicts the class of every pixel.

    Args:
        trained: The network.
        image: uint8 [H, W, 3], RGB.

    Returns:
        Class ids, uint8 [H, W].
    """
    height, width = image.shape[:2]
    image = resize_image(image, trained.config.loader.resolution)
    device = next(trained.network.parameters()).device
    logits = predict_logits(trained.network, image_to_tensor(image)[None], device, trained.config.precision)
    return resize(logits, (height, width))[0].argmax(dim=0).cpu().numpy().astype(np.uint8)  # [H, W]


def predict(
    run: str | Path,
    source: str | Path,
    out: str | Path,
    which: str = "best",
    device: str = "auto",
    each: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Writes, for every image, NAME.png (class ids as a palette picture) and NAME_overlay.png into a folder.

    Args:
        run: The run folder of a retraining.
        source: An image, or a folder of images.
        out: The folder for the pictures, made if it is missing.
        which: "best" (highest validation mIoU) or "last".
        device: auto, cpu, cuda, cuda:N.
        each: Called with (number done, number of images) after each image.

    Returns:
        The label pictures.

    Raises:
        ValueError: The run, an image or the device cannot be used; one line that names the file.
    """
    images = find_images(source)
    _check_names(images, Path(out))
    trained = load_trained(run, which, choose_device(device))
    written = []
    for number, path in enumerate(images, start=1):
        image = read_image(path)
        mask = predict_mask(trained, image)
        label = Image.fromarray(mask)
        label.putpalette(np.concatenate([trained.colors, np.zeros((256 - len(trained.colors), 3), np.uint8)]).tobytes())
        colored = colorize(mask, trained.colors).astype(np.float32)
        overlay = ((1 - OVERLAY) * image + OVERLAY * colored).round().astype(np.uint8)
        label_name, overlay_name = _names(path)
        written.append(write_atomically(Path(out) / label_name, _png(label)))
        write_atomically(Path(out) / overlay_name, _png(Image.fromarray(overlay)))
        if each is not None:
            each(number, len(images))
    return written


def _names(image: Path) -> tuple[str, str]:
    """File names of an image's label picture and overlay."""
    return f"{image.stem}.png", f"{image.stem}_overlay.png"


def _check_names(images: Sequence[Path], out: Path) -> None:
    """Checks that no picture would be written over another one, nor over an image."""
    originals = {image.resolve(): image for image in images}
    writers: dict[str, Path] = {}
    for image in images:
        for name in _names(image):
            if name in writers:
                raise DataError(f"{writers[name].name} and {image.name} would both be written to {name}: rename one")
            writers[name] = image
            if (out / name).resolve() in originals:
                raise DataError(
                    f"the prediction for {image} would be written over the image {out / name}: give "
                    "another folder to write to"
                )


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
