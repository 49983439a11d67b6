"""What is done to a picture once Graphviz has placed everything.

Numbers move onto their arrows, above all lines, on a ground of their own; the bar at the end of an
arrow moves off its box; a faint line leads from the name of a layer to its first box where that is
far off.
"""

from __future__ import annotations

import html
import math
import re
from itertools import count
from typing import TYPE_CHECKING, Any

from sae_graphs.render.picture.markup import cell, row, table
from sae_graphs.render.picture.routing import (
    Aside,
    Line,
    Rectangle,
    add_asides,
    curve,
    number_places,
)
from sae_graphs.render.style import LINE, PANEL

if TYPE_CHECKING:
    from pygraphviz import AGraph

FAR = 40.0  # points between a layer's name and its first box
_GAP = 6.0  # points left free at either end of the faint line
_OFF_BOX, _FREE = 3.0, 1.0  # points from a box: a bar's middle at least, and all of it
_HALF_BAR = 5.0  # points
_LETTER, _LINE_HEIGHT = 0.64, 1.3  # of the type's size
_TYPE = 8.0  # points
_TAG = re.compile(r"<[^>]*>")


def finished(laid: str, asides: tuple[Aside, ...] = ()) -> str:
    """DOT source with positions, as `dot` writes it, finished; for Graphviz's `nop2`.

    `asides` are arrows that Graphviz was not given.
    """
    import pygraphviz

    drawing = pygraphviz.AGraph(string=laid)
    try:
        _drop_invisible(drawing)
        boxes = _boxes(drawing)
        add_asides(drawing, asides, boxes)
        _stand_off(drawing, boxes)
        _move_numbers(drawing, list(boxes.values()))
        _add_leaders(drawing, boxes)
        return str(drawing.to_string())
    finally:
        drawing.close()


def _drop_invisible(drawing: AGraph) -> None:
    """The edges that kept things in order: they would take room now."""
    for name in drawing.edges(keys=True):
        if drawing.get_edge(*name).attr["style"] == "invis":
            drawing.remove_edge(*name)


def _boxes(drawing: AGraph) -> dict[str, Rectangle]:
    found = {}
    for node in drawing.nodes():
        x, y = map(float, node.attr["pos"].split(","))
        size = (72 * float(node.attr[side]) for side in ("width", "height"))
        found[str(node)] = Rectangle(x, y, *size)
    return found


# -- bars ------------------------------------------------------------------------------------------


def _stand_off(drawing: AGraph, boxes: dict[str, Rectangle]) -> None:
    """Bars in full view: boxes lie above arrows, and cover what reaches into them of a bar on
    their border, nearly half of it where the arrow is steep."""
    for name in drawing.edges(keys=True):
        edge = drawing.get_edge(*name)
        if edge.attr["arrowhead"] == "tee":
            edge.attr["pos"] = _off(edge.attr["pos"], boxes[name[1]])


def _off(position: str, box: Rectangle) -> str:
    """An arrow's line with its end drawn back as far as its bar needs."""
    end, *line = position.split()
    tip, last = _point(end.removeprefix("e,")), _point(line[-1])
    length = math.dist(last, tip)
    x, y = (tip[0] - last[0]) / length, (tip[1] - last[1]) / length
    for step in count():
        back = _OFF_BOX + step / 2
        middle = tip[0] - back * x, tip[1] - back * y
        ends = ((middle[0] - side * y, middle[1] + side * x) for side in (-_HALF_BAR, _HALF_BAR))
        if not any(_near(each, box) for each in (middle, *ends)):
            break
    moved = [
        f"{px - back * x:.2f},{py - back * y:.2f}" for px, py in map(_point, [end[2:], *line[-2:]])
    ]
    return " ".join([f"e,{moved[0]}", *line[:-2], *moved[1:]])


def _point(written: str) -> tuple[float, float]:
    x, y = written.split(",")
    return float(x), float(y)


def _near(point: tuple[float, float], box: Rectangle) -> bool:
    across, up = abs(point[0] - box.x), abs(point[1] - box.y)
    return across < box.width / 2 + _FREE and up < box.height / 2 + _FREE


# -- numbers ---------------------------------------------------------------------------------------


def _move_numbers(drawing: AGraph, boxes: list[Rectangle]) -> None:
    """Each number becomes a node of its own, with the tooltip of its arrow."""
    edges = [drawing.get_edge(*name) for name in drawing.edges(keys=True)]
    edges.sort(key=lambda edge: -float(edge.attr["penwidth"]))
    lines = [_line(edge.attr["pos"]) for edge in edges]
    sizes = [_size(edge.attr["label"]) for edge in edges]
    places = number_places(lines, sizes, boxes)
    for number, (edge, place, size) in enumerate(zip(edges, places, sizes, strict=True)):
        if place is None or size is None:
            continue
        ground = table(row(cell(edge.attr["label"])), bgcolor=PANEL)
        drawing.add_node(
            f"number {number}",
            label=f"<{ground}>",
            pos=f"{place[0]:.2f},{place[1]:.2f}",
            shape="plain",
            tooltip=edge.attr["tooltip"],
            id=edge.attr["id"].replace("edge-", "number-", 1),
        )
        edge.attr["label"] = ""
        edge.attr["lp"] = ""


def _line(position: str) -> Line:
    """An arrow's line from Graphviz's `e,x,y x,y x,y ...`; the head's point is its end."""
    parts = position.split(";")[0].split()
    points = [tuple(map(float, part.split(","))) for part in parts if part[0] not in "es"]
    return curve([(x, y) for x, y in points])


def _size(label: str | None) -> tuple[float, float] | None:
    """About what a number takes; None where an arrow has none."""
    if not label:
        return None
    lines = [html.unescape(_TAG.sub("", line)) for line in label.split("</TR>")]
    lines = [line for line in lines if line]
    return _LETTER * _TYPE * max(map(len, lines)), _LINE_HEIGHT * _TYPE * len(lines)


# -- layers ----------------------------------------------------------------------------------------


def _add_leaders(drawing: AGraph, boxes: dict[str, Rectangle]) -> None:
    for name, mine in boxes.items():
        if not name.startswith("layer "):
            continue
        level = [
            (other.x - other.width / 2, key)
            for key, other in boxes.items()
            if other.x > mine.x and abs(other.y - mine.y) < 1
        ]
        start = mine.x + mine.width / 2
        if not level or min(level)[0] - start < FAR:
            continue
        end, key = min(level)
        attributes: dict[str, Any] = {
            "pos": _straight(start + _GAP, end - _GAP, mine.y),
            "style": "dotted",
            "color": LINE,
            "arrowhead": "none",
            "tooltip": " ",
        }
        drawing.add_edge(name, key, key=f"to {name}", **attributes)


def _straight(start: float, end: float, y: float) -> str:
    third = (end - start) / 3
    return " ".join(f"{start + step * third:.2f},{y:.2f}" for step in range(4))
