"""`CausalGraph`: hold a measured graph and answer questions about it.

Nothing here knows torch: a saved graph opens anywhere, fast. Signs are those of the whole project:
an effect is *ablated minus clean*, in activation units of the target's SAE, so a negative effect
means that the source promotes the target.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.records import (
    Context,
    Edge,
    FeatureId,
    LayerReport,
    Node,
    RunRecord,
    Sign,
    TokenEffect,
    feature_order,
)

if TYPE_CHECKING:
    import pandas as pd

    from sae_graphs.paths import FeaturePath

__all__ = [
    "CausalGraph",
    "Context",
    "Edge",
    "FeatureId",
    "LayerReport",
    "Node",
    "RunRecord",
    "Sign",
    "TokenEffect",
    "assemble",
    "edge_order",
    "feature_order",
]


@dataclass(frozen=True, repr=False)
class CausalGraph:
    """Features and the measured effects between them, for one forward pass.

    Nodes are ordered by depth, then index; edges by |effect|, strongest first. Made by
    `sae_graphs.causal_graph` or `CausalGraph.load`.
    """

    run: RunRecord
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        depth, by_feature = self.depths, self._by_feature
        if len(by_feature) != len(self.nodes):
            raise SaeGraphsError("a graph holds each feature once, got a feature twice")
        unknown = sorted({f.layer for f in by_feature} - depth.keys())
        if unknown:
            raise SaeGraphsError(f"layers {quoted(unknown)} are not among {quoted(depth)}")
        if len({(edge.source, edge.target) for edge in self.edges}) != len(self.edges):
            raise SaeGraphsError("a graph holds each edge once, got an edge twice")
        for node in self.nodes:
            if node.activations and len(node.activations) != len(self.run.tokens):
                raise SaeGraphsError(
                    f"{node.feature} has {len(node.activations)} activations for "
                    f"{len(self.run.tokens)} tokens"
                )
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in by_feature:
                    raise SaeGraphsError(f"edge {edge} ends in {end}, which is not a node")
            if depth[edge.source.layer] >= depth[edge.target.layer]:
                raise SaeGraphsError(f"edge {edge} does not point forward")

    # -- what is in it ---------------------------------------------------------------------------

    @property
    def depths(self) -> Mapping[str, int]:
        """Layer label to depth, counted from 0 at the first SAE layer of the run."""
        return self.run.depths

    @cached_property
    def _by_feature(self) -> dict[FeatureId, Node]:
        return {node.feature: node for node in self.nodes}

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, feature: object) -> bool:
        try:
            return FeatureId.parse(feature) in self._by_feature  # type: ignore[arg-type]
        except SaeGraphsError:
            return False

    def __getitem__(self, feature: str | FeatureId) -> Node:
        return self._by_feature[self._known(feature)]

    def __repr__(self) -> str:
        return (
            f"CausalGraph({self.run.prompt!r}: {len(self.nodes)} features, {len(self.edges)} "
            f"edges, {self.n_components} components, {self.run.kept_share:.0%} of the effect)"
        )

    def _repr_svg_(self) -> str:
        # A notebook asks for this; drawing sits above this module, hence the late import.
        from sae_graphs.render import svg

        return svg(self)

    def _known(self, feature: str | FeatureId) -> FeatureId:
        wanted = FeatureId.parse(feature)
        if wanted in self._by_feature:
            return wanted
        if wanted.layer not in self.depths:
            held = quoted(self.depths, limit=20)
            raise UnknownFeatureError(f"no SAE layer {wanted.layer!r} in this graph; it has {held}")
        near = [str(f) for f in self._by_feature if f.layer == wanted.layer]
        raise UnknownFeatureError(
            f"feature {wanted} is not in this graph; layer {wanted.layer} has "
            f"{quoted(near) or 'no features here'}"
        )

    # -- edges -----------------------------------------------------------------------------------

    def edge(self, source: str | FeatureId, target: str | FeatureId) -> Edge:
        """The edge from `source` to `target`; raises `UnknownFeatureError` where there is none."""
        ends = self._known(source), self._known(target)
        for edge in self.edges:
            if (edge.source, edge.target) == ends:
                return edge
        raise UnknownFeatureError(
            f"no edge {ends[0]} -> {ends[1]} in this graph; {ends[0]} leads to "
            f"{quoted(self.successors(ends[0])) or 'nothing'}"
        )

    def find_edges(
        self,
        *,
        source: str | FeatureId | None = None,
        target: str | FeatureId | None = None,
        layer: str | int | None = None,
        sign: Sign | None = None,
        min_abs_effect: float = 0.0,
        component: int | None = None,
    ) -> tuple[Edge, ...]:
        """The edges that meet every condition, strongest first; `layer` is the source's."""
        if layer is not None and str(layer) not in self.depths:
            raise UnknownFeatureError(
                f"no SAE layer {str(layer)!r} in this graph; it has {quoted(self.depths, 20)}"
            )
        if sign not in (None, "promotes", "suppresses"):
            raise SaeGraphsError(f"sign {sign!r} is neither 'promotes' nor 'suppresses'")
        if component is not None and component not in self.component_numbers:
            raise SaeGraphsError(
                f"no component {component} in this graph; choose from "
                f"{quoted(self.component_numbers) or 'none: it has no edges'}"
            )
        start = None if source is None else self._known(source)
        end = None if target is None else self._known(target)
        return tuple(
            edge
            for edge in self.edges
            if (start is None or edge.source == start)
            and (end is None or edge.target == end)
            and (layer is None or edge.source.layer == str(layer))
            and (sign is None or edge.sign == sign)
            and (component is None or self[edge.source].component == component)
            and abs(edge.effect) >= min_abs_effect
        )

    # -- neighbours, paths, components -----------------------------------------------------------

    @cached_property
    def _digraph(self) -> nx.DiGraph:
        digraph = nx.DiGraph()
        digraph.add_nodes_from(node.feature for node in self.nodes)
        digraph.add_edges_from((edge.source, edge.target) for edge in self.edges)
        return digraph

    def _ordered(self, features: Iterable[FeatureId]) -> tuple[FeatureId, ...]:
        return tuple(sorted(features, key=self._order))

    def _order(self, feature: FeatureId) -> tuple[int, int, int]:
        return feature_order(feature, self.depths)

    def successors(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """The features that `feature` has an edge to."""
        return self._ordered(self._digraph.successors(self._known(feature)))

    def predecessors(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """The features that have an edge to `feature`."""
        return self._ordered(self._digraph.predecessors(self._known(feature)))

    def ancestors(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """Every feature from which a path leads to `feature`."""
        return self._ordered(nx.ancestors(self._digraph, self._known(feature)))

    def descendants(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """Every feature to which a path leads from `feature`."""
        return self._ordered(nx.descendants(self._digraph, self._known(feature)))

    def paths(
        self,
        source: str | FeatureId | None = None,
        target: str | FeatureId | None = None,
        *,
        limit: int = 10,
    ) -> tuple[FeaturePath, ...]:
        """The strongest paths (by total |effect|), between two features where they are given."""
        from sae_graphs.paths import strongest_paths  # paths reads graphs, hence the late import

        start = None if source is None else self._known(source)
        end = None if target is None else self._known(target)
        return strongest_paths(self.edges, limit=limit, source=start, target=end)

    @property
    def n_components(self) -> int:
        """How many weakly connected components the graph has."""
        return len(self.component_numbers)

    @cached_property
    def component_numbers(self) -> tuple[int, ...]:
        """The numbers of its components: 1, 2, ..., or a single one where it is a part."""
        return tuple(sorted({node.component for node in self.nodes}))

    def component(self, number: int) -> CausalGraph:
        """Component `number` (1 holds the most |effect|) as a graph of its own."""
        edges = self.find_edges(component=number)
        nodes = tuple(node for node in self.nodes if node.component == number)
        kept = sum(abs(edge.effect) for edge in edges)
        return CausalGraph(replace(self.run, kept_abs_effect=kept), nodes, edges)

    def components(self) -> tuple[CausalGraph, ...]:
        """All components, the one with the largest total |effect| first."""
        return tuple(self.component(number) for number in self.component_numbers)

    # -- views and files -------------------------------------------------------------------------

    def to_networkx(self) -> nx.DiGraph:
        """A networkx graph with the nodes, edges and attributes of `graph.json`."""
        from sae_graphs.graph_json import to_networkx

        return to_networkx(self)

    def to_pandas(self) -> pd.DataFrame:
        """One row an edge, strongest first: source, target, their layers, effect, component."""
        import pandas as pd

        columns = ["source", "target", "source_layer", "target_layer", "effect", "component"]
        rows = [
            (str(s), str(t), s.layer, t.layer, edge.effect, self[s].component)
            for edge in self.edges
            for s, t in [(edge.source, edge.target)]
        ]
        return pd.DataFrame(rows, columns=columns)

    def save(self, path: str | Path) -> Path:
        """Write `graph.json` (into `path` where it is a folder) in one step; returns the file."""
        from sae_graphs.graph_json import save

        return save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> CausalGraph:
        """Read a graph from its file or its run's folder; raises `GraphFileError`."""
        from sae_graphs.graph_json import load

        return load(path)


def assemble(run: RunRecord, nodes: Iterable[Node], edges: Iterable[Edge]) -> CausalGraph:
    """A graph with its components numbered and everything in its place.

    Nodes that no edge touches are left out; components (weakly connected) are numbered from 1 by
    total |effect|, ties by their first feature.
    """
    edges = sorted(edges, key=lambda edge: edge_order(edge, run.depths))
    known = {node.feature: node for node in nodes}
    undirected: nx.Graph = nx.Graph()
    undirected.add_edges_from((edge.source, edge.target) for edge in edges)
    strength: dict[FeatureId, float] = dict.fromkeys(undirected, 0.0)
    for edge in edges:
        strength[edge.source] += abs(edge.effect)

    def rank(component: set[FeatureId]) -> tuple[float, tuple[int, int, int]]:
        first = min(feature_order(feature, run.depths) for feature in component)
        return -math.fsum(strength[feature] for feature in component), first

    ordered = sorted(nx.connected_components(undirected), key=rank)
    number = {feature: n for n, component in enumerate(ordered, start=1) for feature in component}
    kept = [replace(known[feature], component=number[feature]) for feature in number]
    kept.sort(key=lambda node: feature_order(node.feature, run.depths))
    total = math.fsum(abs(edge.effect) for edge in edges)
    return CausalGraph(replace(run, kept_abs_effect=total), tuple(kept), tuple(edges))


def edge_order(edge: Edge, depths: Mapping[str, int]) -> tuple[Any, ...]:
    """Strongest first; ties by layer, source, target."""
    ends = feature_order(edge.source, depths), feature_order(edge.target, depths)
    return -abs(edge.effect), *ends
