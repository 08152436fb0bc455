"""Steps: whose gradients are computed, when a loss is read, batches for one update, half precision, graphs."""

from __future__ import annotations

import copy
import dataclasses
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import nas.training.cuda_graphs
import nas.training.step
from nas.config import (
    ArchitectureConfig,
    AugmentConfig,
    CosineSgdConfig,
    LoaderConfig,
    SearchConfig,
    SgdConfig,
    SupernetConfig,
)
from nas.darts import make_steppers, search
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.supernet.network import Supernet
from nas.training.cuda_graphs import Graphed, graph_pool
from nas.training.devices import set_float32
from nas.training.interruption import InterruptedRun
from nas.training.losses import NonFiniteLossError, cross_entropy
from nas.training.optimizers import cosine, make_optimizer
from nas.training.step import Execution, Stepper
from retrain.config import RetrainConfig
from retrain.training import train
from runs import check_same_run, equal, interrupt, on_step
from search_spaces.space import SearchSpace

CPU = torch.device("cpu")
SPACE = SearchSpace("tiny", 3, 2, 2, 2, ("none", "skip", "max_pooling_3x3", "separable_3x3", "dilated_separable_5x5"))
ENGINES: Any = ("plain", "fast")


def supernet_of(engine: Any) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE, 3, engine)


def batch(images: int = 2, side: int = 17, classes: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(images, 3, side, side), torch.randint(classes, (images, side, side))


def tiny_convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 1))


def stepper_of(network: nn.Module, clip: float | None = None, accumulate: int = 1) -> Stepper:
    optimizer = make_optimizer(network, network.parameters(), SgdConfig(0.1, 0.01))
    return Stepper("test", network, optimizer, Execution(CPU, accumulate=accumulate), clip=clip)


# Gradients


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_those_of_a_backward_pass_to_the_optimizers_parameters(engine: str) -> None:
    for number in (0, 1):
        supernet, twin = supernet_of(engine), supernet_of(engine)
        stepper = make_steppers(SearchConfig(), supernet, CPU)[number]
        loss = stepper.gradients(*batch())
        own = [twin.weights(), list(twin.architecture.parameters())][number]
        images, labels = batch()
        expected = cross_entropy(twin(images), labels)
        expected.backward(inputs=own)
        assert torch.equal(loss, expected.detach())
        for (name, ours), theirs in zip(supernet.named_parameters(), twin.parameters(), strict=True):
            assert (ours.grad is None) == (theirs.grad is None), name
            assert ours.grad is None or torch.equal(ours.grad, theirs.grad), name


class Watched(torch.autograd.Function):
    """The product of two tensors; notes which gradients were asked for."""

    asked: tuple[bool, ...] = ()

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        Watched.asked = ctx.needs_input_grad
        return gradient * y, (gradient * x).sum((0, 2, 3), keepdim=True)


