"""A report as one self-contained page, to read on a screen, in the dark, or on paper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sae_graphs.render import style
from sae_graphs.render.document.blocks import (
    Beside,
    Block,
    Cover,
    Definitions,
    Figure,
    Fold,
    Heading,
    Paragraph,
    Table,
)
from sae_graphs.render.document.shell import POLICY, shell
from sae_graphs.render.document.templates import filled, macros, ours
from sae_graphs.render.palette import VARIABLES
from sae_graphs.render.style import MONO
from sae_graphs.text import shortened, visible

if TYPE_CHECKING:
    from markupsafe import Markup


STYLE = f"""body {{ font: 15px/1.5 system-ui, Helvetica, Arial, sans-serif; color: var(--ink);
  background: var(--paper); margin: 24px auto; max-width: 1160px; padding: 0 24px; }}
h1 {{ font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 18px; margin: 22px 0 6px; padding-top: 12px; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }}
h3 {{ font-size: 15px; margin: 28px 0 6px; }}
p {{ margin: 4px 0 10px; max-width: 86ch; overflow-wrap: anywhere; }}
a {{ color: var(--raises); }} code {{ font-family: {MONO}; font-size: 13px; }}
.about, .note, figcaption, caption, dd {{ color: var(--soft); }}
.note {{ font-size: 14px; }}
.verdict {{ border-left: 4px solid var(--bar); padding: 1px 0 1px 12px; }}
.lead {{ font-size: 17px; max-width: none; }}
.beside {{ display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0 32px;
  align-items: start; }}
.beside > div, .beside .plot {{ min-width: 0; }}
.beside .plot {{ margin: 0 0 12px; }}
@media (max-width: 1150px) {{ .beside {{ grid-template-columns: minmax(0, 1fr); }} }}
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
details {{ margin: 4px 0 8px; }}
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
  .beside {{ display: block; }}
  figure, tr {{ break-inside: avoid; }} h2, h3, caption {{ break-after: avoid; }}
  .badge.supported {{ background: none; color: var(--ink); }} }}
"""


_BLOCKS = "render/document/blocks.html.j2"
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_VARIABLE = {getattr(style, name): f"var(--{variable})" for variable, name in VARIABLES.items()}


def page(cover: Cover, parts: Iterable[Block]) -> str:
    """The report's `parts` as a page."""
    blocks = [_block(part) for part in parts]
    quoted = shortened(visible(cover.quoted, space=" "), 60)
    body = filled("render/document/page.html.j2", cover=cover, quoted=quoted, blocks=blocks)
    return shell(f"{cover.short}: {quoted}", body, style=STYLE, policy=POLICY)


def _block(block: Block) -> Markup:
    draw = macros(_BLOCKS)
    match block:
        case Heading():
            return draw.heading(block)
        case Paragraph():
            return draw.paragraph(block)
        case Table():
            return draw.table(block)
        case Figure(wide=True):
            return draw.picture(block, ours(block.svg))
        case Figure():
            return draw.figure(block, ours(inlined(block.svg)))
        case Beside():
            figure = None if block.figure is None else _block(block.figure)
            return draw.beside([_block(part) for part in block.blocks], figure)
        case Definitions():
            return draw.definitions(block)
        case Fold():
            return draw.fold(block, [_block(part) for part in block.blocks])


def inlined(svg: str) -> str:
    """A plot within the page: its colours follow the page's, light or dark."""
    return _COLOUR.sub(lambda found: _VARIABLE.get(found[0], found[0]), svg)
