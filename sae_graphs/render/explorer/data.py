"""What the explorer's script knows of a graph: plain JSON, every text made visible beforehand.

Signs are those of the whole project: an effect is ablated minus clean, below 0 where the source
promotes the target.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sae_graphs.graph.annotations import Annotations, to_json
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.meaning import meaning_of
from sae_graphs.graph.names import (
    anatomy_words,
    drawn_effect,
    largest_activation,
    name_of,
    number_of,
    number_words,
    parts_of,
    place_words,
    shares_words,
    signed_percent,
    split_by_sign,
    standing_words,
    strongest_part,
    token_at,
)
from sae_graphs.graph.paths import FeaturePath
from sae_graphs.graph.records import Edge, Node, RunRecord, TokenEffect
from sae_graphs.render.explorer.stage import Stage
from sae_graphs.render.explorer.what_if import what_if_data
from sae_graphs.render.marks import Finding
from sae_graphs.render.picture.arrange import own_layer_words
from sae_graphs.render.picture.arrows import edge_lines
from sae_graphs.render.picture.explained import density_words, page_words
from sae_graphs.render.picture.layout import Box, Point
from sae_graphs.render.picture.tooltips import answer_lines
from sae_graphs.render.style import shade_step
from sae_graphs.text import token, visible, web_address
from sae_graphs.words import plain, probability_words, signed


def explorer_data(
    graph: CausalGraph,
    drawn: Stage,
    *,
    annotations: Annotations,
    findings: Sequence[Finding],
    report: str | None,
    atlas: str | None = None,
) -> dict[str, Any]:
    """Everything the script needs; nodes and edges in the graph's order, referred to by number.

    `report` is the address of the report of validation, relative to the page, and
    `atlas` that to which a feature's name is put, for its page in an atlas.
    """
    numbers = {node.feature: number for number, node in enumerate(graph.nodes)}
    places = {layer.label: place_words(layer.hook_point) for layer in graph.run.layers}
    ranks = set_ranks(graph)
    return {
        "prompt": visible(graph.run.prompt, space=" "),
        "model": visible(graph.run.model, space=" "),
        "tokens": [token(text) for text in graph.run.tokens],
        "read": graph.run.read_position,
        "per": str(graph.run.settings.get("per") or "layer"),
        "minPathEdges": _whole(graph.run.settings.get("min_path_edges")),
        "resolved": graph.resolves_positions,
        "components": list(graph.component_numbers),
        "nodes": [
            _node(node, graph.run, drawn.layout.boxes[node.feature], places) for node in graph.nodes
        ],
        "edges": [
            _edge(edge, graph.run, numbers, rank, place)
            for edge, rank, place in zip(graph.edges, ranks, drawn.numbers, strict=True)
        ],
        "paths": _paths(graph, numbers),
        "findings": [_finding(found, numbers) for found in findings],
        "report": report,
        "atlas": atlas,
        "whatIf": what_if_data(graph),
        "annotations": to_json(annotations),
    }


def in_script(data: Mapping[str, Any]) -> str:
    """JSON that can stand in a `<script>` element: nothing in it ends the element or opens one."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII: no U+2028 either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def set_ranks(graph: CausalGraph) -> list[int]:
    """For each edge its place by |effect|, from 1, among the saved edges of its set of effects.

    The sets are those of the run's `per`: layer pairs, source features, or the whole graph; in an
    answer graph the edges into each box.
    """
    per = graph.run.settings.get("per") or "layer"
    seen: dict[object, int] = {}
    ranks = []
    for edge in graph.edges:  # strongest first
        of_set = {"source": edge.source, "graph": None}.get(str(per), edge.source.layer)
        of_set = edge.target if graph.run.answer is not None else of_set
        seen[of_set] = seen.get(of_set, 0) + 1
        ranks.append(seen[of_set])
    return ranks


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 1


# -- boxes -----------------------------------------------------------------------------------------


def _node(node: Node, run: RunRecord, box: Box, places: Mapping[str, str]) -> dict[str, Any]:
    feature = node.feature
    largest = largest_activation(node)
    lowered, raised = split_by_sign(node)
    facts = {
        "id": str(feature),
        "name": name_of(run, feature),
        "layer": feature.layer,
        "place": places.get(feature.layer) or own_layer_words(feature.layer),
        "own": not feature.is_feature,
        "at": token_at(run, feature),
        "output": number_words(run, feature) if feature.is_output else None,
        "active": None if feature.is_token else plain(node.activation),
        "answer": answer_lines(node),
        **_standing(node),
        "component": node.component,
        "box": [box.x, box.y, box.width, box.height],
        "prompt": _shaded(run.tokens, node.activations, largest),
        "contexts": [
            {
                "peak": plain(max(context.activations, key=abs, default=0.0)),
                "tokens": _joined(_shaded(context.tokens, context.activations, largest)),
            }
            for context in node.contexts
        ],
        "lowers": _effects(lowered),
        "raises": _effects(raised),
        "written": shares_words(node.written_by),
        "scrubbed": shares_words(node.scrubbed_by),
        "url": web_address(node.neuronpedia),
        "page": _page(node.page),
    }
    return {key: value for key, value in facts.items() if value not in (None, "", [], False)}


