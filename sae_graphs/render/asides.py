"""Arrows that Graphviz has no part in: those of a folded group that do not lead upwards.

A group may span layers, so some of its arrows lead to a box beside it or below. Graphviz would turn
layers around for them, or lose them: they are taken out before it places anything, and drawn from
side to side afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sae_graphs.render.numbering import Rectangle

if TYPE_CHECKING:
    from pygraphviz import AGraph

_HEAD = 8.5  # points: an arrow's head
_BEND = 0.4  # of the way: how far a line runs straight on before it turns
_RISE = 48.0  # points: how far above or below a row, where layers are 60 apart
_LOOP = 70.0  # points: how far it swings out where one box is above the other


class Aside(NamedTuple):
    """An arrow, as it was in the source."""

    source: str
    target: str
    key: str
    attributes: Mapping[str, str]


def set_aside(source: str) -> tuple[str, tuple[Aside, ...]]:
    """DOT source without the arrows that would not lead upwards, and these."""
    import pygraphviz

    drawing = pygraphviz.AGraph(string=source)
    try:
        found = []
        for start, end, key in drawing.edges(keys=True):
            attributes = dict(drawing.get_edge(start, end, key).attr)
            if attributes.get("constraint") == "false":
                found.append(Aside(start, end, key, attributes))
                drawing.remove_edge(start, end, key)
        return (str(drawing.to_string()) if found else source), tuple(found)
    finally:
        drawing.close()


def add_asides(drawing: AGraph, asides: tuple[Aside, ...], boxes: Mapping[str, Rectangle]) -> None:
    """Draw them, and any that Graphviz has lost, from box to box."""
    lost = []
    for start, end, key in drawing.edges(keys=True):
        edge = drawing.get_edge(start, end, key)
        if not edge.attr["pos"]:
            lost.append(Aside(start, end, key, dict(edge.attr)))
            drawing.remove_edge(start, end, key)
    for each in (*asides, *lost):
        attributes = {name: value for name, value in each.attributes.items() if name != "key"}
        if label := attributes.get("label"):
            attributes["label"] = f"<{label}>"
        attributes["pos"] = route(boxes[each.source], boxes[each.target])
        drawing.add_edge(each.source, each.target, key=each.key, **attributes)


def route(source: Rectangle, target: Rectangle) -> str:
    """A line from box to box, as Graphviz writes it: beside each other over or under what is
    between, else from side to side."""
    apart = abs(target.x - source.x) - (source.width + target.width) / 2
    right = 1.0 if target.x >= source.x else -1.0
    if abs(target.y - source.y) < max(source.height, target.height) / 2:
        return _arc(source, target, right)
    start = source.x + right * source.width / 2, source.y
    if apart > 2 * _HEAD:
        tip = target.x - right * target.width / 2, target.y
        end = tip[0] - right * _HEAD, tip[1]
        bend = right * _BEND * apart
        bends = (start[0] + bend, start[1]), (end[0] - bend, end[1])
    else:
        tip = target.x + right * target.width / 2, target.y
        end = tip[0] + right * _HEAD, tip[1]
        furthest = right * max(right * start[0], right * end[0]) + right * _LOOP
        bends = (furthest, start[1]), (furthest, end[1])
    return _written(tip, (start, *bends, end))


def _arc(source: Rectangle, target: Rectangle, right: float) -> str:
    """Above the row where it leads to the right, below it where it leads to the left."""
    start = source.x, source.y + right * source.height / 2
    tip = target.x, target.y + right * target.height / 2
    end = tip[0], tip[1] + right * _HEAD
    furthest = right * max(right * start[1], right * tip[1]) + right * _RISE
    return _written(tip, (start, (start[0], furthest), (end[0], furthest), end))


def _written(tip: tuple[float, float], points: Iterable[tuple[float, float]]) -> str:
    line = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f"e,{tip[0]:.2f},{tip[1]:.2f} {line}"
