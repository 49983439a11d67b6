"""A causal graph as DOT source: boxes in layers, components side by side, arrows by sign."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Literal

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph import CausalGraph, Edge, LayerReport, Node
from sae_graphs.render.header import header, no_path_words
from sae_graphs.render.labels import box, box_tooltip
from sae_graphs.render.markup import cell, font, row, table, words
from sae_graphs.render.style import (
    INK,
    LINE,
    PANEL,
    SANS,
    SOFT,
    EffectScale,
    arrow_head,
)
from sae_graphs.render.text import counted, in_tooltip, plain, signed, web_address

Direction = Literal["BT", "TB", "LR"]
DIRECTIONS: tuple[Direction, ...] = ("BT", "TB", "LR")
MANY_EDGES = 300  # beyond this the layout may look less hard for fewer crossings


def dot(
    graph: CausalGraph,
    *,
    direction: Direction = "BT",
    title: str | None = None,
    scale: EffectScale | None = None,
    with_header: bool = True,
) -> str:
    """DOT source of the picture. `direction` is where later layers lie: BT puts them on top.

    `scale` is the scale of arrows, by default that of this graph; a component's own picture takes
    the whole graph's. Raises `SaeGraphsError` for an unknown direction.
    """
    if direction not in DIRECTIONS:
        raise SaeGraphsError(f"direction {direction!r} is none of {', '.join(DIRECTIONS)}")
    import graphviz

    scale = scale or EffectScale.of(graph)
    drawing = graphviz.Digraph("sae_graphs", graph_attr=_graph_attributes(graph, direction))
    if with_header:
        drawing.attr(label=f"<{header(graph, scale=scale, title=title)}>")
    drawing.attr("node", shape="plain", fontname=SANS)
    drawing.attr("edge", arrowsize="0.85")
    if not graph.nodes:
        message = words(no_path_words(graph.run), size=12, colour=SOFT)
        drawing.node("nothing", label=f"<{message}>", tooltip="no path is left")
        return str(drawing.source)
    _add_layers(drawing, graph)
    for number, group in groupby(sorted(graph.nodes, key=_component), key=_component):
        _add_component(drawing, graph, number, list(group), direction)
    for edge in sorted(graph.edges, key=lambda edge: abs(edge.effect)):
        _add_edge(drawing, edge, scale)
    return str(drawing.source)


def _component(node: Node) -> int:
    return node.component


def _graph_attributes(graph: CausalGraph, direction: Direction) -> dict[str, str]:
    attributes = {
        "rankdir": direction,
        "newrank": "true",
        "ranksep": "0.85",
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
    if len(graph.edges) > MANY_EDGES:
        attributes |= {"mclimit": "0.3", "nslimit": "4", "nslimit1": "4"}
    return attributes


# -- layers ----------------------------------------------------------------------------------------


def _add_layers(drawing: object, graph: CausalGraph) -> None:
    """The names of the layers beside their ranks, held in order by invisible edges."""
    import graphviz

    assert isinstance(drawing, graphviz.Digraph)
    present = {node.feature.layer for node in graph.nodes}
    layers = [layer for layer in graph.run.layers if layer.label in present]
    with drawing.subgraph(name="cluster_layers") as names:
        names.attr(label="", style="invis", tooltip=" ")
        for layer in layers:
            names.node(
                _layer_name(layer.label),
                label=f"<{_layer_label(layer)}>",
                tooltip=_layer_tip(layer),
            )
        for below, above in pairwise(layers):
            names.edge(
                _layer_name(below.label), _layer_name(above.label), style="invis", weight="100"
            )
    for layer in layers:
        with drawing.subgraph() as rank:
            rank.attr(rank="same")
            rank.node(_layer_name(layer.label))
            for node in graph.nodes:
                if node.feature.layer == layer.label:
                    rank.node(str(node.feature))


def _layer_name(label: str) -> str:
    return f"layer {label}"


def _layer_label(layer: LayerReport) -> str:
    return table(
        row(cell(words("layer", size=9, colour=SOFT))),
        row(cell(words(layer.label, size=20, colour=SOFT, bold=True))),
        cellpadding=1,
    )


def _layer_tip(layer: LayerReport) -> str:
    return in_tooltip(
        f"layer {layer.label}: {layer.hook_point}\n"
        f"{counted(layer.active_features, 'active feature')}, {plain(layer.l0)} a token\n"
        f"{layer.fvu:.1%} of the variance unexplained"
    )


# -- components, edges -----------------------------------------------------------------------------


def _add_component(
    drawing: object, graph: CausalGraph, number: int, nodes: list[Node], direction: Direction
) -> None:
    import graphviz

    assert isinstance(drawing, graphviz.Digraph)
    total = sum(abs(edge.effect) for edge in graph.edges if graph[edge.source].component == number)
    features = counted(len(nodes), "feature")
    caption = table(
        row(
            cell(words(f"Graph {number}", size=14, bold=True, colour=INK), align="LEFT"),
            cell(
                words(f"  {features} · total |effect| {plain(total)}", size=9.5, colour=SOFT),
                align="LEFT",
            ),
        ),
        cellpadding=2,
    )
    with drawing.subgraph(name=f"cluster_{number}") as group:
        group.attr(
            label=f"<{font(caption)}>",
            labeljust="l",
            labelloc="b" if direction == "BT" else "t",
            style="rounded,filled",
            color=LINE,
            fillcolor=PANEL,
            margin="14",
            tooltip=f"Graph {number}",
        )
        for node in nodes:
            address = web_address(node.neuronpedia)
            linked = {"URL": address, "target": "_blank"} if address else {}
            group.node(
                str(node.feature),
                label=f"<{box(node, graph.run)}>",
                tooltip=box_tooltip(node, graph.run),
                id=f"node-{node.feature}",
                **linked,
            )


def _add_edge(drawing: object, edge: Edge, scale: EffectScale) -> None:
    import graphviz

    assert isinstance(drawing, graphviz.Digraph)
    meaning = (
        "ablating the source lowers the target: it promotes it"
        if edge.effect < 0
        else "ablating the source raises the target: it suppresses it"
    )
    drawing.edge(
        str(edge.source),
        str(edge.target),
        color=scale.colour(edge.effect),
        penwidth=f"{scale.width(edge.effect):.2f}",
        arrowhead=arrow_head(edge),
        id=f"edge-{edge.source}-{edge.target}",
        **{"class": edge.sign},
        tooltip=in_tooltip(
            f"{edge.source} -> {edge.target}: effect {signed(edge.effect)}\n{meaning}"
        ),
    )
