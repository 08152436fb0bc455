"""nas-sweep: from a sweep to best.yaml, on trials that train, and on trials that only pretend to."""

from __future__ import annotations

import importlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from optuna.trial import TrialState
from PIL import Image
from rich.console import Console

import cli.retrain
import cli.sweep
from cli import common
from nas.evaluation.cost import timed_on
from nas.runs.folder import read_metrics
from nas.training.devices import choose_device
from nas.training.interruption import InterruptedRun
from retrain.report.gallery import Album
from retrain.report.studies import StudyRecord, study_section
from retrain.sweeps.ledger import END, INTERRUPTED, RETRY_OF
from retrain.sweeps.report import (
    best_trial,
    counted,
    front,
    importances,
    shown_trials,
    write_best,
    write_report,
)
from retrain.sweeps.screen import live_table
from retrain.sweeps.settings import Parameter, load_sweep
from retrain.sweeps.study import TrialRun
from sweep_workers import PARAMETERS, make_study, objective, value_of

TINY = """\
command: retrain
settings:
  genotype: fplnet-encoder
  network: {fpl_rates: [1, 2], batch_norm_momentum: 0.1}
  loader: {train_limit: 8, val_limit: 2, batch_size: 4, augment: {crop: [33, 33]}}
  epochs: 2
parameters:
  optimizer.lr: {range: [1e-4, 1e-2], log: true}
  network.fpl_fusion: {choices: [stage1, pair]}
  network.fpl_rates.1: {range: [2, 3]}
trials: 2
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line with which nas-sweep refuses a command line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        common.run("nas-sweep", cli.sweep.main, [str(word) for word in words])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.count("\n") == 1, err
    return err


# With trials that train


def test_a_sweep_trains_and_its_best_settings_train_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.sweep.main(["tiny.yaml", "--out", "study", "--objectives", "[miou, multiply_adds, latency]"])
    out = capsys.readouterr().out
    assert "2 complete; best: trial" in out
    for number in (0, 1):
        run = yaml.safe_load((tmp_path / f"study/trial-{number}/config.yaml").read_text())
        assert run["command"] == "nas-retrain"
        assert run["epochs"] == len(read_metrics(tmp_path / f"study/trial-{number}")) == 2
        assert 1e-4 <= run["optimizer"]["lr"] <= 1e-2
        assert run["network"]["fpl_rates"][0] == 1
    assert {path.name for path in (tmp_path / "study").glob("*.png")} == {
        *("history.png", "slices.png", "parallel.png", "pareto.png")
    }
    text = (tmp_path / "study/report.md").read_text()
    assert "## Pareto front" in text and "![pareto](pareto.png)" in text and " ms |" in text
    assert f"Latency was measured on {timed_on(choose_device('auto'))}." in text

    cli.retrain.main(["--config", "study/best.yaml", "--out", "again", "--quiet"])
    best = next(line for line in (tmp_path / "study/best.yaml").read_text().splitlines() if line.startswith("# The"))
    number = int(best.partition(": trial ")[2].partition(",")[0])
    again, trial = (read_metrics(tmp_path / name) for name in ("again", f"study/trial-{number}"))
    assert [line["val"] for line in again] == [line["val"] for line in trial]

    cli.sweep.main(["tiny.yaml", "--out", "study", "--objectives", "[miou, multiply_adds, latency]"])
    assert not (tmp_path / "study/trial-2").exists(), "it has its trials"
    (tmp_path / "study/report.md").unlink()
    cli.sweep.main(["report", "study"])
    assert (tmp_path / "study/report.md").read_text() == text


def test_an_interrupted_trial_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.sweep.main(["tiny.yaml", "--out", "whole", "--trials", "1", "--quiet"])
    module = importlib.import_module("nas.training.session")
    evaluate, calls = module.evaluate_network, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise InterruptedRun("stopped and saved")
        return evaluate(*arguments, **options)

    monkeypatch.setattr(module, "evaluate_network", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the same command resumes the study"):
        cli.sweep.main(["tiny.yaml", "--out", "study", "--trials", "1", "--quiet"])
    cli.sweep.main(["tiny.yaml", "--out", "study", "--trials", "1", "--quiet"])
    assert len(calls) == 3, "the first epoch is not trained again"
    assert not (tmp_path / "study/trial-1").exists(), "it goes on in the folder that it has"
    values = [[line["val"] for line in read_metrics(tmp_path / f"{name}/trial-0")] for name in ("study", "whole")]
    assert values[0] == values[1]


def test_a_search_is_swept_as_well(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "command: search\nparameters: {optimizer.lr: {range: [0.01, 0.1]}}\nobjectives: [miou, parameters]\ntrials: 1\n"
    )
    small = ["--loader.train_limit", "8", "--loader.batch_size", "4", "--loader.val_limit", "2", "--layers", "3"]
    small += ["--loader.augment.crop", "[33,33]", "--epochs", "1", "--architecture.start_epoch", "0", "--levels", "2"]
    cli.sweep.main(["mine.yaml", "--out", "study", "--quiet", *small])
    assert (tmp_path / "study/trial-0/genotype.json").is_file()
    best = yaml.safe_load((tmp_path / "study/best.yaml").read_text())
    assert best["layers"] == 3 and 0.01 <= best["optimizer"]["lr"] <= 0.1


# With trials that pretend to


def test_a_pruned_trial_stops_within_one_epoch(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=12, sampler="random")
    seen: dict[str, int] = {}

    def counting(trial: TrialRun) -> list[float]:
        """Every later trial is worse from its first epoch on."""
        for epoch in range(5):
            seen[trial.folder.name] = epoch + 1
            trial.each_epoch(epoch, {"miou": 1 / (1 + len(seen))})
        return [1 / (1 + len(seen))]

    study.work(counting)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED] * 7
    assert [seen[f"trial-{number}"] for number in range(12)] == [5] * 5 + [2] * 7, "the first epoch is warm-up"
    assert study.trials[6].intermediate_values == {1: 1 / 8, 2: 1 / 8}


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "nsga2", "cmaes"])
def test_a_sampler_is_seeded(sampler: str, tmp_path: Path) -> None:
    if sampler == "cmaes" and find_spec("cmaes") is None:
        pytest.skip("no package cmaes here: pip install cmaes")
    parameters = (Parameter("optimizer.lr", range=(0.01, 0.5), step=0.01), PARAMETERS[1])
    if sampler == "grid":
        parameters = (Parameter("optimizer.lr", range=(0.1, 0.5), step=0.1), Parameter("layers", range=(2, 6)))
    drawn = []
    for name in ("first", "second"):
        study = make_study(tmp_path / name, trials=16, sampler=sampler, pruner="none", parameters=parameters)
        study.work(objective)
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
    assert len({json.dumps(params) for params in drawn[0]}) > 12


def test_a_grid_may_be_cut_short(tmp_path: Path) -> None:
    parameters = (Parameter("layers", range=(2, 6)),)
    assert make_study(tmp_path / "all", sampler="grid", parameters=parameters).places == 5
    assert make_study(tmp_path / "cut", sampler="grid", parameters=parameters, trials=3).places == 3
    assert make_study(tmp_path / "tpe", parameters=parameters).places == 30


def test_hyperband_prunes(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=25, pruner="hyperband", sampler="random")
    study.work(objective)
    assert counted(study.trials).startswith(tuple(f"{n} complete, {25 - n} pruned" for n in range(1, 25)))


def test_tpe_comes_closer_to_the_best_than_its_random_start(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=40, pruner="none")
    study.work(objective)
    values = [trial.values[0] for trial in study.trials]
    assert np.median(values[25:]) > np.median(values[:10])
    assert list(importances(study)) == ["optimizer.lr", "optimizer.momentum"] or importances(study)
    assert sum(importances(study).values()) == pytest.approx(1)


def test_the_first_trials_are_those_that_are_given(tmp_path: Path) -> None:
    from nas.config import SearchConfig
    from retrain.sweeps.space import Space

    study = make_study(tmp_path, trials=3)
    first = [{"optimizer.lr": 0.1, "optimizer.momentum": 0.5}, {"optimizer.lr": 0.2}]
    study.space = Space(PARAMETERS, SearchConfig(), first)
    study.points = study.space.first
    study.work(objective)
    params = [trial.params for trial in study.trials]
    assert params[0] == first[0]
    assert params[1]["optimizer.lr"] == 0.2 and params[2]["optimizer.lr"] not in (0.1, 0.2)


def test_failed_trials_are_said_why_and_too_many_in_a_row_stop_the_worker(tmp_path: Path) -> None:
    said: list[str] = []
    study = make_study(tmp_path, trials=5, failures=3)
    study.say = said.append
    calls = []

    def failing(trial: TrialRun) -> list[float]:
        calls.append(1)
        if len(calls) in (1, 2, 4, 5, 6):
            raise ValueError("give more images.")
        return objective(trial)

    with pytest.raises(ValueError, match=r"3 trials failed in a row, the last with: give more images\. Mend that"):
        study.work(failing)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "COMPLETE", "FAIL", "FAIL", "FAIL"]
    assert said[0] == "trial 0: failed, 0 of 40 epochs, give more images."
    study.work(objective)
    assert counted(study.trials) == "5 complete, 5 failed"


def test_a_loss_that_is_no_number_prunes(tmp_path: Path) -> None:
    def diverging(trial: TrialRun) -> list[float]:
        raise FloatingPointError("the loss is nan")

    study = make_study(tmp_path, trials=2)
    study.work(diverging)
    assert counted(study.trials) == "2 pruned"
    assert study.trials[0].user_attrs["reason"] == "the loss is nan"


def test_a_mistake_of_ours_is_not_hidden(tmp_path: Path) -> None:
    def broken(trial: TrialRun) -> list[float]:
        raise KeyError("loss")

    study = make_study(tmp_path, trials=2)
    with pytest.raises(KeyError):
        study.work(broken)
    assert counted(study.trials) == "1 failed"


def test_an_interrupted_trial_is_tried_again_with_its_values(tmp_path: Path) -> None:
    def interrupted(trial: TrialRun) -> list[float]:
        raise KeyboardInterrupt

    study = make_study(tmp_path, trials=1)
    with pytest.raises(KeyboardInterrupt):
        study.work(interrupted)
    study.work(objective)
    first, again = study.trials
    assert first.user_attrs[END] == INTERRUPTED and again.user_attrs[RETRY_OF] == 0
    assert first.params == again.params and again.state == TrialState.COMPLETE


def test_the_pareto_front_is_that_of_a_brute_force(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=20, objectives=("miou", "multiply_adds"), sampler="nsga2")
    study.work(lambda trial: [value_of(trial.config), trial.config.optimizer.momentum])  # type: ignore[attr-defined]
    values = {trial.number: trial.values for trial in study.trials}
    brute = {
        number
        for number, (miou, cost) in values.items()
        if not any(m >= miou and c <= cost and (m, c) != (miou, cost) for m, c in values.values())
    }
    assert {trial.number for trial in front(study)} == brute
    best = best_trial(study)
    assert best is not None and best.values[0] == max(miou for miou, _ in values.values())


def test_of_trials_of_one_miou_the_cheapest_is_the_best(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=8, objectives=("miou", "multiply_adds"), sampler="random")
    study.work(lambda trial: [0.5, trial.config.optimizer.momentum])  # type: ignore[attr-defined]
    best = best_trial(study)
    assert best is not None and [best] == front(study)


@pytest.mark.parametrize("collapsed", [True, False])
def test_trials_of_one_miou_have_no_best_one_and_no_importances(tmp_path: Path, collapsed: bool) -> None:
    def constant(trial: TrialRun) -> list[float]:
        if trial.folder.name == "trial-1":
            assert (tmp_path / "best.yaml").exists(), "of one trial"
        epochs = int(study.space.base["epochs"])
        trial.each_epoch(epochs - 1, {"miou": 0.125, "pixel_accuracy": 0.75 if collapsed else 0.7})
        return [0.125]

    study = make_study(tmp_path, trials=5, sampler="random")
    study.each_trial = lambda: write_best(study)
    study.work(constant)
    assert best_trial(study) is None and importances(study) == {}
    text = write_report(study).read_text()
    assert "All complete trials have the same mIoU, which says nothing about their settings." in text
    assert ("5 of 5 complete trials are a collapse: they predict one class everywhere." in text) == collapsed
    for absent in ("Best", "importances", "parallel"):
        assert absent not in text
    assert not (tmp_path / "best.yaml").exists()
    page = study_section(StudyRecord(tmp_path, "study", study, shown_trials(study), None, None), Album())
    assert "same mIoU" in page and "The best trial" not in page and "mIoU by setting" in page


def test_another_sweep_is_refused_the_study(tmp_path: Path) -> None:
    make_study(tmp_path, trials=1).work(objective)
    with pytest.raises(ValueError, match=r"has another parameters\.optimizer\.momentum: give the same"):
        make_study(tmp_path, trials=1, parameters=PARAMETERS[:1])
    with pytest.raises(ValueError, match="has another objectives"):
        make_study(tmp_path, objectives=("miou", "latency"))
    (tmp_path / "trial-0").mkdir()
    with pytest.raises(ValueError, match="has trials of another study"):
        make_study(tmp_path, storage="sqlite")


def test_what_is_seen_of_a_study(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=40, sampler="random")
    with pytest.raises(ValueError, match=r"no complete trial yet \(no trials\)"):
        write_report(study)
    assert write_best(study) is None
    study.work(objective)
    text = write_report(study).read_text()
    assert "| optimizer.lr | 0." in text and "and 10 more." in text
    for name in ("history", "importances", "parallel", "slices"):
        assert f"({name}.png)" in text
        assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 10, "something is drawn"
    console = Console(width=120, record=True, file=(tmp_path / "screen.txt").open("w"))
    console.print(live_table(study, study.trials))
    shown = console.export_text()
    assert "of 40; best: trial" in shown and "pruned" in shown and "0.0" in shown


def test_a_trial_says_of_how_many_classes_its_miou_is_the_mean(tmp_path: Path) -> None:
    def partial(trial: TrialRun) -> list[float]:
        trial.each_epoch(0, {"miou": 0.25, "mean_over": [4, 6]})
        return [0.25]

    study = make_study(tmp_path, trials=2, sampler="random")
    study.work(partial)
    assert "| 25.00 % (mean over 4 of 6 classes) |" in write_report(study).read_text()
    console = Console(width=200, record=True, file=(tmp_path / "screen.txt").open("w"))
    console.print(live_table(study, study.trials))
    assert "25.00 % (mean over 4 of 6 classes)" in console.export_text()


# Wrong use


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lii"], "there is no sweep 'lii': choose one of li, search, or name a YAML file"),
        ([], "SWEEP is missing"),
        (["li", "--network.li_zone", "3"], "--network.li-zone is what the sweep varies: leave it out"),
        (["li", "--resume", "x"], "the same command resumes a study"),
        (["li", "--genotype", "mnv2-aspp"], "has no effect on mnv2-aspp"),
        (["li", "--data", "camvid"], "--data-root"),
        (["li", "--data", "folder", "--data-root", "nowhere", "--epochs", "2"], "nowhere"),
        (["li", "--sampler", "TPE"], "expected one of tpe, random, grid, nsga2, cmaes"),
        (["li", "--sampler", "grid"], "parameter network.li_sigma has any value of its range, but a grid needs steps"),
        (
            ["li", "--sampler", "cmaes"],
            "network.li_init, network.li_blocks has choices",
        ),
        (["li", "--trials", "0"], "trials is 0"),
        (["li", "--objectives", "[miou,latency]", "--pruner", "median"], "several objectives cannot prune"),
        (["li", "--storage", "mysql://x"], "begins with sqlite:///, postgresql:// or grpc://"),
        (["li", "--epochs", "0"], "epochs is 0"),
        (["search", "--epochs", "3", "--architecture.weight_decay", "0.1"], "what the sweep varies"),
        (["search", "--epochs", "3"], "the settings refuse"),
        (["tiny.yaml", "--network.fpl_rates", "[0, 2]"], "fpl_rates[0] is 0"),
        (["report", "nothing"], "nothing is not the folder of a study"),
        (["proxy"], "STORAGE is missing"),
        (["proxy", "--storage", "sqlite"], "give a journal file, or a URL"),
        (["proxy", "--storage", "x.log", "--port", "0"], "--port is 0"),
    ],
)
def test_wrong_use_is_refused_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *words)
    assert not list(Path().glob("runs/*/trial-*"))


def test_a_sweep_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start the command once for each GPU" in refused(capsys, "tiny.yaml")


def test_the_resolved_sweep_is_a_sweep(tmp_path: Path) -> None:
    sweep = load_sweep("li")
    from retrain.config import recipe

    base = recipe("small-published")
    (tmp_path / "resolved.yaml").write_text(cli.sweep._resolved(sweep, sweep.study, base))
    again = load_sweep(tmp_path / "resolved.yaml")
    assert (again.parameters, again.study, again.first) == (sweep.parameters, sweep.study, sweep.first)


def test_a_study_is_not_put_into_the_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("epochs: 1\n")
    with pytest.raises(ValueError, match="run is the folder of a run: choose another --out"):
        cli.sweep.main(["tiny.yaml", "--out", "run"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
