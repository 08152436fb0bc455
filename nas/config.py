"""Settings that search and retraining share, and those of the search. No torch, so that `--help` answers at once.

The defaults are Auto-DeepLab's (Liu et al., 2019, section 5.1); recipes are YAML files of the same fields.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from search_spaces.files import read_yaml
from search_spaces.space import short
from search_spaces.validation import expected, fits, require

__all__ = [
    "ArchitectureConfig",
    "AugmentConfig",
    "Cache",
    "CosineSgdConfig",
    "CostName",
    "Decay",
    "Engine",
    "HealthConfig",
    "INVERSE_LOG",
    "LoaderConfig",
    "MemoryCheck",
    "OptimizerName",
    "Precision",
    "Recompute",
    "RunConfig",
    "Sampling",
    "SearchConfig",
    "SgdConfig",
    "SupernetConfig",
    "SyncBatchNorm",
    "check_seeds",
    "differences",
    "from_plain",
    "full_precision",
    "load_recipe",
    "parse_seeds",
    "recipe",
    "require",
    "to_plain",
]


Precision = Literal["float32", "tf32", "bfloat16", "float16", "fp32", "bf16", "fp16"]
"""The last three are short for others; settings hold the full names."""


MemoryCheck = Literal["stop", "warn", "off"]


SyncBatchNorm = Literal["gpu", "always", "never"]


Engine = Literal["plain", "fast"]


Recompute = Literal["none", "node", "operation"]


Cache = Literal["none", "memory", "disk"]


OptimizerName = Literal["sgd", "adam"]


Decay = Literal["all", "convolutions", "dense_convolutions"]
"""Which weights decay: all parameters; the weights of convolutions only; those of convolutions but depthwise ones."""


_SHORT: dict[str, Precision] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


Config = TypeVar("Config")


INVERSE_LOG = 1.02
"""c of the class weights 1 / ln(c + p) in ENet (Paszke et al., 2016)."""


RECIPES = Path(__file__).parent / "recipes"


# Settings may come from a stranger's run folder: far above any use, but what they make us allocate has a bound.
MAX_IMAGES, MAX_PROCESSES = 65536, 1024


def full_precision(name: Precision) -> Precision:
    """The full name of a precision: float32 for fp32."""
    return _SHORT.get(name, name)


def to_plain(config: Any) -> Any:
    """A config dataclass as plain containers for YAML, JSON and checkpoints (paths as text, tuples as lists)."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


@dataclass(frozen=True)
class SgdConfig:
    """Stochastic gradient descent for network weights."""

    lr: float
    """Learning rate at the start, above 0."""
    weight_decay: float
    """L2 penalty, at least 0."""
    momentum: float = 0.9
    """Momentum, 0 to below 1."""
    clip: float | None = None
    """Largest norm of the gradient; a longer one is scaled down to it. None leaves it."""

    def __post_init__(self) -> None:
        require(self.lr > 0, f"optimizer.lr is {self.lr}: give a number above 0")
        require(0 <= self.momentum < 1, f"optimizer.momentum is {self.momentum}: give a number from 0 to below 1")
        require(self.weight_decay >= 0, f"optimizer.weight_decay is {self.weight_decay}: give a number of at least 0")
        require(self.clip is None or self.clip > 0, f"optimizer.clip is {self.clip}: give a number above 0, or null")


