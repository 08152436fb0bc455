"""Files from strangers: nothing in them is executed, nothing outside the run folder is written, sizes have a bound."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
import pickle
import re
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nas.darts import search
from nas.data.caching import TRAILER, DiskCached
from nas.data.readers import Shapes
from nas.runs.checkpoint import CheckpointError, fitting, load_checkpoint, save_checkpoint
from nas.training.optimizers import load_optimizer_state, optimizer_state
from retrain.pretrained import load_backbone_weights
from retrain.training import train
from search_spaces.files import YamlError, read_yaml
from search_spaces.genotype import load_genotype
from search_spaces.space import SearchSpace, SpaceError, load
from search_spaces.validation import to_plain
from tiny import GENOTYPE, SPACE, command, refused, searching, training, without_pictures

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "decoders", "nas", "retrain", "benchmarks", "cli")


# The source


FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("pickle.load", "pickle.Unpickler", "marshal.loads", "marshal.load", "shelve.open", "joblib.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "torch.jit.load"),
}
ALLOWED = {
    ("pickle.loads", "nas/data/prefetch.py"),  # of what the line itself has pickled
    ("torch.load", "nas/runs/checkpoint.py"),  # with weights_only=True: below
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the packages: the name that is called, the file, and the call."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func), path.relative_to(ROOT).as_posix(), node


def test_nothing_that_executes_a_file_is_called() -> None:
    seen = set()
    for name, file, call in calls():
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert name not in FORBIDDEN, (name, file, call.lineno)
        assert keywords.get("allow_pickle", "False") == "False", (file, call.lineno)
        assert keywords.get("shell", "False") == "False", (file, call.lineno)
        if name in ("pickle.loads", "yaml.load", "torch.load"):
            seen.add((name, file))
        if name == "torch.load":
            assert keywords["weights_only"] == "True"
    assert seen == ALLOWED


# Checkpoints and weights


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return train(training(folder, epochs=1), quiet=True).folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        return search(searching(folder, epochs=1), quiet=True).folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    return path


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "stranger"))


FEW = ("--loader.train_limit=8", "--loader.val_limit=2", "--memory_check=off")

USES: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "evaluate": lambda run, image: ("nas-evaluate", run),
    "predict": lambda run, image: ("nas-predict", run, image, "--out", image.parent / "out"),
    "describe": lambda run, image: ("nas-describe", run),
    "resume": lambda run, image: ("nas-retrain", "--resume", run, "--epochs=2", "--quiet"),
    "init_from": lambda run, image: ("nas-retrain", run / "genotype.json", "--init_from", run, "--quiet", *FEW),
    "backbone": lambda run, image: ("nas-describe", "mnv2-aspp", "--network.backbone_weights", run / "best.pt"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("how", ["pickle", "zip", "zip in protocol 4"])
def test_nothing_is_unpickled(trained: Path, image: Path, tmp_path: Path, use: str, how: str) -> None:
    run = copied(trained, tmp_path)
    evil = Malicious(tmp_path / "executed")
    for name in ("checkpoint.pt", "best.pt"):
        if how == "pickle":
            (run / name).write_bytes(pickle.dumps(evil))
        else:
            protocol = 4 if how.endswith("4") else 2
            torch.save({"format": "nas-checkpoint", "evil": evil}, run / name, pickle_protocol=protocol)
    assert "damaged" in refused(*USES[use](run, image))
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out").exists()


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"format": "nas-checkpoint", "version": 1, "kind": "search", "content": content}, buffer)
    return buffer.getvalue()


def rewritten(data: bytes, change: Callable[[zipfile.ZipFile, zipfile.ZipFile], None], compression: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        change(old, new)
    return buffer.getvalue()


def repacked(old: zipfile.ZipFile, new: zipfile.ZipFile) -> None:
    for entry in old.infolist():
        new.writestr(entry.filename, old.read(entry))


def with_a_lie(old: zipfile.ZipFile, new: zipfile.ZipFile) -> None:
    for entry in old.infolist():
        new.writestr(entry.filename, old.read(entry).replace(b"K\x07t", b"J\xff\xff\xff\x7ft"))  # 7 numbers: 2**31 - 1


def overlapping(data: bytes) -> bytes:
    """A zip file whose directory names the same large entry a hundred times."""
    start = data.rindex(b"PK\x05\x06")
    _, _, _, here, total, size, offset, comment = struct.unpack("<4s4H2LH", data[start : start + 22])
    directory = data[offset : offset + size]
    entries = directory.split(b"PK\x01\x02")[1:]
    large = max(entries, key=lambda entry: struct.unpack_from("<L", entry, 20)[0])
    more = (b"PK\x01\x02" + large) * 100
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, here + 100, total + 100, size + len(more), offset, comment)
    return data[:offset] + directory + more + end


def nest(levels: int) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(levels):
        value = [value] * 10
    return value


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (
        lambda: rewritten(saved(torch.zeros(10**7)), repacked, zipfile.ZIP_DEFLATED),
        r"its entries take 40,00\d,\d+ bytes, but the file has \d\d,\d+",
    ),
    "overlapping": (
        lambda: overlapping(rewritten(saved(torch.zeros(10**5)), repacked)),
        r"its entries take 40,\d+,\d+ bytes, but the file has 40\d,\d+",
    ),
    "more numbers claimed": (lambda: rewritten(saved(torch.zeros(7)), with_a_lie), "does not match expected size"),
    "expanded": (lambda: saved(torch.zeros(1).expand(10**12)), r"shape \[1000000000000\] has fewer numbers than that"),
    "bytes": (lambda: saved(Calls(bytearray, 10**11)), "it names __builtin__ bytearray, which is neither a tensor"),
    "a fresh tensor": (lambda: saved(Calls(torch.Tensor, 10**10)), "it names torch Tensor"),
    "sparse": (
        lambda: saved(
            torch.sparse_coo_tensor(torch.zeros(1, 1).long(), torch.ones(1), (10**12,), check_invariants=True)
        ),
        "it names torch._utils _rebuild_sparse_tensor",
    ),
    "without storage": (lambda: saved(torch.empty(10**12, device="meta")), "it names torch._utils _rebuild_meta"),
    "lists of one list": (lambda: saved(nest(9)), "unfolds to more than the file"),
    "a list of itself": (lambda: saved(itself()), "unfolds to more than the file"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_checkpoint_takes_no_more_memory_than_its_file(bomb: str, tmp_path: Path) -> None:
    path, (make, says) = tmp_path / "checkpoint.pt", BOMBS[bomb]
    path.write_bytes(make())
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=says) as raised:
        load_checkpoint(path, "search")
    assert "\n" not in str(raised.value) and time.perf_counter() - began < 2


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_of_a_backbone_are_read_with_the_same_care(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    network = torch.nn.Module()
    network.backbone = torch.nn.Conv2d(1, 2, 3)
    torch.save(network.backbone.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert "2 of 2 tensors" in load_backbone_weights(network, path)
    for evil in (Malicious(tmp_path / "executed"), Calls(bytearray, 10**11)):
        content = {**network.backbone.state_dict(), "evil": evil}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match="damaged, or not a file of weights"):
            load_backbone_weights(network, path)
    assert not (tmp_path / "executed").exists()


def test_state_of_an_optimizer_that_does_not_fit_is_refused() -> None:
    """A fused step on a state of another size reads and writes beyond it: the process would be gone."""
    network = torch.nn.Linear(300, 300)
    for make in (torch.optim.SGD, torch.optim.Adam):
        optimizer: Any = make(network.parameters(), 0.1, **({"momentum": 0.9} if make is torch.optim.SGD else {}))
        network(torch.ones(1, 300)).sum().backward()
        optimizer.step()
        state = optimizer_state(optimizer, network)
        load_optimizer_state(optimizer, network, state)
        key = next(key for key in state["by_name"]["weight"] if key != "step")
        state["by_name"]["weight"][key] = torch.zeros(3)
        with pytest.raises(ValueError, match=rf"the checkpoint's {key} of weight has shape \[3\]"):
            load_optimizer_state(optimizer, network, state)


TAMPERED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("no settings", lambda saved: saved.pop("config"), "does not fit together"),
    ("no weights", lambda saved: saved.pop("network"), "does not fit together"),
    ("other weights", lambda saved: saved["network"].popitem(), "does not fit its own settings"),
    ("wide", lambda saved: saved["config"]["network"].update(aspp_channels=65536), "does not fit its own settings"),
    ("wider", lambda saved: saved["config"]["network"].update(aspp_channels=10**9), "from 1 to 65536"),
    (
        "a crop",
        lambda saved: saved["config"]["loader"]["augment"].update(crop=[10**6, 10**6]),
        "give a whole number from 1 to 16384",
    ),
    ("a batch", lambda saved: saved["config"]["loader"].update(batch_size=10**9), "from 2 to 65536"),
    ("processes", lambda saved: saved["config"]["loader"].update(workers=10**6), "from 0 to 1024"),
    ("a resolution", lambda saved: saved["config"]["loader"].update(resolution=10**6), "up to 4"),
    ("a type", lambda saved: saved["config"].update(precision=["float32"]), "precision is .* give one of"),
    ("a nest", lambda saved: saved["config"].update(data=json.loads("[" * 99 + "]" * 99)), "give a text"),
    ("classes", lambda saved: saved.update(classes=["x"] * 10**4), "its classes cannot be"),
    ("a command to the terminal", lambda saved: saved["classes"].__setitem__(0, "\x1b[2J"), "its classes cannot be"),
    ("colours", lambda saved: saved.update(colors=[[0, 0, 999]] * 6), "its classes cannot be"),
    ("a state", lambda saved: saved.update(state=3), "does not fit together"),
]


@pytest.mark.parametrize(("how", "change", "says"), TAMPERED, ids=[how for how, _, _ in TAMPERED])
def test_a_run_that_is_tampered_with_is_refused_in_one_line(
    trained: Path, image: Path, tmp_path: Path, how: str, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    run = copied(trained, tmp_path)
    content = load_checkpoint(run / "best.pt", "retrain")
    change(content)
    save_checkpoint(run / "best.pt", "retrain", content)
    began = time.perf_counter()
    line = refused("nas-predict", run, image, "--out", tmp_path / "out")
    assert re.search(says, line), line
    assert str(run) in line and not (tmp_path / "out").exists() and time.perf_counter() - began < 5


def test_what_does_not_fit_is_one_line_and_a_lack_of_memory_is_not_hidden() -> None:
    for error in (KeyError("x"), TypeError("a\nb"), RuntimeError("size mismatch\n" * 99), AttributeError("x")):
        with pytest.raises(CheckpointError) as raised, fitting("c.pt"):
            raise error
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
    with pytest.raises(RuntimeError, match="can't allocate"), fitting("c.pt"):
        raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(ValueError, match="as it was"), fitting("c.pt"):
        raise ValueError("as it was")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "checkpoint.pt", "search")
    with pytest.raises(YamlError, match="cannot be read"):
        read_yaml(tmp_path / "checkpoint.pt")


# A cache of samples


def test_a_forged_cache_of_samples_is_neither_unpickled_nor_believed(tmp_path: Path) -> None:
    dataset = Shapes("train", (24, 24), 2)
    path = DiskCached(dataset, tmp_path).path
    good = path.read_bytes()
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    np.testing.assert_array_equal(DiskCached(dataset, tmp_path).read(0)[0], dataset.read(0)[0])
    assert path.read_bytes() == good and not (tmp_path / "executed").exists()
    pixels, trailer = good[: -TRAILER.size - 96], good[-TRAILER.size :]
    for row in ([0, 10**6, 10**6, 10**6, 10**6], [-4, 1, 1, 1, 1], [0, -1, 1, 1, 7], [10**15, 0, 0, 0, 0]):
        start, height, width, label_height, label_width = row
        seen = np.frombuffer(good, np.uint8)[start : start + 3 * height * width + label_height * label_width]
        table = np.array([[*row, zlib.crc32(seen.tobytes())]] * 2, "<i8").tobytes()  # the sum is right
        magic, key, samples, _ = TRAILER.unpack(trailer)
        path.write_bytes(pixels + table + TRAILER.pack(magic, key, samples, zlib.crc32(table)))
        np.testing.assert_array_equal(DiskCached(dataset, tmp_path).read(0)[0], dataset.read(0)[0])


# YAML


OBJECTS = "!!python/object/apply:os.system ['touch {path}']"
LAUGHS = ["&a [x]", *(f"&{b} [{', '.join(['*' + a] * 10)}]" for a, b in pairwise("abcdefghij"))]
MERGES = ["a0: &a0 {k: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40))]
EVIL = {
    "an object": OBJECTS,
    "laughs": f"[{', '.join(LAUGHS)}]",
    "merges": f"{{{', '.join(MERGES)}}}",
    "itself": "&a [*a]",
    "deep": "[" * 1500,
}


@pytest.mark.parametrize("what", EVIL)
def test_yaml_is_plain_values_only(what: str, tmp_path: Path) -> None:
    text = EVIL[what].format(path=tmp_path / "executed") if what == "an object" else EVIL[what]
    began = time.perf_counter()
    file = tmp_path / "file.yaml"
    for name, error in ((f"name: {text}\noperations: [skip]\n", SpaceError), (text, YamlError)):
        file.write_text(name, encoding="utf-8")
        with pytest.raises(error) as raised:
            load(file) if error is SpaceError else read_yaml(file)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
    for arguments in (("--space", file), ("--config", file)):
        assert str(file) in refused("nas-search", *arguments, "--quiet")
    assert not (tmp_path / "executed").exists() and time.perf_counter() - began < 10


def test_a_number_that_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"name: x\noperations: [skip]\nlayers: 0x{'f' * 9000}\n", encoding="utf-8")
    with pytest.raises(SpaceError, match="layers is a number of thousands of digits: give a whole number"):
        load(file)


@pytest.mark.parametrize(
    "setting", ["loader: {class_path: os.system}", "class_path: os.system", "optimizer: other.yaml"]
)
def test_settings_name_no_code(setting: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(setting + "\n", encoding="utf-8")
    refused("nas-search", "--config", tmp_path / "config.yaml", "--quiet")


# Sizes


HUGE: list[tuple[dict[str, Any], str]] = [
    ({"layers": 10**9}, "layers is 1000000000: give a whole number from 1 to 1000"),
    ({"levels": 10**9}, "levels is 1000000000: give"),
    ({"blocks": 10**9}, "blocks is 1000000000: give"),
    ({"filter_multiplier": 10**9}, "filter_multiplier is 1000000000: give"),
    (
        {"stem": {"strides": [2] * 1000}},
        "stem.strides is [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, ...]: give a list of up to 256",
    ),
    ({"stem": {"channels": [10**9, 1]}}, "stem.channels"),
    ({"head": {"reach": [10**9]}}, "head.reach"),
    ({"layers": 1000, "levels": 10, "blocks": 30}, "layers x levels x edges x operations is 14,850,000: expected at"),
    ({"levels": 10, "filter_multiplier": 1024}, r"blocks x filter_multiplier x 2 ** (levels - 1) is 524,288 channels"),
]


@pytest.mark.parametrize(("changes", "says"), HUGE)
def test_a_huge_genotype_or_space_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    data = json.loads(GENOTYPE.to_json())
    data["space"] |= changes
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    for arguments in (("nas-decode", file), ("nas-describe", file), ("nas-retrain", file, "--quiet")):
        assert says in refused(*arguments)
    file.write_text(yaml.safe_dump(data["space"]), encoding="utf-8")
    for arguments in (("nas-describe", "--space", file), ("nas-search", "--space", file, "--quiet")):
        assert says in refused(*arguments)


def test_a_space_that_can_be_decoded_may_be_too_large_for_a_supernet(tmp_path: Path) -> None:
    space = SearchSpace("large", 1000, 5, 9, 1, ("skip", "separable_3x3"))
    file = tmp_path / "space.yaml"
    file.write_text(space.to_yaml(), encoding="utf-8")
    assert load(file) == space
    for arguments in (("nas-describe", "--space", file), ("nas-search", "--space", file, "--quiet", *FEW)):
        assert "is 540,000: expected at most 200,000, with fewer" in refused(*arguments)


# Paths


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\\b", "a\nb", "\x1b[2J", "x" * 101])
def test_the_name_of_a_space_is_no_path(name: str) -> None:
    with pytest.raises(SpaceError, match=r"name is .*: give a text of 1 to 100 characters, without /"):
        dataclasses.replace(SPACE, name=name)


def test_a_runs_settings_cannot_say_where_to_write(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    run, elsewhere = copied(searched, tmp_path), tmp_path / "elsewhere"
    data = yaml.safe_load((run / "config.yaml").read_text())
    data |= {"out": str(elsewhere), "space": str(tmp_path / "no.yaml"), "epochs": 2}
    (run / "config.yaml").write_text(yaml.safe_dump(data))
    before = set(tmp_path.rglob("*"))
    assert command("nas-search", "--resume", run, "--quiet").code == 0
    written = set(tmp_path.rglob("*")) - before
    assert written and all(path.is_relative_to(run) for path in written)


@pytest.mark.parametrize("command", ["nas-search", "nas-retrain"])
@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("weights", lambda saved: saved["supernet" if "supernet" in saved else "network"].popitem()),
        ("settings", lambda saved: saved.pop("config")),
        ("random state", lambda saved: saved["random"].update(torch=torch.zeros(3))),
        ("samples", lambda saved: saved.pop("samples")),
        ("state", lambda saved: saved["state"].update(more=1)),
        ("optimiser", lambda saved: saved["weights" if "weights" in saved else "stepper"].pop("optimizer")),
    ],
)
def test_resuming_a_run_that_is_tampered_with_is_refused_in_one_line(
    searched: Path, trained: Path, tmp_path: Path, command: str, how: str, change: Callable[[dict[str, Any]], object]
) -> None:
    kind = command.removeprefix("nas-")
    run = copied(searched if kind == "search" else trained, tmp_path)
    content = load_checkpoint(run / "checkpoint.pt", kind)
    change(content)
    save_checkpoint(run / "checkpoint.pt", kind, content)
    assert str(run / "checkpoint.pt") in refused(command, "--resume", run, "--epochs=3", "--quiet")


@pytest.mark.parametrize("name", ["log.txt", ".lock"])
def test_a_link_in_place_of_a_file_that_is_opened_is_not_written_to(name: str, searched: Path, tmp_path: Path) -> None:
    run, target = copied(searched, tmp_path), tmp_path / "startup"
    target.write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(target)
    assert f"{name} is a link" in refused("nas-search", "--resume", run, "--epochs=2", "--quiet")
    assert target.read_text() == "mine"


@pytest.mark.parametrize("name", ["genotype.json", "log.txt", "best.pt", "metrics.jsonl", "space.yaml"])
def test_files_of_no_run_are_not_written_over(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(to_plain(searching(tmp_path))))
    assert f"has a {name} that no run there has written" in refused("nas-search", "--config", file, "--quiet")
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_provenance_is_data_only(tmp_path: Path) -> None:
    """What a genotype says of its origin names no file that is read or written."""
    evil = {
        "data": "../../etc/passwd",
        "out": str(tmp_path / "out"),
        "__class__": "os.system",
        "epoch": {"a": [1] * 99},
    }
    file = dataclasses.replace(GENOTYPE, provenance=evil).save(tmp_path / "genotype.json")
    assert load_genotype(file).provenance == evil
    before = set(tmp_path.rglob("*"))
    for arguments in (("nas-decode", file), ("nas-describe", file, "--input=64x64")):
        assert command(*arguments).code == 0
    assert set(tmp_path.rglob("*")) == before
