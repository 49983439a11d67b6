"""Where numbers of arrows go, and arrows that Graphviz has no part in."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pygraphviz
import pytest

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render import pictures as render
from sae_graphs.render.picture.engine import _rendered, bundled_fonts
from sae_graphs.render.picture.finishing import _line, _off, _size, finished
from sae_graphs.render.picture.routing import (
    PLACES,
    Rectangle,
    add_asides,
    along,
    curve,
    number_places,
    set_aside,
)
from tests.render.test_picture import SVG, parsed
from tests.support.once import drawn_anew
from tests.support.rich_graphs import graph_of, large, resolved, two_components, two_edges

STRAIGHT = curve([(0, 0), (0, 30), (0, 60), (0, 90)])


def laid_out(graph: CausalGraph) -> pygraphviz.AGraph:
    with bundled_fonts():
        laid = _rendered(render.dot(graph), "dot").decode()
    return pygraphviz.AGraph(string=finished(laid))


# -- places ----------------------------------------------------------------------------------------


def test_a_curve_runs_from_its_first_control_to_its_last() -> None:
    line = curve([(0, 0), (1, 2), (3, 2), (4, 0), (5, -2), (6, -2), (8, 0)])
    assert tuple(line[0]) == (0, 0) and tuple(line[-1]) == (8, 0)
    half = curve([(0, 0), (0, 4), (4, 4), (4, 0)])
    assert np.abs(half - (2, 3)).sum(axis=1).min() < 0.25  # its middle is at (2, 3)


def test_along_measures_by_length() -> None:
    assert along(np.array([[0.0, 0.0], [0.0, 10.0], [30.0, 10.0]]), 0.5) == (10.0, 10.0)
    assert along(STRAIGHT, 0.5) == pytest.approx((0, 45))


def test_a_number_stands_in_the_middle_of_its_line() -> None:
    assert number_places([STRAIGHT], [(20, 10)], []) == [pytest.approx((0, 45))]
    assert number_places([STRAIGHT], [None], []) == [None]
    assert number_places([], [], []) == []


def test_numbers_avoid_boxes_and_each_other_and_lines() -> None:
    (place,) = number_places([STRAIGHT], [(20, 10)], [Rectangle(0, 45, 30, 10)])
    assert place is not None and abs(place[1] - 45) >= 10
    first, second = number_places([STRAIGHT, STRAIGHT + np.array([5.0, 0.0])], [(20, 10)] * 2, [])
    assert first is not None and second is not None and abs(first[1] - second[1]) >= 10
    across = curve([(-50, 45), (-20, 45), (20, 45), (50, 45)])
    (place, _) = number_places([STRAIGHT, across], [(20, 10), None], [])
    assert place is not None and abs(place[1] - 45) > 5


def test_with_no_place_left_the_least_bad_one_is_taken() -> None:
    everywhere = [Rectangle(0, 45, 100, 200)]
    assert number_places([STRAIGHT], [(20, 10)], everywhere) == [pytest.approx((0, 45))]
    assert PLACES[0] == 0.5 and len(set(PLACES)) == len(PLACES)


def test_the_size_of_a_number() -> None:
    assert _size("") is None and _size(None) is None
    one, two = _size("<FONT>−1.50</FONT>"), _size("<TR><TD>ab</TD></TR><TR><TD>abcdef</TD></TR>")
    assert one is not None and two is not None
    assert two[1] == 2 * one[1] and two[0] == pytest.approx(one[0] * 6 / 5)


# -- pictures --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("graph", [two_components(), resolved(40), large(5, 6)])
def test_numbers_cover_no_box_and_hardly_each_other(graph: CausalGraph) -> None:
    drawing = laid_out(graph)
    boxes = _boxes_of(drawing, lambda name: "." in name and "number" not in name)
    numbers = _boxes_of(drawing, lambda name: name.startswith("number"))
    assert len(numbers) == len(graph.edges)
    assert not [1 for one in numbers for box in boxes if _meet(one, box)]
    meeting = sum(_meet(*pair) for pair in combinations(numbers, 2))
    assert meeting <= 0.1 * len(numbers)


def _boxes_of(drawing: pygraphviz.AGraph, wanted: object) -> list[Rectangle]:
    found = []
    for node in drawing.nodes():
        if callable(wanted) and wanted(str(node)):
            x, y = map(float, node.attr["pos"].split(","))
            number = str(node).startswith("number")
            size = (24.0, 10.0) if number else (0.0, 0.0)
            if not number:
                size = 72 * float(node.attr["width"]), 72 * float(node.attr["height"])
            found.append(Rectangle(x, y, *size))
    return found


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return (
        abs(one.x - other.x) < (one.width + other.width) / 2
        and abs(one.y - other.y) < (one.height + other.height) / 2
    )


def test_the_strongest_arrow_chooses_first_where_its_number_goes() -> None:
    """Three arrows that cross in their middles: the widest one's number stands in its own."""
    laid = (
        "digraph { node [width=0.1, height=0.1]; "
        'a [pos="0,0"]; b [pos="90,90"]; c [pos="90,0"]; d [pos="0,90"]; '
        'a -> b [key=weak, penwidth=1, label="<B>1</B>", tooltip=weak, id="edge-weak", '
        'pos="e,90,90 0,0 30,30 60,60 90,90"]; '
        'c -> d [key=strong, penwidth=3, label="<B>2</B>", tooltip=strong, id="edge-strong", '
        'pos="e,0,90 90,0 60,30 30,60 0,90"] }'
    )
    drawing = pygraphviz.AGraph(string=finished(laid))
    places = {
        node.attr["tooltip"]: [*map(float, node.attr["pos"].split(","))]
        for node in drawing.nodes()
        if str(node).startswith("number")
    }
    assert places["strong"] == pytest.approx([45, 45], abs=0.1)
    assert np.abs(np.array(places["weak"]) - 45).max() > 1


