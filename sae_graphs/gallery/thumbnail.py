"""A graph in small: bars for features, arrows by sign, as an SVG that stands alone."""

from __future__ import annotations

from collections.abc import Mapping

from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.render.palette import DARK, LIGHT
from sae_graphs.render.picture.layout import Box, layout
from sae_graphs.render.style import EffectScale

WIDTH, HEIGHT = 46.0, 14.0  # of a bar
EDGES = 150  # the strongest are drawn
MARGIN = 8.0
LEAST = 360.0, 200.0  # a small graph is not blown up


def thumbnail(graph: CausalGraph) -> str:
    """The picture; the size of a card is up to the page."""
    if len(graph.edges) > EDGES:
        graph = assemble(graph.run, graph.nodes, graph.edges[:EDGES])
    scale = EffectScale.of(graph)
    heights = dict.fromkeys((node.feature for node in graph.nodes), HEIGHT)
    drawn = layout(graph, heights, width=WIDTH)
    arrows = "".join(
        f'<path class="{edge.sign}" d="{drawn.routes[edge.source, edge.target].path}" '
        f'stroke-width="{1.2 * scale.width(edge.effect):.1f}" '
        f'opacity="{scale.opacity(edge.effect):.2f}"/>'
        for edge in reversed(graph.edges)
    )
    bars = "".join(
        f'<rect class="{"output" if feature.is_output else "feature"}" x="{box.x:.0f}" '
        f'y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="4"/>'
        for feature, box in drawn.boxes.items()
    )
    x, y, width, height = _around(tuple(drawn.boxes.values()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{x:.0f} {y:.0f} {width:.0f} '
        f'{height:.0f}"><style>{_STYLE}</style>{arrows}{bars}</svg>'
    )


def _around(boxes: tuple[Box, ...]) -> Box:
    if not boxes:
        return Box(0.0, 0.0, *LEAST)
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    width = max(box.x + box.width for box in boxes) - left
    height = max(box.y + box.height for box in boxes) - top
    wide, high = (
        max(size + 2 * MARGIN, least) for size, least in zip((width, height), LEAST, strict=True)
    )
    return Box(left - (wide - width) / 2, top - (high - height) / 2, wide, high)


def _rules(colours: Mapping[str, str]) -> str:
    return (
        f"path{{fill:none}}.promotes{{stroke:{colours['lowers']}}}"
        f".suppresses{{stroke:{colours['raises']};stroke-dasharray:6 4}}"
        f".feature{{fill:{colours['paper']};stroke:{colours['bar']};stroke-width:1.5}}"
        f".output{{fill:{colours['ink']}}}"
    )


_STYLE = f"{_rules(LIGHT)}@media (prefers-color-scheme: dark){{{_rules(DARK)}}}"
