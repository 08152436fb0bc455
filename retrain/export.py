"""Export of a trained network as an ONNX file, compared with PyTorch before it is written, with a model card.

The exporter is that of `torch.export`: it keeps sizes symbolic, so that one graph serves all of them, and handles every
module here. (The older one, by tracing, takes a tenth of the time. It is deprecated, and it exports neither lateral
inhibitions nor smoothed convolutions.)

Shapes: N images of H x W pixels; none of the three is fixed in the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.evaluation.cost import channels_of, measure
from nas.runs.folder import read_metrics
from retrain.load import TrainedNetwork, genotype_source, load_trained
from search_spaces.files import MARK, check_replaceable, temporary_beside, write_atomically
from search_spaces.genotype import Genotype, load_genotype, package_version
from search_spaces.validation import as_path, to_plain

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = [
    "ExportError",
    "Exported",
    "OPSETS",
    "OUTPUTS",
    "Parity",
    "card_of",
    "compare",
    "export_onnx",
    "make_card",
    "need_packages",
    "open_session",
    "run_session",
]

INPUT = "images"
OUTPUTS = ("logits", "labels")
OPSETS = range(18, 26)
"""The exporter's own opset, 18, and those to which its graphs can be converted."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FATAL = 4
"""Log level of onnxruntime: failures are raised as exceptions anyway."""

EXAMPLE = (2, 519, 775)
"""N, H, W; only shapes matter. Every feature has sides above 1: torch.export takes a side of 1 for fixed."""
CHECKED = ((1, 64, 96), (2, 75, 101), (1, 129, 193))
"""N, H, W of the images on which the file is compared with PyTorch."""
DIFFERENCE = 1e-4
"""Largest difference allowed, as a share of the logits' range; rounding gives about 1e-6."""
CHANGED = 1e-3
"""Largest share of pixels allowed to change their class, where two classes are nearly equal."""
LARGEST_FILE = 2_000_000_000
"""Bytes of weights that one file can hold; with more, they go into FILE.data."""


class ExportError(ValueError):
    """A failed export, with a message of one line; no file was changed."""


@dataclass(frozen=True)
class Parity:
    """Difference between onnxruntime and PyTorch on a batch of N `images` of H x W pixels."""

    images: int
    height: int
    width: int
    difference: float
    """Largest difference of a logit, as a share of the logits' range. For labels: the difference between the largest
    logit and that of the label."""
    changed: float
    """Share of the pixels whose class differs, 0 to 1."""
    channels: int = 3

    @property
    def good(self) -> bool:
        """Whether both are within their limits; NaN is not."""
        return self.difference <= DIFFERENCE and self.changed <= CHANGED

    def __str__(self) -> str:
        return (
            f"{self.images}x{self.channels}x{self.height}x{self.width}: {self.difference:.1e} of the logits' range, "
            f"{100 * self.changed:.3g} % of the pixels change their class"
        )


@dataclass(frozen=True)
class Exported:
    """Files of an export: the ONNX file and its model card."""

    file: Path
    card: Path
    facts: dict[str, Any]
    """Content of the card."""
    parity: list[Parity]
    """One entry for each shape of `CHECKED`."""


