"""The supernet against a literal re-computation of the paper's equations, its betas edge by edge, and odd spaces."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import strategies
from nas.config import ArchitectureConfig
from nas.supernet.alpha_sampling import AlphaSampling
from nas.supernet.architecture import Architecture, ArchitectureSample
from nas.supernet.network import FixedArchitecture, Supernet
from nas.supernet.node import MixedOperation, Node, Source
from search_spaces.graph import count, random_genotype, trellis_graph
from search_spaces.modules import BatchNorm, NoConnection
from search_spaces.operations import NONE, OPERATIONS
from search_spaces.space import Head, SearchSpace, Stem

CLASSES = 3
SOME = ("none", "skip", "max_pooling_3x3", "separable_3x3", "atrous_3x3")


def space(layers: int = 3, levels: int = 3, blocks: int = 2, **fields: Any) -> SearchSpace:
    fields = {"filter_multiplier": 2, "operations": SOME, "head": Head((48,)), **fields}
    return SearchSpace("test", layers=layers, levels=levels, blocks=blocks, **fields)


def supernet_of(searched: SearchSpace, seed: int = 0, spread: float = 1.0) -> Supernet:
    """A supernet in float64 with alpha and beta, running statistics and affine parameters far from their start."""
    torch.manual_seed(seed)
    supernet = Supernet(searched, CLASSES).double()
    with torch.no_grad():
        for parameter in supernet.architecture.parameters():
            parameter.normal_(std=spread)
        for module in supernet.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_()
    return supernet


def images(number: int = 2, height: int = 33, width: int = 47, seed: int = 1) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Literal:
    """Auto-DeepLab's Eq. 1-8 as loops over strides, on a supernet's tensors alone: none of its code is called."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = copy.deepcopy(supernet)  # its candidates only, and of those only other papers'
        self.space = supernet.space
        self.tensors = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        self.training = supernet.training

    def batch_norm(self, x: Tensor, name: str, source: int | None = None) -> Tensor:
        if self.training:
            n = x.shape[0] * x.shape[2] * x.shape[3]
            mean = x.sum((0, 2, 3)) / n
            variance = ((x - mean.view(1, -1, 1, 1)) ** 2).sum((0, 2, 3)) / n
        else:
            mean, variance = self.tensors[f"{name}.running_mean"], self.tensors[f"{name}.running_var"]
            if mean.dim() == 2:
                mean, variance = mean[source], variance[source]
        scale = self.tensors.get(f"{name}.weight", torch.ones_like(mean))
        shift = self.tensors.get(f"{name}.bias", torch.zeros_like(mean))
        normalised = (x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
        return normalised * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    def convolution(self, x: Tensor, name: str, stride: int = 1, rate: int = 1) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        padding = rate * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, self.tensors.get(f"{name}.bias"), stride, padding, rate, groups)

    def relu_convolution(
        self, x: Tensor, name: str, stride: int = 1, rate: int = 1, source: int | None = None
    ) -> Tensor:
        x = self.convolution(x.clamp(min=0), f"{name}.convolution", stride, rate)
        return self.batch_norm(x, f"{name}.batch_norm", source)

    def operation(self, x: Tensor, operation: str, name: str, source: int) -> Tensor:
        def separable(x: Tensor, name: str, rate: int) -> Tensor:
            x = self.convolution(x.clamp(min=0), f"{name}.depthwise", rate=rate)
            return self.batch_norm(self.convolution(x, f"{name}.pointwise"), f"{name}.batch_norm", source)

        if operation == "none":
            return torch.zeros_like(x)
        if operation == "skip":
            return x
        if operation == "max_pooling_3x3":
            padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
            return padded.unfold(2, 3, 1).unfold(3, 3, 1).amax((-2, -1))
        if operation == "average_pooling_3x3":
            windows = F.pad(x, (1, 1, 1, 1), value=torch.nan).unfold(2, 3, 1).unfold(3, 3, 1)
            return windows.nanmean((-2, -1))  # the padding does not count
        if operation.startswith("separable"):
            return separable(separable(x, f"{name}.first", 1), f"{name}.second", 1)
        if operation.startswith("atrous"):
            return self.relu_convolution(x, f"{name}.body", rate=2, source=source)
        if operation.startswith("dilated_separable"):
            return separable(x, name, 2)
        # The operations of other papers are written out in their own tests; here counts how they are mixed.
        return self.supernet.get_submodule(name)(x, source)

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    def cell(self, node: str, source: int, states: list[Tensor], alpha: Tensor) -> Tensor:
        edge = 0
        for _ in range(self.space.blocks):
            block = torch.zeros_like(states[0])
            for state in states:  # Eq. 1: a block is the sum over all states before it
                for column, operation in enumerate(self.space.operations):  # Eq. 2
                    name = f"{node}.mixed.{edge}.candidates.{operation}"
                    block = block + alpha[edge, column] * self.operation(state, operation, name, source)
                edge += 1
            states = [*states, block]
        return torch.cat(states[2:], 1)

    def preprocess(self, x: Tensor, name: str, ratio: int, size: tuple[int, int]) -> Tensor:
        """`ratio` is how many times finer `x` is."""
        x = self.resized(x, size) if x.shape[-2] < size[0] or x.shape[-1] < size[1] else x
        return self.relu_convolution(x, f"{name}.body", stride=ratio)

    def __call__(self, x: Tensor) -> Tensor:
        space, strides = self.space, self.space.strides
        height, width = x.shape[-2:]
        stem = []
        for number, stride in enumerate(space.stem.strides):
            x = self.convolution(x.clamp(min=0) if number else x, f"stem.layers.{number}.convolution", stride)
            x = self.batch_norm(x, f"stem.layers.{number}.batch_norm")
            stem.append(x)
        stem = [stem[-1], *stem] if len(stem) == 1 else stem
        size = {s: (-(-x.shape[-2] // (s // strides[0])), -(-x.shape[-1] // (s // strides[0]))) for s in strides}

        raw = self.tensors["architecture.alpha"].exp()
        alpha = raw / raw.sum(1, keepdim=True)  # Eq. 3-4
        logits = self.tensors["architecture.beta"]
        fine = strides[0] // (space.stem.strides[-1] if len(space.stem.strides) > 1 else 1)
        history = [{fine: stem[-2]}, {strides[0]: stem[-1]}]  # H^{-1}, H^0 by stride
        for layer in range(1, space.layers + 1):
            outputs = {}
            for level, s in enumerate(strides):
                sources = [t for t in (s // 2, s, 2 * s) if t in history[-1]]
                if not sources:
                    continue
                nearest = max(t for t in history[-2] if t <= s)
                node, total = f"nodes.layer{layer}_level{level}", torch.zeros(())
                before = self.preprocess(history[-2][nearest], f"{node}.before", s // nearest, size[s])
                for k, t in enumerate(sources):
                    origin = strides.index(t)
                    # Eq. 7-8: normalised over what leaves the source, whose steps are finer, same, coarser.
                    leaving = {
                        u: logits[layer - 1, origin, step].exp()
                        for step, u in enumerate((t // 2, t, 2 * t))
                        if u in strides
                    }
                    beta = leaving[s] / sum(leaving.values())
                    last = self.preprocess(history[-1][t], f"{node}.incoming.{k}", max(1, s // t), size[s])
                    total = total + beta * self.cell(node, k, [before, last], alpha)  # Eq. 6
                outputs[s] = total
            history.append(outputs)

        prediction = torch.zeros(())
        for number, (s, y) in enumerate(history[-1].items()):
            branches = [self.relu_convolution(y, f"heads.{number}.branches.0")]
            for k, reach in enumerate(space.head.reach, start=1):
                branches.append(self.relu_convolution(y, f"heads.{number}.branches.{k}", rate=max(1, reach // s)))
            if space.head.image_pooling:
                pooled = y.clamp(min=0).mean((2, 3), keepdim=True)
                branches.append(self.relu_convolution(pooled, f"heads.{number}.pooled").expand_as(y))
            y = self.relu_convolution(torch.cat(branches, 1), f"heads.{number}.project")
            y = self.convolution(y.clamp(min=0), f"heads.{number}.classify")
            prediction = prediction + self.resized(y, (height, width))
        return prediction


LITERAL_SPACES = {
    "small": space(),
    "every operation": space(2, 2, 1, operations=OPERATIONS.names()),
    "stem of one": space(3, 2, 1, stem=Stem((2,))),
    "stem of three": space(2, 3, 2, stem=Stem((2, 1, 2), (4, 6, 5))),
    "stride 1": space(2, 2, 1, stem=Stem((1, 1))),
    "one layer": space(1, 4, 2),
    "one level": space(4, 1, 1),
    "five layers of four levels": space(5, 4, 1, operations=("skip", "none", "dilated_separable_3x3")),
    "bare head": space(2, 2, 1, head=Head((), False)),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("searched", LITERAL_SPACES.values(), ids=LITERAL_SPACES.keys())
@torch.no_grad()
def test_equals_the_equations_of_the_paper(searched: SearchSpace, training: bool) -> None:
    supernet = supernet_of(searched).train(training)
    literal, x = Literal(supernet), images()
    torch.testing.assert_close(supernet(x), literal(x), rtol=0, atol=1e-10)


@given(st.data())
def test_alpha_and_beta_are_probabilities_on_the_trellis(data: st.DataObject) -> None:
    searched = data.draw(strategies.spaces())
    torch.manual_seed(data.draw(st.integers(0, 99)))
    architecture = Architecture(searched).double()
    with torch.no_grad():
        for parameter in architecture.parameters():
            parameter.normal_(std=data.draw(st.sampled_from([0.1, 3.0, 300.0])))
        sample = architecture()
    alpha, beta = sample.alpha, sample.beta

    assert alpha.shape == (len(searched.edges), len(searched.operations))
    torch.testing.assert_close(alpha.sum(1), torch.ones(len(searched.edges), dtype=torch.float64))
    graph = trellis_graph(searched)
    edges = {(layer, level, target - level + 1) for (layer, level), (_, target) in graph.edges}
    assert {tuple(index) for index in architecture.mask.nonzero().tolist()} == edges
    np.testing.assert_array_equal(architecture.mask.numpy(), strategies.transition_mask(searched))
    assert (beta[~architecture.mask] == 0).all()
    leaving = {(layer, level) for layer, level in graph if layer < searched.layers}
    for layer, level in itertools.product(range(searched.layers), range(searched.levels)):
        assert float(beta[layer, level].sum()) == pytest.approx(float((layer, level) in leaving))


PERTURBED = space(4, 3, 2)


@pytest.fixture(scope="module")
def perturbed() -> Supernet:
    return supernet_of(PERTURBED).eval()


@torch.no_grad()
def record(supernet: Supernet, sample: ArchitectureSample) -> dict[tuple[int, int], tuple[dict[str, Any], Tensor]]:
    """What every node (layer, level) was called with and gave, from H^{-1} and H^0 that are always the same."""
    calls: dict[tuple[int, int], tuple[dict[str, Any], Tensor]] = {}
    hooks = []
    for layer in range(1, PERTURBED.layers + 1):
        for level in PERTURBED.node_levels(layer):

            def keep(module: Node, _: Any, call: dict[str, Any], output: Tensor, key: Any = (layer, level)) -> None:
                calls[key] = (call, output)

            node = supernet.nodes[f"layer{layer}_level{level}"]
            hooks.append(node.register_forward_hook(keep, with_kwargs=True))  # type: ignore[arg-type]
    before, stem = supernet.stem(images())
    supernet.trellis(before, stem, sample)
    for hook in hooks:
        hook.remove()
    calls[0, 0] = ({}, stem)
    return calls


@pytest.mark.parametrize(("start", "end"), trellis_graph(PERTURBED).edges)
@torch.no_grad()
def test_each_beta_weighs_one_cell_of_one_node(
    perturbed: Supernet, start: tuple[int, int], end: tuple[int, int]
) -> None:
    # Two public implementations had a layer where one beta weighed another edge's cell: so look at every edge.
    (layer, level), (_, target), epsilon = start, end, 0.125
    sample = perturbed.architecture()
    changed = sample.beta.clone()
    changed[layer, level, target - level + 1] += epsilon
    base, after = record(perturbed, sample), record(perturbed, dataclasses.replace(sample, beta=changed))

    differing = []
    for key, (call, _) in base.items():
        if key != (0, 0):
            for k in (after[key][0]["beta"] - call["beta"]).nonzero().flatten().tolist():
                differing.append((key, k))
    assert len(differing) == 1
    (node, k), call = differing[0], base[end][0]
    assert node == end
    assert call["incoming"][k] is base[start][1]  # its cell reads the tensor that the edge starts from
    for key in base:
        if key[0] <= end[0] and key != end:  # nothing else changed before the change could propagate
            assert torch.equal(base[key][1], after[key][1])
    module = perturbed.nodes[f"layer{end[0]}_level{end[1]}"]
    cells = module.cells(call["incoming"], call["before"], sample.alpha, call["size"])  # type: ignore[operator]
    torch.testing.assert_close(after[end][1] - base[end][1], epsilon * cells[k], rtol=0, atol=1e-12)
    assert cells[k].abs().max() > 0.1


def test_a_sample_without_operations_weighs_them_and_edges_that_lost_all_nothing() -> None:
    alpha, weights = torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0.4, 0.6])
    kept, genotype = torch.tensor([[True, False], [False, False]]), random_genotype(space(), 0)
    for edge_weights, expected in ((weights, weights * torch.tensor([1, 0])), (None, None)):
        sample = ArchitectureSample(alpha, torch.zeros(1, 1, 3), edge_weights, genotype)
        found = sample.without(kept)
        assert found.alpha.tolist() == [[0.5, 0], [0, 0]] and found.beta is sample.beta and found.genotype is genotype
        assert found.edge_weights is expected or torch.equal(found.edge_weights, expected)  # type: ignore[arg-type]
        assert torch.equal(sample.alpha, alpha)


def test_a_sample_that_is_given_is_the_architecture_of_the_pass() -> None:
    supernet, x = supernet_of(space()).eval(), images()
    with torch.no_grad():
        expected, sample = supernet(x), supernet.sample()
        for parameter in supernet.architecture.parameters():
            parameter.zero_()
        assert torch.equal(supernet(x, sample), expected) and not torch.equal(supernet(x), expected)
        assert torch.equal(FixedArchitecture(supernet, sample)(x), expected)


def test_the_first_layers_are_a_supernet_of_the_same_modules() -> None:
    supernet, x = supernet_of(space(layers=4)).eval(), images()
    cut, before = supernet.first_layers(2), set(supernet.nodes)
    assert list(cut.nodes) == cut.node_names(1) + cut.node_names(2) and set(supernet.nodes) == before
    assert all(cut.nodes[name] is supernet.nodes[name] for name in cut.nodes)
    with torch.no_grad():
        assert cut(x).shape == supernet(x).shape


def test_none_takes_probability_and_adds_nothing() -> None:
    torch.manual_seed(0)
    mixed = MixedOperation(("skip", "none", "separable_3x3"), 4, sources=1).double()
    x, logits = torch.randn(2, 4, 5, 6, dtype=torch.float64), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    raised = logits.detach() + torch.tensor([0.0, 2.0, 0.0])
    low, high = mixed(x, logits.softmax(0), 0), mixed(x, raised.softmax(0), 0)
    share = (1 - raised.softmax(0)[1]) / (1 - logits.softmax(0)[1])
    assert share < 0.4
    torch.testing.assert_close(high, share * low)  # the same mixture, less of it
    (gradient,) = torch.autograd.grad(low.square().sum(), logits)
    assert gradient[1] < 0  # more of `none` makes the output smaller
    assert list(mixed.candidates) == ["skip", "separable_3x3"]
    assert not any(isinstance(module, NoConnection) for module in Supernet(space(), CLASSES).modules())


def test_weights_and_architecture_are_disjoint_complete_and_ordered() -> None:
    supernet, again = Supernet(space(), CLASSES), Supernet(space(), CLASSES)
    names = {id(parameter): name for name, parameter in supernet.named_parameters()}
    weights = [names[id(parameter)] for parameter in supernet.weights()]
    architecture = [names[id(parameter)] for parameter in supernet.architecture.parameters()]
    assert architecture == ["architecture.alpha", "architecture.beta"]
    assert not set(weights) & set(architecture)
    assert sorted(weights + architecture) == sorted(names.values())
    assert weights == [name for name, _ in supernet.named_parameters() if name not in architecture]
    assert [p.shape for p in again.weights()] == [p.shape for p in supernet.weights()]  # what optimisers go by


def test_gradients_reach_every_weight_and_every_existing_entry() -> None:
    supernet = supernet_of(space(4, 3, 2), spread=0.1).train()
    supernet(images(4, 48, 48)).square().mean().backward()
    without = [name for name, p in supernet.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    alpha, beta = (p.grad for p in supernet.architecture.parameters())
    assert alpha is not None and (alpha != 0).all()
    assert beta is not None and (beta[supernet.architecture.mask] != 0).all()
    assert (beta[~supernet.architecture.mask] == 0).all()


def test_cells_of_a_node_share_operation_weights() -> None:
    sources = [Source(8, 4), Source(16, 8), Source(32, 16)]
    one, three = (Node(space(), 1, sources[:k], Source(16, 8)) for k in (1, 3))
    assert [p.shape for p in one.mixed.parameters()] == [p.shape for p in three.mixed.parameters()]
    assert len(list(three.mixed.parameters())) > 0
    projections = [preprocess.body.convolution.weight for preprocess in three.incoming]  # type: ignore[union-attr]
    assert len({id(weight) for weight in projections}) == 3


def test_batch_norm_statistics_are_of_one_incoming_tensor_each() -> None:
    def buffers(scale: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        node = Node(space(), 1, [Source(8, 4), Source(16, 8), Source(32, 16)], Source(16, 8)).double()
        generator = torch.Generator().manual_seed(1)
        shapes = [(8, 9, 9), (16, 5, 5), (32, 3, 3), (16, 5, 5)]
        *incoming, before = (torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in shapes)
        incoming[1] = incoming[1].pow(2) if scale != 1 else incoming[1]
        alpha = torch.full((len(node.edges), len(SOME)), 0.2, dtype=torch.float64)
        node(incoming, before, alpha, torch.full((3,), 1 / 3, dtype=torch.float64), (5, 5))
        return {name: buffer for name, buffer in node.mixed.named_buffers() if "running" in name}

    first, second = buffers(1), buffers(2)
    assert {buffer.shape for buffer in first.values()} == {(3, 4)}
    for name in first:
        assert torch.equal(first[name][[0, 2]], second[name][[0, 2]])
    # Edges that read l-1, directly or through a block, saw another tensor in the second cell only.
    assert sum(not torch.equal(first[name][1], second[name][1]) for name in first) >= len(first) // 2
    assert all((buffer[0] != buffer[2]).any() for name, buffer in first.items() if name.startswith("1."))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 4), (31, 33), (33, 47), (64, 64)])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_output_has_the_size_of_the_input(size: tuple[int, int], training: bool) -> None:
    supernet = supernet_of(space(4, 4, 1)).train(training)
    logits = supernet(images(3, *size))
    assert logits.shape == (3, CLASSES, *size)
    assert logits.isfinite().all()


def small(searched: SearchSpace) -> SearchSpace:
    """The same shape of space, narrow, so that an example takes milliseconds."""
    channels = searched.stem.channels and tuple(min(c, 4) for c in searched.stem.channels)
    stem = dataclasses.replace(searched.stem, channels=channels)
    return dataclasses.replace(searched, filter_multiplier=min(searched.filter_multiplier, 2), stem=stem)


@settings(max_examples=40)
@given(
    strategies.spaces(max_layers=4, max_blocks=2).map(small),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 99),
)
def test_any_space_runs_forward_and_backward(searched: SearchSpace, size: tuple[int, int], seed: int) -> None:
    supernet = supernet_of(searched, seed).train()
    assert len(supernet.nodes) == count(searched).nodes
    assert sum(len(node.incoming) for node in supernet.nodes.values()) == count(searched).transitions  # type: ignore
    logits = supernet(images(2, *size, seed=seed))
    assert logits.shape == (2, CLASSES, *size)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in supernet.parameters())


def test_eval_is_deterministic_and_treats_each_image_alone() -> None:
    supernet, x = supernet_of(space()).eval(), images(3)
    with torch.no_grad():
        together, again = supernet(x), supernet(x)
        alone = torch.cat([supernet(x[k : k + 1]) for k in range(3)])
    assert torch.equal(together, again)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "level", "channels", "ratio"),
    [
        (1, 0, 4, 2),  # H^{-1} is at stride 2: to stride 4 it takes 2,
        (1, 1, 4, 4),  # to stride 8 it takes 4, as the authors' e-mail has it
        (2, 0, 8, 1),  # H^0 is at stride 4
        (2, 1, 8, 2),
        (2, 2, 8, 4),
        (3, 0, 8, 1),  # from here on outputs of cells, 8 channels at stride 4
        (3, 1, 16, 1),
        (3, 2, 16, 2),
        (3, 3, 16, 4),
        (4, 2, 32, 1),
        (4, 3, 32, 2),
        (5, 3, 64, 1),
    ],
)
def test_h_of_two_layers_before_comes_from_the_nearest_level(layer: int, level: int, channels: int, ratio: int) -> None:
    supernet = Supernet(space(5, 4, 2, filter_multiplier=4, operations=("skip",)), CLASSES)
    convolution = supernet.nodes[f"layer{layer}_level{level}"].before.body.convolution  # type: ignore[union-attr]
    assert (convolution.in_channels, convolution.stride) == (channels, (ratio, ratio))
    assert convolution.kernel_size == (2 * ratio - 1,) * 2  # no pixel is skipped


def test_the_papers_trellis_has_its_nodes_and_cells() -> None:
    supernet = Supernet(space(12, 4, 1, filter_multiplier=1, operations=("skip",)), CLASSES)
    assert len(supernet.nodes) == 2 + 3 + 10 * 4
    # Steps from the stem, from layer 1 (levels 0, 1), from layer 2 (0, 1, 2), and from each of layers 3 to 11.
    assert sum(len(node.incoming) for node in supernet.nodes.values()) == 2 + 5 + 8 + 9 * 10  # type: ignore[arg-type]
    assert len(supernet.heads) == 4


def test_a_batch_of_one_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 1 in training") as raised:
        Supernet(space(), CLASSES).train()(images(1).float())
    assert "\n" not in str(raised.value)
    without_pooling = Supernet(space(head=Head((48,), False)), CLASSES).train()
    assert without_pooling(images(1).float()).isfinite().all()


def test_fewer_than_two_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="classes is 1"):
        Supernet(space(), 1)


def test_state_dict_round_trip() -> None:
    supernet, other, x = supernet_of(space(), 0).eval(), supernet_of(space(), 5).eval(), images()
    file = io.BytesIO()
    torch.save(supernet.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        assert not torch.equal(supernet(x), other(x))
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(supernet(x), other(x))
    assert not any("mask" in name for name in supernet.state_dict())  # it follows from the space
    assert NONE in supernet.space.operations and not any(".none." in name for name in supernet.state_dict())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_weighed_heads_count_by_the_paths_that_end_there_and_beta_of_the_last_layer_learns(training: bool) -> None:
    searched = space(layers=3, levels=3)
    plain = supernet_of(searched).train(training)
    fast = Supernet(searched, CLASSES, "fast", weigh_heads=True).double().train(training)
    fast.load_state_dict(plain.state_dict())
    x, betas = images(), plain.sample().beta.detach()
    paths = {}  # by hand: the product of betas along every path
    for levels in itertools.product(range(3), repeat=3):
        steps = list(zip((0, *levels), levels, strict=False))
        if all(abs(a - b) <= 1 for a, b in steps):
            paths[levels] = float(np.prod([float(betas[i, a, b - a + 1]) for i, (a, b) in enumerate(steps)]))
    assert sum(paths.values()) == pytest.approx(1)
    ends = [sum(p for levels, p in paths.items() if levels[-1] == end) for end in range(3)]
    summed = copy.deepcopy(plain)
    predictions: list[Tensor] = []
    for head in summed.heads:
        head.register_forward_hook(lambda *a: predictions.append(a[2]))
    summed(x)
    expected = torch.zeros(1)
    for share, y in zip(ends, predictions, strict=True):
        expected = expected + share * F.interpolate(y, (33, 47), mode="bilinear", align_corners=True)
    plain.weigh_heads = True
    outputs, gradients = [], []
    for supernet in (plain, fast):
        supernet.zero_grad()
        outputs.append(supernet(x))
        outputs[-1].square().mean().backward()
        assert supernet.architecture.beta.grad is not None
        gradients.append(supernet.architecture.beta.grad)
    torch.testing.assert_close(outputs[0], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-8, atol=1e-10)
    there = plain.architecture.mask[-1] & (plain.architecture.mask[-1].sum(1) > 1)[:, None]
    assert (gradients[0][-1][there].abs() > 1e-9).all()
    genotype = random_genotype(searched, 0)  # a forced path ends at one level with certainty
    forced = plain(x, plain.architecture.decided(genotype))
    plain.weigh_heads = False
    assert torch.equal(forced, plain(x, plain.architecture.decided(genotype))) or training


def test_none_without_a_share_is_a_softmax_over_the_others_in_both_engines() -> None:
    searched = space()
    with_none = supernet_of(searched)
    assert searched.operations[0] == NONE
    supernets = [Supernet(searched, CLASSES, engine, none_share=False).double() for engine in ("plain", "fast")]
    outputs = []
    for supernet in supernets:
        supernet.load_state_dict(with_none.state_dict())
        alpha = supernet.sample().alpha
        assert (alpha[:, 0] == 0).all()
        torch.testing.assert_close(alpha[:, 1:], with_none.architecture.alpha[:, 1:].softmax(1))
        outputs.append(supernet(images()))
        outputs[-1].square().mean().backward()
        gradient = supernet.architecture.alpha.grad
        assert gradient is not None and (gradient[:, 0] == 0).all() and (gradient[:, 1:] != 0).any()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampling", ["none", "gumbel"])
def test_none_without_a_share_is_never_drawn_and_its_entropy_is_finite(sampling: Any) -> None:
    searched = space()
    config = ArchitectureConfig(none="no_share", sampling=sampling, entropy=1.0, start_epoch=0)
    supernet = Supernet(searched, CLASSES, none_share=False)
    draws = AlphaSampling(searched, config, 0, 2)
    supernet.alpha_sampling = draws
    for step in range(20):
        draws.begin("weight", 1, step, 20, torch.device("cpu"))
        alpha = supernet.sample().alpha
        assert (alpha[:, 0] == 0).all() and alpha.isfinite().all()
    (draws.penalty(supernet.architecture.logits()) + alpha.square().sum()).backward()
    assert supernet.architecture.alpha.grad is not None and supernet.architecture.alpha.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"none is no_share, but the space test has no operation none"):
        AlphaSampling(space(operations=("skip", "separable_3x3")), config, 0, 2)
