"""A graph's components, numbered, and everything in its place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import networkx as nx

from sae_graphs.graph.feature_id import FeatureId, feature_order
from sae_graphs.graph.records import Edge, GraphParts, Node, RunRecord, edge_order


def numbered(
    run: RunRecord, nodes: Iterable[Node], edges: Iterable[Edge], *, alone: bool
) -> GraphParts:
    """Nodes and edges in order, components (weakly connected) numbered from 1.

    By total |effect| (on the answer, in its graph), ties by their first feature. Nodes that no edge
    touches are left out, unless they may stand `alone`. The run's `kept_abs_effect` becomes theirs.
    """
    edges = sorted(edges, key=lambda edge: edge_order(edge, run.depths))
    known = {node.feature: node for node in nodes}
    undirected: nx.Graph = nx.Graph()
    undirected.add_edges_from((edge.source, edge.target) for edge in edges)
    if alone:
        undirected.add_nodes_from(known)
    strength: dict[FeatureId, float] = dict.fromkeys(undirected, 0.0)
    for edge in edges:
        strength[edge.source] += edge.strength

    def rank(component: set[FeatureId]) -> tuple[float, tuple[int, int, int]]:
        first = min(feature_order(feature, run.depths) for feature in component)
        return -math.fsum(strength[feature] for feature in component), first

    ordered = sorted(nx.connected_components(undirected), key=rank)
    number = {feature: n for n, component in enumerate(ordered, start=1) for feature in component}
    kept = [replace(known[feature], component=number[feature]) for feature in number]
    kept.sort(key=lambda node: feature_order(node.feature, run.depths))
    total = kept_effect(run, kept, edges)
    return GraphParts(replace(run, kept_abs_effect=total), tuple(kept), tuple(edges))


def kept_effect(run: RunRecord, nodes: Iterable[Node], edges: Iterable[Edge]) -> float:
    """The total |effect| of the edges; in an answer graph, that of the kept features on it."""
    if run.answer is None:
        return math.fsum(abs(edge.effect) for edge in edges)
    return math.fsum(abs(node.effect_on_answer or 0.0) for node in nodes if not node.relay)
