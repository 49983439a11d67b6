"""A causal graph as the attribution-graph JSON of circuit-tracer's viewer and Neuronpedia.

Those draw linear attributions between transcoder features. Here they draw measured effects between
features of SAEs on the residual stream, and four things are translated:

- *Sign*: there, a positive weight means that the source supports the target. A link's weight is
  minus the effect, which is ablated minus clean.
- *Position*: there, every feature stands at a token. One without a position is put at the token
  where effects are read if it is active there, else where it is most active.
- *Answer*: of an answer graph a link's weight is what flows along it to the answer, in nats; the
  prompt's tokens are embeddings, and the answer is the logit.
- *Layer*: there, layers are whole numbers. Where labels are not (Pythia's `e`), layers are numbered
  by depth, and the viewers cannot fetch the features' pages.

One thing differs from their own files: there, the ids of logits begin with the number of the
model's layers plus 1, `13_340_3` for a model of 12. A saved graph does not know how deep its model
is, so here they begin with the highest row of a feature in the file plus 1, as their `layer` does.
Where the strongest paths come from the last SAE of a full stack, the two are the same; where a part
of the layers was measured (`--layers 2:4`), or nothing of the last is left, they are not. Viewers
draw logits in the top row in either case.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from sae_graphs._version import __version__
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.addresses import SITE, address_of
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.export.attribution_nodes import (
    feature_words,
    logit_words,
    lost_from_view,
    place_of,
    plain_text,
    safe,
    too_frequent,
)
from sae_graphs.graph.feature_id import OUTPUT_LAYER, FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge, Node, OutputToken
from sae_graphs.schema import plain

SCHEMA_VERSION = 1  # features are numbered by Cantor's pairing of layer and index
FEATURE_TYPE = "cross layer transcoder"  # viewers show details of no other type

_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")
_SIGN = (
    "minus the effect of ablating the source (ablated - clean): positive where the source "
    "promotes the target; in activation units of the target's SAE, or nats of a logit"
)

_FLOW_SIGN = (
    "what the source contributes to the answer's score through the target alone (clean - ablated, "
    "path patching), in nats: positive where it supports the answer"
)


class Attribution(NamedTuple):
    """The file's JSON, and what is missing from it, one line each."""

    data: dict[str, Any]
    warnings: tuple[str, ...]
    ids: Mapping[FeatureId, str]


def attribution(
    graph: CausalGraph, *, annotations: Annotations = NO_ANNOTATIONS, scan: str | None = None
) -> Attribution:
    """The graph as attribution-graph JSON.

    Every token of the prompt is an embedding, and where no logit was a target, the likeliest next
    token is one without links: viewers draw an axis of tokens, and rows up to the logits, by these.
    `scan` says where a viewer finds the features, by default Neuronpedia's model.

    Pins and groups become the saved view, labels the features' names there. Viewers drop features
    that are at more than two thirds of the positions, so of such a feature the positions with the
    weakest effects are left out, which `warnings` says, with the pins and groups that lose them.
    Lost: anatomies, token effects, notes on features, components.

    Raises `SaeGraphsError` where the viewers would show nothing: without edges, or on one token.
    """
    _check(graph)
    places = {node.feature: place_of(graph, node) for node in graph.nodes}
    left_out, warnings = too_frequent(graph, places)
    warnings += lost_from_view(annotations, left_out)
    nodes = [node for node in graph.nodes if node.feature not in left_out]
    edges = [e for e in graph.edges if e.source not in left_out and e.target not in left_out]
    rows = _rows(graph, nodes)
    pages = _pages(nodes, rows)
    ids = {node.feature: _node_id(graph, node.feature, places, rows) for node in nodes}
    if scan is not None:
        pages = _Pages(None, None)
    metadata = _metadata(graph, annotations, rows, pages)
    data = {
        "metadata": metadata if scan is None else {**metadata, "scan": scan, "transcoder_list": []},
        "qParams": _saved_view(annotations, ids),
        "nodes": [
            _logit(graph, node, places[node.feature], rows, ids)
            if node.feature.is_output
            else _embedding(places[node.feature], node.token or "")
            if node.feature.is_token
            else _feature(graph, node, places[node.feature], rows, ids, annotations)
            for node in nodes
        ]
        + _others(graph, nodes, rows),
        "links": [_link(edge, ids) for edge in edges],
    }
    return Attribution(data, (*warnings, *pages.warnings), ids)


def cantor(x: int, y: int) -> int:
    """One number for a pair of them, as viewers number the feature `y` of layer `x`.

    >>> cantor(5, 10603)
    56280739
    """
    return (x + y) * (x + y + 1) // 2 + y


def _check(graph: CausalGraph) -> None:
    """Refuse what viewers would show as an empty page."""
    if len(graph.run.tokens) == 1:
        raise SaeGraphsError(
            "the prompt is one token, and viewers of attribution graphs drop what is at more than "
            "two thirds of the tokens, so they would show nothing; write another format"
        )
    if not graph.edges:
        raise SaeGraphsError(
            "the graph has no edges, so an attribution graph would show nothing; make one with "
            "more, such as with --min-path-edges 1"
        )


