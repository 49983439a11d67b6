"""Where Graphviz puts boxes and arrows, as numbers: for pages that draw them in their own way.

Components are laid out one by one, layers from the bottom to the top, and then placed in rows.
Lengths are CSS pixels, `y` runs downwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import LayerReport
from sae_graphs.render.picture.arrange import Group, groups_of
from sae_graphs.render.picture.engine import placed
from sae_graphs.render.picture.routing import Rectangle
from sae_graphs.render.picture.token_columns import (
    axis_name,
    columns_of,
    laid,
    layer_rows,
    tells_a_story,
)

MARGIN = 24.0
CAPTION = 30.0  # above each component
NAMES = 108.0  # left of each component: the names of its layers
ROW_GAP, SIDE_GAP = 14.0, 18.0  # between components, between boxes of a layer
RANK_GAP, MAX_RANK_GAP = 78.0, 420.0  # between layers; more in wide graphs, for steeper arrows
WIDE = 1.7  # width to height that components and their rows aim for
HEAD = 6.0  # of an arrow, upright
ACROSS = 6.5  # boxes of an answer graph side by side, where it may have more
AXIS_LETTER, AXIS_LINE = 7.2, 24.0  # of a token at the bottom of its column
MAX_QUIET, QUIET_LINES = 110.0, 4  # of a run of tokens with nothing above them
STEPS = 8  # straight ones that a Bézier piece is measured in
_INCH = 72.0

Ends = tuple[FeatureId, FeatureId]
Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle: its left upper corner and its size."""

    x: float
    y: float
    width: float
    height: float