def _standing(node: Node) -> dict[str, Any]:
    """What a feature of an answer graph means and does, in a line each; `pull` is how much."""
    if node.effect_on_answer is None:
        return {}
    return {
        "meant": meaning_of(node).words,
        "says": standing_words(node),
        "pull": float(f"{abs(node.effect_on_answer):.4g}"),
    }


def _shaded(tokens: Sequence[str], values: Sequence[float], largest: float) -> list[list[Any]]:
    """Each token, its shade from 0 to 8, and its activation in words where it has one."""
    return [
        [visible(text), shade_step(abs(value), largest), plain(value)]
        if value
        else [visible(text), 0]
        for text, value in zip(tokens, values, strict=False)
    ]


def _joined(tokens: Iterable[list[Any]]) -> list[list[Any]]:
    """Neighbours that are both silent as one: that is most of a context."""
    joined: list[list[Any]] = []
    for token_ in tokens:
        if joined and joined[-1][1] == token_[1] == 0:
            joined[-1] = [joined[-1][0] + token_[0], 0]
        else:
            joined.append(token_)
    return joined


def _effects(effects: Iterable[TokenEffect]) -> list[list[str]]:
    """Token, change of its log-probability in nats, clean probability."""
    return [
        [token(item.token), signed(item.effect_nats), probability_words(item.probability)]
        for item in effects
    ]


def _page(page: FeaturePage | None) -> dict[str, Any] | None:
    if page is None:
        return None
    return {
        "words": visible(page_words(page), space=" "),
        "known": page.explanation is not None,
        "density": None if page.density is None else density_words(page.density),
        "most": None if page.max_activation is None else plain(page.max_activation),
        "top": [[token(item.token), signed(item.weight, 2)] for item in page.top_logits],
        "bottom": [[token(item.token), signed(item.weight, 2)] for item in page.bottom_logits],
        "contexts": page.gave_contexts,
    }


# -- arrows, paths, findings -----------------------------------------------------------------------


def _edge(
    edge: Edge, run: RunRecord, numbers: Mapping[FeatureId, int], rank: int, place: Point
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "s": numbers[edge.source],
        "t": numbers[edge.target],
        "effect": drawn_effect(edge),
        "said": signed(number_of(edge)),
        "rank": rank,
        "at": [round(value) for value in place],
    }
    if edge.flow is not None:
        facts["does"] = edge_lines(run, edge)
    if edge.anatomy is not None:
        facts["parts"] = [[name, signed(value), value] for name, value in parts_of(edge.anatomy)]
        facts["whole"] = signed(edge.anatomy.preactivation_effect)
        facts["through"] = anatomy_words(edge.anatomy)
        if any(block.heads for block in edge.anatomy.blocks):
            facts["strongest"] = strongest_part(edge.anatomy)
    return facts


def _paths(graph: CausalGraph, numbers: Mapping[FeatureId, int]) -> list[dict[str, Any]]:
    """The strongest path of each component: its number, boxes in order, total |effect|."""
    found = []
    for number, part in zip(graph.component_numbers, graph.components(), strict=True):
        for path in part.paths(limit=3):
            found.append(
                {
                    "component": number,
                    "nodes": [numbers[feature] for feature in path.features],
                    **_strength(graph, path),
                }
            )
    return found


def _strength(graph: CausalGraph, path: FeaturePath) -> dict[str, str]:
    """What orders a path: its `total` |effect|, or what at `least` flows along each arrow."""
    if graph.run.answer is None:
        return {"total": plain(path.total_abs_effect)}
    return {"least": plain(min(edge.strength for edge in path.edges))}


def _finding(found: Finding, numbers: Mapping[FeatureId, int]) -> dict[str, Any]:
    return {
        "name": visible(found.name, space=" "),
        "kind": found.kind,
        "verdict": found.verdict,
        "supported": found.supported,
        "words": visible(found.words, space=" "),
        "anchor": found.anchor,
        "nodes": [numbers[feature] for feature in found.features if feature in numbers],
        "needed": {
            str(numbers[feature]): signed_percent(share)
            for feature, share in found.needed.items()
            if feature in numbers
        },
        "carried": [
            [numbers[source], numbers[target], signed_percent(share)]
            for (source, target), share in found.carried.items()
            if source in numbers and target in numbers
        ],
    }
