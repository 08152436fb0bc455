"""ONNX files: equal to PyTorch at any size, checked before they are written, described by a card."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import retrain.export
from nas.evaluation.cost import count_parameters
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from retrain.evaluation import evaluate
from retrain.export import Parity, card_of, compare, export_onnx, open_session, run_session
from retrain.load import load_trained
from retrain.networks import NETWORKS, build
from retrain.networks.published import main_names
from retrain.networks.settings import NetworkConfig
from retrain.prediction import predict_mask
from retrain.training import train
from search_spaces.genotype import Block, load_genotype
from search_spaces.modules import BatchNorm
from search_spaces.operations import NONE, OPERATIONS
from test_cli import Run, assert_refused, call  # noqa: F401 (a fixture)
from test_networks import GENOTYPES, genotype
from test_retrain import settings

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[1]
DOWN_AND_UP = genotype((4, 8, 4), (Block(("l-2", "l-1"), ("atrous_3x3", "skip")),), 2)
INHIBITED = genotype((8,), (Block(("l-2", "l-1"), ("li_atrous_3x3", "fpl")),), 2)
SHAPES = ((1, 64, 96), (2, 75, 101), (3, 33, 50), (1, 7, 5), (2, 1, 2))
"""N, H, W; the last ones are of one pixel at all coarser strides."""


def parities(network: nn.Module, file: Path) -> list[Parity]:
    session = open_session(file, threads=1)
    return [compare(network.eval(), session, shape) for shape in SHAPES]


def stir(network: nn.Module) -> nn.Module:
    """Gives parameters and statistics that are all 0 or all 1 at the start other values: those would hide a fault."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for name, parameter in network.named_parameters():
        if parameter.unique().numel() == 1:  # scales, shifts, intensities, filters and coefficients
            nn.init.uniform_(parameter, 0.1, 0.3 if name.endswith("intensity") else 1.0)
    return network.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch; beside it what was measured with its checkpoint, and what with another."""
    place = tmp_path_factory.mktemp("trained")
    DOWN_AND_UP.save(place / "genotype.json")
    folder = train(settings(place, epochs=1), quiet=True).folder
    evaluate(folder, "test", device="cpu")
    other = evaluate(folder, "val", device="cpu", write=False)
    (folder / "evaluation-val-best.json").write_text(json.dumps({**vars(other), "checkpoint_sha256": "another"}))
    (folder / "evaluation-broken.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX file; the tests that take it do not change it."""
    return export_onnx(run, tmp_path_factory.mktemp("exported") / "new" / "model.onnx").file


# The file


def test_the_file_is_the_network_at_any_size(run: Path, file: Path) -> None:
    found = parities(load_trained(run).network, file)
    assert all(parity.good and parity.difference < 1e-5 for parity in found), found


def test_the_file_stands_alone_and_tells_nothing_of_this_machine(file: Path) -> None:
    assert {path.name for path in file.parent.iterdir()} == {"model.onnx", "model.onnx.json"}
    model = onnx.load(file)
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    (images,), (logits,) = model.graph.input, model.graph.output
    shapes = [[side.dim_param or side.dim_value for side in v.type.tensor_type.shape.dim] for v in (images, logits)]
    assert (images.name, logits.name, shapes) == ("images", "logits", [["N", 3, "H", "W"], ["N", 6, "H", "W"]])
    assert str(ROOT).encode() not in file.read_bytes()


def test_the_card_says_what_the_file_is(run: Path, file: Path) -> None:
    trained, card = load_trained(run), json.loads(card_of(file).read_text())
    assert (card["format"], card["version"], card["file"]) == ("nas-model-card", 1, "model.onnx")
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["checkpoint"] == {
        "file": "best.pt",
        "sha256": hashlib.sha256((run / "best.pt").read_bytes()).hexdigest(),
    }
    assert card["training"] == {"data": "shapes", "seed": 0, "epoch": 1}
    assert (card["classes"], card["colors"]) == (list(trained.classes), trained.colors.tolist())
    assert card["output"] == {"name": "logits", "type": "float32", "shape": ["N", 6, "H", "W"]}
    assert card["genotype"] == json.loads(load_genotype(run / "genotype.json").to_json())
    assert card["settings"]["aspp_channels"] == 8
    assert card["parameters"] == count_parameters(trained.network) and card["multiply_adds"] > 0
    shapes = [(one["images"], one["height"], one["width"]) for one in card["checked"]["shapes"]]
    assert len(shapes) == 3 and max(shapes)[0] == 2 and any(height % 32 and height % 2 for _, height, _ in shapes)
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    assert card["metrics"]["validation"] == json.loads(line)["val"]
    # What was measured with another checkpoint is not this file's.
    (measured,) = card["metrics"]["evaluations"]
    written = json.loads((run / "evaluation-test-best.json").read_text())
    assert measured == {name: written[name] for name in measured} and measured["split"] == "test"
    assert card["versions"].keys() == {"nas-segmentation", "torch", "onnx", "onnxscript", "onnxruntime"}


