"""The explorer as a file: what its script is told, and that nothing in it leaves or breaks it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import OutputToken
from sae_graphs.graph.what_if import Outcome, WhatIf
from sae_graphs.render.explorer.boxes import SIZES, Shape
from sae_graphs.render.explorer.data import in_script, set_ranks
from sae_graphs.render.explorer.page import policy, script
from sae_graphs.render.explorer.what_if import Chance, outcome_told, score_told, what_if_data
from sae_graphs.render.marks import Finding
from sae_graphs.render.pictures import html
from tests.support.answer_graphs import asked_graph
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


def test_a_page_from_a_server_may_ask_it_and_nobody_else() -> None:
    code = script(asks=True)
    assert code.count("fetch(") == 1 and "XMLHttpRequest" not in code
    assert "; connect-src 'self'; " in policy(code, asks=True)
    assert "connect-src" not in policy(script())
    page = html(two_edges())
    assert "connect-src" not in page and "fetch(" not in page


def test_changed_answers_stay_small() -> None:
    tokens = tuple(f" token {number}" for number in range(40))
    outcome = Outcome(("0.1@1",), 1.0, (0.025,) * 40)
    features = [f"0.{number}@1" for number in range(128)]
    known = WhatIf(
        tokens,
        tuple(range(40)),
        (0.02,) * 40,
        tuple(replace(outcome, features=(f,)) for f in features),
    )
    graph = asked_graph()
    assert graph.run.answer is not None
    run = replace(graph.run, answer=replace(graph.run.answer, what_if=known))
    data = what_if_data(CausalGraph(run, graph.nodes, graph.edges))
    assert data is not None and list(data["outcomes"]) == ["0.1@1"]  # of what is drawn alone
    assert 128 * len(in_script(data["outcomes"])) < 50_000


@pytest.mark.parametrize(
    ("contrast", "after", "expected"),
    [
        (None, 1.0, "the log-odds of ) fall by 3.00 nats, from 4.00 to 1.00"),
        (None, 4.25, "the log-odds of ) rise by 0.250 nats, from 4.00 to 4.25"),
        (None, 4.0001, "the log-odds of ) do not change: 4.00 nats"),
        ("]", 1.0, "the logit difference of ) - ] falls by 3.00 nats, from 4.00 to 1.00"),
    ],
)
def test_a_changed_score_in_words(contrast: str | None, after: float, expected: str) -> None:
    assert score_told(OutputToken(7, ")", 4.5, 0.9, contrast), 4.0, after) == expected


def test_the_answer_and_its_contrast_come_first_then_what_changes_most() -> None:
    chances = [
        Chance("a", 0.1, 0.1), Chance(")", 0.9, 0.2), Chance("b", 0.0, 0.5),
        Chance("c", 0.0, 0.1), Chance("d", 0.0, 0.05), Chance("]", 0.0, 0.01),
    ]  # fmt: skip
    told = outcome_told(OutputToken(7, ")", 4.5, 0.9, "]"), chances, 4.0, 1.0)
    assert [row[0] for row in told["rows"]] == [")", "]", "b", "c", "d"]
    assert told["rows"][0][1:] == [0.9, 0.2, "90%", "20%"]


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


@pytest.mark.slow
def test_a_large_page_stays_small() -> None:
    graph = large(12, 42)
    assert len(graph) == 504 and len(graph.edges) > 1300
    assert len(html(graph)) < 2_500_000
