"""The files of a folder and its subfolders by name, and what in them is not read."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from nas.data.base import DataError
from search_spaces.validation import counted

__all__ = ["Listing", "by_stem", "check_folder", "few", "list_files", "listed", "not_read", "subfolders"]

_OF_THE_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""Written by Windows and macOS, and ignored like hidden files."""

NAMED = 5
"""Most names in a message."""


class Listing(NamedTuple):
    """The files of a folder."""

    files: dict[str, Path]
    """By name: the path in the folder without extension, in Unicode's composed form (NFC); sorted by path."""
    unread: list[Path]
    """Files with other extensions, and folders that were read already."""


def list_files(
    folder: Path, suffixes: Collection[str], recursive: bool = True, without: Path | None = None
) -> tuple[list[Path], list[Path]]:
    """List the files below a folder, without hidden ones; links are followed, and each folder is read once.

    Args:
        folder: The folder.
        suffixes: Extensions in lower case.
        recursive: List the files in subfolders, too.
        without: A resolved folder to leave out.

    Returns:
        The files with these extensions, and what is not read: other files, and folders; both sorted.
    """
    found, unread, seen = list[Path](), list[Path](), set[tuple[int, int]]()
    folders, links = [folder], list[Path]()  # links last: of a folder and a link to it, the folder is read
    while folders or links:
        current = folders.pop() if folders else links.pop()
        state = current.stat()
        if (state.st_dev, state.st_ino) in seen:
            unread.append(current)
            continue
        seen.add((state.st_dev, state.st_ino))
        for path in sorted(current.iterdir()):
            if path.name.startswith(".") or path.name.lower() in _OF_THE_SYSTEM:
                continue
            if path.is_dir() and recursive:
                if path.resolve() != without:
                    (links if path.is_symlink() else folders).append(path)
            elif path.suffix.lower() in suffixes and path.is_file():
                found.append(path)
            elif without is None or path.resolve() != without:
                unread.append(path)
    return sorted(found), sorted(unread)


def by_stem(name: str, kind: str, folder: Path, suffixes: Collection[str]) -> Listing:
    """List the files of a folder and its subfolders by name.

    Args:
        name: Name of the data set, for messages.
        kind: Kind of files, for messages.
        folder: The folder.
        suffixes: Extensions in lower case.

    Raises:
        DataError: The folder is missing or has no such file, or two share one name.
    """
    check_folder(name, kind, folder)
    found, unread = list_files(folder, suffixes)
    files: dict[str, Path] = {}
    for path in found:
        stem = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if stem in files:
            raise DataError(f"{name}: {files[stem]} and {path} share one name; keep one of them")
        files[stem] = path
    if not files:
        usual = [suffix for suffix in (".png", ".jpg", ".tif", ".bmp") if suffix in suffixes]
        raise DataError(
            f"{name}: {folder} holds no {kind} files; expected {', '.join(usual)}{' or the like' * (len(usual) > 1)}"
            + (f"; it holds {listed(unread, folder)}" if unread else "")
        )
    return Listing(files, unread)


def check_folder(name: str, kind: str, folder: Path) -> None:
    """Check that a folder of images or labels exists.

    Raises:
        DataError: It does not; the message lists the folders next to it.
    """
    if not folder.is_dir():
        parent = folder.parent
        there = f"{parent} holds {listed(subfolders(parent), parent)}" if parent.is_dir() else f"nor does {parent}"
        raise DataError(f"{name}: the {kind} folder {folder} does not exist; {there}")


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def listed(paths: Sequence[Path], folder: Path | None = None) -> str:
    """Names of files and folders for messages, at most five, with paths inside `folder`."""
    shown = [
        f"{path.relative_to(folder) if folder and path.is_relative_to(folder) else path}{'/' * path.is_dir()}"
        for path in paths[:NAMED]
    ]
    return few(shown, len(paths)) or "no folders"


def few(names: Sequence[str], count: int | None = None) -> str:
    """Names for messages, at most five, and dots if there are more, or `count` of them."""
    return ", ".join([*names[:NAMED], *["..."] * ((count or len(names)) > NAMED)])


def not_read(paths: Sequence[Path], folder: Path | None = None) -> str:
    """What was not read, counted and named: "2 files were not read: a.txt, b.csv"; empty if all was."""
    if not paths:
        return ""
    folders = [path.is_dir() for path in paths]
    what = counted(len(paths), "folder" if all(folders) else "files and folder" if any(folders) else "file")
    return f"{what} {'was' if len(paths) == 1 else 'were'} not read: {listed(paths, folder)}"
