"""Details of the explorer that once went wrong: folded groups, paper, frames, focus, addresses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from sae_graphs.graph.annotations import Annotations, Group
from sae_graphs.graph.feature_id import FeatureId
from tests.browser.conftest import Opened
from tests.browser.reading import arrows, box, kept, slide
from tests.browser.test_explorer import FEATURE, diamond
from tests.support.rich_graphs import graph_of, large, two_edges

pytestmark = pytest.mark.slow


def folded(*names: str) -> Annotations:
    return Annotations(groups=(Group("middle", tuple(map(FEATURE, names)), folded=True),))


# -- folded groups ---------------------------------------------------------------------------------


def test_a_folded_group_is_reached_and_left_by_the_keyboard(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph, page={"annotations": folded("0.12", "1.24")})
    assert page.locator(".stage [tabindex='0']").count() == 1
    box(page, graph, "2.36").click()
    box(page, graph, "2.36").focus()
    page.keyboard.press("ArrowDown")  # its strongest arrow comes from the group
    assert kept(page)["on"] == "group:middle"
    expect(page.locator(".node.super")).to_be_focused()
    page.keyboard.press("ArrowUp")  # the group's strongest arrow that leads out of it
    assert kept(page)["on"] == "2.36"
    expect(box(page, graph, "2.36")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(".panel h2").inner_text() == "middle"


def test_a_tab_stop_is_left_whatever_is_folded(opened: Opened) -> None:
    graph = diamond()
    every = folded(*(str(node.feature) for node in graph.nodes))
    for said in (folded(str(graph.nodes[0].feature)), every):
        page = opened(graph, page={"annotations": said})
        stop = page.locator(".stage [tabindex='0']")
        assert stop.count() == 1 and stop.is_visible()


def test_what_a_folded_group_hides_is_found_no_longer_than_searched(opened: Opened) -> None:
    page = opened(diamond(), page={"annotations": folded("1.24", "2.36")})
    page.locator("#search").fill("1.24")
    assert page.locator(".super.found").count() == 1
    page.locator("#search").fill("")
    assert page.locator(".found").count() == 0


def test_a_chosen_group_is_in_the_address(opened: Opened) -> None:
    graph = diamond()
    said = folded("1.24", "2.36")
    page = opened(graph, page={"annotations": said})
    page.locator(".node.super").click()
    assert kept(page) == {"on": "group:middle"}
    slide(page, "least", 1)
    assert page.locator(".panel h2").inner_text() == "middle"
    page.reload()
    page.wait_for_selector("html.ready")
    assert page.locator(".panel h2").inner_text() == "middle"
    page.get_by_text("dissolve").click()
    assert page.locator(".panel h2").inner_text() == "The whole graph"


BEHIND = """() => [...document.querySelectorAll(".all .edge:not(.off)")].flatMap((edge) => {
  const line = edge.firstElementChild, length = line.getTotalLength();
  const boxes = [...document.querySelectorAll(".node:not(.folded)")].map((box) =>
    [box.offsetLeft + 3, box.offsetTop + 3, box.offsetWidth - 6, box.offsetHeight - 6]);
  return Array.from({ length: 200 }, (_, step) => line.getPointAtLength((length * step) / 200))
    .filter(({ x, y }) => boxes.some(([l, t, w, h]) => x > l && x < l + w && y > t && y < t + h));
}).length"""


def test_arrows_of_folded_groups_run_behind_no_box(opened: Opened) -> None:
    graph = large(6, 7)
    names = [str(node.feature) for node in graph.nodes]
    for members in (("0.1", "2.3", "4.5"), ("1.2", "1.4"), ("0.0", "5.6")):
        assert set(members) <= set(names)
        page = opened(graph, page={"annotations": folded(*members)})
        assert page.evaluate(BEHIND) == 0
    page.get_by_text("unfold", exact=True).click()
    laid = page.eval_on_selector_all(
        ".all .edge > path:first-child",
        "all => all.every(p => p.getAttribute('d') === p.dataset.laid)",
    )
    assert laid


def test_numbers_of_folded_groups_stand_apart(opened: Opened) -> None:
    graph = large(4, 5)
    page = opened(graph, page={"annotations": folded("1.1", "1.2", "2.3")})
    places = page.eval_on_selector_all(
        ".numbers text:not(.off)",
        "all => all.map(text => [text.getAttribute('x'), text.getAttribute('y')].join())",
    )
    assert len(places) > 40
    assert len(set(places)) == len(places)


def test_the_button_of_a_group_keeps_the_focus(opened: Opened) -> None:
    one, two = Group("one", (FEATURE("1.24"),), True), Group("two", (FEATURE("1.25"),), True)
    page = opened(diamond(), page={"annotations": Annotations(groups=(one, two))})
    page.locator("[data-key='fold one']").focus()
    for shown in (1, 2, 1):
        page.keyboard.press("Enter")
        assert page.locator(".node.super").count() == shown
        expect(page.locator("[data-key='fold one']")).to_be_focused()


# -- paper, frames, windows ------------------------------------------------------------------------


@pytest.mark.parametrize("width", [740, 1100, 1600])
def test_on_paper_nothing_lies_over_anything(opened: Opened, width: int) -> None:
    note = {FEATURE("0.12"): "where it begins"}
    said = Annotations(notes=note, note="all of it")
    page = opened(diamond(), page={"annotations": said}, viewport={"width": width, "height": 1000})
    for _ in range(12):
        page.locator('[data-zoom="0.8"]').click()
    page.emulate_media(media="print")
    stage, below = (page.locator(name).bounding_box() for name in (".stage", ".below"))
    assert stage["y"] + stage["height"] <= below["y"] + 1
    assert page.locator(".node .active").first.is_visible()  # from afar or not, paper has it all
    shown = page.locator("#notes").inner_text()
    assert "all of it" in shown and "0.12 where it begins" in shown
    page.emulate_media(media="screen")
    page.get_by_label("note on the whole graph").fill("still being written")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert "still being written" in page.locator("#notes").inner_text()


def test_in_a_notebooks_frame_groups_can_be_made(watch: Any, tmp_path: Path) -> None:
    graph = two_edges()
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html>{graph.explore()._repr_html_()}", encoding="utf-8")
    page = watch().page
    page.goto(file.as_uri())
    frame = page.frame_locator("iframe")
    # events, not a pointer: a frame of another origin is drawn too rarely to wait for
    frame.locator('.node[data-n="0"]').dispatch_event("click")
    frame.locator(".panel .pin").dispatch_event("click")
    frame.get_by_label("name of a group").fill("mine")
    frame.get_by_text("group 1 pinned").dispatch_event("click")
    expect(frame.locator(".node .tab")).to_have_text("mine")
    frame.locator("#keys-button").dispatch_event("click")
    frame.locator("#keys button").dispatch_event("click")
    expect(frame.locator("#keys")).to_be_hidden()


@pytest.mark.parametrize("width", [700, 1366, 1440, 2560])
def test_the_drawing_ends_within_the_window(opened: Opened, width: int) -> None:
    page = opened(diamond(), viewport={"width": width, "height": 900})
    if width > 860:
        work = page.locator(".work").bounding_box()
        assert work["y"] + work["height"] <= 901
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_bookmark_shows_the_same_place_in_another_window(opened: Opened) -> None:
    graph = large(5, 9)
    page = opened(graph, viewport={"width": 2400, "height": 1200})
    box(page, graph, "4.8").click()
    address = f"#{quote(json.dumps({**kept(page), 'camera': [*middle_of(page, '4.8', graph), 1]}))}"
    for size in ((2400, 1200), (900, 700)):
        again = opened(graph, address=address, viewport={"width": size[0], "height": size[1]})
        place = box(again, graph, "4.8").bounding_box()
        view = again.locator(".view").bounding_box()
        for start, length in (("x", "width"), ("y", "height")):
            centre = place[start] + place[length] / 2
            assert centre == pytest.approx(view[start] + view[length] / 2, abs=2)


def middle_of(page: Any, feature: str, graph: Any) -> list[float]:
    """The middle of a box in the drawing's own pixels."""
    style = box(page, graph, feature).evaluate(
        "box => [box.offsetLeft + box.offsetWidth / 2, box.offsetTop + box.offsetHeight / 2]"
    )
    return [round(value) for value in style]


