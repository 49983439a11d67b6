"""What if: features ticked off and set, the answer beside the clean one, and who is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Context
from tests.browser.conftest import OWN, Opened, Watched
from tests.browser.reading import box, kept
from tests.support.answer_graphs import answer_graph, asked_graph
from tests.support.rich_graphs import HOSTILE, two_edges
from tests.support.saved_runs import Site, served, write_run

pytestmark = pytest.mark.slow

BIDI = "\u202eabc\u200f"


def said(page: Any) -> str:
    """What the panel says of the changed answer; empty where nothing is changed."""
    found = page.locator(".what-if:visible")
    return str(found.inner_text()) if found.count() else ""


def rows(page: Any) -> list[list[str]]:
    """Tokens with their probabilities before and after."""
    cells = page.locator(".what-if table tr").evaluate_all(
        "all => all.slice(1).map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    return [[line[0], line[2], line[3]] for line in cells]


def tick(page: Any, feature: str) -> Any:
    return page.locator(f'.ticks input[aria-label="{feature} is on"]')


def without(graph: CausalGraph) -> CausalGraph:
    """The graph as runs from before saved it."""
    assert graph.run.answer is not None
    run = replace(graph.run, answer=replace(graph.run.answer, what_if=None))
    return CausalGraph(run, graph.nodes, graph.edges)


def test_ticking_a_feature_off_shows_the_answer_without_it(opened: Opened) -> None:
    graph = asked_graph()
    page = opened(graph)
    assert said(page) == ""
    tick(page, "0.1@1").uncheck()
    text = said(page)
    assert "What if: without 0.1@1" in text
    assert "The log-odds of ) fall by 3.00 nats, from 4.00 to 1.00." in text
    assert rows(page)[0] == [")", "90%", "10%"]
    assert len(rows(page)) == 4
    widths = (
        page.locator(".what-if table tr")
        .nth(1)
        .locator(".chance")
        .evaluate_all("all => all.map(each => each.style.width)")
    )
    assert widths == ["90%", "10%"]
    off = box(page, graph, "0.1@1")
    assert "without" in off.get_attribute("class")
    assert off.locator(".switched").inner_text() == "off"
    assert off.get_attribute("aria-label").endswith("switched off")
    assert off.evaluate("each => getComputedStyle(each).borderTopStyle") == "dashed"
    assert page.locator(".all .edge.without").count() == 2
    page.keyboard.press("+")
    assert kept(page)["set"] == {"0.1@1": "off"}  # zooming keeps it, and the address does
    page.locator(".what-if button").click()
    assert said(page) == "" and "set" not in kept(page)
    assert page.locator(".node.without, .edge.without, .switched").count() == 0
    # All at once were measured; of two of them nothing is known, and nothing is added up.
    page.locator("text=all 6 drawn features off").click()
    assert "from 4.00 to −2.00" in said(page) and rows(page)[0] == [")", "90%", "10%"]
    page.locator(".what-if button").click()
    tick(page, "0.1@1").uncheck()
    tick(page, "1.2@1").uncheck()
    assert "sae-graphs view" in said(page) and "answers this" in said(page)
    assert page.locator(".what-if table").count() == 0
    assert "nats" not in said(page)


def test_by_the_keyboard_alone(opened: Opened) -> None:
    graph = asked_graph()
    page = opened(graph)
    box(page, graph, "1.2@1").focus()
    page.keyboard.press("x")
    assert "without 1.2@1" in said(page)
    assert page.evaluate("document.activeElement.classList.contains('node')")
    page.keyboard.press("x")
    assert said(page) == ""
    page.keyboard.press("Enter")
    switch = page.locator(".switch input")
    switch.focus()
    page.keyboard.press("Space")
    assert "without 1.2@1" in said(page)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "1.2@1 is on"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")  # what it is set to: 0 comes after off
    assert "with 1.2@1 ×0" in said(page)
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    box(page, graph, "token@1").focus()
    page.keyboard.press("x")
    assert "token" not in said(page)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"0.1@1": "off"}, "fall by 3.00 nats"),
        ({"9.9@9": "off", "answer": "off", "token@1": 2}, ""),
        ({"0.1@1": "mean"}, ""),
        ({"0.1@1": 1e9, "1.2@1": None, "__proto__": "off"}, ""),
        ("off", ""),
        ({"0.1@1": 0.25}, "with 0.1@1 ×0.25"),
    ],
)
def test_an_address_says_what_is_off(opened: Opened, state: Any, words: str) -> None:
    address = f"#{quote(json.dumps({'set': state}))}"
    text = said(opened(asked_graph(), address=address))
    assert words in text and bool(text) == bool(words)


def test_a_run_without_outcomes_says_so_and_a_graph_of_effects_nothing(opened: Opened) -> None:
    page = opened(without(asked_graph()))
    tick(page, "0.1@1").uncheck()
    assert "This run holds no changed answers." in said(page)
    assert opened(two_edges()).locator(".ticks, .switch").count() == 0


def test_hostile_tokens_are_shown_as_they_are(opened: Opened) -> None:
    tokens = ("<img src=x onerror=window.hacked=1>", BIDI, *HOSTILE)
    page = opened(asked_graph(tokens))
    for each in page.locator(".ticks input").all()[:3]:
        each.uncheck()
        text = said(page)
        assert "<img␣src=x␣onerror" in text
        assert not set("\u202e\u200f\x00") & set(text)
        each.check()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, [onerror]").count() == 0
    ends = page.locator(".what-if").evaluate("each => each.scrollWidth - each.clientWidth")
    assert ends <= 0


# -- from a server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "one", asked_graph())
    with served(folder, "tests.support.answering") as running:
        yield running


@pytest.fixture
def visit(watch: Callable[..., Watched], site: Site) -> Callable[..., Any]:
    """The run's page; features are `set` as its address says."""
    root = f"http://127.0.0.1:{site.port}"

    def visiting(**values: Any) -> Any:
        page = watch(own=(root, *OWN)).page
        page.goto(f"{root}/run/one/#{quote(json.dumps(values))}")
        page.wait_for_selector("html.ready")
        return page

    return visiting


