"""The drawing of a page: layers, boxes and arrows where Graphviz put them, as HTML and SVG.

Boxes are HTML over an SVG of arrows, so that they are styled, read aloud and printed as text is.
Colours are classes and variables: the page decides between light, dark and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import (
    counted_nodes,
    name_of,
    number_of,
    opposes,
    place_words,
    standing_words,
)
from sae_graphs.graph.records import Edge, Node, RunRecord
from sae_graphs.render.document.templates import macros, ours
from sae_graphs.render.explorer.boxes import Shape, box_height, box_lines, heading
from sae_graphs.render.picture.arrange import own_layer_words
from sae_graphs.render.picture.header import total_words
from sae_graphs.render.picture.layout import (
    QUIET_LINES,
    AxisToken,
    Box,
    LayerLine,
    Layout,
    Point,
    layout,
)
from sae_graphs.render.style import EffectScale
from sae_graphs.text import ELLIPSIS, shortened, token, visible
from sae_graphs.words import plain, signed

if TYPE_CHECKING:
    from markupsafe import Markup

NUMBERED = 120  # arrows up to which each carries its number
REACHED = 1500  # arrows up to which the pointer need not be on the line
SHARES = (0.5, 0.38, 0.62, 0.28, 0.72)  # of an arrow's way, where its number may stand
NUMBER_SIZE = 38.0, 13.0  # CSS pixels
AXIS_LETTERS = 15  # of a token below its column
BOLD_ASPECT = 0.7  # a bold digit's width by its size


class Stage(NamedTuple):
    """A drawing as HTML, its layout, and where the number of each arrow stands."""

    html: Markup
    layout: Layout
    numbers: tuple[Point, ...]


def stage(graph: CausalGraph) -> Stage:
    """The graph's drawing. Node `i` is `data-n="i"`, edge `i` is `data-e="i"`, in graph order."""
    shape = Shape.of(graph)
    lines = {node.feature: box_lines(node, graph.run, shape) for node in graph.nodes}
    heights = {feature: box_height(found) for feature, found in lines.items()}
    drawn = layout(graph, heights, width=shape.width)
    scale = EffectScale.of(graph)
    numbered = len(graph.edges) <= NUMBERED
    arrows = "".join(
        _arrow(edge, number, drawn, scale)
        for number, edge in reversed(tuple(enumerate(graph.edges)))
    )
    places = _number_places(graph, drawn)
    numbers = "".join(
        _number(edge, i, place)
        for i, (edge, place) in enumerate(zip(graph.edges, places, strict=True))
    )
    drawing = f'{_HEADS}{arrows}<g class="numbers">{numbers if numbered else ""}</g>'
    html = macros("render/explorer/stage.html.j2").stage(
        drawn,
        _name_size(graph, shape),
        [_frame(graph, number, box) for number, box in drawn.components.items()],
        [_layer(line) for line in drawn.layers],
        [_axis(each) for each in drawn.axis],
        ours(drawing),
        [
            _box(node, number, graph.run, lines[node.feature], drawn)
            for number, node in enumerate(graph.nodes)
        ],
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


def _arrow(edge: Edge, number: int, drawn: Layout, scale: EffectScale) -> str:
    path = drawn.routes[edge.source, edge.target].path
    hit = f'<path class="near" d="{path}"/>' if len(drawn.routes) <= REACHED else ""
    head = "points" if edge.sign == "promotes" else "blocks"
    return (
        f'<g class="edge {edge.sign}" data-e="{number}">'
        f'<path d="{path}" style="--w:{scale.width(edge.strength):.1f}px" '
        f'opacity="{scale.opacity(edge.strength):.2f}" marker-end="url(#{head})"/>{hit}</g>'
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
        f"{signed(number_of(edge))}</text>"
    )


class BoxWords(NamedTuple):
    """A box: where it is, what it holds, and what a screen reader says of it."""

    number: int
    kind: str
    place: Box
    aloud: str
    heading: Markup
    lines: list[Markup]


def _box(node: Node, number: int, run: RunRecord, lines: list[Markup], drawn: Layout) -> BoxWords:
    kind = kind_of_box(node.feature)
    if node.effect_on_answer is not None:
        kind += " relay" if node.relay else " opposes" if opposes(node) else " supports"
    place = drawn.boxes[node.feature]
    return BoxWords(number, kind, place, _aloud(node, run), heading(node, run), lines)


def kind_of_box(feature: FeatureId) -> str:
    """The class of a box: `feature`, `output`, or `token` of the prompt."""
    return "output" if feature.is_output else "token" if feature.is_token else "feature"


def _aloud(node: Node, run: RunRecord) -> str:
    """What a screen reader says of a box."""
    if node.feature.is_token:
        return f"{name_of(run, node.feature)}, of the prompt"
    said = f"{name_of(run, node.feature)}, activation {plain(node.activation)}"
    if (does := standing_words(node)) is not None:
        said += f", {does} nats"
    return said if node.explanation is None else f"{said}: {visible(node.explanation, space=' ')}"


class FrameWords(NamedTuple):
    """A component's frame and what stands on it."""

    number: int
    box: Box
    facts: str


def _frame(graph: CausalGraph, number: int, box: Box) -> FrameWords:
    nodes = [node for node in graph.nodes if node.component == number]
    return FrameWords(number, box, f"{counted_nodes(nodes)}{total_words(graph, number)}")


class AxisWords(NamedTuple):
    """A token of the prompt below its column, or a run of quiet ones."""

    box: Box
    kind: str
    texts: list[str]


def _axis(each: AxisToken) -> AxisWords:
    texts = [shortened(token(text), AXIS_LETTERS) for text in each.texts]
    if len(texts) > QUIET_LINES:
        texts = [*texts[: QUIET_LINES // 2], ELLIPSIS, *texts[1 - QUIET_LINES // 2 :]]
    kind = "quiet" if each.quiet else "read" if each.read else "busy"
    return AxisWords(each.box, kind, texts)


class LayerWords(NamedTuple):
    """A layer's name, and the place in it; None and the row's name where it is no SAE layer's."""

    box: Box
    label: str | None
    where: str


def _layer(line: LayerLine) -> LayerWords:
    if line.layer is None:
        return LayerWords(line.box, None, own_layer_words(line.label))
    return LayerWords(line.box, line.layer.label, place_words(line.layer.hook_point))
