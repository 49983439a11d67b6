"""Where boxes and arrows go: inside, apart, level, in order; by hand and on random graphs."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.render.picture.layout import NAMES, Box, Layout, Route, layout
from tests.support.rich_graphs import graph_of, large, record, resolved, two_components, two_edges
from tests.support.slow import examples

WIDTH, HEIGHT = 200.0, 90.0


def laid(graph: CausalGraph, height: float = HEIGHT) -> Layout:
    return layout(graph, {node.feature: height for node in graph.nodes}, width=WIDTH)


def apart(one: Box, other: Box) -> bool:
    return (
        one.x + one.width <= other.x
        or other.x + other.width <= one.x
        or one.y + one.height <= other.y
        or other.y + other.height <= one.y
    )


def on_border(point: tuple[float, float], box: Box) -> bool:
    """Within two pixels of the rectangle's outline."""
    (x, y), near = point, 2.0
    inside = (
        box.x - near <= x <= box.x + box.width + near
        and box.y - near <= y <= box.y + box.height + near
    )
    sides = (x - box.x, box.x + box.width - x, y - box.y, box.y + box.height - y)
    return inside and min(map(abs, sides)) <= near


def check_drawing(graph: CausalGraph) -> Layout:
    """What holds of every drawing."""
    found = laid(graph)
    assert set(found.boxes) == {node.feature for node in graph.nodes}
    assert set(found.routes) == {(edge.source, edge.target) for edge in graph.edges}
    assert all(apart(*pair) for pair in combinations(found.boxes.values(), 2))
    assert all(apart(*pair) for pair in combinations(found.components.values(), 2))
    levels: dict[tuple[int, str], set[float]] = {}
    for node in graph.nodes:
        box = found.boxes[node.feature]
        levels.setdefault((node.component, node.feature.layer), set()).add(box.y)
        frame = found.components[node.component]
        assert frame.x + NAMES <= box.x and box.x + box.width <= frame.x + frame.width
        assert frame.y <= box.y and box.y + box.height <= frame.y + frame.height
        assert (box.width, box.height) == (WIDTH, HEIGHT)
    assert all(len(level) == 1 for level in levels.values())
    for edge in graph.edges:
        route = found.routes[edge.source, edge.target]
        source, target = found.boxes[edge.source], found.boxes[edge.target]
        assert target.y + target.height < source.y  # layers run from the bottom to the top
        start, tip = route.points[0], route.tip
        assert on_border(start, source) and start[1] < source.y + HEIGHT / 2
        assert on_border(tip, target) and tip[1] > target.y + HEIGHT / 2
    return found


def test_made_up_graphs() -> None:
    for graph in (two_edges(), two_components(), resolved(), large(5, 9)):
        found = check_drawing(graph)
        assert all(box.x + box.width <= found.width for box in found.components.values())
        assert all(box.y + box.height <= found.height for box in found.components.values())


@examples(25)
@given(
    st.sets(
        st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=14
    )
)
def test_any_graph(ends: set[tuple[int, int, int]]) -> None:
    check_drawing(graph_of(*((f"{d}.{s}", f"{d + 1}.{t}", -1.0 - s) for d, s, t in sorted(ends))))


def test_boxes_follow_the_tokens_from_left_to_right() -> None:
    graph = resolved()
    found = laid(graph)
    for one in graph.nodes:
        for other in graph.nodes:
            same = (one.component, one.feature.layer) == (other.component, other.feature.layer)
            if same and (one.feature.position or 0) < (other.feature.position or 0):
                assert found.boxes[one.feature].x < found.boxes[other.feature].x


def test_the_highest_box_decides_for_its_layer() -> None:
    graph = graph_of(("0.1", "1.2", -8.0), ("0.1", "1.3", 2.0))
    heights = {node.feature: 40.0 + node.feature.index for node in graph.nodes}
    found = layout(graph, heights, width=WIDTH)
    assert {str(feature): box.height for feature, box in found.boxes.items()} == {
        "0.1": 41.0,
        "1.2": 43.0,
        "1.3": 43.0,
    }


def test_nothing_to_place() -> None:
    found = laid(assemble(record(), [], []))
    assert (found.boxes, found.routes, found.components) == ({}, {}, {})
    assert found.width > 0 and found.height > 0


def test_a_wide_graph_is_not_a_flat_one() -> None:
    found = laid(large(6, 30))
    assert found.width / found.height < 2.6


def test_a_point_on_the_way() -> None:
    straight = Route(((0.0, 0.0), (1.0, 2.0), (2.0, 4.0), (3.0, 6.0)), (3.0, 7.0))
    assert straight.at(0.0) == (0.0, 0.0)
    assert straight.at(0.5) == pytest.approx((1.5, 3.0))
    assert straight.at(1.0) == pytest.approx((3.0, 6.0))
    assert straight.path == "M0.0,0.0C1.0,2.0 2.0,4.0 3.0,6.0L3.0,7.0"
    two = Route((*straight.points, (4.0, 8.0), (5.0, 10.0), (6.0, 12.0)), (6.0, 13.0))
    assert two.at(0.5) == pytest.approx((3.0, 6.0))
    assert two.at(0.75) == pytest.approx((4.5, 9.0))
    short = Route((*straight.points, (3.0, 7.0), (3.0, 8.0), (3.0, 6.0 + 3 * 45**0.5)), (3.0, 30.0))
    assert short.at(0.25) == pytest.approx((3.0, 6.0), abs=0.02)  # by length, not by pieces
