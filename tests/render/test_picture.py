"""What is drawn: signs, scale, links, groups, words; and that nothing in a graph breaks it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from random import Random
from xml.etree import ElementTree

import pygraphviz
import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.render import pictures as render
from sae_graphs.render.picture.engine import MAX_PNG_PIXELS, MAX_PNG_SIDE, draw_png
from sae_graphs.render.style import LOWERS, RAISES, EffectScale
from sae_graphs.text import token, visible
from tests.support.once import drawn_anew
from tests.support.rich_graphs import (
    HOSTILE,
    graph_of,
    hostile,
    large,
    node,
    record,
    two_components,
    two_edges,
)
from tests.support.slow import first

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
RED, BLUE = 0, 2


def parsed(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)


def said(root: ElementTree.Element) -> str:
    """All drawn text, spaces made ordinary."""
    drawn = " ".join(element.text or "" for element in root.iter(f"{SVG}text"))
    return " ".join(drawn.replace("\xa0", " ").split())


def arrow(root: ElementTree.Element, ends: str) -> ElementTree.Element:
    return next(group for group in root.iter(f"{SVG}g") if group.get("id") == f"edge-{ends}")


def line_of(group: ElementTree.Element) -> ElementTree.Element:
    return next(path for path in group.iter(f"{SVG}path") if path.get("stroke") != "none")


def channels(colour: str | None) -> tuple[int, ...]:
    assert colour is not None
    return tuple(int(colour[start : start + 2], 16) for start in (1, 3, 5))


def empty() -> CausalGraph:
    return assemble(record(), [], [])


# -- signs and scale -------------------------------------------------------------------------------


def test_the_red_arrow_is_the_negative_one() -> None:
    root = parsed(render.svg(two_edges()))
    promotes, suppresses = arrow(root, "0.1-1.2"), arrow(root, "1.2-2.3")
    red, blue = (
        channels(line_of(promotes).get("stroke")),
        channels(line_of(suppresses).get("stroke")),
    )
    assert red[RED] > 200 > red[BLUE]
    assert blue[BLUE] > 200 > blue[RED]
    assert "promotes" in promotes.get("class", "")
    assert "suppresses" in suppresses.get("class", "")


def test_the_sign_is_in_the_head_and_the_line_too() -> None:
    source = render.dot(two_edges())
    promotes = next(line for line in source.splitlines() if "0.1 -> 1.2" in line)
    suppresses = next(line for line in source.splitlines() if "1.2 -> 2.3" in line)
    assert "arrowhead=normal" in promotes and "style=solid" in promotes
    assert "arrowhead=tee" in suppresses and "style=dashed" in suppresses


def test_tokens_follow_the_same_colours_as_arrows() -> None:
    texts = list(parsed(render.svg(two_edges())).iter(f"{SVG}text"))
    lowers = next(text for text in texts if "ablating\xa0lowers" in (text.text or ""))
    raises = next(text for text in texts if "ablating\xa0raises" in (text.text or ""))
    assert (lowers.get("fill"), raises.get("fill")) == (LOWERS, RAISES)
    order = [text.text for text in texts]
    assert order.index("␣)") == texts.index(lowers) + 1
    assert order.index("␣and") == texts.index(raises) + 1


def test_the_strongest_arrow_is_opaque_and_the_scale_is_linear() -> None:
    scale = EffectScale(smallest=2.0, largest=8.0)
    assert [scale.opacity(effect) for effect in (0.0, 2.0, -8.0)] == pytest.approx([0.3, 0.475, 1])
    assert scale.colour(-8.0) == LOWERS
    assert scale.colour(8.0) == RAISES
    lighter, darker = channels(scale.colour(-2.0)), channels(scale.colour(-8.0))
    assert all(light >= dark for light, dark in zip(lighter, darker, strict=True))


def test_components_are_drawn_on_the_scale_of_the_whole() -> None:
    drawn = render.files(two_components(), ["svg"])
    whole, part = parsed(drawn["graph.svg"].decode()), parsed(drawn["graph-2.svg"].decode())
    in_whole, in_part = line_of(arrow(whole, "0.4-1.5")), line_of(arrow(part, "0.4-1.5"))
    assert in_whole.get("stroke") == in_part.get("stroke") != LOWERS
    assert in_whole.get("stroke-width") == in_part.get("stroke-width")
    alone = parsed(render.svg(two_components().component(2)))
    assert line_of(arrow(alone, "0.4-1.5")).get("stroke") == LOWERS


# -- words -----------------------------------------------------------------------------------------


def test_the_legend_states_signs_units_and_scale() -> None:
    words = said(parsed(render.svg(two_edges())))
    for stated in (
        "promotes: ablating the source lowers the target (effect < 0)",
        "suppresses: ablating the source raises the target (effect > 0)",
        "effect: change of the target's activation at the read token, ablated − clean, in SAE "
        "activation units",
        "the larger |effect|, the darker and thicker: 2.00 (faintest) to 8.00 (strongest)",
        "change of log-probability, ablated − clean, in nats",
    ):
        assert stated in words


def test_the_header_states_the_run() -> None:
    words = said(parsed(render.svg(two_edges())))
    for stated in (
        "demo-saes",
        "2 arrows between 3 features",
        "25% of the total |effect|",
        "90%",
    ):
        assert stated in words
    assert "C ← read here" in words


def test_warnings_are_loud() -> None:
    run = record(warnings=("layer 3 leaves 80% of the variance unexplained",))
    graph = graph_of(("0.1", "1.2", -1.0), run=run)
    assert "⚠ layer 3 leaves 80% of the variance unexplained" in said(parsed(render.svg(graph)))
    assert "⚠ layer 3 leaves 80%" in render.html(graph)
    assert "⚠" not in render.svg(two_edges())


def test_boxes_and_arrows_say_their_numbers() -> None:
    root = parsed(render.svg(two_edges()))
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert any(t.startswith("0.1 -> 1.2: effect −8.00\nablating the source lowers") for t in titles)
    box = next(title for title in titles if title.startswith("0.1: activation 2.50"))
    assert "Copyright  1.00" in box.replace("\xa0", " ")
    assert "All rights reserved  (4.00)" in box.replace("\xa0", " ")
    assert {"−8.00", "+2.00"} <= set(said(root).split())


def test_characters_of_boxes_are_whole_pixels_wide() -> None:
    root = parsed(render.svg(two_edges()))
    sizes = {
        float(text.get("font-size") or 0)
        for group in root.iter(f"{SVG}g")
        if (group.get("id") or "").startswith("node-")
        for text in group.iter(f"{SVG}text")
        if "Mono" in (text.get("font-family") or "")
    }
    (size,) = sizes  # 1,233 of 2,048 units of the type's size; 96 pixels are 72 points
    assert size * 1233 / 2048 * 96 / 72 == pytest.approx(7, abs=0.001)


def test_a_feature_keeps_its_position() -> None:
    graph = graph_of(("0.1@2", "1.2@3", -1.0))
    assert {"0.1@2", "1.2@3"} <= set(said(parsed(render.svg(graph))).split())


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://www.neuronpedia.org/m/1-res/2?a=1&b=2",) * 2,
        ("javascript:alert(1)", None),
        (None, None),
    ],
)
def test_only_web_addresses_are_linked(url: str | None, link: str | None) -> None:
    graph = graph_of(("0.1", "1.2", -1.0), neuronpedia=url)
    root = parsed(render.svg(graph))
    assert {a.get(LINK) for a in root.iter(f"{SVG}a") if a.get(LINK)} == ({link} if link else set())
    assert ("↗" in said(root)) == bool(link)
    assert "javascript:" not in render.html(graph)


# -- components, and nothing -----------------------------------------------------------------------


def test_each_component_is_titled_and_has_its_own_picture() -> None:
    drawn = render.files(two_components(), ["svg", "dot"])
    assert sorted(drawn) == [
        *("graph-1.dot", "graph-1.svg", "graph-2.dot", "graph-2.svg", "graph.dot", "graph.svg")
    ]
    whole = said(parsed(drawn["graph.svg"].decode()))
    assert "Graph 1 3 features · total |effect| 14.0" in whole
    assert "Graph 2 3 features · total |effect| 3.00" in whole
    second = said(parsed(drawn["graph-2.svg"].decode()))
    assert "Graph 2 of 2" in second
    assert "1.5" in second.split()
    assert "1.2" not in second.split()


@pytest.mark.parametrize("seed", first(1, range(6)))
def test_layers_are_named_on_the_left_and_components_in_order(seed: int) -> None:
    chance = Random(seed)
    edges = {
        (f"{layer}.{group}{i}", f"{layer + 1}.{group}{j}")
        for group in range(1, 4)
        for layer in range(3)
        for i, j in ((chance.randrange(3), chance.randrange(3)) for _ in range(4))
    }
    graph = graph_of(*((s, t, chance.gauss(0, 3)) for s, t in sorted(edges)))
    drawing = pygraphviz.AGraph(string=render.dot(graph))
    drawing.layout(prog="dot")
    across = {name: float(name.attr["pos"].split(",")[0]) for name in drawing.nodes()}
    high = {name: float(name.attr["pos"].split(",")[1]) for name in drawing.nodes()}
    names = [name for name in across if name.startswith("layer")]
    assert names
    for name in names:
        _, layer, _, component = name.split()
        for member in graph.component(int(component)).nodes:
            if member.feature.layer == layer:
                assert across[name] < across[str(member.feature)]
                assert high[name] == high[str(member.feature)]
    tops = [next(n for n in names if n.endswith(f" {c + 1}")) for c in range(graph.n_components)]
    order = [(-high[name], across[name]) for name in tops]
    assert order == sorted(order)


def test_one_component_has_one_picture_in_the_formats_asked_for() -> None:
    assert sorted(render.files(two_edges(), ["svg", "html", "svg"])) == ["graph.html", "graph.svg"]
    assert render.files(two_edges(), []) == {}


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(SaeGraphsError, match=r"cannot draw gif; choose from .*svg, png, html"):
        render.files(two_edges(), ["svg", "gif"])


def test_an_empty_graph_says_so() -> None:
    drawn = render.files(empty(), render.FORMATS)
    assert sorted(drawn) == [f"graph.{kind}" for kind in sorted(render.FORMATS)]
    words = said(parsed(drawn["graph.svg"].decode()))
    assert "No path of at least 2 edges is left to draw" in words
    assert "demo-saes" in words
    assert "No path of at least 2 edges is left to draw" in drawn["graph.html"].decode()
    assert drawn["graph.png"].startswith(b"\x89PNG\r\n\x1a\n")


def test_bare_nodes_are_drawn() -> None:
    graph = graph_of(
        ("0.1", "1.2", -1.0),
        run=record(model="", saes="", next_tokens=(), settings={}),
        **dict.fromkeys(("activations", "contexts", "promotes", "suppresses"), ()),
        activation=0.0,
    )
    words = said(parsed(render.svg(graph)))
    assert "0.1 inactive" in words
    assert "ablating lowers" not in words


# -- hostile text ----------------------------------------------------------------------------------


def test_hostile_text_is_drawn_as_text() -> None:
    picture = render.svg(hostile())
    root = parsed(picture)
    assert not list(root.iter(f"{SVG}script"))
    assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)
    drawn = [element.text for element in root.iter(f"{SVG}text")]
    for text in HOSTILE:
        assert token(text)[:11] in " ".join(filter(None, drawn))
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert any("".join(visible(text) for text in HOSTILE)[:60] in title for title in titles)


def test_hostile_text_reaches_every_format() -> None:
    for name, content in render.files(hostile(), render.FORMATS).items():
        assert len(content) > 1000, name


class _Elements(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs


def _elements(page: str) -> _Elements:
    elements = _Elements()
    elements.feed(page)
    return elements


def test_the_page_is_self_contained_and_has_its_own_scripts_alone() -> None:
    harmless, attacked = _elements(render.html(two_edges())), _elements(render.html(hostile()))
    assert harmless.names.count("script") == attacked.names.count("script") == 2
    for elements in (harmless, attacked):
        assert not {"img", "link", "iframe", "object"} & set(elements.names)
        assert not [name for name, _ in elements.attributes if name.startswith("on")]
        assert not [value for name, value in elements.attributes if name in ("src", "srcset")]


def test_the_page_holds_every_edge_and_the_strongest_paths() -> None:
    page = render.html(two_components())
    assert page.count("<tr><td>0.") + page.count("<tr><td>1.") == 4
    assert "0.1 promotes 1.2 (-8), which suppresses 2.3 (+6)" in page
    parsed(re.findall(r"<svg.*?</svg>", page, re.DOTALL)[0])


# -- files -----------------------------------------------------------------------------------------


def test_drawing_twice_gives_the_same_bytes() -> None:
    def drawn() -> dict[str, bytes]:
        return render.files(two_components(), ["svg", "dot", "html"])

    assert drawn_anew(drawn) == drawn_anew(drawn)


def test_an_svg_needs_nothing_from_elsewhere() -> None:
    picture = render.svg(two_edges())
    assert picture.startswith("<svg")
    assert "DOCTYPE" not in picture
    addresses = set(re.findall(r"https?://[^\"]*", picture))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_pdf_is_pdf() -> None:
    assert render.pdf(two_edges()).startswith(b"%PDF-")


def png_size(content: bytes) -> tuple[int, int]:
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.fixture(scope="module")
def large_graph() -> Iterator[CausalGraph]:
    graph = large()
    assert len(graph.nodes) == 200
    assert len(graph.edges) == 540
    yield graph


@pytest.mark.slow
def test_a_large_png_is_bounded(large_graph: CausalGraph) -> None:
    width, height = png_size(draw_png(render.dot(large_graph, limit=None)))
    assert max(width, height) <= MAX_PNG_SIDE
    assert MAX_PNG_PIXELS / 2 < width * height <= MAX_PNG_PIXELS


def test_a_small_png_is_fine_grained() -> None:
    width, _ = png_size(render.png(two_edges()))
    size = re.search(r'width="(\d+)pt"', render.svg(two_edges()))
    assert size is not None
    assert width == pytest.approx(2 * int(size[1]), rel=0.02)


def test_a_long_prompt_is_cut_around_the_read_token() -> None:
    tokens = tuple(f" word{number}" for number in range(1000))
    run = replace(record(tokens), read_position=500)
    graph = graph_of(("0.1", "1.2", -1.0), run=run, activations=(0.0,) * 1000)
    words = said(parsed(render.svg(graph))).split()
    assert {"␣word0", "␣word500", "…"} <= set(words)
    assert "␣word999" not in words
    assert len([word for word in words if word.startswith("␣word")]) < 60


def test_many_components_are_broken_into_rows() -> None:
    chains = [(f"0.{i}", f"1.{i}", -1.0) for i in range(12)]
    root = parsed(render.svg(graph_of(*chains)))
    _, _, width, height = (float(value) for value in root.get("viewBox", "").split())
    assert 0.5 < width / height < 2.5


def test_node_helper_makes_both_signs() -> None:
    assert node("0.1").promotes[0].effect_nats < 0 < node("0.1").suppresses[0].effect_nats
