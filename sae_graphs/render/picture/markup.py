"""Graphviz's HTML-like labels, one small function an element; callers escape the text."""

from __future__ import annotations

import html
import textwrap

from sae_graphs.render.style import INK, SANS, SOFT
from sae_graphs.text import HARD_SPACE, visible


def _tag(name: str, content: str, attributes: dict[str, str | int | float | None]) -> str:
    written = "".join(
        f' {key.upper()}="{value}"' for key, value in attributes.items() if value is not None
    )
    return f"<{name}{written}>{content}</{name}>"


def cell(content: str = "", **attributes: str | int | float | None) -> str:
    """`<TD>`; attributes as keywords: `align="LEFT", bgcolor="#fff"`."""
    return _tag("TD", content, attributes)


def row(*cells: str) -> str:
    """`<TR>` of cells."""
    return f"<TR>{''.join(cells)}</TR>"


def table(*rows: str, **attributes: str | int | float | None) -> str:
    """`<TABLE>` of rows, without borders, spacing and padding unless asked for."""
    bare: dict[str, str | int | float | None] = {"border": 0, "cellborder": 0}
    bare |= {"cellspacing": 0, "cellpadding": 0}
    return _tag("TABLE", "".join(rows), bare | attributes)


def font(
    content: str,
    *,
    size: float | None = None,
    colour: str | None = None,
    face: str | None = None,
    bold: bool = False,
) -> str:
    """`<FONT>` around escaped text or a table."""
    inner = f"<B>{content}</B>" if bold else content
    return _tag("FONT", inner, {"face": face, "point-size": size, "color": colour})


def words(
    text: str,
    *,
    size: float | None = None,
    colour: str | None = None,
    face: str = SANS,
    bold: bool = False,
) -> str:
    """Any text, made visible and escaped, in a font; Graphviz takes no empty element."""
    return font(
        in_label(visible(text) or HARD_SPACE), size=size, colour=colour, face=face, bold=bold
    )


def at_own_size(content: str) -> str:
    """Content kept at its own size at the top left of whatever room its cell has.

    Graphviz stretches a table over its cell, sharing the room out evenly among rows and columns,
    so many empty ones take nearly all of it. They are a row and a column of cells: one cell over
    all of them is 10,000 places to Graphviz, and most of its time.
    """
    return table(row(cell(content, align="LEFT"), cell(colspan=99)), row(cell(rowspan=99)))


def wrapped(text: str, width: int, *, size: float, colour: str = SOFT, bold: bool = False) -> str:
    """Text in lines of at most `width` characters."""
    lines = textwrap.wrap(visible(text, space=" "), width) or [""]
    return table(
        *(
            row(cell(words(line, size=size, colour=colour, bold=bold), align="LEFT"))
            for line in lines
        )
    )


def heading(text: str) -> str:
    """The title of a part of the header."""
    return words(text, size=11, bold=True, colour=INK)


def in_label(shown: str) -> str:
    """Visible text escaped for Graphviz's HTML-like labels.

    Those are XML, in which Graphviz then expands `\\N`, `\\G` and the like; two backslashes are
    one that it leaves alone.
    """
    return html.escape(shown).replace("\\", "&#92;&#92;")


def in_tooltip(shown: str) -> str:
    """Visible text escaped for a Graphviz tooltip, which expands backslashes twice."""
    escaped = html.escape(shown).replace("\\", "&#92;" * 4)
    return escaped.replace("\n", "&#10;")
