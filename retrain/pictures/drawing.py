"""The pictures of a run, and a function that writes them to its folder `pictures`, where `nas-report` finds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas.config import SearchConfig
from nas.data.base import resize_image
from nas.data.loading import image_to_tensor
from nas.data.readers.reading import read_image
from nas.runs.folder import read_metrics, refuse_links
from nas.runs.history import draw_history, read_history, save_animation
from nas.runs.names import CONFIG, GENOTYPE, command_of, runs_within
from nas.runs.pictures import PATHS, draw_paths, figure_to_array
from nas.training.devices import choose_device
from retrain.load import TrainedNetwork, load_trained
from retrain.pictures.config import PictureConfig
from retrain.pictures.heat_maps import choose_classes, class_probabilities, draw_heat_maps
from retrain.pictures.operations import draw_inhibition, draw_smoothing, see_inhibition, smoothing_coefficients
from retrain.pictures.receptive_field import draw_field, effective_field
from search_spaces.drawing import draw_cell, save_figure
from search_spaces.files import check_replaceable
from search_spaces.genotype import Genotype, load_genotype
from search_spaces.validation import as_path, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FOLDER", "PICTURES", "Picture", "Subject", "draw_pictures"]

FOLDER = "pictures"
"""In a run folder."""

ANIMATION = ".gif"


@dataclass(frozen=True)
class Subject:
    """A run and the settings of its pictures. Each file of the run is read once."""

    run: Path
    config: PictureConfig

    @cached_property
    def genotype(self) -> Genotype:
        """The genotype that was found or is trained; ValueError if the run has none, as that of a published network."""
        if not (self.run / GENOTYPE).exists():
            raise ValueError(f"{self.run} has no {GENOTYPE}: it is a run of a published network, or without an epoch")
        return load_genotype(self.run / GENOTYPE)

    @cached_property
    def trained(self) -> TrainedNetwork:
        """The trained network; ValueError if the run is a search or lacks the checkpoint."""
        if command_of(self.run) == SearchConfig.command:
            raise ValueError(f"{self.run} is a search: this picture is of a network that nas-retrain trained")
        return load_trained(self.run, self.config.checkpoint or "best", choose_device(self.config.device or "auto"))

    @cached_property
    def image(self) -> np.ndarray:
        """The image, [H, W, C]; ValueError if none was given or it cannot be read."""
        if self.config.image is None:
            raise ValueError("this picture is of an image: give --image FILE")
        of_search = command_of(self.run) == SearchConfig.command  # then no picture can show it
        return read_image(as_path(self.config.image), None if of_search else self.trained.config.loader)

    @property
    def tensor(self) -> torch.Tensor:
        """The input of the network, (1, C, H, W), on its device."""
        loader = self.trained.config.loader
        resized = image_to_tensor(resize_image(self.image, loader.resolution), loader)
        return resized[None].to(next(self.trained.network.parameters()).device)


def _trellis(subject: Subject) -> Figure:
    paths, genotype = subject.config.paths, subject.genotype
    beta = "the genotype has no beta, by which paths are more or less probable: leave --paths out"
    require(paths is None or genotype.beta is not None, beta)
    return draw_paths(genotype, paths or PATHS)


def _features(subject: Subject) -> Figure:
    inhibited = see_inhibition(subject.trained.network, subject.tensor, subject.config.layer)
    return draw_inhibition(subject.image, inhibited, subject.config.channels or 6)


def _heat(subject: Subject) -> Figure:
    trained = subject.trained
    probabilities = class_probabilities(trained, subject.image)
    chosen = choose_classes(trained.classes, probabilities, subject.config.classes)
    return draw_heat_maps(subject.image, probabilities, trained.classes, trained.colors, chosen)


def _field(subject: Subject) -> Figure:
    config, trained = subject.config, subject.trained
    samples = config.samples or 16
    image = subject.tensor[0].cpu() if config.image is not None else None
    field = effective_field(trained.network, config.size or 257, samples, image)
    inputs = f"{samples} {'random inputs' if image is None else 'crops of the image'}"
    name = trained.config.genotype if not (subject.run / GENOTYPE).exists() else subject.genotype.space.name
    return draw_field(field, name[:40], inputs)


@dataclass(frozen=True)
class Picture:
    """A picture that a run can have."""

    description: str
    """Shown in help texts and captions."""
    draw: Callable[[Subject], Figure]
    """Draws the picture; raises ValueError if the run cannot have it."""
    reads: tuple[str, ...] = ()
    """Settings that the picture depends on."""


OF_NETWORK = ("checkpoint", "device")
PICTURES: Mapping[str, Picture] = {
    "trellis": Picture("the path on the trellis", _trellis, ("paths",)),
    "cell": Picture("the cell as a graph", lambda subject: draw_cell(subject.genotype)),
    "history": Picture(
        "path and cell over a search, also as an animation", lambda subject: draw_history(read_history(subject.run))
    ),
    "smoothing": Picture(
        "coefficients of aggregated smoothing over a training",
        lambda subject: draw_smoothing(smoothing_coefficients(read_metrics(subject.run))),
    ),
    "features": Picture(
        "features before and after a lateral inhibition", _features, ("image", "layer", "channels", *OF_NETWORK)
    ),
    "heat": Picture("probability of classes over an image", _heat, ("image", "classes", *OF_NETWORK)),
    "field": Picture("effective receptive field", _field, ("size", "samples", "image", *OF_NETWORK)),
}


def draw_pictures(
    run: str | Path,
    names: Sequence[str] = (),
    config: PictureConfig | None = None,
    out: str | Path | None = None,
    tensorboard: bool = False,
    overwrite: bool = False,
) -> tuple[list[Path], dict[str, str]]:
    """Draws pictures of a run and writes them.

    Args:
        run: The run folder of a search or a retraining.
        names: Names in PICTURES; none: all pictures that the run can have.
        config: Settings of the pictures.
        out: The file of a single named picture, ending in .svg, .png or .pdf, or (history) .gif; None: files in
            the folder `pictures` of the run, SVG and PNG.
        tensorboard: Also write them for TensorBoard, as the subfolder `pictures` of the run.
        overwrite: Replace `out`, too, if it is no picture of a run.

    Returns:
        The files, and the pictures that the run cannot have: name -> reason (a named picture raises instead).

    Raises:
        ValueError: The run or the image cannot be used, a picture is unknown or impossible (if none are named: all
            are), or no picture reads a given setting; one line.
    """
    run, config = as_path(run), config or PictureConfig()
    _check(names, config, out)
    if out is not None and not overwrite:
        check_replaceable([as_path(out)])
    refuse_links([run / FOLDER, *(run / FOLDER).glob("events.out.*")])
    if not (run / CONFIG).exists():
        raise ValueError(f"{run} is not a run folder: it has no {CONFIG}{runs_within(run)}")
    subject = Subject(run, config)
    if config.image is not None:
        _ = subject.image  # an unreadable image is refused, whatever the pictures
    figures: dict[str, Figure] = {}
    impossible: dict[str, str] = {}
    for name in names or PICTURES:
        try:
            figures[name] = PICTURES[name].draw(subject)
        except ValueError as error:
            if names:
                raise
            impossible[name] = str(error)
    if not figures:
        # The reason is that of a picture which every run of this kind has once it is complete.
        telling = "trellis" if command_of(run) == SearchConfig.command else "field"
        raise ValueError(f"nothing can be drawn: {impossible[telling]}")
    for field in dataclasses.fields(config):  # settings of pictures that could not be drawn
        without = [name for name in impossible if _reads(name, field.name)]
        given = getattr(config, field.name) is not None
        if given and without and not any(_reads(name, field.name) for name in figures):
            raise ValueError(f"{field.name} has no effect, as there is no {without[0]}: {impossible[without[0]]}")
    written = []
    for name, figure in figures.items():
        files = [as_path(out)] if out is not None else [run / FOLDER / f"{name}{ending}" for ending in _endings(name)]
        for file in files:
            animated = file.suffix.lower() == ANIMATION
            written.append(save_animation(read_history(run), file) if animated else save_figure(figure, file))
    if tensorboard:
        _show(run, figures)
    return written, impossible


def _reads(name: str, setting: str) -> bool:
    return setting in PICTURES[name].reads


def _endings(name: str) -> tuple[str, ...]:
    return (".svg", ".png", *([ANIMATION] if name == "history" else []))


def _check(names: Sequence[str], config: PictureConfig, out: str | Path | None) -> None:
    for name in names:
        require(name in PICTURES, f"there is no picture {name!r}: choose from {', '.join(PICTURES)}")
    for field in dataclasses.fields(config):
        given = getattr(config, field.name) is not None
        message = f"{field.name} has no effect on the picture {' or '.join(names)}: leave it out"
        require(not given or any(_reads(name, field.name) for name in names or PICTURES), message)
    if out is not None:
        require(len(names) == 1, f"--out is {str(out)!r}, one file: name one picture by --what")
        animated = Path(out).suffix.lower() == ANIMATION
        message = f"--out is {str(out)!r}, an animation, which only history can be: give a name in .svg, .png or .pdf"
        require(not animated or names[0] == "history", message)


def _show(run: Path, figures: Mapping[str, Figure]) -> None:
    """Writes the pictures for TensorBoard into a separate folder: the run may still be writing its events."""
    from torch.utils.tensorboard import SummaryWriter

    lines = read_metrics(run)
    with SummaryWriter(str(run / FOLDER)) as board:
        for name, figure in figures.items():
            board.add_image(f"pictures/{name}", figure_to_array(figure), len(lines), dataformats="HWC")
