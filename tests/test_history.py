"""What a search keeps of each epoch, and the pictures of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folders import genotype_of, search_folder
from nas.config import SearchConfig
from nas.runs.folder import RunFolder
from nas.runs.history import draw_history, read_history, save_animation, spread
from nas.runs.names import RunError
from search_spaces.genotype import load_genotype


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    folder = search_folder(tmp_path / "run", epochs=3)
    history = read_history(folder)
    assert [shot.epoch for shot in history] == [0, 1, 2]
    for number, shot in enumerate(history):
        genotype = genotype_of(shot.genotype.space, seed=number)
        assert (shot.genotype.cell, shot.genotype.path) == (genotype.cell, genotype.path)
        for name in ("alpha", "beta"):
            assert np.abs(getattr(shot.genotype, name) - getattr(genotype, name)).max() <= 5.1e-7
    last = load_genotype(folder / "genotype.json")
    assert (history[-1].genotype.cell, history[-1].genotype.path) == (last.cell, last.path)


def test_a_run_that_goes_on_drops_what_was_not_saved(tmp_path: Path) -> None:
    folder = search_folder(tmp_path / "run", epochs=3)
    with (folder / "genotypes.jsonl").open("a") as file:
        file.write('{"epoch": 3, "cell": [')  # cut short by a kill
    with RunFolder(folder, SearchConfig(), epoch=2, quiet=True):
        pass
    assert [shot.epoch for shot in read_history(folder)] == [0, 1]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_run_without_genotypes_gets_no_empty_file(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", SearchConfig(), quiet=True):
        pass
    assert not (tmp_path / "run" / "genotypes.jsonl").exists()
    with pytest.raises(RunError, match=r"has no genotypes\.jsonl .* written by nas-search"):
        read_history(tmp_path / "run")


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    folder = search_folder(tmp_path / "run", epochs=2)
    lines = [json.loads(line) for line in (folder / "genotypes.jsonl").read_text().splitlines()]
    lines[1]["path"][0] = 5
    (folder / "genotypes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=r"genotypes\.jsonl, epoch 1: path\[0\] is 5: expected one of 4, 8"):
        read_history(folder)


@pytest.mark.parametrize(
    ("length", "most", "chosen"),
    [(0, 3, []), (2, 3, [0, 1]), (5, 1, [4]), (5, 3, [0, 2, 4]), (100, 4, [0, 33, 66, 99]), (9, 8, None)],
)
def test_items_are_spread_from_the_first_to_the_last(length: int, most: int, chosen: list[int] | None) -> None:
    found = spread(range(length), most)
    if chosen is not None:
        assert found == chosen
    assert len(set(found)) == len(found) <= most
    assert not length or found[-1] == length - 1


def test_the_picture_counts_epochs_from_one(tmp_path: Path) -> None:
    history = read_history(search_folder(tmp_path / "run", epochs=2))
    texts = [text.get_text() for text in draw_history(history).axes[0].texts]
    assert "stem and layers from left to right, strides 4 to 8 from top to bottom" in texts
    assert {"epoch 1", "epoch 2"} <= set(texts) and "epoch 0" not in texts


def test_the_animation_has_a_frame_an_epoch(tmp_path: Path) -> None:
    file = save_animation(read_history(search_folder(tmp_path / "run", epochs=3)), tmp_path / "x.gif")
    with Image.open(file) as image:
        assert image.format == "GIF" and getattr(image, "n_frames", 1) == 3
        image.seek(2)
        assert image.info["duration"] == 3000
    with pytest.raises(ValueError, match="no epoch to draw"):
        save_animation([], tmp_path / "y.gif")
