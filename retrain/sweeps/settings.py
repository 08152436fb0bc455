"""Settings of a sweep, and the YAML file that holds them. No torch and no Optuna, so that `--help` answers at once.

A file has `command` (whose settings are varied: search or retrain), `parameters` (a dotted name each), and if wanted
`description`, `recipe`, `settings` (as in a file for --config), `first` (values to try first) and any field of
`StudyConfig`. The shipped ones are next to this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nas.config import RunConfig, SearchConfig
from retrain.config import RetrainConfig
from search_spaces.files import read_yaml
from search_spaces.validation import Settings, as_path, from_plain, hints, raised_as, require, short

__all__ = ["Parameter", "StudyConfig", "Sweep", "load_sweep", "shipped"]

Command = Literal["search", "retrain"]
Kind = Literal["float", "int", "choice"]
Sampler = Literal["tpe", "random", "grid", "nsga2", "cmaes"]
Pruner = Literal["median", "hyperband", "none"]
Objective = Literal["miou", "multiply_adds", "parameters", "latency"]

TRIALS = 30
FOLDER = Path(__file__).parent
CONFIGS: dict[str, type[RunConfig]] = {"search": SearchConfig, "retrain": RetrainConfig}
RECIPES = {"search": FOLDER.parent.parent / "nas" / "recipes", "retrain": FOLDER.parent / "recipes"}


@dataclass(frozen=True)
class Parameter(Settings):
    """How one setting is varied: over a range, or over choices.

    Raises:
        ValueError: The parts do not fit together; the message names the setting.
    """

    name: str
    """Dotted name of the setting, such as optimizer.lr; a number names a part of a list, as in network.li_init.1."""
    type: Kind | None = None
    """float, int or choice; None: choice where there are choices, else as the setting is."""
    range: tuple[float, float] | None = None
    """Lowest and highest value."""
    log: bool = False
    """Whether values are drawn evenly over the logarithm."""
    step: float | None = None
    """Distance of the values from the lowest on; None: 1 for whole numbers, any value otherwise."""
    choices: tuple[Any, ...] | None = None
    """The values themselves, of any type."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Varied only where each of these settings has one of these values; otherwise it stays as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require((self.range is None) != (self.choices is None), "give either range or choices")
        when = {key: tuple(v) if isinstance(v, list | tuple) else (v,) for key, v in self.when.items()}
        object.__setattr__(self, "when", when)
        if self.choices is not None:
            require(self.type in (None, "choice"), f"choices are of type choice, not {self.type}")
            require(not self.log and self.step is None, "log and step are for a range: leave them out")
            object.__setattr__(self, "type", "choice")
            self.entries("choices")
            repeated = any(choice in self.choices[:number] for number, choice in enumerate(self.choices))
            require(not repeated, "a choice is there twice: leave it out")
            return
        require(self.type != "choice", "type choice needs choices, not a range")
        assert self.range is not None  # for the type checker
        low, high = map(float, self.range)
        object.__setattr__(self, "range", (low, high))
        require(low < high, f"range is [{low}, {high}]: give the lowest value first, then a higher one")
        require(not self.log or low > 0, f"range begins at {low}, but log needs numbers above 0")
        if self.step is not None:
            self.limit("step", above=0, most=high - low, note=", the width of the range")
            require(not self.log, "log and step exclude each other: leave one of them out")
        if self.type == "int":
            whole = all(float(v).is_integer() for v in (low, high, self.step or 1))
            require(whole, "type int needs whole numbers in range and step")


