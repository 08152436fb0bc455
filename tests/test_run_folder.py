"""Files, run folders, checkpoints; settings and what they refuse; random states, schedules, loss, steps by hand."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from nas.config import (
    ArchitectureConfig,
    AugmentConfig,
    CosineSgdConfig,
    HealthConfig,
    LoaderConfig,
    NormalisationConfig,
    RunConfig,
    SampledConfig,
    SearchConfig,
    SupernetConfig,
)
from nas.data.splits import steps_per_epoch
from nas.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from nas.runs.folder import RunFolder, check_resumable, new_folder, read_metrics
from nas.runs.names import COMMANDS, command_of, read_config
from nas.training.devices import choose_device, random_state, restore_random_state, seed_everything
from nas.training.losses import NonFiniteLossError, check_finite, cross_entropy
from nas.training.optimizers import cosine, poly
from nas.training.step import Execution, Stepper
from retrain.config import LossConfig, OptimizerConfig, RetrainConfig
from retrain.networks.settings import NetworkConfig
from search_spaces.files import write_atomically
from search_spaces.validation import differences, from_plain, to_plain

CPU = torch.device("cpu")


class FullDisk(io.FileIO):
    """A file on a disk that has room for 100 bytes more."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100:
            super().write(bytes(data)[: max(0, 100 - self.tell())])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = Path.open

    def open_full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return FullDisk(path, mode) if mode == "wb" else really_open(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", open_full)


def test_label_ids_survive_json() -> None:
    config = LoaderConfig(ids={0: 0, 255: 1})
    assert from_plain(LoaderConfig, json.loads(json.dumps(to_plain(config)))) == config


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    for content in ("text ä", b"bytes", lambda file: file.write(b"written")):
        assert write_atomically(path, content) == path
    assert path.read_bytes() == b"written"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError(), KeyboardInterrupt()]
)
def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    def fails_half_way(file: Any) -> None:
        file.write(b"half of it")
        file.flush()
        raise failure

    path = write_atomically(tmp_path / "file.txt", "old")
    with pytest.raises(type(failure)):
        write_atomically(path, fails_half_way)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # no rubbish is left beside it


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomically(path, "new" * 100),
        lambda path: save_checkpoint(path, "search", {"weights": torch.zeros(1000)}),
    ],
    ids=["text", "checkpoint"],
)
def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    path = write_atomically(tmp_path / "file", "old")
    fill_the_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left") as raised:
        write(path)
    assert raised.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, "search", {"epoch": 1})
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(path, "search", {"epoch": 2})
    assert load_checkpoint(path, "search")["epoch"] == 1


CONTENT = {"numbers": [1, 2.5, None, True, float("inf")], "nested": {"text": "ä", "tensor": torch.arange(6).view(2, 3)}}


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", "search", CONTENT)
    loaded = load_checkpoint(tmp_path / "c.pt", "search")
    assert loaded["numbers"] == CONTENT["numbers"]
    assert torch.equal(loaded["nested"]["tensor"], torch.arange(6).view(2, 3))
    assert (loaded["format"], loaded["version"], loaded["kind"]) == ("nas-checkpoint", 1, "search")


def checkpoint_error(path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path, "search")
    text = str(raised.value)
    assert "\n" not in text and str(path) in text
    return text


