"""nas-search --seeds: one search after the other, each in its own folder, and going on with all of them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import cli.search
from nas.config import parse_seeds
from nas.darts import search
from nas.evaluation.metrics import mean_note
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import read_metrics
from nas.runs.names import command_of, read_config
from nas.seeds import search_seeds
from nas.training.interruption import InterruptedRun
from nas.training.losses import NonFiniteLossError
from runs import check_same_run, interrupt, on_step
from search_spaces.genotype import load_genotype
from tiny import called, searching, without_pictures

STEPS = 8
"""Of a search of `tiny.searching`, of weights and architecture."""


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_pictures(monkeypatch)
    monkeypatch.chdir(tmp_path)


def test_searches_that_were_stopped_are_those_that_were_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = searching(tmp_path, seed=7)  # the seed in the settings is not read
    said: list[str] = []
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun, match="seed-1; the same command continues"):
        on_step(patch, STEPS + 3, interrupt)  # in the second search
        search_seeds(config, (0, 1), tmp_path / "out", quiet=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/seed-0").iterdir()}
    results = search_seeds(config, (0, 1), tmp_path / "out", say=said.append)
    assert said == ["seed 0, 1 of 2: complete already", "seed 1, 2 of 2: resumes from its last checkpoint"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out/seed-0").iterdir()}
    alone = search(replace(config, seed=1, out=str(tmp_path / "alone")), quiet=True)
    check_same_run(tmp_path / "out/seed-1", alone.folder, "search")
    assert [result.seed for result in results] == [0, 1]
    assert results[1].val_miou == alone.val_miou == read_metrics(alone.folder)[-1]["val"]["miou"]
    for result in results:
        assert read_config(result.folder)["seed"] == result.seed
        assert command_of(result.folder) == "nas-search"
        assert load_genotype(result.folder / "genotype.json").to_json() == result.genotype.to_json()  # type: ignore[union-attr]


def test_a_search_that_diverges_is_said_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("nas.seeds")
    real = module.search

    def diverging(config, *arguments):  # type: ignore[no-untyped-def]
        if config.seed == 0:
            raise NonFiniteLossError("the loss is nan")
        return real(config, *arguments)

    monkeypatch.setattr(module, "search", diverging)
    config = searching(tmp_path, epochs=1)
    arguments = [
        f"--space={config.space}",
        "--epochs=1",
        "--architecture.start_epoch=0",
        "--loader.augment.crop=[33,33]",
    ]
    arguments += ["--loader.train_limit=8", "--loader.val_limit=2", "--loader.batch_size=2", "--seeds=[0, 3]"]
    outcome = called("nas-search", cli.search.main, *arguments)
    assert outcome.code == 2
    assert outcome.err == (
        "nas-search: 1 of 2 searches failed, the first with seed 0: the loss is nan; the same command tries again\n"
    )
    lines = outcome.out.splitlines()
    assert lines[-4:-2] == [
        "seed   val mIoU %   path   genotype",
        "   0       failed",
    ]
    folder = Path("runs/search-tiny-shapes-seeds")
    genotype = load_genotype(folder / "seed-3" / "genotype.json")
    miou, path = 100 * genotype.provenance["supernet_val_miou"], "-".join(map(str, genotype.path))
    note = mean_note(genotype.provenance["supernet_val_mean_over"])
    assert lines[-2] == f"   3   {miou:>10.2f}   {path:<4}   {folder}/seed-3/genotype.json{note}"
    assert lines[-1] == f"next: nas-rank {folder}, which trains the genotypes found"


@pytest.mark.slow
def test_several_processes_search_with_one_seed_after_the_other(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    config = searching(tmp_path)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "cli.search", "--seeds=0,1"]
    words += [f"--space={config.space}", f"--out={tmp_path / 'out'}", "--epochs=1", "--architecture.start_epoch=0"]
    words += ["--loader.train_limit=16", "--loader.val_limit=2", "--loader.batch_size=2", "--device=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    for state in ("a new search", "complete already"):
        done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode().splitlines()
        assert [line for line in said if line.startswith("seed ") and "of 2" in line] == [
            f"seed {seed}, {seed + 1} of 2: {state}" for seed in (0, 1)
        ]
    for seed in (0, 1):
        assert load_checkpoint(tmp_path / f"out/seed-{seed}/checkpoint.pt", "search")["processes"] == 2


def test_other_settings_than_those_of_the_folder_are_refused(tmp_path: Path) -> None:
    config = searching(tmp_path, epochs=1)
    search_seeds(config, [0], "out", quiet=True)
    for changes, names in (
        ({"epochs": 2}, "epochs"),
        ({"optimizer": replace(config.optimizer, lr=0.5), "partial_channels": 2}, "partial_channels, optimizer.lr"),
        ({"space": "autodeeplab-tiny"}, "space"),
    ):
        with pytest.raises(ValueError, match=rf"out/seed-0 was begun with another {names}: give the same settings"):
            search_seeds(replace(config, **changes), [0, 1], "out", quiet=True)
    assert not Path("out/seed-1").exists(), "refused before anything is begun"
    assert search_seeds(replace(config, checkpoint_minutes=1.0), [0], "out", quiet=True)[0].folder == Path("out/seed-0")
    with pytest.raises(ValueError, match="out/seed-0 is the folder of a run: choose another --out"):
        search_seeds(config, [0], "out/seed-0")
    with pytest.raises(ValueError, match=r"out/seed-0/log\.txt is a file"):
        search_seeds(config, [0], "out/seed-0/log.txt")


@pytest.mark.parametrize("text", ["0,1,2", "[0,1,2]", " [0, 1, 2] "])
def test_a_list_of_seeds(text: str) -> None:
    assert parse_seeds(text) == (0, 1, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0,1,0"], "--seeds has 0 twice: give each seed once"),
        (["--seeds", "[]"], "--seeds is '[]': give whole numbers from 0 to 2**32 - 1 with commas, such as 0,1,2"),
        (["--seeds="], "--seeds is '': give"),
        (["--seeds"], "--seeds needs a value"),
        (["--seeds", "-1"], "--seeds is '-1': give"),
        (["--seeds", "0,x"], "--seeds is '0,x': give"),
        (["--seeds", "1.5"], "--seeds is '1.5': give"),
        (["--seeds", "4294967296"], "--seeds[0] is 4294967296: give"),
        (["--seeds", "0,1", "--seed", "0"], "--seeds has the seeds of all searches: leave --seed out"),
        (["--seeds", "0,1", "--resume", "x"], "the same command resumes the searches of --seeds: leave --resume"),
        (["--seeds", "0,1", "--config", "mine.yaml"], "seeds is no setting: give --seeds on the command line"),
    ],
)
def test_wrong_seeds_are_refused_in_one_line(words: list[str], message: str) -> None:
    Path("mine.yaml").write_text("seeds: [0, 1]\n")
    outcome = called("nas-search", cli.search.main, *words)
    assert outcome.code == 2 and message in outcome.err and outcome.err.count("\n") == 1
    assert not Path("runs").exists()


def test_printed_settings_are_without_the_seeds() -> None:
    outcome = called("nas-search", cli.search.main, "--seeds", "0,1", "--print_config")
    assert outcome.code == 0 and "seed: 0" in outcome.out and "seeds" not in outcome.out
