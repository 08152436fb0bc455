"""CelebAMask-HQ (Lee et al., CVPR 2020), 19 classes: faces of 1024x1024 with masks of 512x512.

    ROOT/CelebA-HQ-img/N.jpg                                N is 0..29999
    ROOT/CelebA-HQ-to-CelebA-mapping.txt                    the split
    ROOT/CelebAMask-HQ-mask-anno/{0..14}/NNNNN_PART.png     the release's masks, one per part, 2,000 images per folder;
    ROOT/CelebAMask-HQ-mask/N.png                           or label maps made from them (see LABEL_FOLDERS)

Parts, their order, colours and the split: `face_parsing/Data_preprocessing` of
github.com/switchablenorms/CelebAMask-HQ (`g_mask.py`, `g_color.py`, `g_partition.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.base import DataError, file_state, register_dataset, resized
from nas.data.readers.listing import by_stem
from nas.data.readers.pairs import Pair, PairedDataset, check_root, listed_pairs, parts_of_split, splits_with
from nas.data.readers.reading import read_image, read_text

__all__ = ["CLASSES", "COLORS", "LABEL_FOLDERS", "SPLITS", "CelebAMask"]

COLORS = {
    "background": (0, 0, 0),
    "skin": (204, 0, 0),
    "nose": (76, 153, 0),
    "eye_g": (204, 204, 0),
    "l_eye": (51, 51, 255),
    "r_eye": (204, 0, 204),
    "l_brow": (0, 255, 255),
    "r_brow": (255, 204, 204),
    "l_ear": (102, 51, 0),
    "r_ear": (255, 0, 0),
    "mouth": (102, 204, 0),
    "u_lip": (255, 255, 0),
    "l_lip": (0, 0, 153),
    "hair": (0, 0, 204),
    "hat": (255, 51, 153),
    "ear_r": (0, 204, 204),
    "neck_l": (0, 51, 0),
    "neck": (255, 153, 51),
    "cloth": (0, 204, 0),
}
"""RGB of each class: background, then the parts from the lowest to the topmost. eye_g are glasses, ear_r is an earring,
neck_l a necklace, u_lip and l_lip are the upper and the lower lip; otherwise l_ and r_ are left and right."""

CLASSES = tuple(COLORS)

MIRROR = {
    CLASSES.index(f"{one}_{part}"): CLASSES.index(f"{other}_{part}")
    for part in ("eye", "brow", "ear")
    for one, other in ("lr", "rl")
}
"""Left and right in a mirror image."""

FIRST_VAL, FIRST_TEST = 162_771, 182_638
"""First numbers in CelebA of `val` and `test`, as in `g_partition.py`."""

SPLITS = {
    "train": range(FIRST_VAL),
    "val": range(FIRST_VAL, FIRST_TEST),
    "test": range(FIRST_TEST, 10**9),
    "trainval": range(FIRST_TEST),
}
"""Numbers in CelebA of each split's images."""

IMAGES = "CelebA-HQ-img"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
PARTS = "CelebAMask-HQ-mask-anno"
LABEL_FOLDERS = ("CelebAMask-HQ-mask", "CelebAMaskHQ-mask", "CelebAMask-HQ-label", "mask")
"""Possible folders of label maps: the first that exists is read; without one, the parts are."""

PER_FOLDER = 2000
"""Images per folder of parts."""


