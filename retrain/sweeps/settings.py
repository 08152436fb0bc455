"""Settings of a sweep, and the YAML file that holds them. No torch and no Optuna, so that `--help` answers at once.

A file has `command` (whose settings are varied: search or retrain), `parameters` (a dotted name each), and if wanted
`description`, `recipe`, `settings` (as in a file for --config), `first` (values to try first) and any field of
`StudyConfig`. The shipped ones lie beside this module.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nas.config import RunConfig, SearchConfig, from_plain, require
from retrain.config import RetrainConfig
from search_spaces.files import read_yaml

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
class Parameter:
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
        name = f"parameter {self.name}"
        kinds = get_args(Kind)
        require(self.type in (None, *kinds), f"{name}: type is {self.type!r}: give one of {', '.join(kinds)}")
        require((self.range is None) != (self.choices is None), f"{name}: give either range or choices")
        require(isinstance(self.log, bool), f"{name}: log is {self.log!r}: give true or false")
        require(isinstance(self.when, Mapping), f"{name}: when is {self.when!r}: give `setting: value`, one a line")
        when = {key: tuple(v) if isinstance(v, list | tuple) else (v,) for key, v in self.when.items()}
        object.__setattr__(self, "when", when)
        if self.choices is not None:
            require(self.type in (None, "choice"), f"{name}: choices are of type choice, not {self.type}")
            require(isinstance(self.choices, list | tuple), f"{name}: choices are {self.choices!r}: give a list")
            require(not self.log and self.step is None, f"{name}: log and step are for a range: leave them out")
            object.__setattr__(self, "type", "choice")
            object.__setattr__(self, "choices", tuple(self.choices))
            require(len(self.choices) > 0, f"{name}: there are no choices: give one or more")
            repeated = any(choice in self.choices[:number] for number, choice in enumerate(self.choices))
            require(not repeated, f"{name}: a choice is there twice: leave it out")
            return
        require(self.type != "choice", f"{name}: type choice needs choices, not a range")
        require(
            isinstance(self.range, list | tuple) and len(self.range) == 2,
            f"{name}: range is {self.range!r}: give [lowest, highest]",
        )
        assert self.range is not None  # for the type checker
        low, high = (_number(name, "range", end) for end in self.range)
        object.__setattr__(self, "range", (low, high))
        require(low < high, f"{name}: range is [{low}, {high}]: give the lowest value first, then a higher one")
        require(not self.log or low > 0, f"{name}: range begins at {low}, but log needs numbers above 0")
        if self.step is not None:
            object.__setattr__(self, "step", _number(name, "step", self.step))
            assert self.step is not None
            require(0 < self.step <= high - low, f"{name}: step is {self.step}: give a number above 0 within the range")
            require(not self.log, f"{name}: log and step exclude each other: leave one of them out")
        if self.type == "int":
            whole = all(float(v).is_integer() for v in (low, high, self.step or 1))
            require(whole, f"{name}: type int needs whole numbers in range and step")


def _number(name: str, part: str, value: object) -> float:
    """The number that is meant: YAML reads 1e-3, without a dot, as a text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    require(math.isfinite(number), f"{name}: {part} holds {value!r}: give a number")
    return number


@dataclass(frozen=True)
class StudyConfig:
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
    """Trials that the study shall have, of all workers: complete and pruned ones. None: 30, or the whole grid."""
    failures: int = 3
    """Stop a worker after so many failed trials in a row."""
    retries: int = 2
    """How often a trial whose worker died is tried again."""
    patience: float = 60.0
    """Seconds without a sign of life after which a worker counts as dead."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        known = get_args(Objective)
        wrong = [name for name in self.objectives if name not in known]
        require(not wrong, f"objectives has {', '.join(map(repr, wrong))}: give some of {', '.join(known)}")
        require(len(self.objectives) > 0, f"objectives is empty: give one or more of {', '.join(known)}")
        require(len(set(self.objectives)) == len(self.objectives), "objectives has one twice: leave it out")
        require("miou" in self.objectives, "objectives is without miou, and nothing else needs a training: add miou")
        for name, choices in (("sampler", get_args(Sampler)), ("pruner", (None, *get_args(Pruner)))):
            value = getattr(self, name)
            listed = ", ".join(choice for choice in choices if choice)
            require(value in choices, f"{name} is {value!r}: give one of {listed}")
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
        for name, low in (("trials", 1), ("failures", 1), ("retries", 0)):
            value = getattr(self, name)
            good = (isinstance(value, int) and value >= low) or (name == "trials" and value is None)
            require(good, f"{name} is {value!r}: give a whole number from {low}")
        require(
            math.isfinite(self.patience) and self.patience > 0,
            f"patience is {self.patience}: give a number of seconds above 0",
        )

    def places(self, points: int) -> int:
        """Trials that the study shall have, with so many values given in advance."""
        if self.sampler == "grid":
            return min(self.trials or points, points)
        return self.trials or TRIALS

    @property
    def prunes_by(self) -> str:
        """The pruner that is in force."""
        return self.pruner or ("median" if len(self.objectives) == 1 else "none")


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says."""

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
        commands = get_args(Command)
        require(self.command in commands, f"command is {self.command!r}: give one of {', '.join(commands)}")
        require(len(self.parameters) > 0, "parameters is empty: give one or more")
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
    path = shipped().get(str(source), Path(source))
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
    require(isinstance(data, Mapping), f"expected `name: value`, one a line, not {type(data).__name__}")
    assert isinstance(data, Mapping)  # for the type checker
    own = {f.name for f in dataclasses.fields(Sweep)} - {"study"}
    study = {f.name for f in dataclasses.fields(StudyConfig)}
    unknown = [str(name) for name in data if name not in own | study]
    require(not unknown, f"there is no {', '.join(unknown)}: expected some of {', '.join(sorted(own | study))}")
    for name in ("command", "parameters"):
        require(name in data, f"{name} is missing")
    for name in ("parameters", "settings"):
        require(isinstance(data.get(name, {}), Mapping), f"{name} is {data.get(name)!r:.60}: expected `name: value`")
    first = data.get("first", [])
    good = isinstance(first, list) and all(isinstance(values, Mapping) for values in first)
    require(good, f"first is {first!r:.60}: expected a list of `name: value`")
    return Sweep(
        command=data["command"],
        parameters=tuple(_parameter(str(name), entry) for name, entry in data["parameters"].items()),
        description=str(data.get("description", "")),
        recipe=data.get("recipe"),
        settings=data.get("settings", {}),
        first=tuple(first),
        study=from_plain(StudyConfig, {name: data[name] for name in data if name in study}),
    )


def _parameter(name: str, data: object) -> Parameter:
    parts = [f.name for f in dataclasses.fields(Parameter) if f.name != "name"]
    require(isinstance(data, Mapping), f"parameter {name} is {data!r:.60}: give some of {', '.join(parts)}")
    assert isinstance(data, Mapping)  # for the type checker
    unknown = [str(part) for part in data if part not in parts]
    require(not unknown, f"parameter {name} has no {', '.join(unknown)}: give some of {', '.join(parts)}")
    return Parameter(name, **data)
