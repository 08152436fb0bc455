"""What a study has found: the best settings as a file, and a report with tables, importances and pictures."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from nas.runs.names import BEST_SETTINGS
from retrain.sweeps.ledger import END, FAILED, INTERRUPTED, LOST, SURPLUS
from retrain.sweeps.pictures import draw_all, draw_figures
from retrain.sweeps.study import Study, amount, spoken, written
from search_spaces.files import write_atomically
from search_spaces.validation import require, to_plain

__all__ = [
    "REPORT",
    "best_trial",
    "counted",
    "described",
    "front",
    "importance_note",
    "importances",
    "shown_trials",
    "trial_rows",
    "trials_table",
    "write_best",
    "write_report",
]

REPORT = "report.md"
SHOWN = 30
"""Rows of the report's table."""
ENOUGH = 4
"""Complete trials from which there are importances."""
FEW = 20
"""Complete trials below which importances say more of chance than of the settings: the best tenth is one trial."""


def best_trial(study: Study) -> FrozenTrial | None:
    """The complete trial of the highest mIoU, of equal ones the cheapest, then the first; None if there is none."""
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    return min(done, key=lambda trial: _rank(study, trial), default=None)


def _rank(study: Study, trial: FrozenTrial) -> tuple[float, ...]:
    """Sorts complete trials, the best first."""
    place = study.config.objectives.index("miou")
    costs = [value for number, value in enumerate(trial.values) if number != place]
    return (-trial.values[place], *costs, trial.number)


def front(study: Study) -> list[FrozenTrial]:
    """The Pareto front: complete trials that no other one is as good as in all objectives and better in one."""
    loaded = optuna.load_study(study_name=study.name, storage=study.storage)
    return sorted(loaded.best_trials, key=lambda trial: trial.values)


def write_best(study: Study) -> Path | None:
    """Writes best.yaml: the best trial's settings, for --config. Returns its path; None if no trial is complete."""
    trial = best_trial(study)
    if trial is None:
        return None
    plain = study.space.draw(lambda parameter: trial.params[parameter.name])
    config = study.space.config({**plain, "out": None})
    values = ", ".join(written(name, v) for name, v in zip(study.config.objectives, trial.values, strict=True))
    command = study.space.command
    text = (
        f"# The best of {_number_of(study, TrialState.COMPLETE)} complete trials of the study {study.name}: trial "
        f"{trial.number}, {values}.\n#\n#     nas-{command} --config {study.folder / BEST_SETTINGS}\n"
    )
    return write_atomically(study.folder / BEST_SETTINGS, text + yaml.safe_dump(to_plain(config), sort_keys=False))


def importances(study: Study) -> dict[str, float]:
    """Share of each parameter in what tells the better trials from the others, by PED-ANOVA; {} for too few trials.

    Of parameters that every trial has: one under a `when` is left out. (PED-ANOVA: Watanabe et al., IJCAI 2023. fANOVA,
    Optuna's default, would need scikit-learn.)
    """
    if _number_of(study, TrialState.COMPLETE) < ENOUGH:
        return {}
    place = study.config.objectives.index("miou")
    loaded = optuna.load_study(study_name=study.name, storage=study.storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = get_param_importances(
                loaded, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: trial.values[place]
            )
        except (ValueError, RuntimeError):  # all trials alike, or none with all parameters
            return {}
    return {name: float(share) for name, share in found.items()}


def importance_note(study: Study) -> str:
    """What the importances are of, in a sentence, and that they are few where they are."""
    complete = _number_of(study, TrialState.COMPLETE)
    few = f" With fewer than {FEW}, they say more of chance than of the settings." if complete < FEW else ""
    return f"by the {complete} complete trials.{few}"


def counted(trials: Sequence[FrozenTrial]) -> str:
    """How many trials there are of each kind."""
    names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}
    names |= {TrialState.WAITING: "waiting"}
    kinds = Counter(names.get(trial.state) or trial.user_attrs.get(END, FAILED) for trial in trials)
    order = (*names.values(), FAILED, LOST, INTERRUPTED)
    return ", ".join(f"{kinds[kind]} {kind}" for kind in order if kinds[kind]) or "no trials"