def test_what_the_page_does_not_hold_is_asked_of_its_server(visit: Callable[..., Any]) -> None:
    graph, page = asked_graph(), visit()
    tick(page, "0.1@1").uncheck()
    assert "fall by 3.00 nats" in said(page)  # this it holds
    box(page, graph, "1.2@1").click()
    page.locator(".switch select").select_option("2")
    expect(page.locator(".what-if table")).to_be_visible(timeout=20_000)
    assert "[('0.1@1', 'off'), ('1.2@1', 'x2')]" in said(page)
    assert rows(page)[1] == ["<img src=x>\\u202e", "1.0%", "50%"]
    assert box(page, graph, "1.2@1").locator(".switched").inner_text() == "×2"


def test_while_it_loads_the_page_says_so_and_shows_no_old_answer(visit: Callable[..., Any]) -> None:
    page = visit(set={"0.1@1": 3})
    status = page.locator(".what-if [role=status]")
    expect(status).to_have_text(re.compile(r"(loading|running) the model \.\.\."), timeout=20_000)
    assert page.locator(".what-if table").count() == 0
    expect(page.locator(".what-if table")).to_be_visible(timeout=20_000)
    assert "x3" in said(page)


def test_a_model_that_cannot_be_loaded_is_one_line(visit: Callable[..., Any]) -> None:
    page = visit(set={"0.1@1": 7})
    status = page.locator(".what-if [role=status]")
    words = "the run's model cannot be loaded: <b>none</b>"
    expect(status).to_have_text(words, timeout=20_000)


# -- the toolbar, and words ------------------------------------------------------------------------

LINE = 36  # pixels: no group of the toolbar is higher
HEIGHTS = {1280: 44, 900: 44, 600: 74, 380: 74}


def test_the_toolbar_wraps_by_groups_at_any_width(opened: Opened) -> None:
    page = opened(asked_graph())
    for width, height in HEIGHTS.items():
        page.set_viewport_size({"width": width, "height": 800})
        for is_open in (False, True):
            groups = page.locator(".toolbar > *, .rest > *").evaluate_all(
                "all => all.filter(each => each.offsetHeight && each.id !== 'rest')"
                ".map(each => each.offsetHeight)"
            )
            assert max(groups) <= LINE, (width, groups)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.getElementById('least').offsetHeight > 0") is is_open
            if not is_open:
                assert page.locator(".toolbar").bounding_box()["height"] <= height, width
            page.evaluate("document.getElementById('more').click()")
    page.set_viewport_size({"width": 1440, "height": 900})


def test_no_word_is_broken_where_it_fits(opened: Opened) -> None:
    graph = answer_graph()
    pieces = (" un", "believ", "able", ".", " w" + "ord", "s", "\n", "n" * 90) * 3
    context = Context(pieces, tuple(float(number % 3) for number, _ in enumerate(pieces)))
    nodes = [
        replace(node, contexts=(context,)) if node.feature.is_feature else node
        for node in graph.nodes
    ]
    graph = CausalGraph(graph.run, tuple(nodes), graph.edges)
    page = opened(graph)
    box(page, graph, "0.1@1").click()
    text = page.locator(".text.context").first
    assert text.inner_text().replace("\n", "").count("believable.") == 3
    lines = text.locator(".word").evaluate_all(
        "all => all.map(each => [each.textContent, each.offsetHeight])"
    )
    usual = min(height for _, height in lines)
    assert {words.strip() for words, height in lines if height > 1.5 * usual} == {"n" * 90}
    assert {"unbelievable.", "words↵"} <= {words.strip() for words, _ in lines}
    assert text.evaluate("each => each.scrollWidth <= each.clientWidth")
