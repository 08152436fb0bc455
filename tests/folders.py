"""Run folders made by hand, in no time: what searches and retrainings leave, without one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decoders import decode
from nas.config import SearchConfig
from nas.runs.checkpoint import save_checkpoint
from nas.runs.folder import RunFolder
from nas.runs.history import record_genotype
from retrain.config import RetrainConfig
from retrain.networks import build
from retrain.networks.settings import NetworkConfig
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace, load
from search_spaces.validation import to_plain
from strategies import transition_mask

CLASSES, COLORS = ["road", "sky"], [[128, 64, 128], [70, 130, 180]]


def genotype_of(space: SearchSpace, seed: int = 0) -> Genotype:
    """Decoded from random probabilities."""
    generator = np.random.default_rng(seed)
    alpha = generator.random((len(space.edges), len(space.operations)))
    beta = transition_mask(space) * generator.random((space.layers, space.levels, 3))
    total = beta.sum(axis=2, keepdims=True)
    beta = np.divide(beta, total, out=np.zeros_like(beta), where=total > 0)
    return decode(space, alpha / alpha.sum(axis=1, keepdims=True), beta)


def search_folder(path: Path, epochs: int = 3, **changes: Any) -> Path:
    """A search of so many epochs."""
    config = SearchConfig(space="autodeeplab-tiny", epochs=40, **changes)
    space = replace(load("autodeeplab-tiny"), layers=3, levels=2, blocks=2)
    with RunFolder(path, config, quiet=True) as run:
        for epoch in range(epochs):
            genotype = genotype_of(space, epoch)
            genotype.save(path / "genotype.json")
            record_genotype(run, epoch, genotype)
            metrics = {"loss": {"weights": 1 / (epoch + 1)}, "val": {"miou": 0.1 * epoch, "pixel_accuracy": 0.5}}
            run.append("metrics.jsonl", {"epoch": epoch, **metrics, "lr": {"weights": 0.1}, "seconds": 61.0})
    return path


def retrain_folder(path: Path, epochs: int = 2) -> Path:
    """A retraining of a small network with a lateral inhibition; its weights are random."""
    config = RetrainConfig(genotype="mnv2-li-aspp", network=NetworkConfig(aspp_channels=4, li_init=(0.5, 0.9)))
    with RunFolder(path, config, quiet=True) as run:
        for epoch in range(epochs):
            coefficients = {f"a.own/{name}": 0.25 for name in ("identity", "average", "gaussian", "ss_conv")}
            metrics = {"loss": {"training": 1.0}, "val": {"miou": 0.3, "pixel_accuracy": 0.6}}
            run.append("metrics.jsonl", {"epoch": epoch, **metrics, "modules": coefficients, "seconds": 2.0})
    torch.manual_seed(0)
    network = build(config.genotype, len(CLASSES), config.network)
    state = {"epoch": epochs, "last_miou": 0.3}
    content = {"config": to_plain(config), "classes": CLASSES, "colors": COLORS, "mirror": {}}
    save_checkpoint(path / "best.pt", "retrain", {**content, "state": state, "network": network.state_dict()})
    iou = {"road": 0.875, "sky": None}
    evaluation = {"miou": 0.875, "pixel_accuracy": 0.9375, "iou": iou}
    (path / "evaluation-val-best.json").write_text(json.dumps(evaluation))
    return path
