"""Pictures and text of genotypes."""

import dataclasses
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from decoders import decode
from folders import genotype_of
from search_spaces.drawing import draw_cell, draw_changes, draw_trellis, save_figure
from search_spaces.drawing.cell import CONCAT, cell_layout
from search_spaces.genotype import Genotype, GenotypeError
from search_spaces.published import auto_deeplab
from search_spaces.space import SearchSpace, load
from search_spaces.text import cell_table, path_trellis

SMALLEST = SearchSpace(name="$^{bad$ _" + 80 * "x", layers=1, levels=1, blocks=1, operations=("skip",))
GENOTYPES = {
    "official": auto_deeplab(),
    "autodeeplab": genotype_of(load("autodeeplab")),
    "tiny": genotype_of(load("autodeeplab-tiny")),
    "smallest": genotype_of(SMALLEST),
    "ten blocks, forty layers": genotype_of(dataclasses.replace(load("autodeeplab-dw"), blocks=10, layers=40)),
}
everywhere = pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)


@everywhere
def test_layout_keeps_parts_apart(genotype: Genotype) -> None:
    layout = cell_layout(genotype)
    for number, states in enumerate(layout.columns):
        for below, above in pairwise(states):
            distance = 1.0 if layout.column[below] == layout.column[above] == number else 0.4
            assert layout.heights[number][above] - layout.heights[number][below] >= distance - 1e-9
    for number, block in enumerate(genotype.cell, start=1):
        column = layout.column[f"block{number}"]
        assert column == 1 + max(layout.column[name] for name in block.inputs)
        assert all(name in layout.columns[column - 1] for name in block.inputs)  # so its line enters from next door
        assert f"block{number}" in layout.columns[layout.column[CONCAT] - 1]


def test_layout_of_the_largest_cell_is_quick_enough() -> None:
    layout = cell_layout(genotype_of(dataclasses.replace(load("autodeeplab"), blocks=30)))
    assert len(layout.column) == 33


def draw_three_epochs(genotype: Genotype) -> Figure:
    return draw_changes([(1, genotype), (20, genotype), (400, genotype)])


def draw_with_others(genotype: Genotype) -> Figure:
    return draw_trellis(genotype, others=[genotype.path, genotype.path])


@everywhere
@pytest.mark.parametrize("draw", [draw_cell, draw_trellis, draw_with_others, draw_three_epochs])
def test_no_text_overlaps_another_or_leaves_the_picture(genotype: Genotype, draw: type) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw(genotype)
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    width, height = figure.get_size_inches() * figure.dpi
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, texts[number].get_text()
        for other, text in zip(boxes[:number], texts, strict=False):
            assert not box.overlaps(other), (texts[number].get_text(), text.get_text())


