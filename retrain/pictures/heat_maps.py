"""Where a network sees which class: its probability at every pixel of an image.

Source: Wang et al., 2020 (LI-Convs), Figure 6; with a scale of colours that colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from nas.data.base import resize_image
from nas.data.loading import image_to_tensor
from nas.evaluation.evaluate import predict_scores
from nas.evaluation.inference import Viewing
from nas.runs.pictures import colorize
from retrain.load import TrainedNetwork

__all__ = ["choose_classes", "class_probabilities", "draw_heat_maps"]

MAP_WIDTH, CAPTION, GAP, MARGIN, BAR, NOTE = 2.6, 0.36, 0.12, 0.15, 0.95, 0.32  # inches
COLUMNS, LONGEST_NAME = 4, 24


def class_probabilities(trained: TrainedNetwork, image: np.ndarray) -> np.ndarray:
    """Softmax of the logits, float32 [classes, H, W], for an image uint8 [H, W, 3]."""
    device = next(trained.network.parameters()).device
    resized = image_to_tensor(resize_image(image, trained.config.loader.resolution))[None]
    size = (image.shape[0], image.shape[1])
    logits = predict_scores(trained.network, resized, size, Viewing(), device, trained.config.precision)
    return logits[0].float().softmax(dim=0).cpu().numpy()


def choose_classes(names: Sequence[str], probabilities: np.ndarray, wanted: str | None, number: int = 6) -> list[int]:
    """The classes that are asked for, or those with the highest mean probability.

    Args:
        names: Of all classes.
        probabilities: [classes, H, W].
        wanted: Names with commas, or None.
        number: How many, if none are asked for.

    Raises:
        ValueError: There is no class of that name.
    """
    if wanted is None:
        order = np.argsort(-probabilities.mean(axis=(1, 2)), kind="stable")
        return [int(index) for index in order[:number]]
    chosen = []
    for name in (part.strip() for part in wanted.split(",")):
        if name not in names:
            raise ValueError(f"there is no class {name!r}: choose of {', '.join(names)}")
        chosen.append(list(names).index(name))
    return list(dict.fromkeys(chosen))


def draw_heat_maps(
    image: np.ndarray, probabilities: np.ndarray, names: Sequence[str], colors: np.ndarray, chosen: Sequence[int]
) -> Figure:
    """Draws the image, the predicted classes in their colours, and the probability of each chosen class, 0 to 1.

    A white line goes around the pixels where the class is the likeliest one; a square next to its name has its colour
    in the prediction.

    Args:
        image: uint8 [H, W, 3].
        probabilities: [classes, H, W].
        names: Of the classes.
        colors: uint8 [classes, 3].
        chosen: Indices of the classes to draw.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    prediction = probabilities.argmax(axis=0)  # [H, W]
    panels = 2 + len(chosen)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    height = MAP_WIDTH * image.shape[0] / image.shape[1]
    width = 2 * MARGIN + columns * MAP_WIDTH + (columns - 1) * GAP + BAR
    size = (width, MARGIN + rows * (height + CAPTION) + NOTE)
    figure = Figure(figsize=size, dpi=150, facecolor="white")

    def show(number: int, picture: np.ndarray, title: str, color: np.ndarray | None = None) -> None:
        row, column = divmod(number, columns)
        y = size[1] - (row + 1) * (height + CAPTION)
        x = MARGIN + column * (MAP_WIDTH + GAP)
        axes = figure.add_axes((x / size[0], y / size[1], MAP_WIDTH / size[0], height / size[1]))
        axes.set_axis_off()
        axes.imshow(picture, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        left = 0.0
        if color is not None:
            left = 0.08
            axes.scatter([0.03], [1 + 0.17 / height], s=70, marker="s", color=[color / 255], edgecolor="#666666",
                         linewidth=0.5, transform=axes.transAxes, clip_on=False)  # fmt: skip
            inside = prediction == chosen[number - 2]
            if inside.any() and not inside.all():
                axes.contour(inside, levels=[0.5], colors="white", linewidths=0.9)
        axes.text(left, 1 + 0.17 / height, title, fontsize=12, va="center", transform=axes.transAxes, parse_math=False)

    show(0, image, "image")
    show(1, colorize(prediction, colors), "prediction")
    for number, index in enumerate(chosen, start=2):
        name = names[index] if len(names[index]) <= LONGEST_NAME else f"{names[index][: LONGEST_NAME - 3]}..."
        show(number, probabilities[index], name, colors[index])
    note = "white line: around the pixels where the class is the likeliest"
    figure.text(MARGIN / size[0], 0.2 / size[1], note, fontsize=11, va="center")
    low = size[1] - height - CAPTION
    bar = figure.add_axes(((width - BAR + 0.05) / size[0], low / size[1], 0.15 / size[0], height / size[1]))
    figure.colorbar(ScalarMappable(Normalize(0, 1), "cividis"), cax=bar, ticks=[0, 0.5, 1])
    bar.tick_params(labelsize=11)
    bar.set_ylabel("probability", fontsize=11, labelpad=2)
    return figure
