"""The fast engine against the plain loop: outputs, every gradient, statistics, checkpoints."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import nas.supernet.engine.pass_context
import strategies
from nas.config import CosineSgdConfig
from nas.supernet.engine.batched_modules import BatchedOperation
from nas.supernet.engine.memory_format import from_columns, to_columns
from nas.supernet.engine.pass_context import PassContext
from nas.supernet.network import Supernet
from nas.training.optimizers import make_optimizer
from nas.training.step import Execution, Stepper
from search_spaces.module_protocols import project, reported
from search_spaces.modules import BatchNorm
from search_spaces.operations import NONE, OPERATIONS, Cost, register_operation
from search_spaces.settings import OperationSettings
from search_spaces.space import Head, SearchSpace, available, load

CLASSES = 3
BATCHED = [name for name in OPERATIONS if OPERATIONS[name].ends_in is not None]
OTHER = OperationSettings(
    li_zone=5, li_rate=2, li_init=(0.1, 0.4), smoothing_window="official", fpl_rates=(1, 3, 2), fpl_fusion="pair"
)


def small(space: SearchSpace, **fields: Any) -> SearchSpace:
    numbers = {"layers": 3, "levels": 2, "blocks": 2, "filter_multiplier": 3, "head": Head((48,))}
    return dataclasses.replace(space, **{**numbers, **fields})


def engines(
    space: SearchSpace, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any
) -> tuple[Supernet, Supernet]:
    """The plain and the fast supernet with the same random weights, architecture and running statistics."""
    torch.manual_seed(seed)
    plain = Supernet(space, CLASSES, "plain", partial_channels=options.get("partial_channels", 1)).to(dtype)
    fast = Supernet(space, CLASSES, "fast", **options).to(dtype)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name.startswith("architecture"):
                parameter.normal_()
            elif not name.endswith("intensity"):
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in plain.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def gradients(supernet: Supernet) -> dict[str, Tensor]:
    """The gradients by the plain loop's names."""
    parameters = list(supernet.parameters())
    values = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    found = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    return found


def check_equal(space: SearchSpace, size: tuple[int, int], training: bool, seed: int = 0, **options: Any) -> None:
    compare(*engines(space, seed=seed, **options), size, training)


def compare(plain: Supernet, fast: Supernet, size: tuple[int, int], training: bool) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    seen: list[tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]] = []
    direction = torch.randn(2, CLASSES, *size, dtype=torch.float64)
    for supernet in (plain, fast):
        y = supernet.train(training)(x)
        y.backward(direction)
        seen.append((y.detach(), gradients(supernet), supernet.state_dict()))
    (y, of_plain, state), (z, of_fast, other) = seen
    torch.testing.assert_close(z, y, rtol=1e-10, atol=1e-10)
    assert set(of_fast) == set(of_plain)
    names = {name for name, _ in plain.named_parameters()}
    largest = max(float(of_plain[name].abs().max()) for name in names)
    for name in names:
        torch.testing.assert_close(of_fast[name], of_plain[name], rtol=1e-10, atol=1e-10 * largest, msg=name)
    for name in set(state) - names:  # running statistics
        torch.testing.assert_close(other[name], state[name], rtol=1e-10, atol=1e-10)