class _Labels(nn.Module):
    """Images (N, C, H, W) -> the class of each pixel, uint8 (N, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).argmax(dim=1).to(torch.uint8)


def export_onnx(
    run: str | Path,
    file: str | Path,
    which: str = "best",
    output: str = "logits",
    opset: int = OPSETS[0],
    overwrite: bool = False,
) -> Exported:
    """Writes the network of a retraining run as an ONNX file, and FILE.json, its model card.

    The graph maps `images`, float32 (N, C, H, W), to `logits`, float32 (N, classes, H, W), or to `labels`,
    uint8 (N, H, W). It is run in onnxruntime on the CPU at the shapes of `CHECKED`; if it differs from PyTorch there,
    nothing is written. Files that were there before stay until the new ones are complete.

    Args:
        run: The run folder.
        file: The ONNX file; its folder is made if it is missing.
        which: "best" (highest validation mIoU) or "last".
        output: "logits" or "labels".
        opset: Version of ONNX's operators, one of `OPSETS`.
        overwrite: Replace files, too, that were not written by this function.

    Raises:
        ExportError: An argument is wrong, a package is missing, or the graph differs; one line.
        ValueError: The run or its checkpoint cannot be used; one line.
        OSError: The folder cannot be written, or the disk is full.
    """
    run, file = as_path(run), as_path(file)
    if output not in OUTPUTS:
        raise ExportError(f"output is {output!r}: give one of {', '.join(OUTPUTS)}")
    if opset not in OPSETS:
        raise ExportError(f"opset is {opset}: give a whole number from {OPSETS[0]} to {OPSETS[-1]}")
    if file.is_dir():
        raise ExportError(f"{file} is a folder: name a file, such as {file / 'model.onnx'}")
    if not overwrite:
        check_replaceable([file, card_of(file)])
    need_packages()
    trained = load_trained(run, which)
    with _folder_beside(file) as folder:
        draft = folder / file.name
        _save(trained.network, draft, output, opset)
        session = open_session(draft)
        parity = [compare(trained.network, session, shape) for shape in CHECKED]
        for found in parity:
            if not found.good:
                raise ExportError(
                    f"{file} is not written: onnxruntime differs from PyTorch at {found} (allowed: {DIFFERENCE:.0e} "
                    f"and {100 * CHANGED:g} %); give another opset"
                )
        checked = {
            "with": "onnxruntime on the CPU, compared with PyTorch",
            "difference_allowed": DIFFERENCE,
            "changed_allowed": CHANGED,
            "shapes": [dataclasses.asdict(found) for found in parity],
        }
        card = make_card(trained, run, draft, output, opset, checked)
        card_of(draft).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        for path in (draft.with_name(f"{draft.name}.data"), draft, card_of(draft)):
            if path.exists():
                with path.open("rb") as content:
                    write_atomically(file.parent / path.name, partial(shutil.copyfileobj, content))
    return Exported(file, card_of(file), card, parity)


def card_of(file: Path) -> Path:
    """Returns the path of an ONNX file's model card."""
    return file.with_name(f"{file.name}.json")


def need_packages() -> None:
    """Checks that the packages of the extra `onnx` are installed.

    Raises:
        ExportError: One is missing; the message has the command that installs it.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX files need {', '.join(missing)}: pip install 'nas-segmentation[onnx]'")


@contextmanager
def _folder_beside(file: Path) -> Iterator[Path]:
    """Makes a temporary folder on the file's disk, before the work; an OSError names the file, not the folder."""
    try:
        with temporary_beside(file, folder=True) as folder:
            yield folder
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences the exporter's messages, which are for its developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _save(network: nn.Module, file: Path, output: str, opset: int) -> None:
    """Exports a network in eval mode, with the weights in the file itself unless they are too large."""
    with _quietly():
        try:
            program = torch.onnx.export(
                _Labels(network) if output == "labels" else network,
                (torch.zeros(EXAMPLE[0], channels_of(network), *EXAMPLE[1:]),),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[output],
                dynamic_shapes=({0: "N", 2: "H", 3: "W"},),
                opset_version=opset,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"PyTorch {torch.__version__} cannot export this network: {error}") from error
        assert program is not None  # only the older exporter returns None
        program.model.doc_string = MARK
        if program.model.opset_imports[""] != opset:
            raise ExportError(f"opset is {opset}: onnxscript cannot convert this network to it, give {OPSETS[0]}")
        for node in program.model.graph:
            node.metadata_props.clear()  # stack traces, with local paths
        size = sum(tensor.nbytes for tensor in network.state_dict().values())
        program.save(file, external_data=size > LARGEST_FILE)


def open_session(file: str | Path, threads: int | None = None) -> InferenceSession:
    """Opens an ONNX file, to run on the CPU.

    Args:
        file: The ONNX file.
        threads: Threads of an operator; None: as many as there are cores.

    Raises:
        ExportError: onnxruntime is not installed, or the file is not there or not readable.
    """
    need_packages()
    import onnxruntime

    if not Path(file).is_file():
        raise ExportError(f"{file} is no file: name an ONNX file, such as nas-export writes")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        if "protobuf" in str(error).lower():
            raise ExportError(
                f"{file} is not an ONNX file, or is truncated: name a file that nas-export wrote"
            ) from error
        raise ExportError(f"onnxruntime cannot read {file}: {error}") from error


def run_session(session: InferenceSession, images: np.ndarray) -> np.ndarray:
    """Runs an ONNX file with one output on images, float32 (N, C, H, W).

    Raises:
        ExportError: The graph fails on these images.
    """
    try:
        (found,) = session.run(None, {session.get_inputs()[0].name: images})
    except Exception as error:  # as in `open_session`
        raise ExportError(f"the graph does not run on images of shape {images.shape}: {error}") from error
    return found


