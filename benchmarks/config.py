"""Settings of the verbs of `nas-bench`, one dataclass each. No torch, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nas.config import Engine, Precision, Recompute, full_precision
from search_spaces.validation import Settings, choice, require, short

__all__ = [
    "AXES",
    "VARIANTS",
    "Axis",
    "DecodingBench",
    "NetworksBench",
    "OperationsBench",
    "ScalingBench",
    "StartupBench",
    "SupernetBench",
    "Variant",
    "numbers",
]


class Variant(NamedTuple):
    """A way in which a supernet is computed."""

    label: str
    """In tables."""
    engine: Engine
    recompute: Recompute
    """Activations that the backward pass recomputes instead of keeping them: none, node."""

    @property
    def name(self) -> str:
        """On the command line."""
        return self.engine if self.recompute == "none" else f"{self.engine}-{self.recompute}"


VARIANTS = (
    Variant("plain", "plain", "none"),
    Variant("fast", "fast", "none"),
    Variant("fast, recompute node", "fast", "node"),
)


class Axis(NamedTuple):
    """A number on which the cost of a step depends."""

    name: str
    label: str
    values: tuple[int, ...]
    """The usual ones."""
    work: str | None = None
    """The quantity in which the work is linear; None: there is no simple one."""

    def amount(self, value: int) -> int:
        """Returns the amount of `work` at a value of the axis; the value itself where `work` is None."""
        return {"blocks": value * (value + 3) // 2, "crop": value * value}.get(self.name, value)


AXES = (
    Axis("layers", "layers L", (4, 6, 8, 10, 12), "layers"),
    Axis("blocks", "blocks B", (1, 2, 3, 4, 5), "edges of a cell, B (B + 3) / 2"),
    Axis("filter_multiplier", "filter multiplier F", (2, 4, 8, 16)),
    Axis("crop", "crop", (33, 65, 97, 129, 161), "pixels of an image"),
    Axis("batch_size", "batch size", (2, 4, 6, 8), "images"),
    Axis("operations", "candidate operations", (2, 3, 4, 5, 6, 7, 8)),
)
"""Layers start at the number of levels: fewer would leave levels out. From there on, each layer adds the same nodes."""


def numbers(name: str, texts: Sequence[str], count: int, example: str) -> list[tuple[int, ...]]:
    """Parses texts such as 512x1024.

    Raises:
        ValueError: One is not `count` numbers of at least 1 with an x between them.
    """
    for text in texts:
        parts = text.lower().split("x")
        require(
            len(parts) == count and all(part.isdecimal() and 0 < int(part) <= 65536 for part in parts),
            f"{name} has {short(text)}: give {count} numbers of at least 1 with an x between them, such as {example}",
        )
    return [tuple(map(int, text.lower().split("x"))) for text in texts]


@dataclass(frozen=True)
class Bench(Settings):
    """Base of the settings of all verbs."""

    def among(self, name: str, known: Sequence[str]) -> None:
        self.entries(name, distinct=True)
        for entry in getattr(self, name):
            require(entry in known, f"{name} has {short(entry)}: give some of {', '.join(known)}")


@dataclass(frozen=True)
class StartupBench(Bench):
    """Settings of `nas-bench startup`."""

    commands: tuple[str, ...] = ("nas-search",)
    """Commands whose --help is timed."""
    repeats: int = 7
    """Timed runs of each; the median is reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("repeats", least=1)
        self.entries("commands", note=", such as nas-search")


@dataclass(frozen=True)
class DecodingBench(Bench):
    """Settings of `nas-bench decoding`."""

    repeats: int = 21
    """Timed decodings of each kind; the median is reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("repeats", least=1)


@dataclass(frozen=True)
class MachineConfig(Bench):
    """Settings of all measurements on tensors."""

    device: str = "cpu"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    threads: int = 1
    """Threads on the CPU."""
    repeats: int = 3
    """Timed steps of each kind, after two warm-up steps; the median is reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("threads", "repeats", least=1)


