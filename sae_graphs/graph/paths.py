"""Paths through a causal graph: which edges lie on long ones, and which paths are strongest.

Functions of edges alone. A graph points forward in depth, so it has no cycles and every question
here has an exact answer by one sweep in topological order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge


@dataclass(frozen=True)
class FeaturePath:
    """Edges that follow one another. Its strength is the total |effect| of its edges."""

    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        if not self.edges:
            raise SaeGraphsError("a path has at least one edge")
        for before, after in zip(self.edges, self.edges[1:], strict=False):
            if before.target != after.source:
                raise SaeGraphsError(f"not a path: {before} is followed by {after}")

    @property
    def features(self) -> tuple[FeatureId, ...]:
        """The features along the path, one more than edges."""
        return (self.edges[0].source, *(edge.target for edge in self.edges))

    @property
    def total_abs_effect(self) -> float:
        """The sum of |effect| along the path."""
        return math.fsum(abs(edge.effect) for edge in self.edges)

    def __str__(self) -> str:
        return self.words()

    def words(self, name: Callable[[FeatureId], str] = str) -> str:
        """The path as a sentence; `name` says what each feature is called in it."""
        words = [name(self.edges[0].source)]
        for edge in self.edges:
            words.append(f"{edge.sign} {name(edge.target)} ({edge.effect:+.3g})")
        return ", which ".join([f"{words[0]} {words[1]}", *words[2:]])


def digraph_of(edges: Iterable[Edge]) -> nx.DiGraph:
    """The edges as a networkx graph over `FeatureId`s; each holds its `Edge` as `edge`."""
    digraph = nx.DiGraph()
    digraph.add_edges_from((edge.source, edge.target, {"edge": edge}) for edge in edges)
    return digraph


def on_long_paths(edges: Sequence[Edge], min_path_edges: int) -> tuple[Edge, ...]:
    """The edges that lie on some directed path of at least `min_path_edges` edges, order kept.

    >>> a, b, c = (FeatureId(layer, 0) for layer in "012")
    >>> chain = [Edge(a, b, -1.0), Edge(b, c, -2.0), Edge(a, FeatureId("1", 7), 5.0)]
    >>> [str(edge) for edge in on_long_paths(chain, 2)]
    ['0.0 -> 1.0 (-1)', '1.0 -> 2.0 (-2)']
    """
    if min_path_edges < 1:
        raise SaeGraphsError(f"min_path_edges is {min_path_edges}; a path has at least 1 edge")
    digraph = digraph_of(edges)
    order = list(nx.topological_sort(digraph))
    longest_to = dict.fromkeys(order, 0)
    longest_from = dict.fromkeys(order, 0)
    for node in order:
        for after in digraph.successors(node):
            longest_to[after] = max(longest_to[after], longest_to[node] + 1)
    for node in reversed(order):
        for after in digraph.successors(node):
            longest_from[node] = max(longest_from[node], longest_from[after] + 1)
    return tuple(
        edge
        for edge in edges
        if longest_to[edge.source] + 1 + longest_from[edge.target] >= min_path_edges
    )


def strongest_paths(
    edges: Sequence[Edge],
    *,
    limit: int = 10,
    source: FeatureId | Collection[FeatureId] | None = None,
    target: FeatureId | Collection[FeatureId] | None = None,
    narrowest: bool = False,
) -> tuple[FeaturePath, ...]:
    """The `limit` paths with the largest total |effect|, strongest first.

    With `narrowest`, those whose weakest edge is the strongest, by what flows to the answer.

    Paths run from `source` to `target`, or from one of several to one of several; where one is not
    given, from features without predecessors, or to features without successors. Exact: the best
    `limit` paths into each feature are kept on one sweep forward. Ties go to the smaller feature
    names.
    """
    if limit < 1:
        raise SaeGraphsError(f"limit is {limit}; ask for at least 1 path")
    digraph = digraph_of(edges)
    first = (source,) if isinstance(source, FeatureId) else source
    last = (target,) if isinstance(target, FeatureId) else target
    empty = math.inf if narrowest else 0.0

    def joined(so_far: float, edge: Edge) -> float:
        return min(so_far, edge.strength) if narrowest else so_far + abs(edge.effect)

    best: dict[FeatureId, list[tuple[float, tuple[Edge, ...]]]] = {}
    for node in nx.topological_sort(digraph):
        starts = node in first if first is not None else digraph.in_degree(node) == 0
        ways: list[tuple[float, tuple[Edge, ...]]] = [(empty, ())] if starts else []
        for before in digraph.predecessors(node):
            edge: Edge = digraph.edges[before, node]["edge"]
            ways += [(joined(so_far, edge), (*path, edge)) for so_far, path in best[before]]
        best[node] = sorted(ways, key=_strength)[:limit]
    ends = [
        node
        for node in digraph
        if (node in last if last is not None else digraph.out_degree(node) == 0)
    ]
    found = [way for end in ends for way in best[end] if way[1]]
    return tuple(FeaturePath(path) for _, path in sorted(found, key=_strength)[:limit])


def _strength(way: tuple[float, tuple[Edge, ...]]) -> tuple[float, list[str]]:
    total, path = way
    return -total, [str(edge.target) for edge in path] + [str(edge.source) for edge in path[:1]]


def longest_path_edges(edges: Sequence[Edge]) -> int:
    """The number of edges on the longest path, 0 where there are no edges."""
    return int(nx.dag_longest_path_length(digraph_of(edges), weight=None)) if edges else 0
