"""FPLNet and ESPNet: the papers' numbers of parameters, their structure, and any size of image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.evaluation.cost import count_parameters, describe
from retrain.networks import NETWORKS, build
from retrain.networks.base import SegmentationNetwork
from retrain.networks.blocks import FUSIONS, FusionUnit, halve
from retrain.networks.espnet import ESPNet, ESPNetC
from retrain.networks.fplnet import FPLNet, FPLNetEncoder, SequentialDecoder, Upsampling, module_factory
from retrain.networks.settings import NetworkConfig
from search_spaces.factorized import ESP, FPL
from search_spaces.modules import BatchNorm
from search_spaces.settings import OperationSettings

SIZES = [(1, 1), (2, 3), (33, 47), (64, 65)]
NETWORK: dict[str, Any] = {"fplnet-encoder": FPLNetEncoder, "fplnet": FPLNet, "espnet-c": ESPNetC, "espnet": ESPNet}
NAMES = list(NETWORK)


def small(name: str, classes: int = 3, modules: tuple[int, int] = (1, 2), **settings: Any) -> SegmentationNetwork:
    """A network of few modules; `module` is the class's argument, all else are settings."""
    given = {key: settings.pop(key) for key in ("module",) if key in settings}
    return NETWORK[name](classes, NetworkConfig(**settings), modules=modules, **given)


def parameters(name: str, classes: int = 20) -> int:
    with torch.device("meta"):
        return count_parameters(build(name, classes))


def agrees(count: int, printed: str) -> bool:
    """Whether a table in millions prints this number: most entries are cut, the 419,994 is rounded."""
    return printed in (f"{count // 10_000 / 100:.2f}", f"{count / 1e6:.2f}")


def test_encoder_and_whole_network() -> None:
    assert [parameters("fplnet-encoder", classes) for classes in (20, 19)] == [419_994, 419_735]
    assert [parameters("fplnet", classes) for classes in (20, 19)] == [499_758, 499_694]


@pytest.mark.parametrize(
    ("fusion", "count"),
    [
        ("if", 414_810),
        ("isff-add", 414_636),
        ("isff-concat", 419_820),
        ("if+isff-add", 414_810),
        ("if+isff-concat", 419_994),
    ],
)
def test_table_8(fusion: str, count: int) -> None:
    assert parameters(f"fplnet-encoder-{fusion}") == count
    assert NETWORKS[f"fplnet-encoder-{fusion}"].printed == f"{count / 1000:.3f} K"


@pytest.mark.parametrize(
    ("name", "count", "printed"),
    [
        ("espnet-c", 349_449, "0.34"),  # Table VI
        ("espnet-c-fpl", 381_026, "0.38"),
        ("fplnet-encoder", 419_994, "0.42"),
        ("fplnet-encoder-esp", 386_177, "0.38"),
        ("fplnet-encoder-hasty-stem", 401_370, "0.40"),  # Table VII
        ("fplnet-encoder-factorization-none", 544_474, "0.54"),  # Table X
        ("fplnet-encoder-factorization-all", 388_874, "0.38"),
    ],
)
def test_tables_6_7_and_10(name: str, count: int, printed: str) -> None:
    assert parameters(name) == count
    assert agrees(count, printed)
    assert NETWORKS[name].printed in (f"{printed} M", "419.994 K")


@pytest.mark.parametrize(
    ("modules", "printed"),
    [
        ((2, 6), "0.32"),
        ((2, 8), "0.40"),
        ((2, 10), "0.47"),
        ((2, 12), "0.55"),  # printed 0.57, the entry of (4, 12); two modules of 9,728 less cannot be the same
        ((4, 6), "0.34"),
        ((4, 10), "0.49"),
        ((4, 12), "0.57"),
    ],
)
def test_table_9(modules: tuple[int, int], printed: str) -> None:
    name = f"fplnet-encoder-modules-{modules[0]}-{modules[1]}"
    count = parameters(name)
    assert count == 419_994 + (modules[0] - 4) * 9_728 + (modules[1] - 8) * 38_400
    assert agrees(count, printed)
    assert NETWORKS[name].printed == ("0.57 M" if modules == (2, 12) else f"{printed} M")


