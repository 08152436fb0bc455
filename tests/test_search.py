"""The search: its run folder, who learns when and on what, exact resume, what is refused, and odd spaces end to end."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import pickle
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

import nas.darts
import nas.runs.epoch_log
import nas.training.losses
import nas.training.session
import retrain
from decoders.decoding import decode, redecode
from nas.config import ArchitectureConfig, AugmentConfig, CosineSgdConfig, LoaderConfig, SearchConfig
from nas.darts import search
from nas.data.loading import epoch_batches, split_dataset
from nas.data.splits import training_split
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from nas.runs.folder import read_metrics
from nas.runs.names import read_config
from nas.supernet.network import Supernet
from nas.training.devices import seed_everything
from nas.training.interruption import InterruptedRun
from nas.training.losses import NonFiniteLossError
from nas.training.step import Stepper
from retrain.config import OptimizerConfig, RetrainConfig
from retrain.networks.settings import NetworkConfig
from runs import Killed, check_same_run, equal, interrupt, kill, on_step, record
from search_spaces.genotype import load_genotype
from search_spaces.space import SearchSpace, Stem
from search_spaces.validation import from_plain

TINY = SearchSpace("tiny", 2, 2, 1, 2, ("none", "skip", "separable_3x3"))
LOADER = LoaderConfig(train_limit=12, val_limit=2, batch_size=2, augment=AugmentConfig(crop=(33, 33)))
STEPS = 3
"""Steps in an epoch: 12 images, half of them for the weights, 2 a batch."""


def settings(folder: Path, space: SearchSpace = TINY, **changes: Any) -> SearchConfig:
    """Three epochs, alpha and beta learn from the second on; the space is a file beside the run folder."""
    file = folder / "space.yaml"
    if not file.exists():
        file.write_text(space.to_yaml())
    values: dict[str, Any] = {
        "space": str(file),
        "out": str(folder / "run"),
        "epochs": 3,
        "loader": LOADER,
        "optimizer": CosineSgdConfig(lr=0.05),
        "architecture": ArchitectureConfig(lr=0.02, start_epoch=1),
    }
    return SearchConfig(**(values | changes))


@dataclasses.dataclass
class Run:
    folder: Path
    config: SearchConfig
    result: nas.darts.SearchResult


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run; the tests that take it do not change it."""
    config = settings(tmp_path_factory.mktemp("finished"))
    result = search(config, quiet=True)
    return Run(result.folder, config, result)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take half of a tiny run's time. `finished`, which is set up before this, draws them; others do not."""
    monkeypatch.setattr(nas.runs.epoch_log, "draw_cell", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_paths", lambda genotype: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "draw_history", lambda history: Figure((0.2, 0.2)))
    monkeypatch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: path)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [n for entry in (value.values() if isinstance(value, dict) else value) for n in numbers(entry)]
    return [value]


def test_a_run_folder_has_all_its_files(finished: Run) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    files = {"config.yaml", "checkpoint.pt", "best.pt", "metrics.jsonl", "genotype.json", "space.yaml", "log.txt"}
    files.add("genotypes.jsonl")
    pictures = {f"{name}.{suffix}" for name in ("cell", "trellis", "history") for suffix in ("png", "svg")}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert names == files | pictures | events
    assert len(events) == 1
    log = (finished.folder / "log.txt").read_text()
    assert "searching tiny" in log and "epoch 3/3" in log


