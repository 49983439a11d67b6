"""The report of a default answer graph in a browser: three screens, nothing too small to read."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.render.document.blocks import Figure
from sae_graphs.render.document.page import page as drawn
from sae_graphs.validation.answer.content import blocks, cover
from sae_graphs.validation.answer.records import AnswerReport
from tests.browser.conftest import Watched
from tests.support import evidence
from tests.support.answers import answer_report, graph_unit, null, path_unit

pytestmark = pytest.mark.slow

SCREENS = 3 * 900
SIZE = """all => Math.min(
  ...all.map(text => text.getScreenCTM().a * parseFloat(getComputedStyle(text).fontSize)))"""


def report(**changes: Any) -> AnswerReport:
    """As many features, paths and controls as a default graph has."""
    drawn = random.Random(0)
    names = tuple(FeatureId(str(n % 6), 100 * n, n) for n in range(16))

    def nulls(p: float) -> Any:
        scores = [tuple(drawn.gauss(2.0, 3.0) for _ in range(200)) for _ in range(3)]
        kinds: tuple[Any, ...] = ("matched", "scaled", "directions")
        return tuple(null(kind, p, scores=s) for kind, s in zip(kinds, scores, strict=True))

    paths = [
        path_unit(-0.5, -2.0, name=f"Path {n}", features=names[n : n + 5], nulls=nulls(0.3))
        for n in (1, 2, 3)
    ]
    return answer_report(graph_unit(features=names, nulls=nulls(0.005)), *paths, **changes)


@pytest.fixture
def shown(watch: Callable[..., Watched], tmp_path: Path) -> Callable[..., Any]:
    """The page of a report, opened from a file, with a picture of the graph."""

    def showing(found: AnswerReport, **options: Any) -> Any:
        svg = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 2000'></svg>"
        picture = Figure("graph-validated.svg", svg, "The graph, as tested.", wide=True)
        file = tmp_path / "validation.html"
        file.write_text(drawn(cover(found), blocks(found, picture)), encoding="utf-8")
        page = watch(viewport={"width": 1280, "height": 900}, **options).page
        page.goto(file.as_uri())
        return page

    return showing


def test_a_default_report_is_three_screens(shown: Callable[..., Any]) -> None:
    page = shown(report())
    height = "document.documentElement.scrollHeight"
    assert page.locator("details[open]").count() == 0
    assert page.evaluate(height) <= SCREENS
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.locator(".plot svg").count() == 5  # a unit each, and one of what is kept
    first = page.locator("body").inner_text()[:2000]
    for words in ("What was tested:", "What came out: ✓ supported: Graph; ✗ not supported: Path 1"):
        assert words in first
    assert "How far to trust it:" in first and "A matched control:" in first
    page.locator("details", has_text="The graph's picture").locator("summary").click()
    assert page.locator(".graph svg").is_visible()
    page.set_viewport_size({"width": 900, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    assert page.locator(".beside > .plot text").evaluate_all(SIZE) >= 9


def test_a_strip_is_read_in_the_dark(shown: Callable[..., Any]) -> None:
    colour = "it => getComputedStyle(it)"
    page = shown(report(), color_scheme="dark")
    ground = page.locator(".beside svg rect").first.evaluate(f"it => ({colour})(it).fill")
    ink = page.locator(".beside svg text").first.evaluate(f"it => ({colour})(it).fill")
    assert (ground, ink) == ("rgb(15, 23, 42)", "rgb(163, 177, 198)")


def test_hostile_text_in_a_report_does_nothing(shown: Callable[..., Any]) -> None:
    hostile = evidence.HOSTILE
    page = shown(report(prompt=hostile, target=hostile, contrast=hostile, warnings=(hostile,)))
    assert "<script>alert(1)</script>" in page.locator("body").inner_text()
    assert page.locator("script").count() == 0
