"""The picture of an answer graph as DOT source in which everything has its place.

Columns are the prompt's tokens, rows the layers; the tokens stand at the bottom and the answer on
top. Graphviz says how large each box is and draws what it is given: its engine `nop2` is named in
the source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.feature_id import ANSWER_LAYER
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import place_words
from sae_graphs.graph.records import Node
from sae_graphs.render.marks import Marks
from sae_graphs.render.picture.arrows import arrow_attributes
from sae_graphs.render.picture.by_token import Grid
from sae_graphs.render.picture.engine import bundled_fonts, placed
from sae_graphs.render.picture.excerpt import Excerpt
from sae_graphs.render.picture.markup import cell, font, in_label, row, table, words
from sae_graphs.render.picture.remarks import remarks_on
from sae_graphs.render.picture.routing import Rectangle
from sae_graphs.render.picture.story_box import Weight, answer_box, axis_token, story_box
from sae_graphs.render.picture.story_header import story_footer, story_header
from sae_graphs.render.picture.supernodes import Boxes
from sae_graphs.render.picture.token_columns import Column, axis_name, columns_of, laid, layer_rows
from sae_graphs.render.picture.tooltips import box_tooltip
from sae_graphs.render.style import FAINT, MONO, MONO_SIZE, PANEL, SANS, SOFT, EffectScale
from sae_graphs.text import columns, shortened, token, web_address

if TYPE_CHECKING:
    from graphviz import Digraph

ROOM = 706.0  # points: as wide as a page shows at the size of its own text
NAMES = 62.0  # points at the left: the layers' names
LINE_LETTERS = 9  # of a line of quiet tokens
QUIET_LINES = 4
QUIET_SIZE = 8
NUMBERED = 0.08  # of the strongest arrow: weaker ones carry no number
HEADER_GAP = 14.0
_INCH = 72.0
_NODE = {"shape": "plain", "fontname": SANS, "fontsize": str(MONO_SIZE)}


def story(
    part: Excerpt,
    *,
    header: bool,
    where: str,
    title: str | None,
    scale: EffectScale,
    boxes: Boxes,
    marks: Marks,
    annotations: Annotations,
) -> str:
    """DOT source of what is drawn of an answer graph, with positions; see `dot`."""
    import graphviz

    graph, columns_ = part.drawn, columns_of(part.drawn)
    labels, rows = _labels(graph, marks, annotations), layer_rows(graph)
    labels |= {axis_name(graph, column): _axis(graph, column) for column in columns_}
    names = {f"layer {label}": _layer_name(graph, label) for label in rows}
    told = {}
    if header:
        told = {
            "header": story_header(
                part, where=where, title=title, marks=marks, annotations=annotations
            ),
            "footer": story_footer(graph, marks),
        }
    sizes = _sizes({**labels, **names, **told})
    spaced = laid(graph, columns_, rows, sizes, room=ROOM)
    places = dict(spaced.boxes)
    for label, at in rows.items():
        places[f"layer {label}"] = Rectangle(-NAMES / 2, spaced.rows[at], *sizes[f"layer {label}"])
    for name in told:
        width, height = sizes[name]
        above, below = spaced.height + HEADER_GAP + height / 2, -HEADER_GAP - height / 2
        y = above if name == "header" else below
        places[name] = Rectangle(-NAMES + width / 2, y, width, height)
    drawing = graphviz.Digraph("sae_graphs", graph_attr=_attributes())
    drawing.attr("node", **_NODE)
    drawing.attr("edge", arrowsize="0.7", fontname=SANS)
    _add_bands(drawing, columns_, spaced, graph)
    for name, text in {**labels, **names, **told}.items():
        _add(drawing, name, text, places[name], graph, annotations)
    _add_arrows(drawing, graph, spaced, scale, boxes, marks)
    return str(drawing.source)


def _attributes() -> dict[str, str]:
    return {
        "layout": "nop2",
        "outputorder": "edgesfirst",
        "bgcolor": "white",
        "pad": "0.2",
        "fontname": SANS,
        "tooltip": " ",
    }


# -- what is drawn ---------------------------------------------------------------------------------


def _labels(graph: CausalGraph, marks: Marks, annotations: Annotations) -> dict[str, str]:
    """The labels of all boxes but quiet tokens, by name."""
    run = graph.run
    largest = max((abs(node.effect_on_answer or 0.0) for node in graph.nodes), default=0.0)
    found = {}
    for node in graph.nodes:
        name, remarks = str(node.feature), remarks_on(annotations, node.feature)
        ticked = marks.marks_node(node)
        if node.feature.is_output:
            found[name] = answer_box(node, run, marked=ticked, pinned=remarks.pinned)
        elif node.feature.is_feature:
            weight = Weight.of(node, largest)
            found[name] = story_box(node, run, weight, remarks, marked=ticked)
    return found


def _axis(graph: CausalGraph, column: Column) -> str:
    run = graph.run
    if not column.quiet:
        position = column.positions[0]
        used = f"token@{position}" in graph
        return axis_token(run.tokens[position], read=position == run.read_position, used=used)
    lines = [""]
    for position in column.positions:
        text = shortened(token(run.tokens[position]), LINE_LETTERS)
        if lines[-1] and columns(lines[-1]) + columns(text) > LINE_LETTERS:
            lines.append("")
        lines[-1] += text
    if len(lines) > QUIET_LINES:
        lines = [*lines[: QUIET_LINES // 2], "…", *lines[-(QUIET_LINES // 2) :]]
    written = (font(in_label(line), size=QUIET_SIZE, face=MONO, colour=SOFT) for line in lines)
    return table(*(row(cell(line)) for line in written))


def _layer_name(graph: CausalGraph, label: str) -> str:
    if label == ANSWER_LAYER:
        return table(row(cell(words("answer", size=8, colour=SOFT))))
    hook = next(layer.hook_point for layer in graph.run.layers if layer.label == label)
    return table(
        row(cell(words(label, size=15, colour=SOFT, bold=True))),
        row(cell(words(place_words(hook), size=8, colour=FAINT))),
    )


def _sizes(labels: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """What each label takes, in points, as Graphviz has it."""
    import graphviz

    drawing = graphviz.Digraph(node_attr=_NODE)
    keys = {f"n{number}": name for number, name in enumerate(labels)}
    for key, name in keys.items():
        drawing.node(key, label=f"<{labels[name]}>")
    with bundled_fonts():
        found = json.loads(placed(str(drawing.source)))
    return {
        keys[each["name"]]: (_INCH * float(each["width"]), _INCH * float(each["height"]))
        for each in found["objects"]
    }


def _add(
    drawing: Digraph,
    name: str,
    text: str,
    place: Rectangle,
    graph: CausalGraph,
    annotations: Annotations,
) -> None:
    node: Node | None = None
    more = {}
    if name in graph:
        node = graph[name]
        more["tooltip"] = box_tooltip(node, graph.run, remarks_on(annotations, node.feature))
        if address := web_address(node.neuronpedia):
            more |= {"URL": address, "target": "_blank"}
    drawing.node(
        name,
        label=f"<{text}>",
        pos=f"{place.x:.2f},{place.y:.2f}",
        width=f"{place.width / _INCH:.4f}",
        height=f"{place.height / _INCH:.4f}",
        id=f"node-{name}" if node is not None else name.replace(" ", "-"),
        **{"tooltip": " ", **more},
    )


def _add_bands(
    drawing: Digraph, columns_: Sequence[Column], spaced: Grid, graph: CausalGraph
) -> None:
    """A ground below all boxes of a token, so that the eye sees its column."""
    for column, band in zip(columns_, spaced.bands, strict=True):
        if band.quiet:
            continue
        with drawing.subgraph(name=f"cluster_token_{column.positions[0]}") as ground:
            ground.attr(
                style="filled,rounded",
                color=PANEL,
                fillcolor=PANEL,
                label="",
                tooltip=" ",
                bb=f"{band.left + 3:.1f},-6,{band.right - 3:.1f},{spaced.height + 6:.1f}",
            )
            ground.node(axis_name(graph, column))


def _add_arrows(
    drawing: Digraph,
    graph: CausalGraph,
    spaced: Grid,
    scale: EffectScale,
    boxes: Boxes,
    marks: Marks,
) -> None:
    for edge in sorted(graph.edges, key=lambda edge: edge.strength):
        ends = str(edge.source), str(edge.target)
        attributes = arrow_attributes(
            graph.run,
            edge,
            scale,
            boxes,
            numbered=scale.share(edge.strength) >= NUMBERED and not edge.source.is_token,
            marked=marks.marks_edge(edge),
        )
        *line, last = spaced.lines[ends]
        tip = (last[0], last[1])
        back = (last[0], last[1] - 6.0)
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in (*line, back))
        drawing.edge(*ends, pos=f"e,{tip[0]:.2f},{tip[1]:.2f} {points}", **attributes)
