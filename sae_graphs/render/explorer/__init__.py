"""`graph.html`: one page that shows a graph and lets a reader explore it, offline."""

from __future__ import annotations

from sae_graphs.render.explorer.page import page

__all__ = ["page"]
