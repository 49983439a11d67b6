"""Two drawings with one layout: each shows its own graph, and what only the other has as ghosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from sae_graphs.gallery.placing import GAP, Standing, Wish, number_places
from sae_graphs.graph.difference import GraphDifference, merged
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.names import name_of, number_of, place_words
from sae_graphs.graph.records import Edge, Node, RunRecord
from sae_graphs.render.document.templates import macros, ours
from sae_graphs.render.explorer.boxes import Shape, box_height, box_lines, heading
from sae_graphs.render.explorer.stage import LayerWords, kind_of_box
from sae_graphs.render.picture.arrange import own_layer_words
from sae_graphs.render.picture.layout import Box, LayerLine, Layout, layout
from sae_graphs.render.style import EffectScale
from sae_graphs.text import shortened
from sae_graphs.words import signed

if TYPE_CHECKING:
    from markupsafe import Markup

Side = Literal["left", "right"]
Ends = tuple[FeatureId, FeatureId]
ARROWS = 600  # the strongest are drawn


NUMBERED = 150  # arrows up to which each carries its number
ONLY: dict[Side, str] = {"left": "lost", "right": "new"}
# Sizes of the type of numbers, of shared arrows and of others: close by, and on an overview, where
# all is drawn smaller. As in the style sheet.
TYPES = {"close": (12.0, 13.0), "overview": (23.0, 23.0)}
CROWDED = 16  # arrows of one graph alone, from which on an overview has their numbers without words
TAB = 12.0  # CSS pixels that boxes are higher for the word in their corner
COLUMNS = 20  # characters in a line of a box


class Drawing(NamedTuple):
    """One side: what is laid out, what it holds, and the one scale of both."""

    side: Side
    run: RunRecord
    union: Union
    drawn: Layout
    lines: dict[FeatureId, list[Markup]]
    scale: EffectScale

    @property
    def nodes(self) -> dict[FeatureId, Node]:
        """The features that this side holds."""
        return self.union.nodes[self.side]

    @property
    def is_crowded(self) -> bool:
        """True where many arrows of this side are its alone."""
        only = ONLY[self.side]
        return sum(kind_of(edge, self.union) == only for edge in self.union.graph.edges) > CROWDED

    @property
    def others(self) -> Side:
        """The other side."""
        return "right" if self.side == "left" else "left"


def sides(both: Union, left: RunRecord, right: RunRecord) -> tuple[Layout, dict[Side, Markup]]:
    """The one layout, and the drawings as HTML.

    Box `i` and arrow `j` of the union have the same number in both.

    Scales are those of all arrows of both, so that widths can be compared.
    """
    runs: dict[Side, RunRecord] = {"left": left, "right": right}
    shape = _shape(both)
    lines = {
        side: {
            feature: box_lines(node, runs[side], shape)
            for feature, node in both.nodes[side].items()
        }
        for side in runs
    }
    heights = {
        node.feature: TAB
        + box_height(max((lines[side].get(node.feature, []) for side in runs), key=len))
        for node in both.graph.nodes
    }
    drawn = layout(both.graph, heights, width=shape.width)
    scale = EffectScale.of(both.graph)
    drawings = {
        side: _drawing(Drawing(side, run, both, drawn, lines[side], scale))
        for side, run in runs.items()
    }
    return drawn, drawings


def _shape(both: Union) -> Shape:
    explained = any(node.explanation for nodes in both.nodes.values() for node in nodes.values())
    return Shape(COLUMNS, 0, explained, prompt=len(both.graph) <= 120)


def _drawing(side: Drawing) -> Markup:
    graph, drawn = side.union.graph, side.drawn
    numbered = tuple(enumerate(graph.edges))
    arrows = "".join(_arrow(edge, number, side) for number, edge in reversed(numbered))
    labels = ""
    if len(graph.edges) <= NUMBERED:
        labels = "".join(_labels(side, kind) for kind in TYPES)
    lines = f"{_heads(side.side)}<g>{arrows}</g>{labels}"
    found: Markup = macros("gallery/sides.html.j2").side(
        drawn,
        side.is_crowded,
        [*drawn.components.values()],
        [_layer(line) for line in drawn.layers],
        ours(lines),
        [_box(node, number, side) for number, node in enumerate(graph.nodes)],
    )
    return found


def _heads(side: Side) -> str:
    """The sign again, for who does not see the hues; named by side, as both are in one page."""
    return (
        f'<defs><marker id="points-{side}" class="points" markerUnits="userSpaceOnUse" '
        'markerWidth="13" markerHeight="12" refX="11.5" refY="6" orient="auto">'
        f'<path d="M1,1L12,6L1,11Z"/></marker><marker id="blocks-{side}" class="blocks" '
        'markerUnits="userSpaceOnUse" markerWidth="6" markerHeight="18" refX="4" refY="9" '
        'orient="auto"><path d="M1,1H4V17H1Z"/></marker></defs>'
    )


def kind_of(edge: Edge, both: Union) -> str:
    """`shared`, `lost` (only left) or `new` (only right)."""
    ends = edge.source, edge.target
    if ends not in both.edges["right"]:
        return "lost"
    return "shared" if ends in both.edges["left"] else "new"


def _arrow(edge: Edge, number: int, side: Drawing) -> str:
    ends = edge.source, edge.target
    path = side.drawn.routes[ends].path
    here = side.union.edges[side.side].get(ends)
    near = f'<path class="near" d="{path}"/>'
    kind = kind_of(edge, side.union)
    if here is None:
        return (
            f'<g class="arrow ghost {kind}" data-e="{number}"><path class="line" d="{path}"/>'
            f"{near}</g>"
        )
    head = "points" if here.sign == "promotes" else "blocks"
    halo = "" if kind == "shared" else f'<path class="halo" d="{path}"/>'
    return (
        f'<g class="arrow {here.sign} {kind}" data-e="{number}">{halo}<path class="line" '
        f'd="{path}" stroke-width="{side.scale.width(here.strength):.1f}" '
        f'opacity="{side.scale.opacity(here.strength):.2f}" '
        f'marker-end="url(#{head}-{side.side})"/>{near}</g>'
    )


def _labels(side: Drawing, kind: str) -> str:
    """The numbers as they are seen at one scale, but those that would cover something."""
    sizes = TYPES[kind]
    mine = side.union.edges[side.side]
    routes = side.drawn.routes
    numbered = [
        (edge, number)
        for number, edge in enumerate(side.union.graph.edges)
        if (edge.source, edge.target) in mine
    ]
    numbered.sort(key=lambda pair: kind_of(pair[0], side.union) == "shared")
    wishes = [
        Wish(
            routes[edge.source, edge.target],
            _texts(edge, side, with_word=kind == "close" or not side.is_crowded),
            sizes[0] if kind_of(edge, side.union) == "shared" else sizes[1],
        )
        for edge, _ in numbered
    ]
    boxes = [*side.drawn.boxes.values(), *(line.box for line in side.drawn.layers)]
    room = Box(0.0, 0.0, side.drawn.width, side.drawn.height)
    found = number_places(wishes, tuple(routes.values()), boxes, room=room)
    texts = "".join(
        _number(edge, number, side, standing)
        for (edge, number), standing in zip(numbered, found, strict=True)
        if standing is not None
    )
    return f'<g class="numbers {kind}">{texts}</g>'


def _texts(edge: Edge, side: Drawing, *, with_word: bool) -> tuple[str, ...]:
    """What an arrow's number may be, the best first: the word is said by the band as well."""
    number = signed(number_of(side.union.edges[side.side][edge.source, edge.target]))
    kind = kind_of(edge, side.union)
    return (number,) if kind == "shared" or not with_word else (f"{kind}{GAP}{number}", number)


