"""The explorer as a file: what its script is told, and that nothing in it leaves or breaks it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.render.explorer.boxes import SIZES, Shape
from sae_graphs.render.explorer.data import in_script, set_ranks
from sae_graphs.render.explorer.page import script
from sae_graphs.render.marks import Finding
from sae_graphs.render.pictures import html
from tests.support.rich_graphs import (
    HOSTILE,
    graph_of,
    hostile,
    large,
    record,
    resolved,
    two_components,
    two_edges,
)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def told(page: str) -> dict[str, Any]:
    """What the page tells its script."""
    found: dict[str, Any] = json.loads(Elements(page).scripts[0])
    return found


GRAPHS = {
    "two edges": two_edges(),
    "components": two_components(),
    "hostile": hostile(),
    "each": resolved(),
    "hostile each": resolved(hostile_text=True),
    "large": large(6, 20),
    "empty": assemble(record(), [], []),
    "hostile and empty": assemble(hostile().run, [], []),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_two_scripts_and_nothing_fetched(graph: CausalGraph) -> None:
    page = html(graph, annotations=Annotations(title=HOSTILE[0], caption=HOSTILE[1]))
    elements = Elements(page)
    assert len(elements.scripts) == 2
    assert elements.scripts[1] == script()
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in elements.found}
    for tag, attributes in elements.found:
        assert "src" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag != "a":
            assert not (attributes.get("href") or "").startswith("http")
    data = told(page)
    assert len(data["nodes"]) == len(graph.nodes)
    assert [edge["effect"] for edge in data["edges"]] == [edge.effect for edge in graph.edges]


def test_the_policy_lets_this_script_run_and_no_other() -> None:
    page = html(two_edges())
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    policy = next(
        a["content"] for t, a in Elements(page).found if "http-equiv" in a and t == "meta"
    )
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.replace("style-src 'unsafe-inline'", "")
    assert "unsafe-eval" not in policy


def test_no_text_ends_the_data() -> None:
    text = in_script({"a": "</script><!--<script>&"})
    assert not re.search(r"[<>&]", text)
    assert json.loads(text) == {"a": "</script><!--<script>&"}


def test_the_script_says_nothing_of_the_network() -> None:
    code = script()
    for word in (
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "import(",
        "eval(",
        "innerHTML",
        "outerHTML",
    ):
        assert word not in code
    assert code.isascii() or "␣" in code


def test_ranks_count_in_each_set_of_effects() -> None:
    edges = (("0.1", "1.1", -9.0), ("0.2", "1.1", 8.0), ("0.1", "1.2", 7.0), ("1.1", "2.1", 6.0))
    expected = {"layer": [1, 2, 3, 1], "source": [1, 1, 2, 1], "graph": [1, 2, 3, 4]}
    for per, ranks in expected.items():
        graph = graph_of(*edges, run=record(settings={"per": per}))
        assert set_ranks(graph) == ranks


def test_a_node_and_an_edge_as_the_script_sees_them() -> None:
    data = told(html(two_edges()))
    node = data["nodes"][0]
    assert (node["id"], node["place"], node["active"]) == ("0.1", "before block 0", "2.50")
    assert node["prompt"] == [
        ["<bos>", 0],
        ["Copyright", 2, "1.00"],
        ["\xa0(", 0],
        ["C", 5, "2.50"],
    ]
    assert node["lowers"] == [["␣)", "−3.25", "90%"]]
    assert node["contexts"][0]["peak"] == "4.00"
    edge = data["edges"][0]
    assert (edge["s"], edge["t"], edge["effect"], edge["said"], edge["rank"]) == (
        0,
        1,
        -8.0,
        "−8.00",
        1,
    )
    assert data["paths"] == [{"component": 1, "nodes": [0, 1, 2], "total": "10.0"}]


def test_findings_refer_to_boxes_of_this_graph() -> None:
    names = [FeatureId.parse(name) for name in ("0.1", "1.2", "9.9")]
    found = Finding(
        "Graph 1", "path", 1, tuple(names), "no effect", False, "words",
        dict.fromkeys(names, 0.25), {(names[0], names[1]): -0.5, (names[1], names[2]): 1.0},
    )  # fmt: skip
    data = told(html(two_edges(), findings=(found,)))["findings"][0]
    assert data["nodes"] == [0, 1]
    assert data["needed"] == {"0": "25%", "1": "25%"}
    assert data["carried"] == [[0, 1, "−50%"]]


def test_boxes_say_less_where_there_are_many() -> None:
    shapes = [Shape.of(graph) for graph in (two_edges(), large(5, 12), large(10, 20))]
    assert [shape.contexts for shape in shapes] == [3, 2, 1]
    assert shapes[0].width == shapes[1].width > shapes[2].width
    assert [shape.prompt for shape in shapes] == [True, True, False]
    assert SIZES[-1][0] > 10**6


def test_a_large_page_stays_small() -> None:
    graph = large(12, 42)
    assert len(graph) == 504 and len(graph.edges) > 1300
    assert len(html(graph)) < 2_500_000