@dataclass(frozen=True)
class CosineSgdConfig(SgdConfig):
    """SGD whose learning rate falls on half a cosine."""

    lr: float = 0.025
    """Learning rate at the start, above 0."""
    lr_end: float = 0.001
    """Learning rate at the end, from 0 to lr."""
    weight_decay: float = 3e-4
    """L2 penalty, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.lr_end <= self.lr, f"optimizer.lr_end is {self.lr_end}: give a number from 0 to lr {self.lr}")


@dataclass(frozen=True)
class SupernetConfig:
    """How the supernet is computed; what it computes is the same."""

    engine: Engine = "fast"
    """fast, the operations of many edges in one call; or plain, the loop over all of them that the fast one is checked
    against. Equal to rounding; a run may change from one to the other with --resume."""
    recompute: Recompute = "none"
    """Memory for time: what lies within each node, or within each candidate operation, is not kept for the backward
    pass, but computed a second time there. node needs the least memory."""
    graphs: bool = False
    """Record the work of a step once and launch it at once (CUDA graphs): faster where a step is many small operations.
    For NVIDIA GPUs only; it takes some memory more."""

    def __post_init__(self) -> None:
        for name, choices in (("engine", get_args(Engine)), ("recompute", get_args(Recompute))):
            value = getattr(self, name)
            require(value in choices, f"supernet.{name} is {value!r}: give one of {', '.join(choices)}")


Sampling = Literal["none", "gumbel"]


CostName = Literal["multiply_adds", "parameters"]


@dataclass(frozen=True)
class ArchitectureConfig:
    """Adam for alpha and beta, and what is done against a search that collapses."""

    lr: float = 3e-3
    """Learning rate, above 0."""
    weight_decay: float = 1e-3
    """L2 penalty on the logits, at least 0."""
    start_epoch: int = 20
    """First epoch (from 0) in which alpha and beta learn; before, only the weights do."""
    skip_dropout: float = 0.0
    """Probability, from 0 to below 1, with which a step does without the skip of an edge; it falls linearly to 0 over
    the run (operation-level dropout, P-DARTS). 0: off."""
    entropy: float = 0.0
    """Weight that the relative entropy of alpha has in the architecture's loss at the end of the run, at least 0; it
    rises linearly from 0 in the epoch start_epoch, so that alpha decides itself late (DA2S). 0: off."""
    sampling: Sampling = "none"
    """none, all operations are weighed by alpha; or gumbel, each edge of each step has one operation, drawn by alpha
    (hard Gumbel-softmax, GDAS), and validation has the likeliest one."""
    temperature: float = 10.0
    """Of the Gumbel-softmax at the start of the run, above 0 (for sampling gumbel)."""
    temperature_end: float = 0.1
    """Of the Gumbel-softmax at the end of the run, above 0; the way there is linear (for sampling gumbel)."""
    cost_weight: float = 0.0
    """Weight in the architecture's loss of what the relaxed network's operations cost above cost_target, at least 0;
    the cost is relative to that of uniform alpha and beta. 0: off."""
    cost_target: float = 0.5
    """Cost, relative to that of uniform alpha and beta, below which nothing is to be gained, at least 0 (for
    cost_weight)."""
    cost: CostName = "multiply_adds"
    """What is counted, at the size of a training crop: multiply_adds or parameters (for cost_weight)."""

    def __post_init__(self) -> None:
        require(self.lr > 0, f"architecture.lr is {self.lr}: give a number above 0")
        require(self.weight_decay >= 0, f"architecture.weight_decay is {self.weight_decay}: give at least 0")
        require(self.start_epoch >= 0, f"architecture.start_epoch is {self.start_epoch}: give a whole number from 0")
        require(
            0 <= self.skip_dropout < 1,
            f"architecture.skip_dropout is {self.skip_dropout}: give a probability from 0 (off) to below 1",
        )
        require(
            math.isfinite(self.entropy) and self.entropy >= 0,
            f"architecture.entropy is {self.entropy}: give a weight from 0 (off)",
        )
        names = get_args(Sampling)
        require(self.sampling in names, f"architecture.sampling is {self.sampling!r}: give one of {', '.join(names)}")
        for name, default in (("temperature", 10.0), ("temperature_end", 0.1)):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0,
                f"architecture.{name} is {value}: give a number above 0, as {default}",
            )
            require(
                self.sampling == "gumbel" or value == default,
                f"architecture.{name} is {value}, but architecture.sampling is none and has no temperature: leave it "
                "out, or give --architecture.sampling gumbel",
            )

        for name in ("cost_weight", "cost_target"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"architecture.{name} is {value}: give a finite number from 0")
        names = get_args(CostName)
        require(self.cost in names, f"architecture.cost is {self.cost!r}: give one of {', '.join(names)}")
        require(
            self.cost_weight > 0 or (self.cost_target, self.cost) == (0.5, "multiply_adds"),
            f"architecture.cost_target is {self.cost_target} and architecture.cost {self.cost}, but "
            "architecture.cost_weight is 0, so that cost does not count: leave them out, or give a cost_weight",
        )

    @property
    def varies(self) -> tuple[str, ...]:
        """Names of the settings in force that change from step to step what is computed of alpha."""
        on = {"skip_dropout": self.skip_dropout > 0, "entropy": self.entropy > 0, "sampling": self.sampling != "none"}
        return tuple(name for name, there in on.items() if there)


@dataclass(frozen=True)
class HealthConfig:
    """What of a search's health costs time, and when a search ends early (see docs/health.md)."""

    gap_batches: int = 8
    """Training batches on which the statistics of the batch norms are estimated anew to measure the discretisation gap:
    the mIoU that the supernet loses with the decoded architecture forced on it. 0: it is not measured."""
    gap_every: int = 1
    """Measure it after every how many epochs of those in which alpha and beta learn, at least 1."""
    eigenvalue_steps: int = 0
    """Steps of the power iteration for the dominant eigenvalue of the Hessian of the architecture's loss, after each
    epoch in which alpha and beta learn, on one batch; each takes two gradients, and 4 say enough. 0: it is not
    computed."""
    stop_when_stable: int | None = None
    """End the search once the decoded genotype has stayed the same for this many epochs in which alpha and beta
    learned, at least 1; None goes through all epochs."""
    stop_on_collapse: bool = False
    """End the search after the epoch in which half of the edges or more have come to prefer skip."""

    def __post_init__(self) -> None:
        require(
            self.gap_batches >= 0,
            f"health.gap_batches is {self.gap_batches}: give a whole number from 0; 0 measures no gap",
        )
        require(self.gap_every >= 1, f"health.gap_every is {self.gap_every}: give a number of epochs from 1")
        require(
            self.eigenvalue_steps >= 0,
            f"health.eigenvalue_steps is {self.eigenvalue_steps}: give a whole number from 0; 0 computes no eigenvalue",
        )
        require(
            self.stop_when_stable is None or self.stop_when_stable >= 1,
            f"health.stop_when_stable is {self.stop_when_stable}: give a number of epochs from 1, or null for never",
        )


