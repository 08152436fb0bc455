"""Settings that search and retraining share, and those of the search. No torch, so that `--help` answers at once.

The defaults are Auto-DeepLab's (Liu et al., 2019, section 5.1); recipes are YAML files of the same fields.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from nas.data.readers import DATA_SETS
from search_spaces.files import read_yaml
from search_spaces.registry import Registry
from search_spaces.validation import Settings, from_plain, require, short, whole

__all__ = [
    "CHANGEABLE",
    "ArchitectureConfig",
    "AugmentConfig",
    "Cache",
    "CosineSgdConfig",
    "CostName",
    "Decay",
    "Engine",
    "HealthConfig",
    "LoaderConfig",
    "LossNameConfig",
    "MemoryCheck",
    "Precision",
    "Recompute",
    "RunConfig",
    "Sampling",
    "SearchConfig",
    "SgdConfig",
    "SupernetConfig",
    "SyncBatchNorm",
    "check_registered",
    "check_seeds",
    "full_precision",
    "load_recipe",
    "named_options",
    "parse_seeds",
    "recipe",
]


Precision = Literal["float32", "tf32", "bfloat16", "float16", "fp32", "bf16", "fp16"]
"""The last three are short for others; settings hold the full names."""


MemoryCheck = Literal["stop", "warn", "off"]


SyncBatchNorm = Literal["gpu", "always", "never"]


Engine = Literal["plain", "fast"]


Recompute = Literal["none", "node"]


Cache = Literal["none", "memory", "disk"]


Decay = Literal["all", "convolutions", "dense_convolutions"]
"""Which weights decay: all parameters; the weights of convolutions only; those of convolutions but depthwise ones."""


_SHORT: dict[str, Precision] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


Config = TypeVar("Config")


RECIPES = Path(__file__).parent / "recipes"


# Settings may come from a stranger's run folder: far above any use, but what they make us allocate has a bound.
MAX_IMAGES, MAX_PROCESSES = 65536, 1024


def full_precision(name: Precision) -> Precision:
    """The full name of a precision: float32 for fp32."""
    return _SHORT.get(name, name)


CHANGEABLE = frozenset(
    {
        *("epochs", "device", "out", "data_root", "space", "memory_check", "checkpoint_minutes"),
        *("health.gap_batches", "health.eigenvalue_steps", "health.stop_when_stable", "health.stop_on_collapse"),
        *("supernet.engine", "supernet.recompute", "supernet.graphs"),
        *("loader.workers", "loader.prefetch", "loader.cache"),
    }
)
"""Settings that may change when a run is resumed; with any other changed it would be another run. (A space may be named
by another file: its content is in the checkpoint and compared there.)"""


@dataclass(frozen=True)
class SgdConfig(Settings):
    """Stochastic gradient descent for network weights."""

    lr: float
    """Learning rate at the start, above 0."""
    weight_decay: float
    """L2 penalty, at least 0."""
    momentum: float = 0.9
    """Momentum, 0 to below 1."""
    clip: float | None = None
    """Largest norm of the gradient; a longer one is scaled down to it. None leaves it."""

    prefix = "optimizer."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("lr", "clip", above=0)
        self.limit("momentum", least=0, below=1)
        self.limit("weight_decay", least=0)


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
        self.limit("lr_end", least=0, most=self.lr, note=", the lr")


@dataclass(frozen=True)
class LossNameConfig(Settings):
    """The loss that is minimised."""

    name: str = "cross_entropy"
    """cross_entropy, or one of your own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of that loss, by name; cross_entropy has none."""

    prefix = "loss."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered("loss.name", self.name, "nas.training.losses:LOSSES", "cross_entropy", self.options)


@dataclass(frozen=True)
class SupernetConfig(Settings):
    """How the supernet is computed; what it computes is the same."""

    engine: Engine = "fast"
    """fast, the operations of many edges in one call; or plain, the loop over all of them that the fast one is checked
    against. Equal to rounding; a run may change from one to the other with --resume."""
    recompute: Recompute = "none"
    """Memory for time: with node, what lies within each node is not kept for the backward pass, but computed a second
    time there."""
    graphs: bool = False
    """Record the work of a step once and launch it at once (CUDA graphs): faster where a step is many small operations.
    For NVIDIA GPUs only; it takes some memory more."""

    prefix = "supernet."


Sampling = Literal["none", "gumbel"]


CostName = Literal["multiply_adds", "parameters"]


@dataclass(frozen=True)
class ArchitectureConfig(Settings):
    """The optimiser of alpha and beta, and what is done against a search that collapses."""

    lr: float = 3e-3
    """Learning rate, above 0."""
    weight_decay: float = 1e-3
    """L2 penalty on the logits, at least 0."""
    start_epoch: int = 20
    """First epoch (from 0) in which alpha and beta learn; before, only the weights do."""
    optimizer: str = "adam"
    """Optimiser of alpha and beta: adam, sgd, or one of your own."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's first moment (SGD's momentum) and second moment, each from 0 to below 1. DARTS has 0.5 and
    0.999."""
    skip_dropout: float = 0.0
    """Probability, from 0 to below 1, with which a step does without the skip of an edge; it falls linearly to 0 over
    the run (operation-level dropout, P-DARTS). 0: off."""
    entropy: float = 0.0
    """Weight that the relative entropy of alpha has in the architecture's loss at the end of the run, at least 0; it
    rises linearly from 0 in the epoch start_epoch, so that alpha decides itself late (DA2S). 0: off."""
    sampling: Sampling = "none"
    """none, all operations are weighed by alpha; or gumbel, each edge of each step has one operation, drawn by alpha
    (hard Gumbel-softmax, GDAS), and validation has the likeliest one. Its temperature falls from 10 to 0.1
    (linearly)."""
    cost_weight: float = 0.0
    """Weight in the architecture's loss of what the relaxed network's operations cost above cost_target, at least 0;
    the cost is relative to that of uniform alpha and beta. 0: off."""
    cost_target: float = 0.5
    """Cost, relative to that of uniform alpha and beta, below which nothing is to be gained, at least 0 (for
    cost_weight)."""
    cost: CostName = "multiply_adds"
    """What is counted, at the size of a training crop: multiply_adds or parameters (for cost_weight)."""

    prefix = "architecture."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered("architecture.optimizer", self.optimizer, "nas.training.optimizers:OPTIMIZERS", "adam")
        self.limit("lr", above=0)
        self.limit("betas", least=0, below=1)
        self.limit("skip_dropout", least=0, below=1)
        self.limit("weight_decay", "start_epoch", "entropy", "cost_weight", "cost_target", least=0)
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
class HealthConfig(Settings):
    """What of a search's health costs time, and when a search ends early (see docs/health.md)."""

    gap_batches: int = 8
    """Training batches on which the statistics of the batch norms are estimated anew to measure the discretisation gap:
    the mIoU that the supernet loses with the decoded architecture forced on it. 0: it is not measured."""
    eigenvalue_steps: int = 0
    """Steps of the power iteration for the dominant eigenvalue of the Hessian of the architecture's loss, after each
    epoch in which alpha and beta learn, on one batch; each takes two gradients, and 4 say enough. 0: it is not
    computed."""
    stop_when_stable: int | None = None
    """End the search once the decoded genotype has stayed the same for this many epochs in which alpha and beta
    learned, at least 1; None goes through all epochs."""
    stop_on_collapse: bool = False
    """End the search after the epoch in which half of the edges or more have come to prefer skip."""

    prefix = "health."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("gap_batches", "eigenvalue_steps", least=0)
        self.limit("stop_when_stable", least=1)


