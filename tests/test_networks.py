"""Networks: the published numbers, shapes at any size and in any space, drop path, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.evaluation import cost
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork
from retrain.networks.blocks import ASPP, AtrousBranch, DropPath, Stem, aspp_rates, stem_strides
from retrain.networks.cell import Cell, drop_path_keep
from retrain.networks.deeplab import DeepLab
from retrain.networks.settings import NetworkConfig
from search_spaces.genotype import Block, Genotype
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.modules import BatchNorm, resize
from search_spaces.published import auto_deeplab
from search_spaces.settings import OperationSettings
from search_spaces.smoothing import AverageFilter, GaussianFilter, SmoothedConv2d
from search_spaces.space import SearchSpace
from search_spaces.space import Stem as SpaceStem

SMALL: dict[str, Any] = {
    "filter_multiplier": 2,
    "stem_channels": (4, 4, 8),
    "aspp_channels": 8,
    "decoder_channels": 8,
    "low_level_channels": 4,
    "batch_norm_momentum": 0.1,
}
CONVOLUTIONS = Block(("l-2", "l-1"), ("separable_3x3", "atrous_3x3"))
OTHERS = Block(("block1", "l-1"), ("skip", "max_pooling_3x3"))


def genotype(
    path: tuple[int, ...], cell: tuple[Block, ...], levels: int, stem: tuple[int, ...] = (2, 2), **fields: Any
) -> Genotype:
    operations = tuple(dict.fromkeys(name for block in cell for name in block.operations))
    space = SearchSpace(
        "test",
        layers=len(path),
        levels=levels,
        blocks=len(cell),
        operations=fields.get("operations", operations),
        stem=SpaceStem(stem),
        settings=fields.get("settings", OperationSettings()),
    )
    return Genotype(space, cell, path)


GENOTYPES = {
    "one layer": genotype((4,), (CONVOLUTIONS, OTHERS), 4),
    "one layer, coarser": genotype((8,), (CONVOLUTIONS, OTHERS), 4),
    "five layers": genotype((4, 8, 16, 8, 4), (CONVOLUTIONS, OTHERS), 3),
    "two levels": genotype((8, 4, 8), (CONVOLUTIONS, OTHERS), 2),
    "one level": genotype((4, 4, 4), (CONVOLUTIONS, OTHERS), 1),
    "one block": genotype((4, 4, 8, 4), (CONVOLUTIONS,), 2),
    "three operations": genotype((4, 8), (CONVOLUTIONS,), 2, operations=("separable_3x3", "none", "atrous_3x3")),
    "stem stride 1": genotype((1, 2, 1), (CONVOLUTIONS, OTHERS), 2, stem=(1,)),
    "stem stride 2": genotype((2, 2, 4), (CONVOLUTIONS, OTHERS), 3, stem=(2,)),
    "stem stride 8": genotype((8, 16, 16), (CONVOLUTIONS, OTHERS), 2, stem=(2, 2, 2)),
    "stem stride 32": genotype((32, 64), (CONVOLUTIONS, OTHERS), 2, stem=(2,) * 5),
    "no weights": genotype((4, 8, 8), (Block(("l-2", "l-1"), ("skip", "average_pooling_3x3")),), 2),
    "only l-1": genotype((4, 8, 8), (Block(("l-1", "l-1"), ("skip", "separable_3x3")),), 2),
    "only l-2": genotype((4, 8, 8, 4), (Block(("l-2", "l-2"), ("skip", "separable_3x3")),), 2),
    "only l-2, last cell but one unread": genotype((4, 8, 8), (Block(("l-2", "l-2"), ("skip", "skip")),), 2),
}


@pytest.fixture(scope="module")
def published_small() -> nn.Module:
    torch.manual_seed(0)
    return build("auto-deeplab-s", 5, NetworkConfig(**SMALL))


@pytest.mark.parametrize(
    ("name", "parameters", "giga_multiply_adds"),
    [
        ("auto-deeplab-s", 10_147_427, 320.450),
        ("auto-deeplab-m", 21_622_451, 439.922),
        ("auto-deeplab-l", 44_424_691, 662.424),
    ],
)
def test_published_counts(name: str, parameters: int, giga_multiply_adds: float) -> None:
    with torch.device("meta"):
        network = build(name, 19)
    measured = cost.measure(network, (1025, 2049))
    assert measured.parameters == parameters
    assert round(measured.multiply_adds / 1e9, 3) == giga_multiply_adds


def test_features_have_the_authors_shapes() -> None:
    described = cost.describe(build("auto-deeplab-s", 19, NetworkConfig(filter_multiplier=10)), (321, 321))
    shapes = [(feature["channels"], feature["size"][0]) for feature in described["features"]]
    assert shapes == [
        (50, 81), (50, 81), (50, 81), (100, 41), (200, 21), (100, 41),
        (200, 21), (200, 21), (400, 11), (400, 11), (200, 21), (100, 41),
    ]  # fmt: skip
    assert [feature["stride"] for feature in described["features"]] == list(auto_deeplab().path)


@pytest.fixture(scope="module", params=NETWORKS)
def published(request: pytest.FixtureRequest) -> tuple[str, SegmentationNetwork]:
    """Each published network in turn, as narrow as its settings allow."""
    torch.manual_seed(0)
    settings = {name: value for name, value in SMALL.items() if name in NETWORKS[request.param].settings}
    return request.param, build(request.param, 5, NetworkConfig(**settings))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (33, 47), (65, 64)])
def test_any_input_size(published: tuple[str, SegmentationNetwork], size: tuple[int, int]) -> None:
    _, network = published
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        for mode in (True, False):
            logits = network.train(mode)(x)
            assert logits.shape == (2, 5, *size)
            assert torch.isfinite(logits).all()
        assert torch.equal(network(x), logits)


def test_every_trained_parameter_gets_a_gradient(published: tuple[str, SegmentationNetwork]) -> None:
    _, network = published
    network.train()(torch.randn(2, 3, 33, 47)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    network.zero_grad()


def test_parts_that_networks_name(published: tuple[str, SegmentationNetwork]) -> None:
    name, network = published
    children = {name for name, _ in network.named_children()}
    assert network.head and set(network.head) <= children
    assert ("backbone" in children) == ("backbone_weights" in NETWORKS[name].settings)
    with torch.no_grad():
        features = network.eval().features(torch.randn(1, 3, 33, 47))  # type: ignore[operator]
    for feature, info in zip(features.values(), network.feature_info, strict=True):  # type: ignore[arg-type]
        assert feature.shape == (1, info.channels, -(-33 // info.stride), -(-47 // info.stride))


@pytest.mark.parametrize(
    ("name", "field", "value", "instead"),
    [
        ("resnet50-aspp", "li_blocks", (3,), "backbone_weights"),
        ("mnv2-aspp", "li_zone", 5, "aspp_channels"),
        ("mnv2-li-aspp", "li_blocks", (3,), "li_zone"),
        ("li-resnet50-li-aspp", "decoder_channels", 8, "li_zone"),
        ("li-resnet50-li-aspp", "li_blocks", (3,), "li_zone"),
        ("resnet50-aspp-plain-stem", "li_zone", 5, "backbone_weights"),
        ("deeplabv2-resnet50", "dropout", 0.5, "smoothing_window"),
        ("auto-deeplab-s", "backbone_weights", "file", "filter_multiplier"),
        ("fplnet", "smoothing", "average", "fpl_rates"),
        ("espnet", "fpl_fusion", "pair", "frozen_batch_norm"),
        ("fplnet-encoder-esp", "fpl_rates", (1, 2), "batch_norm_momentum"),
    ],
)
def test_settings_of_other_networks_are_refused(name: str, field: str, value: Any, instead: str) -> None:
    with pytest.raises(ValueError, match=rf"network\.{field} has no effect on {name}: .*network\.{instead}"):
        build(name, 3, NetworkConfig(**{field: value}))


@pytest.mark.parametrize("name", GENOTYPES)
def test_any_genotype(name: str) -> None:
    network = DeepLab(GENOTYPES[name], 3, NetworkConfig(**SMALL))
    x = torch.randn(2, 3, 33, 47)
    logits = network(x)
    assert logits.shape == (2, 3, 33, 47)
    F.cross_entropy(logits, torch.randint(3, (2, 33, 47))).backward()
    missing = [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None]
    assert not missing
    features = network.features(x)
    assert list(features) == [f"cell{layer}" for layer in range(1, len(GENOTYPES[name].path) + 1)]
    for feature, info, stride in zip(features.values(), network.feature_info, GENOTYPES[name].path, strict=True):
        assert feature.shape == (2, info.channels, -(-33 // stride), -(-47 // stride))
        assert info.stride == stride


def test_every_parameter_is_trained_unless_nothing_reads_it(published_small: nn.Module) -> None:
    published_small.train().zero_grad()
    published_small(torch.randn(2, 3, 33, 47)).square().mean().backward()
    assert all(value.requires_grad and value.grad is not None for value in published_small.parameters())
    frozen = DeepLab(GENOTYPES["only l-2, last cell but one unread"], 3, NetworkConfig(**SMALL))
    keys = {".".join(key.split(".")[:2]) for key, value in frozen.named_parameters() if not value.requires_grad}
    # Cell 3 reads cell 1, which reads the stem's last convolution but one; cell 1 is the decoder's feature as well.
    assert keys == {"stem.layers", "cells.1"}
    assert all(value.requires_grad for value in frozen.stem.layers[1].parameters())


def test_eval_is_deterministic_and_dropout_is_not(published_small: nn.Module) -> None:
    x = torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        published_small.eval()
        assert torch.equal(published_small(x), published_small(x))
        published_small.train()
        assert not torch.equal(published_small(x), published_small(x))


def test_one_image_alone_cannot_train_but_can_be_evaluated(published_small: nn.Module) -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        published_small.train()(torch.randn(1, 3, 33, 33))
    with torch.no_grad():
        assert published_small.eval()(torch.randn(1, 3, 33, 33)).shape == (1, 5, 33, 33)
    with pytest.raises(ValueError, match=r"\[1, 4, 8, 8\].*\(N, 3, H, W\)"):
        published_small(torch.randn(1, 4, 8, 8))


def test_initialisation_of_the_logits() -> None:
    logits = build("auto-deeplab-s", 19).get_submodule("decoder.logits")
    assert isinstance(logits, nn.Conv2d) and logits.bias is not None
    assert logits.bias.abs().max() == 0
    assert logits.weight.abs().max() <= 0.02
    assert logits.weight.std().item() == pytest.approx(0.0088, abs=0.0005)  # a normal's, cut at two deviations


def test_batch_norms_have_the_authors_settings() -> None:
    network = build("auto-deeplab-s", 19)
    for key, module in network.named_modules():
        if isinstance(module, BatchNorm):
            assert module.eps == (1e-5 if key.startswith(("aspp", "decoder")) else 1e-3)
            assert module.momentum == 0.0003


@pytest.mark.parametrize(
    ("total", "convolutions", "strides"),
    [
        (1, 3, (1, 1, 1)),
        (2, 3, (2, 1, 1)),
        (4, 3, (2, 1, 2)),
        (8, 3, (2, 2, 2)),
        (32, 3, (2, 2, 2, 2, 2)),
        (4, 2, (2, 2)),
        (4, 4, (2, 1, 1, 2)),
    ],
)
def test_stem_strides(total: int, convolutions: int, strides: tuple[int, ...]) -> None:
    assert stem_strides(total, convolutions) == strides
    assert math.prod(strides) == total


def test_stem_gives_the_two_tensors_before_their_relu() -> None:
    stem = Stem((64, 64, 128), 4, BatchNorm)
    before, last = stem(torch.randn(2, 3, 33, 47))
    assert before.shape == (2, 64, 17, 24)
    assert last.shape == (2, 128, 9, 12)
    assert before.min() < 0 and last.min() < 0
    assert not any("convolution.bias" in key for key, _ in stem.named_parameters())


@pytest.mark.parametrize(
    ("stride", "rates"), [(4, [24, 48, 72]), (8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9]), (256, [1, 1, 1])]
)
def test_aspp_rates(stride: int, rates: list[int]) -> None:
    assert aspp_rates(stride) == rates


@pytest.mark.parametrize(
    ("name", "rates"), [("one level", [24, 48, 72]), ("two levels", [12, 24, 36]), ("stem stride 32", [1, 3, 4])]
)
def test_rates_of_a_genotypes_aspp(name: str, rates: list[int]) -> None:
    aspp = DeepLab(GENOTYPES[name], 3, NetworkConfig(**SMALL)).aspp
    convolutions = [module for module in aspp.atrous.modules() if isinstance(module, nn.Conv2d)]
    assert [(m.dilation, m.padding, m.bias) for m in convolutions] == [((r, r), (r, r), None) for r in rates]


def test_aspp_pools_the_image() -> None:
    convolutions = [nn.Conv2d(4, 8, 3, padding=rate, dilation=rate, bias=False) for rate in (12, 24, 36)]
    aspp = ASPP(4, 8, [AtrousBranch(convolution, BatchNorm) for convolution in convolutions], 0.0, BatchNorm).eval()
    x = torch.randn(1, 4, 5, 7)
    branches = [aspp.pooling(x.mean((2, 3), keepdim=True)).repeat(1, 1, 5, 7), aspp.pointwise(x)]
    branches += [branch(x) for branch in aspp.atrous]
    torch.testing.assert_close(aspp(x), aspp.project(torch.cat(branches, 1)))


@pytest.mark.parametrize(
    ("levels", "layer"),
    [((0, 0, 0, 1, 2), 3), ((0, 1, 0, 0), 1), ((1, 0, 0), 0), ((0, 0), 0), ((0,), 0), ((1,), 0)],
)
def test_low_level_feature(levels: tuple[int, ...], layer: int) -> None:
    network = DeepLab(genotype(tuple(4 * 2**level for level in levels), (CONVOLUTIONS,), 3), 3, NetworkConfig(**SMALL))
    assert network.low_level_layer == layer
    low = network.feature_info[layer - 1].channels if layer else SMALL["stem_channels"][-1]
    assert network.decoder.reduce.convolution.in_channels == low


def normalise(x: torch.Tensor) -> torch.Tensor:
    """A fresh batch norm in eval mode: mean 0, variance 1, eps 1e-5."""
    return x / math.sqrt(1 + 1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_cell_by_hand(stride: int) -> None:
    blocks = (Block(("l-2", "l-1"), ("skip", "atrous_3x3")), Block(("block1", "l-1"), ("skip", "max_pooling_3x3")))
    cell = Cell(blocks, 6, 5, 3, stride, 1.0, BatchNorm).eval()
    before, last = torch.randn(2, 6, 17, 13), torch.randn(2, 5, 9, 7)
    output = cell(before, last, (9, 7))

    weights = {key: value for key, value in cell.named_parameters() if "convolution" in key}
    fine = F.interpolate(before, size=(9, 7), mode="bilinear", align_corners=True)
    state0 = normalise(F.conv2d(F.relu(fine), weights["project_before.convolution.weight"]))
    state1 = normalise(F.conv2d(F.relu(last), weights["project_last.convolution.weight"]))
    if stride == 1:
        skipped = state0
        atrous_input, rate = state1, 2
    else:
        skipped = normalise(F.conv2d(F.relu(state0), weights["operations.0.0.reduce.convolution.weight"], stride=2))
        atrous_input, rate = F.interpolate(state1, size=(5, 4), mode="bilinear", align_corners=True), 1
    kernel = weights["operations.0.1.body.convolution.weight"]
    block1 = skipped + normalise(F.conv2d(F.relu(atrous_input), kernel, padding=rate, dilation=rate))
    block2 = block1 + F.max_pool2d(state1, 3, stride, 1)  # a state of the cell itself is never strided
    torch.testing.assert_close(output, torch.cat([block1, block2], 1))


def test_cell_leaves_an_input_of_its_own_width_as_it_is() -> None:
    cell = Cell((CONVOLUTIONS,), 3, 3, 3, 1, 1.0, BatchNorm)
    assert isinstance(cell.project_before, nn.Identity)
    assert not isinstance(cell.project_last, nn.Identity)


def test_drop_path_schedule_by_hand() -> None:
    assert [drop_path_keep(layer, 12, 0.7) for layer in (1, 6, 12)] == pytest.approx([0.975, 0.85, 0.7])
    network = DeepLab(GENOTYPES["five layers"], 3, NetworkConfig(**SMALL, drop_path_keep=0.5))
    drops = [module for module in network.modules() if isinstance(module, DropPath)]
    assert [drop.keep for drop in drops] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    network.set_progress(0.25)
    assert all(drop.progress.item() == 0.25 for drop in drops)
    assert not any("progress" in key for key in network.state_dict())
    with pytest.raises(ValueError, match=r"1\.5.*0 to 1"):
        network.set_progress(1.5)
    without = DeepLab(GENOTYPES["five layers"], 3, NetworkConfig(**SMALL))
    assert not any(isinstance(module, DropPath) for module in without.modules())


@pytest.mark.parametrize(("progress", "keep"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
def test_drop_path_statistics(progress: float, keep: float) -> None:
    torch.manual_seed(0)
    drop = DropPath(0.5)
    drop.progress.fill_(progress)
    x = torch.ones(20000, 2, 1, 2, requires_grad=True)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([1.0] if keep == 1 else [0.0, 1 / keep])
    assert torch.equal(y, y[:, :1, :, :1].expand_as(y))  # an image is dropped whole
    assert y[:, 0, 0, 0].gt(0).float().mean().item() == pytest.approx(keep, abs=0.015)
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_drops_operations_but_not_identities() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8) + 1  # positive, so that an output of zero can only be a dropped one
    identities = Cell((Block(("l-2", "l-2"), ("skip", "skip")),), 3, 3, 3, 1, 0.01, BatchNorm)
    pools = Cell((Block(("l-2", "l-2"), ("max_pooling_3x3", "max_pooling_3x3")),), 3, 3, 3, 1, 0.01, BatchNorm)
    for cell in (identities, pools):
        assert cell.drop_path is not None
        cell.drop_path.progress.fill_(1.0)
    torch.testing.assert_close(identities(x, x, (8, 8)), 2 * x)
    assert sum(bool((pools(x, x, (8, 8)) == 0).all()) for _ in range(20)) > 15


def test_registry_and_build(tmp_path: Path) -> None:
    assert {"auto-deeplab-s", "auto-deeplab-m", "auto-deeplab-l"} <= set(NETWORKS)
    for name in NETWORKS:
        assert NETWORKS[name].name == name
        assert NETWORKS[name].paper and NETWORKS[name].description
    with pytest.raises(ValueError, match="already"):
        NETWORKS.register("auto-deeplab-s", NETWORKS["auto-deeplab-s"])

    file = GENOTYPES["two levels"].save(tmp_path / "genotype.json")
    config = NetworkConfig(**SMALL)
    keys = [list(build(source, 3, config).state_dict()) for source in (GENOTYPES["two levels"], file, str(file))]
    assert keys[0] == keys[1] == keys[2]
    with pytest.raises(ValueError, match=r"auto-deeplab-x.*auto-deeplab-s.*genotype\.json"):
        build("auto-deeplab-x", 3)
    with pytest.raises(ValueError, match="0 classes"):
        build("auto-deeplab-s", 0)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json: not valid JSON"):
        build(broken, 3)


def test_names_come_without_torch() -> None:
    code = "import sys, retrain.networks as n; n.build; n.NETWORKS; assert 'torch' not in sys.modules; n.DeepLab"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filter_multiplier", 0),
        ("stem_channels", (8,)),
        ("stem_channels", (8, 0)),
        ("aspp_channels", 2.5),
        ("dropout", 1.0),
        ("drop_path_keep", 0.0),
        ("batch_norm_momentum", 0),
    ],
)
def test_config_refuses(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"network\.{field}.*give"):
        NetworkConfig(**{field: value})


def test_what_the_head_reads(published_small: nn.Module) -> None:
    network, x, inputs = published_small.eval(), torch.randn(1, 3, 33, 33), {}
    hooks = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda module, arguments, name=name: inputs.update({name: arguments})
        )
        for name in ("aspp", "decoder")
    ]
    with torch.no_grad():
        network(x)
        features = network.features(x)  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    assert features["cell12"].min() < 0
    assert torch.equal(inputs["aspp"][0], features["cell12"].relu())
    assert torch.equal(inputs["decoder"][1], features["cell3"])  # the authors' Cell_2


def test_output_is_resized_with_aligned_corners(published_small: nn.Module) -> None:
    x = torch.randn(1, 3, 33, 33)
    captured: list[torch.Tensor] = []
    hook = published_small.get_submodule("decoder").register_forward_hook(
        lambda module, inputs, output: captured.append(output)
    )
    with torch.no_grad():
        logits = published_small.eval()(x)
    hook.remove()
    assert captured[0].shape == (1, 5, 9, 9)
    torch.testing.assert_close(logits, resize(captured[0], (33, 33)))
    torch.testing.assert_close(logits[..., ::4, ::4], captured[0])  # every fourth pixel lies on one of the 9x9


@pytest.mark.parametrize("name", ["two levels", "stem stride 32"])
def test_li_aspp_of_a_genotype_is_at_rest_the_aspp(name: str) -> None:
    torch.manual_seed(0)
    plain = DeepLab(GENOTYPES[name], 3, NetworkConfig(**SMALL)).eval()
    inhibited = DeepLab(GENOTYPES[name], 3, NetworkConfig(**SMALL, aspp="li", li_zone=5, li_rate=2)).eval()
    places = [key for key, module in inhibited.named_modules() if isinstance(module, LateralInhibition)]
    assert places == [f"aspp.inhibitions.{branch}" for branch in range(3)]
    added = cost.count_parameters(inhibited) - cost.count_parameters(plain)
    assert added == 3 * plain.feature_info[-1].channels
    missing, unexpected = inhibited.load_state_dict(plain.state_dict(), strict=False)
    assert len(missing) == 3 and not unexpected
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        assert torch.equal(plain(x), inhibited(x))
    for module in inhibited.modules():
        if isinstance(module, LateralInhibition):
            assert (module.zone, module.rate) == (5, 2)


@pytest.mark.filterwarnings("ignore:the official window")
@pytest.mark.parametrize(
    ("smoothing", "added"),
    [
        ("average", 0),
        ("gaussian", 0),
        ("ss_conv", 5**2 + 7**2),
        ("g_interact", 3**4 + 4**4),
        ("aggregated", 5**2 + 7**2 + 4 + 4),
    ],
)
def test_smoothed_aspp_of_a_genotype(smoothing: Any, added: int) -> None:
    """At output stride 64 the rates are 1, where there is nothing to smooth, 3 and 4."""
    genotype = GENOTYPES["stem stride 32"]
    plain = DeepLab(genotype, 3, NetworkConfig(**SMALL))
    for aspp in ("atrous", "li"):
        network = DeepLab(genotype, 3, NetworkConfig(**SMALL, smoothing=smoothing, aspp=aspp))
        if aspp == "atrous":
            assert cost.count_parameters(network) - cost.count_parameters(plain) == added
        assert set(plain.state_dict()) <= set(network.state_dict())
        for size in ((1, 1), (2, 3), (129, 65)):
            logits = network(torch.randn(2, 3, *size))
            assert logits.shape == (2, 3, *size) and torch.isfinite(logits).all()
        logits.square().mean().backward()
        assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("smoothing", ["average", "gaussian", "ss_conv", "g_interact", "aggregated"])
def test_smoothed_aspp_at_large_rates(smoothing: Any) -> None:
    network = DeepLab(GENOTYPES["two levels"], 3, NetworkConfig(**SMALL, smoothing=smoothing)).eval()
    assert [module.rate for module in network.modules() if isinstance(module, SmoothedConv2d)] == [12, 24, 36]
    with torch.no_grad():
        for size in ((1, 1), (33, 47)):
            assert torch.isfinite(network(torch.randn(1, 3, *size))).all()


@pytest.mark.parametrize(
    ("of_space", "given", "sides"),
    [
        ({}, {}, [13, 25, 37]),
        ({"smoothing_window": "official"}, {}, [11, 23, 35]),
        ({"smoothing_window": "official"}, {"smoothing_window": "paper"}, [13, 25, 37]),
        ({}, {"smoothing_window": "official"}, [11, 23, 35]),
    ],
)
def test_settings_come_from_the_space_unless_given(
    of_space: dict[str, Any], given: dict[str, Any], sides: list[int]
) -> None:
    source = genotype((8, 4, 8), (CONVOLUTIONS, OTHERS), 2, settings=OperationSettings(**of_space, smoothing_sigma=3))
    network = DeepLab(source, 3, NetworkConfig(**SMALL, smoothing="average", **given))
    assert [module.side for module in network.modules() if isinstance(module, AverageFilter)] == sides
    network = DeepLab(source, 3, NetworkConfig(**SMALL, smoothing="gaussian", **given))
    filters = [module for module in network.modules() if isinstance(module, GaussianFilter)]
    assert [(module.kernel.shape[0], module.sigma) for module in filters] == [(side, 3) for side in sides]


OPERATION_SETTINGS: list[tuple[str, Any, str]] = [
    *(("li_zone", 5, name) for name in ("li_atrous_3x3", "li_dilated_separable_3x3")),
    ("li_rate", 2, "li_atrous_5x5"),
    ("li_sigma", 2.0, "li_atrous_3x3"),
    ("li_init", (0.0, 0.1), "li_atrous_3x3"),
    *(("smoothing_window", "paper", f"{name}_smoothed_atrous_3x3") for name in ("average", "gaussian", "aggregated")),
    *(("smoothing_sigma", 2.0, f"{name}_smoothed_atrous_3x3") for name in ("gaussian", "aggregated")),
    ("fpl_rates", (1, 2), "fpl"),
    ("fpl_fusion", "pair", "fpl"),
]


@pytest.mark.parametrize(("field", "value", "operation"), OPERATION_SETTINGS)
def test_settings_of_operations_act_or_are_refused(field: str, value: Any, operation: str) -> None:
    config = NetworkConfig(**SMALL, **{field: value})
    reading = Block(("l-2", "l-1"), ("skip", operation))
    assert isinstance(build(genotype((4, 8), (reading,), 2), 3, config), DeepLab)
    with pytest.raises(
        ValueError, match=rf"network\.{field} has no effect on .* without operations that read it: leave it out;"
    ):
        build(GENOTYPES["two levels"], 3, config)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"smoothing": "ss_conv", "smoothing_window": "paper"}, "smoothing_window"),
        ({"smoothing": "g_interact", "smoothing_sigma": 2.0}, "smoothing_sigma"),
        ({"smoothing": "average", "smoothing_sigma": 2.0}, "smoothing_sigma"),
        ({"smoothing": "average", "li_zone": 5}, "li_zone"),
        ({"aspp": "li", "fpl_rates": (1, 2)}, "fpl_rates"),
    ],
)
def test_one_aspp_does_not_read_the_settings_of_another(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=rf"network\.{field} has no effect"):
        build(GENOTYPES["two levels"], 3, NetworkConfig(**SMALL, **settings))