def described(study: Study) -> str:
    """What was done, in a sentence or two."""
    base = study.space.base
    places = sorted({trial.user_attrs["timed_on"] for trial in study.trials if "timed_on" in trial.user_attrs})
    latency = f" Latency was measured on {' and on '.join(places)}." if places else ""
    return (
        f"{counted(shown_trials(study))}. Each trial: nas-{study.space.command} on {base['data']}, {base['epochs']} "
        f"epochs; sampler {study.config.sampler}, pruner {study.config.prunes_by}, seed {base['seed']}. mIoU is that "
        f"of the split {base['loader']['val_split']}, by which the best was chosen: measure it on another one.{latency}"
    )


def trial_rows(study: Study, trials: Sequence[FrozenTrial]) -> tuple[list[str], list[list[str]]]:
    """A table of trials, as text: the heads of its columns, and a row a trial."""
    names = [parameter.name for parameter in study.space.parameters]
    heads = ["trial", *map(spoken, study.config.objectives), "epochs", "state", *names]
    rows = []
    for trial in trials:
        epochs = len(trial.intermediate_values) or trial.user_attrs.get("epochs", 0)
        values = trial.values or list(trial.intermediate_values.values())[-1:]
        shown = [amount(name, value, trial) for name, value in zip(study.config.objectives, values, strict=False)]
        shown += [""] * (len(study.config.objectives) - len(shown))
        drawn = [_value(trial.params.get(name, "")) for name in names]
        rows.append([str(trial.number), *shown, str(epochs), trial.state.name.lower(), *drawn])
    return heads, rows


def trials_table(study: Study, trials: Sequence[FrozenTrial]) -> str:
    """A Markdown table of trials."""
    heads, rows = trial_rows(study, trials)
    numbers = len(study.config.objectives) + 2
    kinds = ["---:"] * numbers + ["---"] * (len(heads) - numbers)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, kinds, *rows))


def shown_trials(study: Study) -> list[FrozenTrial]:
    """All trials but those that a worker made in vain: the complete ones first, the best of them before the others."""
    trials = [trial for trial in study.trials if trial.user_attrs.get(END) != SURPLUS]
    done = sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda trial: _rank(study, trial))
    rest = sorted((t for t in trials if t.state != TrialState.COMPLETE), key=lambda t: (-_reached(t), t.number))
    return done + rest


def write_report(study: Study) -> Path:
    """Writes report.md, its pictures and best.yaml into the study's folder.

    Raises:
        ValueError: No trial is complete yet.
    """
    best = best_trial(study)
    require(best is not None, f"the study {study.name} has no complete trial yet ({counted(study.trials)})")
    assert best is not None
    write_best(study)
    trials = shown_trials(study)
    shares, several = importances(study), len(study.config.objectives) > 1
    best_ones = front(study) if several else []
    figures = draw_figures(study.space, study.config.objectives, trials, shares, best_ones)
    pictures = draw_all(study.folder, figures)
    parts = [
        f"# Study {study.name}",
        described(study),
        f"## Best\n\nTrial {best.number}; all of its settings are in `{BEST_SETTINGS}`:\n\n"
        f"    nas-{study.space.command} --config {study.folder / BEST_SETTINGS}\n\n" + trials_table(study, [best]),
    ]
    if several:
        parts.append(f"## Pareto front\n\n{trials_table(study, best_ones)}\n\n{_image(pictures, 'pareto')}")
    parts.append(f"## History\n\n{_image(pictures, 'history')}")
    if shares:
        listed = "\n".join(f"| {name} | {share:.3f} |" for name, share in shares.items())
        of = f"PED-ANOVA, {importance_note(study)}"
        parts.append(f"## Importances\n\n{of}\n\n| setting | share |\n| --- | ---: |\n{listed}")
        parts.append(_image(pictures, "importances"))
    parts.append(f"## Settings and mIoU\n\n{_image(pictures, 'slices')}\n\n{_image(pictures, 'parallel')}")
    parts.append(f"## Trials\n\n{trials_table(study, trials[:SHOWN])}")
    if len(trials) > SHOWN:
        parts.append(f"and {len(trials) - SHOWN} more.")
    return write_atomically(study.folder / REPORT, "\n\n".join(part.rstrip() for part in parts) + "\n")


def _reached(trial: FrozenTrial) -> float:
    """The last mIoU of a trial that is not complete."""
    return float(next(reversed(list(trial.intermediate_values.values())), -1.0))


def _number_of(study: Study, state: TrialState) -> int:
    return sum(trial.state == state for trial in study.trials)


def _image(pictures: dict[str, Path], name: str) -> str:
    return f"![{name}]({pictures[name].name})" if name in pictures else ""


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