def _number(edge: Edge, number: int, side: Drawing, standing: Standing) -> str:
    here = side.union.edges[side.side][edge.source, edge.target]
    kind = kind_of(edge, side.union)
    word, gap, effect = standing.text.rpartition(GAP)
    said = f'<tspan class="word">{word}{gap}</tspan>' if word else ""
    x, y = standing.place
    return (
        f'<text class="{here.sign} {kind}" data-e="{number}" x="{x:.0f}" y="{y:.0f}">'
        f"{said}{effect}</text>"
    )


class BoxWords(NamedTuple):
    """A feature's box; `heading` is None where only the other graph has it.

    `only` is `lost` or `new` where the other graph lacks it.
    """

    number: int
    kind: str
    place: Box
    name: str
    activation: float = 0.0
    only: str = ""
    heading: Markup | None = None
    lines: Sequence[Markup] = ()


def _box(node: Node, number: int, side: Drawing) -> BoxWords:
    feature = node.feature
    kind = kind_of_box(feature)
    here = side.nodes.get(feature)
    name = name_of(side.union.graph.run, feature)
    found = BoxWords(number, kind, side.drawn.boxes[feature], name)
    if here is None:
        return found
    return found._replace(
        activation=here.activation,
        only="" if feature in side.union.nodes[side.others] else ONLY[side.side],
        heading=heading(here, side.run),
        lines=side.lines[feature],
    )


