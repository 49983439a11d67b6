"""What ablation supports, marked in a picture: by a check mark and a thick frame, not by hue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sae_graphs.graph import Edge, FeatureId, Node

CHECK = "✓"


@dataclass(frozen=True)
class Standing:
    """What was found of a component, in a few words: `supported, p = 0.005`."""

    supported: bool
    words: str


@dataclass(frozen=True)
class Marks:
    """Standings of components by number; features and arrows (their ends) on supported paths."""

    components: Mapping[int, Standing]
    features: frozenset[FeatureId] = frozenset()
    edges: frozenset[tuple[FeatureId, FeatureId]] = frozenset()

    def standing(self, component: int) -> Standing | None:
        """What was found of a component; None where it was not tested."""
        return self.components.get(component)

    def marks_node(self, node: Node) -> bool:
        """True where the feature is on a supported path."""
        return node.feature in self.features

    def marks_edge(self, edge: Edge) -> bool:
        """True where the arrow is on a supported path."""
        return (edge.source, edge.target) in self.edges


NO_MARKS = Marks({})
