"""Which part of a large graph a static picture draws: its strongest paths; the rest is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from sae_graphs.graph import CausalGraph, Edge, FeatureId
from sae_graphs.paths import FeaturePath, digraph_of
from sae_graphs.render.text import counted

DRAWN_BOXES = 60  # more cannot be read in one picture


@dataclass(frozen=True)
class Excerpt:
    """What is drawn of a graph, and how many features are not: by component and layer.

    `drawn` keeps the run's record and the numbers of components; all of its numbers are those of
    `whole`.
    """

    whole: CausalGraph
    drawn: CausalGraph
    left_out: Mapping[tuple[int, str], int] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """True where nothing is left out."""
        return len(self.drawn) == len(self.whole)

    @property
    def undrawn_components(self) -> tuple[int, ...]:
        """Components of which nothing is drawn."""
        return tuple(sorted(set(self.whole.component_numbers) - set(self.drawn.component_numbers)))

    def words(self) -> str:
        """What is drawn of how much, and where the rest is; empty where all is drawn."""
        if self.is_whole:
            return ""
        drawn, whole = (
            sum(not node.feature.is_output for node in graph.nodes)
            for graph in (self.drawn, self.whole)
        )
        told = (
            f"{drawn} of {counted(whole, 'feature')} and {len(self.drawn.edges)} of "
            f"{counted(len(self.whole.edges), 'arrow')} drawn: those of the strongest paths; "
            "see graph.html or graph.json for all of them"
        )
        if missing := len(self.undrawn_components):
            told += f". {counted(missing, 'graph')} of {self.whole.n_components} "
            told += "is" if missing == 1 else "are"
            told += " not drawn at all"
        return told


def excerpt(
    graph: CausalGraph, *, always: Collection[FeatureId] = (), limit: int | None = DRAWN_BOXES
) -> Excerpt:
    """A graph of more than `limit` boxes cut down to its strongest paths.

    Whole paths are added in the order of their total |effect|, from features without predecessors
    to features without successors, until the next one would not fit; those through the features of
    `always` come first, and these features are drawn whatever the room. So are output tokens that a
    drawn feature has an arrow to, and the first path. With the features come all arrows between
    them. No `limit`: everything.
    """
    if limit is None or len(graph) <= limit:
        return Excerpt(graph, graph)
    kept = {feature for feature in always if feature in graph}
    ways = strongest_through(graph.edges)
    wanted = [way for feature, way in ways.items() if feature in kept]
    for way in (*wanted, *ways.values()):
        more = kept.union(way.features)
        if len(more) > limit and kept:
            break
        kept = more
    kept |= {edge.target for edge in graph.edges if edge.target.is_output and edge.source in kept}
    drawn = replace(
        graph,
        nodes=tuple(node for node in graph.nodes if node.feature in kept),
        edges=tuple(edge for edge in graph.edges if {edge.source, edge.target} <= kept),
    )
    shown = set(drawn.component_numbers)
    left = Counter(
        (node.component, node.feature.layer)
        for node in graph.nodes
        if node.feature not in kept and node.component in shown
    )
    return Excerpt(graph, drawn, left)


def strongest_through(edges: Sequence[Edge]) -> dict[FeatureId, FeaturePath]:
    """The strongest path through each feature, features in the order of their paths' strength.

    The order in which features first occur in all paths, the strongest path first, without listing
    these: there may be millions.
    """
    digraph = digraph_of(edges)
    order = list(nx.topological_sort(digraph))
    into: dict[FeatureId, tuple[float, tuple[Edge, ...]]] = {}
    for node in order:
        ways = [
            (into[edge.source][0] + abs(edge.effect), (*into[edge.source][1], edge))
            for _, _, edge in digraph.in_edges(node, data="edge")
        ]
        into[node] = max(ways, key=_rank, default=(0.0, ()))
    onward: dict[FeatureId, tuple[float, tuple[Edge, ...]]] = {}
    for node in reversed(order):
        ways = [
            (abs(edge.effect) + onward[edge.target][0], (edge, *onward[edge.target][1]))
            for _, _, edge in digraph.out_edges(node, data="edge")
        ]
        onward[node] = max(ways, key=_rank, default=(0.0, ()))
    found = {node: FeaturePath((*into[node][1], *onward[node][1])) for node in order}
    ordered = sorted(found, key=lambda node: (-found[node].total_abs_effect, str(node)))
    return {node: found[node] for node in ordered}


def _rank(way: tuple[float, tuple[Edge, ...]]) -> tuple[float, list[str]]:
    return way[0], [str(edge) for edge in way[1]]
