"""The view of a running study: on a terminal a live table of all workers' trials, else a line for each trial."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from retrain.sweeps.ledger import END, SURPLUS
from retrain.sweeps.report import best_trial, counted
from retrain.sweeps.study import Study, amount, written

__all__ = ["Screen", "live_table"]

ROWS = 12
SECONDS = 2.0
"""Between two looks at the storage."""
COLORS = {TrialState.COMPLETE: "green", TrialState.PRUNED: "yellow", TrialState.FAIL: "red", TrialState.RUNNING: "cyan"}


def live_table(study: Study, trials: Sequence[FrozenTrial]) -> Group:
    """The latest trials, those that run, and a line on the whole."""
    shown = [trial for trial in trials if trial.user_attrs.get(END) != SURPLUS]
    running = [trial for trial in shown if trial.state == TrialState.RUNNING]
    ended = [trial for trial in shown if trial.state != TrialState.RUNNING][-max(ROWS - len(running), 0) :]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("trial", "state", "epoch", *study.config.objectives):
        table.add_column(name.replace("_", "-"), justify="left" if name == "state" else "right")
    for parameter in study.space.parameters:
        table.add_column(parameter.name.rpartition(".")[2] if not parameter.name[-1].isdigit() else parameter.name)
    for trial in sorted([*ended, *running], key=lambda trial: trial.number):
        epochs = len(trial.intermediate_values) or trial.user_attrs.get("epochs", 0)
        state = trial.user_attrs.get(END, trial.state.name.lower()) if trial.state == TrialState.FAIL else None
        values = trial.values or list(trial.intermediate_values.values())[-1:]
        cells = [amount(name, value, trial) for name, value in zip(study.config.objectives, values, strict=False)]
        cells += ["-"] * (len(study.config.objectives) - len(cells))
        drawn = [trial.params.get(parameter.name, "-") for parameter in study.space.parameters]
        table.add_row(
            str(trial.number),
            Text(state or trial.state.name.lower(), style=COLORS.get(trial.state, "")),
            f"{epochs}/{study.space.base['epochs']}",
            *cells,
            *(Text(f"{value:.4g}" if isinstance(value, float) else str(value)) for value in drawn),
        )
    best = best_trial(study)
    line = f"{study.name}: {counted(shown)}, of {study.places}"
    if best is not None:
        line += f"; best: trial {best.number}, {written('miou', best.values[study.config.objectives.index('miou')])}"
    return Group(table, Text(line, style="bold"))


class Screen:
    """A context in which the study's state is shown.

    Args:
        study: The study.
        quiet: Show nothing.
    """

    def __init__(self, study: Study, quiet: bool = False) -> None:
        self._study, self._quiet = study, quiet
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="nas-sweep-screen", daemon=True)
        if not quiet and sys.stdout.isatty():
            self._live = Live(Text("starting"), console=Console(), auto_refresh=False)

    @property
    def say(self) -> Callable[[str], None]:
        """Shows a line, above the table if there is one."""
        if self._quiet:
            return lambda line: None
        if self._live is not None:
            console = self._live.console
            return lambda line: console.print(line, markup=False, highlight=False)
        return lambda line: print(line, flush=True)

    def _refresh(self) -> None:
        while not self._stop.is_set():
            self._show()
            self._stop.wait(SECONDS)

    def _show(self) -> None:
        assert self._live is not None
        try:
            self._live.update(live_table(self._study, self._study.trials), refresh=True)
        except Exception as error:  # it may be away for a moment; the worker reports it if it stays away
            self._live.update(Text(f"the storage does not answer: {error}"), refresh=True)

    def __enter__(self) -> Screen:
        self._study.say = self.say
        if self._live is not None:
            self._live.start()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._stop.set()
            self._thread.join()
            if error is None:
                self._show()
            self._live.stop()