MAX_SIDE = 16384
"""Pixels: far above any use; settings may come from a stranger."""


@dataclass(frozen=True)
class AugmentConfig(Settings):
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

    prefix = "loader.augment."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("crop", least=1, most=MAX_SIDE)
        self.limit("scale", above=0)
        low, high = self.scale
        require(
            low <= high,
            f"loader.augment.scale is {short([low, high])}: the smaller factor comes first: {short([high, low])}",
        )
        self.limit("scale_step", least=0, most=high - low, note=", the distance of the two factors of scale")


@dataclass(frozen=True)
class LoaderConfig(Settings):
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
    """Where decoded images are kept: none; memory; or disk, in a memory-mapped file that later runs use again, in
    nas-segmentation in $XDG_CACHE_HOME or ~/.cache."""
    batch_size: int = 2
    """Images in a training batch, at least 2 (batch norm behind image pooling)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How training samples are varied."""

    prefix = "loader."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("resolution", above=0, most=4)
        self.limit("workers", "prefetch", least=0, most=MAX_PROCESSES)
        self.limit("train_limit", "val_limit", least=1)
        self.limit("batch_size", least=2, most=MAX_IMAGES, note=" (batch norm needs two)")
        require(
            self.prefetch > 0 or self.workers == 0,
            f"loader.prefetch is 0, but loader.workers is {self.workers}, and workers are always ahead: give at least "
            "1, or --loader.workers 0",
        )


