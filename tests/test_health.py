"""The health of a search: its numbers by hand, its warnings in words, what ends a search, and exact resume."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import nas.darts
import nas.runs.epoch_log
import strategies
from decoders.decoding import decode
from nas.config import ArchitectureConfig, HealthConfig, SearchConfig
from nas.darts import search
from nas.diagnostics.health import (
    agreement,
    examine,
    reason_to_stop,
    relative_entropy,
    relaxed_numbers,
    remembered,
    too_few_steps,
    verdict,
    warnings_of,
)
from nas.runs.folder import read_metrics
from nas.training.interruption import InterruptedRun
from runs import check_same_run, interrupt, on_step
from search_spaces.genotype import Block, Genotype
from search_spaces.space import SearchSpace
from test_search import STEPS, settings

SPACE = SearchSpace("hand", 2, 2, 1, 2, ("none", "skip", "separable_3x3", "atrous_3x3"))
ALPHA = np.array([[0.5, 0.3, 0.1, 0.1], [0.0, 0.0, 1.0, 0.0]])
BETA = np.array([[[0, 0.5, 0.5], [0, 0, 0]], [[0, 1.0, 0], [0.25, 0.75, 0]]])


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_history", lambda history: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)


def test_relative_entropy_is_that_of_paper_and_pencil() -> None:
    table = [[0.25] * 4, [0, 1, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.25, 0.125, 0.125]]
    assert relative_entropy(np.array(table)) == pytest.approx([1, 0, 0.5, 0.875])
    assert relative_entropy(np.ones((3, 1))).tolist() == [0, 0, 0]


def test_the_numbers_of_alpha_and_beta_by_hand() -> None:
    numbers = relaxed_numbers(SPACE, ALPHA, BETA)
    first = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.1)) / math.log(4)
    last = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert numbers == pytest.approx(
        {
            "alpha_entropy": first / 2,
            "beta_entropy": (1 + 0 + last) / 3,
            "none": 0.25,
            "edges_prefer_none": 1,
            "skip": 0.15,
            "edges_prefer_skip": 1,  # none is left out of the choice, as in decoding
        }
    )


def test_what_a_space_has_not_is_left_out() -> None:
    space = SearchSpace("bare", 2, 1, 1, 2, ("separable_3x3", "atrous_3x3"))
    assert relaxed_numbers(space, np.full((2, 2), 0.5), np.array([[[0, 1.0, 0]]] * 2)) == {"alpha_entropy": 1.0}


@given(st.data())
def test_numbers_are_within_their_limits_on_any_space(data: st.DataObject) -> None:
    space = data.draw(strategies.spaces())
    alpha, beta = data.draw(strategies.alphas(space)), data.draw(strategies.betas(space))
    genotype = decode(space, alpha, beta)
    numbers, memory = examine(genotype, {}, True)
    shares = {name: value for name, value in numbers.items() if isinstance(value, float)}
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in shares.values())
    again, _ = examine(genotype, memory, True)
    assert (again["cell_agreement"], again["path_agreement"], again["stable_epochs"]) == (1, 1, 1)


def genotype_of(space: SearchSpace, cell: list[tuple[str, str, str, str]], path: tuple[int, ...]) -> Genotype:
    return Genotype(space, tuple(Block((a, c), (b, d)) for a, b, c, d in cell), path)


def test_agreement_counts_equal_pairs_and_equal_strides() -> None:
    space = dataclasses.replace(SPACE, layers=4, blocks=2)
    before = genotype_of(space, [("l-2", "skip", "l-1", "skip"), ("l-1", "skip", "block1", "skip")], (4, 4, 8, 8))
    after = genotype_of(space, [("l-2", "skip", "l-1", "atrous_3x3"), ("l-2", "skip", "block1", "skip")], (4, 8, 8, 4))
    assert agreement(after, remembered(before)) == {"cell_agreement": 0.5, "path_agreement": 0.5}
    assert agreement(after, remembered(after)) == {"cell_agreement": 1, "path_agreement": 1}


def test_stable_epochs_count_only_those_in_which_alpha_learns() -> None:
    genotype, memory, seen = decode(SPACE, ALPHA, BETA), {}, []
    for learns in (False, False, True, True):
        numbers, memory = examine(genotype, memory, learns)
        seen.append(numbers["stable_epochs"])
    other = decode(SPACE, ALPHA[:, [0, 2, 1, 3]], BETA)
    seen.append(examine(other, memory, True)[0]["stable_epochs"])
    assert seen == [0, 0, 1, 2, 0]


HEALTHY = {
    "alpha_entropy": 0.7,
    "edges_prefer_skip": 2,
    "edges_prefer_none": 3,
    "decoded_skips": 1,
    "cell_agreement": 0.9,
    "gap": 0.1,
}
WIDE = SearchSpace("wide", 2, 2, 5, 2, ("none", "skip", "separable_3x3", "atrous_3x3"))


def said(**changes: Any) -> list[str]:
    return list(warnings_of({**HEALTHY, **changes}, WIDE, progress=1.0, miou=0.6).values())


def test_a_healthy_search_is_not_warned_of() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        ({"edges_prefer_skip": 14}, "14 of 20 edges prefer skip: the search is collapsing; try "),
        ({"edges_prefer_skip": 10}, "10 of 20 edges prefer skip"),
        ({"decoded_skips": 3}, "3 of 10 operations of the decoded cell are skip"),
        ({"edges_prefer_none": 11}, "11 of 20 edges prefer none, which is never decoded"),
        ({"alpha_entropy": 0.96}, "alpha is nearly uniform (relative entropy 0.960)"),
        ({"cell_agreement": 0.4}, "only 40 % of the decoded cell is as it was an epoch ago"),
        ({"gap": 0.35}, "with the decoded architecture forced, the supernet loses 35.0 of its 60.0 % mIoU"),
    ],
)
def test_each_trouble_has_a_line_that_says_what_to_try(changes: dict[str, Any], beginning: str) -> None:
    (line,) = said(**changes)
    assert (line.startswith(beginning) and "try" in line) or "--" in line
    assert "\n" not in line


def test_an_alpha_that_has_not_moved_is_no_collapse_and_an_early_one_may_be_uniform() -> None:
    start = {**HEALTHY, "alpha_entropy": 0.99999, "edges_prefer_skip": 20, "edges_prefer_none": 20, "decoded_skips": 10}
    assert warnings_of(start, WIDE, progress=0.1, miou=0.6) == {}


@given(
    st.fixed_dictionaries(
        {
            "alpha_entropy": st.sampled_from((0.5, 0.97)),
            "edges_prefer_skip": st.sampled_from((2, 14)),
            "edges_prefer_none": st.sampled_from((3, 14)),
            "decoded_skips": st.sampled_from((1, 5)),
            "cell_agreement": st.sampled_from((0.2, 0.9)),
            "gap": st.sampled_from((0.1, 0.5)),
            "eigenvalue_growth": st.sampled_from((1.0, 2.0)),
        }
    )
)
def test_remedies_never_contradict_each_other(numbers: dict[str, Any]) -> None:
    text = "; ".join(warnings_of(numbers, WIDE, progress=1.0, miou=0.6).values())
    assert not ("more --epochs" in text and "fewer --epochs" in text)
    for setting in ("lr", "weight-decay"):
        assert not (f"a larger --architecture.{setting}" in text and f"a smaller --architecture.{setting}" in text)


def test_too_few_steps_are_said() -> None:
    few = SearchConfig(epochs=8, architecture=ArchitectureConfig(start_epoch=2))
    text = too_few_steps(few, 40, 2)
    assert text is not None and text.startswith("40 training images give 12 steps of alpha and beta in 6 epochs: ")
    assert too_few_steps(few, 4000, 34) is None
    sampled = dataclasses.replace(few, method="sampled")
    assert too_few_steps(sampled, 4000, 25) is None
    assert "give 192 steps of the supernet in 8 epochs" in str(too_few_steps(sampled, 4000, 24))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"alpha_entropy": 0.5}, "decided. alpha has 50 % of the entropy of a uniform one"),
        (
            {"alpha_entropy": 0.97, "cell_agreement": 0.25, "path_agreement": 0.5, "forced_miou": 0.1, "gap": 0.4},
            "not decided: alpha is nearly uniform, the cell still changes, the supernet does little with it alone. "
            "alpha has 97 % of the entropy of a uniform one; 25 % of the cell and 50 % of the path are as an epoch "
            "ago; forced to it, the supernet has 10.0 of its 50.0 % mIoU",
        ),
        (
            {"networks": 4, "forced_miou": 0.5, "forced_mean": 0.4, "forced_spread": 0.05},
            "the best of 4 networks by the supernet's weights, 50.0 %, is 10.0 points above their mean, s.d. 5.0",
        ),
    ],
)
def test_the_verdict_says_what_speaks_for_a_genotype(numbers: dict[str, float], expected: str) -> None:
    assert verdict(numbers, 0.5) == expected


@pytest.mark.parametrize(
    ("config", "memory", "reason"),
    [
        (HealthConfig(), {"stable": 99, "collapsing": True}, None),
        (HealthConfig(stop_when_stable=3), {"stable": 2, "collapsing": True}, None),
        (HealthConfig(stop_when_stable=3), {"stable": 3, "collapsing": False}, "the same for 3 epochs"),
        (HealthConfig(stop_on_collapse=True), {"stable": 9, "collapsing": False}, None),
        (HealthConfig(stop_on_collapse=True), {"stable": 0, "collapsing": True}, "collapsing"),
        (HealthConfig(1, 0), {}, None),
    ],
)
def test_what_ends_a_search(config: HealthConfig, memory: dict[str, Any], reason: str | None) -> None:
    given = reason_to_stop(config, memory)
    assert given is None if reason is None else given is not None and reason in given


FROZEN = ArchitectureConfig(lr=1e-9, weight_decay=0, start_epoch=1)
"""The genotype stays the same."""


def test_a_stable_search_ends_as_a_finished_one_and_goes_on_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(settings(tmp_path, epochs=4, architecture=FROZEN), quiet=True).folder
    assert [line["health"]["stable_epochs"] for line in read_metrics(whole)] == [0, 1, 2, 3]
    stops = HealthConfig(stop_when_stable=2)
    config = settings(tmp_path, epochs=4, architecture=FROZEN, health=stops, out=str(tmp_path / "stopped"))
    drawn: list[str] = []
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: drawn.append(path.name))
    result = search(config, quiet=True)
    assert drawn[-2:] == ["history.svg", "history.png"] and drawn.count("history.svg") == 1
    assert len(read_metrics(result.folder)) == 3
    assert "ended after epoch 3: the genotype has been the same for 2 epochs" in (result.folder / "log.txt").read_text()
    search(config, resume=result.folder, quiet=True)  # the reason still holds
    assert len(read_metrics(result.folder)) == 3
    search(dataclasses.replace(config, health=HealthConfig()), resume=result.folder, quiet=True)
    check_same_run(whole, result.folder, "search")


def test_a_collapse_is_said_and_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = nas.darts.decode_supernet

    def collapsed(supernet: Any, provenance: Any) -> Any:
        supernet.architecture.alpha.data[:, 1] = 1.0  # skip
        return decoded(supernet, provenance)

    monkeypatch.setattr(nas.darts, "decode_supernet", collapsed)
    folder = search(settings(tmp_path, health=HealthConfig(stop_on_collapse=True)), quiet=True).folder
    first, second = read_metrics(folder)
    assert first["warnings"] == []  # alpha has not learned yet
    assert second["warnings"][0].startswith("2 of 2 edges prefer skip: the search is collapsing; try")
    log = (folder / "log.txt").read_text()
    assert second["warnings"][0] in log and "ended after epoch 2: the search is collapsing" in log


def test_the_health_goes_on_exactly_though_the_genotype_file_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, architecture=ArchitectureConfig(lr=0.5, start_epoch=1))
    whole = search(config, quiet=True).folder
    again = dataclasses.replace(config, out=str(tmp_path / "again"))
    with monkeypatch.context() as patch:
        on_step(patch, STEPS + 2 * STEPS + 2, interrupt)  # in the third epoch
        with pytest.raises(InterruptedRun):
            search(again, quiet=True)
    (tmp_path / "again" / "genotype.json").write_bytes((whole / "genotype.json").read_bytes())
    search(again, resume=tmp_path / "again", quiet=True)
    check_same_run(whole, tmp_path / "again", "search")
    assert "cell_agreement" not in read_metrics(whole)[0]["health"] and read_metrics(whole)[2]["health"]
