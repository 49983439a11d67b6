"""What must hold for nodes and edges to be a causal graph of a run, and for a question to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.records import Edge, Node, RunRecord


def check_graph(run: RunRecord, nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
    """Each feature and edge once, in layers of the run, pointing forward in depth and never
    backward in position; positions everywhere or nowhere. Raises `SaeGraphsError`."""
    features = {node.feature for node in nodes}
    if len(features) != len(nodes):
        raise SaeGraphsError("a graph holds each feature once, got a feature twice")
    unknown = sorted({feature.layer for feature in features} - run.depths.keys())
    if unknown:
        raise SaeGraphsError(f"layers {quoted(unknown)} are not among {quoted(run.depths)}")
    if len({(edge.source, edge.target) for edge in edges}) != len(edges):
        raise SaeGraphsError("a graph holds each edge once, got an edge twice")
    for node in nodes:
        _check_node(run, node, nodes[0].feature)
    for edge in edges:
        _check_edge(run, edge, features)


def _check_node(run: RunRecord, node: Node, first: FeatureId) -> None:
    feature, n_tokens = node.feature, len(run.tokens)
    if feature != ANSWER and (feature.position is None) != (first.position is None):
        raise SaeGraphsError(f"all features have a position or none has, got {first} and {feature}")
    if feature.position is not None and feature.position >= n_tokens:
        raise SaeGraphsError(f"{feature} is outside the {n_tokens} tokens")
    if node.activations and len(node.activations) != n_tokens:
        raise SaeGraphsError(
            f"{feature} has {len(node.activations)} activations for {n_tokens} tokens"
        )
    if feature == ANSWER and run.answer is None:
        raise SaeGraphsError("a graph has an answer node, and its record no answer")
    if feature.is_output:
        run.output(feature)  # raises where the run has no such output token


def _check_edge(run: RunRecord, edge: Edge, features: Collection[FeatureId]) -> None:
    for end in (edge.source, edge.target):
        if end not in features:
            raise SaeGraphsError(f"edge {edge} ends in {end}, which is not a node")
    if run.depths[edge.source.layer] >= run.depths[edge.target.layer]:
        raise SaeGraphsError(f"edge {edge} does not point forward")
    if edge.target != ANSWER and (edge.source.position or 0) > (edge.target.position or 0):
        raise SaeGraphsError(f"edge {edge} points back to an earlier token")


# -- what a graph does not hold --------------------------------------------------------------------


def unknown_feature(
    wanted: FeatureId, features: Sequence[FeatureId], depths: Mapping[str, int]
) -> UnknownFeatureError:
    """The error for a feature that is not among a graph's: it says what there is instead."""
    if wanted.layer not in depths:
        held = quoted(depths, limit=20)
        return UnknownFeatureError(f"no SAE layer {wanted.layer!r} in this graph; it has {held}")
    same = [f for f in features if (f.layer, f.index) == (wanted.layer, wanted.index)]
    if same and wanted.position is not None and same[0].position is None:
        return UnknownFeatureError(f"this graph has no token positions; ask for {same[0]}")
    if same:
        only = "" if wanted.position is None else " only"
        places = quoted((feature.position for feature in same), limit=20)
        return UnknownFeatureError(
            f"{wanted.layer}.{wanted.index} is here{only} at positions {places}, got {wanted}; "
            f"name one, such as {same[0]}"
        )
    near = [str(feature) for feature in features if feature.layer == wanted.layer]
    return UnknownFeatureError(
        f"feature {wanted} is not in this graph; layer {wanted.layer} has "
        f"{quoted(near) or 'no features here'}"
    )
