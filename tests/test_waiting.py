"""The share of time spent waiting for data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nas.training.progress
from nas.training.progress import Waiting, waiting_advice


def test_the_share_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(nas.training.progress.time, "perf_counter", lambda: now[0])

    def batches() -> Iterator[str]:
        for seconds, name in ((1.0, "a"), (0.0, "b"), (2.0, "c")):
            now[0] += seconds
            yield name

    waiting, source = Waiting(), batches()
    assert waiting.share() == 0
    for name in "abc":
        assert waiting.next(source) == name
        now[0] += 3  # the step
    assert waiting.share() == pytest.approx(3 / 12)


@pytest.mark.parametrize(("share", "said"), [(0.0, None), (0.03, None), (0.031, "3 %"), (1.0, "100 %")])
def test_only_waiting_that_matters_is_said(share: float, said: str | None) -> None:
    text = waiting_advice(share)
    assert (text == "") if said is None else (said in text and "--loader.workers" in text and "--loader.cache" in text)
