"""The demo with tiny settings, and the random genotypes that it compares with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import nas
import retrain
from nas.config import AugmentConfig
from retrain.demo import demo
from search_spaces.genotype import load_genotype
from search_spaces.graph import random_genotype
from search_spaces.space import SearchSpace
from strategies import all_paths, spaces

LOADER = nas.LoaderConfig(train_limit=8, val_limit=2, batch_size=2, augment=AugmentConfig(crop=(33, 33)))


def test_the_table_has_every_contestant_and_their_true_mean(tmp_path: Path) -> None:
    search = nas.SearchConfig(
        space="autodeeplab-tiny",
        layers=2,
        levels=2,
        blocks=1,
        filter_multiplier=2,
        epochs=1,
        loader=LOADER,
        architecture=nas.ArchitectureConfig(start_epoch=0),
        device="cpu",
    )
    training = replace(retrain.recipe("small"), epochs=1, loader=LOADER, device="cpu")
    said: list[str] = []
    result = demo(tmp_path / "demo", search, training, randoms=2, say=said.append)
    assert len(said) == 2 + 3  # the stages, and each network as it is done
    assert [contestant.name for contestant in result.randoms] == ["random 1", "random 2"]
    assert result.picture.stat().st_size > 10_000
    assert result.random_mean == sum(contestant.miou for contestant in result.randoms) / 2
    for contestant in (result.searched, *result.randoms):
        measured = retrain.evaluate(contestant.folder, "test", "last", device="cpu")
        assert contestant.miou == measured.miou
        assert load_genotype(contestant.folder / "genotype.json").cell == contestant.genotype.cell
        assert f"{contestant.parameters:,}" in result.table()
        assert f"{100 * contestant.miou:.2f}" in result.table()


def test_a_worker_ends_with_the_demo(tmp_path: Path) -> None:
    """However the demo went, SIGKILL included: its worker is told by the system that it is alone."""
    code = f"""
import multiprocessing, os, time
from pathlib import Path
from retrain import demo

def work():
    demo._end_with_parent()
    Path({str(tmp_path / "worker")!r}).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work).start()
    time.sleep(600)
"""
    (tmp_path / "parent.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], env=environment) as parent:
        try:
            worker = int(_wait_for(lambda: (tmp_path / "worker").exists() and (tmp_path / "worker").read_text()))
        finally:
            parent.kill()
    assert _wait_for(lambda: not _runs(worker))


def _wait_for(condition: Callable[[], Any]) -> Any:
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("not within a minute")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/status")  # one that nobody has waited for has ended all the same
    return not status.exists() or "State:\tZ" not in status.read_text()


@given(space=spaces(), seed=st.integers(0, 2**32))
def test_a_random_genotype_is_valid_and_the_seed_alone_decides(space: SearchSpace, seed: int) -> None:
    genotype = random_genotype(space, seed)  # a Genotype checks itself
    assert all(block.inputs[0] != block.inputs[1] for block in genotype.cell)
    assert genotype.to_json() == random_genotype(space, seed).to_json()


def test_all_paths_are_drawn_alike() -> None:
    space = SearchSpace("s", 3, 3, 1, 1, ("skip",))
    drawn = Counter(random_genotype(space, seed).levels for seed in range(3000))
    paths = {tuple(path) for path in all_paths(space.layers, space.levels)}
    assert set(drawn) == paths
    expected = 3000 / len(paths)
    # Five standard deviations of a binomial count: the seeds are fixed, so this is the same every time.
    assert all(abs(number - expected) < 5 * expected**0.5 for number in drawn.values())