@register_dataset(
    "celebamask",
    needs_root=True,
    summary="CelebAMask-HQ, 19 classes, parts of faces, 512x512",
    splits=splits_with(train=IMAGES, val=IMAGES, test=IMAGES),
)
class CelebAMask(PairedDataset):
    """CelebAMask-HQ read from disk, sorted by number; images are resized to the size of their masks.

    Args:
        root: Folder with `CelebA-HQ-img`, masks and `CelebA-HQ-to-CelebA-mapping.txt`.
        split: `train` (24,183 images), `val` (2,993), `test` (2,824) or `trainval`.

    Raises:
        DataError: Root, split or mapping are not as expected, or an image or its masks are missing.
    """

    mirror = MIRROR

    def __init__(self, root: Path, split: str) -> None:
        check_root(
            "celebamask",
            root,
            lambda path: (path / IMAGES).is_dir(),
            f"{IMAGES}/, {MAPPING}, and {PARTS}/ or label maps in {LABEL_FOLDERS[0]}/",
        )
        numbers = parts_of_split("celebamask", SPLITS, split)
        mapping = root / MAPPING
        names = [str(number) for number, original in sorted(_mapping(mapping).items()) if original in numbers]
        maps = [root / name for name in LABEL_FOLDERS if (root / name).is_dir()]
        self.joined = not maps
        labels = by_stem("celebamask", "label", maps[0], (".png",)).files if maps else _masks(root / PARTS)
        images = by_stem("celebamask", "image", root / IMAGES, (".jpg", ".png")).files
        where = maps[0] if maps else root / PARTS
        pairs = listed_pairs("celebamask", mapping, names, (root / IMAGES, images), (where, labels))
        super().__init__("celebamask", split, CLASSES, np.array(list(COLORS.values()), dtype=np.uint8), pairs)

    def identity(self, index: int) -> list[Any]:
        parts = _parts(self.pairs[index]) if self.joined else {}
        return [*super().identity(index), *(file_state(path) for path in parts.values())]

    def read_values(self, index: int) -> NDArray[np.int32]:
        if not self.joined:
            return super().read_values(index)
        values: NDArray[np.int32] | None = None
        for number, path in _parts(self.pairs[index]).items():
            covered = read_image(path)[..., 2] != 0  # the channel that the official script reads; all are equal
            if values is None:
                values = np.zeros(covered.shape, dtype=np.int32)
            if covered.shape != values.shape:
                raise DataError(
                    f"mask {path} is {covered.shape[1]}x{covered.shape[0]} but others of its image are "
                    f"{values.shape[1]}x{values.shape[0]} (width x height); they must be the same size"
                )
            values[covered] = number
        if values is None:
            raise DataError(f"no mask {self.pairs[index].label}_PART.png exists any more")
        return values

    def fitted(self, image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        height, width = size
        if image.shape[:2] == size or image.shape[0] * width != image.shape[1] * height:  # then an error
            return image
        return resized(image, size)


def _mapping(path: Path) -> dict[int, int]:
    """Number in CelebA by image number; lines, after a heading, are NUMBER NUMBER_IN_CELEBA FILE_IN_CELEBA."""
    if not path.is_file():
        raise DataError(f"celebamask: {path} does not exist; it comes with the data set and assigns images to splits")
    found: dict[int, int] = {}
    for count, line in enumerate(read_text("mapping", path).splitlines(), start=1):
        words = line.split()
        if not words or (count == 1 and not words[0].isdecimal()):
            continue
        if len(words) < 2 or not all(word.isdecimal() and len(word) < 10 for word in words[:2]):
            raise DataError(
                f"celebamask: {path}, line {count} is {line.strip()[:60]!r}; expected the image's number here and in "
                "CelebA, such as '0 119613 119614.jpg'"
            )
        if int(words[0]) in found:
            raise DataError(f"celebamask: {path}, line {count} names image {words[0]} a second time")
        found[int(words[0])] = int(words[1])
    return found


def _masks(folder: Path) -> dict[str, Path]:
    """Common start of the paths of an image's masks, FOLDER/N/NNNNN, by image number."""
    if not folder.is_dir():
        raise DataError(
            f"celebamask: {folder.parent} holds no masks; expected {PARTS}/, or label maps in one of "
            f"{', '.join(f'{name}/' for name in LABEL_FOLDERS)}"
        )
    found = {}
    part = re.compile(rf"(\d{{5}})_(?:{'|'.join(CLASSES[1:])})\.png")
    for inner in range(15):
        for path in (folder / str(inner)).glob("*.png"):
            match = part.fullmatch(path.name)
            if match is not None and int(match[1]) // PER_FOLDER == inner:
                found[str(int(match[1]))] = path.with_name(match[1])
    if not found:
        raise DataError(f"celebamask: {folder} holds no masks; expected 0/00000_skin.png and so on, in folders 0 to 14")
    return found


def _parts(pair: Pair) -> dict[int, Path]:
    """Masks of an image by class id, from the lowest to the topmost."""
    paths = ((number, Path(f"{pair.label}_{name}.png")) for number, name in enumerate(CLASSES) if number)
    return {number: path for number, path in paths if path.is_file()}
