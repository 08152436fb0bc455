"""The FPLNet-style network of a genotype: any genotype and size, its stages, a count by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.evaluation.cost import count_parameters, describe
from retrain.networks import build
from retrain.networks.blocks import DropPath
from retrain.networks.searched_fplnet import SearchedFPLNet
from retrain.networks.settings import NetworkConfig
from search_spaces.factorized import FactorizedPyramid
from search_spaces.genotype import Block
from search_spaces.modules import BatchNorm
from test_networks import GENOTYPES, genotype

SMALL: dict[str, Any] = {"filter_multiplier": 2}
CELL = (Block(("l-2", "l-1"), ("skip", "separable_3x3")),)


def runs(path: tuple[int, ...]) -> list[int]:
    """The stride of each longest run of one stride."""
    return [stride for number, stride in enumerate(path) if number == 0 or path[number - 1] != stride]


@pytest.mark.parametrize("name", GENOTYPES)
def test_any_genotype(name: str) -> None:
    source = GENOTYPES[name]
    network = SearchedFPLNet(source, 3, NetworkConfig(**SMALL))
    x = torch.randn(2, 3, 33, 47)
    logits = network(x)
    assert logits.shape == (2, 3, 33, 47)
    F.cross_entropy(logits, torch.randint(3, (2, 33, 47))).backward()
    missing = [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None]
    assert not missing
    strides = [max(1, source.path[0] // 2), *runs(source.path)]
    assert [info.stride for info in network.feature_info] == strides
    features = network.eval().features(x)
    assert list(features) == [f"stage{number}" for number in range(1, len(strides) + 1)]
    for feature, info in zip(features.values(), network.feature_info, strict=True):
        assert feature.shape == (2, info.channels, -(-33 // info.stride), -(-47 // info.stride))


@pytest.mark.parametrize("name", ["one layer", "five layers", "stem stride 1", "stem stride 32", "only l-2"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (64, 65)])
def test_any_input_size(name: str, size: tuple[int, int]) -> None:
    network, x = SearchedFPLNet(GENOTYPES[name], 3, NetworkConfig(**SMALL)), torch.randn(2, 3, *size)
    with torch.no_grad():
        trained, first, second = network.train()(x), network.eval()(x), network(x)
    assert trained.shape == first.shape == (2, 3, *size)
    assert trained.isfinite().all() and first.isfinite().all()
    assert torch.equal(first, second)


def test_parameters_by_hand() -> None:
    network = SearchedFPLNet(genotype((4, 8, 8), CELL, 2), 3, NetworkConfig(**SMALL))
    cells = [cell for stage in network.stages for cell in stage.cells]
    # Initial module, as FPLNet's: 19,619 and the batch norm and PReLU of 35 channels.
    assert count_parameters(network.initial) == 19_619 + 105
    # Cell 1, f = 2: two projections of 35 channels, a strided skip, two halves of a separable convolution.
    # Cell 2, f = 4: projections of 35 (the initial module's) and of 5 (FIR's: 2 + 3), a strided skip.
    # Cell 3: projections of 5 (FIR's) and of 4 (cell 2's).
    separable2, separable4 = 2 * (9 * 2 + 2 * 2 + 4), 2 * (9 * 4 + 4 * 4 + 8)
    assert [count_parameters(cell) for cell in cells] == [
        2 * (35 * 2 + 4) + (2 * 2 + 4) + separable2,
        (35 * 4 + 8) + (5 * 4 + 8) + (4 * 4 + 8) + separable4,
        (5 * 4 + 8) + (4 * 4 + 8) + separable4,
    ]
    assert [count_parameters(stage.fusion) for stage in network.stages] == [3 * (2 + 3), 3 * (4 + 4 + 3)]
    # Decoder, as FPLNet's but for its input and classes.
    decoder = 11 * 64 + 37_056 + 19_456 + 9_264 + 1_312 + 4 * 16 * 3
    assert count_parameters(network.decoder) == decoder == 67_984
    assert count_parameters(network) == 19_724 + (208 + 320 + 172) + (15 + 33) + 67_984 == 88_456


def test_stages() -> None:
    """Which cell reads what, and which FIR unit: the unit's output stands for the last cell's from then on."""
    network = SearchedFPLNet(genotype((4, 4, 4, 8, 4, 4), CELL, 2), 3, NetworkConfig(**SMALL)).eval()
    cells = [cell for stage in network.stages for cell in stage.cells]
    assert [len(stage.cells) for stage in network.stages] == [3, 1, 2]
    seen: dict[nn.Module, tuple[Any, Any]] = {}
    for module in (network.initial, *cells, *(stage.fusion for stage in network.stages)):
        module.register_forward_hook(lambda module, inputs, output: seen.update({module: (inputs, output)}))
    x = torch.randn(1, 3, 17, 24)
    with torch.no_grad():
        network(x)
    initial = seen[network.initial][1]
    one, two, three, four, five, six = (seen[cell][1] for cell in cells)
    fir1, fir2, fir3 = (seen[stage.fusion][1] for stage in network.stages)
    inputs = [seen[cell][0][:2] for cell in cells]
    expected = [(initial, initial), (initial, one), (one, two), (two, fir1), (fir1, fir2), (fir2, five)]
    assert all(a is c and b is d for (a, b), (c, d) in zip(inputs, expected, strict=True))
    sizes = [seen[cell][0][2] for cell in cells]
    assert sizes == [(9, 12), (5, 6), (5, 6), (5, 6), (5, 6), (5, 6)]  # the finer of a cell's level and the one before
    for stage, (shallow, deep) in zip(network.stages, [(one, three), (four, four), (five, six)], strict=True):
        (first, last, image), _ = seen[stage.fusion]
        assert first is shallow and last is deep
        assert image.shape[-2:] == deep.shape[-2:]
    assert [stage.fusion.parts for stage in network.stages] == [
        ("sum", "deep", "image"), ("deep", "image"), ("sum", "deep", "image"),
    ]  # fmt: skip
    assert network.stages[0].fusion.channels_out == 2 + 2 + 3
    assert fir3.shape[1] == network.feature_info[-1].channels == network.decoder.projection.in_channels


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("stem stride 1", [1, 1, 1]),
        ("stem stride 2", [1, 1, 1]),
        ("five layers", [2, 1, 1]),
        ("stem stride 8", [2, 1, 2]),
        ("stem stride 32", [2, 2, 2, 2]),
    ],
)
def test_initial_module_comes_to_half_the_stride_of_the_path(name: str, strides: list[int]) -> None:
    network = SearchedFPLNet(GENOTYPES[name], 3, NetworkConfig(**SMALL))
    convolutions = [module for module in network.initial.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.stride[0] for convolution in convolutions] == strides
    assert all(convolution.out_channels == 32 for convolution in convolutions)


def test_build_and_describe() -> None:
    network = build(GENOTYPES["five layers"], 3, NetworkConfig(kind="fplnet", **SMALL))
    assert isinstance(network, SearchedFPLNet)
    described = describe(network, (65, 65))
    assert [feature["size"][0] for feature in described["features"]] == [33, 17, 9, 5, 9, 17]
    assert sum(part["parameters"] for part in described["parts"]) == described["parameters"]
    with pytest.raises(ValueError, match=r"network\.aspp_channels has no effect"):
        build(GENOTYPES["five layers"], 3, NetworkConfig(kind="fplnet", aspp_channels=8))


def test_settings_of_operations_and_of_the_decoder() -> None:
    cell = (Block(("l-2", "l-1"), ("fpl", "fpl")),)
    network = SearchedFPLNet(genotype((4, 8), cell, 2), 3, NetworkConfig(fpl_rates=(1, 3), fpl_fusion="pair"))
    pyramids = [module for module in network.modules() if isinstance(module, FactorizedPyramid)]
    assert len(pyramids) == 2 * 2 + 2 * 2  # of two cells; of two upsamplers in the decoder
    assert {(pyramid.fusion, len(pyramid.branches)) for pyramid in pyramids} == {("pair", 2)}
    assert network.stages[0].cells[0].channels == 20  # the default filter multiplier
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.1)}


def test_drop_path() -> None:
    network = SearchedFPLNet(GENOTYPES["five layers"], 3, NetworkConfig(**SMALL, drop_path_keep=0.5))
    drops = [module for module in network.modules() if isinstance(module, DropPath)]
    assert [drop.keep for drop in drops] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    network.set_progress(0.5)
    assert all(drop.progress.item() == 0.5 for drop in drops)


def test_what_nothing_reads_is_frozen() -> None:
    network = SearchedFPLNet(GENOTYPES["only l-2, last cell but one unread"], 3, NetworkConfig(**SMALL))
    frozen = {".".join(key.split(".")[:3]) for key, value in network.named_parameters() if not value.requires_grad}
    # Path 4, 8, 8: cell 2 is read by its stage's FIR unit; the first stage's unit by cell 3 alone.
    assert frozen == set()
    one_read = SearchedFPLNet(
        genotype((4, 8, 4), (Block(("l-2", "l-2"), ("skip", "skip")),), 2), 3, NetworkConfig(**SMALL)
    )
    frozen = {".".join(key.split(".")[:2]) for key, value in one_read.named_parameters() if not value.requires_grad}
    assert frozen == {"stages.1"}  # cell 3 reads the first stage
