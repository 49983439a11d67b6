"""Arrows of folded groups that lead sideways, down or to another component go around all boxes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pygraphviz
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.graph.annotations import Annotations, Group
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render import pictures as render
from sae_graphs.render.picture.engine import _rendered, bundled_fonts
from sae_graphs.render.picture.finishing import _boxes, _line, finished
from sae_graphs.render.picture.routing import Line, Rectangle, detour, rounded, rows_of, set_aside
from sae_graphs.render.picture.supernodes import Boxes, supernodes
from tests.render.test_annotated import chain
from tests.render.test_picture import parsed, said
from tests.support.rich_graphs import graph_of, large, two_components
from tests.support.slow import examples, only

F = FeatureId.parse
LEFT, MIDDLE, RIGHT = (Rectangle(x, 0, 40, 20) for x in (0, 60, 120))
UPPER = Rectangle(60, 80, 100, 20)
ALL = [LEFT, MIDDLE, RIGHT, UPPER]


def ends(position: str) -> tuple[tuple[float, float], Line, tuple[float, float]]:
    """Where a line starts, its points, and the tip of its arrow."""
    tip = tuple(map(float, position.split()[0].removeprefix("e,").split(",")))
    line = _line(position)
    return (line[0][0], line[0][1]), line, (tip[0], tip[1])


def covered(line: Line, boxes: list[Rectangle]) -> list[Rectangle]:
    """Boxes that a line runs below."""
    return [
        box
        for box in boxes
        if (np.abs(line - (box.x, box.y)) < np.array([box.width, box.height]) / 2 - 0.01)
        .all(axis=1)
        .any()
    ]


# -- lines -----------------------------------------------------------------------------------------


def test_rows_are_what_stands_level() -> None:
    low, high = rows_of(ALL)
    assert (low.bottom, low.top, low.spans) == (-10, 10, ((-20, 20), (40, 80), (100, 140)))
    assert (high.bottom, high.top, high.spans) == (70, 90, ((10, 110),))


@pytest.mark.parametrize(
    ("source", "target"),
    [(LEFT, RIGHT), (RIGHT, LEFT), (LEFT, UPPER), (UPPER, LEFT), (UPPER, MIDDLE), (MIDDLE, MIDDLE)],
)
def test_a_line_leaves_at_the_top_and_arrives_at_the_foot(
    source: Rectangle, target: Rectangle
) -> None:
    start, line, tip = ends(detour(source, target, ALL))
    assert start[1] == source.y + 10 and abs(start[0] - source.x) < source.width / 2
    assert tip[1] == target.y - 10 and abs(tip[0] - target.x) < target.width / 2
    assert tuple(line[-1]) == pytest.approx((tip[0], tip[1] - 8.5))  # the head's room
    assert covered(line, ALL) == []


def test_a_bar_takes_less_room_than_a_head() -> None:
    _, line, tip = ends(detour(LEFT, RIGHT, ALL, head="tee"))
    assert tip[1] - line[-1][1] == pytest.approx(4.25)


def test_lanes_keep_lines_apart() -> None:
    lines = [_line(detour(LEFT, UPPER, ALL, lane=lane)) for lane in (-1.0, 0.0, 1.0)]
    starts = [line[0][0] for line in lines]
    assert all(after - before >= 4 for before, after in pairwise(starts))
    levels = [float(np.median(line[:, 1])) for line in lines]
    assert len({round(level) for level in levels}) == 3


def test_a_line_takes_no_way_that_is_too_narrow() -> None:
    near, far = Rectangle(0, 0, 40, 20), Rectangle(44, 0, 40, 20)  # 4 points apart
    line = _line(detour(near, far, [near, far]))
    assert line[:, 0].max() > 64 or line[:, 0].min() < -20


def test_names_of_components_have_a_high_aisle_to_themselves() -> None:
    above = Rectangle(200, 400, 40, 20)
    line = _line(detour(LEFT, above, [LEFT, above]))
    assert line[:, 1].min() == 10 and float(np.median(line[:, 1])) >= 390 - 60


def test_turns_are_round_and_nothing_is_cut_short() -> None:
    line = rounded([(0, 0), (0, 40), (0, 40), (40, 40)])
    assert line[0] == (0, 0) and line[-1] == (40, 40) and len(line) % 3 == 1
    assert (0, 40) not in line
    assert rounded([(0, 0), (0, 30)]) == [(0, 0), (0, 10), (0, 20), (0, 30)]


@st.composite
def rooms(draw: st.DrawFn) -> list[Rectangle]:
    """Rows of boxes as Graphviz places them: level, 16 points apart or more, rows 61 apart."""
    found, y = [], 0.0
    for _ in range(draw(st.integers(1, 5))):
        height = draw(st.sampled_from([40.0, 90.0, 120.0]))
        x = draw(st.floats(-100, 100))
        for _ in range(draw(st.integers(1, 6))):
            width = draw(st.floats(40, 200))
            found.append(Rectangle(x + width / 2, y + height / 2, width, height))
            x += width + draw(st.sampled_from([16.0, 16.0, 30.0, 250.0]))
        y += height + 61
    return found


@examples(150, cheap=True)
@given(rooms(), st.floats(-1, 1), st.data())
def test_no_line_runs_below_a_box(boxes: list[Rectangle], lane: float, data: st.DataObject) -> None:
    source, target = data.draw(st.sampled_from(boxes)), data.draw(st.sampled_from(boxes))
    _, line, tip = ends(detour(source, target, boxes, lane=lane))
    assert covered(line, boxes) == []
    assert abs(tip[0] - target.x) < target.width / 2


# -- pictures --------------------------------------------------------------------------------------


def folded(*features: str) -> Annotations:
    return Annotations(groups=(Group("g", tuple(map(F, features)), folded=True),))


def test_only_what_leads_to_a_later_layer_of_the_component_leads_upwards() -> None:
    graph = chain()  # 0.1 -> 1.2 -> 2.3 -> 3.4, 0.5 -> 1.2
    told = {
        ("0.1", "1.2"): {},  # no arrow but its own: hidden
        ("0.1", "2.3"): {"0.1 -> 1.2": False, "1.2 -> 2.3": True, "2.3 -> 3.4": True},
        ("0.1", "3.4"): {"0.1 -> 1.2": False, "1.2 -> 2.3": True, "2.3 -> 3.4": True},
        ("0.5", "2.3"): {"0.5 -> 1.2": False},
    }
    for members, expected in told.items():
        boxes = Boxes(supernodes(graph, folded(*members)))
        found = {f"{e.source} -> {e.target}": boxes.upwards(e, graph) for e in graph.edges}
        assert {name: found[name] for name in expected} == expected
    beside = graph_of(("0.1", "1.2", -8.0), ("0.1", "1.3", -1.0), ("0.4", "1.3", -1.0))
    boxes = Boxes(supernodes(beside, folded("0.1", "1.3")))  # stands in layer 1, as 1.2 does
    assert not boxes.upwards(beside.edge("0.1", "1.2"), beside)
    across = two_components()
    boxes = Boxes(supernodes(across, folded("1.2", "1.5")))
    assert {str(e.source): boxes.upwards(e, across) for e in across.edges} == {
        "0.1": True,
        "1.2": True,
        "0.4": False,
        "1.5": False,
    }


GRAPHS = {
    "across components": (two_components, ("1.2", "1.5")),
    "across layers": (lambda: large(5, 6), ("0.1", "2.2", "3.3", "3.4")),
    "early": (lambda: large(5, 6), ("0.1", "0.2", "3.4")),
    "late": (lambda: large(5, 6), ("0.1", "4.2", "4.3")),
}


@pytest.mark.parametrize("name", only(GRAPHS, "across components", "early"))
def test_no_arrow_of_a_picture_runs_below_a_box(name: str) -> None:
    make, members = GRAPHS[name]
    graph: CausalGraph = make()
    source = render.dot(graph, annotations=folded(*members))
    with bundled_fonts():
        upwards, asides = set_aside(source)
        laid = _rendered(upwards, "dot").decode()
    drawing = pygraphviz.AGraph(string=finished(laid, asides))
    boxes = _boxes(pygraphviz.AGraph(string=laid))
    assert asides
    for each in asides:
        line = _line(drawing.get_edge(each.source, each.target, each.key).attr["pos"])
        assert covered(line, list(boxes.values())) == [], each.key


def test_an_aside_names_both_ends_and_always_has_its_number() -> None:
    graph = two_components()
    words = said(parsed(render.svg(graph, annotations=folded("1.2", "1.5"))))
    assert "−2.00 of 0.4 on 1.5" in words and "+1.00 of 1.5 on 2.6" in words
    assert "−8.00 on 1.2" in words
    many = large(10, 20)
    ends = [node.feature for node in many.nodes][:2]
    picture = render.dot(
        many, annotations=folded(str(ends[0]), "5.3", "5.4"), limit=None
    ).splitlines()
    asides = [line for line in picture if "constraint=false" in line]
    assert asides and all(" on " in line.replace("\xa0", " ") for line in asides)