class Route(NamedTuple):
    """An arrow's line: a Bézier spline of `3 n + 1` points from its source, and its `tip`."""

    points: tuple[Point, ...]
    tip: Point

    @property
    def path(self) -> str:
        """The line as an SVG path."""
        first, *others = (f"{x:.1f},{y:.1f}" for x, y in self.points)
        return f"M{first}C{' '.join(others)}L{self.tip[0]:.1f},{self.tip[1]:.1f}"

    def at(self, share: float) -> Point:
        """The point at a share of the way's length, 0 at the source to 1 at the target."""
        steps = [point for piece in range(len(self.points) // 3) for point in self._steps(piece)]
        steps = [self.points[0], *steps]
        lengths = [math.dist(before, after) for before, after in pairwise(steps)]
        left = share * math.fsum(lengths)
        for before, after, length in zip(steps, steps[1:], lengths, strict=False):
            if left <= length and length:
                x, y = (b + (a - b) * left / length for b, a in zip(before, after, strict=True))
                return x, y
            left -= length
        return steps[-1]

    def _steps(self, piece: int) -> Iterator[Point]:
        """Points along one piece, without its first."""
        four = self.points[3 * piece : 3 * piece + 4]
        for step in range(1, STEPS + 1):
            t = step / STEPS
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            x, y = (
                sum(weight * point[axis] for weight, point in zip(weights, four, strict=True))
                for axis in (0, 1)
            )
            yield x, y


class LayerLine(NamedTuple):
    """A layer of a component: where its name stands. `layer` is None for output tokens, the
    answer and the prompt's tokens."""

    layer: LayerReport | None
    component: int
    box: Box
    label: str


class AxisToken(NamedTuple):
    """Tokens of the prompt at the bottom of their column: one that is used, or a quiet run."""

    texts: tuple[str, ...]
    box: Box
    quiet: bool
    read: bool


@dataclass(frozen=True)
class Layout:
    """All of a drawing: components and boxes with their places, arrows with their lines.

    Where columns are tokens, the `axis` at the bottom, and `bands` below the boxes of each.
    """

    width: float
    height: float
    components: Mapping[int, Box]
    layers: tuple[LayerLine, ...]
    boxes: Mapping[FeatureId, Box]
    routes: Mapping[Ends, Route]
    axis: tuple[AxisToken, ...] = ()
    bands: tuple[Box, ...] = ()


def layout(graph: CausalGraph, heights: Mapping[FeatureId, float], *, width: float) -> Layout:
    """The drawing of a graph whose boxes are `width` wide and `heights` high.

    An answer graph is laid out by token and layer. Elsewhere boxes of a layer are level, and as
    high as the highest of them. Deterministic.
    """
    if tells_a_story(graph):
        return _by_token(graph, heights, width)
    parts = [_part(graph, group, heights, width) for group in groups_of(graph)]
    total = sum(part.width * part.height for part in parts)
    room = max([part.width for part in parts] + [(total * WIDE) ** 0.5])
    placed_parts: list[Layout] = []
    x = y = row_height = 0.0
    for part in parts:
        if x and x + part.width > room:
            x, y, row_height = 0.0, y + row_height + ROW_GAP, 0.0
        placed_parts.append(_moved(part, MARGIN + x, MARGIN + y))
        x += part.width + ROW_GAP
        row_height = max(row_height, part.height)
    return _joined(placed_parts)


# -- by token and layer ----------------------------------------------------------------------------


def _by_token(graph: CausalGraph, heights: Mapping[FeatureId, float], width: float) -> Layout:
    """Columns are tokens, rows layers; one frame holds all components."""
    columns, rows = columns_of(graph), layer_rows(graph)
    sizes = {str(feature): (width, height) for feature, height in heights.items()}
    for column in columns:
        quiet = AXIS_LETTER * max(len(graph.run.tokens[it]) for it in column.positions)
        size = (min(quiet, MAX_QUIET), AXIS_LINE * min(len(column.positions), QUIET_LINES))
        sizes.setdefault(axis_name(graph, column), size if column.quiet else (width, AXIS_LINE))
    found = laid(graph, columns, rows, sizes, room=ACROSS * width)
    left, top = MARGIN + NAMES, MARGIN + CAPTION + found.height

    def box(old: Rectangle) -> Box:
        x, y = old.x - old.width / 2, old.y + old.height / 2
        return Box(round(left + x, 1), round(top - y, 1), old.width, old.height)

    boxes = {node.feature: box(found.boxes[str(node.feature)]) for node in graph.nodes}
    reports = {layer.label: layer for layer in graph.run.layers}
    number = min(graph.component_numbers)
    name = Box(MARGIN + SIDE_GAP / 2, 0.0, NAMES - SIDE_GAP, NAMES / 2)
    lines = [
        LayerLine(
            reports.get(label),
            number,
            name._replace(y=top - found.rows[at] - NAMES / 4),
            label,
        )
        for label, at in rows.items()
    ]
    axis = tuple(
        AxisToken(
            tuple(graph.run.tokens[it] for it in column.positions),
            box(found.boxes[axis_name(graph, column)]),
            column.quiet,
            graph.run.read_position in column.positions,
        )
        for column in columns
        if axis_name(graph, column) not in graph
    )
    bands = tuple(
        Box(left + band.left, MARGIN + CAPTION, band.right - band.left, found.height)
        for band in found.bands
        if not band.quiet
    )
    routes = {
        (edge.source, edge.target): _upwards(
            found.lines[str(edge.source), str(edge.target)], left, top
        )
        for edge in graph.edges
    }
    frame = Box(MARGIN, MARGIN, found.width + NAMES + SIDE_GAP, found.height + CAPTION + SIDE_GAP)
    return Layout(
        frame.width + 2 * MARGIN,
        frame.height + 2 * MARGIN,
        {number: frame},
        tuple(lines),
        boxes,
        routes,
        axis,
        bands,
    )


def _upwards(points: Sequence[Point], left: float, top: float) -> Route:
    """A line on the page, ending a little below its tip."""
    *line, (x, y) = ((left + x, top - y) for x, y in points)
    return Route((*line, (x, y + HEAD)), (x, y))


# -- by layer --------------------------------------------------------------------------------------


def _rank_gap(group: Group, high: Mapping[FeatureId, float], width: float) -> float:
    """As much as keeps a wide component from being a flat one."""
    gaps = max(len(group.ranks) - 1, 1)
    boxes = sum(high[rank.nodes[0].feature] for rank in group.ranks)
    wanted = (group.widest * (width + SIDE_GAP) / WIDE - boxes) / gaps
    least = min(RANK_GAP, width)
    return min(max(wanted, least), MAX_RANK_GAP)


# -- one component ---------------------------------------------------------------------------------


def _part(
    graph: CausalGraph,
    group: Group,
    heights: Mapping[FeatureId, float],
    width: float,
) -> Layout:
    """One component by itself, its frame's corner at 0, 0."""
    members = {node.feature: f"n{number}" for number, node in enumerate(group.nodes)}
    edges = [edge for edge in graph.edges if edge.source in members]
    high = {
        node.feature: max(heights[other.feature] for other in rank.nodes)
        for rank in group.ranks
        for node in rank.nodes
    }
    lines = [
        "digraph {rankdir=BT; newrank=true; outputorder=nodesfirst;",
        f"ranksep={_rank_gap(group, high, width) / _INCH:.3f}; nodesep={SIDE_GAP / _INCH:.3f};",
        "remincross=false;" if graph.resolves_positions else "",
        "mclimit=0.5; nslimit=4; nslimit1=4;" if len(edges) > 1000 else "",
        f'node [shape=box, fixedsize=true, label="", width={width / _INCH:.4f}];',
    ]
    lines += [f"{name} [height={high[feature] / _INCH:.4f}];" for feature, name in members.items()]
    for rank in group.ranks:
        lines.append(f"{{rank=same; {' '.join(members[node.feature] for node in rank.nodes)}}}")
    if graph.resolves_positions:
        lines += _in_order(group, members)
    lines += [f"{members[edge.source]} -> {members[edge.target]};" for edge in edges]
    found = json.loads(placed("\n".join([*lines, "}"])))
    top = float(found["bb"].split(",")[3])
    boxes = {
        feature: _box(item, width, high[feature], top)
        for (feature, _), item in zip(members.items(), _nodes(found), strict=True)
    }
    drawn = [item for item in found.get("edges", ()) if item.get("style") != "invis"]
    routes = {
        (edge.source, edge.target): _route(item["pos"], top)
        for edge, item in zip(edges, drawn, strict=True)
    }
    return _framed(group, boxes, routes)


def _in_order(group: Group, members: Mapping[FeatureId, str]) -> list[str]:
    """Invisible edges that keep the boxes of a layer in the order of their tokens."""
    return [
        f"{members[left.feature]} -> {members[right.feature]} [style=invis, weight=1];"
        for rank in group.ranks
        for before, after in pairwise(rank.by_position)
        for left, right in product(before, after)
    ]


def _nodes(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nodes in the order of their names, `n0`, `n1`, and so on."""
    items = [item for item in found["objects"] if "pos" in item]
    return sorted(items, key=lambda item: int(item["name"][1:]))


def _box(item: Mapping[str, Any], width: float, height: float, top: float) -> Box:
    x, y = (float(value) for value in item["pos"].split(","))
    return Box(x - width / 2, top - y - height / 2, width, height)


def _route(text: str, top: float) -> Route:
    """Graphviz's spline, `e,x,y x,y x,y ...`: where the arrow ends, then its points."""
    tip, *points = (_point(piece.removeprefix("e,"), top) for piece in text.split())
    return Route(tuple(points), tip)


def _point(text: str, top: float) -> Point:
    x, y = text.split(",")
    return float(x), top - float(y)


def _framed(group: Group, boxes: Mapping[FeatureId, Box], routes: Mapping[Ends, Route]) -> Layout:
    """With room for the caption and the layers' names, and a margin."""
    layers = []
    for rank in group.ranks:
        first = boxes[rank.nodes[0].feature]
        name = Box(-NAMES, first.y, NAMES - SIDE_GAP, first.height)
        layers.append(LayerLine(rank.layer, group.number, name, rank.label))
    right = max(box.x + box.width for box in boxes.values())
    low = max(box.y + box.height for box in boxes.values())
    left, high = min(box.x for box in boxes.values()), min(box.y for box in boxes.values())
    width, height = right - left + NAMES + SIDE_GAP, low - high + CAPTION + SIDE_GAP
    part = Layout(width, height, {}, tuple(layers), boxes, routes)
    shifted = _moved(part, NAMES - left, CAPTION - high)
    names = tuple(line._replace(box=line.box._replace(x=SIDE_GAP / 2)) for line in shifted.layers)
    whole = {group.number: Box(0.0, 0.0, width, height)}
    return Layout(width, height, whole, names, shifted.boxes, shifted.routes)


# -- components together ---------------------------------------------------------------------------


def _moved(part: Layout, dx: float, dy: float) -> Layout:
    def box(old: Box) -> Box:
        return Box(round(old.x + dx, 1), round(old.y + dy, 1), old.width, old.height)

    def point(old: Point) -> Point:
        return old[0] + dx, old[1] + dy

    return Layout(
        part.width,
        part.height,
        {number: box(frame) for number, frame in part.components.items()},
        tuple(line._replace(box=box(line.box)) for line in part.layers),
        {feature: box(place) for feature, place in part.boxes.items()},
        {
            ends: Route(tuple(map(point, route.points)), point(route.tip))
            for ends, route in part.routes.items()
        },
    )


def _joined(parts: Sequence[Layout]) -> Layout:
    frames = {number: frame for part in parts for number, frame in part.components.items()}
    return Layout(
        max((frame.x + frame.width for frame in frames.values()), default=0.0) + MARGIN,
        max((frame.y + frame.height for frame in frames.values()), default=0.0) + MARGIN,
        frames,
        tuple(line for part in parts for line in part.layers),
        {feature: box for part in parts for feature, box in part.boxes.items()},
        {ends: route for part in parts for ends, route in part.routes.items()},
    )