@pytest.fixture(params=["small", "large"])
def sized(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that the fast engine takes for small, and so for large ones, which it computes otherwise."""
    monkeypatch.setattr(nas.supernet.engine.pass_context, "SMALL", {"small": 2**40, "large": 0}[request.param])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != NONE])
@pytest.mark.filterwarnings("ignore:the official window")
@pytest.mark.usefixtures("sized")
def test_each_operation_equals_the_loop(name: str, training: bool) -> None:
    for number, changed in enumerate((OperationSettings(), OTHER)):
        space = SearchSpace("one", operations=(NONE, name, "skip")[: 2 + (name != "skip")], settings=changed)
        check_equal(small(space, layers=2), (17, 22), training, seed=number)


@pytest.mark.parametrize("name", available())
@pytest.mark.usefixtures("sized")
def test_each_shipped_space_equals_the_loop(name: str) -> None:
    check_equal(small(load(name), layers=4, levels=3, filter_multiplier=2), (20, 17), training=True)


@pytest.mark.usefixtures("sized")
def test_many_channels_equal_the_loop() -> None:
    """Convolutions of many channels are computed in groups, those of few as one."""
    check_equal(small(load("autodeeplab"), filter_multiplier=16), (20, 17), training=True)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.usefixtures("sized")
def test_partial_channels_equal_the_loop(training: bool) -> None:
    space = small(load("autodeeplab-extended"), layers=2, filter_multiplier=4)
    check_equal(space, (20, 17), training, partial_channels=2)


@pytest.mark.parametrize("partial_channels", [1, 2])
@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_recomputed_is_equal(engine: Any, partial_channels: int) -> None:
    """Twice, so that running statistics that saw a batch twice would tell."""
    space = small(load("autodeeplab-extended"), layers=2, filter_multiplier=4)
    plain, _ = engines(space, partial_channels=partial_channels)
    other = Supernet(space, CLASSES, engine, "node", partial_channels).double()
    other.load_state_dict(plain.state_dict())
    for _ in range(2):
        compare(plain, other, (20, 17), training=True)
        plain.zero_grad(), other.zero_grad()


@settings(max_examples=15)
@given(
    strategies.spaces(max_layers=3, max_levels=3, max_blocks=3),
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["none", "node"]),
    st.integers(0, 99),
)
def test_random_spaces_equal_the_loop(
    space: SearchSpace, size: tuple[int, int], training: bool, large: bool, recompute: str, seed: int
) -> None:
    space = dataclasses.replace(space, filter_multiplier=1 + space.filter_multiplier % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.supernet.engine.pass_context, "SMALL", 0 if large else 2**40)
        check_equal(space, size, training, seed, recompute=recompute)


def test_a_step_leaves_nothing_behind() -> None:
    """The graph of a step goes with its last reference: nothing that it keeps is kept by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.supernet.engine.pass_context, "SMALL", 0)
        supernet = Supernet(small(load("autodeeplab-extended"), layers=2), CLASSES, "fast")
        images, alive = torch.randn(2, 3, 18, 14), []
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                supernet(images).sum().backward()
                alive.append(sum(type(thing) is Tensor for thing in gc.get_objects()))
        finally:
            gc.enable()
    assert alive[1] == alive[2], alive


def test_float32_is_equal_to_its_rounding() -> None:
    plain, fast = engines(small(load("autodeeplab"), filter_multiplier=4), torch.float32)
    x = torch.randn(2, 3, 33, 47)
    for training in (False, True):
        y, z = plain.train(training)(x), fast.train(training)(x)
        torch.testing.assert_close(z, y, rtol=1e-5, atol=1e-5 * float(y.detach().abs().max()))


def test_a_checkpoint_of_one_engine_loads_in_the_other() -> None:
    space = small(load("autodeeplab-extended"), layers=2)
    plain, fast = engines(space)
    torch.manual_seed(7)
    other, back = Supernet(space, CLASSES, "fast").double(), Supernet(space, CLASSES).double()
    assert set(other.state_dict()) == set(plain.state_dict())
    other.load_state_dict(plain.state_dict())
    back.load_state_dict(other.state_dict())
    taken = back.state_dict()
    assert all(torch.equal(taken[name], tensor) for name, tensor in plain.state_dict().items())
    missing = dict(plain.state_dict())
    del missing[next(name for name in missing if ".mixed.1." in name)]
    with pytest.raises(RuntimeError, match="Missing key"):
        fast.load_state_dict(missing)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["plain", "fast"])
def test_a_run_goes_on_in_the_other_engine(first: str) -> None:
    """Weights, momentum, Adam's moments: two steps in one engine and two in the other are four in one."""
    space = small(load("autodeeplab-extended"), layers=2, blocks=1)
    device, images = torch.device("cpu"), torch.randn(2, 3, 18, 14, dtype=torch.float64)
    labels = torch.randint(CLASSES, (2, 18, 14))

    def start(engine: str) -> tuple[Supernet, list[Stepper]]:
        torch.manual_seed(3)
        supernet = Supernet(space, CLASSES, engine).double()  # type: ignore[arg-type]
        sgd = make_optimizer(supernet, supernet.weights(), CosineSgdConfig(lr=0.1))
        adam = torch.optim.Adam(supernet.architecture.parameters(), 0.1)
        return supernet, [Stepper("some", supernet, optimizer, Execution(device)) for optimizer in (sgd, adam)]

    def advance(steppers: list[Stepper]) -> None:
        for stepper in steppers * 2:
            stepper.step(images, labels, "here")

    whole, steppers = start(first)
    advance(steppers)
    saved = copy.deepcopy([stepper.state_dict() for stepper in steppers])
    other, others = start("fast" if first == "plain" else "plain")
    other.load_state_dict(whole.state_dict())
    for stepper, state in zip(others, saved, strict=True):
        stepper.load_state_dict(state)
    advance(steppers)
    advance(others)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=1e-8, atol=1e-8, msg=name)
    torch.save(saved, file := io.BytesIO())
    file.seek(0)
    torch.load(file, weights_only=True)