def _layer(line: LayerLine) -> LayerWords:
    layer = line.layer
    if layer is None:
        return LayerWords(line.box, None, own_layer_words(line.label))
    place = shortened(place_words(layer.hook_point), 40)
    return LayerWords(line.box, shortened(layer.label, 8), place)


def empty_words(graph: CausalGraph) -> str:
    """What stands in an empty drawing's place."""
    return "" if graph.nodes else "Neither graph holds an arrow, so there is nothing to draw."


class Union(NamedTuple):
    """The union, what of it each side holds, and how many arrows it has before it is cut.

    In `graph` an edge is that of the two which is stronger.
    """

    graph: CausalGraph
    edges: dict[Side, dict[Ends, Edge]]
    nodes: dict[Side, dict[FeatureId, Node]]
    arrows: int


def union(found: GraphDifference) -> Union:
    """The union of both graphs of a difference, with its strongest arrows if there are many."""
    graphs: dict[Side, CausalGraph] = {"left": found.left, "right": found.right}
    edges: dict[Side, dict[Ends, Edge]] = {
        side: {(edge.source, edge.target): edge for edge in graph.edges}
        for side, graph in graphs.items()
    }
    nodes: dict[Side, dict[FeatureId, Node]] = {
        side: {node.feature: node for node in graph.nodes} for side, graph in graphs.items()
    }
    strongest: dict[Ends, Edge] = {}
    for edge in (*found.left.edges, *found.right.edges):
        ends = edge.source, edge.target
        if ends not in strongest or edge.strength > strongest[ends].strength:
            strongest[ends] = replace(edge, anatomy=None)
    kept = sorted(strongest.values(), key=lambda edge: -edge.strength)[:ARROWS]
    known = {**nodes["right"], **nodes["left"]}
    # What depends on the prompt is left out: it is of one side, and checked against its tokens.
    bare = [Node(node.feature, node.activation, token=node.token) for node in known.values()]
    whole = assemble(_run(found.left.run, found.right.run), bare, kept)
    return Union(whole, edges, nodes, len(strongest))


def _run(left: RunRecord, right: RunRecord) -> RunRecord:
    """A record with the layers and outputs of both, and the tokens of the longer prompt."""
    longer = max(left, right, key=lambda run: len(run.tokens))
    reports = {layer.label: layer for run in (right, left) for layer in run.layers}
    labels = merged(*([layer.label for layer in run.layers] for run in (left, right)))
    outputs = {output.token_id: output for run in (right, left) for output in run.outputs}
    return replace(
        longer,
        layers=tuple(reports[label] for label in labels),
        outputs=tuple(outputs.values()),
        warnings=(),
    )
