"""Pretrained weights of a backbone: what loads, what is reported, what is refused without a tensor being touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from retrain.networks import build
from retrain.networks.base import SegmentationNetwork
from retrain.networks.deeplab_v2 import DeepLabV2
from retrain.networks.settings import NetworkConfig
from retrain.pretrained import load_backbone_weights

CLASSIFIER = {
    "features.18.0.weight": torch.zeros(2, 2),
    "features.18.1.weight": torch.zeros(2),
    "classifier.1.weight": torch.zeros(2, 2),
    "classifier.1.bias": torch.zeros(2),
}


def meta(name: str, **settings: Any) -> SegmentationNetwork:
    with torch.device("meta"):
        return build(name, 3, NetworkConfig(**settings))


@pytest.fixture(scope="module")
def networks() -> dict[str, SegmentationNetwork]:
    torch.manual_seed(0)
    config = NetworkConfig(aspp_channels=4)
    return {name: build(name, 3, config) for name in ("mnv2-aspp", "li-mnv2-li-aspp")}


@pytest.fixture
def weights(networks: dict[str, SegmentationNetwork]) -> dict[str, Tensor]:
    """A checkpoint of MobileNetV2: every value differs from that of a fresh network."""
    backbone = networks["mnv2-aspp"].get_submodule("backbone")
    return {name: torch.full_like(tensor, 2) for name, tensor in backbone.state_dict().items()} | CLASSIFIER


def save(content: Any, folder: Path) -> Path:
    file = folder / "weights.pth"
    torch.save(content, file)
    return file


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_matching_weights_load(
    networks: dict[str, SegmentationNetwork],
    weights: dict[str, Tensor],
    wrapped: str | None,
    prefix: str,
    tmp_path: Path,
) -> None:
    network = networks["li-mnv2-li-aspp"]
    for tensor in network.state_dict().values():
        tensor.zero_()
    content: dict[str, Any] = {prefix + name: tensor for name, tensor in weights.items()}
    file = save({wrapped: content, "epoch": 3} if wrapped else content, tmp_path)
    report = load_backbone_weights(network, file)
    assert report == (
        f"255 of 255 tensors of the backbone from {file}; 4 of the file not used "
        "(features.18.0.weight, features.18.1.weight, classifier.1.weight, ...)"
    )
    for name, tensor in network.state_dict().items():
        loaded = name.startswith("backbone") and "li.intensity" not in name and not name.endswith("batches_tracked")
        assert (tensor == (2 if loaded else 0)).all()


def test_report_without_leftovers_and_old_files_without_counters(
    networks: dict[str, SegmentationNetwork], weights: dict[str, Tensor], tmp_path: Path
) -> None:
    needed = {name: t for name, t in weights.items() if name not in CLASSIFIER and not name.endswith("tracked")}
    file = save(needed, tmp_path)
    assert load_backbone_weights(networks["mnv2-aspp"], str(file)) == f"255 of 255 tensors of the backbone from {file}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features.3.conv.2.weight": None},
            r"needs features\.3\.conv\.2\.weight of shape \[24, 144, 1, 1\].*has none",
        ),
        (
            {"features.17.conv.3.bias": torch.ones(2)},
            r"needs features\.17\.conv\.3\.bias of shape \[320\].*file's is \[2\].*torchvision's layout",
        ),
    ],
)
def test_nothing_loads_unless_all_matches(
    networks: dict[str, SegmentationNetwork],
    weights: dict[str, Tensor],
    change: dict[str, Tensor | None],
    message: str,
    tmp_path: Path,
) -> None:
    network = networks["mnv2-aspp"]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone_weights(network, save(changed, tmp_path))
    assert "\n" not in str(caught.value) and "MobileNetV2 needs" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "in_file", "message"),
    [
        (
            "resnet50-aspp",
            {"conv1.weight": torch.zeros(64, 3, 7, 7)},
            r"conv1\.0\.weight of shape \[64, 3, 3, 3\].*one 7x7 convolution: take .* name ends in -plain-stem$",
        ),
        (
            "resnet50-aspp-plain-stem",
            {"conv1.0.weight": torch.zeros(64, 3, 3, 3)},
            r"conv1\.weight of shape \[64, 3, 7, 7\].*its stem has several convolutions",
        ),
        ("deeplabv2-resnet50", CLASSIFIER, r"ResNet needs conv1\.weight.*torchvision's layout"),
        ("mnv2-aspp", {"conv1.weight": torch.zeros(1)}, r"MobileNetV2 needs features\.0\.0\.weight"),
    ],
)
def test_other_layouts_are_told(name: str, in_file: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_backbone_weights(meta(name), save(in_file, tmp_path))


@pytest.mark.filterwarnings("ignore:the official window")
@pytest.mark.parametrize("smoothing", ["none", "ss_conv", "g_interact", "aggregated"])
def test_smoothing_needs_no_weights_of_its_own(smoothing: Any, tmp_path: Path) -> None:
    units = (2, 1, 1, 1)
    plain = DeepLabV2(3, NetworkConfig(), units).backbone
    network = DeepLabV2(3, NetworkConfig(smoothing=smoothing), units)
    # One convolution for the stem, three for each unit and one for each stage's shortcut; five tensors with its norm.
    assert load_backbone_weights(network, save(plain.state_dict(), tmp_path)).startswith("100 of 100 tensors")
    own = network.backbone.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in plain.state_dict().items())


def test_network_without_a_backbone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"network\.backbone_weights: FPLNet has no backbone.*leave it out"):
        load_backbone_weights(meta("fplnet"), save({"a": torch.zeros(1)}, tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("folder", "cannot be read: Is a directory"),
        (b"", "damaged"),
        (b"<html>not found</html>", "damaged"),
        (b"PK\x03\x04 cut short", "damaged"),
        (torch.nn.Linear(1, 1), "damaged, or not a file of weights"),  # a pickled module is not unpickled
        ([1, 2], "holds no state dict"),
        ({"epoch": 3}, "holds no state dict.*state_dict or model"),
        ({"state_dict": {}}, "holds no state dict"),
    ],
    ids=["missing", "folder", "empty", "html", "cut", "module", "list", "numbers", "nothing"],
)
def test_unusable_files(networks: dict[str, SegmentationNetwork], content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone_weights(networks["mnv2-aspp"], file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