def test_files_that_are_no_checkpoint_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    assert "does not exist" in checkpoint_error(path)
    torch.save([1, 2], path)
    assert "is not a checkpoint of this toolkit" in checkpoint_error(path)
    torch.save({"format": "nas-checkpoint", "version": 2, "kind": "search"}, path)
    assert "this release reads version 1" in checkpoint_error(path)
    save_checkpoint(path, "retrain", {})
    assert "of a retrain run: name the folder of a search run" in checkpoint_error(path)
    assert "cannot be read" in checkpoint_error(tmp_path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_checkpoint_never_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    torch.save({"format": "nas-checkpoint", "version": 1, "kind": "search", **CONTENT}, buffer)
    content = bytearray(buffer.getvalue())
    path = tmp_path / "c.pt"
    if data.draw(st.booleans(), "cut"):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        assert "damaged" in checkpoint_error(path)
        return
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert isinstance(load_checkpoint(path, "search"), dict)  # the byte may be padding, or part of a number
    except CheckpointError as error:
        assert "\n" not in str(error)


def folder_of(path: Path, epoch: int = 0) -> RunFolder:
    return RunFolder(path, SearchConfig(), epoch, quiet=True)


def test_metrics_lines_of_epochs_to_come_are_dropped_on_resume(tmp_path: Path) -> None:
    with folder_of(tmp_path) as run:
        for epoch in range(4):
            run.record(epoch, {"loss": {"weights": epoch + 0.1}, "strides": [4, 8]})
    with folder_of(tmp_path, 2) as run:
        assert [line["epoch"] for line in read_metrics(tmp_path)] == [0, 1]
        run.record(2, {"loss": {"weights": 1 / 3}})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert lines[0] == {"epoch": 0, "loss": {"weights": 0.1}, "strides": [4, 8]}
    assert lines[2]["loss"]["weights"] == 1 / 3  # numbers are written in full


def test_a_metrics_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0, "a": 1}\n' + "[" * 9**5 + '\n{"epoch": 1, "a')
    assert read_metrics(tmp_path) == [{"epoch": 0, "a": 1}]
    with folder_of(tmp_path, 1) as run:
        run.record(1, {"a": 2})
    assert read_metrics(tmp_path) == [{"epoch": 0, "a": 1}, {"epoch": 1, "a": 2}]
    assert read_metrics(tmp_path / "none") == []


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.abc.tmp").write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_bytes(b"mine")
    with folder_of(tmp_path):
        pass
    assert [path.name for path in tmp_path.glob(".*")] == [".mine.tmp"]


def test_a_closed_folder_logs_no_more(tmp_path: Path) -> None:
    with folder_of(tmp_path) as run:
        run.log.info("inside")
    run.log.info("outside")
    log = (tmp_path / "log.txt").read_text()
    assert "inside" in log and "outside" not in log


def test_new_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("runs/search", "runs/search-2", "runs/search-3"):
        folder = new_folder(RunConfig(), "search")
        assert folder == Path(expected)
        folder.mkdir(parents=True)


def test_a_folder_that_is_asked_for_must_be_free(tmp_path: Path) -> None:
    config = RunConfig(out=str(tmp_path / "run"))
    assert new_folder(config, "name") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert new_folder(config, "name") == tmp_path / "run"  # it holds no run
    with folder_of(tmp_path / "run"):
        pass
    with pytest.raises(ValueError, match="holds a run already: resume it with --resume"):
        new_folder(config, "name")
    with pytest.raises(ValueError, match=r"notes\.txt is a file: choose another --out"):
        new_folder(RunConfig(out=str(tmp_path / "run" / "notes.txt")), "name")


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "has no config.yaml"), (b"a: [", "not readable"), (b"\xff\xfe\xfa", "not readable"), (b"- 1", "list")],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=says) as raised:
        read_config(tmp_path)
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


