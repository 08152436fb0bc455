"""What takes minutes: the shipped recipes learn something, the paper's space runs whole, real images go through."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nas
import retrain
from nas.config import AugmentConfig
from search_spaces.graph import random_genotype
from search_spaces.space import load

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("NAS_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def test_the_small_recipes_learn_more_than_the_background(tmp_path: Path) -> None:
    found = nas.search(replace(nas.recipe("small"), out=str(tmp_path / "found")), quiet=True)
    genotype = str(found.folder / "genotype.json")
    trained = retrain.train(
        replace(retrain.recipe("small"), genotype=genotype, out=str(tmp_path / "trained")), quiet=True
    )
    result = retrain.evaluate(trained.folder, "test", "last")
    # Predicting background everywhere gives a mean of 0.12: one class in six, at its share of the pixels.
    assert result.miou > 0.15
    assert sum(value is not None and value > 0 for value in result.iou.values()) >= 3


def test_the_whole_space_of_the_paper_takes_both_steps() -> None:
    torch.manual_seed(0)
    supernet = nas.Supernet(load("autodeeplab"), classes=19)
    logits = supernet(torch.randn(2, 3, 65, 65))
    assert logits.shape == (2, 19, 65, 65)
    logits.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in supernet.parameters())
    assert all(p.grad.abs().sum() > 0 for p in supernet.architecture.parameters())


def test_search_and_training_on_real_images(tmp_path: Path) -> None:
    root = DATA / "camvid"
    if not root.is_dir():
        pytest.skip(f"CamVid is not at {root}; NAS_TEST_DATA names the folder that holds it")
    loader = replace(
        nas.recipe("camvid").loader, train_limit=16, val_limit=2, batch_size=2, augment=AugmentConfig(crop=(65, 65))
    )
    found = nas.search(
        replace(
            nas.recipe("camvid"),
            data_root=str(root),
            layers=3,
            epochs=1,
            architecture=nas.ArchitectureConfig(start_epoch=0),
            loader=loader,
            out=str(tmp_path / "found"),
        ),
        quiet=True,
    )
    training = replace(
        retrain.recipe("camvid"),
        genotype=str(found.folder / "genotype.json"),
        data_root=str(root),
        epochs=1,
        loader=loader,
        out=str(tmp_path / "trained"),
    )
    result = retrain.evaluate(retrain.train(training, quiet=True).folder)
    assert result.images == 101
    assert sum(map(sum, result.confusion)) > 0.9 * 101 * 360 * 480  # few pixels are void
    assert len(result.iou) == 11


@pytest.mark.parametrize("seed", [0, 1])
def test_random_networks_of_the_paper_run_at_its_crop(seed: int) -> None:
    network = retrain.build(random_genotype(load("autodeeplab"), seed), classes=19).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 321, 321)).shape == (1, 19, 321, 321)
