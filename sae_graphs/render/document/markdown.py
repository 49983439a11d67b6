"""A report as Markdown, for a repository or a paper's notes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Definitions,
    Figure,
    Heading,
    Paragraph,
    Part,
    Table,
    unfolded,
)
from sae_graphs.text import visible

_SPECIAL = re.compile(r"([\\`*_\[\]{}|#$~!^@]|:(?=//)|(?<=www)\.)")
_AT_START = re.compile(r"^(\s*)([-+=]|\d+(?=[.)]))")


def markdown(cover: Cover, parts: Iterable[Block]) -> str:
    """The report's `parts` as text; plots are referenced as files."""
    written = [
        f'# {shown(cover.title)} "{shown(cover.quoted)}"',
        shown(cover.about),
        *(f"> **Warning:** {shown(text)}" for text in cover.warnings),
    ]
    written += map(_block, unfolded(parts))
    return "\n\n".join(written) + "\n"


def shown(text: str) -> str:
    """Any text made visible, and harmless in Markdown: it stays text, on one line."""
    line = visible(text, space=" ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def _block(block: Part) -> str:
    match block:
        case Heading():
            badge = f": {shown(block.badge.words)}" if block.badge else ""
            return f"{'#' * block.level} {shown(block.text)}{badge}"
        case Paragraph():
            text = _AT_START.sub(r"\1\\\2", shown(block.text))
            return f"**{text}**" if block.style == "verdict" else text
        case Table():
            return _table(block)
        case Figure():
            return f"![{shown(block.alt or block.caption)}]({block.name})"
        case Definitions():
            title = [f"**{shown(block.title)}**", ""] if block.title else []
            lines = [f"- {shown(name)}: {shown(words)}" for name, words in block.entries]
            return "\n".join([*title, *lines])


def _table(table: Table) -> str:
    rule = ("---:" if cell.number else "---" for cell in table.rows[0])
    rows = [[shown(name) for name in table.head], [*rule]]
    rows += [[_cell(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"*{shown(table.caption)}*", "", *lines])


def _cell(cell: Cell) -> str:
    if not cell.token:
        return shown(cell.text)
    return shown(visible(cell.text, space="␣") or "(empty)")