class TwoFactors(nn.Module):
    """Images times a trained weight times one of another optimiser; `frozen` is nobody's."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = (nn.Parameter(torch.ones(1, 3, 1, 1)) for _ in range(2))
        self.frozen = nn.Parameter(torch.ones(1, 3, 1, 1), requires_grad=False)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError("no forward pass")
        return Watched.apply(x * self.own * self.frozen, self.other)


def test_functions_are_not_asked_for_gradients_that_nobody_wants() -> None:
    network = TwoFactors()
    flags = [parameter.requires_grad for parameter in network.parameters()]
    stepper = Stepper("test", network, torch.optim.SGD([network.own], 0.1), Execution(CPU))
    stepper.step(*batch(), "here")
    assert Watched.asked == (True, False)
    network.fails = True
    with pytest.raises(RuntimeError, match="no forward pass"):
        stepper.step(*batch(), "here")
    assert [parameter.requires_grad for parameter in network.parameters()] == flags == [True, True, False]


def test_no_gradients_are_left_behind() -> None:
    network = tiny_convolutions()
    stepper_of(network).step(*batch(), "here")
    assert all(parameter.grad is None for parameter in network.parameters())


# The check of the loss


class NoReading(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU: a number that is read."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_that_checks_late_reads_no_number(engine: Any) -> None:
    supernet = supernet_of(engine)
    config = SearchConfig(optimizer=CosineSgdConfig(clip=1.0))
    for stepper in make_steppers(config, supernet, CPU):
        stepper.checks_late = True
        for parameter in stepper.parameters:  # Adam reads the settings of its first step
            parameter.grad = torch.zeros_like(parameter)
        stepper.optimizer.step()
        with NoReading():
            stepper.step(*batch(), "here")
        stepper.settle()


def poison(stepper: Stepper, number: int, value: float = math.nan) -> None:
    """The loss of the `number`-th forward pass, from 1, is not finite; its gradients are, as they may be."""
    count = [0]

    def poisoned(logits: Tensor, labels: Tensor) -> Tensor:
        count[0] += 1
        return cross_entropy(logits, labels) + (value if count[0] == number else 0)

    stepper.loss = poisoned


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_late_check_takes_no_step_and_names_the_place(
    name: Any, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_convolutions()
    optimizer = make_optimizer(network, network.parameters(), SgdConfig(0.1, 0.01), name)
    stepper = Stepper("late", network, optimizer, Execution(CPU), clip=1.0)
    stepper.checks_late = True
    poison(stepper, 2, value)
    stepper.step(*batch(), "step 1")
    before = copy.deepcopy((network.state_dict(), stepper.state_dict()))
    stepper.step(*batch(), "step 2")
    assert equal(before, (network.state_dict(), stepper.state_dict()))
    with pytest.raises(NonFiniteLossError, match=r"late step is (nan|inf) at step 2"):
        stepper.step(*batch(), "step 3")


def test_the_last_step_of_all_is_checked_when_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = stepper_of(tiny_convolutions())
    stepper.checks_late = True
    poison(stepper, 2)
    stepper.step(*batch(), "step 1")
    stepper.settle()
    stepper.step(*batch(), "step 2")
    with pytest.raises(NonFiniteLossError, match="at step 2"):
        stepper.settle()
    stepper.settle()  # it is said once


def test_on_a_cpu_the_check_is_immediate(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_convolutions()
    stepper = stepper_of(network)
    assert not stepper.checks_late
    poison(stepper, 1)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(NonFiniteLossError, match="at step 1"):
        stepper.step(*batch(), "step 1")
    assert equal(before, network.state_dict())


def test_losses_add_up_in_double_precision() -> None:
    loss = stepper_of(tiny_convolutions()).step(*batch(), "here")
    assert loss.dtype == torch.float64 and loss.shape == () and not loss.requires_grad


# Several batches for one update


@pytest.mark.parametrize("clip", [None, 0.01])
def test_two_batches_of_two_are_one_of_four(clip: float | None) -> None:
    """Where batch norm has fixed statistics, and each batch as many labelled pixels."""
    one, two = (nn.Sequential(tiny_convolutions(), nn.BatchNorm2d(3)) for _ in range(2))
    for network in (one, two):
        network.train = lambda mode=True, network=network: network  # type: ignore[method-assign]
        network.eval()
        for child in network.children():
            child.eval()
    losses = [
        stepper_of(network, clip, accumulate=parts).step(*batch(4), "here") for network, parts in ((one, 1), (two, 2))
    ]
    torch.testing.assert_close(*losses)
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_each_batch_counts_alike_however_many_of_its_pixels_are_labelled() -> None:
    images, labels = batch(4)
    labels[:2, 1:] = 255
    network = tiny_convolutions()
    halves = [cross_entropy(network(images[part]), labels[part]) for part in (slice(0, 2), slice(2, 4))]
    expected = torch.autograd.grad((halves[0] + halves[1]) / 2, list(network.parameters()))
    stepper = stepper_of(network, accumulate=2)
    loss = stepper.gradients(images, labels)
    torch.testing.assert_close(loss, (halves[0] + halves[1]).detach() / 2)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


LOADER = LoaderConfig(train_limit=24, val_limit=2, batch_size=2, augment=AugmentConfig((17, 17)))


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_a_run_that_accumulates_counts_updates_and_goes_on_exactly(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "search":
        (tmp_path / "space.yaml").write_text(SearchSpace("tiny", 2, 2, 1, 2, ("none", "skip")).to_yaml())
        config: Any = SearchConfig(
            space=str(tmp_path / "space.yaml"), loader=LOADER, architecture=ArchitectureConfig(start_epoch=0)
        )
        start, updates = search, 3  # 12 images for the weights, 4 an update
    else:
        config = RetrainConfig(genotype="espnet-c", loader=dataclasses.replace(LOADER, train_limit=12))
        start, updates = train, 3  # type: ignore[assignment]
    config = dataclasses.replace(config, accumulate=2, epochs=2, out=str(tmp_path / "run"))
    folder = start(config, quiet=True).folder
    if kind == "search":
        rates = [line["lr"]["weights"] for line in read_metrics(folder)]
        last = [(epoch * updates + updates - 1) / (2 * updates) for epoch in range(2)]
        assert rates == pytest.approx([cosine(p, config.optimizer.lr, config.optimizer.lr_end) for p in last])
    again = dataclasses.replace(config, out=str(tmp_path / "again"))
    with monkeypatch.context() as patch:
        on_step(patch, 3, interrupt)
        with pytest.raises(InterruptedRun):
            start(again, quiet=True)
    state = load_checkpoint(tmp_path / "again" / "checkpoint.pt", kind)["state"]
    assert (state["epoch"], state["step"]) == (0, 2 if kind == "search" else 3)
    assert all(isinstance(value, int | float | dict | list | None) for value in state.values())
    start(again, resume=tmp_path / "again", quiet=True)
    if kind == "search":
        check_same_run(folder, tmp_path / "again", kind)
    else:
        assert equal(*(load_checkpoint(f / "checkpoint.pt", kind)["network"] for f in (folder, tmp_path / "again")))


# Precision


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_step_in_half_precision_is_close_to_one_in_float32(engine: Any) -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        supernet = supernet_of(engine)
        steppers = make_steppers(SearchConfig(precision=precision), supernet, CPU)
        losses = [stepper.gradients(*batch(side=33)) for stepper in steppers]
        gradients = {name: p.grad for name, p in supernet.named_parameters()}
        for name, tensor in [*gradients.items(), *supernet.named_buffers()]:
            if tensor is not None and tensor.is_floating_point():
                assert tensor.dtype == torch.float32 and tensor.isfinite().all(), name
        statistics = {name: b for name, b in supernet.named_buffers() if "running" in name}
        found.append((torch.stack(losses), gradients, statistics))
    single, half = found
    torch.testing.assert_close(half[0], single[0], rtol=0.01, atol=0.01)
    for name in ("architecture.alpha", "architecture.beta"):
        cosine_of = nn.functional.cosine_similarity(half[1][name].flatten(), single[1][name].flatten(), dim=0)
        assert cosine_of > 0.9, name  # rounding to 8 bits is a noise of its own
    for name, statistic in single[2].items():
        torch.testing.assert_close(half[2][name], statistic, rtol=0.05, atol=0.05, msg=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_probabilities_stay_in_float32(engine: Any) -> None:
    supernet = supernet_of(engine)
    with torch.autocast("cpu", torch.bfloat16):
        sample = supernet.sample()
    assert {sample.alpha.dtype, sample.beta.dtype} == {torch.float32}


def test_float32_is_float32_and_tf32_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    gpu, capability = torch.device("cuda"), [(8, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability[0])
    try:
        for precision, expected in (("tf32", ("high", True)), ("float32", ("highest", False))):
            set_float32(gpu, precision)  # type: ignore[arg-type]
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
        capability[0] = (7, 5)
        for device in (gpu, CPU):
            with pytest.raises(ValueError, match="only NVIDIA GPUs from Ampere on have"):
                set_float32(device, "tf32")
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


# Graphs


def test_graphs_are_refused_on_a_cpu() -> None:
    config = SearchConfig(supernet=SupernetConfig(graphs=True))
    with pytest.raises(ValueError, match=r"supernet\.graphs is on, but the device is cpu: leave it out"):
        make_steppers(config, supernet_of("fast"), CPU)
    with pytest.raises(ValueError, match=r"supernet\.graphs"):
        graph_pool(CPU)


class FakeStream:
    def wait_stream(self, other: Any) -> None:
        pass


class FakeGraph:
    """Stands for a CUDA graph: replays by calling again what ran while it was recorded."""

    recording: FakeGraph | None = None

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __enter__(self) -> None:
        FakeGraph.recording = self

    def __exit__(self, *_: object) -> None:
        FakeGraph.recording = None

    def replay(self) -> None:
        for call in self.calls:
            call()


def test_a_graph_reads_new_images_and_the_warm_up_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = nas.training.cuda_graphs.torch.cuda
    for name, value in {
        "CUDAGraph": FakeGraph,
        "graph": lambda graph, pool: graph,
        "Stream": FakeStream,
        "current_stream": FakeStream,
        "stream": lambda stream: nullcontext(),
        "get_rng_state": torch.get_rng_state,
        "set_rng_state": torch.set_rng_state,
    }.items():
        monkeypatch.setattr(cuda, name, value)
    statistics, loss, runs = torch.zeros(()), torch.zeros(()), [0]

    def compute(images: Tensor, labels: Tensor) -> Tensor:
        def kernels() -> None:
            loss.copy_(images.sum() + labels.sum() + torch.rand(()) * 0)
            statistics.add_(images.mean())

        runs[0] += 1
        if FakeGraph.recording is None:
            kernels()
        else:  # a capture computes nothing
            FakeGraph.recording.calls.append(kernels)
        return loss

    torch.manual_seed(0)
    graphed = Graphed(compute, [statistics], pool=None)
    state = torch.get_rng_state()
    given = [torch.full((2, 3, 4, 4), float(k)) for k in (1, 2, 3)]
    labels = torch.ones(2, 4, 4, dtype=torch.int64)
    assert [float(graphed(images, labels)) for images in given] == [96 + 32, 192 + 32, 288 + 32]
    assert float(statistics) == 1 + 2 + 3
    assert runs[0] == nas.training.cuda_graphs.WARM_UPS + 1
    torch.set_rng_state(state)
    for _ in given:
        torch.rand(())
    assert float(given[0][0, 0, 0, 0]) == 1.0  # the images of the caller are not written to
    with pytest.raises(AssertionError, match="one shape"):
        graphed(torch.ones(3, 3, 4, 4), labels)
