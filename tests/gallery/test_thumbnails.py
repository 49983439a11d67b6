"""The small pictures of the gallery: every box and arrow, or the strongest."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from urllib.parse import quote

import pytest

from sae_graphs.gallery.artist import EDGES, thumbnail
from sae_graphs.graph.graph import CausalGraph
from tests.support.rich_graphs import graph_of as made
from tests.support.rich_graphs import hostile, large, resolved, two_components, two_edges
from tests.support.saved_runs import HOSTILE_NAME, Site, over

# -- thumbnails ------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("graph", "boxes", "arrows"),
    [
        (two_edges(), 3, 2),
        (two_components(), 6, 4),
        (made(), 0, 0),
        (hostile(), 3, 2),
        (over(), 7, 6),
    ],
    ids=["two", "components", "empty", "hostile", "example"],
)
def test_a_thumbnail_has_every_box_and_arrow(graph: CausalGraph, boxes: int, arrows: int) -> None:
    root = ET.fromstring(thumbnail(graph))
    assert len(root.findall(f"{SVG}rect")) == boxes
    assert len(root.findall(f"{SVG}path")) == arrows
    assert not [element for element in root.iter() if element.tag == f"{SVG}script"]


def test_a_thumbnail_tells_signs_apart_without_hues() -> None:
    drawn = thumbnail(two_edges())
    assert drawn.count('class="promotes"') == drawn.count('class="suppresses"') == 1
    assert "stroke-dasharray" in drawn
    assert "prefers-color-scheme: dark" in drawn


def test_a_thumbnail_of_a_large_graph_keeps_the_strongest() -> None:
    root = ET.fromstring(thumbnail(large()))
    assert len(root.findall(f"{SVG}path")) == EDGES
    outputs = ET.fromstring(thumbnail(resolved(12))).findall(f"{SVG}rect[@class='output']")
    assert outputs


def test_a_thumbnail_holds_what_it_draws() -> None:
    root = ET.fromstring(thumbnail(two_components()))
    x, y, width, height = (float(value) for value in root.attrib["viewBox"].split())
    for rect in root.findall(f"{SVG}rect"):
        assert x <= float(rect.attrib["x"]) and y <= float(rect.attrib["y"])
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= x + width
        assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= y + height


def test_thumbnails_over_http(site: Site) -> None:
    reply = site.ask("/thumbnail/plain.svg")
    assert reply.headers["Content-Type"] == "image/svg+xml"
    assert re.match(rb"<svg [^>]*viewBox=", reply.body)
    hostile_one = site.ask(f"/thumbnail/{quote(HOSTILE_NAME, safe='')}.svg")
    assert hostile_one.status == 200