def test_metrics_have_a_line_an_epoch_with_finite_numbers(finished: Run) -> None:
    text = (finished.folder / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all(isinstance(line.pop("warnings"), list) for line in lines)
    assert all(math.isfinite(number) for number in numbers(lines))
    assert [set(line["loss"]) for line in lines] == [{"weights"}, *[{"weights", "architecture"}] * 2]
    assert [set(line["lr"]) for line in lines] == [set(line["loss"]) for line in lines]
    assert lines[-1]["val"]["miou"] == finished.result.val_miou


def test_the_genotype_is_the_decoding_of_its_own_probabilities(finished: Run) -> None:
    genotype = load_genotype(finished.folder / "genotype.json")
    assert genotype.space == TINY
    assert genotype.alpha is not None and genotype.beta is not None
    decoded = decode(genotype.space, genotype.alpha, genotype.beta)
    assert (genotype.cell, genotype.path) == (decoded.cell, decoded.path)
    assert genotype.to_json() == finished.result.genotype.to_json()
    assert genotype.provenance["epoch"] == 3
    assert record(finished.folder)[-1]["path"]["strides"] == list(genotype.path)

    saved = load_checkpoint(finished.folder / "checkpoint.pt", "search")["supernet"]
    alpha = saved["architecture.alpha"].double().softmax(1)
    np.testing.assert_allclose(genotype.alpha, alpha.numpy(), rtol=0, atol=1e-6)


def test_tensorboard_has_scalars_and_images(finished: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.folder)).Reload()
    lines = record(finished.folder)
    for name in ("loss/weights", "health/alpha_entropy", "val/miou", "lr/weights", "path/probability"):
        first, second = name.split("/")
        shown = {event.step: event.value for event in events.Scalars(name)}
        assert shown == pytest.approx({line["epoch"]: line[first][second] for line in lines}), name
    assert [event.step for event in events.Scalars("loss/architecture")] == [1, 2]
    images = {f"architecture/{name}" for name in ("alpha", "beta", "cell", "trellis")}
    assert set(events.Tags()["images"]) == images | {"samples/0", "samples/1", "architecture/history"}
    assert [event.step for event in events.Images("architecture/history")] == [2]  # at the end
    assert all(len(events.Images(name)) == 3 for name in images)


