"""Pictures of a genotype: its cell as a graph, its path on the trellis, and how both changed over a search."""

from search_spaces.drawing.canvas import ENDINGS, PALETTE, save_figure
from search_spaces.drawing.cell import draw_cell
from search_spaces.drawing.changes import draw_changes
from search_spaces.drawing.trellis import draw_trellis

__all__ = ["ENDINGS", "PALETTE", "draw_cell", "draw_changes", "draw_trellis", "save_figure"]
