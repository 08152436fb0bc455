"""Evaluation at several scales and mirrored: averages by hand, the plain evaluation as it was, and its file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cli.common import parse_size
from cli.inference import SCALE_SETS, parse_scales
from nas.evaluation.evaluate import evaluate_network, predict_scores
from nas.evaluation.inference import Inference, Viewing
from retrain.evaluation import Evaluation
from search_spaces.modules import resize

CPU = torch.device("cpu")


class Watched(nn.Module):
    """A convolution at stride 2 that sees left from right; keeps the sizes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, 2, 1)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape[-2:]))
        return resize(self.convolution(x), (x.shape[-2], x.shape[-1]))


def probabilities(network: nn.Module, images: Tensor, size: tuple[int, int], scales: Any, flip: bool) -> Tensor:
    return predict_scores(network, images, size, Viewing(scales, flip), CPU, "float32")


def test_sides_are_scaled_between_their_corners() -> None:
    # As DeepLab's code has it: 513 at scale 0.5 is 257, at 1.75 it is 897.
    network = Watched()
    scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    probabilities(network, torch.randn(1, 3, 513, 9), (513, 9), scales, False)
    assert [height for height, _ in network.sizes] == [257, 385, 513, 641, 769, 897]
    assert [width for _, width in network.sizes] == [5, 7, 9, 11, 13, 15]
    probabilities(network, torch.randn(1, 3, 2, 1), (2, 1), (0.01,), False)
    assert network.sizes[-1] == (1, 1)


@pytest.mark.parametrize("size", [(17, 25), (33, 40)])
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_are_averaged_at_the_labels_size(size: tuple[int, int], flip: bool) -> None:
    network, images = Watched().eval(), torch.randn(2, 3, 17, 25)
    with torch.no_grad():
        views = []
        for height, width in ((9, 13), (17, 25), (29, 43)):
            x = nn.functional.interpolate(images, (height, width), mode="bilinear", align_corners=True)
            views.append(resize(network(x).softmax(1), size))
            if flip:
                views.append(resize(network(x.flip(3)).softmax(1).flip(3), size))
        found = probabilities(network, images, size, (0.5, 1.0, 1.75), flip)
    torch.testing.assert_close(found, torch.stack(views).mean(0))
    assert found.shape == (2, 4, *size)
    torch.testing.assert_close(found.sum(1), torch.ones(2, *size))


def test_mirroring_the_image_mirrors_the_result() -> None:
    network, images = Watched().eval(), torch.randn(1, 3, 17, 25)
    with torch.no_grad():
        first, second = (probabilities(network, x, (17, 25), (1.0, 1.5), True) for x in (images, images.flip(3)))
        alone = probabilities(network, images.flip(3), (17, 25), (1.0, 1.5), False)
    torch.testing.assert_close(first, second.flip(3))
    assert not torch.allclose(first, alone.flip(3))


def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for index in range(3):
        labels = torch.randint(4, (1, 34 - index, 20), generator=generator)
        labels[:, :3] = 255
        yield torch.randn(1, 3, 17 + index, 10, generator=generator), labels, torch.tensor([index])


def test_the_plain_evaluation_is_the_argmax_of_the_logits() -> None:
    network = Watched()
    plain = evaluate_network(network, batches(), 4, CPU)
    same = evaluate_network(network, batches(), 4, CPU, viewing=Viewing((1.0,), False))
    assert (plain.counts == same.counts).all()
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for images, labels, _ in batches():
        with torch.no_grad():
            predictions = resize(network(images), (labels.shape[1], labels.shape[2])).argmax(1)
        for label, prediction in zip(labels.flatten(), predictions.flatten(), strict=True):
            if label != 255:
                expected[label, prediction] += 1
    assert plain.counts.tolist() == expected.tolist()


def test_several_views_count_the_argmax_of_their_mean() -> None:
    network, scales = Watched(), (0.5, 1.0)
    found = evaluate_network(network, batches(), 4, CPU, viewing=Viewing(scales, True))
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for images, labels, _ in batches():
        mean = probabilities(network, images, (labels.shape[1], labels.shape[2]), scales, True)
        counted = labels != 255
        expected.index_put_((labels[counted], mean.argmax(1)[counted]), torch.tensor(1), accumulate=True)
    assert found.counts.tolist() == expected.tolist()
    assert found.counts.tolist() != evaluate_network(network, batches(), 4, CPU).counts.tolist()


