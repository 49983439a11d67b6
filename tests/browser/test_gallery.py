"""The gallery and the comparison as a reader uses them, among damaged and hostile runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OWN, Watched
from tests.support.answer_graphs import answer_graph
from tests.support.rich_graphs import graph_of
from tests.support.saved_runs import HOSTILE_NAME, Site, make_runs, served, write_run

pytestmark = pytest.mark.slow

LEFT: tuple[tuple[str, str, float], ...] = (
    ("0.1", "1.2", -8.0),
    ("1.2", "2.3", 2.0),
    ("0.1", "1.5", 1.0),
)
RIGHT: tuple[tuple[str, str, float], ...] = (
    ("0.1", "1.2", -6.0),
    ("1.2", "2.3", 3.0),
    ("0.1", "1.6", -4.0),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = make_runs(tmp_path_factory.mktemp("gallery") / "runs")
    write_run(folder / "left", graph_of(*LEFT))
    write_run(folder / "right", graph_of(*RIGHT))
    write_run(folder / "answer", answer_graph())
    with served(folder) as running:
        yield running


@pytest.fixture
def visit(watch: Callable[..., Watched], site: Site) -> Callable[..., Any]:
    """A page of the gallery; anything that asks another place fails the test."""
    root = f"http://127.0.0.1:{site.port}"

    def visiting(path: str, **options: Any) -> Any:
        page = watch(own=(root, *OWN), **options).page
        page.goto(root + path)
        return page

    return visiting


def lit(page: Any, side: str) -> set[str]:
    """The boxes that are lit on one side, by what they say."""
    found = page.locator(f"#{side} .node.on .head b")
    return set(found.all_inner_texts())


def test_every_run_has_its_card(visit: Callable[..., Any]) -> None:
    page = visit("/")
    names = page.locator(".card input[type=checkbox]").evaluate_all("all => all.map(x => x.value)")
    assert {"left", "right", "plain", HOSTILE_NAME} <= set(names)
    assert page.locator(".card.broken").count() > 0
    page.locator("#filter").fill("0.1 of nothing")
    assert not [card for card in page.locator(".card").all() if card.is_visible()]
    page.locator("#filter").fill("left")
    shown = [card for card in page.locator(".card").all() if card.is_visible()]
    assert len(shown) == 1 and "left" in shown[0].inner_text()


def test_two_cards_are_compared(visit: Callable[..., Any]) -> None:
    page = visit("/")
    for name in ("left", "right"):
        page.locator(f'.card input[value="{name}"]').check()
    page.locator("#compare").click()
    expect(page).to_have_url(re.compile(r"/compare\?a=left&b=right"))
    said = page.locator("body").inner_text()
    for words in ("2 arrows shared", "1 arrows lost", "1 arrows new"):
        assert words in said or words.replace("arrows", "arrow") in said


def test_what_is_lit_on_one_side_is_lit_on_the_other(visit: Callable[..., Any]) -> None:
    page = visit("/compare?a=left&b=right")
    page.wait_for_selector("html.ready, html.js")
    page.locator("#left .node", has_text="1.2").first.hover()
    assert {"1.2"} <= lit(page, "left") & lit(page, "right")


@pytest.mark.parametrize("other", ["left", "answer"])
def test_boxes_say_something_at_every_scale(visit: Callable[..., Any], other: str) -> None:
    page = visit(f"/compare?a=answer&b={other}")
    page.wait_for_selector("html.ready, html.js")
    seen = set()
    for _ in range(8):
        seen.add(page.locator("#left .stage").get_attribute("class"))
        empty = page.locator(".node:not(.ghost)").evaluate_all(
            "all => all.filter(box => !box.innerText.replace(/lost|new/, '').trim()).length"
        )
        assert empty == 0, seen
        page.locator("button", has_text="−").click()
    assert {"stage mid", "stage far"} <= seen


def test_a_run_opens_in_the_explorer_and_leads_back(visit: Callable[..., Any]) -> None:
    page = visit("/run/left/")
    page.wait_for_selector("html.ready")
    assert page.locator(".node[data-n]").count() == len(graph_of(*LEFT))
    page.locator('.node[data-n="0"]').click()
    assert "0.1" in page.locator(".panel h2").inner_text()
    page.locator("a", has_text="all runs").click()
    expect(page.locator(".card").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gallery_follows_the_readers_colours(visit: Callable[..., Any], scheme: str) -> None:
    page = visit("/", color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 23, 42)"}[scheme]
