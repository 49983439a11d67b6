"""A causal graph as DOT source: boxes in layers, components in groups, arrows by sign."""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING

from sae_graphs.graph import CausalGraph, Edge, LayerReport, RunRecord
from sae_graphs.render.anatomy import anatomy_words, strongest_part
from sae_graphs.render.arrange import Group, Rank, Shelf, box_columns, context_lines, shelves
from sae_graphs.render.explained import explanation_lines
from sae_graphs.render.header import header, no_path_words
from sae_graphs.render.labels import BoxShape, box, box_tooltip
from sae_graphs.render.marks import CHECK, NO_MARKS, Marks, Standing
from sae_graphs.render.markup import at_own_size, cell, font, row, table, words
from sae_graphs.render.names import counted_nodes, logit_words, name_of, place_words
from sae_graphs.render.style import (
    FAINT,
    INK,
    LINE,
    PANEL,
    SANS,
    SOFT,
    EffectScale,
    arrow_head,
    effect_colour,
)
from sae_graphs.render.text import counted, in_tooltip, plain, signed, visible, web_address

if TYPE_CHECKING:
    from graphviz import Digraph

MANY_EDGES = 300  # beyond this the layout may look less hard for fewer crossings
NUMBERED_EDGES = 120  # up to this many arrows carry their effect as a number


def dot(
    graph: CausalGraph,
    *,
    title: str | None = None,
    scale: EffectScale | None = None,
    with_header: bool = True,
    marks: Marks = NO_MARKS,
) -> str:
    """DOT source of the picture, for Graphviz's `dot`: layers from the bottom to the top.

    `title` stands above the prompt. `scale` is the scale of arrows, by default that of this graph;
    a component's own picture takes the whole graph's. `marks` say what ablation supports.
    """
    import graphviz

    scale = scale or EffectScale.of(graph)
    shelved = shelves(graph)
    attributes = _graph_attributes(graph, shelved)
    drawing = graphviz.Digraph("sae_graphs", graph_attr=attributes)
    if with_header:
        drawing.attr(label=f"<{header(graph, scale=scale, title=title, marks=marks)}>")
    drawing.attr("node", shape="plain", fontname=SANS)
    drawing.attr("edge", arrowsize="0.85", fontname=SANS, weight="30")
    if not graph.nodes:
        message = words(no_path_words(graph.run), size=12, colour=SOFT)
        drawing.node("nothing", label=f"<{message}>", tooltip="no path is left")
    room = box_columns(shelved)
    shape = BoxShape(room, context_lines(graph), explanation_lines(graph, room))
    for shelf in shelved:
        for group in shelf.groups:
            _add_group(drawing, graph, group, shape, marks)
    _add_ranks(drawing, shelved)
    for edge in sorted(graph.edges, key=lambda edge: abs(edge.effect)):
        numbered = len(graph.edges) <= NUMBERED_EDGES
        marked = marks.marks_edge(edge)
        _add_edge(drawing, graph.run, edge, scale, numbered=numbered, marked=marked)
    return str(drawing.source)


def _graph_attributes(graph: CausalGraph, shelved: tuple[Shelf, ...]) -> dict[str, str]:
    widest = max((shelf.boxes for shelf in shelved), default=0)
    rank_gap = min(0.85 + 0.05 * max(widest - 6, 0), 1.8)  # inches; wide layers, steeper arrows
    attributes = {
        "rankdir": "BT",
        "newrank": "true",
        "ranksep": f"{rank_gap:.2f}",
        "nodesep": "0.22",
        "labelloc": "t",
        "labeljust": "l",
        "fontname": SANS,
        "fontcolor": INK,
        "bgcolor": "white",
        "pad": "0.25",
        "outputorder": "nodesfirst",
        "tooltip": " ",
    }
    if graph.resolves_positions:
        attributes["remincross"] = "false"  # a second search would forget the order by position
    if len(graph.edges) > MANY_EDGES:
        attributes |= {"mclimit": "0.3", "nslimit": "4", "nslimit1": "4"}
    return attributes


# -- layers ----------------------------------------------------------------------------------------


def _add_ranks(drawing: Digraph, shelved: tuple[Shelf, ...]) -> None:
    """What holds the layers in place, all of it invisible.

    Within a shelf the components' last layers are level, and so on downwards; the name of a layer
    comes before its features, and components come in order. Shelves follow one another. (Edges
    within a rank keep its order only where they have a weight.)
    """
    for shelf in shelved:
        for level in range(len(shelf.tallest.ranks)):
            with drawing.subgraph() as same:
                same.attr(rank="same")
                for group in shelf.groups:
                    for rank in group.ranks[level : level + 1]:
                        same.node(_layer_name(group, rank))
                        for node in rank.nodes:
                            same.node(str(node.feature))
        for left, right in pairwise(shelf.groups):
            ends = _layer_name(left, left.ranks[0]), _layer_name(right, right.ranks[0])
            drawing.edge(*ends, style="invis", weight="1")
    for upper, lower in pairwise(shelf.tallest for shelf in shelved):
        ends = _layer_name(lower, lower.ranks[0]), _layer_name(upper, upper.ranks[-1])
        drawing.edge(*ends, style="invis", weight="0")


