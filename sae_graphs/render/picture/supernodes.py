"""Folded groups: several features drawn as one box, and which box each feature is drawn in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge, Node


@dataclass(frozen=True)
class Supernode:
    """A folded group: its members that are drawn, and the arrows among them, which are not.

    `key` is its name in the DOT source. It stands in the component of its first member, in the
    layer that most of its members are in, the later one of equals.
    """

    key: str
    name: str
    nodes: tuple[Node, ...]
    inside: tuple[Edge, ...]
    layer: str

    @property
    def component(self) -> int:
        """The smallest number of a member's component."""
        return min(node.component for node in self.nodes)

    @property
    def position(self) -> int | None:
        """The token of its last member in its layer; None without positions."""
        here = [node.feature for node in self.nodes if node.feature.layer == self.layer]
        return max((f.position for f in here if f.position is not None), default=None)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of its members, first to last."""
        return tuple(dict.fromkeys(node.feature.layer for node in self.nodes))


def supernodes(graph: CausalGraph, annotations: Annotations) -> tuple[Supernode, ...]:
    """The folded groups that have a member in the graph."""
    found = []
    for number, group in enumerate(annotations.groups, start=1):
        members = set(group.features) if group.folded else set()
        nodes = tuple(node for node in graph.nodes if node.feature in members)
        if not nodes:
            continue
        inside = tuple(edge for edge in graph.edges if {edge.source, edge.target} <= members)
        found.append(Supernode(f"group {number}", group.name, nodes, inside, _layer(graph, nodes)))
    return tuple(found)


def _layer(graph: CausalGraph, nodes: Sequence[Node]) -> str:
    counts = Counter(node.feature.layer for node in nodes)
    return max(counts, key=lambda label: (counts[label], graph.depths[label]))


@dataclass(frozen=True)
class Boxes:
    """Which box of a picture each feature is drawn in."""

    supernodes: tuple[Supernode, ...]

    @cached_property
    def _folded(self) -> dict[FeatureId, Supernode]:
        return {node.feature: each for each in self.supernodes for node in each.nodes}

    def of(self, feature: FeatureId) -> Supernode | None:
        """The folded group that a feature is drawn in; None where it has a box of its own."""
        return self._folded.get(feature)

    def key(self, feature: FeatureId) -> str:
        """The name of a feature's box in the DOT source."""
        folded = self.of(feature)
        return str(feature) if folded is None else folded.key

    def layer(self, feature: FeatureId) -> str:
        """The label of the layer that a feature's box stands in."""
        folded = self.of(feature)
        return feature.layer if folded is None else folded.layer

    def hides(self, edge: Edge) -> bool:
        """True where an arrow would start and end in the same box."""
        return self.key(edge.source) == self.key(edge.target)

    def upwards(self, edge: Edge, graph: CausalGraph) -> bool:
        """False where folding has an arrow lead sideways, down, or to another component."""
        ends = edge.source, edge.target
        low, high = (graph.depths[self.layer(end)] for end in ends)
        folded = [self.of(end) for end in ends]
        parts = {
            graph[end].component if each is None else each.component
            for end, each in zip(ends, folded, strict=True)
        }
        return low < high and len(parts) == 1