@pytest.mark.parametrize(
    ("modules", "encoder", "whole"),
    [((2, 3), 187_529, 203_189), ((2, 5), 252_297, 267_957), ((2, 8), 349_449, 365_109), ((5, 8), 373_065, 388_725)],
)
def test_espnet(modules: tuple[int, int], encoder: int, whole: int) -> None:
    with torch.device("meta"):
        assert count_parameters(ESPNetC(20, modules=modules)) == encoder
        assert count_parameters(ESPNet(20, modules=modules)) == whole


def test_what_the_registry_prints() -> None:
    assert NETWORKS["fplnet-encoder"].printed == f"{parameters('fplnet-encoder') / 1000:.3f} K"
    for name in NAMES[1:]:
        assert agrees(parameters(name), str(NETWORKS[name].printed).removesuffix(" M"))


def test_children_by_hand() -> None:
    described = describe(build("fplnet", 20), (512, 1024))
    assert {part["name"]: part["parameters"] for part in described["parts"]} == {"encoder": 414_814, "decoder": 84_944}
    # Table II.
    assert [(feature["channels"], feature["size"]) for feature in described["features"]] == [
        (35, [256, 512]),
        (131, [128, 256]),
        (259, [64, 128]),
    ]
    decoder = build("fplnet", 20).decoder
    assert isinstance(decoder, SequentialDecoder)
    counts = [count_parameters(part) for part in (decoder.projection, *decoder.upsamplers, decoder.classifier)]
    assert counts == [16_576, 37_056 + 19_456, 9_264 + 1_312, 1_280]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("module", ["fpl", "esp"])
def test_any_input_size(name: str, module: str) -> None:
    network = small(name, module=module)
    for size in SIZES:
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            trained, first, second = network.train()(x), network.eval()(x), network(x)
        assert trained.shape == first.shape == (2, 3, *size)
        assert trained.isfinite().all() and first.isfinite().all()
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "settings",
    [{"modules": (0, 0)}, {"module": "fpl", "fpl_fusion": "pair"}, {"module": "fpl", "fpl_rates": (1, 2, 3)}],
)
@pytest.mark.parametrize("classes", [1, 7])
def test_every_parameter_is_trained(name: str, settings: dict[str, Any], classes: int) -> None:
    network = small(name, classes, **settings)
    network(torch.randn(2, 3, 17, 24)).square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())
    rates = {module.dilation for module in network.modules() if isinstance(module, nn.Conv2d)}
    if "fpl_rates" in settings:
        assert rates == {(1, 1), (2, 1), (1, 2), (3, 1), (1, 3)}


@pytest.mark.parametrize(("encoder", "whole"), [("fplnet-encoder", "fplnet"), ("espnet-c", "espnet")])
def test_a_trained_encoder_fits_into_the_whole_network(encoder: str, whole: str) -> None:
    first, second = small(encoder, 4), small(whole, 4)
    result = second.load_state_dict(first.state_dict(), strict=False)
    assert {key.split(".")[0] for key in result.missing_keys} == set(second.head) == {"decoder"}
    assert set(result.unexpected_keys) == ({"classifier.weight"} if whole == "fplnet" else set())
    x = torch.randn(2, 3, 33, 47)
    features, others = (network.eval().features(x) for network in (first, second))  # type: ignore[operator]
    assert list(features) == ["stage1", "stage2", "stage3"]
    for (name, feature), info in zip(features.items(), first.feature_info, strict=True):  # type: ignore[arg-type]
        assert torch.equal(feature, others[name])
        assert feature.shape == (2, info.channels, -(-33 // info.stride), -(-47 // info.stride))
    assert first.head == ("classifier",)


@pytest.mark.parametrize("field", [{"fpl_rates": (1, 2)}, {"fpl_fusion": "pair"}])
def test_settings_of_fpl_are_for_networks_of_fpl_modules(field: dict[str, Any]) -> None:
    for name in ("fplnet-encoder-esp", "espnet", "espnet-c"):
        with pytest.raises(ValueError, match=rf"network\.{next(iter(field))} has no effect on {name}: leave it out"):
            build(name, 3, NetworkConfig(**field))
    pyramids = [
        module for module in build("espnet-c-fpl", 3, NetworkConfig(**field)).modules() if isinstance(module, FPL)
    ]
    assert {(len(module.pyramid.branches), module.pyramid.fusion) for module in pyramids} == {
        (len(field.get("fpl_rates", (2, 4, 8, 16))), field.get("fpl_fusion", "stage1"))
    }


def test_batch_norms() -> None:
    for name in NAMES:
        norms = [module for module in build(name, 3).modules() if isinstance(module, BatchNorm)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.1)}
        norms = [
            module
            for module in build(name, 3, NetworkConfig(batch_norm_momentum=0.02)).modules()
            if isinstance(module, BatchNorm)
        ]
        assert {norm.momentum for norm in norms} == {0.02}


def test_which_module_a_network_is_made_of() -> None:
    for name, given, kind in (
        ("fplnet", {}, FPL),
        ("fplnet", {"module": "esp"}, ESP),
        ("espnet", {}, ESP),
        ("espnet", {"module": "fpl"}, FPL),
    ):
        modules = list(small(name, **given).modules())
        assert {type(part) for part in modules if isinstance(part, FPL | ESP)} == {kind}
        assert sum(isinstance(part, kind) for part in modules) == {"fplnet": 5 + 4, "espnet": 5 + 1}[name]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_by_hand(fusion: str) -> None:
    unit = FusionUnit(FUSIONS[fusion], 2, BatchNorm).eval()
    shallow, deep, image = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4), torch.randn(2, 3, 3, 4)
    parts = {
        "fir": [shallow + deep, deep, image],
        "if": [deep, image],
        "isff-add": [shallow + deep],
        "isff-concat": [deep, shallow],
        "if+isff-add": [shallow + deep, image],
        "if+isff-concat": [deep, shallow, image],
    }[fusion]
    expected = F.prelu(torch.cat(parts, 1) / (1 + 1e-5) ** 0.5, torch.tensor([0.25]))
    torch.testing.assert_close(unit(shallow, deep, image), expected)
    assert unit.channels_out == expected.shape[1]


