"""A causal graph as DOT source: boxes in layers, components in groups, arrows by sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import counted_nodes
from sae_graphs.graph.records import Node
from sae_graphs.render.marks import CHECK, NO_MARKS, Marks, Standing
from sae_graphs.render.picture.arrange import (
    Group,
    Rank,
    Shelf,
    add_layer_names,
    add_ranks,
    box_columns,
    context_lines,
    groups_of,
    shelves,
)
from sae_graphs.render.picture.arrows import arrow_attributes
from sae_graphs.render.picture.boxes import BoxRows, BoxShape, box, folded_box, folded_tooltip
from sae_graphs.render.picture.excerpt import DRAWN_BOXES, Excerpt, excerpt
from sae_graphs.render.picture.explained import explanation_lines
from sae_graphs.render.picture.header import header, no_path_words, total_words
from sae_graphs.render.picture.markup import at_own_size, cell, row, table, words
from sae_graphs.render.picture.remarks import below, remarks_on
from sae_graphs.render.picture.story import story
from sae_graphs.render.picture.supernodes import Boxes, supernodes
from sae_graphs.render.picture.token_columns import tells_a_story
from sae_graphs.render.picture.tooltips import box_tooltip
from sae_graphs.render.style import FAINT, INK, LINE, MONO_SIZE, PANEL, SANS, SOFT, EffectScale
from sae_graphs.text import web_address

if TYPE_CHECKING:
    from graphviz import Digraph

MANY_EDGES = 300  # beyond this the layout may look less hard for fewer crossings
NUMBERED_EDGES = 120  # up to this many arrows carry their effect as a number ...
NUMBERED_OF_MORE = 40  # ... and of more the strongest

ALL_IN_JSON = "graph.json holds all of them"
ALL_IN_PAGE = "the explorer, graph.html, and graph.json hold all of them"


@dataclass(frozen=True)
class _Picture:
    """Everything that a picture is drawn from."""

    part: Excerpt
    shelves: tuple[Shelf, ...]
    boxes: Boxes
    shape: BoxShape
    annotations: Annotations
    marks: Marks
    where: str  # is all of the graph

    @property
    def graph(self) -> CausalGraph:
        """What of the graph is drawn."""
        return self.part.drawn


def dot(
    graph: CausalGraph,
    *,
    title: str | None = None,
    scale: EffectScale | None = None,
    with_header: bool = True,
    marks: Marks = NO_MARKS,
    annotations: Annotations = NO_ANNOTATIONS,
    limit: int | None = DRAWN_BOXES,
    with_page: bool = False,
) -> str:
    """DOT source of the picture, for Graphviz's `dot`: layers from the bottom to the top.

    An answer graph with positions is laid out by token and layer, with all places in the source.

    `title` stands above the prompt, by default that of the annotations. `scale` is the scale of
    arrows, by default that of this graph; a component's own picture takes the whole graph's.
    `marks` say what ablation supports, `annotations` what a reader says. Of a graph with more boxes
    than `limit` the strongest paths are drawn (see `excerpt`); None draws it all.
    `with_page` where graph.html is written beside the picture, so that it can point there.
    """
    import graphviz

    scale = scale or EffectScale.of(graph)
    where = ALL_IN_PAGE if with_page else ALL_IN_JSON
    picture = _picture(graph, marks, annotations, limit, where)
    if tells_a_story(graph) and not picture.boxes.supernodes:
        return story(
            picture.part,
            header=with_header,
            where=where,
            title=annotations.title if title is None else title,
            scale=scale,
            boxes=picture.boxes,
            marks=marks,
            annotations=annotations,
        )
    attributes = _graph_attributes(picture)
    drawing = graphviz.Digraph("sae_graphs", graph_attr=attributes)
    if with_header:
        title = annotations.title if title is None else title
        above = header(
            picture.part,
            where=where,
            scale=scale,
            title=title,
            marks=marks,
            annotations=annotations,
        )
        drawing.attr(label=f"<{above}>")
    drawing.attr("node", shape="plain", fontname=SANS, fontsize=str(MONO_SIZE))
    drawing.attr("edge", arrowsize="0.85", fontname=SANS, weight="30")
    told = below(annotations, picture.shape.points * _widest(picture.shelves))
    if not told:
        _add_contents(drawing, picture, scale)
        return str(drawing.source)
    with drawing.subgraph(name="cluster_all") as inner:
        inner.attr(label=f"<{told}>", labeljust="l", color="transparent")
        inner.attr(labelloc="t", margin="0", tooltip=" ")  # below, as layers go upwards
        _add_contents(inner, picture, scale)
    return str(drawing.source)


def _picture(
    graph: CausalGraph, marks: Marks, annotations: Annotations, limit: int | None, where: str
) -> _Picture:
    """What is drawn, and where: the one place where a large graph is cut."""
    part = excerpt(graph, always=annotations.features | marks.features, limit=limit)
    boxes = Boxes(supernodes(part.drawn, annotations))
    groups = groups_of(part.drawn, folded=boxes.supernodes, left_out=part.left_out)
    shelved = shelves(groups)
    room = box_columns(shelved)
    explained = explanation_lines(part.drawn, room)
    shape = BoxShape(room, context_lines(len(part.drawn)), explained)
    return _Picture(part, shelved, boxes, shape, annotations, marks, where)


def _widest(shelved: tuple[Shelf, ...]) -> int:
    return max((shelf.boxes for shelf in shelved), default=1)


def _graph_attributes(picture: _Picture) -> dict[str, str]:
    widest = _widest(picture.shelves)
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
        "pad": "0.3",
        "outputorder": "edgesfirst",
        "tooltip": " ",
    }
    if picture.graph.resolves_positions:
        attributes["remincross"] = "false"  # a second search would forget the order by position
    if len(picture.graph.edges) > MANY_EDGES:
        attributes |= {"mclimit": "0.3", "nslimit": "4", "nslimit1": "4"}
    return attributes


def _add_contents(drawing: Digraph, picture: _Picture, scale: EffectScale) -> None:
    graph = picture.graph
    if not graph.nodes:
        message = words(no_path_words(graph.run), size=12, colour=SOFT)
        drawing.node("nothing", label=f"<{message}>", tooltip="no path is left")
    for shelf in picture.shelves:
        for group in shelf.groups:
            _add_group(drawing, picture, group)
    add_ranks(drawing, picture.shelves)
    edges = [edge for edge in graph.edges if not picture.boxes.hides(edge)]
    numbers = NUMBERED_EDGES if len(edges) <= NUMBERED_EDGES else NUMBERED_OF_MORE
    numbered = {(edge.source, edge.target) for edge in edges[:numbers]}  # strongest first
    for edge in sorted(edges, key=lambda edge: edge.strength):
        ends = picture.boxes.key(edge.source), picture.boxes.key(edge.target)
        attributes = arrow_attributes(
            graph.run,
            edge,
            scale,
            picture.boxes,
            numbered=(edge.source, edge.target) in numbered,
            marked=picture.marks.marks_edge(edge),
            aside=not picture.boxes.upwards(edge, graph),
        )
        drawing.edge(*ends, **attributes)


# -- components ------------------------------------------------------------------------------------


def _add_group(drawing: Digraph, picture: _Picture, group: Group) -> None:
    number = group.number
    standing = picture.marks.standing(number)
    caption = _caption(picture.part, number)
    if standing is not None:
        caption = table(row(cell(at_own_size(caption))), _standing_row(standing))
    with drawing.subgraph(name=f"cluster_{number}") as cluster:
        cluster.attr(
            label=f"<{caption}>",
            labelloc="b",  # on top, as layers go upwards
            labeljust="l",
            style="rounded,filled",
            color=LINE,
            fillcolor=PANEL,
            penwidth="1",
            margin="14",
            tooltip=f"Graph {number}",
        )
        if standing is not None:
            cluster.attr(**_frame(standing))
        add_layer_names(cluster, group, where=picture.where)
        for rank in group.ranks:
            _add_boxes(cluster, picture, rank)


def _add_boxes(cluster: Digraph, picture: _Picture, rank: Rank) -> None:
    """The boxes of a layer: those of features are of one height."""
    run, shape, said = picture.graph.run, picture.shape, picture.annotations
    remarks = {node.feature: remarks_on(said, node.feature) for node in rank.nodes}
    rows = [BoxRows.of(node, shape, remarks[node.feature]) for node in rank.nodes]
    level = BoxRows.most(rows) if rows else None
    for node in rank.nodes:
        mine = remarks[node.feature]
        ticked = picture.marks.marks_node(node)
        cluster.node(
            str(node.feature),
            label=f"<{box(node, run, shape, marked=ticked, remarks=mine, level=level)}>",
            tooltip=box_tooltip(node, run, mine),
            id=f"node-{node.feature}",
            **_link(node),
        )
    for each in rank.folded:
        cluster.node(
            each.key,
            label=f"<{folded_box(each, run, shape, said, picture.marks)}>",
            tooltip=folded_tooltip(each, run, said),
            id=each.key.replace(" ", "-"),
        )


def _link(node: Node) -> dict[str, str]:
    address = web_address(node.neuronpedia)
    return {"URL": address, "target": "_blank"} if address else {}


def _caption(part: Excerpt, number: int) -> str:
    """A component's name and size; its numbers are those of the whole component."""
    whole = part.whole
    nodes = [node for node in whole.nodes if node.component == number]
    drawn = sum(node.component == number and node.feature.is_feature for node in part.drawn.nodes)
    features = sum(node.feature.is_feature for node in nodes)
    of_how_many = f" · {drawn} of {features} features drawn" if drawn < features else ""
    facts = f"  {counted_nodes(nodes)}{total_words(whole, number)}{of_how_many}"
    head = row(
        cell(words(f"Graph {number}", size=14, bold=True, colour=INK), align="LEFT"),
        cell(words(facts, size=9.5, colour=SOFT), align="LEFT"),
    )
    return table(head, cellpadding=2)


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