CONFIGS = [
    SearchConfig(),
    SearchConfig(
        data="camvid",
        data_root="/data",
        loader=LoaderConfig(
            resolution=0.5, train_limit=3, cache="memory", augment=AugmentConfig((65, 97), (0.75, 1.5), False)
        ),
        precision="bfloat16",
        blocks=2,
        optimizer=CosineSgdConfig(0.1, clip=5.0, lr_end=0.01),
        architecture=ArchitectureConfig(0.01, start_epoch=3),
    ),
    RetrainConfig(),
    RetrainConfig(
        genotype="auto-deeplab-m",
        network=NetworkConfig(filter_multiplier=8, stem_channels=(4, 8)),
        optimizer=OptimizerConfig(power=1.0),
    ),
    RetrainConfig(
        genotype="li-mnv2-aspp",
        network=NetworkConfig(li_blocks=(13, 16), li_init=(0.0, 0.05)),
        init_from="runs/encoder",
        optimizer=OptimizerConfig(
            1e-3, 0.1, name="adam", eps=0.01, power=0.0, decay="convolutions", head_bias_lr_multiplier=20.0
        ),
        loss=LossConfig(class_weights="inverse_log", resolution="logits"),
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_come_back_from_yaml_and_checkpoints_as_they_were(config: RunConfig, tmp_path: Path) -> None:
    plain = to_plain(config)
    assert from_plain(type(config), plain) == config
    assert from_plain(type(config), yaml.safe_load(yaml.safe_dump(plain))) == config
    with RunFolder(tmp_path, config, quiet=True):
        assert from_plain(type(config), read_config(tmp_path)) == config
    save_checkpoint(tmp_path / "c.pt", "search", {"config": plain})
    assert differences(load_checkpoint(tmp_path / "c.pt", "search")["config"], plain) == []


def test_every_kind_of_run_has_its_command() -> None:
    kinds = [config for config in RunConfig.__subclasses__() if not config.__module__.startswith("test")]
    assert sorted(config.command for config in kinds) == sorted(COMMANDS)


@pytest.mark.parametrize("config", [SearchConfig, RetrainConfig])
def test_a_run_folder_says_which_command_made_it(config: type[RunConfig], tmp_path: Path) -> None:
    assert config.command in COMMANDS
    with RunFolder(tmp_path, config(), quiet=True):
        assert (tmp_path / "config.yaml").read_text().startswith(f"command: {config.command}\n")
    assert command_of(tmp_path) == config.command
    assert "command" not in read_config(tmp_path)


@pytest.mark.parametrize("first_line", ["", "command: nas-predict\n", "command: [nas-search]\n"])
def test_a_run_folder_that_does_not_say_it_is_refused(first_line: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"{first_line}epochs: 3\n")
    for read in (command_of, read_config):
        with pytest.raises(
            ValueError, match=r"config\.yaml does not name the command .*`command: nas-search`"
        ) as error:
            read(tmp_path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"epoch": 3}, "unknown setting epoch: give one of data, "),
        ({"loader": {"augment": {"corp": [1, 1]}}}, "unknown setting loader.augment.corp: give one of crop, scale"),
        ({"loader": 3}, "loader is 3: give `name: value`, one a line"),
        ([1], "the content is [1]: give `name: value`, one a line"),
        ({"epochs": "many"}, "epochs is 'many': give a whole number"),
        ({"epochs": 2.0}, "epochs is 2.0: give a whole number"),
        ({"epochs": True}, "epochs is true: give a whole number"),
        ({"seed": 1 << 20_000}, "seed is a number of thousands of digits: give a whole number"),
        ({"data": ["shapes"]}, "data is ['shapes']: give a text"),
        ({"optimizer": {"lr": None}}, "optimizer.lr is null: give a finite number"),
        ({"optimizer": {"clip": "1e-3"}}, "optimizer.clip is '1e-3': give a finite number, or null"),
        ({"loader": {"augment": {"crop": [9, 9, 9]}}}, "loader.augment.crop is [9, 9, 9]: give a list of 2"),
        ({"loader": {"augment": {"crop": [[9], 9]}}}, "loader.augment.crop[0] is [9]: give a whole number"),
        ({"supernet": {"graphs": 1}}, "supernet.graphs is 1: give true or false"),
        ({"precision": 32}, "precision is 32: give one of float32, tf32, "),
        ({"loader": {"cache": True}}, "loader.cache is true: give one of none, memory, disk"),
        ({"epochs": 0}, "epochs is 0: give a whole number from 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(data: object, says: str) -> None:
    with pytest.raises(ValueError) as raised:
        from_plain(SearchConfig, data)
    assert str(raised.value).startswith(says) and "\n" not in str(raised.value)


NAN = float("nan")
RGB = NormalisationConfig(mean=(1.0, 2.0, 3.0), std=(1.0,))
REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (HealthConfig, {"gap_batches": -1}, "health.gap_batches is -1:"),
    (HealthConfig, {"stop_when_stable": 0}, "health.stop_when_stable is 0:"),
    (SampledConfig, {"top": 0}, "sampled.top is 0:"),
    (SampledConfig, {"evolve": -1}, "sampled.evolve is -1:"),
    (SampledConfig, {"fairness": "some"}, "sampled.fairness is 'some': give one of none, strict"),
    (ArchitectureConfig, {"beta_decay": -1}, "architecture.beta_decay is -1:"),
    (ArchitectureConfig, {"zero_one": 1}, "architecture.zero_one is 1, but is for architecture.sampling sigmoid:"),
    (CosineSgdConfig, {"lr": 0}, "optimizer.lr is 0:"),
    (CosineSgdConfig, {"lr": NAN}, "optimizer.lr is nan:"),
    (CosineSgdConfig, {"momentum": 1}, "optimizer.momentum is 1:"),
    (CosineSgdConfig, {"momentum": -0.1}, "optimizer.momentum is -0.1:"),
    (CosineSgdConfig, {"weight_decay": -1e-3}, "optimizer.weight_decay is -0.001:"),
    (CosineSgdConfig, {"clip": 0}, "optimizer.clip is 0:"),
    (CosineSgdConfig, {"lr": 0.1, "lr_end": 0.2}, "optimizer.lr_end is 0.2: give a number from 0 to 0.1, the lr"),
    (CosineSgdConfig, {"lr_end": -0.1}, "optimizer.lr_end is -0.1:"),
    (SupernetConfig, {"engine": "slow"}, "supernet.engine is 'slow': give one of plain, fast"),
    (OptimizerConfig, {"lr": -1}, "optimizer.lr is -1:"),
    (OptimizerConfig, {"power": -0.1}, "optimizer.power is -0.1:"),
    (OptimizerConfig, {"name": "lamb"}, "optimizer.name is 'lamb': give one of sgd, adam"),
    (OptimizerConfig, {"decay": "some"}, "optimizer.decay is 'some': give one of all, convolutions, dense_conv"),
    (OptimizerConfig, {"name": "adam", "eps": 0}, "optimizer.eps is 0:"),
    (OptimizerConfig, {"eps": 1e-2}, "optimizer.eps is 0.01, but optimizer.name is sgd, which has none:"),
    (OptimizerConfig, {"head_lr_multiplier": 0}, "optimizer.head_lr_multiplier is 0:"),
    (OptimizerConfig, {"head_bias_lr_multiplier": -1}, "optimizer.head_bias_lr_multiplier is -1:"),
    (LossConfig, {"class_weights": "median"}, "loss.class_weights is 'median': give one of none, inverse_log"),
    (LossConfig, {"resolution": "half"}, "loss.resolution is 'half': give one of image, logits"),
    (
        RetrainConfig,
        {"init_from": "a", "network": NetworkConfig(backbone_weights="b")},
        "init_from is 'a' and network.backbone_weights is 'b', but a network starts from one of them: leave the other",
    ),
    (ArchitectureConfig, {"lr": 0}, "architecture.lr is 0:"),
    (ArchitectureConfig, {"weight_decay": -1}, "architecture.weight_decay is -1:"),
    (ArchitectureConfig, {"start_epoch": -1}, "architecture.start_epoch is -1:"),
    (LoaderConfig, {"resolution": 0}, "loader.resolution is 0:"),
    (LoaderConfig, {"channels": 0}, "loader.channels is 0:"),
    (LoaderConfig, {"exif": "turned"}, "loader.exif is 'turned': give one of turn, ignore"),
    (LoaderConfig, {"ids": {0: 256}}, "loader.ids is {0: 256}: give the id, 0 to 255, of each value"),
    (
        LoaderConfig,
        {"channels": 4, "normalisation": RGB},
        "loader.normalisation.mean has 3 entries, and loader.channels is 4:",
    ),
    (NormalisationConfig, {"std": (0.0,)}, "loader.normalisation.std[0] is 0"),
    (NormalisationConfig, {"range": (2.0, 1.0)}, "loader.normalisation.range is [2, 1]: the lower value comes first"),
    (NormalisationConfig, {"mean": (1.0,)}, "give either mean and std, or range"),
    (LoaderConfig, {"resolution": 4.5}, "loader.resolution is 4.5:"),
    (LoaderConfig, {"workers": -1}, "loader.workers is -1:"),
    (LoaderConfig, {"prefetch": -1}, "loader.prefetch is -1:"),
    (LoaderConfig, {"prefetch": 0, "workers": 2}, "loader.prefetch is 0, but loader.workers is 2, and workers are"),
    (LoaderConfig, {"cache": "ram"}, "loader.cache is 'ram': give one of none, memory, disk"),
    (LoaderConfig, {"batch_size": 1}, "loader.batch_size is 1:"),
    (LoaderConfig, {"train_limit": 0}, "loader.train_limit is 0:"),
    (LoaderConfig, {"val_limit": 0}, "loader.val_limit is 0:"),
    (AugmentConfig, {"crop": (0, 3)}, "loader.augment.crop[0] is 0:"),
    (AugmentConfig, {"crop": (3,)}, "loader.augment.crop is (3,):"),
    (AugmentConfig, {"crop": (3.0, 3)}, "loader.augment.crop[0] is 3.0:"),
    (AugmentConfig, {"scale": (0.0, 1.0)}, "loader.augment.scale[0] is 0.0:"),
    (AugmentConfig, {"scale": (1.0, math.inf)}, "loader.augment.scale[1] is inf:"),
    (
        AugmentConfig,
        {"scale": (2.0, 1.0)},
        "loader.augment.scale is [2.0, 1.0]: the smaller factor comes first",
    ),
    (RunConfig, {"epochs": 0}, "epochs is 0:"),
    (RunConfig, {"seed": -1}, "seed is -1:"),
    (RunConfig, {"seed": 2**32}, "seed is 4294967296:"),
    (RunConfig, {"precision": "float8"}, "precision is 'float8': give one of float32, tf32, bfloat16, float16"),
    (NetworkConfig, {"filter_multiplier": 0}, "network.filter_multiplier is 0:"),
    (NetworkConfig, {"stem_channels": (4,)}, "network.stem_channels has 1 entries:"),
    (NetworkConfig, {"stem_channels": (4, 0)}, "network.stem_channels[1] is 0:"),
    (NetworkConfig, {"aspp_channels": 0}, "network.aspp_channels is 0:"),
    (NetworkConfig, {"decoder_channels": 2.5}, "network.decoder_channels is 2.5:"),
    (NetworkConfig, {"low_level_channels": True}, "network.low_level_channels is true:"),
    (NetworkConfig, {"dropout": 1}, "network.dropout is 1:"),
    (NetworkConfig, {"drop_path_keep": 0}, "network.drop_path_keep is 0:"),
    (NetworkConfig, {"batch_norm_momentum": 0}, "network.batch_norm_momentum is 0:"),
]


@pytest.mark.parametrize(("config", "values", "says"), REFUSED)
def test_a_value_outside_its_limits_is_named(config: type, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as raised:
        config(**values)
    assert str(raised.value).startswith(says) and "\n" not in str(raised.value)


def test_every_settings_class_has_refusals_tested() -> None:
    # Classes are found by walking the settings, so that a new one is noticed.
    def classes(config: Any) -> set[type]:
        parts = [getattr(config, f.name) for f in dataclasses.fields(config)]
        return {type(config)}.union(*(classes(part) for part in parts if dataclasses.is_dataclass(part)))

    found = classes(SearchConfig()) | classes(RetrainConfig())
    tested = {config for config, _, _ in REFUSED}
    assert {config for config in found if not config.__subclasses__()} - tested == {SearchConfig}
    assert RunConfig in tested  # whose limits it inherits


def test_differences_names_settings_by_their_path() -> None:
    first = to_plain(SearchConfig())
    second = to_plain(SearchConfig(seed=1, loader=LoaderConfig(augment=AugmentConfig(flip=False))))
    assert differences(first, second) == ["loader.augment.flip", "seed"]
    assert differences({"a": 1}, {"b": 1}) == ["a", "b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 9},
        {"device": "cpu"},
        {"out": "x"},
        {"data_root": "y"},
        {"loader": LoaderConfig(workers=2, prefetch=3, cache="disk")},
    ],
)
def test_settings_that_make_no_other_run_may_change(changes: dict[str, Any]) -> None:
    saved = {"config": to_plain(RunConfig()), "samples": 5, "state": {"epoch": 9}}
    changed = dataclasses.replace(RunConfig(), **changes)
    check_resumable(saved, changed, 5)
    assert differences(saved["config"], to_plain(changed))  # they did change
    with pytest.raises(ValueError, match="begun on 5 training images, but there are 4 now"):
        check_resumable(saved, changed, 4)


def test_a_run_does_not_go_on_to_where_it_has_been() -> None:
    saved = {"config": to_plain(RunConfig()), "samples": 5, "state": {"epoch": 6}}
    check_resumable(saved, RunConfig(epochs=6), 5)
    with pytest.raises(ValueError, match="has 6 epochs already, more than --epochs 5: give more"):
        check_resumable(saved, RunConfig(epochs=5), 5)


def test_random_states_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    def draw() -> list[Any]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()]

    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    save_checkpoint(tmp_path / "c.pt", "search", {"random": random_state()})
    following = [draw(), draw()]
    seed_everything(0)
    assert draw() != following[0]
    restore_random_state(load_checkpoint(tmp_path / "c.pt", "search")["random"])
    assert [draw(), draw()] == following  # the spare normal numbers of Python and NumPy included


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99", ""])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{name}'") as raised:
        choose_device(name)
    assert "\n" not in str(raised.value)
    assert choose_device("cpu") == CPU


