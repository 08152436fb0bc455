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
from typing import Any, ClassVar, Literal, TypeVar

from nas.data.readers import DATA_SETS
from search_spaces.files import read_yaml
from search_spaces.registry import Registry
from search_spaces.validation import Settings, fits, from_plain, require, short, to_plain, whole

__all__ = [
    "CHANGEABLE",
    "DATA_SETTINGS",
    "ArchitectureConfig",
    "AugmentConfig",
    "Cache",
    "CosineSgdConfig",
    "CostName",
    "DataChanged",
    "Decay",
    "Engine",
    "Exif",
    "HealthConfig",
    "ImageConfig",
    "LoaderConfig",
    "LossNameConfig",
    "MemoryCheck",
    "NormalisationConfig",
    "Precision",
    "Recompute",
    "RunConfig",
    "SampledConfig",
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


Config = TypeVar("Config")
RECIPES = Path(__file__).parent / "recipes"
# Settings may come from a stranger's run folder. These bounds are far above any use, but limit what is allocated.
MAX_IMAGES, MAX_PROCESSES, MAX_SIDE, MAX_BANDS = 65536, 1024, 16384, 256

Precision = Literal["float32", "tf32", "bfloat16", "float16", "fp32", "bf16", "fp16"]
"""The last three are abbreviations; settings hold the full names."""
_SHORT: dict[str, Precision] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MemoryCheck = Literal["stop", "warn", "off"]
SyncBatchNorm = Literal["gpu", "always", "never"]
Engine = Literal["plain", "fast"]
Recompute = Literal["none", "node"]
Cache = Literal["none", "memory", "disk"]
LabelIds = Literal["one-based", "zero-ignored"] | dict[int, int] | None
Exif = Literal["turn", "ignore"]
Sampling = Literal["none", "gumbel", "sigmoid", "dirichlet"]
CostName = Literal["multiply_adds", "parameters"]
DataChanged = Literal["refuse", "accept"]
Method = Literal["darts", "sampled"]
Decay = Literal["all", "convolutions", "dense_convolutions"]
"""Which weights decay: all parameters; the weights of convolutions; or those except depthwise ones."""


def full_precision(name: Precision) -> Precision:
    """The full name of a precision: float32 for fp32."""
    return _SHORT.get(name, name)


CHANGEABLE = frozenset(
    {
        *("epochs", "device", "out", "data_root", "data_changed", "space", "memory_check", "checkpoint_minutes"),
        *("health.gap_batches", "health.eigenvalue_steps", "health.stop_when_stable", "health.stop_on_collapse"),
        *("supernet.engine", "supernet.recompute", "supernet.graphs", "sampled.top", "sampled.evolve"),
        *("loader.workers", "loader.prefetch", "loader.cache"),
    }
)
"""Settings that may change when a run is resumed; any other change would make it a different run. (`space` may name
another file: the checkpoint holds its content, which is compared.)"""


@dataclass(frozen=True)
class SgdConfig(Settings):
    """The optimiser of network weights: SGD with momentum, or another one by its name."""

    lr: float
    """Learning rate at the start, above 0."""
    weight_decay: float
    """L2 penalty, at least 0."""
    momentum: float = 0.9
    """Momentum of SGD, beta1 of Adam (beta2 is 0.999); 0 to below 1."""
    clip: float | None = None
    """Largest norm of the gradient; a longer one is scaled down to it. None: no limit."""
    name: str = "sgd"
    """Name of the optimiser, such as sgd (with momentum) or adam."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of that optimiser alone, by name; adam has eps."""

    prefix = "optimizer."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered("optimizer.name", self.name, "nas.training.optimizers:OPTIMIZERS", "sgd", self.options)
        self.limit("lr", "clip", above=0)
        self.limit("momentum", least=0, below=1)
        self.limit("weight_decay", least=0)


@dataclass(frozen=True)
class CosineSgdConfig(SgdConfig):
    """SGD, or another optimiser, whose learning rate falls on half a cosine."""

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
    """Name of the loss, such as cross_entropy."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of that loss, by name."""

    prefix = "loss."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered("loss.name", self.name, "nas.training.losses:LOSSES", "cross_entropy", self.options)


@dataclass(frozen=True)
class SupernetConfig(Settings):
    """How the supernet is computed. Only weigh_heads changes the results."""

    engine: Engine = "fast"
    """fast computes the operations of many edges in one call; plain loops over them, and fast is tested against it.
    They agree to rounding, and a resumed run may switch between them."""
    recompute: Recompute = "none"
    """none; or node: compute the inside of each node a second time in the backward pass, which takes more time and less
    memory."""
    graphs: bool = False
    """Record the work of a step once and replay it (CUDA graphs): faster if a step consists of many small operations.
    For NVIDIA GPUs only; takes some more memory."""
    weigh_heads: bool = False
    """Weigh the logits of the levels' heads by the probability that a path ends there (product of betas), so that beta
    of the last layer gets a gradient; false sums them, as the paper does."""

    prefix = "supernet."


@dataclass(frozen=True)
class ArchitectureConfig(Settings):
    """The optimiser of alpha and beta, and measures against a collapse of the search."""

    lr: float = 3e-3
    """Learning rate, above 0."""
    weight_decay: float = 1e-3
    """L2 penalty on the logits, at least 0."""
    start_epoch: int = 20
    """First epoch (from 0) in which alpha and beta learn; until then only the weights do."""
    optimizer: str = "adam"
    """Name of the optimiser of alpha and beta, such as adam."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's first (SGD's momentum) and second moment, each from 0 to below 1. DARTS uses 0.5 and 0.999."""
    skip_dropout: float = 0.0
    """Probability, from 0 to below 1, of dropping the skip operation of an edge in a step; falls linearly to 0 over the
    run (operation-level dropout, P-DARTS). 0: off."""
    entropy: float = 0.0
    """Weight of the relative entropy of alpha in the architecture's loss at the end of the run, at least 0; it rises
    linearly from 0 at start_epoch, so that alpha decides late (DA2S). 0: off."""
    none: Literal["keep", "no_share"] = "keep"
    """keep gives the operation none its share of alpha (the paper), though it is never decoded; no_share leaves it out
    of the softmax."""
    sampling: Sampling = "none"
    """none weighs all operations by alpha; gumbel draws one operation per edge and step by alpha (hard Gumbel-softmax,
    GDAS; its temperature falls linearly from 10 to 0.1) and validates with the likeliest one; sigmoid weighs each
    operation by itself (FairDARTS); dirichlet draws alpha in each step (DrNAS) and validates with its mean."""
    beta_decay: float = 0.0
    """Weight of the mean over edges of log sum exp of alpha's logits in the architecture's loss at the end of the run,
    at least 0; it rises linearly from 0 at start_epoch (Beta-DARTS). 0: off."""
    zero_one: float = 0.0
    """Weight of the zero-one loss, which drives each sigmoid to 0 or 1, at least 0 (FairDARTS: 10; for sampling
    sigmoid). 0: off."""
    cost_weight: float = 0.0
    """Weight in the architecture's loss of the relaxed network's cost above cost_target, at least 0; the cost is
    relative to that of uniform alpha and beta. 0: off."""
    cost_target: float = 0.5
    """Cost without a penalty, relative to that of uniform alpha and beta, at least 0 (for cost_weight)."""
    cost: CostName = "multiply_adds"
    """The cost, at the size of a training crop: multiply_adds or parameters (for cost_weight)."""

    prefix = "architecture."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered("architecture.optimizer", self.optimizer, "nas.training.optimizers:OPTIMIZERS", "adam")
        self.limit("lr", above=0)
        self.limit("betas", least=0, below=1)
        self.limit("skip_dropout", least=0, below=1)
        self.limit("weight_decay", "start_epoch", "entropy", "beta_decay", "zero_one", least=0)
        self.limit("cost_weight", "cost_target", least=0)
        require(
            self.zero_one == 0 or self.sampling == "sigmoid",
            f"architecture.zero_one is {self.zero_one}, but is for architecture.sampling sigmoid: give that, or leave "
            "it out",
        )
        require(
            self.cost_weight > 0 or (self.cost_target, self.cost) == (0.5, "multiply_adds"),
            f"architecture.cost_target is {self.cost_target} and architecture.cost {self.cost}, but "
            "architecture.cost_weight is 0, so that cost does not count: leave them out, or give a cost_weight",
        )

    @property
    def varies(self) -> tuple[str, ...]:
        """Names of the settings that are on and make the use of alpha differ from step to step."""
        weights = {name: getattr(self, name) > 0 for name in ("skip_dropout", "entropy", "beta_decay", "zero_one")}
        on = {**weights, "sampling": self.sampling != "none"}
        return tuple(name for name, there in on.items() if there)


@dataclass(frozen=True)
class SampledConfig(Settings):
    """A supernet whose weights are trained through one random network a step (for method sampled)."""

    fairness: Literal["none", "strict"] = "none"
    """none draws the operations of each step alone; strict keeps path and inputs for as many steps as there are
    operations, and gives each edge every operation once in them (FairNAS)."""
    ends: Literal["paths", "levels"] = "paths"
    """paths draws all paths alike, of which few end at the coarsest level; levels draws the last level first, so that
    the heads of all levels learn alike."""
    top: int = 50
    """Random networks that are measured at the end, with the supernet's weights, and of which the best is the genotype
    found; at least 1."""
    evolve: int = 0
    """Networks that an evolution (NSGA-II) measures at the end in place of top; 0: no evolution."""

    prefix = "sampled."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("top", least=1)
        self.limit("evolve", least=0)


@dataclass(frozen=True)
class HealthConfig(Settings):
    """Measurements of a search's health that cost time, and reasons to end it early (see docs/health.md)."""

    gap_batches: int = 8
    """Training batches that re-estimate the batch-norm statistics to measure the discretisation gap: the mIoU that the
    supernet loses with the decoded architecture forced on it. 0: not measured."""
    eigenvalue_steps: int = 0
    """Steps of power iteration for the dominant eigenvalue of the Hessian of the architecture's loss, on one batch
    after each epoch in which alpha and beta learn; each takes two gradients, and 4 are enough. 0: not computed."""
    stop_when_stable: int | None = None
    """End the search once the decoded genotype has stayed the same for this many epochs in which alpha and beta
    learned, at least 1; None runs all epochs."""
    stop_on_collapse: bool = False
    """End the search after the epoch in which half of the edges or more prefer skip."""

    prefix = "health."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("gap_batches", "eigenvalue_steps", least=0)
        self.limit("stop_when_stable", least=1)


@dataclass(frozen=True)
class AugmentConfig(Settings):
    """Augmentation of a training sample: scaling, cropping to one size, mirroring.

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
    """Step between the factors of the random scale: 0.25 gives 0.5, 0.75, ... 2; 0 draws any factor in the range."""

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
class NormalisationConfig(Settings):
    """From the values in image files to the input of a network: a range, or mean and standard deviation. Neither: 8-bit
    values from 0 to 255 become -1 to 1, and files of more than 8 bits are refused."""

    range: tuple[float, float] | None = None
    """Lowest and highest value, which become -1 and 1; others lie outside, and nothing is cut off."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, or one for all, in the values of the files (8 bits: 0 to 255); becomes 0."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel, or one for all, above 0, in the values of the files; becomes 1."""

    prefix = "loader.normalisation."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("std", above=0)
        low, high = self.range or (0, 1)
        require(low < high, f"{self.prefix}range is {short([low, high])}: the lower value comes first")
        require(
            (self.mean is None) == (self.std is None) and (self.mean is None or self.range is None),
            f"{self.prefix}mean, std and range are {short(self.mean)}, {short(self.std)} and {short(self.range)}: give "
            "either mean and std, or range",
        )


@dataclass(frozen=True)
class ImageConfig(Settings):
    """Images and labels of a data set: settings that belong to the data, and that a trained network keeps."""

    channels: int = 3
    """Channels of the images. 3 reads colours, and grey as three equal channels; any other number is that of the files:
    1 for grey, 4 for TIFF files of four bands."""
    normalisation: NormalisationConfig = field(default_factory=NormalisationConfig)
    """Scaling of the values; needed for files of more than 8 bits."""
    exif: Exif = "turn"
    """Orientation in the EXIF data that cameras write: turn the images as viewers do; or ignore it and keep the pixels
    as stored, for labels that were drawn on those."""
    ids: LabelIds = None
    """What the values in the label files of `folder` stand for, if not class ids from 0: one-based (1 is the first
    class), zero-ignored (the same, and 0 is ignored), or the class id, or 255 (ignored), of each value, such as
    '{0: 0, 255: 1}'."""

    prefix = "loader."

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("channels", least=1, most=MAX_BANDS)
        if isinstance(self.ids, dict):  # the keys of JSON, such as a genotype's, are texts
            own = {int(key) if isinstance(key, str) and key.isdecimal() else key: n for key, n in self.ids.items()}
            object.__setattr__(self, "ids", own)
        pairs = self.ids.items() if isinstance(self.ids, dict) else ()
        require(
            all(fits(value, int) and fits(number, int) for value, number in pairs)
            and all(0 <= value < 2**16 and 0 <= number < 256 for value, number in pairs),
            f"loader.ids is {short(self.ids)}: give the id, 0 to 255, of each value from 0 to 65535",
        )
        for name in ("mean", "std"):
            given = getattr(self.normalisation, name)
            require(
                given is None or len(given) in (1, self.channels),
                f"loader.normalisation.{name} has {len(given or ())} entries, and loader.channels is {self.channels}: "
                "give one for each channel, or one for all",
            )

    @property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel: the input of a network is (value - mean) / std."""
        own = self.normalisation
        if own.range is None:
            mean, std = own.mean or (127.5,), own.std or (127.5,)
        else:
            mean, std = (sum(own.range) / 2,), ((own.range[1] - own.range[0]) / 2,)
        return mean * (self.channels // len(mean)), std * (self.channels // len(std))

    @property
    def scaled(self) -> bool:
        """Whether a normalisation is given."""
        return self.normalisation != NormalisationConfig()


@dataclass(frozen=True)
class LoaderConfig(ImageConfig):
    """Reading of the data set; its name and folder are the settings `data` and `data_root`."""

    resolution: float = 1.0
    """Factor by which images and labels are resized when they are read; 0.5 is half resolution."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to validate on."""
    train_limit: int | None = None
    """Use this many training images, evenly spread over the split; None uses all."""
    val_limit: int | None = None
    """Use this many validation images, evenly spread over the split; None uses all."""
    workers: int = 0
    """Processes that read and augment; 0 uses a thread of the main process."""
    prefetch: int = 2
    """Training batches prepared ahead by each worker or by the thread; 0 prepares each when it is needed."""
    cache: Cache = "none"
    """Where decoded images are kept: none; memory; or disk, a memory-mapped file under nas-segmentation in
    $XDG_CACHE_HOME or ~/.cache, which later runs use too."""
    batch_size: int = 2
    """Images in a training batch, at least 2 (batch norm behind image pooling)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of training samples."""

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


DATA_SETTINGS = (*(f.name for f in dataclasses.fields(ImageConfig)), "resolution", "train_split", "val_split")
"""Settings of `loader` that belong to the data: a genotype takes them along, with the data set and its root, from its
search to trainings and rankings."""


@dataclass(frozen=True)
class RunConfig(Settings):
    __doc__ = f"""Settings that every run has, whether it searches or retrains.

    Attributes:
        data: Data set: {", ".join(DATA_SETS)}; shapes is built in.
    """

    command = ""  # the command that makes such a run, for its config.yaml; without a type it is no setting
    path_fields: ClassVar[tuple[str, ...]] = ("data_root", "out")

    data: str = "shapes"  # its help is above: a string under a field cannot interpolate the names
    data_root: str | None = None
    """Folder of the data set; shapes needs none. It is kept as an absolute path."""
    data_changed: DataChanged = "refuse"
    """Reaction if a run is resumed, or trainings are compared, on data with other samples or colours of classes than
    before: refuse, or accept. Other classes are always refused."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """Reading of the data set."""
    out: str | None = None
    """Run folder; None makes a new one under runs/."""
    seed: int = 0
    """Seed of weights, split, order and augmentation."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    precision: Precision = "float32"
    """float32; tf32, which rounds products to 10 bits, for NVIDIA GPUs from Ampere on; or automatic mixed precision in
    bfloat16 or float16. (fp32, bf16 and fp16 are abbreviations.)"""
    accumulate: int = 1
    """Batches whose gradients are averaged for one update, at least 1: updates as from a larger batch, with the memory
    of a smaller one (batch norm still sees single batches)."""
    memory_check: MemoryCheck = "stop"
    """Reaction if a step will not fit into the free memory: stop before the run starts, warn, or off (no check)."""
    epochs: int = 40
    """Passes over the training data, at least 1."""
    checkpoint_minutes: float = 10.0
    """Longest time between two checkpoints, and so the most that a kill costs; 0 saves after every step. The end of an
    epoch always saves."""
    best_metric: str = "miou"
    """Metric on the validation split by which best.pt is chosen, such as miou."""
    sync_batch_norm: SyncBatchNorm = "gpu"
    """With several processes (torchrun), whether batch norms use the statistics of the whole batch: gpu (only on GPUs),
    always or never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered("best_metric", self.best_metric, "nas.evaluation.metrics:METRICS", "miou")
        self.limit("epochs", least=1)
        self.limit("checkpoint_minutes", least=0)
        self.limit("seed", least=0, most=2**32 - 1)
        self.limit("accumulate", least=1, most=MAX_IMAGES)
        object.__setattr__(self, "precision", full_precision(self.precision))
        if self.data_root is not None:
            object.__setattr__(self, "data_root", str(Path(self.data_root).absolute()))

    def data_settings(self) -> dict[str, Any]:
        """The data set, its root and the `DATA_SETTINGS`, nested as in a file; of usual images, nothing."""
        usual, known = to_plain(ImageConfig()), to_plain(self.loader)
        loader = {name: known[name] for name in DATA_SETTINGS if name not in usual or known[name] != usual[name]}
        return {"data": self.data, "data_root": self.data_root, "loader": loader}

    @property
    def images_per_update(self) -> int:
        """Images that one update learns from: `accumulate` batches."""
        return self.accumulate * self.loader.batch_size


@dataclass(frozen=True)
class SearchConfig(RunConfig):
    """Settings of `nas-search`; the defaults are the protocol of Auto-DeepLab, section 5.1."""

    command = "nas-search"
    path_fields = (*RunConfig.path_fields, "space")

    space: str = "autodeeplab"
    """Search space: a shipped one by name, or a YAML file."""
    layers: int | None = None
    """Number of layers, in place of the space's."""
    levels: int | None = None
    """Number of levels, in place of the space's."""
    blocks: int | None = None
    """Number of blocks, in place of the space's."""
    filter_multiplier: int | None = None
    """Filter multiplier, in place of the space's."""
    method: Method = "darts"
    """darts relaxes the space, and alpha and beta learn in turn with the weights; sampled trains the weights through
    one random network a step, at the cost of one network, and chooses among networks by their mIoU with these weights.
    """
    sampled: SampledConfig = field(default_factory=SampledConfig)
    """The draws of method sampled, and its choice at the end."""
    partial_channels: int = 1
    """P: the operations of an edge work on 1/P of its channels, the others bypass them, and a softmax weighs the edges
    into a block (PC-DARTS). A divisor of the filter multiplier; 1 mixes all channels."""
    supernet: SupernetConfig = field(default_factory=SupernetConfig)
    """Speed and memory of the supernet."""
    optimizer: CosineSgdConfig = field(default_factory=CosineSgdConfig)
    """The optimiser of the supernet's weights; cosine schedule from lr to lr_end."""
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    """The optimiser of alpha and beta, and options against collapse."""
    loss: LossNameConfig = field(default_factory=LossNameConfig)
    """The loss of weights, alpha and beta."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """The discretisation gap, and reasons to end a search early."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit("partial_channels", "layers", "levels", "blocks", "filter_multiplier", least=1)
        require(
            self.method == "sampled" or self.architecture.start_epoch < self.epochs,
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

        if self.method == "darts":
            others = {f"sampled.{name}": True for name in self.sampled.changed()}
        else:
            others = {
                **{f"architecture.{name}": True for name in varies},
                "architecture.cost_weight": self.architecture.cost_weight > 0,
                "architecture.none": self.architecture.none != "keep",
                "partial_channels": self.partial_channels > 1,
                "supernet.recompute": self.supernet.recompute != "none",
                "supernet.graphs": self.supernet.graphs,
                "supernet.weigh_heads": self.supernet.weigh_heads,
                "health.eigenvalue_steps": self.health.eigenvalue_steps > 0,
                "health.stop_when_stable": self.health.stop_when_stable is not None,
                "health.stop_on_collapse": self.health.stop_on_collapse,
            }
            require(
                self.health.gap_batches > 0,
                "health.gap_batches is 0, but method sampled measures networks, whose batch norms need statistics: "
                "give at least 1, or leave it out for 8",
            )
        for name, given in others.items():
            require(not given, f"{name} has no meaning with method {self.method}: leave it out, or give another method")

    def learned(self, epoch: int) -> float:
        """Share done, after `epoch` (from 0), of the epochs in which alpha and beta learn; 0 or less: none."""
        start = self.architecture.start_epoch
        return (epoch + 1 - start) / (self.epochs - start)

    def measures_gap(self, epoch: int) -> bool:
        """Whether the discretisation gap is measured after `epoch`, from 0."""
        return self.health.gap_batches > 0 and epoch >= self.architecture.start_epoch

    def space_changes(self) -> dict[str, int]:
        """The numbers given in place of the space's own."""
        changes = {name: getattr(self, name) for name in ("layers", "levels", "blocks", "filter_multiplier")}
        return {name: number for name, number in changes.items() if number is not None}


def check_registered(
    setting: str, name: str, registry: str, default: str, options: Mapping[str, Any] | None = None
) -> None:
    """Refuses a setting's name that a registry does not have, and options that the entry does not take.

    Args:
        setting: The setting, for the message.
        name: Its value.
        registry: "module:NAME", whose module needs torch: it is not imported for the default.
        default: The setting's default.
        options: As for `named_options`.

    Raises:
        ValueError: No entry of that name (the message lists them), or no such option.
    """
    if name == default and not options:
        return
    module, _, attribute = registry.partition(":")
    known: Registry[Any] = getattr(import_module(module), attribute)
    require(name in known, f"{setting} is {short(name)}: give one of {', '.join(known)}, or {known.hint}")
    if options:
        named_options(f"{setting.rpartition('.')[0]}.options", options, known[name].options)


def named_options(where: str, options: Mapping[str, Any], settings: type[Any] | None) -> dict[str, Any]:
    """The defaults of a registered entry's options, updated with `options`.

    Args:
        where: The setting that holds them, for messages.
        options: Values by name.
        settings: A dataclass of all options; None: there are none.

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
    """The settings of a shipped recipe: the defaults, updated from FOLDER/NAME.yaml.

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
    """Parses seeds such as `0,1,2` or `[0, 1, 2]`.

    Raises:
        ValueError: The text is no list of seeds, or one of them is refused.
    """
    bare = text.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    entries = [entry.strip() for entry in bare.split(",")]
    good = all(re.fullmatch(r"0|[1-9][0-9]{0,9}", entry) for entry in entries)
    require(good, f"--seeds is {short(text)}: {EXPECTED}")
    return check_seeds([int(entry) for entry in entries])


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Checks that there are seeds, all different, each from 0 to 2**32 - 1; returns them as a tuple.

    Raises:
        ValueError: There are none, or one is refused or given twice.
    """
    require(len(seeds) > 0, f"--seeds is empty: {EXPECTED}")
    for number, seed in enumerate(seeds):
        whole(f"--seeds[{number}]", seed, 0, 2**32 - 1)
        require(seed not in seeds[:number], f"--seeds has {seed} twice: give each seed once")
    return tuple(seeds)
