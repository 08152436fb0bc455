"""The pictures of a report: each kind of picture a row, with the runs side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from retrain.pictures.config import PictureConfig
from retrain.pictures.drawing import FOLDER, PICTURES, Subject
from retrain.report.album import Album
from retrain.report.markup import Markup, details, element, figure, join
from retrain.report.runs import RunRecord

__all__ = ["gallery"]

FROM_RECORD = ("trellis", "cell", "history", "smoothing")
"""Pictures that are drawn anew for every report: they need no network."""

MOST_FILES = 12
"""Pictures taken from a run's folder of pictures."""

Shown = dict[str, dict[str, Markup]]
"""Picture -> run -> what is shown."""


def gallery(
    runs: Sequence[RunRecord], album: Album, image: str | Path | None = None
) -> Iterator[tuple[str, str, Markup]]:
    """The section of pictures, if there are any: (anchor, heading, content).

    Args:
        runs: Those of the report.
        album: Holds the pictures.
        image: What the networks of retrainings are shown at work on; else the pictures of `nas-draw` are taken.

    Raises:
        ValueError: The image cannot be read.
    """
    config = PictureConfig(image=str(image) if image is not None else None)
    shown: Shown = defaultdict(dict)
    left_out: list[str] = []
    for run in runs:
        subject = Subject(run.path, config)
        if image is not None:
            _ = subject.image
        drawn = [name for name in FROM_RECORD if _is_there(name, run)]
        if image is not None and not run.searches:
            drawn += [name for name in PICTURES if name not in FROM_RECORD]
        for name in drawn:
            try:
                address = album.figure(PICTURES[name].draw(subject))
            except ValueError as error:
                if name not in ("smoothing", "features"):  # most runs have none of these
                    left_out.append(f"{name} of {run.name}: {error}")
                continue
            shown[name][run.name] = _image(address, name, run.name)
        _add_files(run, album, drawn, shown, left_out)
    if not shown and not left_out:
        return
    order = [*(name for name in PICTURES if name in shown), *(name for name in shown if name not in PICTURES)]
    parts: list[object] = []
    for name in order:
        title = PICTURES[name].description if name in PICTURES else name
        figures = [figure(run if len(runs) > 1 else "", content) for run, content in shown[name].items()]
        parts.append(element("h3", title[0].upper() + title[1:]))
        parts.append(element("div", *figures, class_="grid" if len(figures) > 1 else "grid one"))
    if left_out:
        notes = [element("p", f"No {reason}") for reason in left_out]
        parts.append(details("Pictures that are not here", *notes))
    yield "pictures", "Pictures", join(parts)


def _is_there(name: str, run: RunRecord) -> bool:
    if name == "history":
        return len(run.history) > 1
    return run.genotype is not None if name in ("trellis", "cell") else bool(run.lines)


def _add_files(run: RunRecord, album: Album, drawn: Sequence[str], shown: Shown, left_out: list[str]) -> None:
    """Adds what nas-draw left in the run's folder, unless it was drawn anew."""
    files = [path for path in sorted((run.path / FOLDER).glob("*.png")) if path.stem not in drawn]
    files += [
        path for path in (run.path / FOLDER / "history.gif",) if path.exists() and run.name in shown.get("history", {})
    ]
    for path in files[:MOST_FILES]:
        try:
            picture = _image(album.file(path), path.stem, run.name)
        except ValueError as error:
            left_out.append(f"{path.stem} of {run.name}: {error}")
            continue
        if path.suffix == ".gif":  # below the picture, and folded: it moves only where that is asked for
            picture = join([shown[path.stem][run.name], details("As an animation", picture)])
        shown[path.stem][run.name] = picture
    if len(files) > MOST_FILES:
        left_out.append(f"more than {MOST_FILES} pictures of {run.name}, of {len(files)} in {run.path / FOLDER}")


def _image(address: str, name: str, run: str) -> Markup:
    what = PICTURES[name].description if name in PICTURES else name
    return element("img", src=Markup(address), alt=f"{what}, of run {run}")
