"""Tables and genotypes as text for terminals and logs: plain ASCII, which survives any terminal, log and locale."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import zip_longest

from search_spaces.genotype import Genotype, state_names

__all__ = ["aligned", "cell_table", "path_trellis"]


def aligned(rows: Sequence[Sequence[str]], left: Container[int] = (), gap: str = "  ") -> list[str]:
    """The rows of a table as lines; columns at the places `left` are left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return [
        gap.join(f"{cell:{'<' if place in left else '>'}{widths[place]}}" for place, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def cell_table(genotype: Genotype) -> str:
    """The cell as a table, a row a block: its name, and for each input its name and its operation.

    With alpha each operation is followed by its probability, one of a mixed operation's probabilities that sum to 1.

    Returns:
        Lines without trailing blanks, joined by newlines, none at the end.
    """
    space = genotype.space
    states = state_names(space.blocks)
    rows = {edge: row for row, edge in enumerate(space.edges)}
    half = ["input", "operation"] + ["alpha"] * (genotype.alpha is not None)
    table = [["block", *half, *half]]
    for number, block in enumerate(genotype.cell):
        line = [states[2 + number]]
        for state, operation in zip(block.inputs, block.operations, strict=True):
            line += [state, operation]
            if genotype.alpha is not None:
                row = rows[states.index(state), number]
                line.append(f"{genotype.alpha[row, space.operations.index(operation)]:.3f}")
        table.append(line)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    table.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(entry.ljust(width) for entry, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def path_trellis(genotype: Genotype, width: int = 100) -> str:
    """The path on the trellis: a row a stride, a column a layer, `#` for chosen nodes and `.` for the others.

    For example

        stride | stem 1   2   3   4
             4 |  #---#   .   #---#
               |        \\   /
             8 |      .   #   .   .

    Args:
        genotype: Whose path to write.
        width: Of a line, in characters; a path that needs more is continued below. At least one layer is on a line.

    Returns:
        Lines without trailing blanks, joined by newlines, none at the end.
    """
    space = genotype.space
    levels = (0, *genotype.levels)
    labels = [str(stride) for stride in space.strides]
    margin = max(len("stride"), *map(len, labels))
    a_line = max(1, (width - margin - 8) // 4)  # layers on a line, besides the node that it begins with
    parts = []
    for first in range(0, space.layers, a_line):
        last = min(first + a_line, space.layers)
        heads = [("stem" if layer == 0 else str(layer)).center(4) for layer in range(first, last + 1)]
        lines = [f"{'stride'.rjust(margin)} | {''.join(heads)}"]
        for level, label in enumerate(labels):
            lines.append(f"{label.rjust(margin)} |{_nodes(genotype, levels, level, first, last)}")
            if level + 1 < space.levels:
                lines.append(f"{' ' * margin} |{_diagonals(levels, level, first, last)}")
        parts.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(parts)


def _nodes(genotype: Genotype, levels: Sequence[int], level: int, first: int, last: int) -> str:
    text = "  "
    for layer in range(first, last + 1):
        exists = level in genotype.space.node_levels(layer)
        text += "#" if levels[layer] == level else "." if exists else " "
        if layer < last:
            text += "---" if levels[layer] == levels[layer + 1] == level else "   "
    return text


def _diagonals(levels: Sequence[int], level: int, first: int, last: int) -> str:
    """The path's steps between `level` and the next coarser one."""
    text = "  "
    for layer in range(first, last):
        step = (levels[layer], levels[layer + 1])
        text += "  \\ " if step == (level, level + 1) else "  / " if step == (level + 1, level) else "    "
    return text