def test_what_the_fir_unit_reads() -> None:
    network, inputs, outputs = small("fplnet-encoder").eval(), {}, {}
    stage = network.get_submodule("encoder.stages.1")
    stage.fusion.register_forward_pre_hook(lambda _, arguments: inputs.update(fusion=arguments))
    for name in ("down", "body"):
        stage.get_submodule(name).register_forward_hook(lambda *call, name=name: outputs.update({name: call[-1]}))
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        network(x)
    shallow, deep, image = inputs["fusion"]
    assert torch.equal(shallow, outputs["down"]) and torch.equal(deep, outputs["body"])
    assert torch.equal(image, halve(x, 3)) and image.shape[-2:] == (5, 6)


def test_halving_an_image_by_hand() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)  # 0 1 2 / 3 4 5 / 6 7 8; the zeros around it count
    assert halve(x).flatten().tolist() == pytest.approx([8 / 9, 12 / 9, 20 / 9, 24 / 9])
    assert halve(x, 0) is x
    assert halve(torch.ones(1, 3, 33, 1), 3).shape == (1, 3, 5, 1)


@pytest.mark.parametrize(("kernel", "reach"), [(2, 0), (3, 1)])
def test_upsampling_ends_at_any_size_of_its_level(kernel: int, reach: int) -> None:
    upsampling = Upsampling(2, 4, kernel)
    x = torch.randn(2, 2, 3, 4)
    even, odd = upsampling(x, (6, 8)), upsampling(x, (5, 7))
    assert even.shape == (2, 4, 6, 8)
    assert torch.equal(odd, even[..., :5, :7])
    # Pixel (2i, 2j) has pixel (i, j) under the kernel's middle, or first, weight.
    expected = torch.einsum("nihw,io->nohw", x, upsampling.weight[:, :, reach, reach])
    torch.testing.assert_close(even[..., ::2, ::2], expected)


@pytest.mark.parametrize(
    ("stride", "widths"), [(1, []), (2, []), (4, [16]), (8, [64, 16]), (16, [64, 64, 16]), (32, [64, 64, 64, 16])]
)
def test_decoder_from_any_stride(stride: int, widths: list[int]) -> None:
    decoder = SequentialDecoder(5, stride, 3, module_factory("fpl", BatchNorm, OperationSettings()), BatchNorm)
    assert [upsampler.upsampling.out_channels for upsampler in decoder.upsamplers] == widths
    sizes = [(-(-33 // step), -(-47 // step)) for step in (1, 2, 4, 8, 16) if step < stride]
    x = torch.randn(2, 5, -(-33 // stride), -(-47 // stride))
    assert decoder(x, sizes).shape == (2, 3, 33, 47)