@dataclass(frozen=True)
class OperationsBench(MachineConfig):
    """Settings of `nas-bench operations`."""

    repeats: int = 15
    """Timed passes of each operation, after two warm-up passes; the median is reported."""
    slow_repeats: int = 3
    """The same for the ResNets, which take many seconds each."""
    shapes: tuple[str, ...] = ("6x40x81x81",)
    """Input shapes of the candidate operations, NxCxHxW."""
    only_operations: bool = False
    """Measure only the candidate operations at --shapes, without single convolutions and networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("slow_repeats", least=1)
        numbers("shapes", self.shapes, 4, "6x40x81x81")


@dataclass(frozen=True)
class NetworksBench(MachineConfig):
    """Settings of `nas-bench networks`."""

    repeats: int = 5
    """Timed passes of each kind, after two warm-up passes; the median is reported. Percentiles need 100 or more."""
    networks: tuple[str, ...] = ("auto-deeplab-s", "fplnet", "espnet", "mnv2-li-aspp")
    """Published networks by name (all: every one), genotype files, or folders of nas-retrain runs (their best.pt)."""
    onnx: tuple[str, ...] = ()
    """ONNX files, such as those of nas-export: their latency in onnxruntime on the CPU, with --threads threads."""
    sizes: tuple[str, ...] = ("512x1024", "1025x2049")
    """Image sizes, HEIGHTxWIDTH; given without a value, only parameters and multiply-adds are counted."""
    modes: tuple[str, ...] = ("inference", "training")
    """inference: a forward pass in eval mode (and the latency of one image); training: forward, loss, backward and a
    step of SGD."""
    relative_to: str | None = None
    """Reference network, measured in turn with each other one: reports its time divided by theirs instead of images a
    second."""
    inference_batch: int = 1
    """Images in a forward pass."""
    training_batch: int = 2
    """Images in a training step, at least 2."""
    precision: Precision = "float32"
    """float32, tf32 (NVIDIA GPUs), or automatic mixed precision in bfloat16 or float16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("inference_batch", least=1)
        self.limit("training_batch", least=2)
        object.__setattr__(self, "precision", full_precision(self.precision))
        self.among("modes", ("inference", "training"))
        self.entries("networks", note=", such as espnet, or all")
        numbers("sizes", self.sizes, 2, "512x1024")
        require(
            self.relative_to is None or len(self.sizes) > 0,
            f"relative_to is {self.relative_to!r}, but there are no sizes: give --sizes, or leave it out",
        )
        timed = self.sizes and "inference" in self.modes and self.relative_to is None and self.device == "cpu"
        require(
            bool(timed) or not self.onnx,
            f"onnx is {' '.join(self.onnx)}: files are timed by --modes inference at some --sizes on --device cpu, "
            "without --relative-to",
        )


@dataclass(frozen=True)
class SupernetBench(MachineConfig):
    """Settings of `nas-bench supernet`."""

    spaces: tuple[str, ...] = ("autodeeplab", "autodeeplab-dw")
    """Search spaces: shipped ones by name, or YAML files."""
    crops: tuple[int, ...] = (65, 129, 321)
    """Sides of the square images, in pixels."""
    variants: tuple[str, ...] = tuple(variant.name for variant in VARIANTS)
    """Ways to compute the supernet, each compared with the first: plain, fast, and the fast engine that recomputes
    nodes, fast-node."""
    layers: int | None = None
    """Number of layers; the space's own if not given."""
    blocks: int | None = None
    """Number of blocks; the space's own if not given."""
    filter_multiplier: int | None = None
    """Filter multiplier; the space's own if not given."""
    batch_size: int = 2
    """Images in a step, at least 2."""
    precision: Precision = "float32"
    """float32, tf32 (NVIDIA GPUs), or automatic mixed precision in bfloat16 or float16."""
    together: int = 2
    """Variants in memory at the same time, the first among them, at least 2. More are faster, because the first is
    measured again in each group, but all of them need memory at once."""
    largest_batch: bool = False
    """On a GPU: also search for the largest batch for which both steps fit into its memory."""
    graphs: bool = False
    """On a GPU: have the steps of the fast engine recorded and replayed as CUDA graphs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("batch_size", "together", least=2)
        self.limit("crops", "layers", "blocks", "filter_multiplier", least=1)
        object.__setattr__(self, "precision", full_precision(self.precision))
        self.among("variants", [variant.name for variant in VARIANTS])
        self.entries("spaces", distinct=True)
        self.entries("crops", distinct=True)

    def changes(self) -> dict[str, int]:
        """Returns the numbers that replace the spaces' own."""
        names = ("layers", "blocks", "filter_multiplier")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class ScalingBench(MachineConfig):
    """Settings of `nas-bench scaling`: the base, and what is varied around it, one at a time."""

    path_fields = ("space",)
    repeats: int = 5
    """Timed steps of each kind, after two warm-up steps; the median is reported."""
    space: str = "autodeeplab"
    """Search space: a shipped one by name, or a YAML file."""
    layers: int = 4
    """L of the base."""
    blocks: int = 3
    """B of the base."""
    filter_multiplier: int = 4
    """F of the base."""
    crop: int = 65
    """Side of the base's square images, in pixels."""
    batch_size: int = 2
    """Images in a step of the base, at least 2."""
    vary: tuple[str, ...] = tuple(axis.name for axis in AXES)
    """What is varied: some of layers, blocks, filter_multiplier, crop, batch_size, operations."""
    at: tuple[int, ...] = ()
    """Values of the one thing that is varied; the usual ones if not given."""
    variant: str = "fast"
    """The way to compute the supernet: plain, fast, fast-node."""
    precision: Precision = "float32"
    """float32, tf32 (NVIDIA GPUs), or automatic mixed precision in bfloat16 or float16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("layers", "blocks", "filter_multiplier", "crop", "at", least=1)
        self.limit("batch_size", least=2)
        object.__setattr__(self, "precision", full_precision(self.precision))
        self.among("vary", [axis.name for axis in AXES])
        choice("variant", self.variant, [variant.name for variant in VARIANTS])
        require(
            not self.at or len(self.vary) == 1,
            f"at is {' '.join(map(str, self.at))}, but {len(self.vary)} things are varied: name one with --vary",
        )
        if self.vary == ("batch_size",):
            self.limit("at", least=2)