def test_the_document_s_example_predicts_as_nas_predict_does(
    run: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    for path in (file, card_of(file)):
        shutil.copy(path, tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (41, 53, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "export.md", "exec"), {"__name__": "example"})
    trained = load_trained(run)
    expected = predict_mask(trained, photo)
    assert np.array_equal(np.asarray(Image.open("labels.png")), trained.colors[expected])
    share = (expected == 0).mean()
    assert f"background: {share:.1%} of the picture\n" in capsys.readouterr().out


@pytest.mark.slow
def test_labels_of_the_last_checkpoint_in_another_opset(run: Path, call: Run, tmp_path: Path) -> None:  # noqa: F811
    done = call("nas-export", run, "--onnx", "labels.onnx", "--output=labels", "--checkpoint=last", "--opset=21")
    assert (done.code, done.err) == (0, "")
    assert "2x3x75x101: " in done.out and "opset 21) and labels.onnx.json" in done.out
    card = json.loads(Path("labels.onnx.json").read_text())
    assert card["output"] == {"name": "labels", "type": "uint8", "shape": ["N", "H", "W"]}
    assert (card["opset"], card["checkpoint"]["file"]) == (21, "checkpoint.pt")
    trained = load_trained(run, "last")
    assert all(parity.good for parity in parities(trained.network, Path("labels.onnx")))
    images = torch.rand(2, 3, 9, 13)
    found = run_session(open_session("labels.onnx"), images.numpy())
    with torch.no_grad():
        assert found.dtype == np.uint8 and (found == trained.network(images).argmax(1).numpy()).mean() > 0.99


def test_weights_that_are_too_large_for_a_file_get_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain.export, "LARGEST_FILE", 0)
    network = nn.Conv2d(3, 2, 33).eval()
    retrain.export._save(network, tmp_path / "x.onnx", "logits", 18)
    assert (tmp_path / "x.onnx.data").stat().st_size >= 4 * 3 * 2 * 33**2 > (tmp_path / "x.onnx").stat().st_size
    assert compare(network, open_session(tmp_path / "x.onnx"), (2, 40, 50)).good


# The comparison


class Graph:
    """Stands for an onnxruntime session."""

    def __init__(self, output: np.ndarray) -> None:
        self.output = output
        self.name = "images"

    def get_inputs(self) -> list[Graph]:
        return [self]

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self.output]