def test_cosine_schedule_by_hand() -> None:
    assert cosine(0, 0.1, 0.02) == pytest.approx(0.1)
    assert cosine(0.25, 0.1, 0.02) == pytest.approx(0.02 + 0.08 * (1 + math.sqrt(0.5)) / 2)
    assert cosine(0.5, 0.1, 0.02) == pytest.approx(0.06)
    assert cosine(1, 0.1, 0.02) == pytest.approx(0.02)


def test_poly_schedule_by_hand() -> None:
    assert poly(0, 0.1) == pytest.approx(0.1)
    assert poly(0.75, 0.1, 0.5) == pytest.approx(0.05)
    assert poly(0.5, 0.1, 2) == pytest.approx(0.025)
    assert poly(1, 0.1) == 0
    assert [poly(progress, 0.1, 0) for progress in (0, 0.5, 1)] == [0.1, 0.1, 0.1]  # constant
    assert poly(0.5, 0.045) == pytest.approx(0.024115, abs=5e-7)


def test_cross_entropy_by_hand() -> None:
    # Three pixels, two classes: probabilities 1/2, 3/4 and 1/4 of the labelled class; a fourth one is ignored.
    logits = torch.log(torch.tensor([[1.0, 3.0, 1.0, 9.0], [1.0, 1.0, 3.0, 1.0]])).view(1, 2, 2, 2)
    labels = torch.tensor([[[0, 0], [0, 255]]])
    expected = (math.log(2) + math.log(4 / 3) + math.log(4)) / 3
    assert float(cross_entropy(logits, labels)) == pytest.approx(expected)


