"""Static pictures as a browser draws them, which measures text in its own way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Context
from sae_graphs.render import pictures as render
from tests.support.rich_graphs import graph_of, resolved

pytestmark = pytest.mark.slow

# Every text of the picture: where it starts, where the browser ends it, and its line.
_TEXTS = """texts => texts.map(text => ({
    line: text.getAttribute("y"),
    start: Number(text.getAttribute("x")),
    end: Number(text.getAttribute("x")) + text.getComputedTextLength(),
    text: text.textContent,
}))"""
_ROUNDING = 0.75  # points: less than the room that a letter has beside it


def long_contexts() -> CausalGraph:
    """Boxes whose lines are long texts in front of a shaded token."""
    context = Context(
        ("All rights of the maker re", "served", " by", " them"), (0.0, 4.0, 1.0, 0.0)
    )
    return graph_of(("0.1", "1.2", -8.0), ("1.2", "2.3", 2.0), contexts=(context,) * 3)


@pytest.mark.parametrize("graph", [long_contexts(), resolved(24)], ids=["long", "resolved"])
def test_no_text_runs_under_the_ground_of_the_next(
    watch: Callable[..., Any], tmp_path: Path, graph: CausalGraph
) -> None:
    file = tmp_path / "graph.svg"
    file.write_text(render.svg(graph), encoding="utf-8")
    page = watch().page
    page.goto(file.as_uri())
    texts = page.eval_on_selector_all("text", _TEXTS)
    lines: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        lines.setdefault(text["line"], []).append(text)
    hidden = []
    for line in lines.values():
        line.sort(key=lambda text: float(text["start"]))
        hidden += [
            (text["text"], after["text"])
            for text, after in pairwise(line)
            if text["end"] > after["start"] + _ROUNDING
        ]
    assert len(texts) > 50
    assert hidden == []
