"""The model card beside an exported network: all that whoever runs it has to know, in plain containers."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.config import to_plain
from nas.cost import measure
from nas.reporting import package_version
from nas.run import read_metrics
from retrain.source import TrainedNetwork, genotype_source
from search_spaces.genotype import load_genotype

__all__ = ["make_card"]

FORMAT, VERSION = "nas-model-card", 1
COST_SIZE = (512, 1024)
"""H, W of the image for which multiply-adds are counted."""
OUTPUT_TYPES = {"logits": "float32", "labels": "uint8"}
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def make_card(
    trained: TrainedNetwork, run: Path, file: Path, output: str, opset: int, checked: dict[str, Any]
) -> dict[str, Any]:
    """Describes an exported network.

    Args:
        trained: The network.
        run: Its run folder.
        file: The ONNX file.
        output: "logits" or "labels".
        opset: Version of ONNX's operators.
        checked: What the comparison with PyTorch found.
    """
    config = trained.config
    source = genotype_source(config, run)
    cost = measure(trained.network, COST_SIZE)
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
            "shape": ["N", 3, "H", "W"],
            "channels": "RGB",
            "range": [-1, 1],
            "scale": 255,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "preprocessing": "(uint8 / scale - mean) / std",
            "resolution": config.loader.resolution,
        },
        "output": {"name": output, "type": OUTPUT_TYPES[output], "shape": shape},
        "checked": checked,
        "opset": opset,
        "versions": {"nas-segmentation": package_version(), **{name: version(name) for name in PACKAGES}},
        "network": source if isinstance(source, str) else f"a genotype's, {config.network.kind}",
        "settings": to_plain(config.network),
        "genotype": None if isinstance(source, str) else json.loads(load_genotype(source).to_json()),
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


def _evaluations(run: Path, checkpoint_sha256: str) -> list[dict[str, Any]]:
    """What nas-evaluate measured with this very checkpoint, without the confusion matrices."""
    found = []
    for path in sorted(run.glob("evaluation-*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(data, dict) and data.get("checkpoint_sha256") == checkpoint_sha256:
            names = ("data", "split", "images", "resolution", "scales", "flip", "miou", "pixel_accuracy", "iou")
            found.append({name: data.get(name) for name in names})
    return found


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