def _add_layer_names(cluster: Digraph, group: Group) -> None:
    for rank in group.ranks:
        name = _layer_name(group, rank)
        cluster.node(name, label=f"<{_layer_label(rank.layer)}>", tooltip=_layer_tip(rank.layer))
        before = [name]
        for nodes in rank.by_position:
            here = [str(node.feature) for node in nodes]
            for left, right in product(before, here):
                cluster.edge(left, right, style="invis", weight="1")
            before = here
    for above, below in pairwise(group.ranks):
        ends = _layer_name(group, below), _layer_name(group, above)
        cluster.edge(*ends, style="invis", weight="300")


def _layer_name(group: Group, rank: Rank) -> str:
    return f"layer {rank.label} of {group.number}"


def _layer_label(layer: LayerReport | None) -> str:
    if layer is None:
        return table(row(cell(words("next token", size=9, colour=SOFT))))
    return table(
        row(cell(words("layer", size=9, colour=SOFT))),
        row(cell(words(layer.label, size=20, colour=SOFT, bold=True))),
        row(cell(words(place_words(layer.hook_point), size=8, colour=SOFT))),
        cellpadding=1,
    )


def _layer_tip(layer: LayerReport | None) -> str:
    if layer is None:
        return "output tokens: the effect on one is the change of its logit"
    return in_tooltip(
        f"layer {layer.label}: {visible(layer.hook_point)}\n"
        f"{counted(layer.active_features, 'active feature')}, {plain(layer.l0)} a token\n"
        f"{layer.fvu:.1%} of the variance unexplained"
    )


# -- components, edges -----------------------------------------------------------------------------


def _add_group(
    drawing: Digraph, graph: CausalGraph, group: Group, shape: BoxShape, marks: Marks
) -> None:
    number = group.number
    standing = marks.standing(number)
    total = sum(abs(edge.effect) for edge in graph.edges if graph[edge.source].component == number)
    facts = f"  {counted_nodes(group.nodes)} · total |effect| {plain(total)}"
    head = row(
        cell(words(f"Graph {number}", size=14, bold=True, colour=INK), align="LEFT"),
        cell(words(facts, size=9.5, colour=SOFT), align="LEFT"),
    )
    caption = table(head, cellpadding=2)
    if standing is not None:
        caption = table(row(cell(at_own_size(caption))), _standing_row(standing))
    with drawing.subgraph(name=f"cluster_{number}") as cluster:
        cluster.attr(
            label=f"<{font(caption)}>",
            labeljust="l",
            labelloc="b",  # on top, as layers go upwards
            style="rounded,filled",
            color=LINE,
            fillcolor=PANEL,
            margin="14",
            tooltip=f"Graph {number}",
        )
        if standing is not None:
            cluster.attr(**_frame(standing))
        _add_layer_names(cluster, group)
        for node in group.nodes:
            address = web_address(node.neuronpedia)
            linked = {"URL": address, "target": "_blank"} if address else {}
            cluster.node(
                str(node.feature),
                label=f"<{box(node, graph.run, shape, marked=marks.marks_node(node))}>",
                tooltip=box_tooltip(node, graph.run),
                id=f"node-{node.feature}",
                **linked,
            )


def _standing_row(standing: Standing) -> str:
    """The line of a component's caption that says what was found of it."""
    told = f"{CHECK} {standing.words}" if standing.supported else standing.words
    colour = INK if standing.supported else SOFT
    line = words(told, size=11, bold=standing.supported, colour=colour)
    return row(cell(line, align="LEFT", cellpadding=2))


def _frame(standing: Standing) -> dict[str, str]:
    """A thick dark frame around what is supported, a dashed one around what is not."""
    if standing.supported:
        return {"color": INK, "penwidth": "2.5"}
    return {"color": FAINT, "style": "rounded,filled,dashed"}


def _add_edge(
    drawing: Digraph,
    run: RunRecord,
    edge: Edge,
    scale: EffectScale,
    *,
    numbered: bool,
    marked: bool,
) -> None:
    check = f"{CHECK} " if marked else ""
    told = f"  {check}{signed(edge.effect)} "
    number = words(told, size=8, colour=effect_colour(edge.effect), bold=marked)
    drawing.edge(
        str(edge.source),
        str(edge.target),
        label=f"<{number}>" if numbered or marked else "",
        color=scale.colour(edge.effect),
        penwidth=f"{scale.width(edge.effect):.2f}",
        arrowhead=arrow_head(edge),
        id=f"edge-{edge.source}-{edge.target}",
        tooltip=in_tooltip("\n".join(_edge_lines(run, edge))),
        **{"class": edge.sign},
    )


def _edge_lines(run: RunRecord, edge: Edge) -> list[str]:
    """What hovering over an arrow says: the effect, its meaning, how it came about."""
    ends = f"{edge.source} -> {name_of(run, edge.target)}"
    change, does = ("lowers", "promotes") if edge.effect < 0 else ("raises", "suppresses")
    what = "target"
    if edge.target.is_output:
        what = logit_words(run.output(edge.target))
    lines = [
        f"{ends}: effect {signed(edge.effect)}",
        f"ablating the source {change} the {what}: it {does} it",
    ]
    if edge.anatomy is not None:
        whole = "" if edge.target.is_output else "pre-activation "
        total = signed(edge.anatomy.preactivation_effect)
        lines.append(f"{whole}{total}: {anatomy_words(edge.anatomy)}")
        strongest = strongest_part(edge.anatomy)
        if strongest and any(block.heads for block in edge.anatomy.blocks):
            lines.append(f"strongest: {strongest}")
    return lines
