"""Heat maps: the probability of a class at every pixel of an image (Wang et al., 2020, LI-Convs, Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from nas.data.base import resize_image
from nas.data.loading import image_to_tensor
from nas.evaluation.evaluate import predict_scores
from nas.evaluation.inference import Viewing
from nas.runs.pictures import as_picture, colorize
from retrain.load import TrainedNetwork

__all__ = ["choose_classes", "class_probabilities", "draw_heat_maps"]

MAP_WIDTH, CAPTION, BAR, NOTE = 2.7, 0.4, 0.8, 0.35  # inches
COLUMNS, LONGEST_NAME = 4, 24


def class_probabilities(trained: TrainedNetwork, image: np.ndarray) -> np.ndarray:
    """Softmax of the logits, float32 [classes, H, W], for an image [H, W, C]."""
    device = next(trained.network.parameters()).device
    loader = trained.config.loader
    resized = image_to_tensor(resize_image(image, loader.resolution), loader)[None]
    size = (image.shape[0], image.shape[1])
    logits = predict_scores(trained.network, resized, size, Viewing(), device, trained.config.precision)
    return logits[0].float().softmax(dim=0).cpu().numpy()


def choose_classes(names: Sequence[str], probabilities: np.ndarray, wanted: str | None, number: int = 6) -> list[int]:
    """Returns indices of the requested classes, or of those with the highest mean probability.

    Args:
        names: Names of all classes.
        probabilities: [classes, H, W].
        wanted: Names separated by commas, or None.
        number: Number of classes if `wanted` is None.

    Raises:
        ValueError: There is no class of that name.
    """
    if wanted is None:
        order = np.argsort(-probabilities.mean(axis=(1, 2)), kind="stable")
        return [int(index) for index in order[:number]]
    chosen = []
    for name in (part.strip() for part in wanted.split(",")):
        if name not in names:
            raise ValueError(f"there is no class {name!r}: choose from {', '.join(names)}")
        chosen.append(list(names).index(name))
    return list(dict.fromkeys(chosen))


def draw_heat_maps(
    image: np.ndarray, probabilities: np.ndarray, names: Sequence[str], colors: np.ndarray, chosen: Sequence[int]
) -> Figure:
    """Draws the image, the predicted classes in their colours, and the probability of each chosen class, 0 to 1.

    A white line encloses the pixels where the class is the most likely one. The square next to its name has the colour
    that the class has in the prediction.

    Args:
        image: [H, W, C].
        probabilities: [classes, H, W].
        names: Names of all classes.
        colors: uint8 [classes, 3].
        chosen: Indices of the classes to draw.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    prediction = probabilities.argmax(axis=0)  # [H, W]
    columns = min(COLUMNS, 2 + len(chosen))
    rows = -(-(2 + len(chosen)) // columns)
    size = (columns * MAP_WIDTH + BAR, rows * (MAP_WIDTH * image.shape[0] / image.shape[1] + CAPTION) + NOTE)
    figure = Figure(figsize=size, dpi=150, facecolor="white", layout="compressed")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, picture, title in zip(
        panels, (as_picture(image), colorize(prediction, colors)), ("image", "prediction"), strict=False
    ):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=12, loc="left")
    for axes, index in zip(panels[2:], chosen, strict=False):
        axes.imshow(probabilities[index], cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        inside = prediction == index
        if inside.any() and not inside.all():
            axes.contour(inside, levels=[0.5], colors="white", linewidths=0.9)
        name = names[index] if len(names[index]) <= LONGEST_NAME else f"{names[index][: LONGEST_NAME - 3]}..."
        square = Patch(facecolor=colors[index] / 255, edgecolor="#666666", linewidth=0.5)
        legend = axes.legend([square], [name], loc="lower left", bbox_to_anchor=(0, 1), fontsize=12, frameon=False,
                             borderpad=0.2, borderaxespad=0, handlelength=0.7, handletextpad=0.4)  # fmt: skip
        legend.get_texts()[0].set_parse_math(False)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), "cividis"), ax=panels, ticks=[0, 0.5, 1], aspect=10 * rows, pad=0.02
    )
    bar.set_label("probability", fontsize=11)
    bar.ax.tick_params(labelsize=11)
    figure.supxlabel("white line: around the pixels where the class is the most likely one", fontsize=11)
    return figure
