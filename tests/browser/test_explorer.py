"""The explorer as a reader uses it: hover, click, filter, search, pin, group, write, come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from sae_graphs.graph.annotations import Annotations, Group
from sae_graphs.graph.annotations import load as load_annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.paths import on_long_paths
from sae_graphs.render.explorer.data import set_ranks
from sae_graphs.render.marks import Finding
from tests.browser.conftest import Opened
from tests.browser.reading import arrows, box, boxes, kept, named, slide
from tests.support.rich_graphs import graph_of, large, record, resolved, two_components

pytestmark = pytest.mark.slow

FEATURE = FeatureId.parse


def diamond() -> CausalGraph:
    """A diamond, a tail, and a weak chain beside it; one explanation."""
    edges = (
        ("0.12", "1.24", -8.0),
        ("0.12", "1.25", 4.0),
        ("1.24", "2.36", -6.0),
        ("1.25", "2.36", -3.0),
        ("2.36", "3.48", 2.0),
        ("0.90", "1.91", -1.0),
    )
    page = FeaturePage("found", "opening brackets", density=0.01)
    graph = graph_of(*edges, run=record(settings={"min_path_edges": 3, "per": "layer"}))
    explained = [n if str(n.feature) != "1.25" else _with(n, page) for n in graph.nodes]
    return CausalGraph(graph.run, tuple(explained), graph.edges)


def _with(node: Any, page: FeaturePage) -> Any:
    from dataclasses import replace

    return replace(
        node, page=page, neuronpedia="https://www.neuronpedia.org/gpt2-small/1-res-jb/25"
    )


# -- light -----------------------------------------------------------------------------------------


def test_hovering_lights_what_leads_to_a_box_and_what_it_leads_to(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    box(page, graph, "1.24").hover()
    assert boxes(page, graph, "self") == {"1.24"}
    assert boxes(page, graph, "up") == set(map(str, graph.ancestors("1.24"))) == {"0.12"}
    assert boxes(page, graph, "down") == set(map(str, graph.descendants("1.24")))
    lit = arrows(page, graph, ".lit .edge")
    assert lit == {"0.12>1.24", "1.24>2.36", "2.36>3.48"}
    page.mouse.move(5, 5)
    assert boxes(page, graph, "on") == set()


def test_a_large_graph_is_lit_as_the_graph_says(opened: Opened) -> None:
    graph = large(6, 8)
    page = opened(graph)
    box(page, graph, "3.2").hover()
    assert boxes(page, graph, "up") == set(map(str, graph.ancestors("3.2")))
    assert boxes(page, graph, "down") == set(map(str, graph.descendants("3.2")))


# -- the panel -------------------------------------------------------------------------------------


def test_a_box_opens_all_that_is_known_of_it(opened: Opened) -> None:
    graph = resolved()
    feature = str(next(edge.source for edge in graph.edges if edge.anatomy))
    edge = graph.find_edges(source=feature)[0]
    page = opened(graph)
    box(page, graph, feature).click()
    said = page.locator(".panel").inner_text()
    for words in (feature, "Activation at each token", "Most active on", "reserved"):
        assert words in said
    assert "Ablating it lowers (nats)" in said and "−3.25" in said
    assert "Leads to" in said and "skip" in said  # the anatomy of its arrows
    assert "written by attention 1 (62%)" in said or "written by" in said
    page.locator(".panel .link.number").last.click()
    said = page.locator(".panel").inner_text()
    assert "the source" in said and "change of the pre-activation" in said
    held = next(it for it in (kept(page) for _ in range(20)) if "on" in it)  # once it rests
    assert held["on"].startswith(f"{feature}>") or feature in held["on"]
    assert edge.anatomy is not None


def test_the_panel_tells_what_was_tested(opened: Opened) -> None:
    graph = diamond()
    found = Finding(
        "Graph 1",
        "component",
        1,
        (FEATURE("0.12"), FEATURE("1.24")),
        "supported",
        True,
        "Needed: the target falls.",
        needed={FEATURE("1.24"): 0.37},
        carried={(FEATURE("0.12"), FEATURE("1.24")): 0.61},
        anchor="graph-1",
    )
    page = opened(graph, page={"findings": (found,), "report": "validation/validation.html"})
    link = page.locator(".panel .finding a")
    assert link.get_attribute("href") == "validation/validation.html#graph-1"
    assert "✓ supported" in page.locator(".panel").inner_text()
    page.locator(".panel .finding").hover()
    assert boxes(page, graph, "on") == {"0.12", "1.24"}
    assert arrows(page, graph, ".lit .edge") == {"0.12>1.24"}
    box(page, graph, "1.24").click()
    assert "left in place it undoes 37% of the change" in page.locator(".panel").inner_text()
    page.evaluate("location.hash = encodeURIComponent(JSON.stringify({on: '0.12>1.24'}))")
    expect(page.locator(".panel")).to_contain_text("61%")


def test_neuronpedia_is_asked_only_when_the_reader_asks(watch: Any, tmp_path: Path) -> None:
    from sae_graphs.render.pictures import html

    graph = diamond()
    file = tmp_path / "graph.html"
    file.write_text(html(graph), encoding="utf-8")
    watched = watch()
    page = watched.page
    page.route("https://**", lambda route: route.fulfill(status=200, body="the page"))
    page.goto(file.as_uri())
    box(page, graph, "1.25").click()
    assert "opening brackets" in page.locator(".panel").inner_text()
    assert watched.asked == []
    page.get_by_text("show it here").click()
    page.wait_for_selector(".panel iframe")
    page.wait_for_timeout(200)
    assert watched.asked == ["https://www.neuronpedia.org/gpt2-small/1-res-jb/25?embed=true"]
    watched.asked.clear()


# -- filters ---------------------------------------------------------------------------------------


def test_the_slider_of_effects_keeps_what_is_as_large(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    sizes = sorted({abs(edge.effect) for edge in graph.edges})
    for place, size in enumerate(sizes):
        slide(page, "least", place)
        assert arrows(page, graph) == named(e for e in graph.edges if abs(e.effect) >= size)
    assert kept(page)["least"] == sizes[-1]
    assert "0.90" in boxes(page, graph, "off")  # none of its arrows is left


@pytest.mark.parametrize("per", ["layer", "source", "graph"])
def test_the_slider_of_top_k_counts_in_each_set(opened: Opened, per: str) -> None:
    graph = large(4, 6)
    run = record(settings={"per": per, "min_path_edges": 2}, layers=graph.run.layers)
    graph = CausalGraph(run, graph.nodes, graph.edges)
    page = opened(graph)
    ranks = set_ranks(graph)
    slide(page, "top", 2)
    expected = [edge for edge, rank in zip(graph.edges, ranks, strict=True) if rank <= 2]
    assert arrows(page, graph) == named(expected)
    assert len(expected) == {"layer": 6, "source": 36, "graph": 2}[per]


def test_signs_components_and_whole_paths(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    page.locator('[data-sign="suppresses"]').click()
    assert arrows(page, graph) == named(graph.find_edges(sign="suppresses"))
    page.locator('[data-sign="both"]').click()
    page.locator("#component").select_option("2")
    assert arrows(page, graph) == {"0.90>1.91"}
    page.locator("#component").select_option("0")
    page.locator("#whole").check()
    assert arrows(page, graph) == named(on_long_paths(graph.edges, 3))
    slide(page, "least", 3)  # 4 and more: the tail of every path is gone
    assert arrows(page, graph) == set()


SEARCHES = {
    "24": {"1.24"},
    "1.2": {"1.24", "1.25"},
    "BRACKETS": {"1.25"},
    "␣and": {"0.12", "1.24", "1.25", "2.36", "3.48", "0.90", "1.91"},
    "nothing like it": set(),
    "tail end": {"3.48"},
}


def test_search_by_index_meaning_token_and_label(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph, page={"annotations": Annotations(labels={FEATURE("3.48"): "Tail end"})})
    for query, found in SEARCHES.items():
        page.keyboard.press("/")
        page.keyboard.press("Control+a")
        page.keyboard.type(query)
        assert boxes(page, graph, "found") == found, query
        assert page.locator("#found").inner_text() == f"{len(found)} found"
        if len(found) == 1:
            page.keyboard.press("Enter")
            assert kept(page)["on"] in found
        page.keyboard.press("Escape")


# -- what the reader writes ------------------------------------------------------------------------


def _written(page: Any, graph: CausalGraph) -> None:
    """Pins two features, groups them, labels one, notes another."""
    for name in ("1.24", "1.25"):
        box(page, graph, name).click()
        page.keyboard.press("p")
    page.get_by_label("name of a group").fill("arms </script>")
    page.get_by_text("group 2 pinned").click()
    box(page, graph, "0.12").click()
    page.get_by_label("label of 0.12").fill("start <b>here</b>")
    page.get_by_label("note of 0.12").fill('it "begins"')


def test_pins_groups_labels_and_notes_come_back_from_the_address(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    _written(page, graph)
    slide(page, "least", 1)
    address = page.evaluate("location.href") if kept(page) else ""
    again = opened(graph, address=address[address.index("#") :])
    assert kept(again) == kept(page)
    assert boxes(again, graph, "pinned") == {"1.24", "1.25"}
    assert arrows(again, graph) == arrows(page, graph)
    assert box(again, graph, "0.12").locator(".label").inner_text() == "start <b>here</b>"
    assert again.locator(".node .tab").all_inner_texts() == ["arms </script>"] * 2
    page.reload()
    page.wait_for_selector("html.ready")
    assert boxes(page, graph, "pinned") == {"1.24", "1.25"}


def test_what_is_saved_is_an_annotations_file_and_loads_back(
    opened: Opened, tmp_path: Path
) -> None:
    graph = diamond()
    page = opened(graph)
    _written(page, graph)
    with page.expect_download() as download:
        page.locator("#save").click()
    file = tmp_path / "mine.json"
    download.value.save_as(file)
    expected = Annotations(
        pins=(FEATURE("1.24"), FEATURE("1.25")),
        groups=(Group("arms </script>", (FEATURE("1.24"), FEATURE("1.25"))),),
        labels={FEATURE("0.12"): "start <b>here</b>"},
        notes={FEATURE("0.12"): 'it "begins"'},
    )
    assert load_annotations(file) == expected
    other = opened(graph)
    other.locator("#file").set_input_files(file)
    other.wait_for_selector(".node .tab")
    assert boxes(other, graph, "pinned") == {"1.24", "1.25"}
    assert other.locator("#said").inner_text().startswith("loaded")
    embedded = opened(graph, page={"annotations": expected})
    assert boxes(embedded, graph, "pinned") == {"1.24", "1.25"}
    assert kept(embedded) == {}


@pytest.mark.parametrize(
    "text", ["[]", "{}", "nonsense", '{"schema": "sae_graphs/annotations/2"}', "null"]
)
def test_a_file_of_something_else_is_refused(opened: Opened, tmp_path: Path, text: str) -> None:
    page = opened(diamond())
    file = tmp_path / "other.json"
    file.write_text(text)
    page.locator("#file").set_input_files(file)
    expect(page.locator("#said")).to_contain_text("holds no annotations")


def test_annotations_of_other_features_are_counted(opened: Opened, tmp_path: Path) -> None:
    page = opened(diamond())
    file = tmp_path / "mine.json"
    told = {"schema": "sae_graphs/annotations/1", "pins": ["0.12", "9.9", "8.8"]}
    file.write_text(json.dumps(told))
    page.locator("#file").set_input_files(file)
    expect(page.locator("#said")).to_contain_text("2 parts of the file do not fit this graph")


def test_a_folded_group_is_one_box_and_keeps_its_arrows(opened: Opened) -> None:
    graph = diamond()
    group = Group("middle", (FEATURE("1.24"), FEATURE("2.36")), folded=True)
    page = opened(graph, page={"annotations": Annotations(groups=(group,))})
    assert boxes(page, graph, "folded") == {"1.24", "2.36"}
    assert "2 features, 1 arrow inside" in page.locator(".node.super").inner_text()
    assert arrows(page, graph) == named(graph.edges) - {"1.24>2.36"}
    page.locator(".node.super").hover()
    assert boxes(page, graph, "up") == {"0.12", "1.25"}
    page.locator(".node.super").click()
    page.get_by_text("unfold", exact=True).first.click()
    assert arrows(page, graph) == named(graph.edges)
    assert boxes(page, graph, "folded") == set()


# -- keyboard, addresses, media --------------------------------------------------------------------


def test_the_arrow_keys_follow_the_strongest_arrows(opened: Opened) -> None:
    graph = diamond()
    page = opened(graph)
    box(page, graph, "0.12").click()
    for key, now in (
        ("ArrowUp", "1.24"),
        ("ArrowUp", "2.36"),
        ("ArrowDown", "1.24"),
        ("ArrowDown", "0.12"),
    ):
        page.keyboard.press(key)
        assert boxes(page, graph, "self") == {now}
    page.keyboard.press("Escape")
    assert boxes(page, graph, "self") == set()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()


@pytest.mark.parametrize(
    "address",
    [
        "#nonsense",
        "#%",
        "#%7B%22on%22%3A%22zzz%22%2C%22least%22%3A%22x%22%2C%22pins%22%3A%5B%229.9%22%2C4%5D%7D",
        "#null",
        "#%7B%22groups%22%3A%5B%7B%7D%2Cnull%5D%2C%22labels%22%3A5%2C%22camera%22%3A%5B0%2C0%2C0%5D%7D",
    ],
)
def test_a_spoilt_address_opens_the_page_as_it_was_made(opened: Opened, address: str) -> None:
    graph = diamond()
    page = opened(graph, address=address)
    assert arrows(page, graph) == named(graph.edges)
    assert boxes(page, graph, "on") == set()


def test_dark_and_paper(opened: Opened) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor"
    page = opened(two_components(), color_scheme="dark")
    assert page.evaluate(ground) == "rgb(15, 23, 42)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert not page.locator(".toolbar").is_visible()
    assert not page.locator(".panel").is_visible()


def test_without_scripts_the_graph_is_there(opened: Opened, browser: Any, tmp_path: Path) -> None:
    from sae_graphs.render.pictures import html

    graph = diamond()
    file = tmp_path / "still.html"
    file.write_text(html(graph), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".node").count() == len(graph.nodes)
    assert page.locator(".edge").count() == len(graph.edges)
    assert not page.locator(".toolbar").is_visible()
    context.close()