@dataclass(frozen=True)
class RunConfig(Settings):
    __doc__ = f"""What every run has, whether it searches or retrains.

    Attributes:
        data: Data set: {", ".join(DATA_SETS)}; shapes is built in.
    """

    command = ""  # that makes such a run, as its config.yaml says; no setting, as it has no type

    data: str = "shapes"  # its help stands above: a text under a field cannot have the names put in
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
    best_metric: str = "miou"
    """Metric on the validation split by which best.pt is chosen: miou, pixel_accuracy, or one of your own."""
    sync_batch_norm: SyncBatchNorm = "gpu"
    """Where several processes share a batch (torchrun): whether batch norms take the statistics of all its parts: on
    GPUs, always or never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered("best_metric", self.best_metric, "nas.evaluation.metrics:METRICS", "miou")
        self.limit("epochs", least=1)
        self.limit("checkpoint_minutes", least=0)
        self.limit("seed", least=0, most=2**32 - 1)
        self.limit("accumulate", least=1, most=MAX_IMAGES)
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
    """The optimiser of alpha and beta, and options against collapse."""
    loss: LossNameConfig = field(default_factory=LossNameConfig)
    """What weights, alpha and beta minimise."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """The discretisation gap, and what ends a search early."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("partial_channels", "layers", "levels", "blocks", "filter_multiplier", least=1)
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
        return self.health.gap_batches > 0 and epoch >= self.architecture.start_epoch

    def space_changes(self) -> dict[str, int]:
        """The numbers given in place of the space's own."""
        names = ("layers", "levels", "blocks", "filter_multiplier")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def check_registered(
    setting: str, name: str, registry: str, default: str, options: Mapping[str, Any] | None = None
) -> None:
    """Refuses a name that a registry does not have, and options that its entry does not take.

    Args:
        setting: The setting, for the message.
        name: What it names.
        registry: "module:NAME"; imported only where there is something to check, since the module needs torch.
        default: The setting's default.
        options: What `named_options` takes.

    Raises:
        ValueError: There is no entry of that name (the message lists those that there are), or no such option.
    """
    if name == default and not options:
        return
    module, _, attribute = registry.partition(":")
    known: Registry[Any] = getattr(import_module(module), attribute)
    require(name in known, f"{setting} is {short(name)}: give one of {', '.join(known)}, or {known.hint}")
    if options:
        named_options(f"{setting.rpartition('.')[0]}.options", options, known[name].options)


def named_options(where: str, options: Mapping[str, Any], settings: type[Any] | None) -> dict[str, Any]:
    """The arguments that `options` give to a registered thing: its defaults, with those values in their place.

    Args:
        where: The setting that holds them, for messages.
        options: By name.
        settings: A dataclass with the fields that there may be; None: there are none.

    Raises:
        ValueError: An unknown option, or a value that is refused.
    """
    if settings is None:
        require(
            not options, f"{where} has {', '.join(map(str, options))}, but there are no such options: leave them out"
        )
        return {}
    found: Any = from_plain(settings, options, f"{where}.")
    return {f.name: getattr(found, f.name) for f in dataclasses.fields(settings)}


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
    require(
        all(re.fullmatch(r"0|[1-9][0-9]{0,9}", entry) for entry in entries), f"--seeds is {short(text)}: {EXPECTED}"
    )
    return check_seeds([int(entry) for entry in entries])


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, all different, one or more, each from 0 to 2**32 - 1.

    Raises:
        ValueError: They are not.
    """
    require(len(seeds) > 0, f"--seeds is empty: {EXPECTED}")
    for number, seed in enumerate(seeds):
        whole(f"--seeds[{number}]", seed, 0, 2**32 - 1)
        require(seed not in seeds[:number], f"--seeds has {seed} twice: give each seed once")
    return tuple(seeds)
