"""Which part of a large graph a static picture draws: its strongest paths; the rest is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.paths import FeaturePath, digraph_of
from sae_graphs.graph.records import Edge
from sae_graphs.words import counted

DRAWN_BOXES = 60  # more cannot be read in one picture
LAYER_BOXES = 10  # more side by side make a picture so wide that its text is too small


@dataclass(frozen=True)
class Excerpt:
    """What is drawn of a graph, and how many features are not: by component and layer.

    `drawn` keeps the run's record and the numbers of components; all of its numbers are those of
    `whole`. `crowded` where paths were passed over because a layer was full (`LAYER_BOXES`).
    """

    whole: CausalGraph
    drawn: CausalGraph
    left_out: Mapping[tuple[int, str], int] = field(default_factory=dict)
    crowded: bool = False

    @property
    def is_whole(self) -> bool:
        """True where nothing is left out."""
        return len(self.drawn) == len(self.whole)

    @property
    def undrawn_components(self) -> tuple[int, ...]:
        """Components of which nothing is drawn."""
        return tuple(sorted(set(self.whole.component_numbers) - set(self.drawn.component_numbers)))

    def words(self, where: str) -> str:
        """What is drawn of how much, and `where` the rest is; empty where all is drawn."""
        if self.is_whole:
            return ""
        drawn, whole = (
            sum(node.feature.is_feature for node in graph.nodes)
            for graph in (self.drawn, self.whole)
        )
        full = f", passed over where a layer has {LAYER_BOXES} boxes already"
        told = (
            f"{drawn} of {counted(whole, 'feature')} and {len(self.drawn.edges)} of "
            f"{counted(len(self.whole.edges), 'arrow')} drawn: those of the strongest paths"
            f"{full if self.crowded else ''}; {where}"
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
    to features without successors, until the next one would not fit. One that would give a layer
    of its component more than `LAYER_BOXES` boxes is passed over, so that a picture shows whole
    paths rather than the many weak ends of a few. Paths through the features of `always` come
    first. These features themselves are drawn whatever the room, however many there are; so are
    output tokens that a drawn feature has an arrow to, and the first path. With the features come
    all arrows between them. No `limit`: everything.
    """
    if limit is None or len(graph) <= limit:
        return Excerpt(graph, graph)
    kept = {feature for feature in always if feature in graph}
    ways = strongest_through(graph.edges)
    wanted = [way for feature, way in ways.items() if feature in kept]
    crowded = False
    for way in (*wanted, *ways.values()):
        more = kept.union(way.features)
        if len(more) > limit and kept:
            break
        if _crowds(graph, kept, way):
            crowded = True
        else:
            kept = more
    kept |= {edge.target for edge in graph.edges if edge.target.is_output and edge.source in kept}
    kept |= {edge.source for edge in graph.edges if edge.source.is_token and edge.target in kept}
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
    return Excerpt(graph, drawn, left, crowded)


def _crowds(graph: CausalGraph, kept: Collection[FeatureId], way: FeaturePath) -> bool:
    """Whether a path adds a box to a layer that is full."""
    component = graph[way.features[0]].component
    full = Counter(each.layer for each in kept if graph[each].component == component)
    new = (feature for feature in way.features if feature not in kept)
    return any(full[feature.layer] >= LAYER_BOXES for feature in new)


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
            (into[edge.source][0] + edge.strength, (*into[edge.source][1], edge))
            for _, _, edge in digraph.in_edges(node, data="edge")
        ]
        into[node] = max(ways, key=_rank, default=(0.0, ()))
    onward: dict[FeatureId, tuple[float, tuple[Edge, ...]]] = {}
    for node in reversed(order):
        ways = [
            (edge.strength + onward[edge.target][0], (edge, *onward[edge.target][1]))
            for _, _, edge in digraph.out_edges(node, data="edge")
        ]
        onward[node] = max(ways, key=_rank, default=(0.0, ()))
    found = {node: FeaturePath((*into[node][1], *onward[node][1])) for node in order}
    ordered = sorted(found, key=lambda node: (-found[node].total_abs_effect, str(node)))
    return {node: found[node] for node in ordered}


def _rank(way: tuple[float, tuple[Edge, ...]]) -> tuple[float, list[str]]:
    return way[0], [str(edge) for edge in way[1]]
