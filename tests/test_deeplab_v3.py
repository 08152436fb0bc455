"""DeepLabv3 with lateral inhibitions: the paper's numbers, what the parts read, and that W = 0 is the plain network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.evaluation import cost
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork
from retrain.networks.blocks import DepthwiseConvolution, SeparableConvBatchNormRelu
from retrain.networks.deeplab_v3 import DeepLabV3
from retrain.networks.settings import NetworkConfig
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.module_protocols import undecayed
from search_spaces.modules import BatchNorm, resize

NARROW: dict[str, Any] = {"aspp_channels": 8, "dropout": 0.0}


def meta(name: str, classes: int = 21, **settings: Any) -> SegmentationNetwork:
    with torch.device("meta"):
        return build(name, classes, NetworkConfig(**settings))


@pytest.fixture(scope="module")
def narrow() -> dict[str, SegmentationNetwork]:
    """MobileNetV2 with ASPP and with LI-ASPP, of the same weights."""
    torch.manual_seed(0)
    networks = {name: build(name, 3, NetworkConfig(**NARROW)).eval() for name in ("mnv2-aspp", "mnv2-li-aspp")}
    same_weights(networks["mnv2-aspp"], networks["mnv2-li-aspp"])
    return networks


def same_weights(plain: nn.Module, inhibited: nn.Module) -> None:
    """Copies the weights of a network to one with lateral inhibitions: they shift no name."""
    missing, unexpected = inhibited.load_state_dict(plain.state_dict(), strict=False)
    assert missing and all(name.endswith("intensity") for name in missing) and not unexpected


@pytest.mark.parametrize(
    ("name", "blocks", "parameters"),
    [
        ("mnv2-aspp", None, 2_568_021),
        ("mnv2-li-aspp", None, 2_568_981),
        ("li-mnv2-aspp", None, 2_569_941),
        ("li-mnv2-li-aspp", None, 2_570_901),
        ("li-mnv2-li-aspp", (13, 16), 2_570_517),  # what the paper's Table 4 prints
        ("resnet50-aspp", None, 26_656_981),
        ("li-resnet50-li-aspp", None, 26_663_637),
        ("resnet50-aspp-decoder", None, 26_819_909),
        ("li-resnet50-li-aspp-decoder", None, 26_826_565),
    ],
)
def test_published_parameters(name: str, blocks: tuple[int, ...] | None, parameters: int) -> None:
    assert cost.count_parameters(meta(name, li_blocks=blocks)) == parameters


@pytest.mark.parametrize(
    ("classes", "parameters"), [(11, 2_565_451), (12, 2_565_708), (19, 2_567_507), (151, 2_601_431)]
)
def test_parameters_by_classes(classes: int, parameters: int) -> None:
    assert cost.count_parameters(meta("mnv2-aspp", classes)) == parameters


@pytest.mark.parametrize(
    ("name", "settings", "added"),
    [
        ("li-resnet50-li-aspp", {}, 3 * 2048 + 512),
        ("li-resnet50-li-aspp", {"li_zone": 5, "li_rate": 3, "li_sigma": 2.0}, 3 * 2048 + 512),
        ("li-resnet50-li-aspp-plain-stem", {}, 3 * 2048 + 512 - 123_776),  # the stems differ by that
    ],
)
def test_added_parameters(name: str, settings: dict[str, Any], added: int) -> None:
    assert cost.count_parameters(meta(name, **settings)) - 26_656_981 == added


@pytest.mark.parametrize(("units", "added"), [(("conv4_6", "conv5_3"), 768), (("conv3_4",), 128)])
def test_inhibitions_in_other_units(units: tuple[str, ...], added: int) -> None:
    with torch.device("meta"):
        network = DeepLabV3(21, backbone="resnet50", li_units=units)
        with pytest.raises(ValueError, match=r"no unit 'conv6_1': choose among conv2_1, .*conv5_3"):
            DeepLabV3(21, backbone="resnet50", li_units=("conv6_1",))
    assert cost.count_parameters(network) - 26_656_981 == added


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.endswith("-plain-stem")])
def test_a_plain_stem_is_all_that_is_other(name: str) -> None:
    shapes = [
        {key: value.shape for key, value in meta(one).state_dict().items() if not key.startswith("backbone.conv1.")}
        for one in (name, name.removesuffix("-plain-stem"))
    ]
    assert shapes[0].keys() == shapes[1].keys()
    other = {key for key in shapes[0] if shapes[0][key] != shapes[1][key]}
    assert other == {
        *(f"backbone.bn1.{key}" for key in ("weight", "bias", "running_mean", "running_var")),
        "backbone.layer1.0.conv1.weight",
        "backbone.layer1.0.downsample.0.weight",
    }
    assert NETWORKS[name].settings == NETWORKS[name.removesuffix("-plain-stem")].settings


@pytest.mark.parametrize(
    ("name", "mega_operations"),
    [
        ("mnv2-aspp", 6463.71),
        ("resnet50-aspp", 83_568.68),
        ("resnet50-aspp-decoder", 89_083.92),
    ],
)
def test_operations(name: str, mega_operations: float) -> None:
    """Two operations a multiply-add, at 513x513."""
    measured = cost.measure(meta(name), (513, 513))
    assert round(2 * measured.multiply_adds / 1e6, 2) == mega_operations


@pytest.mark.parametrize(
    ("name", "plain", "settings", "channels", "zone"),
    [
        ("mnv2-li-aspp", "mnv2-aspp", {}, 3 * 320, 3),
        ("mnv2-li-aspp", "mnv2-aspp", {"li_zone": 5}, 3 * 320, 5),
        ("li-mnv2-aspp", "mnv2-aspp", {}, 384 + 576 + 960, 3),
        ("li-mnv2-aspp", "mnv2-aspp", {"li_blocks": (13, 16)}, 576 + 960, 3),
        ("li-resnet50-li-aspp", "resnet50-aspp", {}, 3 * 2048 + 512, 3),
    ],
)
def test_operations_of_inhibitions(name: str, plain: str, settings: dict[str, Any], channels: int, zone: int) -> None:
    with_li, without = (cost.measure(network, (513, 513)) for network in (meta(name, **settings), meta(plain)))
    assert with_li.multiply_adds - without.multiply_adds == zone**2 * channels * 33 * 33


@pytest.mark.parametrize("decoder", ["", "-decoder"])
def test_resnet_at_rest_is_the_plain_network_bit_for_bit(decoder: str) -> None:
    torch.manual_seed(0)
    widths: dict[str, Any] = {"decoder_channels": 8, "low_level_channels": 4} if decoder else {}
    config = NetworkConfig(**NARROW, **widths)
    plain = build(f"resnet50-aspp{decoder}", 3, config).eval()
    inhibited = build(f"li-resnet50-li-aspp{decoder}", 3, config).eval()
    same_weights(plain, inhibited)
    x = torch.randn(1, 3, 49, 33)
    with torch.no_grad():
        assert torch.equal(plain(x), inhibited(x))
        for module in inhibited.modules():
            if isinstance(module, LateralInhibition):
                module.intensity.fill_(0.05)
        assert not torch.equal(plain(x), inhibited(x))


def test_li_aspp_at_rest_is_the_aspp_of_the_rectified_feature(narrow: dict[str, SegmentationNetwork]) -> None:
    x = torch.randn(2, 3, 33, 47)
    plain, inhibited = narrow["mnv2-aspp"], narrow["mnv2-li-aspp"]
    with torch.no_grad():
        feature = plain.features(x)["stage7"]  # type: ignore[operator]
        assert feature.min() < 0  # a MobileNetV2 ends linearly
        classify = nn.Sequential(plain.get_submodule("aspp"), plain.get_submodule("classifier"))
        assert torch.equal(plain.logits(x), classify(feature))
        assert torch.equal(inhibited.logits(x), classify(F.relu(feature)))


def test_what_the_parts_read(narrow: dict[str, SegmentationNetwork]) -> None:
    aspp = narrow["mnv2-li-aspp"].get_submodule("aspp")
    inhibitions, branches = (list(aspp.get_submodule(name)) for name in ("inhibitions", "atrous"))  # type: ignore[call-overload]
    assert [type(module) for module in inhibitions] == [LateralInhibition] * 3
    assert [inhibition.intensity.shape for inhibition in inhibitions] == [(320,)] * 3
    assert [type(module) for module in branches] == [SeparableConvBatchNormRelu] * 3
    assert [branch.depthwise.dilation[0] for branch in branches] == [6, 12, 18]
    for inhibition in inhibitions:
        inhibition.intensity.data.uniform_(0, 0.1)
    x = torch.randn(2, 320, 5, 4).relu()
    plain = narrow["mnv2-aspp"].get_submodule("aspp")
    with torch.no_grad():
        parts = [plain.pooling(x.mean((2, 3), keepdim=True)).expand(-1, -1, 5, 4), plain.pointwise(x)]  # type: ignore[operator]
        parts += [branch(inhibition(x)) for branch, inhibition in zip(branches, inhibitions, strict=True)]
        assert torch.equal(aspp(x), plain.project(torch.cat(parts, 1)))  # type: ignore[operator]
    for inhibition in inhibitions:
        inhibition.intensity.data.zero_()


def test_what_the_decoder_reads() -> None:
    network = build("resnet50-aspp-decoder", 3, NetworkConfig(**NARROW, decoder_channels=8, low_level_channels=4))
    read: list[Tensor] = []
    network.get_submodule("classifier").register_forward_pre_hook(lambda module, arguments: read.extend(arguments))
    x = torch.randn(1, 3, 65, 33)
    with torch.no_grad():
        network.eval()
        logits = network.logits(x)
        features = network.features(x)  # type: ignore[operator]
    assert read[0].shape == (1, 8, 5, 3) and torch.equal(read[1], features["low"])
    assert logits.shape == (1, 3, 17, 9)
    assert torch.equal(network(x), resize(logits, (65, 33)))


def test_separable_branch_by_hand() -> None:
    torch.manual_seed(0)
    branch = SeparableConvBatchNormRelu(5, 4, BatchNorm, rate=3).eval()
    x, gain = torch.randn(2, 5, 9, 8), (1 + 1e-5) ** -0.5
    y = F.relu(gain * F.conv2d(x, branch.depthwise.weight, padding=3, dilation=3, groups=5))
    torch.testing.assert_close(branch(x), F.relu(gain * F.conv2d(y, branch.pointwise.convolution.weight)))


def test_initialisation_of_the_head() -> None:
    torch.manual_seed(0)
    network = build("mnv2-aspp", 21)
    logits = network.get_submodule("classifier")
    assert isinstance(logits, nn.Conv2d) and logits.bias is not None and not logits.bias.any()
    tensors = {0.01: [logits.weight], 0.33: [], 0.06: []}
    for module in network.modules():
        if isinstance(module, SeparableConvBatchNormRelu):
            tensors[0.33].append(module.depthwise.weight)
            tensors[0.06].append(module.pointwise.convolution.weight)
    for deviation, weights in tensors.items():
        values = torch.cat([weight.flatten() for weight in weights])
        assert values.abs().max() <= 2 * deviation
        assert values.std().item() == pytest.approx(0.88 * deviation, rel=0.03)  # of a normal cut at two deviations


@pytest.mark.parametrize(
    ("name", "backbone"), [("mnv2-aspp", 0.003), ("resnet50-aspp-decoder", 0.05), ("li-resnet50-li-aspp", 0.05)]
)
@pytest.mark.parametrize("momentum", [None, 0.1])
def test_batch_norms(name: str, backbone: float, momentum: float | None) -> None:
    for key, module in meta(name, batch_norm_momentum=momentum).named_modules():
        if isinstance(module, BatchNorm):
            default = backbone if key.startswith("backbone") else 0.0003
            assert (module.momentum, module.eps) == (momentum or default, 1e-5)


def test_what_weight_decay_leaves_out() -> None:
    network = meta("li-mnv2-li-aspp")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    left_out = {names[id(parameter)] for parameter in undecayed(network)}
    assert {name for name in left_out if "intensity" in name} == {
        *(f"backbone.features.{block}.li.intensity" for block in (10, 13, 16)),
        *(f"aspp.inhibitions.{branch}.intensity" for branch in range(3)),
    }
    assert {name for name in left_out if "intensity" not in name} == {
        f"aspp.atrous.{branch}.depthwise.weight" for branch in range(3)
    }
    decoder = meta("resnet50-aspp-decoder").get_submodule("classifier")
    assert sum(isinstance(module, DepthwiseConvolution) for module in decoder.modules()) == 2


@pytest.mark.parametrize("blocks", [(), (18,)])
def test_no_place_for_inhibitions(blocks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"network\.li_blocks.* is"):
        meta("li-mnv2-aspp", li_blocks=blocks)


def test_settings_reach_every_inhibition() -> None:
    settings: dict[str, Any] = {"li_zone": 5, "li_rate": 2, "li_sigma": 0.5, "li_init": (0.1, 0.2)}
    network = build("li-mnv2-li-aspp", 3, NetworkConfig(**NARROW, **settings))
    inhibitions = [module for module in network.modules() if isinstance(module, LateralInhibition)]
    assert len(inhibitions) == 6
    for inhibition in inhibitions:
        assert (inhibition.zone, inhibition.rate, inhibition.sigma) == (5, 2, 0.5)
        assert 0.1 <= inhibition.intensity.min() < inhibition.intensity.max() <= 0.2


def test_head_is_what_no_backbone_weights_are_for() -> None:
    for name in ("mnv2-aspp", "resnet50-aspp-decoder"):
        network = meta(name)
        assert {*network.head, "backbone"} == {name for name, _ in network.named_children()}
