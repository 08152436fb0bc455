"""Retraining, evaluating, predicting: the run folder, exact resume, and results against counts made by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nas.training.losses
import nas.training.session
import retrain.training
from nas.config import AugmentConfig, LoaderConfig
from nas.data.base import open_dataset
from nas.data.label_counts import count_labels
from nas.data.splits import training_split
from nas.evaluation.metrics import ConfusionMatrix
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from nas.runs.folder import read_metrics
from nas.runs.names import read_config
from nas.runs.pictures import colorize
from nas.training.class_weights import class_shares, inverse_log
from nas.training.interruption import InterruptedRun
from nas.training.losses import NonFiniteLossError
from nas.training.step import Stepper
from retrain.config import LossConfig, OptimizerConfig, RetrainConfig
from retrain.evaluation import Evaluation, evaluate
from retrain.load import load_trained
from retrain.networks import build
from retrain.networks.deeplab import DeepLab
from retrain.networks.fplnet import FPLNet, FPLNetEncoder
from retrain.networks.settings import NetworkConfig
from retrain.prediction import predict, predict_mask
from retrain.pretrained import load_matching
from retrain.training import TrainResult, train
from runs import Killed, check_same_run, equal, kill, on_step
from search_spaces.genotype import Block, Genotype
from search_spaces.modules import BatchNorm
from search_spaces.space import SearchSpace
from search_spaces.validation import from_plain

SPACE = SearchSpace("tiny", 3, 2, 2, 2, ("none", "skip", "max_pooling_3x3", "separable_3x3"))
CELL = (Block(("l-2", "l-1"), ("separable_3x3", "skip")), Block(("block1", "l-1"), ("skip", "max_pooling_3x3")))
NETWORK = NetworkConfig(
    filter_multiplier=2,
    stem_channels=(4, 4, 4),
    aspp_channels=8,
    decoder_channels=8,
    low_level_channels=4,
    dropout=0.2,
    drop_path_keep=0.5,
    batch_norm_momentum=0.1,
)
LOADER = LoaderConfig(train_limit=6, val_limit=2, batch_size=2, augment=AugmentConfig(crop=(33, 33)))
STEPS = 3
"""Steps in an epoch."""


def settings(folder: Path, **changes: Any) -> RetrainConfig:
    """Three epochs of a genotype that lies beside the run folder; dropout and drop path draw random numbers."""
    file = folder / "genotype.json"
    if not file.exists():
        Genotype(SPACE, CELL, (4, 8, 4)).save(file)
    values: dict[str, Any] = {
        "genotype": str(file),
        "out": str(folder / "run"),
        "epochs": 3,
        "network": NETWORK,
        "loader": LOADER,
    }
    return RetrainConfig(**(values | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RetrainConfig, TrainResult]:
    """A whole run; the tests that take it do not change it."""
    config = settings(tmp_path_factory.mktemp("finished"))
    return config, train(config, quiet=True)


@pytest.fixture(scope="module")
def run(finished: tuple[RetrainConfig, TrainResult]) -> Path:
    return finished[1].folder


def test_a_run_folder_has_all_its_files(finished: tuple[RetrainConfig, TrainResult], run: Path) -> None:
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out.tfevents")}
    names = {name for name in names if not name.startswith("evaluation-")}
    assert names == {"config.yaml", "checkpoint.pt", "best.pt", "genotype.json", "metrics.jsonl", "log.txt"}
    lines = read_metrics(run)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all(math.isfinite(line["loss"]["training"]) for line in lines)
    assert max(line["val"]["miou"] for line in lines) == finished[1].best_miou
    assert lines[-1]["val"]["miou"] == finished[1].last_miou
    assert all(0 <= line["waiting"] <= 1 for line in lines)
    assert "epoch 3/3" in (run / "log.txt").read_text()


def test_the_learning_rate_is_poly(run: Path) -> None:
    # Of the last of three steps of each of three epochs: (1 - 2/9) ** 0.9, ...
    expected = [0.05 * (1 - step / 9) ** 0.9 for step in (2, 5, 8)]
    assert [line["lr"]["training"] for line in read_metrics(run)] == pytest.approx(expected)


def test_the_config_alone_repeats_the_run(
    finished: tuple[RetrainConfig, TrainResult], run: Path, tmp_path: Path
) -> None:
    config = from_plain(RetrainConfig, read_config(run))
    assert config == dataclasses.replace(finished[0], genotype=str(run / "genotype.json"))  # its own copy
    again = train(dataclasses.replace(config, out=str(tmp_path / "again")), quiet=True)
    check_same_run(run, again.folder, "retrain")


def test_a_killed_run_goes_on_exactly_without_the_original_genotype(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    with monkeypatch.context() as patch:
        on_step(patch, 2 * STEPS + 2, kill)
        with pytest.raises(Killed):
            train(config, quiet=True)
    Path(config.genotype).unlink()
    assert [line["epoch"] for line in read_metrics(tmp_path / "run")] == [0, 1]
    train(config, resume=tmp_path / "run", quiet=True)
    check_same_run(run, tmp_path / "run", "retrain")
    assert load_trained(tmp_path / "run").epoch >= 1  # evaluation does without the original, too


@pytest.mark.parametrize(("number", "reading"), [(1, {"workers": 1}), (3, {"prefetch": 0}), (5, {"cache": "memory"})])
def test_an_interrupted_run_goes_on_with_the_very_next_batch(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reading: dict[str, Any]
) -> None:
    config = settings(tmp_path, loader=dataclasses.replace(LOADER, **reading))
    with monkeypatch.context() as patch:
        on_step(patch, number, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(InterruptedRun, match="nas-retrain --resume"):
            train(config, quiet=True)
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt", "retrain")["state"]
    assert STEPS * state["epoch"] + state["step"] == number
    train(config, resume=tmp_path / "run", quiet=True)
    check_same_run(run, tmp_path / "run", "retrain")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("seed", {"seed": 3}),
        ("genotype", {"genotype": "auto-deeplab-s"}),
        ("optimizer.lr", {"optimizer": OptimizerConfig(lr=0.04)}),
        ("network.dropout", {"network": dataclasses.replace(NETWORK, dropout=0.3)}),
        ("loader.resolution", {"loader": dataclasses.replace(LOADER, resolution=0.5)}),
    ],
)
def test_resume_with_another_setting_is_refused(
    finished: tuple[RetrainConfig, TrainResult], name: str, changes: dict[str, Any]
) -> None:
    config, result = finished
    with pytest.raises(ValueError, match=f"--resume with another {name} ") as raised:
        train(dataclasses.replace(config, **changes), resume=result.folder, quiet=True)
    assert "\n" not in str(raised.value)


def test_a_new_run_does_not_touch_a_used_folder(finished: tuple[RetrainConfig, TrainResult]) -> None:
    before = (finished[1].folder / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match="holds a run already"):
        train(finished[0], quiet=True)
    assert (finished[1].folder / "checkpoint.pt").read_bytes() == before


def test_what_cannot_start_leaves_no_folder(tmp_path: Path) -> None:
    few = settings(tmp_path, loader=dataclasses.replace(LOADER, train_limit=1))
    unknown = settings(tmp_path, genotype="auto-deeplab-xxl")
    for config, says in ((few, "1 training images"), (unknown, "choose one of auto-deeplab-s")):
        with pytest.raises(ValueError, match=says) as raised:
            train(config, quiet=True)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.training.losses, "cross_entropy", lambda logits, *_, **__: logits.sum() * math.inf)
    with pytest.raises(NonFiniteLossError, match=r"loss of the training step is .* at epoch 1, step 1"):
        train(settings(tmp_path), quiet=True)


def test_a_published_network_is_trained_by_name(tmp_path: Path) -> None:
    network = NetworkConfig(
        filter_multiplier=1,
        stem_channels=(2, 2, 4),
        aspp_channels=4,
        decoder_channels=4,
        low_level_channels=2,
        batch_norm_momentum=0.1,
    )
    config = settings(tmp_path, genotype="auto-deeplab-s", network=network, epochs=1)
    config = dataclasses.replace(config, loader=dataclasses.replace(LOADER, train_limit=2, val_limit=1))
    folder = train(config, quiet=True).folder
    assert not (folder / "genotype.json").exists()
    trained = load_trained(folder)
    assert trained.config.genotype == "auto-deeplab-s"
    assert len(trained.network.cells) == 12  # type: ignore[arg-type]
    train(dataclasses.replace(config, epochs=2), resume=folder, quiet=True)
    assert load_trained(folder, "last").epoch == 2


def test_drop_path_follows_the_progress_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fractions: list[float] = []
    set_progress = DeepLab.set_progress

    def watched(self: DeepLab, fraction: float) -> None:
        fractions.append(fraction)
        set_progress(self, fraction)

    monkeypatch.setattr(DeepLab, "set_progress", watched)
    losses: dict[float, list[float]] = {}
    for keep in (1.0, 0.2):
        network = dataclasses.replace(NETWORK, dropout=0.0, drop_path_keep=keep)
        folder = train(settings(tmp_path, network=network, epochs=2, out=str(tmp_path / str(keep))), quiet=True).folder
        losses[keep] = [line["loss"]["training"] for line in read_metrics(folder)]
    assert fractions == pytest.approx([step / (2 * STEPS) for step in range(2 * STEPS)] * 2)
    assert losses[1.0] != losses[0.2]


def test_drop_path_drops_nothing_in_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    step = Stepper.step

    def first_only(self: Stepper, images: Any, labels: Any, where: str) -> float:
        losses.append(step(self, images, labels, where))
        raise Killed

    monkeypatch.setattr(Stepper, "step", first_only)
    for keep in (1.0, 0.2):
        network = dataclasses.replace(NETWORK, dropout=0.0, drop_path_keep=keep)
        with pytest.raises(Killed):
            train(settings(tmp_path, network=network, out=str(tmp_path / str(keep))), quiet=True)
    assert losses[0] == losses[1]


def counted_by_hand(folder: Path, which: str) -> np.ndarray:
    """Pixels [label][prediction] over the whole validation split, one at a time."""
    trained, dataset = load_trained(folder, which), open_dataset("shapes", None, "val")
    counts = np.zeros((6, 6), dtype=np.int64)
    for index in range(len(dataset)):
        image, label = dataset.read(index)
        prediction = predict_mask(trained, image)
        for row in range(6):
            for column in range(6):
                counts[row, column] += np.sum((label == row) & (prediction == column))
    return counts


@pytest.mark.parametrize("resolution", [1.0, 0.5])
def test_evaluation_equals_a_count_by_hand(tmp_path: Path, resolution: float) -> None:
    config = settings(tmp_path, loader=dataclasses.replace(LOADER, resolution=resolution), epochs=1)
    folder = train(config, quiet=True).folder
    evaluation = evaluate(folder)
    counts = counted_by_hand(folder, "best")
    assert evaluation.confusion == counts.tolist()
    labels = open_dataset("shapes", None, "val")
    labelled = sum(int((labels.read(index)[1] != 255).sum()) for index in range(len(labels)))
    assert counts.sum() == labelled  # at the labels' own size, whatever the network was given
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou = [counts[k, k] / union[k] if union[k] else None for k in range(6)]
    assert list(evaluation.iou.values()) == pytest.approx(iou)
    assert evaluation.miou == pytest.approx(np.mean([value for value in iou if value is not None]))
    assert evaluation.pixel_accuracy == pytest.approx(counts.trace() / counts.sum())


def test_evaluation_writes_what_it_says(run: Path) -> None:
    evaluation = evaluate(run, which="last")
    written = json.loads((run / "evaluation-val-last.json").read_text())
    assert written == dataclasses.asdict(evaluation)
    assert list(written) == [field.name for field in dataclasses.fields(Evaluation)]
    described = {"images": 100, "data": "shapes", "split": "val", "resolution": 1.0, "epoch": 3, "seed": 0}
    assert {name: written[name] for name in described} == described
    assert written["checkpoint"] == "checkpoint.pt"
    assert written["checkpoint_sha256"] == hashlib.sha256((run / "checkpoint.pt").read_bytes()).hexdigest()
    assert list(written["iou"]) == ["background", "disc", "square", "triangle", "ring", "line"]
    table = evaluation.table()
    assert len(table.splitlines()) == 1 + 6 + 2 and f"{100 * evaluation.miou:.2f}" in table
    test = evaluate(run, split="test", write=False)
    assert test.split == "test" and test.confusion != evaluation.confusion
    assert not (run / "evaluation-test-best.json").exists()


def test_best_and_last_are_different_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = iter([1, 9, 5])  # of ten pixels, after each epoch

    def measured(*_: Any, **__: Any) -> ConfusionMatrix:
        number, matrix = next(right), ConfusionMatrix(6)
        label = torch.zeros(10, dtype=torch.int64)
        matrix.update((torch.arange(10) >= number).long(), label)
        return matrix

    with monkeypatch.context() as patch:
        patch.setattr(nas.training.session, "evaluate_network", measured)
        result = train(settings(tmp_path), quiet=True)
    assert (result.best_miou, result.last_miou) == pytest.approx((0.45, 0.25))
    best, last = load_trained(result.folder), load_trained(result.folder, "last")
    assert (best.epoch, best.checkpoint.name) == (2, "best.pt")
    assert (last.epoch, last.checkpoint.name) == (3, "checkpoint.pt")
    weights = [trained.network.state_dict() for trained in (best, last)]
    assert not equal(*weights)
    assert not best.network.training
    with pytest.raises(ValueError, match="no checkpoint 'first': choose one of best, last"):
        load_trained(result.folder, "first")


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, run: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, says in ((tmp_path / "none", "is not a folder"), (tmp_path / "empty", r"best\.pt does not exist")):
        with pytest.raises(ValueError, match=says) as raised:
            evaluate(folder)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="there is no split 'all'"):
        evaluate(run, split="all")


def image_file(path: Path, seed: int = 0, size: tuple[int, int] = (37, 50)) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(image).save(path)
    return image


def test_prediction_writes_ids_with_a_palette_and_an_overlay(run: Path, tmp_path: Path) -> None:
    image, out = image_file(tmp_path / "street.png"), tmp_path / "deep" / "out"
    assert predict(run, tmp_path / "street.png", out).written == [out / "street.png"]
    assert {path.name for path in out.iterdir()} == {"street.png", "street_overlay.png"}
    trained = load_trained(run)
    mask = predict_mask(trained, image)
    with Image.open(out / "street.png") as label:
        assert label.mode == "P"  # PIL gives ids of a palette picture, viewers show its colours
        np.testing.assert_array_equal(np.asarray(label), mask)
        np.testing.assert_array_equal(np.asarray(label.convert("RGB")), trained.colors[mask])
    with Image.open(out / "street_overlay.png") as overlay:
        blended = np.asarray(overlay).astype(float)
    assert blended.shape == image.shape
    assert np.abs(blended - (image / 2 + colorize(mask, trained.colors) / 2)).max() <= 0.5


def test_prediction_of_a_folder_takes_its_images_only(run: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "images", tmp_path / "out"
    source.mkdir()
    image_file(source / "b.png", 1, (20, 31))
    image_file(source / "a.jpg", 2, (24, 24))
    (source / "notes.txt").write_text("no image")
    written = predict(run, source, out, which="last").written
    assert written == [out / "a.png", out / "b.png"]
    assert [Image.open(path).size for path in written] == [(24, 24), (31, 20)]
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("a.png", "a_overlay.png")])
def test_two_images_whose_pictures_would_be_one_are_refused(run: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        image_file(tmp_path / name)
    with pytest.raises(ValueError, match=r"would both be written to a.*png: rename one"):
        predict(run, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_are_not_written_over(run: Path, tmp_path: Path) -> None:
    image_file(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(ValueError, match="is the folder of the images: give another folder"):
        predict(run, tmp_path, tmp_path / "." / "")
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_missing_or_broken_image_is_one_line_that_names_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    for name, says in (("none.png", "does not exist"), ("broken.png", "cannot be read"), ("empty", "has no image")):
        with pytest.raises(ValueError, match=f"{name} {says}") as raised:
            predict(run, tmp_path / name, tmp_path / "out")
        assert "\n" not in str(raised.value)


# Optimisers, losses, weights to start from

ADAM = OptimizerConfig(
    lr=0.01,
    name="adam",
    eps=0.01,
    power=0.0,
    decay="dense_convolutions",
    head_lr_multiplier=10.0,
    head_bias_lr_multiplier=20.0,
)
INHIBITED = dataclasses.replace(NETWORK, aspp="li", li_init=(0.001, 0.001))
WEIGHED = LossConfig(class_weights="inverse_log", resolution="logits")


@pytest.mark.parametrize("optimizer", [ADAM, OptimizerConfig(decay="convolutions", clip=5.0)], ids=["adam", "sgd"])
@pytest.mark.parametrize("number", [2, STEPS + 1])
def test_a_run_with_groups_and_class_weights_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: OptimizerConfig, number: int
) -> None:
    config = settings(tmp_path, network=INHIBITED, optimizer=optimizer, loss=WEIGHED, epochs=2)
    straight = train(config, quiet=True).folder
    again = dataclasses.replace(config, out=str(tmp_path / "again"))
    with monkeypatch.context() as patch:
        on_step(patch, number, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(InterruptedRun):
            train(again, quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(retrain.training, "class_shares", None)  # the weights are in the checkpoint
        train(again, resume=tmp_path / "again", quiet=True)
    check_same_run(straight, tmp_path / "again", "retrain")

    saved = load_checkpoint(straight / "checkpoint.pt", "retrain")
    expected = inverse_log(class_shares(count_labels(training_split(config))[: len(training_split(config).classes)]))
    assert torch.equal(saved["class_weights"], expected)
    assert f"class weights: background {expected[0]:.2f}, disc {expected[1]:.2f}" in (straight / "log.txt").read_text()
    groups = saved["stepper"]["optimizer"]["groups"]
    assert {group["weight_decay"] for group in groups} == {0, optimizer.weight_decay}
    assert len(groups) == (5 if optimizer is ADAM else 2)


def test_intensities_are_kept_in_their_range_and_reported(tmp_path: Path) -> None:
    config = settings(tmp_path, network=INHIBITED, optimizer=OptimizerConfig(lr=20.0, clip=5.0), epochs=1)
    folder = train(config, quiet=True).folder
    weights = load_checkpoint(folder / "checkpoint.pt", "retrain")["network"]
    intensities = torch.cat([tensor for name, tensor in weights.items() if name.endswith("intensity")])
    assert intensities.min() >= 0 and intensities.max() <= 1
    assert (intensities != 0.001).any()
    (line,) = read_metrics(folder)
    assert max(value for name, value in line["modules"].items() if name.endswith("max")) == intensities.max().item()


def test_a_run_without_reporting_modules_records_none(run: Path) -> None:
    assert all("modules" not in line for line in read_metrics(run))


COMBINATIONS: dict[str, dict[str, Any]] = {
    "fplnet-encoder": {
        "genotype": "fplnet-encoder",
        "network": NetworkConfig(batch_norm_momentum=0.1),
        "optimizer": OptimizerConfig(0.045, 5e-4),
        "loss": LossConfig(class_weights="inverse_log"),
    },
    "fplnet": {
        "genotype": "fplnet",
        "network": NetworkConfig(),
        "optimizer": dataclasses.replace(ADAM, head_bias_lr_multiplier=None),
    },
    "espnet-c": {"genotype": "espnet-c", "network": NetworkConfig(), "loss": WEIGHED},
    "mnv2-li-aspp": {
        "genotype": "mnv2-li-aspp",
        "network": NetworkConfig(aspp_channels=8, li_init=(0.0, 0.05)),
        "optimizer": ADAM,
        "loss": WEIGHED,
    },
    "genotype as an FPLNet": {
        "network": NetworkConfig(filter_multiplier=2, kind="fplnet"),
        "optimizer": OptimizerConfig(0.01),
    },
    "genotype, smoothed": {
        "network": dataclasses.replace(NETWORK, smoothing="ss_conv"),
        "optimizer": OptimizerConfig(0.002, 1e-4, decay="convolutions", head_lr_multiplier=10.0),
        "loss": LossConfig(resolution="logits"),
    },
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_networks_optimizers_and_losses_go_together(name: str, tmp_path: Path) -> None:
    loader = dataclasses.replace(LOADER, train_limit=4, val_limit=1)
    result = train(settings(tmp_path, **COMBINATIONS[name], epochs=1, loader=loader), quiet=True)
    (line,) = read_metrics(result.folder)
    assert math.isfinite(line["loss"]["training"])
    trained = load_trained(result.folder)
    assert predict_mask(trained, np.zeros((20, 31, 3), dtype=np.uint8)).shape == (20, 31)


def test_frozen_batch_norms_stay_bit_for_bit(run: Path, tmp_path: Path) -> None:
    network = dataclasses.replace(NETWORK, frozen_batch_norm=True)
    folder = train(settings(tmp_path, network=network, init_from=str(run), epochs=1), quiet=True).folder
    before, after = (
        load_checkpoint(f / name, "retrain")["network"] for f, name in ((run, "best.pt"), (folder, "best.pt"))
    )
    built = load_trained(folder).network
    norms = {name for name, module in built.named_modules() if isinstance(module, BatchNorm)}
    assert len(norms) > 5
    for name, tensor in before.items():
        if name.rpartition(".")[0] in norms:
            assert torch.equal(after[name], tensor), name
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())
    trainable = {name for name, parameter in built.named_parameters() if parameter.requires_grad}
    assert trainable and not {name.rpartition(".")[0] for name in trainable} & norms


def test_frozen_batch_norms_of_a_fresh_network_are_refused(tmp_path: Path) -> None:
    network = dataclasses.replace(NETWORK, frozen_batch_norm=True)
    with pytest.raises(ValueError, match=r"needs the statistics of trained weights: give .* --init-from RUN"):
        train(settings(tmp_path, network=network), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_network_starts_from_a_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.pt"
    source.write_bytes((run / "checkpoint.pt").read_bytes())
    config = settings(tmp_path, init_from=str(source), epochs=1)
    straight = train(config, quiet=True).folder
    tensors = len(load_checkpoint(source, "retrain")["network"])
    assert f"starting from {tensors} of {tensors} tensors from {source}\n" in (straight / "log.txt").read_text()
    with monkeypatch.context() as patch:
        on_step(patch, 1, kill)
        with pytest.raises(Killed):
            train(dataclasses.replace(config, out=str(tmp_path / "again")), quiet=True)
    assert equal(
        load_checkpoint(tmp_path / "again" / "checkpoint.pt", "retrain")["network"],
        load_checkpoint(source, "retrain")["network"],
    )
    source.unlink()  # going on needs it no more
    train(dataclasses.replace(config, out=str(tmp_path / "again")), resume=tmp_path / "again", quiet=True)
    check_same_run(straight, tmp_path / "again", "retrain")


def test_what_fits_is_taken_and_the_rest_is_named(run: Path) -> None:
    genotype = run / "genotype.json"
    network = build(genotype, 6, dataclasses.replace(NETWORK, decoder_channels=6))
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_matching(network, run)
    saved = load_checkpoint(run / "best.pt", "retrain")["network"]
    taken = {name for name, tensor in fresh.items() if tensor.shape == saved[name].shape}
    assert report == f"{len(taken)} of {len(saved)} tensors from {run / 'best.pt'}; fresh, wholly or in part: decoder"
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, saved[name] if name in taken else fresh[name]), name


def test_an_encoder_is_taken_into_the_whole_network(tmp_path: Path) -> None:
    encoder, whole = FPLNetEncoder(6, modules=(1, 1)), FPLNet(6, modules=(1, 1))
    save_checkpoint(tmp_path / "best.pt", "retrain", {"network": encoder.state_dict()})
    report = load_matching(whole, tmp_path)
    assert report.endswith("; fresh, wholly or in part: decoder")
    assert equal(whole.get_submodule("encoder").state_dict(), encoder.get_submodule("encoder").state_dict())


def test_weights_that_cannot_be_taken_are_one_line(run: Path, tmp_path: Path) -> None:
    other = build("espnet-c", 6)
    with pytest.raises(
        ValueError, match=r"best\.pt has no weights in common .* its parts are stem, cells, aspp"
    ) as raised:
        load_matching(other, run)
    assert "\n" not in str(raised.value)
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "none.pt", tmp_path / "empty"):
        with pytest.raises(ValueError, match="does not exist"):
            train(settings(tmp_path, init_from=str(source)), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_backbone_starts_from_its_own_file(tmp_path: Path) -> None:
    network = NetworkConfig(aspp_channels=8, backbone_weights=str(tmp_path / "weights.pt"), frozen_batch_norm=True)
    source = build("mnv2-aspp", 3, NetworkConfig(aspp_channels=8)).get_submodule("backbone").state_dict()
    torch.save(source, tmp_path / "weights.pt")
    loader = dataclasses.replace(LOADER, train_limit=2, val_limit=1)
    config = settings(tmp_path, genotype="mnv2-aspp", network=network, loader=loader, epochs=1)
    folder = train(config, quiet=True).folder
    assert "tensors of the backbone from" in (folder / "log.txt").read_text()
    after = load_checkpoint(folder / "checkpoint.pt", "retrain")["network"]
    for name, tensor in source.items():
        if "running" in name:
            assert torch.equal(after[f"backbone.{name}"], tensor)
    (tmp_path / "weights.pt").unlink()
    train(dataclasses.replace(config, epochs=2), resume=folder, quiet=True)
    assert load_trained(folder, "last").epoch == 2


@pytest.mark.parametrize("name", sorted(retrain.config.RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_where_it_comes_from(name: Path) -> None:
    assert retrain.config.recipe(name.stem) != RetrainConfig() or name.stem == "autodeeplab"
    assert name.read_text().startswith("# ")


def test_the_recipes_have_the_numbers_of_the_papers() -> None:
    recipe = retrain.config.recipe
    for name, weight_decay in (("li-mnv2", 4e-5), ("li-resnet50", 1e-4)):
        found = recipe(name)
        optimizer = OptimizerConfig(3e-4, weight_decay, name="adam", eps=1e-2, power=0.0, decay="dense_convolutions")
        assert (found.optimizer, found.epochs) == (optimizer, 120)
        assert (found.loader.batch_size, found.loader.augment) == (16, AugmentConfig((513, 513), scale_step=0.25))
    found = recipe("smoothing")
    assert (found.data, found.loader.train_split) == ("voc2012", "train_aug")
    heads = {"head_lr_multiplier": 10.0, "head_bias_lr_multiplier": 20.0}
    assert found.optimizer == OptimizerConfig(2e-3, 1e-4, decay="convolutions", **heads)  # type: ignore[arg-type]
    assert found.network == NetworkConfig(frozen_batch_norm=True)
    assert (found.loss, found.loader.augment) == (
        LossConfig(resolution="logits"),
        AugmentConfig((321, 321), (0.5, 1.5)),
    )
    assert found.epochs * (10_582 // found.loader.batch_size) == 20_102
    for name, epochs, batch in (("fplnet-encoder", 500, 12), ("fplnet", 1000, 6)):
        found = recipe(name)
        assert (found.optimizer, found.loss) == (OptimizerConfig(0.045, 5e-4), LossConfig(class_weights="inverse_log"))
        assert (found.epochs, found.loader.batch_size, found.loader.resolution) == (epochs, batch, 0.5)
        assert (found.data, found.loader.augment) == ("cityscapes", AugmentConfig((512, 1024)))
    found = recipe("autodeeplab")
    assert (found.data, found.loader.resolution) == ("cityscapes", 1.0)
    assert found.loader.augment == AugmentConfig((769, 769), scale_step=0.25)
