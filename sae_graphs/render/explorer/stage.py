"""The drawing of a page: layers, boxes and arrows where Graphviz put them, as HTML and SVG.

Boxes are HTML over an SVG of arrows, so that they are styled, read aloud and printed as text is.
Colours are classes and variables: the page decides between light, dark and paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import counted_nodes, name_of, place_words
from sae_graphs.graph.records import Edge, FeatureId, LayerReport, Node, RunRecord
from sae_graphs.render.explorer.boxes import Shape, box_height, box_lines, heading
from sae_graphs.render.picture.layout import Box, Layout, Point, layout
from sae_graphs.render.style import EffectScale
from sae_graphs.text import in_page, visible
from sae_graphs.words import plain, signed

NUMBERED = 120  # arrows up to which each carries its number
REACHED = 1500  # arrows up to which the pointer need not be on the line
SHARES = (0.5, 0.38, 0.62, 0.28, 0.72)  # of an arrow's way, where its number may stand
NUMBER_SIZE = 38.0, 13.0  # CSS pixels
BOLD_ASPECT = 0.7  # a bold digit's width by its size


class Stage(NamedTuple):
    """A drawing as HTML, its layout, and where the number of each arrow stands."""

    html: str
    layout: Layout
    numbers: tuple[Point, ...]


def stage(
    graph: CausalGraph,
    *,
    marks: Mapping[FeatureId, str] | None = None,
    edge_classes: Mapping[tuple[FeatureId, FeatureId], str] | None = None,
) -> Stage:
    """The graph's drawing. Node `i` is `data-n="i"`, edge `i` is `data-e="i"`, in graph order.

    `marks` and `edge_classes` are further classes for boxes and arrows.
    """
    shape = Shape.of(graph)
    lines = {node.feature: box_lines(node, graph.run, shape) for node in graph.nodes}
    heights = {feature: box_height(found) for feature, found in lines.items()}
    drawn = layout(graph, heights, width=shape.width)
    scale = EffectScale.of(graph)
    numbered = len(graph.edges) <= NUMBERED
    arrows = "".join(
        _arrow(edge, number, drawn, scale, (edge_classes or {}).get((edge.source, edge.target), ""))
        for number, edge in reversed(tuple(enumerate(graph.edges)))
    )
    places = _number_places(graph, drawn)
    numbers = "".join(
        _number(edge, i, place)
        for i, (edge, place) in enumerate(zip(graph.edges, places, strict=True))
    )
    boxes = "".join(
        _box(node, number, graph.run, lines[node.feature], drawn, (marks or {}).get(node.feature))
        for number, node in enumerate(graph.nodes)
    )
    frames = "".join(_frame(graph, number, box) for number, box in drawn.components.items())
    names = "".join(_layer(line.layer, line.box) for line in drawn.layers)
    size = f'width="{drawn.width:.0f}" height="{drawn.height:.0f}" aria-hidden="true"'
    html = (
        f'<div class="stage" style="width:{drawn.width:.0f}px;height:{drawn.height:.0f}px;'
        f'--name:{_name_size(graph, shape):.0f}px">'
        f'{frames}{names}<svg class="arrows all" {size}>{_HEADS}{arrows}'
        f'<g class="numbers">{numbers if numbered else ""}</g></svg>'
        f'<svg class="arrows lit" {size}></svg>{boxes}</div>'
    )
    return Stage(html, drawn, places)


# Sign again, for who does not see the hues: a head that points, or a bar that blocks.
_HEADS = (
    '<defs><marker id="points" markerUnits="userSpaceOnUse" markerWidth="13" markerHeight="12" '
    'refX="11.5" refY="6" orient="auto"><path d="M1,1L12,6L1,11Z"/></marker>'
    '<marker id="blocks" markerUnits="userSpaceOnUse" markerWidth="6" markerHeight="18" '
    'refX="4" refY="9" orient="auto"><path d="M1,1H4V17H1Z"/></marker></defs>'
)


def _name_size(graph: CausalGraph, shape: Shape) -> float:
    """The type of names seen from afar, where a box holds nothing else: as large as all fit."""
    longest = max((len(str(node.feature)) for node in graph.nodes), default=1)
    return min((shape.width - 16) / (BOLD_ASPECT * longest), 42.0)


def _arrow(edge: Edge, number: int, drawn: Layout, scale: EffectScale, further: str) -> str:
    path = drawn.routes[edge.source, edge.target].path
    hit = f'<path class="near" d="{path}"/>' if len(drawn.routes) <= REACHED else ""
    head = "points" if edge.sign == "promotes" else "blocks"
    classes = f"edge {edge.sign} {further}".rstrip()
    return (
        f'<g class="{classes}" data-e="{number}">'
        f'<path d="{path}" style="--w:{scale.width(edge.effect):.1f}px" '
        f'opacity="{scale.opacity(edge.effect):.2f}" marker-end="url(#{head})"/>{hit}</g>'
    )


def _number_places(graph: CausalGraph, drawn: Layout) -> tuple[Point, ...]:
    """Where the arrows' numbers stand: near the middle, and not on one another where possible.

    The strongest arrows choose first; among many they all take the middle.
    """
    taken: list[Point] = []
    for edge in graph.edges:
        route = drawn.routes[edge.source, edge.target]
        ways = SHARES if len(graph.edges) <= NUMBERED else SHARES[:1]
        places = [route.at(share) for share in ways]
        taken.append(next((at for at in places if not _covers(at, taken)), places[0]))
    return tuple(taken)


def _covers(place: Point, taken: Sequence[Point]) -> bool:
    x, y = place
    width, height = NUMBER_SIZE
    return any(abs(x - other[0]) < width and abs(y - other[1]) < height for other in taken)


def _number(edge: Edge, number: int, place: Point) -> str:
    x, y = place
    return (
        f'<text class="{edge.sign}" data-e="{number}" x="{x:.0f}" y="{y:.0f}">'
        f"{signed(edge.effect)}</text>"
    )


def _placed(box: Box) -> str:
    return f"left:{box.x:g}px;top:{box.y:g}px;width:{box.width:g}px;height:{box.height:g}px"


def _box(
    node: Node,
    number: int,
    run: RunRecord,
    lines: list[str],
    drawn: Layout,
    further: str | None,
) -> str:
    kind = "output" if node.feature.is_output else "feature"
    classes = f"node {kind} {further or ''}".rstrip()
    return (
        f'<div class="{classes}" data-n="{number}" style="{_placed(drawn.boxes[node.feature])}" '
        f'role="button" tabindex="{-1 if number else 0}" '
        f'aria-label="{in_page(_aloud(node, run))}">'
        f"{heading(node, run)}{''.join(lines)}</div>"
    )


def _aloud(node: Node, run: RunRecord) -> str:
    """What a screen reader says of a box."""
    said = f"{name_of(run, node.feature)}, activation {plain(node.activation)}"
    return said if node.explanation is None else f"{said}: {visible(node.explanation, space=' ')}"


def _frame(graph: CausalGraph, number: int, box: Box) -> str:
    nodes = [node for node in graph.nodes if node.component == number]
    total = sum(abs(edge.effect) for edge in graph.edges if graph[edge.source].component == number)
    facts = in_page(f"{counted_nodes(nodes)} · total |effect| {plain(total)}")
    return (
        f'<div class="frame" data-component="{number}" style="{_placed(box)}">'
        f'<div class="caption"><b>Graph {number}</b> <span>{facts}</span></div></div>'
    )


def _layer(layer: LayerReport | None, box: Box) -> str:
    if layer is None:
        return f'<div class="layer" style="{_placed(box)}"><small>next token</small></div>'
    where = in_page(place_words(layer.hook_point))
    return (
        f'<div class="layer" style="{_placed(box)}"><small>layer</small><b>{layer.label}</b>'
        f"<small>{where}</small></div>"
    )
