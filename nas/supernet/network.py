"""The supernet: stem, trellis of nodes, an ASPP at every level of the last layer.

Source: Auto-DeepLab (Liu et al., 2019), sections 4.1 and 5.1. The trellis gives each node its incoming tensors, alpha
and its betas; the engines differ only in the node.

Shapes: N images of 3 x H x W; level l has recorded sizes (H_l, W_l), each half of the finer one, rounded up.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.decoding import decode
from nas.config import Engine, Recompute, SearchConfig
from nas.supernet.alpha_sampling import AlphaSampling
from nas.supernet.architecture import Architecture, ArchitectureSample, passing
from nas.supernet.engine.alpha_cache import AlphaCache
from nas.supernet.engine.fast_node import FastNode
from nas.supernet.node import Node, Source
from nas.supernet.recomputation import recomputed
from nas.training.devices import keep_kernels
from search_spaces.genotype import Genotype, package_version
from search_spaces.modules import BatchNorm, ConvBatchNorm, ReluConvBatchNorm, resize
from search_spaces.space import SearchSpace
from search_spaces.validation import choice

__all__ = ["FixedArchitecture", "SearchHead", "SearchStem", "Supernet", "decode_supernet", "make_supernet"]

MAX_CANDIDATES = 200_000
"""Candidate operations: 26 times those of Auto-DeepLab."""


class SearchStem(nn.Module):
    """3x3 convolutions in front of the trellis: (N, channels, H, W) -> H^{-1} and H^0, the outputs of the last two.

    A stem of one convolution returns its output twice.
    """

    def __init__(self, space: SearchSpace, channels: int = 3) -> None:
        super().__init__()
        widths = zip((channels, *space.stem_channels), space.stem_channels, space.stem.strides, strict=False)
        self.layers = nn.ModuleList(ConvBatchNorm(c, width, 3, stride, BatchNorm) for c, width, stride in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for number, layer in enumerate(self.layers):
            x = layer(F.relu(x) if number else x)  # outputs are before the ReLU, which their readers apply
            outputs.append(x)
        return outputs[-2:][0], outputs[-1]


class SearchHead(nn.Module):
    """The search-time ASPP of one level: (N, C, H_l, W_l) -> (N, classes, H_l, W_l).

    A 1x1 branch, an atrous 3x3 branch for each reach, and the image's mean, C filters each; then 1x1 to C and classes.
    """

    def __init__(self, space: SearchSpace, level: int, classes: int) -> None:
        super().__init__()
        channels, stride = space.node_channels(level), space.strides[level]
        self.branches = nn.ModuleList([ReluConvBatchNorm(channels, channels, 1, 1, BatchNorm)])
        for reach in space.head.reach:
            rate = max(1, reach // stride)
            self.branches.append(ReluConvBatchNorm(channels, channels, 3, 1, BatchNorm, rate))
        self.pooled = ReluConvBatchNorm(channels, channels, 1, 1, BatchNorm) if space.head.image_pooling else None
        branches = len(self.branches) + (self.pooled is not None)
        self.project = ReluConvBatchNorm(branches * channels, channels, 1, 1, BatchNorm)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in self.branches]
        if self.pooled is not None:
            pooled = self.pooled(F.relu(x).mean((2, 3), keepdim=True))  # (N, C, 1, 1)
            branches.append(pooled.expand_as(x))
        return self.classify(F.relu(self.project(torch.cat(branches, dim=1))))


class Supernet(nn.Module):
    """The relaxed network of a search space: (N, channels, H, W) -> logits (N, classes, H, W), any H and W.

    Args:
        space: The search space.
        classes: Number of classes, at least 2.
        engine: plain, the loop over operations as the paper writes it (`nas.supernet.node`); or fast, in far fewer
            calls (`nas.supernet.engine.fast_node`). Both draw the same weights from the same seed and load each other's
            state dicts.
        recompute: none; or node: the backward pass computes each node a second time, to save memory.
        partial_channels: P: the operations of an edge work on 1/P of its channels, the others bypass them, and the
            edges into a block are weighed (PC-DARTS; see `nas.supernet.node`). 1: all channels, no edge weights.
        channels: Channels of the images.
        samples_paths: Adds the weights with which a node reads the H^{l-2} of a single path from another level. For the
            plain engine.
        weigh_heads: Weighs the logits of each head by the probability that a path ends at its level, so that beta of
            the last layer gets a gradient. False: they are summed (the paper).
        none_share: As for `Architecture`.

    Raises:
        ValueError: Fewer than two classes; partial channels that do not divide the channels; in training mode, a batch
            of one image if the head pools the image.
    """

    transitions: Tensor

    def __init__(
        self,
        space: SearchSpace,
        classes: int,
        engine: Engine = "plain",
        recompute: Recompute = "none",
        partial_channels: int = 1,
        channels: int = 3,
        samples_paths: bool = False,
        weigh_heads: bool = False,
        none_share: bool = True,
    ) -> None:
        super().__init__()
        space.check_candidates(MAX_CANDIDATES)
        _check_partial_channels(partial_channels, space)
        choice("engine", engine, get_args(Engine))
        choice("recompute", recompute, get_args(Recompute))
        assert not (samples_paths and engine == "fast")
        node: Callable[..., nn.Module] = partial(FastNode, keep=recompute == "node") if engine == "fast" else Node
        self.engine, self.recompute, self.weigh_heads = engine, recompute, weigh_heads
        keep_kernels()
        if classes < 2:
            raise ValueError(f"classes is {classes}: a segmentation needs at least 2")
        self.space, self.classes, self.channels = space, classes, channels
        self.architecture = Architecture(space, partial_channels > 1, none_share)
        self.stem = SearchStem(space, channels)
        self.nodes = nn.ModuleDict()
        transitions: list[tuple[int, int, int]] = []
        self.incoming: list[int] = []
        for layer in range(1, space.layers + 1):
            for level in space.node_levels(layer):
                sources = _incoming_levels(space, layer, level)
                transitions += [(layer - 1, source, level - source + 1) for source in sources]
                self.incoming.append(len(sources))
                incoming = [self._source(layer - 1, s) for s in sources]
                before = self._source(layer - 2, _before_level(space, layer, level))
                more: dict[str, Any] = {}
                if samples_paths:
                    levels = _elsewhere_levels(space, layer, level)
                    more["elsewhere"] = {at: self._source(layer - 2, at) for at in levels}
                self.nodes[_key(layer, level)] = node(space, level, incoming, before, partial_channels, **more)
        flat = np.ravel_multi_index(np.transpose(transitions), tuple(self.architecture.beta.shape))
        self.register_buffer("transitions", torch.from_numpy(flat), persistent=False)
        self.heads = nn.ModuleList(SearchHead(space, s, classes) for s in space.node_levels(space.layers))
        self.alpha_sampling: AlphaSampling | None = None
        """Replaces the softmax of alpha; None: the softmax."""
        self.forced: Genotype | None = None
        """The one network that `sample` decides for; None: the relaxed one."""

    def weights(self) -> list[nn.Parameter]:
        """The network's weights, in order: all parameters except the architecture's."""
        return [p for name, p in self.named_parameters() if not name.startswith("architecture.")]

    def sample(self) -> ArchitectureSample:
        """The forced network, or the current probabilities, with the alpha of `alpha_sampling` if there is one."""
        if self.forced is not None:
            return self.architecture.decided(self.forced)
        sample = self.architecture()
        if self.alpha_sampling is None:
            return sample
        return dataclasses.replace(sample, alpha=self.alpha_sampling(self.architecture.logits(), self.training))

    def forward(self, x: Tensor, sample: ArchitectureSample | None = None) -> Tensor:
        """The logits of images for an architecture sample; None: the current `sample()`.

        With a genotype, the supernet computes only the nodes on its path and the head of its last level; the plain
        engine computes only its operations. A node reads H^{l-2} from the level where the path was, if the supernet was
        built to sample paths. Otherwise it reads its own level, which is zero where the path was elsewhere: the
        supernet has no other weights.
        """
        if self.training and self.space.head.image_pooling and x.shape[0] < 2:
            raise ValueError("a batch of 1 in training: the batch norm behind image pooling needs at least 2 images")
        before, stem = self.stem(x)
        sample = self.sample() if sample is None else sample
        path = None if sample.genotype is None else sample.genotype.levels
        if path is not None and self.engine == "plain":
            outputs = {path[-1]: self._single(before, stem, sample)}
        else:
            outputs = dict(enumerate(self.trellis(before, stem, sample)))
        ends = range(len(self.heads)) if path is None else path[-1:]
        predictions = [self.heads[level](outputs[level]) for level in ends]
        if self.weigh_heads and path is None:
            predictions = [p * y for p, y in zip(passing(sample.beta)[-1], predictions, strict=False)]
        predictions = [resize(y, _size(x)) for y in predictions]
        return sum(predictions[1:], start=predictions[0])  # (N, classes, H, W)

    def trellis(self, before: Tensor, stem: Tensor, sample: ArchitectureSample) -> list[Tensor]:
        """H^{-1}, H^0 -> the tensors of the last layer, finest level first."""
        space, shared = self.space, self._shared(sample.alpha, sample.edge_weights)
        of_nodes = iter(sample.beta.flatten()[self.transitions].split(self.incoming))  # one beta per incoming tensor
        path = None if sample.genotype is None else sample.genotype.levels
        sizes = self._sizes(stem)
        layers: list[list[Tensor]] = [[before], [stem]]  # layers[l + 1][level] is H^l at that level
        for layer in range(1, space.layers + 1):
            outputs = []
            for level in space.node_levels(layer):
                node = self.nodes[_key(layer, level)]
                before = layers[layer - 1][_before_level(space, layer, level)]
                incoming = [layers[layer][source] for source in _incoming_levels(space, layer, level)]
                beta = next(of_nodes)
                if path is not None and path[layer - 1] != level:
                    outputs.append(stem.new_zeros(len(stem), space.node_channels(level), *sizes[level]))
                elif self.recompute == "node":
                    tensors = [sample.alpha, sample.edge_weights, beta, before, *incoming]
                    unshared = partial(self._unshared, node, sizes[level])
                    outputs.append(recomputed(unshared, tensors, node.parameters()))
                else:
                    outputs.append(node(incoming=incoming, before=before, beta=beta, size=sizes[level], **shared))
            layers.append(outputs)
        return layers[-1]

    def _single(self, before: Tensor, last: Tensor, sample: ArchitectureSample) -> Tensor:
        """H^{-1}, H^0 -> the tensor of the last layer, of the genotype's network alone."""
        assert sample.genotype is not None
        space, sizes, was, at = self.space, self._sizes(last), 0, 0  # levels of `before` and `last`
        for layer, level in enumerate(sample.genotype.levels, 1):
            node, read = self.nodes[_key(layer, level)], _before_level(space, layer, level)
            assert isinstance(node, Node)
            if was != read and str(was) not in node.elsewhere:
                before, was = last.new_zeros(len(last), space.node_channels(read), *sizes[read]), read
            source = _incoming_levels(space, layer, level).index(at)
            cell = node.single(sample.genotype.cell, source, last, before, was, sizes[level], sample.edge_weights)
            before, last, was, at = last, cell, at, level
        return last

    def _sizes(self, stem: Tensor) -> list[tuple[int, int]]:
        """Height and width of each level, the finest first."""
        sizes = [_size(stem)]
        for _ in range(1, self.space.levels):
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        return sizes

    def _shared(self, alpha: Tensor, edge_weights: Tensor | None) -> dict[str, Any]:
        """Arguments of all nodes: alpha, in the engine's form, and the edge weights."""
        if self.engine == "plain":
            return {"alpha": alpha, "edge_weights": edge_weights}
        return {"alpha": AlphaCache(self.space, alpha, edge_weights)}

    def _unshared(self, node: nn.Module, size: tuple[int, int], *tensors: Any) -> Tensor:
        """The output of a node that shares nothing with other nodes, so that it can be computed twice."""
        alpha, edge_weights, beta, before, *incoming = tensors
        return node(incoming=incoming, before=before, beta=beta, size=size, **self._shared(alpha, edge_weights))

    def node_names(self, layer: int) -> list[str]:
        """Names in `nodes` of a layer's nodes, finest level first; layers count from 1."""
        return [_key(layer, level) for level in self.space.node_levels(layer)]

    def first_layers(self, layers: int) -> Supernet:
        """The supernet cut after some layers, sharing its modules; the heads follow the last layer that is left."""
        cut = copy.copy(self)
        cut.space = dataclasses.replace(self.space, layers=layers)
        nodes = {name: self.nodes[name] for layer in range(1, layers + 1) for name in self.node_names(layer)}
        cut._modules = {**self._modules, "nodes": nn.ModuleDict(nodes)}  # a new dict: the copy shares that of `self`
        return cut

    def finest(self) -> Supernet:
        """The supernet with only the nodes and the head of the finest level, sharing its modules."""
        cut = copy.copy(self)
        nodes = {name: node for name, node in self.nodes.items() if name.endswith("_level0")}
        cut._modules = {**self._modules, "nodes": nn.ModuleDict(nodes), "heads": self.heads[:1]}
        return cut

    def _source(self, layer: int, level: int) -> Source:
        """Width and stride of H^layer at `level`; layers -1 and 0 are the stem's two outputs."""
        stem = self.space.stem
        if layer > 0:
            return Source(self.space.node_channels(level), self.space.strides[level])
        if layer == 0 or len(stem.strides) == 1:
            return Source(self.space.stem_channels[-1], stem.stride)
        return Source(self.space.stem_channels[-2], stem.stride // stem.strides[-1])


class FixedArchitecture(nn.Module):
    """A supernet with one fixed architecture sample: (N, 3, H, W) -> logits (N, classes, H, W)."""

    def __init__(self, supernet: Supernet, sample: ArchitectureSample) -> None:
        super().__init__()
        self.supernet, self.sample = supernet, sample
        self.training = supernet.training

    def forward(self, x: Tensor) -> Tensor:
        return self.supernet(x, self.sample)


def make_supernet(config: SearchConfig, space: SearchSpace, classes: int) -> Supernet:
    """The supernet of a search's settings."""
    sampled, how = config.method == "sampled", config.supernet
    engine = "plain" if sampled else how.engine  # of one operation an edge there is nothing to batch
    options = config.loader.channels, sampled, how.weigh_heads, config.architecture.none == "keep"
    return Supernet(space, classes, engine, how.recompute, config.partial_channels, *options)


def decode_supernet(supernet: Supernet, provenance: Mapping[str, Any]) -> Genotype:
    """Decodes the current architecture: greedy cell, Viterbi path."""
    sample = supernet.architecture()
    weights = None if sample.edge_weights is None else _array(sample.edge_weights)
    provenance = {"package_version": package_version(), **provenance}
    return decode(supernet.space, _array(sample.alpha), _array(sample.beta), provenance, weights)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _check_partial_channels(number: int, space: SearchSpace) -> None:
    if number < 1:
        raise ValueError(f"partial_channels is {number}: give a whole number from 1; 1 mixes all channels")
    if space.filter_multiplier % number:  # the channels of the finest level, which divide those of the coarser ones
        raise ValueError(
            f"partial_channels is {number}, which does not divide the {space.filter_multiplier} channels of an edge at "
            f"stride {space.strides[0]}: give a divisor of them, or a filter_multiplier that is a multiple of {number}"
        )


def _incoming_levels(space: SearchSpace, layer: int, level: int) -> list[int]:
    """Levels of the previous layer with an edge to this node, finest first."""
    return [source for source in space.node_levels(layer - 1) if level in space.transitions(layer - 1, source)]


def _before_level(space: SearchSpace, layer: int, level: int) -> int:
    """Level at which the node reads H^{l-2}: its own, or the nearest one (the authors' choice, by e-mail)."""
    return min(level, space.node_levels(max(0, layer - 2))[-1])


def _elsewhere_levels(space: SearchSpace, layer: int, level: int) -> list[int]:
    """Levels other than `_before_level` that a path to this node may have had two layers before."""
    between = _incoming_levels(space, layer, level) if layer > 1 else []
    levels = {before for middle in between for before in _incoming_levels(space, layer - 1, middle)}
    return sorted(levels - {_before_level(space, layer, level)})


def _key(layer: int, level: int) -> str:
    return f"layer{layer}_level{level}"


def _size(x: Tensor) -> tuple[int, int]:
    return (x.shape[-2], x.shape[-1])