@pytest.mark.parametrize(
    ("scales", "says"),
    [
        ((), "scales is empty: give 1 to 16"),
        ([1 + n / 100 for n in range(17)], "scales has 17 entries: give 1 to 16"),
        ((1.0, 0.0), "scales[1] is 0.0: give a number above 0 up to 8"),
        ((-0.5,), "scales[0] is -0.5: give"),
        ((float("nan"),), "scales[0] is nan: give"),
        ((float("inf"),), "scales[0] is inf: give"),
        ((9.0,), "scales[0] is 9.0: give"),
        ((0.5, 1.0, 0.5), "scales is [0.5, 1.0, 0.5]: give each one once"),
    ],
)
def test_scales_that_cannot_be_used_are_refused(scales: Any, says: str) -> None:
    for make in (Viewing, Inference):
        with pytest.raises(ValueError) as raised:
            make(scales)
        assert str(raised.value).startswith(says) and "\n" not in str(raised.value)


# The command and the file


def test_scales_on_the_command_line() -> None:
    assert parse_scales("1") == parse_scales("1.0") == (1.0,)
    assert parse_scales("0.5,1.0, 1.75") == parse_scales("[0.5, 1, 1.75]") == parse_scales("li3") == (0.5, 1.0, 1.75)
    assert [len(SCALE_SETS[name]) for name in ("li3", "li5", "li6")] == [3, 5, 6]  # Table 6
    for text in ("", "li4", "1,,2", "1;2"):
        with pytest.raises(ValueError, match=r"give factors with commas, .* or one of li3, li5, li6"):
            parse_scales(text)


def test_sizes_on_the_command_line() -> None:
    assert parse_size("--window", "65x129") == parse_size("--window", "[65, 129]") == (65, 129)
    for text in ("", "65", "65x", "65x-1", "0x9", "1x2x3", "axb"):
        with pytest.raises(ValueError, match=r"^--window is '.*': give HEIGHTxWIDTH in pixels, such as 512x1024$"):
            parse_size("--window", text)


def evaluation(**changes: Any) -> Evaluation:
    values: dict[str, Any] = {
        "miou": 0.5,
        "pixel_accuracy": 0.75,
        "mean_over": [2, 2],
        "names_sha256": "0" * 64,
        "iou": {"a": 0.5, "b": None},
        "images": 1,
        "data": "shapes",
        "split": "val",
        "resolution": 1.0,
        "checkpoint": "best.pt",
        "checkpoint_sha256": "0" * 64,
        "epoch": 3,
        "seed": 0,
        "confusion": [[1, 0], [0, 0]],
        "metrics": {},
        "scales": [1.0],
        "flip": False,
        "window": None,
        "stride": None,
        "smallest_image": [9, 9],
        "largest_image": [9, 9],
        "precision": "float32",
        "folded": 0,
        "compiled": False,
        "device_type": "cpu",
        "package_version": "1",
        "torch_version": "2",
        "settings": {},
    }
    return Evaluation(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({}, "evaluation-val-best.json", None),
        ({"scales": [1.0], "flip": False, "checkpoint": "checkpoint.pt"}, "evaluation-val-last.json", None),
        ({"flip": True}, "evaluation-val-best-scales-1-flip.json", "; scales 1, each also mirrored"),
        ({"scales": [0.5]}, "evaluation-val-best-scales-0.5.json", "; scales 0.5"),
        (
            {"scales": [0.5, 1.0, 1.75], "flip": True},
            "evaluation-val-best-scales-0.5-1-1.75-flip.json",
            "; scales 0.5, 1, 1.75, each also mirrored",
        ),
        (
            {"window": [64, 96], "stride": [32, 96]},
            "evaluation-val-best-window-64x96-stride-32x96.json",
            "; windows of 64x96 at stride 32x96",
        ),
        (
            {"flip": True, "window": [64, 96], "stride": [32, 96], "precision": "float16"},
            "evaluation-val-best-scales-1-flip-window-64x96-stride-32x96.json",
            "; in float16; scales 1, each also mirrored; windows of 64x96 at stride 32x96",
        ),
        ({"settings": {"precision": "bfloat16"}}, "evaluation-val-best-bfloat16.json", None),
        ({"settings": {"precision": None}}, "evaluation-val-best.json", None),
    ],
)
def test_the_file_says_how_images_were_seen(
    changes: dict[str, Any], name: str, said: str | None, tmp_path: Path
) -> None:
    result = evaluation(**changes)
    assert result.save(tmp_path) == tmp_path / name
    written = json.loads((tmp_path / name).read_text())
    assert written == dataclasses.asdict(result)
    assert (written["scales"], written["flip"]) == (list(result.scales), result.flip)
    assert result.table().endswith(said) if said else "scales" not in result.table()