def test_both_engines_draw_the_same_weights_and_report_the_same() -> None:
    space = small(load("autodeeplab-extended"), layers=1, settings=OTHER)
    supernets = []
    for engine in ("plain", "fast"):
        torch.manual_seed(5)
        supernets.append(Supernet(space, CLASSES, engine))  # type: ignore[arg-type]
    plain, fast = (supernet.state_dict() for supernet in supernets)
    assert all(torch.equal(fast[name], tensor) for name, tensor in plain.items())
    of_plain, of_fast = (reported(supernet) for supernet in supernets)
    assert sorted(of_plain.values()) == pytest.approx(sorted(of_fast.values()))


def test_intensities_are_projected_and_not_decayed() -> None:
    space = small(load("autodeeplab-li"), layers=2)
    fast = Supernet(space, CLASSES, "fast")
    intensities = [p for name, p in fast.named_parameters() if name.endswith("intensity")]
    assert intensities
    with torch.no_grad():
        for parameter in intensities:
            parameter.fill_(3.0)
    project(fast)
    assert all((parameter == 1).all() for parameter in intensities)


class Doubled(nn.Module):
    """An operation that the engine knows nothing of."""

    def __init__(self, channels: int, batch_norm: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 1, 1))
        self.batch_norm = batch_norm(channels)

    def forward(self, x: Tensor, source: int = 0) -> Tensor:
        return self.batch_norm(2 * x * self.weight, source)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_an_operation_without_a_batched_form_falls_back_to_the_loop(training: bool) -> None:
    def build(channels: int, stride: int, batch_norm: Any, settings: Any = None) -> nn.Module:
        return Doubled(channels, batch_norm)

    with OPERATIONS.temporarily():
        register_operation("doubled", label="doubled", color="#000000", cost=lambda *_: Cost())(build)
        check_equal(small(SearchSpace("odd", operations=("doubled", "atrous_5x5", "skip"))), (17, 22), training)


def test_channels_and_columns_are_the_same_memory() -> None:
    x = torch.randn(2, 3 * 4, 5, 6).contiguous(memory_format=torch.channels_last)
    y = to_columns(x, 3)
    assert y.shape == (2, 4, 5, 18) and y.data_ptr() == x.data_ptr()
    for source in range(3):
        assert torch.equal(y[..., source::3], x[:, 4 * source : 4 * source + 4])
    assert torch.equal(from_columns(y, 3), x) and from_columns(y, 3).data_ptr() == x.data_ptr()


def test_modules_that_cannot_be_batched_are_refused() -> None:
    with pytest.raises(ValueError, match="Linear cannot be computed for many edges at once"):
        BatchedOperation(
            [nn.Sequential(nn.Linear(2, 2), BatchNorm(2, affine=False)) for _ in range(2)], "1", PassContext([2], 2)
        )


class Counted(TorchDispatchMode):
    """Counts the tensor operations that PyTorch dispatches: the same number on every machine."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.slow
def test_it_dispatches_a_tenth_of_the_loops_operations() -> None:
    """At L = 12, B = 5, after a first pass, in which tables are made that last."""
    space = dataclasses.replace(load("autodeeplab"), filter_multiplier=8)
    numbers = []
    for engine in ("plain", "fast"):
        supernet, images = Supernet(space, CLASSES, engine), torch.randn(2, 3, 33, 33)  # type: ignore[arg-type]
        supernet(images).sum().backward()
        supernet.zero_grad()
        with Counted() as counted:
            supernet(images).sum().backward()
        numbers.append(counted.number)
    assert numbers[1] <= 0.1 * numbers[0], numbers


def test_it_dispatches_a_fraction_of_the_loops_operations() -> None:
    space = dataclasses.replace(load("autodeeplab"), layers=4, filter_multiplier=2)
    numbers = []
    for engine in ("plain", "fast"):
        supernet = Supernet(space, CLASSES, engine)  # type: ignore[arg-type]
        with Counted() as counted:
            supernet(torch.randn(2, 3, 17, 17)).sum().backward()
        numbers.append(counted.number)
    assert numbers[1] < 0.2 * numbers[0], numbers
