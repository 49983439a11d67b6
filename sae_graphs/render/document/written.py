"""A report as the files that hold it: a page, Markdown, and each plot by itself."""

from __future__ import annotations

from collections.abc import Sequence

from sae_graphs.render.document.blocks import Block, Cover, Figure, unfolded
from sae_graphs.render.document.markdown import markdown
from sae_graphs.render.document.page import page


def documents(stem: str, cover: Cover, parts: Sequence[Block]) -> dict[str, bytes]:
    """`STEM.html`, `STEM.md`, and the plots under their own names; a wide figure has its files."""
    figures = (part for part in unfolded(parts) if isinstance(part, Figure))
    return {
        f"{stem}.html": page(cover, parts).encode(),
        f"{stem}.md": markdown(cover, parts).encode(),
        **{figure.name: figure.svg.encode() for figure in figures if not figure.wide},
    }
