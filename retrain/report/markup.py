"""Pieces of HTML. Text becomes HTML here, and only here: names, settings and messages of a run are a stranger's."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["Markup", "details", "element", "figure", "items", "join", "table", "text"]


VOID = ("img",)
"""Elements without content or end."""


class Markup(str):
    """Finished HTML. What is not of this type is text, and is escaped where it goes into a piece."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Text as HTML, without characters that no HTML file may have; Markup is left as it is."""
    if isinstance(value, Markup):
        return value
    kept = "".join(c for c in str(value) if c.isprintable() or c in "\n\t")
    return Markup(html.escape(kept))


def join(parts: Iterable[object], between: str = "\n") -> Markup:
    """Pieces one after another."""
    return Markup(between.join(text(part) for part in parts))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """<name attribute="...">content</name>; `class_` is class, `aria_label` aria-label; None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(content, '')}</{name}>")


def items(entries: Iterable[object]) -> Markup:
    """A list."""
    return element("ul", *(element("li", entry) for entry in entries))


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], caption: str | None = None, numbers: bool = False
) -> Markup:
    """A table that scrolls by itself where it is too wide; the first entry of a row is its heading.

    Args:
        head: Headings of the columns.
        rows: As many entries each.
        caption: What the table holds.
        numbers: Whether all columns but the first hold numbers.
    """
    kind = "number" if numbers else None
    columns = [element("th", entry, scope="col", class_=kind if number else None) for number, entry in enumerate(head)]
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", entry, class_=kind) for entry in row[1:]))
        for row in rows
    ]
    parts = [element("caption", caption)] if caption else []
    parts += [element("thead", element("tr", *columns)), element("tbody", *body)]
    # A region that scrolls must be reachable by the keyboard.
    return element("div", element("table", *parts), class_="scroll", tabindex=0)


def details(summary: object, *content: object) -> Markup:
    """What is folded away until it is asked for."""
    return element("details", element("summary", summary), *content)


def figure(caption: object, content: object) -> Markup:
    """A picture below its caption."""
    return element("figure", element("figcaption", caption), content)
