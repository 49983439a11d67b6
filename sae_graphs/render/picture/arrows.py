"""Arrows: their colour, head and number, and what hovering over one says."""

from __future__ import annotations

from sae_graphs.graph.feature_id import ANSWER
from sae_graphs.graph.names import (
    anatomy_words,
    drawn_effect,
    flow_words,
    name_of,
    number_of,
    number_words,
    strongest_part,
)
from sae_graphs.graph.records import Edge, RunRecord
from sae_graphs.render.marks import CHECK
from sae_graphs.render.picture.markup import cell, in_tooltip, row, table, words
from sae_graphs.render.picture.supernodes import Boxes
from sae_graphs.render.style import SOFT, EffectScale, arrow_head, arrow_line, effect_colour
from sae_graphs.words import signed


def arrow_attributes(
    run: RunRecord,
    edge: Edge,
    scale: EffectScale,
    boxes: Boxes,
    *,
    numbered: bool,
    marked: bool,
    aside: bool = False,
) -> dict[str, str]:
    """The attributes of an arrow in the DOT source; `marked` where a tick stands at its number.

    An `aside`, which leads around boxes, always has a number, and names both of its ends there.
    """
    name = f"edge-{edge.source}-{edge.target}"
    number = _number(edge, boxes, marked=marked, aside=aside)
    return {
        "key": name,  # tells arrows apart that folded groups have in common
        "label": f"<{number}>" if numbered or marked or aside else "",
        "color": scale.colour(drawn_effect(edge)),
        "penwidth": f"{scale.width(edge.strength):.2f}",
        "arrowhead": arrow_head(edge),
        "style": arrow_line(edge),
        "id": name,
        "tooltip": in_tooltip("\n".join(edge_lines(run, edge))),
        "class": edge.sign,
    } | ({"constraint": "false"} if aside else {})


def _number(edge: Edge, boxes: Boxes, *, marked: bool, aside: bool) -> str:
    """The effect; below it which member of a group an end is that is folded away."""
    check = f"{CHECK} " if marked else ""
    told = f" {check}{signed(number_of(edge))} "
    number = words(told, size=8, colour=effect_colour(edge.effect), bold=marked)
    ends = [
        f"{what} {feature}"
        for what, feature in (("of", edge.source), ("on", edge.target))
        if aside or boxes.of(feature) is not None
    ]
    if not ends:
        return number
    which = words(f" {' '.join(ends)} ", size=7, colour=SOFT)
    return table(row(cell(number)), row(cell(which)))


def edge_lines(run: RunRecord, edge: Edge) -> list[str]:
    """What hovering over an arrow says: the effect, its meaning, how it came about."""
    ends = f"{edge.source} -> {name_of(run, edge.target)}"
    change, does = ("lowers", "promotes") if edge.effect < 0 else ("raises", "suppresses")
    what = "target"
    if edge.target.is_output:
        what = number_words(run, edge.target)
    if edge.target == ANSWER:
        does = "supports" if edge.effect < 0 else "opposes"
    if edge.source.is_token:
        return [ends, "by definition: without its token the feature is nothing"]
    lines = [
        f"{ends}: effect {signed(edge.effect)}",
        f"ablating the source {change} the {what}: it {does} it",
    ]
    if edge.target == ANSWER:
        lines.append("with the features of all later SAE layers as they were")
    elif (flows := flow_words(edge)) is not None:
        lines.append(flows)
    if edge.anatomy is not None:
        whole = "" if edge.target.is_output else "pre-activation "
        total = signed(edge.anatomy.preactivation_effect)
        lines.append(f"{whole}{total}: {anatomy_words(edge.anatomy)}")
        strongest = strongest_part(edge.anatomy)
        if strongest and any(block.heads for block in edge.anatomy.blocks):
            lines.append(f"strongest: {strongest}")
    return lines
