"""A report as one self-contained page, to read on a screen, in the dark, or on paper."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sae_graphs.render import style
from sae_graphs.render.document.blocks import (
    Badge,
    Block,
    Cell,
    Cover,
    Definitions,
    Figure,
    Fold,
    Heading,
    Paragraph,
    Table,
)
from sae_graphs.render.palette import ROOT, VARIABLES
from sae_graphs.render.style import MONO
from sae_graphs.text import in_page, shortened, visible

STYLE = f"""{ROOT}body {{ font: 15px/1.5 system-ui, Helvetica, Arial, sans-serif; color: var(--ink);
  background: var(--paper); margin: 24px auto; max-width: 1160px; padding: 0 24px; }}
h1 {{ font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 20px; margin: 44px 0 8px; padding-top: 16px; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }}
h3 {{ font-size: 15px; margin: 28px 0 6px; }}
p {{ margin: 4px 0 10px; max-width: 86ch; overflow-wrap: anywhere; }}
a {{ color: var(--raises); }} code {{ font-family: {MONO}; font-size: 13px; }}
.about, .note, figcaption, caption, dd {{ color: var(--soft); }}
.note {{ font-size: 14px; }}
.verdict {{ font-size: 17px; border-left: 4px solid var(--bar); padding: 2px 0 2px 14px; }}
.warning {{ background: {style.ALARM}; border: 1px solid {style.ALARM_LINE}; border-radius: 6px;
  color: {style.INK}; padding: 8px 12px; font-weight: 600; max-width: none; }}
.badge {{ display: inline-block; font-size: 13px; font-weight: 600; line-height: 1.4;
  border: 1.5px dashed var(--faint); border-radius: 999px; padding: 0 9px; color: var(--soft);
  white-space: nowrap; vertical-align: 2px; }}
td .badge {{ vertical-align: 0; }}
.badge.supported {{ border: 1.5px solid var(--ink); background: var(--ink); color: var(--paper); }}
.badge.norm-only {{ border-style: solid; }}
.scroll {{ overflow-x: auto; margin: 12px 0 24px; }}
.wide td {{ white-space: nowrap; }}
details {{ margin: 8px 0 24px; }}
summary {{ cursor: pointer; color: var(--raises); font-size: 14px; padding: 4px 0; }}
table {{ border-collapse: collapse; font-size: 14px; }}
caption {{ text-align: left; font-size: 13px; padding-bottom: 4px; }}
td, th {{ padding: 4px 18px 4px 0; text-align: left; vertical-align: top; }}
th {{ color: var(--soft); font-weight: 500; vertical-align: bottom;
  border-bottom: 1px solid var(--line); }}
tr + tr td {{ border-top: 1px solid var(--band); }}
td code {{ overflow-wrap: break-word; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
td.number {{ white-space: nowrap; }}
.lowered {{ color: var(--lowers); }} .raised {{ color: var(--raises); }}
.definitions {{ background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 18px; font-size: 14px; margin: 0 0 24px; }}
.definitions h3 {{ margin: 0 0 6px; }}
dl {{ display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 3px 16px;
  margin: 0; }}
dt {{ font-weight: 600; overflow-wrap: anywhere; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
figure {{ margin: 16px 0 24px; }} figcaption {{ font-size: 13px; max-width: 86ch; }}
.plot {{ display: inline-block; vertical-align: top; margin-right: 24px; max-width: 100%; }}
.plot svg {{ display: block; max-width: 100%; height: auto; }}
.plot figcaption {{ max-width: 62ch; }}
.graph {{ border: 1px solid var(--line); border-radius: 8px; overflow: hidden;
  background: white; }}
.graph .scroll {{ margin: 0; }}
.graph svg {{ display: block; width: 100%; min-width: 1000px; height: auto; }}
.graph figcaption {{ color: {style.SOFT}; padding: 6px 12px; }}
@media print {{ details::details-content {{ content-visibility: visible; block-size: auto; }}
  summary {{ display: none; }} .scroll {{ overflow: visible; }}
  .graph svg {{ min-width: 0; }} .wide td {{ white-space: normal; }}
  body {{ margin: 0; max-width: none; padding: 0; font-size: 11pt; }}
  figure, tr {{ break-inside: avoid; }} h2, h3, caption {{ break-after: avoid; }}
  .badge.supported {{ background: none; color: var(--ink); }} }}
"""


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_VARIABLE = {getattr(style, name): f"var(--{variable})" for variable, name in VARIABLES.items()}


def page(cover: Cover, parts: Iterable[Block], *, picture: Figure | None = None) -> str:
    """The report's `parts` as a page.

    A large `picture`, an `<svg>` with tooltips, stands after the first definitions: they say how to
    read it.
    """
    body: list[str] = []
    for block in parts:
        body.append(_block(block))
        if picture and isinstance(block, Definitions):
            body.append(_graph(picture))
            picture = None
    quoted = shortened(visible(cover.quoted, space=" "), 60)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{in_page(f'{cover.short}: {quoted}')}</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{_shown(cover.title)} <q>{in_page(quoted)}</q></h1>",
            f"<p class='about'>{_shown(cover.about)}</p>",
            *(f'<p class="warning">⚠ {_shown(text)}</p>' for text in cover.warnings),
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


def _badge(badge: Badge) -> str:
    name = in_page(badge.words.replace(" ", "-"))
    return f" <span class='badge {name}'>{in_page(badge.sign)} {in_page(badge.words)}</span>"


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


def _graph(picture: Figure) -> str:
    return (
        f'<figure class="graph"><div class="scroll">{picture.svg}</div>'
        f"<figcaption>{_shown(picture.caption)} "
        "Hover over a box or an arrow for its numbers.</figcaption></figure>"
    )


def inlined(svg: str) -> str:
    """A plot within the page: its colours follow the page's, light or dark."""
    return _COLOUR.sub(lambda found: _VARIABLE.get(found[0], found[0]), svg)
