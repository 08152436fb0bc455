"""Settings of `nas-data convert`. Neither torch nor NumPy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from search_spaces.validation import Settings

__all__ = ["FOR_MASKS", "FOR_SHAPES", "ConvertConfig", "Format"]

Format = Literal["auto", "coco", "labelme", "cvat", "supervisely", "masks"]

FOR_SHAPES, FOR_MASKS = ("unlabelled", "line_width"), ("masks", "suffix", "nearest")
"""Options of formats with shapes, and of masks; None where they are not given."""


@dataclass(frozen=True)
class ConvertConfig(Settings):
    """What to convert, and how; files and folders are those of the user."""

    path_fields = ("source", "out", "images", "masks", "colors", "lists")

    source: str
    out: str
    format: Format = "auto"
    """What SOURCE holds; auto: found out from its files."""
    images: str | None = None
    """Folder of the images, with subfolders; SOURCE if not given."""
    masks: str | None = None
    """Folder of the masks; if not given, found by names such as masks/ and labels/, or by --suffix."""
    suffix: str | None = None
    """End of the names of masks, before the extension; _mask if not given."""
    colors: str | None = None
    """Class file (see docs/data.md) with the classes in the order of their ids, and the colours of masks."""
    nearest: float | None = None
    """Greatest distance in RGB at which a colour that --colors does not list is taken for the nearest one."""
    unlabelled: Literal["background", "ignore"] | None = None
    """What pixels outside all shapes are; background, a class of its own, if not given."""
    line_width: int | None = None
    """Width of lines, in pixels; 10 if not given."""
    exif: Literal["turn", "ignore"] = "turn"
    """What labels were drawn on: turn, the image as EXIF turns it; ignore, the pixels as stored. They are made to fit
    the turned image."""
    val: float | None = None
    """Share of the images for val; 0.15 if not given, unless folders such as train/ and val/ are splits already."""
    test: float | None = None
    """Share of the images for test; 0.15 if not given, likewise."""
    lists: str | None = None
    """Folder with train.txt, val.txt, ...: the images of each split, a name a line."""
    group: str | None = None
    """Regular expression on an image's path: images with the same match, or first group of it, stay in one split, such
    as the frames of a video."""
    seed: int | None = None
    """Seed of the split by shares; 0 if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("val", "test", least=0, below=1)
        self.limit("nearest", least=0, most=442)
        self.limit("line_width", least=1, most=1000)
        if (self.val or 0) + (self.test or 0) >= 1:
            raise ValueError(f"val and test are {self.val} and {self.test}: give shares with a sum below 1")
        if self.nearest is not None and self.colors is None:
            raise ValueError("nearest needs colours to compare with: give --colors FILE, too")
        by_shares = [name for name in ("val", "test", "group", "seed") if getattr(self, name) is not None]
        if self.lists is not None and by_shares:
            raise ValueError(f"--lists names the images of each split: leave --{by_shares[0]} out")
        try:
            re.compile(self.group or "")
        except re.error as error:
            raise ValueError(f"group is {self.group!r}, which is no regular expression: {error}") from None
