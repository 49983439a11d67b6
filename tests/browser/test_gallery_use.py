"""What only a browser can tell of the gallery and the comparison: places, history, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
from playwright.sync_api import expect

from sae_graphs.graph.graph import assemble
from sae_graphs.render.pictures import png
from tests.browser.conftest import OWN, Watched
from tests.support.rich_graphs import large, two_components, two_edges
from tests.support.saved_runs import Site, served, write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("browsing") / "runs"
    write_run(folder / "new\nline", two_components())
    write_run(folder / "back\\slash", two_edges())
    whole = large(4, 12)
    write_run(folder / "few", assemble(whole.run, whole.nodes, whole.edges[:2]))
    write_run(folder / "large", whole)
    (folder / "few" / "graph.png").write_bytes(png(two_edges()))
    with served(folder) as running:
        yield running


@pytest.fixture
def visit(watch: Callable[..., Watched], runs: Site) -> Callable[..., Any]:
    """A page of the gallery; an error in its console fails the test."""
    root = f"http://127.0.0.1:{runs.port}"

    def visiting(path: str, **options: Any) -> Any:
        page = watch(own=(root, *OWN), **options).page
        page.goto(root + path)
        return page

    return visiting


def test_back_from_a_comparison_the_first_tick_is_still_the_left_one(
    visit: Callable[..., Any],
) -> None:
    page = visit("/")
    names = page.locator(".card input[type=checkbox]").evaluate_all("all => all.map(x => x.value)")
    second, first = sorted(("few", "large"), key=names.index)  # against the page's own order
    asked = re.compile(f"a={first}&b={second}")
    for name in (first, second):
        page.locator(f'.card input[value="{name}"]').check()
    chosen = page.locator("#chosen").inner_text()
    page.locator("#compare").click()
    expect(page).to_have_url(asked)
    page.go_back()
    expect(page.locator("#chosen")).to_have_text(chosen)
    page.locator("#compare").click()
    expect(page).to_have_url(asked)
    page.go_back()
    page.locator("#clear").click()
    expect(page.locator("#compare")).to_be_disabled()
    page.reload()
    assert page.locator(".card input:checked").count() == 0


def test_a_picture_as_a_page_logs_no_error(visit: Callable[..., Any]) -> None:
    page = visit("/run/few/graph.png")
    assert page.locator("img").evaluate("image => image.naturalWidth") > 0


def test_every_card_leads_to_its_run_whatever_it_is_called(visit: Callable[..., Any]) -> None:
    page = visit("/")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    for place in range(page.locator(".card h2 a").count()):
        page.locator(".card h2 a").nth(place).click()
        page.wait_for_selector("html.ready")
        page.go_back()


@pytest.mark.parametrize("width", [1400, 1900])
@pytest.mark.parametrize("steps", [0, 7])
def test_no_number_covers_anything_on_the_screen(
    visit: Callable[..., Any], width: int, steps: int
) -> None:
    """At a glance, and close by: as the browser sets the type."""
    page = visit("/compare?a=few&b=large", viewport={"width": width, "height": 950})
    page.wait_for_selector("html.ready")
    for _ in range(steps):
        page.keyboard.press("+")
    edges = "(box => [box.left, box.top, box.right, box.bottom])(each.getBoundingClientRect())"
    find = f"all => all.map(each => {edges}).filter(each => each[2] > each[0])"
    texts = page.locator("#right .numbers text").evaluate_all(find)
    boxes = page.locator("#right .node, #right .layer").evaluate_all(find)
    assert len(texts) > 20 and len(boxes) > 40

    def touching(one: list[float], other: list[float]) -> bool:
        wide = min(one[2], other[2]) - max(one[0], other[0])
        return wide > 1 and min(one[3], other[3]) - max(one[1], other[1]) > 1

    assert not [pair for pair in combinations(texts, 2) if touching(*pair)]
    assert not [(one, box) for one in texts for box in boxes if touching(one, box)]
