"""Large graphs in static pictures: the strongest paths, and how much is left out."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.paths import digraph_of, strongest_paths
from sae_graphs.graph.records import Edge
from sae_graphs.render import pictures as render
from sae_graphs.render.picture.excerpt import (
    DRAWN_BOXES,
    LAYER_BOXES,
    Excerpt,
    excerpt,
    strongest_through,
)
from sae_graphs.words import plain
from tests.render.test_picture import SVG, parsed, said
from tests.support.rich_graphs import graph_of, large, resolved, two_components, two_edges
from tests.support.slow import examples

F = FeatureId.parse


def names(part: Excerpt) -> set[str]:
    return {str(node.feature) for node in part.drawn.nodes}


def fan(n: int = 70) -> CausalGraph:
    """Paths 0.i -> 1.i -> 2.0, the strongest first, and a component of one weak edge."""
    edges = [(f"0.{i}", f"1.{i}", -float(2 * n - i)) for i in range(n)]
    edges += [(f"1.{i}", "2.0", 1.0) for i in range(n)]
    return graph_of(*edges, ("0.900", "1.900", -0.25))


def edges_of(layers: int, wide: int, seed: int) -> tuple[Edge, ...]:
    chance = Random(seed)
    ranks = [[FeatureId(str(layer), i) for i in range(wide)] for layer in range(layers)]
    found = {
        (chance.choice(lower), chance.choice(upper)): 1 + chance.random()
        for lower, upper in pairwise(ranks)
        for _ in range(2 * wide)
    }
    return tuple(Edge(*ends, effect) for ends, effect in found.items())


# -- what is chosen --------------------------------------------------------------------------------


def test_a_graph_at_the_limit_is_whole() -> None:
    graph = two_edges()
    for limit in (3, 4, None):
        part = excerpt(graph, limit=limit)
        assert part.drawn is graph and part.is_whole and part.words("") == "" and not part.left_out


def test_the_strongest_paths_are_drawn_whole() -> None:
    part = excerpt(fan(), limit=8)
    assert names(part) == {"0.0", "1.0", "2.0", "0.1", "1.1", "0.2", "1.2"}  # 7: 9 would not fit
    assert part.left_out == {(1, "0"): 67, (1, "1"): 67}
    assert part.undrawn_components == (2,)
    assert part.words("graph.json holds all of them") == (
        "7 of 143 features and 6 of 141 arrows drawn: those of the strongest paths; graph.json "
        "holds all of them. 1 graph of 2 is not drawn at all"
    )


def test_the_numbers_stay_those_of_the_whole_graph() -> None:
    graph = fan()
    part = excerpt(graph, limit=8)
    assert part.drawn.run == graph.run
    assert {node.component for node in part.drawn.nodes} == {1}


def test_what_must_be_there_is_there_and_its_paths_come_first() -> None:
    part = excerpt(fan(), limit=8, always=[F("1.69"), F("0.900"), F("9.9")])
    assert {"1.69", "0.69", "2.0", "0.900", "1.900"} <= names(part)
    assert len(names(part)) == 7 and {"0.0", "1.0"} <= names(part)
    crowded = [F(f"0.{i}") for i in range(20)]
    assert names(excerpt(fan(), limit=8, always=crowded)) == {str(name) for name in crowded}


def test_a_first_path_longer_than_the_room_is_drawn() -> None:
    chain = graph_of(*((f"{i}.0", f"{i + 1}.0", -1.0) for i in range(3)), ("0.1", "1.1", -1.0))
    assert names(excerpt(chain, limit=2)) == {"0.0", "1.0", "2.0", "3.0"}


def test_output_tokens_come_with_their_features() -> None:
    graph = resolved(60)
    sources = [edge.source for edge in graph.edges if edge.target.is_output]
    part = excerpt(graph, limit=len(set(sources)), always=sources)
    drawn = {node.feature for node in part.drawn.nodes}
    ends = {edge.target for edge in graph.edges if edge.target.is_output and edge.source in drawn}
    assert ends and ends <= drawn
    assert part.words("").startswith(f"{sum(not name.is_output for name in drawn)} of ")


def leaves(n: int = 40) -> CausalGraph:
    """One strong source with many weak ends, and weaker chains beside it in the same component."""
    ends = [("0.0", "1.0", -90.0), *(("1.0", f"2.{i}", -9.0 - i / 100) for i in range(n))]
    chains = [(f"0.{i}", f"1.{i}", -3.0) for i in range(1, 9)]
    return graph_of(*ends, *chains, *((f"1.{i}", "2.39", -2.0 - i / 100) for i in range(1, 9)))


def test_a_layer_is_not_filled_with_leaves() -> None:
    part = excerpt(leaves(), limit=30)
    counts = Counter(node.feature.layer for node in part.drawn.nodes)
    assert counts == {"0": 9, "1": 9, "2": LAYER_BOXES}
    assert part.crowded and part.left_out == {(1, "2"): 30}
    assert {f"2.{i}" for i in range(30, 40)} <= names(part)  # the strongest ends
    assert "strongest paths, passed over where a layer has 10 boxes already; here" in part.words(
        "here"
    )
    assert not excerpt(fan(), limit=8).crowded


def test_each_component_has_layers_of_its_own() -> None:
    pairs = [(f"0.{c}", f"1.{10 * c + i}", -9.0 + c) for c in range(3) for i in range(9)]
    part = excerpt(graph_of(*pairs), limit=29)
    layers = Counter(node.feature.layer for node in part.drawn.nodes)
    assert layers == {"0": 3, "1": 26} and not part.crowded


def test_what_must_be_there_has_no_bound() -> None:
    ends = [F(f"2.{i}") for i in range(30)]
    assert {str(end) for end in ends} <= names(excerpt(leaves(), limit=20, always=ends))


def brute_force(edges: Sequence[Edge]) -> list[float]:
    """The strength of the strongest path through each feature, strongest first."""
    best: dict[FeatureId, float] = {}
    for path in strongest_paths(edges, limit=100_000):
        for feature in path.features:
            best.setdefault(feature, path.total_abs_effect)
    return sorted(best.values(), reverse=True)


@examples(30)
@given(st.integers(2, 5), st.integers(1, 5), st.integers(0, 999))
def test_features_come_in_the_order_of_all_paths(layers: int, wide: int, seed: int) -> None:
    edges = edges_of(layers, wide, seed)
    found = strongest_through(edges)
    assert all(feature in way.features for feature, way in found.items())
    assert [way.total_abs_effect for way in found.values()] == pytest.approx(brute_force(edges))
    digraph: nx.DiGraph = digraph_of(edges)
    for way in found.values():
        assert digraph.in_degree(way.features[0]) == 0
        assert digraph.out_degree(way.features[-1]) == 0


@examples(12)
@given(st.integers(1, 80), st.integers(0, 99))
def test_never_more_than_there_is_room_for(limit: int, seed: int) -> None:
    edges = edges_of(4, 25, seed)
    graph = graph_of(*((str(e.source), str(e.target), e.effect) for e in edges))
    part = excerpt(graph, limit=limit)
    assert 0 < len(part.drawn) <= max(limit, 4)
    drawn = {node.feature for node in part.drawn.nodes}
    assert {end for edge in part.drawn.edges for end in (edge.source, edge.target)} == drawn
    assert sum(part.left_out.values()) + len(drawn) + sum(
        node.component in part.undrawn_components for node in graph.nodes
    ) == len(graph)


# -- how it is drawn -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_large_picture_says_what_it_leaves_out() -> None:
    graph = large()
    root = parsed(render.svg(graph))
    words = said(root)
    boxes = [g for g in root.iter(f"{SVG}g") if (g.get("id") or "").startswith("node-")]
    assert len(boxes) <= DRAWN_BOXES
    assert f"{len(boxes)} of 200 features and " in words
    assert "540 arrows between 200 features hold" in words and "measured, drawn or not" in words
    total = plain(sum(abs(edge.effect) for edge in graph.edges))
    assert f"200 features · total |effect| {total} · {len(boxes)} of 200 features drawn" in words
    left = [int(word) for word, more in pairwise(words.split()) if more == "more" and word != "9"]
    assert sum(left) == 200 - len(boxes)
    assert "below a layer's name" in words
    widest = max(Counter((box.get("id") or "").split(".")[0] for box in boxes).values())
    assert widest <= LAYER_BOXES


@pytest.mark.slow
def test_what_holds_the_rest_is_named_only_where_it_is_written() -> None:
    graph = large()
    tips = (
        "of the graph not drawn: graph.json holds all of them",
        "of the graph not drawn: the explorer, graph.html, and graph.json hold all of them",
    )
    alone, beside = (
        render.files(graph, kinds)["graph.dot"].decode().replace("\xa0", " ")
        for kinds in (["dot"], ["dot", "html"])
    )
    assert "graph.html" not in alone and tips[0] in alone and "graph.json" in alone
    assert tips[1] in beside and beside.count("graph.html") > 1  # in the header as well
    assert "graph.html" not in render.svg(graph)
    assert "graph.json" not in render.svg(two_edges())


@pytest.mark.slow
def test_a_large_png_has_a_sensible_size() -> None:
    width, height = struct.unpack(">II", render.png(large())[16:24])
    assert max(width, height) < 7000


@pytest.mark.slow
def test_everything_can_be_drawn_on_request() -> None:
    assert render.dot(large(), limit=None).count(" -> ") > 540
    assert "drawn" not in render.dot(large(), limit=None)


def test_components_are_cut_on_their_own() -> None:
    drawn = {
        name: data.decode().replace("\xa0", " ")
        for name, data in render.files(fan(), ["dot"]).items()
    }
    assert "of 141 features drawn" in drawn["graph-1.dot"]
    assert "features drawn" not in drawn["graph-2.dot"]
    assert "features drawn" not in render.dot(two_components()).replace("\xa0", " ")