MAX_SIDE = 16384
"""Pixels: far above any use; settings may come from a stranger."""


@dataclass(frozen=True)
class AugmentConfig:
    """How a training sample is varied: scaled, cropped to one size, mirrored.

    Raises:
        ValueError: A field is outside its limits; the message gives the value and the fix.
    """

    crop: tuple[int, int] = (321, 321)
    """Height and width of every training sample, in pixels, each 1 to 16384. A smaller image is padded."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor of the random scale, above 0; drawn uniformly. (1, 1) keeps the size."""

    flip: bool = True
    """Mirror left and right with probability one half."""

    scale_step: float = 0.0
    """Distance of the factors of the random scale, as in 0.5, 0.75, ... 2 with 0.25; 0 draws from all in between."""

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or any(not isinstance(side, int) or not 1 <= side <= MAX_SIDE for side in self.crop):
            raise ValueError(
                f"loader.augment.crop is {self.crop}: give height and width in whole pixels, 1 to {MAX_SIDE}, as in "
                "[321, 321]"
            )
        if len(self.scale) != 2 or not all(math.isfinite(factor) and factor > 0 for factor in self.scale):
            raise ValueError(
                f"loader.augment.scale is {self.scale}: give two finite factors above 0, such as [0.5, 2.0]"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(
                f"loader.augment.scale is {self.scale}: the smaller factor comes first: "
                f"[{self.scale[1]}, {self.scale[0]}]"
            )
        widest = self.scale[1] - self.scale[0]
        if not 0 <= self.scale_step <= widest:
            raise ValueError(
                f"loader.augment.scale_step is {self.scale_step}: give a number from 0 (any factor) to {widest:g}, the "
                f"distance of the two factors of loader.augment.scale"
            )


@dataclass(frozen=True)
class LoaderConfig:
    """How a data set is read; its name and folder are the settings `data` and `data_root`."""

    resolution: float = 1.0
    """Factor by which images and labels are resized when they are read; 0.5 is half resolution."""
    train_split: str = "train"
    """Split to learn from."""
    val_split: str = "val"
    """Split to validate on."""
    train_limit: int | None = None
    """Use this many training images, evenly spread over the split; None uses all."""
    val_limit: int | None = None
    """Use this many validation images, evenly spread over the split; None uses all."""
    workers: int = 0
    """Processes that read and augment, for the whole run; 0 does it in a thread of the main one."""
    prefetch: int = 2
    """Training batches made ahead of the step, by each worker or by the thread; 0 makes each when it is needed."""
    cache: Cache = "none"
    """Where decoded images are kept: none; memory; or disk, in a memory-mapped file that later runs use again."""
    cache_folder: str | None = None
    """Folder of the files of cache disk; None is nas-segmentation in $XDG_CACHE_HOME or ~/.cache."""
    batch_size: int = 2
    """Images in a training batch, at least 2 (batch norm behind image pooling)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How training samples are varied."""

    def __post_init__(self) -> None:
        require(0 < self.resolution <= 4, f"loader.resolution is {self.resolution}: give a factor above 0, at most 4")
        require(self.workers >= 0, f"loader.workers is {self.workers}: give a whole number from 0")
        require(self.prefetch >= 0, f"loader.prefetch is {self.prefetch}: give a whole number from 0")
        require(
            self.prefetch > 0 or self.workers == 0,
            f"loader.prefetch is 0, but loader.workers is {self.workers}, and workers are always ahead: give at least "
            "1, or --loader.workers 0",
        )
        caches = get_args(Cache)
        require(self.cache in caches, f"loader.cache is {self.cache!r}: give one of {', '.join(caches)}")
        require(
            self.cache_folder is None or self.cache == "disk",
            f"loader.cache_folder is {self.cache_folder}, but loader.cache is {self.cache}, which writes no file: "
            "leave it out (null), or give --loader.cache disk",
        )
        require(self.cache_folder != "", "loader.cache_folder is empty: give a folder, or null for the default")
        require(self.batch_size >= 2, f"loader.batch_size is {self.batch_size}: batch norm needs at least 2 images")
        require(self.batch_size <= MAX_IMAGES, f"loader.batch_size is {self.batch_size}: give at most {MAX_IMAGES}")
        for name in ("workers", "prefetch"):
            value = getattr(self, name)
            require(value <= MAX_PROCESSES, f"loader.{name} is {value}: give at most {MAX_PROCESSES}")
        for name in ("train_limit", "val_limit"):
            limit = getattr(self, name)
            require(limit is None or limit >= 1, f"loader.{name} is {limit}: give at least 1, or null for all")


@dataclass(frozen=True)
class RunConfig:
    """What every run has, whether it searches or retrains."""

    command = ""  # that makes such a run, as its config.yaml says; no setting, as it has no type

    data: str = "shapes"
    """Data set: shapes (built in), ade20k, camvid, celebamask, cityscapes, folder, voc2012."""
    data_root: str | None = None
    """Folder of the data set; shapes needs none."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """How the data set is read."""
    out: str | None = None
    """Run folder; None makes a new one under runs/."""
    seed: int = 0
    """Of weights, split, order and augmentation."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    precision: Precision = "float32"
    """float32; tf32, the same with products rounded to 10 bits, for NVIDIA GPUs from Ampere on; or automatic mixed
    precision in bfloat16 or float16. (fp32, bf16 and fp16 are short for them.)"""
    accumulate: int = 1
    """Batches for one update, whose gradients are averaged, at least 1: batches that fit into memory, updates as from
    larger ones (batch norm still sees single batches)."""
    memory_check: MemoryCheck = "stop"
    """What to do if a step will not fit into the memory that is free: stop before it starts, warn, or off (not even
    look)."""
    epochs: int = 40
    """Passes over the training data, at least 1."""
    checkpoint_minutes: float = 10.0
    """Longest time between two checkpoints, and so the most that a kill costs; 0: one after every step. There is one
    after every epoch in any case."""
    sync_batch_norm: SyncBatchNorm = "gpu"
    """Where several processes share a batch (torchrun): whether batch norms take the statistics of all its parts: on
    GPUs, always or never."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs is {self.epochs}: give at least 1")
        minutes = self.checkpoint_minutes
        require(
            math.isfinite(minutes) and minutes >= 0,
            f"checkpoint_minutes is {minutes}: give a number of minutes from 0 (after every step)",
        )
        require(0 <= self.seed < 2**32, f"seed is {self.seed}: give a whole number from 0 to 2**32 - 1")
        accumulate = self.accumulate
        require(1 <= accumulate <= MAX_IMAGES, f"accumulate is {accumulate}: give a whole number, 1 to {MAX_IMAGES}")
        for name, choices in (
            ("precision", Precision),
            ("memory_check", MemoryCheck),
            ("sync_batch_norm", SyncBatchNorm),
        ):
            names, value = get_args(choices), getattr(self, name)
            require(value in names, f"{name} is {value!r}: choose one of {', '.join(names)}")
        object.__setattr__(self, "precision", full_precision(self.precision))

    @property
    def images_per_update(self) -> int:
        """Images that one update learns from: `accumulate` batches."""
        return self.accumulate * self.loader.batch_size


@dataclass(frozen=True)
class SearchConfig(RunConfig):
    """Settings of `nas-search`; the defaults are the protocol of Auto-DeepLab, section 5.1."""

    command = "nas-search"

    space: str = "autodeeplab"
    """Search space: a shipped one by name, or a YAML file."""
    layers: int | None = None
    """In place of the space's number of layers."""
    levels: int | None = None
    """In place of the space's number of levels."""
    blocks: int | None = None
    """In place of the space's number of blocks."""
    filter_multiplier: int | None = None
    """In place of the space's filter multiplier."""
    partial_channels: int = 1
    """P: the operations of an edge work on 1/P of its channels, the others bypass them, and the edges into a block are
    weighed by a softmax (PC-DARTS). A divisor of the filter multiplier; 1 mixes all channels."""
    supernet: SupernetConfig = field(default_factory=SupernetConfig)
    """How the supernet is computed."""
    optimizer: CosineSgdConfig = field(default_factory=CosineSgdConfig)
    """SGD for the supernet's weights; cosine schedule from lr to lr_end."""
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    """Adam for alpha and beta, and options against collapse."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """The discretisation gap, and what ends a search early."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.partial_channels >= 1,
            f"partial_channels is {self.partial_channels}: give a whole number from 1; 1 mixes all channels",
        )
        require(
            self.architecture.start_epoch < self.epochs,
            f"architecture.start_epoch is {self.architecture.start_epoch} (counted from 0), and there is no such epoch "
            f"with --epochs {self.epochs}: alpha and beta would never learn; give --architecture.start-epoch "
            f"{self.epochs // 2}, or any below {self.epochs}, or more --epochs",
        )
        varies = self.architecture.varies
        require(
            not (varies and self.supernet.graphs),
            f"architecture.{(*varies, '')[0]} changes what each step computes, but supernet.graphs repeats a recorded "
            "one: leave one of them out, or give false",
        )

    def learned(self, epoch: int) -> float:
        """Share of the epochs in which alpha and beta learn that is done after `epoch`, from 0; 0 or less: not one."""
        start = self.architecture.start_epoch
        return (epoch + 1 - start) / (self.epochs - start)

    def measures_gap(self, epoch: int) -> bool:
        """Whether the discretisation gap is measured after `epoch`, from 0."""
        epochs = epoch + 1 - self.architecture.start_epoch
        return self.health.gap_batches > 0 and epochs > 0 and epochs % self.health.gap_every == 0

    def space_changes(self) -> dict[str, int]:
        """The numbers given in place of the space's own."""
        names = ("layers", "levels", "blocks", "filter_multiplier")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def from_plain(config: type[Config], data: object, where: str = "") -> Config:
    """Builds a config dataclass from the plain containers that `to_plain` gives.

    Raises:
        ValueError: An unknown setting, or a value that is refused.
    """
    name = where or "the settings"
    require(isinstance(data, Mapping), f"{name} are {type(data).__name__}: expected a mapping of names to values")
    assert isinstance(data, Mapping)  # for the type checker
    types = get_type_hints(config)
    values = {}
    for key, value in data.items():
        require(key in types, f"unknown setting {where}{key}: expected one of {', '.join(types)}")
        if dataclasses.is_dataclass(types[key]):
            value = from_plain(types[key], value, f"{where}{key}.")
        else:
            require(fits(value, types[key]), f"{where}{key} is {short(value)}: expected {expected(types[key])}")
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        return config(**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def load_recipe(config: type[Config], folder: Path, name: str) -> Config:
    """Settings that ship with the toolkit: the defaults, changed as FOLDER/NAME.yaml says.

    Raises:
        ValueError: There is no such recipe; the message lists the names.
    """
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    require(name in names, f"no recipe {name!r}: choose one of {', '.join(names)}")
    return from_plain(config, read_yaml(folder / f"{name}.yaml"))


def recipe(name: str) -> SearchConfig:
    """The settings of a shipped search recipe: "small", "autodeeplab", "camvid"."""
    return load_recipe(SearchConfig, RECIPES, name)


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Dotted names of the settings in which two plain configs differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = list(dict.fromkeys((*first, *second)))
        return [d for name in names for d in differences(first.get(name), second.get(name), f"{where}{name}.")]
    return [] if first == second else [where.rstrip(".")]


EXPECTED = "give whole numbers from 0 to 2**32 - 1 with commas, such as 0,1,2"


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a text such as `0,1,2` or `[0, 1, 2]`.

    Raises:
        ValueError: It is none, or one of the seeds is refused.
    """
    bare = text.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    entries = [entry.strip() for entry in bare.split(",")]
    require(all(re.fullmatch(r"[0-9]{1,10}", entry) for entry in entries), f"--seeds is {text!r:.60}: {EXPECTED}")
    return check_seeds([int(entry) for entry in entries])


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, all different, one or more, each from 0 to 2**32 - 1.

    Raises:
        ValueError: They are not.
    """
    require(len(seeds) > 0, f"--seeds is empty: {EXPECTED}")
    for number, seed in enumerate(seeds):
        good = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32
        require(good, f"--seeds has {seed!r}: {EXPECTED}")
        require(seed not in seeds[:number], f"--seeds has {seed} twice: give each seed once")
    return tuple(seeds)
