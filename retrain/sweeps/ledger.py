"""Who may run what: read from the list of a study's trials alone, so that it is the same for all workers.

Workers share nothing but the storage, and no storage locks anything for them. So a worker first creates its trial, and
then looks whether it may run it. Trials have numbers in the order of their creation, and who sees a trial sees all
with lower numbers: the lower number is in the right, and of two workers exactly one gives way.

A trial begins a *chain*; one that was lost (its worker died) or interrupted is tried again by another trial of its
chain. A chain takes one of the study's places until it failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from optuna.trial import TrialState

__all__ = ["END", "FAILED", "INTERRUPTED", "LOST", "RETRY_OF", "SURPLUS", "Ledger"]

RETRY_OF = "retry_of"
"""Attribute of a trial: number of the one that it tries again. Given at its creation."""
END = "end"
"""Attribute of a failed trial: how it ended."""
LOST, INTERRUPTED, FAILED, SURPLUS = "lost", "interrupted", "failed", "surplus"


class Row(Protocol):
    """What of a trial counts here."""

    number: int
    state: TrialState
    user_attrs: dict[str, Any]


class Ledger:
    """The trials of a study at one moment.

    Args:
        trials: All of them.
        retries: How often a chain may be lost and tried again.
        replaces: Whether a new chain may take the place of a failed one; not in a grid, where each has its point.
    """

    def __init__(self, trials: Sequence[Row], retries: int, replaces: bool = True) -> None:
        self._retries, self._replaces = retries, replaces
        self._trials = sorted(trials, key=lambda trial: trial.number)
        self._next: Mapping[int, Row] = {}
        following: dict[int, Row] = {}
        for trial in self._trials:
            if RETRY_OF in trial.user_attrs and not _is(trial, SURPLUS):
                following.setdefault(trial.user_attrs[RETRY_OF], trial)
        self._next = following
        self._chains = [
            self._chain(trial) for trial in self._trials if RETRY_OF not in trial.user_attrs and not _is(trial, SURPLUS)
        ]

    def _chain(self, trial: Row) -> list[Row]:
        chain = [trial]
        while chain[-1].number in self._next:
            chain.append(self._next[chain[-1].number])
        return chain

    @property
    def pending(self) -> list[int]:
        """Numbers of the trials to be tried again."""
        return [chain[-1].number for chain in self._chains if self._is_pending(chain)]

    @property
    def running(self) -> bool:
        """Whether any trial is at work."""
        return any(not trial.state.is_finished() for trial in self._trials)

    def occupied(self, before: int | None = None) -> int:
        """Places taken, by all chains or by those that began before a trial of this number."""
        chains = [chain for chain in self._chains if before is None or chain[0].number < before]
        return sum(self._occupies(chain) for chain in chains)

    def is_rightful(self, number: int, places: int) -> bool:
        """Whether the trial of this number may be run, in a study of so many places."""
        trial = next(trial for trial in self._trials if trial.number == number)
        again = trial.user_attrs.get(RETRY_OF)
        return self.occupied(number) < places if again is None else self._next[again] is trial

    def rank(self, number: int) -> int:
        """How many chains began before the one that a trial of this number begins."""
        return sum(chain[0].number < number for chain in self._chains)

    def _is_pending(self, chain: Sequence[Row]) -> bool:
        last = chain[-1]
        return _is(last, INTERRUPTED) or (_is(last, LOST) and sum(_is(t, LOST) for t in chain) <= self._retries)

    def _occupies(self, chain: Sequence[Row]) -> bool:
        return not self._replaces or chain[-1].state != TrialState.FAIL or self._is_pending(chain)


def _is(trial: Row, end: str) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get(END) == end
