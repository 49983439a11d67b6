"""Hostile text in prompts, contexts, explanations, labels: shown, and never run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from sae_graphs.graph.annotations import Annotations, Group
from sae_graphs.graph.graph import CausalGraph
from tests.browser.conftest import Opened
from tests.browser.reading import box
from tests.support.rich_graphs import HOSTILE, hostile, resolved, two_edges

pytestmark = pytest.mark.slow

ATTACK = (
    "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    '<svg onload=window.hacked=1>" onmouseover="window.hacked=1" \''
)


def attacked() -> CausalGraph:
    """The hostile graph with more of it: what runs in pages, and addresses that are scripts."""
    graph = hostile()
    nodes = tuple(
        replace(
            node,
            neuronpedia="javascript:window.hacked=1",
            page=replace(node.page, explanation=ATTACK),
        )
        for node in graph.nodes
        if node.page is not None
    )
    tokens = (ATTACK, *graph.run.tokens[1:])
    run = replace(graph.run, tokens=tokens, prompt=ATTACK, warnings=(ATTACK,))
    return CausalGraph(run, nodes, graph.edges)


def _not_hacked(page: Any) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, svg[onload], [onerror], [onmouseover]").count() == 0


def test_hostile_text_is_shown_and_runs_nothing(opened: Opened) -> None:
    graph = attacked()
    texts = dict.fromkeys((node.feature for node in graph.nodes), ATTACK)
    group = Group(ATTACK, (graph.nodes[0].feature,), folded=True)
    said = Annotations(ATTACK, ATTACK, groups=(group,), labels=texts, notes=texts, note=ATTACK)
    page = opened(graph, page={"annotations": said})
    _not_hacked(page)
    for node in graph.nodes[1:]:
        box(page, graph, str(node.feature)).click()
        assert "window.hacked" in page.locator(".panel").inner_text()
        _not_hacked(page)
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    assert page.locator("a[href^='javascript']").count() == 0
    _not_hacked(page)


@pytest.mark.parametrize("graph", [hostile(), resolved(hostile_text=True)], ids=["plain", "each"])
def test_every_hostile_token_can_be_read(opened: Opened, graph: CausalGraph) -> None:
    page = opened(graph)
    shown = page.locator(".prompt").inner_text()
    assert "<script>alert(1)</script>".replace(" ", "␣") in shown
    for number in range(len(graph.nodes)):
        page.keyboard.press("Escape")
        box(page, graph, str(graph.nodes[number].feature)).dispatch_event("click")
        assert page.locator(".panel h2").first.inner_text()
    assert len(HOSTILE) > 10


def test_an_address_can_carry_no_script(opened: Opened) -> None:
    state = {"labels": {"0.1": ATTACK}, "query": ATTACK, "on": "0.1"}
    graph = two_edges()
    page = opened(graph, address=f"#{quote(json.dumps(state))}")
    assert "window.hacked" in box(page, graph, "0.1").locator(".label").inner_text()
    _not_hacked(page)