class Fixed(nn.Module):
    """Gives the same logits for any images."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.output = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.output


LOGITS = torch.tensor([[0.0, 4.0, 1.0, 0.0], [3.0, 0.0, 0.9, 2.0]])[None, :, None]  # (1, 2, 1, 4); range 4


def test_differences_by_hand() -> None:
    other = LOGITS.clone()
    other[0, 1, 0, 2] += 0.2  # 0.9 -> 1.1: the third of four pixels changes its class
    network: Any = Fixed(LOGITS)
    found = compare(network, Graph(other.numpy()), (1, 1, 4))
    assert (found.difference, found.changed) == (pytest.approx(0.2 / 4), 0.25)
    labels = np.array([[[1, 0, 1, 1]]], dtype=np.uint8)  # the third one's logit is 0.1 below the largest
    found = compare(network, Graph(labels), (1, 1, 4))
    assert (found.difference, found.changed) == (pytest.approx(0.1 / 4), 0.25)
    same = compare(network, Graph(LOGITS.numpy()), (1, 1, 4))
    assert (same.difference, same.changed, same.good) == (0, 0, True)
    flat = compare(Fixed(0 * LOGITS), Graph(0 * LOGITS.numpy()), (1, 1, 4))
    assert flat.good
    broken = compare(Fixed(np.nan * LOGITS), Graph(np.nan * LOGITS.numpy()), (1, 1, 4))
    assert not broken.good
    with pytest.raises(ValueError, match=r"to \(1, 3\), not to \(1, 2, 1, 4\)"):
        compare(network, Graph(np.zeros((1, 3))), (1, 1, 4))


# What goes wrong


def test_a_graph_that_differs_is_not_written(
    run: Path,
    file: Path,
    call: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    saved = load_checkpoint(other / "best.pt", "retrain")
    saved["network"]["decoder.logits.bias"][0] += 0.1
    save_checkpoint(other / "best.pt", "retrain", saved)
    monkeypatch.setattr(retrain.export, "_save", lambda network, draft, *_: shutil.copy(file, draft))
    Path("out").mkdir()
    Path("out/model.onnx").write_text("mine")
    outcome = call("nas-export", other, "--onnx", "out/model.onnx", "--overwrite")
    assert_refused(outcome, "nas-export", "out/model.onnx is not written", "1x3x64x96: ", "of the logits' range")
    assert [path.name for path in Path("out").iterdir()] == ["model.onnx"]
    assert Path("out/model.onnx").read_text() == "mine"


def test_a_full_disk_leaves_what_was_there(
    run: Path,
    call: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(network: nn.Module, draft: Path, *_: object) -> None:
        draft.write_text("half of i")
        raise OSError(errno.ENOSPC, "No space left on device", str(draft))

    monkeypatch.setattr(retrain.export, "_save", fill)
    Path("model.onnx").write_text("mine")
    outcome = call("nas-export", run, "--onnx", "model.onnx", "--overwrite")
    assert_refused(outcome, "nas-export", "nas-export: model.onnx: No space left on device: what was saved before is")
    assert [path.name for path in Path().iterdir()] == ["model.onnx"] and Path("model.onnx").read_text() == "mine"


def test_wrong_use_is_one_line(run: Path, call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def refused(*arguments: object, says: str) -> None:
        assert_refused(call("nas-export", *arguments), "nas-export", says)

    Path("file").write_text("mine")
    Path("empty").mkdir()
    refused(run, says="--onnx is missing: name the file to write")
    refused("nothing", "--onnx=x.onnx", says="nothing is not a folder: name the run folder that nas-retrain wrote")
    refused("empty", "--onnx=x.onnx", says="best.pt does not exist: name a run folder that has a checkpoint")
    refused(run, "--onnx=x.onnx", "--opset=17", says="opset is 17: give a whole number from 18 to 25")
    refused(run, "--onnx=x.onnx", "--output=masks", says="--output is 'masks': expected one of logits, labels")
    refused(run, "--onnx=empty", says="empty is a folder: name a file, such as empty/model.onnx")
    refused(run, "--onnx=file/x.onnx", says="file/x.onnx: ")
    monkeypatch.setattr(retrain.export, "PACKAGES", ("onnx", "nothing_of_this_name"))
    refused(run, "--onnx=x.onnx", says="need nothing_of_this_name: pip install 'nas-segmentation[onnx]'")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "empty"}


# Networks

SMALL = {"filter_multiplier": 2, "stem_channels": (4, 4), "aspp_channels": 4, "decoder_channels": 4}
LI = {"li_init": (0.1, 0.3)}


def exported(network: nn.Module, folder: Path) -> list[Parity]:
    retrain.export._save(network, folder / "x.onnx", "logits", 18)
    return parities(network, folder / "x.onnx")


REPRESENTATIVE = {
    "LI-ASPP": (INHIBITED, NetworkConfig(**SMALL, **LI, aspp="li", smoothing="average")),
    "FPLNet-style": (genotype((4,), DOWN_AND_UP.cell, 1), NetworkConfig(kind="fplnet", filter_multiplier=2)),
}


@pytest.mark.parametrize("name", ["LI-ASPP", pytest.param("FPLNet-style", marks=pytest.mark.slow)])
def test_networks_export(name: str, tmp_path: Path) -> None:
    source, config = REPRESENTATIVE[name]
    found = exported(stir(build(source, 5, config)), tmp_path)
    assert all(parity.difference < 1e-5 for parity in found), found


@pytest.mark.slow
@pytest.mark.parametrize("name", main_names())
def test_every_published_network_exports(name: str, tmp_path: Path) -> None:
    found = exported(stir(build(name, NETWORKS[name].classes)), tmp_path)
    assert all(parity.difference < 1e-5 for parity in found), found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deeplab", "fplnet"])
@pytest.mark.parametrize("name", GENOTYPES)
def test_every_genotype_exports(name: str, kind: Any, tmp_path: Path) -> None:
    config = NetworkConfig(**SMALL) if kind == "deeplab" else NetworkConfig(kind="fplnet", filter_multiplier=2)
    found = exported(stir(build(GENOTYPES[name], 3, config)), tmp_path)
    assert all(parity.difference < 1e-5 for parity in found), found


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", ["average", "gaussian", "ss_conv", "g_interact", "aggregated"])
def test_every_smoothing_exports(smoothing: Any, tmp_path: Path) -> None:
    network = build(INHIBITED, 3, NetworkConfig(**SMALL, smoothing=smoothing))
    found = exported(stir(network), tmp_path)
    assert all(parity.difference < 1e-5 for parity in found), found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != NONE])
def test_every_operation_exports(name: str, tmp_path: Path) -> None:
    cell = (Block(("l-2", "l-1"), (name, name)), Block(("block1", "l-1"), (name, "skip")))  # with and without a stride
    source = genotype((4, 8), cell, 2)
    found = exported(stir(build(source, 3, NetworkConfig(**SMALL))), tmp_path)
    assert all(parity.difference < 1e-5 for parity in found), found