def test_a_sign_is_seen_from_afar_without_its_hue(opened: Opened) -> None:
    page = opened(large(8, 30))
    assert page.locator(".stage.far").count() == 1
    dash = "arrow => getComputedStyle(arrow).strokeDasharray"
    suppressing, promoting = (
        page.locator(f".all .edge.{sign}").first.evaluate(dash)
        for sign in ("suppresses", "promotes")
    )
    assert promoting == "none"
    scale = page.locator(".stage").evaluate("s => new DOMMatrix(getComputedStyle(s).transform).a")
    assert float(suppressing.split("px")[0]) * scale > 3


# -- controls --------------------------------------------------------------------------------------


def test_zooming_keeps_the_selection(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    box(page, graph, "1.24").click()
    for zoom in ("1.25", "0.8", "0"):
        page.locator(f'[data-zoom="{zoom}"]').click()
        assert kept(page)["on"] == "1.24"
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_timeout(250)
    assert kept(page)["on"] == "1.24" and "camera" in kept(page)
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    assert kept(page)["on"] == "1.24"


def test_buttons_of_the_panel_keep_the_focus(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    box(page, graph, "1.24").click()
    pin = page.locator(".panel .pin")
    pin.focus()
    page.keyboard.press("Enter")
    expect(pin).to_be_focused()
    expect(pin).to_have_attribute("aria-pressed", "true")


def test_search_goes_round_in_both_directions(opened: Opened) -> None:
    page = opened(diamond())
    page.locator("#search").fill("1.2")
    page.locator("#search").press("Shift+Enter")
    assert kept(page)["on"] == "1.25"
    page.locator("#search").press("Shift+Enter")
    assert kept(page)["on"] == "1.24"
    page.locator("#search").press("Enter")
    assert kept(page)["on"] == "1.25"


def test_the_sliders_stay_where_they_are_put(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    last = int(page.locator("#least").get_attribute("max"))
    slide(page, "least", last)
    assert page.locator("#least").input_value() == str(last)
    assert arrows(page, graph) == {"0.12>1.24"}
    alone = graph_of(("0.1", "1.2", -8.0))
    page = opened(alone)
    slide(page, "least", 0)
    assert page.locator("#least-said").inner_text() == "any"
    assert arrows(page, alone) == {"0.1>1.2"}


# -- what is written -------------------------------------------------------------------------------


def test_a_loaded_file_can_be_undone_and_names_the_page(opened: Opened, tmp_path: Path) -> None:
    graph = diamond()
    page = opened(graph)
    box(page, graph, "0.12").click()
    page.get_by_label("note of 0.12").fill("mine")
    file = tmp_path / "theirs.json"
    theirs = {"schema": "sae_graphs/annotations/1", "title": "Theirs", "caption": "Figure 7."}
    file.write_text(json.dumps(theirs))
    page.locator("#file").set_input_files(file)
    expect(page.locator("h1")).to_have_text("Theirs")
    expect(page.locator(".figure-caption")).to_have_text("Figure 7.")
    assert "notes" not in kept(page)
    page.get_by_text("undo").click()
    expect(page.locator("h1")).to_have_text("Causal graph")
    assert kept(page)["notes"] == {"0.12": "mine"}
    page.locator("#file").set_input_files(file)
    expect(page.locator("h1")).to_have_text("Theirs")
    page.get_by_label("note of 0.12").fill("written since")
    assert page.get_by_text("undo").count() == 0  # it would take that away


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({"pins": None, "groups": None, "labels": None}, 0),
        ({"note": "x" * 2001}, 1),
        ({"note": "😀" * 1500}, 0),
        ({"groups": [{"name": "a", "features": ["0.12"]}, {"name": "a", "features": ["1.24"]}]}, 1),
        ({"groups": [{"name": "a", "features": ["0.12"]}, {"name": "b", "features": ["0.12"]}]}, 1),
        ({"groups": [{"name": "a", "features": []}]}, 1),
        ({"pins": ["9.9", "0.12"]}, 1),
    ],
)
def test_what_does_not_fit_is_counted(
    opened: Opened, tmp_path: Path, changed: dict[str, Any], left: int
) -> None:
    page = opened(diamond())
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"schema": "sae_graphs/annotations/1", **changed}), "utf-8-sig")
    page.locator("#file").set_input_files(file)
    told = f"{left} parts" if left else "loaded undo"
    expect(page.locator("#said")).to_contain_text(told)


def test_no_label_turns_the_text_around_it(opened: Opened) -> None:
    graph = two_edges()
    feature = FeatureId.parse("0.1")
    page = opened(graph, page={"annotations": Annotations(labels={feature: "\u202eevil 12.3"})})
    expect(box(page, graph, "0.1").locator(".label")).to_have_text("\\u202eevil 12.3")
    assert "\u202e" not in page.locator("body").inner_text()
