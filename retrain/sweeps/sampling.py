"""Optuna's samplers and pruners by name, and one parameter's draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from nas.config import require
from retrain.sweeps.settings import Parameter, StudyConfig
from retrain.sweeps.space import Label, corners

__all__ = ["check_cmaes", "make_pruner", "make_sampler", "suggest"]


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