def test_a_batch_without_labels_has_loss_and_gradient_zero() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named(value: float) -> None:
    assert check_finite(torch.tensor(1.5), "term", "here") == 1.5
    with pytest.raises(NonFiniteLossError, match=f"the term is {value} at here: lower the learning rate"):
        check_finite(torch.tensor(value), "term", "here")


def test_steps_per_epoch_drop_the_last_incomplete_batch() -> None:
    assert [steps_per_epoch(samples, 4) for samples in (4, 7, 8)] == [1, 1, 2]
    with pytest.raises(ValueError, match=r"3 training images .* fewer than the 4 of one update"):
        steps_per_epoch(3, 4)


class Affine(nn.Module):
    """One weight and one weight that the optimiser does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 1, 1))
        self.other = nn.Parameter(torch.zeros(2, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight + self.other) * x[:, :2]


@pytest.mark.parametrize(("clip", "length"), [(None, 10 / math.sqrt(2)), (100.0, 10 / math.sqrt(2)), (0.5, 0.5)])
def test_a_step_by_hand(clip: float | None, length: float) -> None:
    # Two classes at probability 1/2, input 10, label 0: the gradient is (-5, 5), the step of rate 1 is (5, -5).
    network = Affine()
    stepper = Stepper("test", network, torch.optim.SGD([network.weight], 1.0), Execution(CPU), clip=clip)
    loss = stepper.step(torch.full((2, 3, 1, 1), 10.0), torch.zeros(2, 1, 1, dtype=torch.int64), "here")
    assert loss == pytest.approx(math.log(2))
    step = network.weight.detach().flatten()
    assert float(step.norm()) == pytest.approx(length, rel=1e-5)
    assert float(step[0]) == pytest.approx(-float(step[1])) and step[0] > 0
    assert network.other.grad is None and not network.other.any()  # only the optimiser's own get gradients


def test_a_stepper_goes_on_from_its_state() -> None:
    def run(steps: int, state: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        network = Affine()
        optimizer = torch.optim.SGD([network.weight], 0.1, momentum=0.9)
        stepper = Stepper("test", network, optimizer, Execution(CPU))
        if state is not None:
            network.load_state_dict(state[0])
            stepper.load_state_dict(state[1])
        stepper.lr = 0.05
        for _ in range(steps):
            stepper.step(torch.ones(2, 3, 1, 1), torch.zeros(2, 1, 1, dtype=torch.int64), "here")
        assert stepper.lr == 0.05
        return network.state_dict(), stepper.state_dict()

    straight, resumed = run(5), run(3, run(2))
    assert torch.equal(straight[0]["weight"], resumed[0]["weight"])
    assert not torch.equal(straight[0]["weight"], run(3, (run(2)[0], run(0)[1]))[0]["weight"])  # momentum matters