def test_numbers_of_modules_are_recorded_and_a_search_with_groups_goes_on_exactly(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SearchSpace("inhibited", 2, 2, 1, 2, ("none", "skip", "li_atrous_3x3"))
    config = settings(tmp_path, space, epochs=2, optimizer=CosineSgdConfig(lr=2.0, clip=5.0))
    folder = search(config, quiet=True).folder
    for line in read_metrics(folder):
        assert line["modules"] and all(0 <= value <= 1 for value in line["modules"].values())
    assert all("modules" not in line for line in read_metrics(finished.folder))
    again = dataclasses.replace(config, out=str(tmp_path / "again"))
    with monkeypatch.context() as patch:
        on_step(patch, STEPS + 2, interrupt)
        with pytest.raises(InterruptedRun):
            search(again, quiet=True)
    search(again, resume=tmp_path / "again", quiet=True)
    check_same_run(folder, tmp_path / "again", "search")
    groups = load_checkpoint(folder / "checkpoint.pt", "search")["weights"]["optimizer"]["groups"]
    assert [group["weight_decay"] for group in groups] == [3e-4, 0]


def test_the_config_alone_repeats_the_run(finished: Run, tmp_path: Path) -> None:
    config = from_plain(SearchConfig, read_config(finished.folder))
    assert config == dataclasses.replace(finished.config, space=str(finished.folder / "space.yaml"))  # its own copy
    again = search(dataclasses.replace(config, out=str(tmp_path / "again")), quiet=True)
    check_same_run(finished.folder, again.folder, "search")


def test_another_seed_gives_another_run(finished: Run, tmp_path: Path) -> None:
    other = search(settings(tmp_path, seed=1, epochs=2), quiet=True)
    assert record(other.folder)[0]["loss"] != record(finished.folder)[0]["loss"]


def test_each_step_changes_only_what_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    step = Stepper.step

    def watched(self: Stepper, images: Any, labels: Any, where: str) -> float:
        supernet = self.network
        before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
        gradients = {name: None if p.grad is None else p.grad.clone() for name, p in supernet.named_parameters()}
        value = step(self, images, labels, where)
        changed = {name for name, p in supernet.named_parameters() if not torch.equal(p, before[name])}
        other = {name for name in before if name.startswith("architecture.") == (self.name == "weight")}
        assert changed and not changed & other
        for name, p in supernet.named_parameters():
            if name in other:  # not even a gradient is left behind for the other optimiser
                assert (p.grad is None) if gradients[name] is None else torch.equal(p.grad, gradients[name])
        if self.name == "architecture":
            assert changed == {"architecture.alpha", "architecture.beta"}
        seen.append((where, self.name))
        return value

    monkeypatch.setattr(Stepper, "step", watched)
    search(settings(tmp_path, epochs=2), quiet=True)
    first = [(f"epoch 1, step {k + 1}", "weight") for k in range(STEPS)]
    second = [(f"epoch 2, step {k + 1}", name) for k in range(STEPS) for name in ("weight", "architecture")]
    assert seen == first + second


def test_alpha_and_beta_are_frozen_before_their_epoch(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    on_step(monkeypatch, STEPS + 1, kill)  # in the first step of the second epoch: the checkpoint is the first's
    with pytest.raises(Killed):
        search(config, quiet=True)
    seed_everything(config.seed)
    start = Supernet(TINY, 6).architecture
    folders = (tmp_path / "run", finished.folder)
    first, last = (load_checkpoint(folder / "checkpoint.pt", "search")["supernet"] for folder in folders)
    for name, value in start.named_parameters():
        assert torch.equal(first[f"architecture.{name}"], value)
        assert not torch.equal(last[f"architecture.{name}"], value)


def test_weights_and_architecture_learn_on_halves_that_share_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def watched(indices: Any, *rest: Any) -> Any:
        asked.append(indices.tolist())
        return epoch_batches(indices, *rest)

    monkeypatch.setattr(nas.darts, "epoch_batches", watched)
    config = settings(tmp_path, epochs=2)
    search(config, quiet=True)
    part_a, part_b = (part.tolist() for part in split_dataset(training_split(config), config.seed))
    assert asked == [part_a, part_a, part_b]
    assert sorted(part_a + part_b) == list(range(12))
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt", "search")["split"]
    assert [part.tolist() for part in saved] == [part_a, part_b]
    other = split_dataset(training_split(config), config.seed + 1)
    assert other[0].tolist() != part_a


def test_a_killed_run_goes_on_exactly_from_the_last_epoch(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        on_step(patch, STEPS + 2 * STEPS + 2, kill)  # in the middle of the third epoch
        with pytest.raises(Killed):
            search(dataclasses.replace(finished.config, out=str(folder)), quiet=True)
    assert [line["epoch"] for line in read_metrics(folder)] == [0, 1]
    assert load_checkpoint(folder / "checkpoint.pt", "search")["state"]["epoch"] == 2
    result = search(from_plain(SearchConfig, read_config(folder)), resume=folder, quiet=True)
    check_same_run(finished.folder, folder, "search")
    assert result.genotype.to_json() == finished.result.genotype.to_json()
    assert result.val_miou == finished.result.val_miou


def test_an_epoch_that_was_recorded_but_not_saved_stands_once(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(finished.config, out=str(tmp_path / "run"))
    report = nas.darts.report_epoch

    def killed_after(run: Any, epoch: int, *rest: Any) -> None:
        report(run, epoch, *rest)
        if epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(nas.darts, "report_epoch", killed_after)
        with pytest.raises(Killed):
            search(config, quiet=True)
    assert [line["epoch"] for line in read_metrics(tmp_path / "run")] == [0, 1]
    search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(finished.folder, tmp_path / "run", "search")


# Steps are counted as in `on_step`: the first epoch has steps 1-3; from then on weights and architecture alternate.
@pytest.mark.parametrize("number", [1, 3, 6, 7, 9])
def test_an_interrupted_run_goes_on_with_the_very_next_batch(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    config = dataclasses.replace(finished.config, out=str(tmp_path / "run"))
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    drawn: list[str] = []
    with monkeypatch.context() as patch:
        on_step(patch, number, lambda: interrupt(signal.SIGTERM if number == 1 else signal.SIGINT))
        patch.setattr(nas.runs.epoch_log, "save_figure", lambda figure, path: drawn.append(path.name))
        with pytest.raises(InterruptedRun, match="--resume") as raised:
            search(config, quiet=True)
    assert ("history.png" in drawn) == (number > 3), "of the epochs that are done, if there are any"
    assert str(tmp_path / "run") in str(raised.value)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt", "search")["state"]
    expected = {1: (0, 1), 3: (0, 3), 6: (1, 2), 7: (1, 2), 9: (1, 3)}[number]
    assert (state["epoch"], state["step"]) == expected
    search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(finished.folder, tmp_path / "run", "search")


@pytest.mark.parametrize(
    "reading",
    [
        {"prefetch": 0},
        {"workers": 2, "prefetch": 1},
        {"cache": "disk"},
        {"cache": "memory", "workers": 1},
    ],
)
def test_however_data_is_read_the_run_is_the_same_and_goes_on_exactly(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: dict[str, Any]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loader = dataclasses.replace(LOADER, **reading)
    config = dataclasses.replace(finished.config, out=str(tmp_path / "run"), loader=loader)
    before = set(multiprocessing.active_children())
    with monkeypatch.context() as patch:
        on_step(patch, STEPS + 3, interrupt)  # in the middle of the second epoch, with the weights' step done
        with pytest.raises(InterruptedRun):
            search(config, quiet=True)
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert set(multiprocessing.active_children()) <= before
    search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(finished.folder, tmp_path / "run", "search")


def test_the_share_of_waiting_is_recorded_and_said_if_it_matters(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(0 <= line["waiting"] <= 1 for line in read_metrics(finished.folder))
    next_batch = nas.training.session.Waiting.next

    def slow(self: Any, batches: Any) -> Any:
        return next_batch(self, (time.sleep(0.1) or batch for batch in batches))  # type: ignore[func-returns-value]

    monkeypatch.setattr(nas.training.session.Waiting, "next", slow)
    config = settings(tmp_path, epochs=1, architecture=ArchitectureConfig(start_epoch=0))
    folder = search(config, quiet=True).folder
    (line,) = read_metrics(folder)
    assert 0.03 < line["waiting"] < 1
    said = re.search(r"; (\d+) % of the steps' time was spent waiting for data: see", (folder / "log.txt").read_text())
    assert said and int(said[1]) == round(100 * line["waiting"])


def test_a_second_interrupt_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    on_step(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt) as raised:
        search(settings(tmp_path), quiet=True)
    assert not isinstance(raised.value, InterruptedRun)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt", "search")["state"]
    assert (state["epoch"], state["step"]) == (0, 0)  # the one of the start: saving was not waited for


def test_more_epochs_than_before_are_accepted(tmp_path: Path) -> None:
    # A learning rate that stays the same does not depend on the number of epochs: so the runs must be equal.
    start = ArchitectureConfig(lr=0.02, start_epoch=0)
    config = settings(tmp_path, optimizer=CosineSgdConfig(lr=0.05, lr_end=0.05), architecture=start)
    search(config, quiet=True)
    short = dataclasses.replace(config, epochs=1, out=str(tmp_path / "short"))
    search(short, quiet=True)
    search(dataclasses.replace(short, epochs=3), resume=tmp_path / "short", quiet=True)
    check_same_run(tmp_path / "run", tmp_path / "short", "search")
    assert read_config(tmp_path / "short")["epochs"] == 3


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("seed", {"seed": 1}),
        ("layers", {"layers": 3}),
        ("search space", {"space": "autodeeplab-tiny"}),
        ("optimizer.lr", {"optimizer": CosineSgdConfig(lr=0.04)}),
        ("architecture.lr", {"architecture": ArchitectureConfig(lr=0.03, start_epoch=1)}),
        ("loader.augment.crop", {"loader": dataclasses.replace(LOADER, augment=AugmentConfig(crop=(33, 65)))}),
        ("loader.train_limit", {"loader": dataclasses.replace(LOADER, train_limit=14)}),
    ],
)
def test_resume_with_another_setting_is_refused(finished: Run, name: str, changes: dict[str, Any]) -> None:
    before = (finished.folder / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=f"--resume with another {name} ") as raised:
        search(dataclasses.replace(finished.config, **changes), resume=finished.folder, quiet=True)
    assert "\n" not in str(raised.value)
    assert (finished.folder / "config.yaml").read_bytes() == before


def test_resume_with_a_changed_space_file_is_refused(tmp_path: Path) -> None:
    config = settings(tmp_path, epochs=2)
    search(config, quiet=True)
    # Every shape stays the same, but alpha's columns would mean other operations.
    Path(config.space).write_text(dataclasses.replace(TINY, operations=TINY.operations[::-1]).to_yaml())
    with pytest.raises(ValueError, match=r"search space .* put .*space\.yaml back as it was"):
        search(dataclasses.replace(config, epochs=3), resume=tmp_path / "run", quiet=True)


def test_a_run_whose_space_file_and_place_are_gone_goes_on(tmp_path: Path) -> None:
    config = settings(tmp_path, epochs=2)
    search(config, quiet=True)
    Path(config.space).unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    kept = from_plain(SearchConfig, read_config(tmp_path / "moved"))
    result = search(dataclasses.replace(kept, epochs=3), resume=tmp_path / "moved", quiet=True)
    assert len(read_metrics(result.folder)) == 3


def test_a_run_killed_in_its_first_step_goes_on(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path)
    with monkeypatch.context() as patch:
        on_step(patch, 1, kill)
        with pytest.raises(Killed):
            search(config, quiet=True)
    search(config, resume=tmp_path / "run", quiet=True)
    check_same_run(finished.folder, tmp_path / "run", "search")


def test_alpha_and_beta_that_would_never_learn_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"start_epoch is 1 .*no such epoch with --epochs 1"):
        settings(tmp_path, epochs=1)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "of another kind":
        save_checkpoint(path, "retrain", {"network": {}})
    elif how == "malicious pickle":
        path.write_bytes(pickle.dumps(Malicious(path.with_name("executed"))))
    else:
        assert how == "malicious zip"
        torch.save({"format": "nas-checkpoint", "evil": Malicious(path.with_name("executed"))}, path)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "does not exist"),
        ("truncated", "damaged"),
        ("empty", "damaged"),
        ("of another kind", "is the checkpoint of a retrain run: name the folder of a search run"),
        ("malicious pickle", "damaged or not a checkpoint"),
        ("malicious zip", "damaged or not a checkpoint"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_one_line(finished: Run, tmp_path: Path, how: str, says: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "checkpoint.pt", "metrics.jsonl"):
        (folder / name).write_bytes((finished.folder / name).read_bytes())
    spoil(folder / "checkpoint.pt", how)
    with pytest.raises(ValueError, match=says) as raised:
        search(finished.config, resume=folder, quiet=True)
    assert "\n" not in str(raised.value) and str(folder / "checkpoint.pt") in str(raised.value)
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(("number", "name"), [(STEPS + 3, "weight"), (STEPS + 4, "architecture")])
def test_a_loss_that_is_not_finite_stops_before_the_update(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    config = dataclasses.replace(finished.config, out=str(tmp_path / "run"), memory_check="off")  # it takes a loss, too
    losses, step, loss = [0], Stepper.step, nas.training.losses.cross_entropy
    parameters: list[dict[str, torch.Tensor]] = []

    def poisoned(logits: torch.Tensor, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        losses[0] += 1
        return loss(logits, labels) * (math.nan if losses[0] == number else 1)

    def watched(self: Stepper, images: Any, labels: Any, where: str) -> float:
        before = {key: p.detach().clone() for key, p in self.network.named_parameters()}
        try:
            return step(self, images, labels, where)
        except NonFiniteLossError:
            parameters.extend([before, {key: p.detach().clone() for key, p in self.network.named_parameters()}])
            raise

    with monkeypatch.context() as patch:
        patch.setattr(nas.training.losses, "cross_entropy", poisoned)
        patch.setattr(Stepper, "step", watched)
        with pytest.raises(NonFiniteLossError, match=f"loss of the {name} step is nan at epoch 2, step 2"):
            search(config, quiet=True)
    assert equal(*parameters)
    search(config, resume=tmp_path / "run", quiet=True)  # the last checkpoint is good
    check_same_run(finished.folder, tmp_path / "run", "search")


def test_a_new_run_does_not_touch_a_used_folder(finished: Run) -> None:
    before = {path: path.read_bytes() for path in finished.folder.iterdir()}
    with pytest.raises(ValueError, match=f"{finished.folder} holds a run already: resume it with --resume"):
        search(finished.config, quiet=True)
    assert {path: path.read_bytes() for path in finished.folder.iterdir()} == before


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_too_few_images_are_refused_before_a_folder_is_made(tmp_path: Path, limit: int) -> None:
    with pytest.raises(ValueError) as raised:
        search(settings(tmp_path, loader=dataclasses.replace(LOADER, train_limit=limit)), quiet=True)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_numbers_in_place_of_the_spaces_own(tmp_path: Path) -> None:
    start = ArchitectureConfig(start_epoch=0)
    config = settings(tmp_path, epochs=1, architecture=start, layers=1, levels=1, blocks=1, filter_multiplier=3)
    genotype = search(config, quiet=True).genotype
    assert genotype.space == SearchSpace("tiny", 1, 1, 1, 3, TINY.operations)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["layers"] == 1


ODD_SPACES = {
    "one layer": SearchSpace("odd", 1, 4, 2, 2, ("none", "skip", "atrous_3x3")),
    "five layers of two levels": SearchSpace("odd", 5, 2, 1, 2, ("skip", "separable_5x5")),
    "one block of three operations": SearchSpace(
        "odd", 3, 3, 1, 2, ("average_pooling_3x3", "dilated_separable_3x3", "none")
    ),
    "one level": SearchSpace("odd", 2, 1, 2, 2, ("none", "max_pooling_3x3", "skip")),
    "stem of one convolution": SearchSpace("odd", 2, 3, 2, 1, ("skip", "separable_3x3"), Stem((2,))),
}


@pytest.mark.parametrize("space", ODD_SPACES.values(), ids=ODD_SPACES.keys())
def test_odd_spaces_from_search_to_prediction(space: SearchSpace, tmp_path: Path) -> None:
    config = settings(tmp_path, space, epochs=1, architecture=ArchitectureConfig(start_epoch=0))
    found = search(config, quiet=True)
    assert set(read_metrics(found.folder)[0]["loss"]) == {"weights", "architecture"}

    decoded = redecode(load_genotype(found.folder / "genotype.json"))
    file = decoded.save(tmp_path / "decoded.json")
    network = NetworkConfig(
        filter_multiplier=2,
        stem_channels=(4, 4, 4),
        aspp_channels=8,
        decoder_channels=8,
        low_level_channels=4,
        batch_norm_momentum=0.1,
    )
    trained = retrain.train(
        RetrainConfig(
            genotype=str(file),
            network=network,
            loader=dataclasses.replace(LOADER, train_limit=4),
            optimizer=OptimizerConfig(),
            epochs=1,
            out=str(tmp_path / "trained"),
        ),
        quiet=True,
    )
    evaluation = retrain.evaluate(trained.folder, write=False)
    assert 0 <= evaluation.miou <= 1
    assert evaluation.images == 100  # the whole split, whatever the run validated on

    Image.fromarray(np.zeros((31, 45, 3), dtype=np.uint8)).save(tmp_path / "grey.png")
    (written,) = retrain.predict(trained.folder, tmp_path / "grey.png", tmp_path / "predictions").written
    mask = np.asarray(Image.open(written))
    assert mask.shape == (31, 45) and mask.max() < 6
