"""`validation.html`: one self-contained page, to read on a screen, in the dark, or on paper."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sae_graphs.evidence import ValidationReport
from sae_graphs.render import style
from sae_graphs.render.palette import VARIABLES
from sae_graphs.report.blocks import (
    Block,
    Cell,
    Definitions,
    Figure,
    Fold,
    Heading,
    Paragraph,
    Table,
)
from sae_graphs.report.page_style import BADGES, STYLE
from sae_graphs.text import in_page, shortened, visible

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_VARIABLE = {getattr(style, name): f"var(--{variable})" for variable, name in VARIABLES.items()}


def page(
    report: ValidationReport,
    parts: Iterable[Block],
    *,
    picture: str | None = None,
    caption: str = "",
) -> str:
    """The report's `parts` as a page, with the graph's marked `<svg>`, without its header."""
    body: list[str] = []
    for block in parts:
        body.append(_block(block))
        if picture and isinstance(block, Definitions):
            body.append(_graph(picture, caption))
            picture = None
    prompt = shortened(visible(report.prompt, space=" "), 60)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{in_page(f'Validation: {prompt}')}</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<h1>Validation of the causal graph of <q>{in_page(prompt)}</q></h1>",
            f"<p class='about'>{_shown(f'model {report.model} · SAEs {report.saes}')}</p>",
            *(f'<p class="warning">⚠ {_shown(text)}</p>' for text in report.warnings),
            *body,
            "</body></html>\n",
        ]
    )


def _shown(text: str) -> str:
    return in_page(visible(text, space=" "))


def _block(block: Block) -> str:
    match block:
        case Heading():
            return _heading(block)
        case Paragraph():
            return f"<p class='{block.style}'>{_shown(block.text)}</p>"
        case Table():
            return _table(block)
        case Figure():
            return (
                f"<figure class='plot'>{inlined(block.svg)}"
                f"<figcaption>{_shown(block.caption)}</figcaption></figure>"
            )
        case Definitions():
            return _definitions(block)
        case Fold():
            inner = "\n".join(map(_block, block.blocks))
            shown = " open" if block.is_open else ""
            return f"<details{shown}><summary>{_shown(block.words)}</summary>{inner}</details>"


def _heading(heading: Heading) -> str:
    anchor = f' id="{in_page(heading.anchor)}"' if heading.anchor else ""
    badge = _badge(heading.badge) if heading.badge else ""
    return f"<h{heading.level}{anchor}>{_shown(heading.text)}{badge}</h{heading.level}>"


def _badge(kind: str) -> str:
    name = kind.replace(" ", "-")
    return f" <span class='badge {name}'>{BADGES[kind]} {in_page(kind)}</span>"


def _table(table: Table) -> str:
    numbers = [cell.number for cell in table.rows[0]]
    head = "".join(
        f"<th{' class=number' if right else ''}>{_shown(name)}</th>"
        for name, right in zip(table.head, numbers, strict=True)
    )
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    caption = f"<caption>{_shown(table.caption)}</caption>"
    wide = " wide" if any(cell.badge for row in table.rows for cell in row) else ""
    return (
        f"<div class='scroll{wide}'><table>{caption}<thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    shown = _shown(cell.text)
    if cell.badge:
        shown = _badge(cell.badge)
    elif cell.token:
        shown = f"<code>{_broken(in_page(visible(cell.text, space='␣') or '(empty)'))}</code>"
    if cell.link:
        shown = f'<a href="#{in_page(cell.link)}">{shown}</a>'
    names = " ".join(name for name in ("number" if cell.number else "", cell.tone) if name)
    return f"<td{f' class={names!r}' if names else ''}>{shown}</td>"


def _broken(escaped: str) -> str:
    """With a place to break the line after every space that is shown."""
    return escaped.replace("␣", "␣<wbr>")


def _definitions(block: Definitions) -> str:
    title = f"<h3>{_shown(block.title)}</h3>" if block.title else ""
    rows = "".join(
        f"<dt>{_shown(name)}</dt><dd>{_shown(words)}</dd>" for name, words in block.entries
    )
    return f"<section class='definitions'>{title}<dl>{rows}</dl></section>"


def _graph(picture: str, caption: str) -> str:
    return (
        f'<figure class="graph"><div class="scroll">{picture}</div><figcaption>{in_page(caption)} '
        "Hover over a box or an arrow for its numbers.</figcaption></figure>"
    )


def inlined(svg: str) -> str:
    """A plot within the page: its colours follow the page's, light or dark."""
    return _COLOUR.sub(lambda found: _VARIABLE.get(found[0], found[0]), svg)
