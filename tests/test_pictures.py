"""Pictures of what a network does, and nas-draw."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from decoders.path import path_probability
from folders import genotype_of, retrain_folder, search_folder
from nas.runs.pictures import draw_paths
from retrain.load import load_trained
from retrain.networks.base import SegmentationNetwork
from retrain.pictures import PictureConfig, draw_pictures, effective_field, see_inhibition
from retrain.pictures.drawing import PICTURES, Subject
from retrain.pictures.heat_maps import choose_classes, class_probabilities
from retrain.pictures.operations import Inhibited, draw_smoothing, smoothing_coefficients, strongest
from retrain.pictures.receptive_field import effective_part, effective_side, reach
from search_spaces.genotype import load_genotype
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.space import load


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return retrain_folder(tmp_path_factory.mktemp("runs") / "retrained")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (49, 65, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


# The effective receptive field


class Convolutions(SegmentationNetwork):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(classes=2)
        self.layers = nn.Sequential(*layers)

    def logits(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_the_field_of_a_convolution_is_its_kernel() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 1, 3, padding=1)
    field = effective_field(Convolutions(convolution), size=9, samples=3)
    kernel = convolution.weight[0].detach().double().square().sum(0).sqrt().numpy()
    expected = np.zeros((9, 9))
    expected[3:6, 3:6] = kernel / kernel.max()
    np.testing.assert_allclose(field, expected, atol=1e-6)
    assert reach(field) == (3, 6, 3, 6)


def test_classes_of_opposite_sign_do_not_cancel() -> None:
    convolution = nn.Conv2d(3, 2, 1, bias=False)
    with torch.no_grad():
        convolution.weight[1] = -convolution.weight[0]
    field = effective_field(Convolutions(convolution), size=9, samples=8)  # all signs alike: once in 128
    assert field[4, 4] == 1 and field.sum() == 1


def test_layers_reach_as_far_as_theory_says() -> None:
    layers = Convolutions(nn.Conv2d(3, 2, 3, padding=2, dilation=2), nn.Conv2d(2, 2, 5, padding=2))
    assert reach(effective_field(layers, size=17, samples=2)) == (4, 13, 4, 13)  # 1 + 2 * 2 + 4 = 9 pixels


def test_the_side_of_an_even_field_is_its_own() -> None:
    field = np.zeros((65, 65))
    field[20:41, 20:41] = 1
    part = effective_part(field)
    assert part[24:37, 24:37].all() and not part[:15].any()
    assert effective_side(np.ones((33, 33))) == 33


def test_crops_of_an_image_smaller_than_the_input(photograph: Path) -> None:
    field = effective_field(Convolutions(nn.Conv2d(3, 2, 3, padding=1)), size=33, samples=1, image=torch.zeros(3, 8, 9))
    assert field.shape == (33, 33)


def test_a_network_without_a_gradient_is_refused() -> None:
    convolution = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(convolution.weight)
    with pytest.raises(ValueError, match="no gradient arrives"):
        effective_field(Convolutions(convolution), size=9, samples=1)


# Lateral inhibition


def test_features_are_those_before_and_after_the_layer() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), LateralInhibition(4, init=(0.1, 0.5)), LateralInhibition(4)).eval()
    image = torch.randn(1, 3, 9, 9)
    seen = see_inhibition(network, image)
    before = network[0](image)
    assert seen.layer == "1" and not network[1]._forward_hooks
    np.testing.assert_allclose(seen.before, before.relu()[0].detach(), atol=1e-6)
    np.testing.assert_allclose(seen.after, network[1](before)[0].detach(), atol=1e-6)
    assert see_inhibition(network, image, "2").intensity.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="no lateral inhibition '3': choose one of 1, 2"):
        see_inhibition(network, image, "3")
    with pytest.raises(ValueError, match="the network has no lateral inhibition"):
        see_inhibition(network[0], image)


def test_the_strongest_channels_are_those_that_lose_most() -> None:
    before = np.array([1.0, 5.0, 3.0])[:, None, None] * np.ones((3, 2, 2))
    after = np.array([0.5, 4.9, 1.0])[:, None, None] * np.ones((3, 2, 2))
    assert strongest(Inhibited("x", before, after, np.ones(3)), 2) == [2, 0]


# Heat maps and coefficients


def test_probabilities_have_the_size_of_the_image(trained: Path) -> None:
    image = np.zeros((40, 50, 3), dtype=np.uint8)
    probabilities = class_probabilities(load_trained(trained), image)
    assert probabilities.shape == (2, 40, 50)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_classes_are_the_likeliest_or_those_asked_for() -> None:
    names = ("a", "b", "c")
    probabilities = np.array([0.2, 0.5, 0.3])[:, None, None] * np.ones((3, 2, 2))
    assert choose_classes(names, probabilities, None, number=2) == [1, 2]
    assert choose_classes(names, probabilities, "c, a,c") == [2, 0]
    with pytest.raises(ValueError, match="no class 'd': choose from a, b, c"):
        choose_classes(names, probabilities, "a,d")


def test_coefficients_are_read_by_module() -> None:
    names = ("identity", "average", "gaussian", "ss_conv")
    lines = [
        {"epoch": 0, "modules": {f"x.own/{name}": 0.25 for name in names} | {"li/mean": 0.5}},
        {"epoch": 1},
        {"epoch": 2, "modules": {f"AggregationCoefficients/mean {name}": 0.25 for name in names}},
        {"epoch": 3, "modules": 7},
    ]
    found = smoothing_coefficients(lines)
    assert set(found) == {"x.own", "mean of all AggregationCoefficients"}
    assert found["x.own"]["ss_conv"] == [(1, 0.25)]
    with pytest.raises(ValueError, match=r"--network\.smoothing aggregated"):
        smoothing_coefficients(lines[1:2])
    assert "no filter" in [t.get_text() for t in draw_smoothing(found).legends[0].get_texts()]


# The command's function


def check_texts_are_inside(figure: Figure) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    width, height = figure.get_size_inches() * figure.dpi
    texts = [*figure.texts, *(text for axes in figure.axes for text in [*axes.texts, axes.title])]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()
        assert not text.get_text() or text.get_fontsize() >= 10  # at half size, still 5 points


def test_a_search_has_its_pictures(tmp_path: Path) -> None:
    written, impossible = draw_pictures(search_folder(tmp_path / "run"))
    names = ("trellis.svg", "trellis.png", "cell.svg", "cell.png", "history.svg", "history.png", "history.gif")
    assert written == [tmp_path / "run" / "pictures" / name for name in names]
    assert list(impossible) == ["smoothing", "features", "heat", "field"]
    assert "a network that nas-retrain trained" in impossible["heat"]


def test_a_setting_whose_picture_there_is_not_is_refused_and_nothing_written(trained: Path) -> None:
    before = set(trained.rglob("*"))
    with pytest.raises(ValueError, match=r"classes has no effect, as there is no heat: .*give --image"):
        draw_pictures(trained, config=PictureConfig(classes="sky", size=33, samples=2, device="cpu"))
    assert set(trained.rglob("*")) == before


def test_the_paths_in_grey_are_the_most_probable_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    genotype = genotype_of(replace(load("autodeeplab-tiny"), layers=3, levels=3), seed=4)
    assert genotype.beta is not None
    ways = [(a, b, c) for a, b, c in product(range(3), repeat=3) if a < 2 and abs(a - b) < 2 and abs(b - c) < 2]
    ways.sort(key=lambda levels: -path_probability(genotype.beta, levels))
    best = [tuple(genotype.space.strides[level] for level in levels) for levels in ways]
    seen: list[list[tuple[int, ...]]] = []
    monkeypatch.setattr(
        "nas.runs.pictures.draw_trellis", lambda genotype, others=(), title=None: seen.append(list(others))
    )
    draw_paths(genotype)
    draw_paths(genotype, 1)
    draw_paths(genotype, 1000)
    draw_paths(replace(genotype, path=best[3]), 3)  # edited by hand: none of the three
    draw_paths(replace(genotype, beta=None))
    assert seen == [best[1:5], [], best[1:], best[:3], []]


def test_paths_are_refused_where_none_is_more_probable(tmp_path: Path) -> None:
    run = search_folder(tmp_path / "run", epochs=1)
    (file,), _ = draw_pictures(run, ("trellis",), PictureConfig(paths=3), tmp_path / "trellis.svg")
    assert file.stat().st_size > 0
    replace(load_genotype(run / "genotype.json"), alpha=None, beta=None).save(run / "genotype.json")
    with pytest.raises(ValueError, match=r"has no beta.*leave --paths out"):
        draw_pictures(run, ("trellis",), PictureConfig(paths=3))
    draw_pictures(run, ("trellis",))


def test_a_run_of_which_nothing_can_be_drawn_is_refused(tmp_path: Path) -> None:
    run = search_folder(tmp_path / "run", epochs=1)
    (run / "genotype.json").write_text("{")
    with pytest.raises(ValueError, match=r"nothing can be drawn: .*genotype\.json: not valid JSON"):
        draw_pictures(run)
    trained = retrain_folder(tmp_path / "trained", epochs=0)
    (trained / "best.pt").unlink()
    with pytest.raises(ValueError, match=r"nothing can be drawn: .*best\.pt"):
        draw_pictures(trained)
    assert not (run / "pictures").exists() and not (trained / "pictures").exists()


def test_a_retraining_has_its_pictures(trained: Path, photograph: Path, tmp_path: Path) -> None:
    config = PictureConfig(image=str(photograph), size=33, samples=2, channels=9, classes="sky", device="cpu")
    written, impossible = draw_pictures(trained, config=config)
    assert {path.stem for path in written} == {"smoothing", "features", "heat", "field"}
    assert all(path.stat().st_size > 0 for path in written)
    assert list(impossible) == ["trellis", "cell", "history"]
    for name in ("smoothing", "features", "heat", "field"):
        check_texts_are_inside(PICTURES[name].draw(Subject(trained, config)))
    (file,), _ = draw_pictures(trained, ("field",), PictureConfig(size=9, samples=1), tmp_path / "x.png")
    assert Image.open(file).format == "PNG"


def test_pictures_go_to_tensorboard_in_a_folder_of_their_own(tmp_path: Path) -> None:
    run = search_folder(tmp_path / "run", epochs=1)
    draw_pictures(run, ("trellis",), tensorboard=True)
    assert list((run / "pictures").glob("events.out.tfevents.*")) and not list(run.glob("events.out.*"))


def test_a_picture_that_is_named_must_be_possible(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give --image FILE"):
        draw_pictures(trained, ("heat",))
    with pytest.raises(ValueError, match=r"no genotype\.json"):
        draw_pictures(trained, ("cell",))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png"):
        draw_pictures(trained, config=PictureConfig(image=str(tmp_path / "text.png")))
