"""Optimisers: who decays, who learns faster, what is projected, and that states come back, old ones too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from nas.config import CosineSgdConfig, SearchConfig, SgdConfig
from nas.darts import make_steppers
from nas.supernet.network import Supernet
from nas.training.optimizers import (
    OPTIMIZERS,
    convolution_weights,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)
from nas.training.step import Execution, Stepper
from retrain.config import OptimizerConfig
from retrain.networks.base import SegmentationNetwork
from retrain.pretrained import head_multipliers
from search_spaces.lateral_inhibition import LateralInhibition
from search_spaces.modules import BatchNorm
from search_spaces.space import SearchSpace

CPU = torch.device("cpu")
CONFIG = SgdConfig(lr=0.1, weight_decay=0.5)
SEARCH = SearchConfig(optimizer=CosineSgdConfig(lr=0.05))


class Tiny(SegmentationNetwork):
    """One of each kind of parameter; the head has a bias."""

    head = ("classify",)

    def __init__(self, inhibited: bool = True) -> None:
        super().__init__(2)
        self.convolution = nn.Conv2d(3, 4, 1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.norm = BatchNorm(4)
        self.activation = nn.PReLU(4)
        self.inhibition = LateralInhibition(4, init=(0.001, 0.001)) if inhibited else nn.Identity()
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.classify = nn.Conv2d(4, 2, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inhibition(self.activation(self.norm(self.depthwise(self.convolution(x)))))
        return self.classify(self.up(x))


def named(network: nn.Module, parameters: Any) -> set[str]:
    ids = {id(parameter) for parameter in parameters}
    return {name for name, parameter in network.named_parameters() if id(parameter) in ids}


def decaying(network: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    groups = [group for group in optimizer.param_groups if group["weight_decay"]]
    assert all(group["weight_decay"] == CONFIG.weight_decay for group in groups)
    return named(network, [p for group in groups for p in group["params"]])


ALL = {name for name, _ in Tiny().named_parameters()} - {"inhibition.intensity"}
DENSE = {"convolution.weight", "up.weight", "classify.weight"}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("decay", "expected"),
    [("all", ALL), ("convolutions", DENSE | {"depthwise.weight"}), ("dense_convolutions", DENSE)],
)
def test_what_decays(name: Any, decay: Any, expected: set[str]) -> None:
    network = Tiny()
    optimizer = make_optimizer(network, network.parameters(), CONFIG, name, decay=decay)
    assert decaying(network, optimizer) == expected
    assert len(optimizer.param_groups) == 2
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len(set(trained)) == len(list(network.parameters()))


def test_a_convolution_of_one_channel_is_not_depthwise() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 8, 3, groups=4))
    assert named(network, convolution_weights(network, depthwise=False)) == {"0.weight", "1.weight"}


@pytest.mark.parametrize("changes", [{}, {"decay": "all"}, {"decay": "convolutions", "config": SgdConfig(0.1, 0.0)}])
def test_where_all_are_alike_there_is_one_group(changes: dict[str, Any]) -> None:
    network = Tiny(inhibited=False)
    parameters = list(network.parameters())
    (group,) = make_optimizer(network, parameters, **{"config": CONFIG, **changes}).param_groups
    assert all(given is taken for given, taken in zip(parameters, group["params"], strict=True))


def test_the_settings_reach_the_optimizer() -> None:
    network = Tiny()
    sgd = make_optimizer(network, network.parameters(), SgdConfig(0.3, 0.1, momentum=0.7))
    assert isinstance(sgd, torch.optim.SGD)
    assert {(group["lr"], group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {(0.3, 0.7, False)}
    settings = SgdConfig(0.3, 0.1, momentum=0.7)
    adam = make_optimizer(network, network.parameters(), settings, "adam", options={"eps": 0.01})
    assert isinstance(adam, torch.optim.Adam)
    assert {(group["betas"], group["eps"]) for group in adam.param_groups} == {((0.7, 0.999), 0.01)}
    assert make_optimizer(network, network.parameters(), CONFIG, "adam").param_groups[0]["eps"] == 1e-8


def test_first_step_of_adam_by_hand() -> None:
    # Moments corrected for their bias are g and g**2 after one step; the penalty's gradient is part of g.
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    settings = SgdConfig(0.1, weight_decay=0.25)
    optimizer = make_optimizer(layer, layer.parameters(), settings, "adam", options={"eps": 0.5})
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(2 - 0.1 * 1.5 / (1.5 + 0.5))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_intensities_do_not_decay_and_are_projected(name: Any) -> None:
    network = Tiny()
    # One step of decay alone would carry every weight far to the other side of 0.
    optimizer = make_optimizer(network, network.parameters(), SgdConfig(10.0, weight_decay=100.0), name)
    intensity, before = network.inhibition.intensity, network.convolution.weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(intensity, torch.full((4,), 0.001))
    assert not torch.equal(network.convolution.weight, before)
    intensity.grad = torch.tensor([-5.0, 5.0, 0.0, -1e-4])
    optimizer.step()
    assert intensity.min() == 0 and intensity.max() == 1
    if name == "sgd":
        torch.testing.assert_close(intensity.detach(), torch.tensor([1, 0, 0.001, 0.002]))


def test_steps_keep_the_intensities_of_a_network_in_their_range() -> None:
    torch.manual_seed(0)
    network = Tiny()
    optimizer = make_optimizer(network, network.parameters(), SgdConfig(50.0, weight_decay=0.0))
    stepper = Stepper("test", network, optimizer, Execution(CPU), clip=5.0)
    seen = []
    for _ in range(4):
        stepper.step(torch.randn(2, 3, 9, 9), torch.randint(2, (2, 9, 9)), "here")
        seen.append(network.inhibition.intensity.detach().clone())
    intensities = torch.stack(seen)
    assert intensities.min() >= 0 and intensities.max() <= 1
    assert (intensities != 0.001).any()


def test_a_search_projects_too() -> None:
    torch.manual_seed(0)
    space = SearchSpace("tiny", 2, 2, 1, 2, ("none", "skip", "li_atrous_3x3"))
    supernet = Supernet(space, 3)
    weights, _ = make_steppers(SEARCH, supernet, CPU)
    inhibitions = [m for m in supernet.modules() if isinstance(m, LateralInhibition)]
    assert inhibitions
    with torch.no_grad():
        for inhibition in inhibitions:
            inhibition.intensity.fill_(2.0)
    images, labels = torch.randn(2, 3, 33, 33), torch.randint(3, (2, 33, 33))
    weights.step(images, labels, "here")
    intensities = torch.cat([inhibition.intensity.detach() for inhibition in inhibitions])
    assert intensities.min() >= 0 and intensities.max() <= 1
    undecayed = {p for group in weights.optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert undecayed == {inhibition.intensity for inhibition in inhibitions}
    assert len(weights.parameters) == len(supernet.weights())


def test_a_search_without_such_operations_has_one_group() -> None:
    supernet = Supernet(SearchSpace("tiny", 2, 2, 1, 2, ("none", "skip", "separable_3x3")), 3)
    weights, _ = make_steppers(SEARCH, supernet, CPU)
    assert len(weights.optimizer.param_groups) == 1


# Rates


HEAD: dict[str, Any] = {"head_lr_multiplier": 10.0, "head_bias_lr_multiplier": 20.0}


def stepper_of(network: Tiny, config: OptimizerConfig) -> Stepper:
    multipliers = head_multipliers(network, config)
    optimizer = make_optimizer(
        network, network.parameters(), config, config.name, decay=config.decay, multipliers=multipliers
    )
    return Stepper("test", network, optimizer, Execution(CPU))


def rates(network: nn.Module, stepper: Stepper) -> dict[str, float]:
    by_id = {id(p): group["lr"] for group in stepper.optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in network.named_parameters()}


def test_the_head_learns_faster_at_every_rate() -> None:
    network = Tiny()
    stepper = stepper_of(network, OptimizerConfig(lr=0.002, **HEAD))
    for rate in (0.002, 0.0005):
        stepper.lr = rate
        assert stepper.lr == pytest.approx(rate)
        expected = {name: rate for name, _ in network.named_parameters()}
        expected |= {"classify.weight": 10 * rate, "classify.bias": 20 * rate}
        assert rates(network, stepper) == pytest.approx(expected)
    alike = stepper_of(network, OptimizerConfig(lr=0.002, head_lr_multiplier=10.0))
    assert rates(network, alike)["classify.bias"] == pytest.approx(0.02)  # as the rest of the head


def test_multipliers_without_a_head_or_a_bias_are_refused() -> None:
    class Headless(Tiny):
        head = ()

    with pytest.raises(ValueError, match="Headless has no separate head: leave them out"):
        head_multipliers(Headless(), OptimizerConfig(head_lr_multiplier=10.0))
    network = Tiny()
    network.classify.bias = None
    with pytest.raises(ValueError, match=r"head_bias_lr_multiplier is 20, .* have no bias: leave it out"):
        head_multipliers(network, OptimizerConfig(**HEAD))
    assert head_multipliers(Headless(), OptimizerConfig()) == {}


def test_clipping_and_gradients_cover_all_groups() -> None:
    network = Tiny()
    config = OptimizerConfig(lr=1e-3, momentum=0.0, weight_decay=0.0, **HEAD)
    stepper = stepper_of(network, config)
    stepper.clip = 1e-3
    gradients: list[torch.Tensor | None] = []
    stepper.optimizer.register_step_pre_hook(lambda *_: gradients.extend(p.grad for p in network.parameters()))
    stepper.step(torch.randn(2, 3, 8, 8), torch.randint(2, (2, 8, 8)), "here")
    assert all(gradient is not None for gradient in gradients)
    norm = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)


# States


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stepper_with_groups_goes_on_exactly(name: Any) -> None:
    config = OptimizerConfig(lr=0.01, name=name, decay="dense_convolutions", **HEAD)
    torch.manual_seed(0)
    begun = Tiny()
    batches = [(torch.randn(2, 3, 8, 8), torch.randint(2, (2, 8, 8))) for _ in range(5)]

    def run(network: Tiny, stepper: Stepper, numbers: range) -> None:
        for number in numbers:
            stepper.lr = 0.01 / (1 + number)
            stepper.step(*batches[number], "here")

    straight, first, second = (copy.deepcopy(begun) for _ in range(3))
    run(straight, stepper_of(straight, config), range(5))
    half = stepper_of(first, config)
    run(first, half, range(2))
    resumed = stepper_of(second, config)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    multipliers = {group["lr_multiplier"] for group in half.state_dict()["optimizer"]["groups"]}
    assert multipliers == {1.0, 10.0, 20.0}
    run(second, resumed, range(2, 5))
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_do_not_say_how_a_step_is_computed(name: Any) -> None:
    """One step of a loop over parameters and two fused ones are three of either, to rounding."""
    found, numbers = [], {key: torch.randn(shape) for key, shape in (("weight", (2, 2, 3, 3)), ("bias", (2,)))}
    for kinds in (("fused",) * 3, ("loop", "fused", "fused"), ("fused", "loop", "loop")):
        torch.manual_seed(0)
        network = nn.Conv2d(2, 2, 3)
        state: dict[str, Any] | None = None
        for kind in kinds:
            optimizer = make_optimizer(network, network.parameters(), CONFIG, name)
            assert optimizer.param_groups[0]["fused"]
            if kind == "loop":
                optimizer.param_groups[0].update(fused=False, foreach=False)
            if state is not None:
                load_optimizer_state(optimizer, network, copy.deepcopy(state))
                assert optimizer.param_groups[0]["fused"] == (kind == "fused")
            for key, parameter in network.named_parameters():
                parameter.grad = numbers[key].clone()
            optimizer.step()
            state = optimizer_state(optimizer, network)
            assert {"fused", "foreach"}.isdisjoint(state["groups"][0])
        found.append((network.weight.detach(), network.bias.detach()))
    for others in found[1:]:
        torch.testing.assert_close(others, found[0])
