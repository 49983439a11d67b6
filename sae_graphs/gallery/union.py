"""Two graphs as one, so that a layout of it puts the same feature at the same place for both."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from sae_graphs.graph.difference import GraphDifference, merged
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Edge, FeatureId, Node, RunRecord

Side = Literal["left", "right"]
Ends = tuple[FeatureId, FeatureId]
ARROWS = 600  # the strongest are drawn


class Union(NamedTuple):
    """The union, what of it each side holds, and how many arrows it has before it is cut.

    In `graph` an edge has the larger of its two effects, by |effect|.
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
        if ends not in strongest or abs(edge.effect) > abs(strongest[ends].effect):
            strongest[ends] = replace(edge, anatomy=None)
    kept = sorted(strongest.values(), key=lambda edge: -abs(edge.effect))[:ARROWS]
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