def test_boxes_and_numbers_are_drawn_after_all_lines() -> None:
    picture = render.svg(two_components())
    numbers = [found.start() for found in re.finditer(r'<g id="number', picture)]
    lines = [found.start() for found in re.finditer(r'<g id="edge', picture)]
    boxes = [found.start() for found in re.finditer(r'<g id="node&#45;', picture)]
    assert len(numbers) == len(lines) == 4 and min(numbers) > max(lines)
    assert len(boxes) == 6 and min(boxes) > max(lines)


def test_invisible_edges_leave_no_trace() -> None:
    drawing = laid_out(two_edges())
    drawn = [drawing.get_edge(*name) for name in drawing.edges(keys=True)]
    assert not [edge for edge in drawn if edge.attr["style"] == "invis"]
    assert all(edge.attr["pos"] for edge in drawn)


def test_a_layer_far_from_its_name_has_a_faint_line_to_it() -> None:
    wide = graph_of(*((f"0.{i}", f"1.{i // 3}", -1.0 - i) for i in range(9)), ("1.2", "2.9", -50.0))
    drawing = laid_out(wide)
    leaders = [name for name in drawing.edges(keys=True) if name[2].startswith("to layer")]
    for start, end, _ in leaders:
        (x, y), (other_x, other_y) = (
            map(float, drawing.get_node(name).attr["pos"].split(",")) for name in (start, end)
        )
        assert x < other_x and y == pytest.approx(other_y)
    assert leaders


@pytest.mark.slow
def test_a_second_picture_of_the_same_graph_is_the_same() -> None:
    first, second = (drawn_anew(lambda: render.svg(resolved(30))) for _ in range(2))
    assert first == second


# -- bars ------------------------------------------------------------------------------------------


def corners(element: ElementTree.Element, attribute: str) -> np.ndarray:
    pairs = re.findall(r"(-?[0-9.]+),(-?[0-9.]+)", element.get(attribute) or "")
    return np.array(pairs, dtype=float)


def test_bars_are_not_covered_by_their_boxes() -> None:
    """Arrows of all slants: a box with many, and the ends of wide layers."""
    wide = graph_of(*((f"0.{i}", f"1.{j}", 1.0 + i) for i in range(7) for j in (0, 3, 6)))
    root = parsed(render.svg(wide))
    boxes = {
        (group.get("id") or "").removeprefix("node-"): corners(next(group.iter(f"{SVG}path")), "d")
        for group in root.iter(f"{SVG}g")
        if (group.get("id") or "").startswith("node-")
    }
    bars = 0
    for group in root.iter(f"{SVG}g"):
        if not (group.get("id") or "").startswith("edge-"):
            continue
        box = boxes[(group.get("id") or "").split("-")[-1]]
        bar = corners(next(group.iter(f"{SVG}polygon")), "points")
        inside = (bar > box.min(axis=0)) & (bar < box.max(axis=0))
        assert not inside.all(axis=1).any(), group.get("id")
        away = np.maximum(np.maximum(box.min(axis=0) - bar, bar - box.max(axis=0)), 0)
        assert np.hypot(*away.T).min() < 12
        bars += 1
    assert bars == 21


def test_a_bar_goes_back_as_far_as_it_must() -> None:
    box = Rectangle(0, 100, 80, 20)  # its lower border is at y = 90
    upright = _off("e,0,90 0,0 0,30 0,60 0,86", box)
    assert upright == "e,0.00,87.00 0,0 0,30 0.00,57.00 0.00,83.00"
    slanting = _off("e,0,90 -90,0 -60,30 -30,60 -3,87", box)
    back = 90 - float(slanting.split()[0].split(",")[2])
    assert back - 5 * np.sin(np.pi / 4) == pytest.approx(1, abs=0.4)  # the bar's upper end is clear


# -- asides ----------------------------------------------------------------------------------------


def test_arrows_are_set_aside_and_come_back_as_they_were() -> None:
    source = "digraph { a -> b [key=k, label=<<B>1</B>>, constraint=false]; b -> c [key=m] }"
    rest, asides = set_aside(source)
    assert [(each.source, each.target, each.key) for each in asides] == [("a", "b", "k")]
    drawing = pygraphviz.AGraph(string=rest)
    assert drawing.number_of_edges() == 1
    drawing.get_edge("b", "c", "m").attr["pos"] = "e,0,0 0,0 0,0 0,0 0,0"
    boxes = {name: Rectangle(50.0 * at, 90.0 * at, 10, 10) for at, name in enumerate("abc")}
    add_asides(drawing, asides, boxes)
    assert drawing.get_edge("a", "b", "k").attr["label"] == "<B>1</B>"
    assert set_aside("digraph { a -> b }") == ("digraph { a -> b }", ())


def test_an_arrow_that_graphviz_lost_is_drawn_all_the_same() -> None:
    drawing = pygraphviz.AGraph(string="digraph { a -> b [key=k, penwidth=2] }")
    add_asides(drawing, (), {"a": Rectangle(0, 0, 9, 9), "b": Rectangle(0, 90, 9, 9)})
    found = drawing.get_edge("a", "b", "k")
    assert found.attr["penwidth"] == "2" and len(_line(found.attr["pos"])) > 4


def test_titles_of_numbers_are_those_of_their_arrows() -> None:
    root = parsed(render.svg(two_edges()))
    group = next(g for g in root.iter(f"{SVG}g") if g.get("id") == "number-0.1-1.2")
    title = next(group.iter(f"{SVG}title")).text or ""
    assert title.startswith("0.1 -> 1.2: effect −8.00")