@dataclass(frozen=True)
class StudyConfig(Settings):
    """How the parameters are drawn, and what is made of them."""

    objectives: tuple[Objective, ...] = ("miou",)
    """What counts: miou, the validation mIoU after the last epoch; multiply_adds and parameters of the network;
    latency, the median time of one image on the device. With several, the study seeks their Pareto front."""
    sampler: Sampler = "tpe"
    """How values are drawn: tpe, random, grid (each combination once), nsga2, or cmaes (numbers only; needs the package
    cmaes)."""
    pruner: Pruner | None = None
    """What ends a trial early: median, hyperband or none; None: median, where there is one objective."""
    trials: int | None = None
    """Complete and pruned trials to reach, those of all workers together. None: 30, or the whole grid."""
    failures: int = 3
    """Stop a worker after so many failed trials in a row."""
    retries: int = 2
    """How often a trial whose worker died is tried again."""
    patience: float = 60.0
    """Seconds without a sign of life after which a worker counts as dead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("objectives", note=f" of {', '.join(get_args(Objective))}", distinct=True)
        require("miou" in self.objectives, "objectives is without miou, and nothing else needs a training: add miou")
        if len(self.objectives) > 1:
            require(
                self.pruner in (None, "none"),
                f"pruner is {self.pruner}, but a study of several objectives cannot prune: leave it out, or give one "
                "objective",
            )
            require(
                self.sampler != "cmaes",
                "sampler is cmaes, which has one objective: give tpe or nsga2, or one objective",
            )
        self.limit("trials", "failures", least=1)
        self.limit("retries", least=0)
        self.limit("patience", above=0, note=" (seconds)")

    def places(self, points: int) -> int:
        """Number of trials to reach, given how many values are set in advance."""
        if self.sampler == "grid":
            return min(self.trials or points, points)
        return self.trials or TRIALS

    @property
    def prunes_by(self) -> str:
        """The pruner that is used."""
        return self.pruner or ("median" if len(self.objectives) == 1 else "none")


@dataclass(frozen=True)
class Sweep(Settings):
    """The content of a sweep file."""

    command: Command
    """Whose settings are varied: those of nas-search or of nas-retrain."""
    parameters: tuple[Parameter, ...]
    """The settings that are varied; one that another's `when` names comes before it."""
    description: str = ""
    """One line, for lists."""
    recipe: str | None = None
    """Shipped settings to start from."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings over the recipe's, as in a file for --config."""
    first: tuple[Mapping[str, Any], ...] = ()
    """Values of parameters, by name, for the first trials; what one leaves out is drawn."""
    study: StudyConfig = field(default_factory=StudyConfig)
    """How values are drawn, and what counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries("parameters")
        names = [parameter.name for parameter in self.parameters]
        for number, parameter in enumerate(self.parameters):
            later = [name for name in parameter.when if name in names[number:]]
            require(
                not later,
                f"parameter {parameter.name} goes by {', '.join(later)}, which is below it: put it above",
            )

    @property
    def config_class(self) -> type[RunConfig]:
        """The dataclass of the settings."""
        return CONFIGS[self.command]

    @property
    def recipes(self) -> Path:
        """The folder of the command's recipes."""
        return RECIPES[self.command]


def shipped() -> dict[str, Path]:
    """The sweeps that come with the toolkit: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load_sweep(source: str | Path) -> Sweep:
    """Reads a sweep: a shipped one by name, or a YAML file.

    Raises:
        ValueError: There is none, or it is wrong; the message names the file and what to give.
    """
    path = shipped().get(str(source)) or as_path(source)
    require(
        path.exists(), f"there is no sweep {str(source)!r}: choose one of {', '.join(shipped())}, or name a YAML file"
    )
    data = read_yaml(path)
    require(data is not None, f"{path} is empty: expected `name: value`, one a line")
    try:
        return parse_sweep(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_sweep(data: object) -> Sweep:
    """A sweep from the plain containers of its file.

    Raises:
        ValueError: Something is missing, unknown or refused.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"the content is {short(data)}: give `name: value`, one a line")
    study = hints(StudyConfig).keys() & data.keys()
    own = hints(Sweep).keys() - {"study"}
    for name in data:
        known = sorted(own | hints(StudyConfig).keys())
        require(name in known, f"unknown setting {short(name)}: give some of {', '.join(known)}")
    for name in ("command", "parameters"):
        require(name in data, f"{name} is missing")
    parameters = data["parameters"]
    require(isinstance(parameters, Mapping), f"parameters is {short(parameters)}: give `name: value`, one a line")
    values = {name: data[name] for name in data if name in own} | {
        "parameters": [_parameter(name, entry) for name, entry in parameters.items()],
        "study": StudyConfig(**{name: data[name] for name in study}),
    }
    return Sweep(**values)


def _parameter(name: object, data: object) -> Parameter:
    with raised_as(ValueError, f"parameter {name if isinstance(name, str) else short(name)}: "):
        require(not isinstance(data, Mapping) or "name" not in data, "it has its name already: leave name out")
        return from_plain(Parameter, {**data, "name": name} if isinstance(data, Mapping) else data)
