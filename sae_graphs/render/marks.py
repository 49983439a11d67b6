"""What tests support, marked in a picture: by a check mark and a thick frame, not by hue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge, Node

Ends = tuple[FeatureId, FeatureId]


CHECK = "✓"
LEAST_SHARE = 0.1  # of the change: a feature or an arrow of less is not ticked


@dataclass(frozen=True)
class Standing:
    """What was found of a component, in a few words: `no effect on the target, p = 0.4`."""

    supported: bool
    words: str


@dataclass(frozen=True)
class Marks:
    """Standings of components by number, and what is ticked: features, arrows by their ends.

    Features are those of supported components and paths, arrows those through which path patching
    measured a share (see `LEAST_SHARE`). `subtitle` are lines below the picture's title.
    """

    components: Mapping[int, Standing]
    features: frozenset[FeatureId] = frozenset()
    edges: frozenset[tuple[FeatureId, FeatureId]] = frozenset()
    subtitle: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """What the ticks in this picture mean, in sentences."""
        if not self.features:
            return "The graph, as tested: no component or path is supported, so nothing is ticked."
        boxes = (
            f"The graph, as tested. {CHECK} on a box: its feature is part of a component or path "
            "that was tested and matters, beyond controls of its size; where each feature was left "
            f"in place in turn, it undoes at least {LEAST_SHARE:.0%} of the change."
        )
        arrows = (
            f"{CHECK} on an arrow: path patching measured that at least {LEAST_SHARE:.0%} of what "
            "its source does flows through it."
        )
        return f"{boxes} {arrows}" if self.edges else f"{boxes} No arrow is ticked."

    def standing(self, component: int) -> Standing | None:
        """What was found of a component; None where it was not tested."""
        return self.components.get(component)

    def marks_node(self, node: Node) -> bool:
        """True where the feature is ticked."""
        return node.feature in self.features

    def marks_edge(self, edge: Edge) -> bool:
        """True where the arrow is ticked."""
        return (edge.source, edge.target) in self.edges


NO_MARKS = Marks({})


@dataclass(frozen=True)
class Finding:
    """A component or a path that was tested: `verdict` in a word or two, `words` in full.

    `needed` is, for each feature, the share of the whole change that is gone where it alone is left
    in place; `carried`, for each arrow, the share of what its source does that flows through it.
    Both 1 for all of it; empty where they were not measured. `anchor` leads to it in the report.
    """

    name: str
    kind: Literal["component", "path"]
    component: int
    features: tuple[FeatureId, ...]
    verdict: str
    supported: bool
    words: str
    needed: Mapping[FeatureId, float] = field(default_factory=dict)
    carried: Mapping[Ends, float] = field(default_factory=dict)
    anchor: str = ""