def test_contents() -> None:
    figure = draw_cell(GENOTYPES["official"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("sep 3x3") == 4 and texts.count("sep 5x5") == 3
    assert texts.count("atr 5x5") == 2 and texts.count("atr 3x3") == 1
    assert {"l-2", "l-1", "block1", "block5", "concat", "autodeeplab: cell"} <= set(texts)
    assert "autodeeplab: path" in [text.get_text() for text in draw_trellis(GENOTYPES["official"]).axes[0].texts]
    titles = [text.get_text() for text in draw_trellis(GENOTYPES["autodeeplab"]).axes[0].texts]
    assert any(title.startswith("autodeeplab: path, probability ") for title in titles)


def test_other_paths_are_grey_beneath_the_orange_one() -> None:
    genotype = auto_deeplab()
    others = [(4,) * 12, (8,) * 12]
    lines = [c for c in draw_trellis(genotype, others=others).axes[0].collections if isinstance(c, LineCollection)]
    _, *grey, white, orange = lines
    colors = ["#4D4D4D", "#4D4D4D", "#FFFFFF", "#D55E00"]
    assert [to_hex(c.get_color()[0]).upper() for c in (*grey, white, orange)] == colors
    assert all(c.get_zorder() < white.get_zorder() < lines[0].get_zorder() < orange.get_zorder() for c in grey)
    assert all(len(c.get_segments()) == 12 for c in (*grey, orange))
    straight = [len({y for _, y in segment}) == 1 for segment in grey[0].get_segments()]
    assert straight == [True] * 12
    with pytest.raises(GenotypeError, match=r"path\[1\] is 16: expected one of 4, 8"):
        draw_trellis(genotype, others=[(4, 16, *genotype.path[2:])])


def test_the_legend_says_what_is_grey() -> None:
    genotype = genotype_of(SearchSpace(name="two", layers=2, levels=2, blocks=1, operations=("skip",)))
    assert genotype.beta is not None
    others = [strides for strides in ((4, 4), (4, 8), (8, 4), (8, 8)) if strides != genotype.path]

    def probability(strides: tuple[int, ...]) -> float:
        first, second = (stride // 8 for stride in strides)
        assert genotype.beta is not None
        return float(genotype.beta[0, 0, first + 1] * genotype.beta[1, first, second - first + 1])

    def legend(*paths: tuple[int, ...]) -> list[str]:
        return [text.get_text() for text in draw_trellis(genotype, others=paths).axes[0].texts][-4:-1]

    ends = [f"{f(map(probability, others)):.3g}" for f in (max, min)]
    assert f"3 other paths, darker where several run; probability {ends[0]} to {ends[1]}" in legend(*others)
    assert f"another path; probability {probability(others[0]):.3g}" in legend(others[0])
    assert not any("other" in text for text in legend())


def test_what_changed_in_a_cell_is_framed() -> None:
    space = load("autodeeplab-tiny")
    first, second = genotype_of(space, 0), genotype_of(space, 1)
    edges = [
        [edge for block in genotype.cell for edge in zip(block.inputs, block.operations, strict=True)]
        for genotype in (first, second)
    ]
    changed = sum(a != b for a, b in zip(*edges, strict=True))
    figure = draw_changes([(1, first), (2, second), (3, second)])
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert sum(patch.get_edgecolor() == (0, 0, 0, 1) for patch in boxes) == changed > 0


def test_changes_of_nothing_or_of_two_searches_are_refused() -> None:
    with pytest.raises(ValueError, match="no epoch to draw"):
        draw_changes([])
    with pytest.raises(ValueError, match="different search spaces"):
        draw_changes([(1, GENOTYPES["tiny"]), (2, GENOTYPES["smallest"])])


def test_a_title_of_ones_own() -> None:
    for draw in (draw_cell, draw_trellis):
        assert "epoch 3" in [text.get_text() for text in draw(auto_deeplab(), title="epoch 3").axes[0].texts]


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_saving(tmp_path: Path, ending: str, start: bytes) -> None:
    file = tmp_path / "new" / f"cell{ending}"
    draw_cell(GENOTYPES["tiny"], file)
    assert file.read_bytes().startswith(start)
    draw_trellis(GENOTYPES["tiny"], file)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("name", ["cell.jpg", "cell", "cell.png.txt"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected \.svg, \.png, \.pdf"):
        save_figure(draw_cell(GENOTYPES["smallest"]), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_in_threads(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(4)]
    threads = [threading.Thread(target=draw_cell, args=(GENOTYPES["tiny"], file)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({file.read_bytes() for file in files}) == 1


def test_pyplot_and_torch_are_not_imported() -> None:
    code = (
        "import sys; from search_spaces.published import auto_deeplab; from search_spaces import drawing, text; "
        "import decoders; decoders.decode; assert 'matplotlib' not in sys.modules; "
        "drawing.draw_cell(auto_deeplab()); drawing.draw_trellis(auto_deeplab()); "
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_cell_table() -> None:
    assert cell_table(auto_deeplab()).splitlines()[:3] == [
        "block   input   operation      input   operation",
        "------  ------  -------------  ------  -------------",
        "block1  l-2     atrous_5x5     l-1     separable_3x3",
    ]
    space = SearchSpace(name="x", layers=1, levels=1, blocks=1, operations=("none", "skip"))
    genotype = decode(space, np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([[[0, 1.0, 0]]]))
    assert cell_table(genotype).splitlines()[2].split() == ["block1", "l-2", "skip", "0.750", "l-1", "skip", "0.500"]


def test_path_trellis() -> None:
    assert path_trellis(auto_deeplab()).splitlines() == [
        "stride | stem 1   2   3   4   5   6   7   8   9   10  11  12",
        "     4 |  #---#---#---#   .   .   .   .   .   .   .   .   .",
        "       |                \\",
        "     8 |      .   .   .   #   .   #   .   .   .   .   .   #",
        "       |                    \\   /   \\                   /",
        "    16 |          .   .   .   #   .   #---#   .   .   #   .",
        "       |                                    \\       /",
        "    32 |              .   .   .   .   .   .   #---#   .   .",
    ]


@everywhere
def test_text_is_ascii_and_keeps_to_the_width(genotype: Genotype) -> None:
    assert cell_table(genotype).isascii()
    for width in (1, 60, 100):
        text = path_trellis(genotype, width)
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= max(width, 20)
        blocks = text.count("stride")
        assert text.count("#") == genotype.space.layers + blocks  # the node where a line begins is repeated
