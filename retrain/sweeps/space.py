"""The space of a sweep: dotted names into settings, and which settings a draw gives. No torch and no Optuna."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from nas.config import RunConfig
from retrain.config import RetrainConfig
from retrain.networks.published import NETWORKS
from retrain.sweeps.settings import Parameter, StudyConfig, Sweep
from search_spaces.validation import did_you_mean, expected, fits, from_plain, hints, require, short, to_plain

__all__ = [
    "Label",
    "Space",
    "check_cmaes",
    "make_pruner",
    "make_sampler",
    "setting_names",
    "suggest",
]


Label = str | float | int | bool | None
"""What a study stores: a number, or a choice, one that is a list as JSON."""
CORNERS = 4096
"""Up to so many combinations of ends and choices are all tried before the first trial; else so many at random."""
POINTS = 100_000
"""The largest grid."""
OWN = ("out",)
"""Settings that are a trial's own."""


class Space:
    """The parameters of a sweep over base settings, checked.

    Args:
        parameters: What is varied.
        base: The settings that are not, and those that are where a `when` does not hold.
        first: Values to try first, by name.

    Raises:
        ValueError: A name is unknown, a value does not fit its setting, or the settings refuse a combination; the
            message says what to give.
    """

    def __init__(
        self, parameters: Sequence[Parameter], base: RunConfig, first: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.config_class = type(base)
        self.command = "retrain" if isinstance(base, RetrainConfig) else "search"
        self.base: dict[str, Any] = to_plain(base)
        self.parameters = tuple(self._resolved(parameter) for parameter in parameters)
        self._check_combinations()
        self.first = [self._labels(values) for values in first]

    @staticmethod
    def of(sweep: Sweep, base: RunConfig) -> Space:
        """The space of a sweep over these settings."""
        return Space(sweep.parameters, base, sweep.first)

    def draw(self, choose: Callable[[Parameter], Label]) -> dict[str, Any]:
        """The settings, in plain containers, with the value that `choose` gives for each active parameter."""
        plain = copy.deepcopy(self.base)
        for parameter in self.parameters:
            if all(_plain(read(plain, name)) in map(_plain, values) for name, values in parameter.when.items()):
                write(plain, parameter.name, from_label(parameter, choose(parameter)))
        return plain

    def config(self, plain: Mapping[str, Any]) -> RunConfig:
        """The settings of a draw as their dataclass."""
        return from_plain(self.config_class, plain)

    def points(self) -> list[dict[str, Label]]:
        """The grid: each different combination of the active parameters, once.

        Raises:
            ValueError: A parameter has no end of values, or there are too many combinations.
        """
        values = [_grid(parameter) for parameter in self.parameters]
        found: dict[str, dict[str, Label]] = {}
        for number, combination in enumerate(itertools.product(*values)):
            require(number < POINTS, f"the grid has more than {POINTS:,} points: give larger steps or fewer choices")
            point = self._used(combination)
            found.setdefault(json.dumps(point), point)
        return list(found.values())

    def single_changes(self) -> Iterator[dict[str, Any]]:
        """The settings of each end and choice of each parameter, with the first of all others: few, and all kinds."""
        firsts = [corners(parameter)[0] for parameter in self.parameters]
        for number, parameter in enumerate(self.parameters):
            for label in corners(parameter):
                yield self._drawn([*firsts[:number], label, *firsts[number + 1 :]])

    def _drawn(self, labels: Sequence[Label]) -> dict[str, Any]:
        by_name = dict(zip((p.name for p in self.parameters), labels, strict=True))
        return self.draw(lambda parameter: by_name[parameter.name])

    def _used(self, labels: Sequence[Label]) -> dict[str, Label]:
        """The values of the active parameters."""
        by_name = dict(zip((p.name for p in self.parameters), labels, strict=True))
        used: dict[str, Label] = {}

        def choose(parameter: Parameter) -> Label:
            used[parameter.name] = by_name[parameter.name]
            return by_name[parameter.name]

        self.draw(choose)
        return used

    def _resolved(self, parameter: Parameter) -> Parameter:
        """The parameter with its type, checked against the setting's."""
        name = parameter.name
        hint = hint_of(self.config_class, name)
        require(name not in OWN, f"parameter {name} is each trial's own: leave it out")
        for other in parameter.when:
            hint_of(self.config_class, other)
        if name.rpartition(".")[2].isdigit():
            whole = name.rpartition(".")[0]
            size = len(read(self.base, whole) or ())
            require(
                int(name.rpartition(".")[2]) < size,
                f"parameter {name} is a part of {whole}, which has {size}: give {whole} in `settings` as a list",
            )
        if parameter.choices is not None:
            for choice in parameter.choices:
                require(fits(choice, hint), f"parameter {name}: choice {short(choice)} is not {expected(hint)}")
            return parameter
        assert parameter.range is not None
        kinds = {kind for kind in (int, float) if kind is hint or kind in get_args(hint)}
        require(bool(kinds), f"parameter {name} is {expected(hint)}, which has no range: give choices")
        kind = parameter.type or ("float" if float in kinds else "int")
        require(
            kind == "int" or float in kinds,
            f"parameter {name}: type is float, but the setting is a whole number: give type int, or leave it out",
        )
        return dataclasses.replace(parameter, type=kind)

    def _check_combinations(self) -> None:
        """Builds the settings at the ends of all ranges and for all choices."""
        ends = [corners(parameter) for parameter in self.parameters]
        number = 1
        for labels in ends:
            number *= len(labels)
        draws = random.Random(0)
        combinations: Iterator[Sequence[Label]] = itertools.product(*ends)
        if number > CORNERS:
            combinations = iter([[draws.choice(labels) for labels in ends] for _ in range(CORNERS)])
        for combination in combinations:
            try:
                config = self.config(self._drawn(combination))
                if isinstance(config, RetrainConfig) and config.genotype in NETWORKS:
                    config.network.refuse_others(config.genotype, NETWORKS[config.genotype].settings)
            except ValueError as error:
                values = ", ".join(f"{name} {label}" for name, label in self._used(combination).items())
                raise ValueError(f"the settings refuse {values}: {error}") from None

    def _labels(self, values: Mapping[str, Any]) -> dict[str, Label]:
        """Values to try first, as the study stores them."""
        by_name = {parameter.name: parameter for parameter in self.parameters}
        for name, value in values.items():
            require(name in by_name, f"first: {name} is no parameter{did_you_mean(name, by_name)}")
            parameter = by_name[name]
            if parameter.choices is not None:
                known = value in parameter.choices
                require(known, f"first: {name} is {short(value)}: give one of {short(list(parameter.choices))}")
            else:
                low, high = parameter.range or (0, 0)
                inside = fits(value, float) and low <= value <= high
                require(inside, f"first: {name} is {short(value)}: give a number from {low:g} to {high:g}")
        return {name: to_label(value) for name, value in values.items()}


def setting_names(config_class: type, where: str = "") -> list[str]:
    """Dotted names of all settings of a config dataclass."""
    names = []
    for name, hint in hints(config_class).items():
        nested = dataclasses.is_dataclass(hint)
        names += setting_names(hint, f"{where}{name}.") if nested else [f"{where}{name}"]
    return names


def hint_of(config_class: type, name: str) -> Any:
    """The type of a setting by its dotted name.

    Raises:
        ValueError: There is no such setting; the message has the nearest name.
    """
    names = setting_names(config_class)
    whole, _, part = name.rpartition(".")
    if part.isdigit() and whole in names:
        hint = _found(config_class, whole)
        items = [get_args(part) for part in (hint, *get_args(hint)) if get_origin(part) is tuple]
        require(bool(items), f"setting {whole} is no list: leave .{part} out")
        return items[0][0]
    if name not in names:
        raise ValueError(f"there is no setting {name}{did_you_mean(name, names)}")
    return _found(config_class, name)


def _found(config_class: type, name: str) -> Any:
    hint: Any = config_class
    for part in name.split("."):
        hint = hints(hint)[part]
    return hint


def read(plain: Any, name: str) -> Any:
    """The value of a setting in plain containers."""
    for part in name.split("."):
        plain = plain[int(part) if part.isdigit() else part]
    return plain


def write(plain: Any, name: str, value: Any) -> None:
    """Puts a value in the place of a setting's."""
    *path, last = name.split(".")
    for part in path:
        plain = plain[part]
    plain[int(last) if last.isdigit() else last] = _plain(value)


def corners(parameter: Parameter) -> list[Label]:
    """The choices, or both ends of the range."""
    if parameter.choices is not None:
        return [to_label(choice) for choice in parameter.choices]
    assert parameter.range is not None
    return [int(end) if parameter.type == "int" else end for end in parameter.range]


def _grid(parameter: Parameter) -> list[Label]:
    if parameter.choices is not None:
        return corners(parameter)
    assert parameter.range is not None
    step = parameter.step or (1 if parameter.type == "int" and not parameter.log else None)
    if step is None:
        raise ValueError(f"parameter {parameter.name} has any value of its range, but a grid needs steps: give step")
    low, high = parameter.range
    count = int((high - low) / step + 1e-9) + 1
    require(count <= POINTS, f"parameter {parameter.name} has {count:,} values: give a larger step")
    values = [float(f"{low + k * step:.12g}") for k in range(count)]  # 0.3, and not 0.30000000000000004
    return [int(value) if parameter.type == "int" else value for value in values]


def to_label(value: Any) -> Label:
    """A value as a study stores it."""
    return json.dumps(_plain(value)) if isinstance(value, list | tuple) else value


def from_label(parameter: Parameter, label: Label) -> Any:
    """The value that a study's label stands for."""
    if parameter.choices is None:
        return label
    return parameter.choices[corners(parameter).index(label)]


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def make_sampler(config: StudyConfig, places: int, seed: int, number: int) -> BaseSampler:
    """The sampler of a trial, seeded by the study's seed and the trial's number, so that no two workers draw alike."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    samplers = optuna.samplers
    if config.sampler == "tpe":
        # All that Optuna's versions have changed the defaults of is named. Grouped: parameters under a `when`, too, are
        # drawn jointly. The liar keeps workers from drawing values that another one is just trying.
        return samplers.TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=10, seed=own)
    if config.sampler == "nsga2":
        return samplers.NSGAIISampler(population_size=max(4, min(50, places // 4)), seed=own)
    if config.sampler == "cmaes":
        return samplers.CmaEsSampler(seed=own, with_margin=True, warn_independent_sampling=False)
    return samplers.RandomSampler(seed=own)  # a grid's values are all given


def check_cmaes(parameters: Sequence[Parameter]) -> None:
    """Refuses what the sampler cmaes cannot draw."""
    choices = [parameter.name for parameter in parameters if parameter.choices is not None]
    require(
        not choices,
        f"sampler cmaes draws numbers only, but {', '.join(choices)} has choices: give a range, or sampler tpe",
    )
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise ValueError("sampler cmaes needs a package: pip install cmaes") from None


def make_pruner(config: StudyConfig, epochs: int) -> BasePruner:
    """What ends trials of so many epochs early."""
    if config.prunes_by == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)  # not by the first epoch
    if config.prunes_by == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def suggest(trial: Trial, parameter: Parameter) -> Label:
    """Draws a parameter's value."""
    name = parameter.name
    if parameter.choices is not None:
        return trial.suggest_categorical(name, corners(parameter))
    assert parameter.range is not None
    low, high = parameter.range
    if parameter.type == "int":
        return trial.suggest_int(name, int(low), int(high), step=int(parameter.step or 1), log=parameter.log)
    return trial.suggest_float(name, low, high, step=parameter.step, log=parameter.log)
