"""Decoding by perturbation: the choice against a table, what is taken away in both engines, a run's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cli import decode
from nas.config import ArchitectureConfig
from nas.darts import search
from nas.diagnostics.perturbation import decode_by_perturbation, perturbed_cell, validations
from nas.supernet.architecture import ArchitectureSample
from search_spaces.genotype import Block, load_genotype
from search_spaces.modules import resize
from search_spaces.operations import NONE
from search_spaces.space import SearchSpace
from test_fast_node import engines
from test_search import settings
from test_supernet import images, space

SPACE = SearchSpace("hand", 2, 2, 2, 2, (NONE, "skip", "separable_3x3"))
ALPHA = np.array([[0.2, 0.5, 0.3]] * 5)


def test_what_hurts_most_is_kept_and_alpha_settles_ties() -> None:
    # Worth of each operation of the edges l-2, l-1 -> block 1 and l-2, l-1, block1 -> block 2.
    worth = np.array([[9, 0.1, 0.2], [9, 0.3, 0.3], [9, 0.0, 0.5], [9, 0.1, 0.2], [9, 0.7, 0.1]])
    worth[:, 0] = 0  # none is not tried
    asked = []

    def score(mask: np.ndarray) -> float:
        asked.append(mask)
        return float((worth * mask).sum())

    found = perturbed_cell(SPACE, ALPHA, score)
    assert found.cell == (
        Block(("l-2", "l-1"), ("separable_3x3", "skip")),
        Block(("l-2", "block1"), ("separable_3x3", "skip")),
    )
    np.testing.assert_allclose(found.operations, worth, atol=1e-12)
    np.testing.assert_allclose(found.edges, [0, 0, 0.5, 0.3, 0.8], atol=1e-12)
    assert len(asked) == validations(SPACE) == 1 + 5 * 2 + 3
    assert all(mask[:, 0].sum() >= 4 for mask in asked)


@pytest.mark.parametrize("partial_channels", [1, 2])
def test_what_is_taken_away_weighs_nothing_in_both_engines(partial_channels: int) -> None:
    searched, x = space(), images()
    kept = torch.ones(len(searched.edges), len(searched.operations), dtype=torch.bool)
    kept[1, 3], kept[2] = False, False
    plain, fast = (supernet.eval() for supernet in engines(searched, partial_channels=partial_channels))
    with torch.no_grad():
        before = fast(x)
        y, z = (supernet(x, supernet.sample().without(kept)) for supernet in (plain, fast))
        assert not torch.equal(before, z) and torch.equal(before, fast(x))
        torch.testing.assert_close(z, y, rtol=1e-10, atol=1e-10)
        sample = plain.architecture()
        weights = None if sample.edge_weights is None else sample.edge_weights * kept.any(1)
        first, stem = plain.stem(x)
        outputs = plain.trellis(first, stem, ArchitectureSample(sample.alpha * kept, sample.beta, weights))
        size = (x.shape[-2], x.shape[-1])
        heads = [resize(head(output), size) for head, output in zip(plain.heads, outputs, strict=True)]
        torch.testing.assert_close(y, sum(heads), rtol=1e-10, atol=1e-10)


def test_a_run_is_decoded_by_perturbation_from_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ArchitectureConfig(start_epoch=0)
    result = search(settings(tmp_path, epochs=1, architecture=options, partial_channels=2), quiet=True)
    file = result.folder / "genotype.json"
    text = file.read_bytes()
    decode.main([str(file), "--by", "perturbation", "--images", "1", "-o", str(tmp_path / "found.json")])
    assert "without which the supernet loses most" in capsys.readouterr().out
    found = load_genotype(tmp_path / "found.json")
    assert found.path == result.genotype.path and file.read_bytes() == text
    assert (found.provenance["decoded_by"], found.provenance["images"]) == ("perturbation", 1)
    again = decode_by_perturbation(result.folder, 1, quiet=True)
    assert again.to_json() == found.to_json()


def test_a_run_that_drew_operations_is_refused(tmp_path: Path) -> None:
    options = ArchitectureConfig(start_epoch=0, sampling="gumbel")
    folder = search(settings(tmp_path, epochs=1, architecture=options), quiet=True).folder
    with pytest.raises(ValueError, match=r"drew one operation per edge .* decode it by alpha"):
        decode_by_perturbation(folder, quiet=True)