def compare(network: nn.Module, session: InferenceSession, shape: tuple[int, int, int]) -> Parity:
    """Compares an exported graph with its network on random images.

    Args:
        network: The network in eval mode, on the CPU.
        session: The graph, with one output, logits or labels.
        shape: N, H, W.

    Raises:
        ExportError: The graph does not run at this shape, or its output has another shape.
    """
    count, height, width = shape
    generator = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(count, channels_of(network), height, width, generator=generator) - 1
    with torch.inference_mode():
        logits = network(images).numpy()  # (N, classes, H, W)
    classes = logits.argmax(1)  # (N, H, W)
    found = run_session(session, images.numpy())
    if found.shape not in (logits.shape, classes.shape):
        raise ExportError(f"the exported graph maps {tuple(images.shape)} to {found.shape}, not to {logits.shape}")
    if found.ndim == classes.ndim:
        labels = found.astype(np.int64)
        differences = logits.max(1) - np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    else:
        labels = found.argmax(1)
        differences = np.abs(found - logits)
    scale = max(float(np.ptp(logits)), float(np.finfo(np.float32).tiny))
    return Parity(
        count, height, width, float(differences.max()) / scale, float((labels != classes).mean()), channels_of(network)
    )


FORMAT, VERSION = "nas-model-card", 1
COST_SIZE = (512, 1024)
"""H, W of the image for which multiply-adds are counted."""
ORIENTATION = {"turn": "turned as EXIF says", "ignore": "as stored, whatever EXIF says"}
OUTPUT_TYPES = {"logits": "float32", "labels": "uint8"}


def make_card(
    trained: TrainedNetwork, run: Path, file: Path, output: str, opset: int, checked: dict[str, Any]
) -> dict[str, Any]:
    """Makes the model card, in plain containers; `checked` are the results of the comparison with PyTorch."""
    config, loader = trained.config, trained.config.loader
    mean, std = loader.moments
    scale = 1 if loader.scaled else 255
    source = genotype_source(config, run)
    cost = measure(trained.network, COST_SIZE)
    packages = ("torch", *PACKAGES)
    checkpoint_sha256 = _sha256(trained.checkpoint)
    shape = ["N", len(trained.classes), "H", "W"] if output == "logits" else ["N", "H", "W"]
    return {
        "format": FORMAT,
        "version": VERSION,
        "file": file.name,
        "sha256": _sha256(file),
        "classes": list(trained.classes),
        "colors": trained.colors.tolist(),
        "input": {
            "name": "images",
            "type": "float32",
            "shape": ["N", loader.channels, "H", "W"],
            "channels": "RGB" if loader.channels == 3 else f"{loader.channels}, in the order of the files",
            "range": None if loader.normalisation.mean else [-1, 1],
            "scale": scale,
            "mean": [value / scale for value in mean],
            "std": [value / scale for value in std],
            "preprocessing": f"({'value' if loader.scaled else 'uint8'} / scale - mean) / std",
            "orientation": ORIENTATION[loader.exif],
            "resolution": loader.resolution,
        },
        "output": {"name": output, "type": OUTPUT_TYPES[output], "shape": shape},
        "checked": checked,
        "opset": opset,
        "versions": {"nas-segmentation": package_version(), **{name: version(name) for name in packages}},
        "network": source if isinstance(source, str) else f"a genotype's, {config.network.kind}",
        "settings": to_plain(config.network),
        "genotype": None if isinstance(source, str) else _without_root(load_genotype(source)),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "multiply_adds_at": list(COST_SIZE),
        "training": {"data": config.data, "seed": config.seed, "epoch": trained.epoch},
        "checkpoint": {"file": trained.checkpoint.name, "sha256": checkpoint_sha256},
        "metrics": {
            "validation": next((line["val"] for line in read_metrics(run) if line["epoch"] == trained.epoch - 1), None),
            "evaluations": _evaluations(run, checkpoint_sha256),
        },
    }


def _without_root(genotype: Genotype) -> dict[str, Any]:
    """The content of a genotype file without folders of its data, as a card is passed on."""
    own = {name: value for name, value in genotype.provenance.items() if not name.startswith("data_")}
    return dict(json.loads(dataclasses.replace(genotype, provenance=own).to_json()))


def _evaluations(run: Path, checkpoint_sha256: str) -> list[dict[str, Any]]:
    """Reads the results of nas-evaluate for this checkpoint, without the confusion matrices."""
    found = []
    for path in sorted(run.glob("evaluation-*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(data, dict) and data.get("checkpoint_sha256") == checkpoint_sha256:
            names = "data split images resolution scales flip miou mean_over pixel_accuracy iou metrics"
            found.append({name: data.get(name) for name in names.split()})
    return found


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
