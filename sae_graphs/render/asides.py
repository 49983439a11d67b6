"""Arrows that Graphviz has no part in: those of a folded group that do not lead upwards.

A group may span layers, or components, so some of its arrows lead to a box beside it or below, or
to another component. Graphviz would turn layers around for them, or lose them: they are taken out
before it places anything, and drawn around all boxes afterwards, in lines that turn at right
angles. As all others they leave a box at its top and arrive at the foot of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sae_graphs.render.detours import detour

if TYPE_CHECKING:
    from pygraphviz import AGraph

    from sae_graphs.render.numbering import Rectangle


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
    """Draw them, and any that Graphviz has lost, around all boxes, each in a lane of its own."""
    lost = []
    for start, end, key in drawing.edges(keys=True):
        edge = drawing.get_edge(start, end, key)
        if not edge.attr["pos"]:
            lost.append(Aside(start, end, key, dict(edge.attr)))
            drawing.remove_edge(start, end, key)
    drawn = (*asides, *lost)
    for number, each in enumerate(drawn):
        attributes = {name: value for name, value in each.attributes.items() if name != "key"}
        if label := attributes.get("label"):
            attributes["label"] = f"<{label}>"
        attributes["pos"] = detour(
            boxes[each.source],
            boxes[each.target],
            list(boxes.values()),
            lane=2 * number / (len(drawn) - 1) - 1 if len(drawn) > 1 else 0.0,
            head=attributes.get("arrowhead") or "normal",
        )
        drawing.add_edge(each.source, each.target, key=each.key, **attributes)