# -- layers and pages ------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """What layers are called there: label to number, whether those are the labels themselves, and
    the row of the logits."""

    numbers: Mapping[str, int]
    are_labels: bool
    logits: int


def _rows(graph: CausalGraph, nodes: Sequence[Node]) -> _Rows:
    """The labels where they are whole numbers that rise with depth, else depths.

    Neuronpedia needs a feature above row 0: where all are on it, rows are counted from 1.
    """
    labels = [layer.label for layer in graph.run.layers]
    used = {node.feature.layer for node in nodes if node.feature.is_feature}
    if all(_NUMBER.fullmatch(label) for label in labels):
        numbers = {label: int(label) for label in labels}
        rising = list(numbers.values()) == sorted(set(numbers.values()))
        if rising and max(numbers[label] for label in used) >= 1:
            return _Rows(numbers, True, max(numbers[label] for label in used) + 1)
    first = 0 if any(graph.depths[label] for label in used) else 1
    numbers = {label: graph.depths[label] + first for label in labels}
    return _Rows(numbers, False, max(numbers[label] for label in used) + 1)


class _Pages(NamedTuple):
    """The model on Neuronpedia, and the set of its SAEs; None where they are not there."""

    model: str | None
    source_set: str | None
    warnings: tuple[str, ...] = ()


def _pages(nodes: Sequence[Node], rows: _Rows) -> _Pages:
    """Where the viewers find what is known of the features: all in one set, or they find none."""
    found = [(n.feature, address_of(n)) for n in nodes if n.feature.is_feature]
    addresses = [(feature, address) for feature, address in found if address is not None]
    models = {address.model for _, address in addresses}
    if len(models) != 1 or len(addresses) < len(found):
        why = "not all features are of one model on Neuronpedia"
        return _Pages(None, None, (_no_pages(why),) if addresses else ())
    model = models.pop()
    parts = [(feature.layer, address.source.partition("-")) for feature, address in addresses]
    sets = {source_set for _, (_, _, source_set) in parts}
    if not rows.are_labels:
        return _Pages(model, None, (_no_pages("the layers there are numbered by depth"),))
    if len(sets) != 1 or "" in sets or any(label != found for label, (found, _, _) in parts):
        return _Pages(model, None, (_no_pages("the SAEs are not of one set, layer by layer"),))
    return _Pages(model, sets.pop())


def _no_pages(why: str) -> str:
    return f"viewers of the attribution graph will not find its features' pages: {why}"


# -- the parts of the file -------------------------------------------------------------------------


def _node_id(
    graph: CausalGraph, feature: FeatureId, places: Mapping[FeatureId, int], rows: _Rows
) -> str:
    place = places[feature]
    if feature.is_token:
        return f"E_{place}_{place}"
    if feature.is_output:
        return f"{rows.logits}_{graph.run.output(feature).token_id}_{place}"
    return f"{rows.numbers[feature.layer]}_{feature.index}_{place}"


def _others(graph: CausalGraph, nodes: Sequence[Node], rows: _Rows) -> list[dict[str, Any]]:
    """Tokens of the prompt that are no nodes of the graph, and a logit where it has none."""
    run = graph.run
    held = {node.feature.position for node in nodes if node.feature.is_token}
    found = [
        _embedding(place, token)
        for place, token in enumerate(run.tokens[: run.read_position + 1])
        if place not in held
    ]
    if not any(node.feature.is_output for node in nodes) and run.next_tokens:
        text, probability = run.next_tokens[0]
        output = OutputToken(0, text, 0.0, probability)  # a saved graph does not know its id
        node = Node(FeatureId(OUTPUT_LAYER, 0), 0.0, token=text)
        ids = {node.feature: f"{rows.logits}_0_{run.read_position}"}
        found.append(_logit(graph, node, run.read_position, rows, ids, output))
    return found


def _embedding(place: int, token: str) -> dict[str, Any]:
    """A token of the prompt: its number is its position, as a saved graph has no ids of tokens."""
    return {
        "node_id": f"E_{place}_{place}",
        "feature": place,
        "layer": "E",
        "ctx_idx": place,
        "feature_type": "embedding",
        "jsNodeId": f"E_{place}-{place}",
        "clerp": f'Token "{safe(token)}"',
        "run_idx": 0,
        "reverse_ctx_idx": 0,
    }


def _feature(
    graph: CausalGraph,
    node: Node,
    place: int,
    rows: _Rows,
    ids: Mapping[FeatureId, str],
    annotations: Annotations,
) -> dict[str, Any]:
    feature = node.feature
    row = rows.numbers[feature.layer]
    words = feature_words(graph.run, node, annotations.labels.get(feature))
    moved = feature.position is None and bool(node.activations)
    return {
        "node_id": ids[feature],
        "feature": cantor(row, feature.index),
        "layer": str(row),
        "ctx_idx": place,
        "feature_type": FEATURE_TYPE,
        "jsNodeId": f"{row}_{feature.index}-{place}",
        "clerp": words if rows.are_labels else f"{feature.layer}.{feature.index}: {words}",
        "activation": node.activations[place] if moved else node.activation,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
    }


def _logit(
    graph: CausalGraph,
    node: Node,
    place: int,
    rows: _Rows,
    ids: Mapping[FeatureId, str],
    output: OutputToken | None = None,
) -> dict[str, Any]:
    feature, run = node.feature, graph.run
    output = output or run.output(feature)
    here = place == run.read_position  # of other positions the probability is not known
    return {
        "node_id": ids[feature],
        "feature": output.token_id,
        "layer": str(rows.logits),
        "ctx_idx": place,
        "feature_type": "logit",
        "jsNodeId": f"L_{output.token_id}-{place}",
        "clerp": logit_words(output, None if here else place),
        **({"token_prob": output.probability} if here else {}),
        "is_target_logit": here and output is next(iter(run.outputs), output),
        "run_idx": 0,
        "reverse_ctx_idx": 0,
    }


def _link(edge: Edge, ids: Mapping[FeatureId, str]) -> dict[str, Any]:
    weight = -edge.effect if edge.flow is None else -edge.flow
    return {"source": ids[edge.source], "target": ids[edge.target], "weight": weight}


def _saved_view(annotations: Annotations, ids: Mapping[FeatureId, str]) -> dict[str, Any]:
    """Pins and groups as the viewers keep them; they show groups of pinned features alone."""
    grouped = [feature for group in annotations.groups for feature in group.features]
    pinned = dict.fromkeys((*annotations.pins, *grouped))
    groups = [
        [safe(group.name), *(ids[feature] for feature in group.features if feature in ids)]
        for group in annotations.groups
    ]
    return {
        "pinnedIds": [ids[feature] for feature in pinned if feature in ids],
        "supernodes": [group for group in groups if len(group) > 1],
        "linkType": "both",
        "clickedId": "",
        "sg_pos": "",
    }


def _metadata(
    graph: CausalGraph, annotations: Annotations, rows: _Rows, pages: _Pages
) -> dict[str, Any]:
    run = graph.run
    source_set = {} if pages.source_set is None else {"neuronpedia_source_set": pages.source_set}
    addresses = [f"{SITE}/{pages.model}/{pages.source_set}"] if source_set else []
    return {
        "slug": _slug(graph),
        "scan": pages.model or _name(PurePath(run.model).name, "model"),
        "schema_version": SCHEMA_VERSION,
        "prompt_tokens": [plain_text(token) for token in run.tokens],
        "prompt": plain_text(run.prompt),
        **({"feature_details": source_set} if source_set else {}),
        "info": {
            "description": _description(graph, annotations, rows),
            "source_urls": addresses,
            "generator": {"name": "sae-graphs", "version": __version__},
            **source_set,
        },
        "generation_settings": {
            "link_weight": sign_words(graph),
            "model": safe(run.model),
            "saes": safe(run.saes),
            "read_position": run.read_position,
            **plain(run.settings, {str: safe}),
        },
        "pruning_settings": {
            "kept_abs_effect": run.kept_abs_effect,
            "total_abs_effect": run.total_abs_effect,
        },
    }


def _description(graph: CausalGraph, annotations: Annotations, rows: _Rows) -> str:
    said = (annotations.title, annotations.caption, annotations.note)
    words = [safe(text) for text in said if text]
    words.append(
        "Measured effects of ablating features of sparse autoencoders on the residual stream, not "
        f"linear attributions. The weight of a link is {sign_words(graph)}."
    )
    if not graph.resolves_positions:
        words.append(
            "Features were ablated and read without a position of their own: each stands at the "
            f"token where effects are read ({graph.run.read_position}) if it is active there, "
            "else where it is most active."
        )
    if not rows.are_labels:
        named = ", ".join(f"{label} is {row}" for label, row in rows.numbers.items())
        words.append(f"Layers are numbered by depth: {named}.")
    return " ".join(words)


def sign_words(graph: CausalGraph) -> str:
    """What the weight of a link is."""
    return _SIGN if graph.run.answer is None else _FLOW_SIGN


def _slug(graph: CausalGraph) -> str:
    """A name for this prompt and this graph, which no other graph takes on the same site."""
    edges = "\n".join(map(repr, graph.edges)).encode("utf-8", "backslashreplace")
    digest = hashlib.sha256(edges).hexdigest()[:6]
    return f"{_name(graph.run.prompt.lower(), 'graph')[:40].strip('-.')}-{digest}"


def _name(text: str, otherwise: str) -> str:
    """The text with nothing but what a name may hold."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or otherwise
